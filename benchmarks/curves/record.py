"""Records the learning curves in this folder: every point of three grids trained for real, epoch by epoch.

    .venv/bin/python benchmarks/curves/record.py [NAME ...]

A grid is a search space whose every point was trained, so a simulated search looks its results up and nothing is
interpolated. Each `<name>.npz` holds `values` (one row a point, one column an epoch, on held-out data), `axes` (JSON:
the parameters in their order with their values) and `mode`. The data sets are in scikit-learn itself.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor

HERE = Path(__file__).parent


class Task(NamedTuple):
    """What is trained: the grid's axes, how many epochs, and the curve of one point."""

    axes: dict[str, list[Any]]
    epochs: int
    mode: str
    curve: Callable[[dict[str, Any], int], Iterator[float]]


def digits() -> Any:
    """The bundled digits: 1,347 images to learn from and 450 to be judged by."""
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images / 16, labels, test_size=0.25, random_state=0, stratify=labels)


def mlp_digits(p: dict[str, Any], epochs: int) -> Iterator[float]:
    """Accuracy of a perceptron with one hidden layer."""
    train, test, train_labels, test_labels = digits()
    model = MLPClassifier(
        hidden_layer_sizes=(int(2 ** p["log2_width"]),),
        solver="sgd",
        learning_rate_init=10 ** p["log10_lr"],
        momentum=p["momentum"],
        alpha=10 ** p["log10_alpha"],
        batch_size=64,
        random_state=0,
    )
    for _ in range(epochs):
        model.partial_fit(train, train_labels, classes=np.arange(10))
        yield model.score(test, test_labels)


def sgd_digits(p: dict[str, Any], epochs: int) -> Iterator[float]:
    """Accuracy of linear classifiers, one a digit."""
    train, test, train_labels, test_labels = digits()
    model = SGDClassifier(
        loss="log_loss",
        penalty=p["penalty"],
        alpha=10 ** p["log10_alpha"],
        learning_rate="constant",
        eta0=10 ** p["log10_lr"],
        random_state=0,
    )
    for _ in range(epochs):
        model.partial_fit(train, train_labels, classes=np.arange(10))
        yield model.score(test, test_labels)


def mlp_diabetes(p: dict[str, Any], epochs: int) -> Iterator[float]:
    """Mean squared error of a perceptron that predicts the course of a disease, in units of the target's variance."""
    inputs, targets = load_diabetes(return_X_y=True)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    targets = (targets - targets.mean()) / targets.std()
    train, test, train_targets, test_targets = train_test_split(inputs, targets, test_size=0.25, random_state=0)
    model = MLPRegressor(
        hidden_layer_sizes=(int(2 ** p["log2_width"]),),
        activation=p["activation"],
        solver="sgd",
        learning_rate_init=10 ** p["log10_lr"],
        momentum=p["momentum"],
        alpha=10 ** p["log10_alpha"],
        batch_size=32,
        random_state=0,
    )
    for _ in range(epochs):
        try:
            model.partial_fit(train, train_targets)
            error = float(np.mean((model.predict(test) - test_targets) ** 2))
        except ValueError as raised:
            if "non-finite" not in str(raised):
                raise
            error = float("inf")  # it diverged
        yield min(error, 1e6)


TASKS = {
    "mlp_digits": Task(
        {
            "log2_width": [3.0, 4.0, 5.0, 6.0],
            "log10_lr": [-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5],
            "momentum": [0.0, 0.45, 0.9],
            "log10_alpha": [-5.0, -3.0, -1.0],
        },
        27,
        "maximize",
        mlp_digits,
    ),
    "sgd_digits": Task(
        {
            "penalty": ["l1", "l2", "elasticnet"],
            "log10_alpha": [-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0],
            "log10_lr": [-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0],
        },
        81,
        "maximize",
        sgd_digits,
    ),
    "mlp_diabetes": Task(
        {
            "log2_width": [2.0, 4.0, 6.0],
            "activation": ["relu", "tanh"],
            "log10_lr": [-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5],
            "momentum": [0.0, 0.45, 0.9],
            "log10_alpha": [-4.0, -1.0],
        },
        81,
        "minimize",
        mlp_diabetes,
    ),
}


def main() -> None:
    """Train every point of the grids that are named, or of all."""
    warnings.filterwarnings("ignore")  # curves that diverge are part of the record
    for name in sys.argv[1:] or TASKS:
        task, began = TASKS[name], time.monotonic()
        points = [dict(zip(task.axes, each, strict=True)) for each in itertools.product(*task.axes.values())]
        values = np.array([list(task.curve(point, task.epochs)) for point in points], dtype=np.float32)
        path = HERE / f"{name}.npz"
        np.savez_compressed(path, values=values, axes=np.array(json.dumps(task.axes)), mode=np.array(task.mode))
        took = time.monotonic() - began
        print(f"{name}: {len(points)} curves of {task.epochs} epochs, {path.stat().st_size:,} bytes, {took:.0f} s")


if __name__ == "__main__":
    main()
