"""One trial of the quickstart: a two-layer perceptron on scikit-learn's bundled digits, trained by SGD with momentum.

The search space is that of NNI's quickstart: `features` (width of the hidden layers), `lr` and `momentum`. The data are
1,797 images of 8 x 8 pixels (in scikit-learn itself, nothing is downloaded); a quarter of them is kept for the test.
Reported are the accuracy on these after each epoch, and the last one as the result.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: trials side by side must not fight for the cores

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import tune

DEFAULTS = {"features": 512, "lr": 0.01, "momentum": 0.9}  # for `python trial.py` by hand, without an experiment


def main() -> None:
    """Take parameters, train, report."""
    parser = argparse.ArgumentParser(description="One trial on the bundled digits.")
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs

    parameters = {**DEFAULTS, **tune.get_next_parameter()}

    images, labels = load_digits(return_X_y=True)
    split = train_test_split((images / 16).astype(np.float32), labels, test_size=0.25, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    model = MLPClassifier(
        hidden_layer_sizes=(parameters["features"], parameters["features"]),
        solver="sgd",
        learning_rate_init=parameters["lr"],
        momentum=parameters["momentum"],
        nesterovs_momentum=False,
        batch_size=64,
        random_state=0,
    )
    accuracy = 0.0
    for _ in range(epochs):
        model.partial_fit(train_images, train_labels, classes=np.arange(10))
        accuracy = float(model.score(test_images, test_labels))
        tune.report_intermediate_result(accuracy)
    tune.report_final_result(accuracy)


if __name__ == "__main__":
    main()
