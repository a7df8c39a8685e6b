"""One trial with inherited weights: a small network on scikit-learn's digits, trained for a few epochs.

`restore_path` and `save_path` come with the parameters. The weights are saved before the result is reported, under
their name only when they are complete, so that whoever hears of the result can read them.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: trials side by side must not fight for the cores

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tune.nni as nni

DEFAULTS = {"lr": 0.05, "momentum": 0.9, "save_path": None, "restore_path": None}  # run by hand
HIDDEN = 32


def new_weights():
    """Glorot's uniform draw for 64 -> HIDDEN -> 10."""
    draw = np.random.default_rng(0)
    layers = [(64, HIDDEN), (HIDDEN, 10)]
    weights = {}
    for index, (wide, narrow) in enumerate(layers):
        limit = np.sqrt(6 / (wide + narrow))
        weights[f"w{index}"] = draw.uniform(-limit, limit, (wide, narrow))
        weights[f"b{index}"] = np.zeros(narrow)
    return weights


def forward(weights, images):
    """The hidden layer and the probabilities of the classes."""
    hidden = np.maximum(images @ weights["w0"] + weights["b0"], 0)
    scores = hidden @ weights["w1"] + weights["b1"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def train(weights, images, labels, lr, momentum, order):
    """One epoch of stochastic gradient descent with momentum, in batches of 64."""
    speed = {name: np.zeros_like(value) for name, value in weights.items()}
    for batch in np.array_split(order, len(order) // 64):
        hidden, found = forward(weights, images[batch])
        found[np.arange(len(batch)), labels[batch]] -= 1
        found /= len(batch)
        back = (found @ weights["w1"].T) * (hidden > 0)
        gradients = {
            "w0": images[batch].T @ back,
            "b0": back.sum(axis=0),
            "w1": hidden.T @ found,
            "b1": found.sum(axis=0),
        }
        for name, gradient in gradients.items():
            speed[name] = momentum * speed[name] - lr * gradient
            weights[name] += speed[name]


def main() -> None:
    """Restore, train, save, report: in this order."""
    parser = argparse.ArgumentParser(description="One trial that goes on with another one's weights.")
    parser.add_argument("--epochs", type=int, default=2)
    epochs = parser.parse_args().epochs
    parameters = {**DEFAULTS, **nni.get_next_parameters()}

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split

    if parameters["restore_path"] is None:
        weights = new_weights()
    else:
        with np.load(parameters["restore_path"]) as saved:
            weights = dict(saved)
    draw = np.random.default_rng(nni.get_sequence_id())
    accuracy = 0.0
    for _ in range(epochs):
        order = draw.permutation(len(train_images))
        train(weights, train_images, train_labels, parameters["lr"], parameters["momentum"], order)
        accuracy = float((forward(weights, test_images)[1].argmax(axis=1) == test_labels).mean())
        nni.report_intermediate_result(accuracy)

    if parameters["save_path"] is not None:
        path = Path(parameters["save_path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(unfinished, **weights)
        unfinished.rename(path)
    nni.report_final_result({"default": accuracy, "inherited": parameters["restore_path"] is not None})


if __name__ == "__main__":
    main()
