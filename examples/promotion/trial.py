"""One trial that can be continued: a perceptron on scikit-learn's bundled digits, trained up to TRIAL_BUDGET epochs.

It begins where the checkpoint in `load_checkpoint_dir` ends, if there is one, and leaves its own in
`save_checkpoint_dir`, which a promotion continues. The checkpoint holds the whole model with the optimizer's state and
its random numbers, so training in three trials gives the same as training in one.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: trials side by side must not fight for the cores

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import tune

# for `python trial.py` by hand, without an experiment
DEFAULTS = {"features": 64, "lr": 0.1, "momentum": 0.9, "TRIAL_BUDGET": 9}


def main() -> None:
    """Take parameters, go on with the checkpoint, train, save, report."""
    parameters = {**DEFAULTS, **tune.get_next_parameter()}
    images, labels = load_digits(return_X_y=True)
    split = train_test_split((images / 16).astype(np.float32), labels, test_size=0.25, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split

    model, epoch = loaded(parameters.get("load_checkpoint_dir")) or (new_model(parameters), 0)
    print(f"begins after epoch {epoch}")
    while epoch < parameters["TRIAL_BUDGET"]:
        model.partial_fit(train_images, train_labels, classes=np.arange(10))
        epoch += 1
        tune.report_intermediate_result(model.score(test_images, test_labels))
    if "save_checkpoint_dir" in parameters:
        save(parameters["save_checkpoint_dir"], (model, epoch))
    tune.report_final_result(model.score(test_images, test_labels))  # last: another trial may now go on from here


def new_model(parameters: dict[str, Any]) -> MLPClassifier:
    """A model that was not trained yet."""
    return MLPClassifier(
        hidden_layer_sizes=(parameters["features"],),
        solver="sgd",
        learning_rate_init=parameters["lr"],
        momentum=parameters["momentum"],
        batch_size=64,
        random_state=0,
    )


def loaded(folder: str | None) -> Any:
    """The model and its number of epochs, or None where nothing was saved."""
    path = Path(folder or ".") / "checkpoint.joblib"
    return joblib.load(path) if folder and path.exists() else None


def save(folder: str, content: Any) -> None:
    """Write a checkpoint that is whole or not there, whenever this process is killed."""
    path = Path(folder) / "checkpoint.joblib"
    joblib.dump(content, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    main()
