"""Real tuning tasks: cross-validated losses of scikit-learn models on data that comes with it, measured on a grid once.

`python grids.py` measures what `grids.npz` lacks (minutes). Between the nodes a loss is interpolated linearly in each
(log-)parameter, so the optimum is a node and exactly known, and a look-up costs microseconds. Losses: log loss, or root
mean squared error over the target's standard deviation.
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from parameters import Parameter, cat

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = Path(__file__).with_name("grids.npz")
WORST = 5.0  # a loss at most; also of a fit that fails


def log_nodes(low: float, high: float, count: int) -> list[float]:
    """Evenly spaced in the logarithm."""
    return np.exp(np.linspace(math.log(low), math.log(high), count)).tolist()


def log_axis(name: str, low: float, high: float, count: int) -> tuple[Parameter, list[float]]:
    """A float on a log scale with its nodes."""
    return Parameter(name, "float", low, high, log=True), log_nodes(low, high, count)


def int_axis(name: str, *nodes: int, log: bool = False, parent: Any = None) -> tuple[Parameter, list[float]]:
    """An int with its nodes."""
    return Parameter(name, "int", nodes[0], nodes[-1], log=log, parent=parent), list(nodes)


def cat_axis(name: str, *choices: str) -> tuple[Parameter, list[float]]:
    """A choice; its nodes are its values."""
    return cat(name, *choices), []


@dataclass(frozen=True)
class Task:
    """A model, its data and its axes. `answer`: how the model says what it thinks."""

    data: str
    axes: list[tuple[Parameter, list[float]]]
    model: Callable[[dict[str, Any]], Any]
    answer: str  # "decision", "probability" or "number"
    folds: int
    rows: int | None = None
    grid: list[list[Any]] = field(init=False)

    def __post_init__(self) -> None:
        grid = [list(parameter.choices) if parameter.kind == "cat" else nodes for parameter, nodes in self.axes]
        object.__setattr__(self, "grid", grid)


def support_vectors(data: str) -> Task:
    """SVC over three kernels."""

    def model(c: dict[str, Any]) -> Any:
        from sklearn.svm import SVC

        return SVC(kernel=c["kernel"], C=c["C"], gamma=c["gamma"], degree=int(c.get("degree", 3)), max_iter=2000)

    axes = [
        cat_axis("kernel", "rbf", "poly", "sigmoid"),
        log_axis("C", 1e-3, 1e3, 9),
        log_axis("gamma", 1e-5, 10, 9),
        int_axis("degree", 2, 3, 4, parent=("kernel", ("poly",))),
    ]
    return Task(data, axes, model, "decision", 3)


def radial_vectors(data: str, rows: int) -> Task:
    """SVC with its usual kernel: two numbers."""

    def model(c: dict[str, Any]) -> Any:
        from sklearn.svm import SVC

        return SVC(C=c["C"], gamma=c["gamma"], max_iter=2000)

    return Task(data, [log_axis("C", 1e-2, 1e3, 11), log_axis("gamma", 1e-5, 1, 11)], model, "decision", 3, rows)


def boosting(data: str) -> Task:
    """Gradient boosting, a regression."""

    def model(c: dict[str, Any]) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            learning_rate=c["lr"],
            max_leaf_nodes=int(c["leaves"]),
            min_samples_leaf=int(c["minleaf"]),
            l2_regularization=c["l2"],
            max_features=c["maxfeat"],
            max_iter=30,
            random_state=0,
            early_stopping=False,
        )

    axes = [
        log_axis("lr", 0.01, 1, 6),
        int_axis("leaves", 2, 4, 8, 16, 32, log=True),
        int_axis("minleaf", 1, 4, 16, 64, log=True),
        log_axis("l2", 1e-3, 100, 4),
        (Parameter("maxfeat", "float", 0.2, 1.0), [0.2, 0.6, 1.0]),
    ]
    return Task(data, axes, model, "number", 2)


def perceptron(data: str, rows: int | None, epochs: int) -> Task:
    """A network of one hidden layer."""

    def model(c: dict[str, Any]) -> Any:
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(
            (int(c["hidden"]),),
            activation=c["act"],
            learning_rate_init=c["lr"],
            alpha=c["alpha"],
            batch_size=int(c["batch"]),
            max_iter=epochs,
            random_state=0,
        )

    axes = [
        cat_axis("act", "relu", "tanh"),
        log_axis("lr", 1e-4, 0.3, 7),
        int_axis("hidden", 4, 12, 40, 128, log=True),
        log_axis("alpha", 1e-6, 1, 4),
        int_axis("batch", 16, 64, 256, log=True),
    ]
    return Task(data, axes, model, "probability", 1, rows)


def forest(data: str) -> Task:
    """A random forest of twelve trees."""

    def model(c: dict[str, Any]) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(
            12,
            max_depth=int(c["depth"]),
            max_features=c["maxfeat"],
            min_samples_leaf=int(c["minleaf"]),
            criterion=c["crit"],
            bootstrap=c["boot"] == "yes",
            random_state=0,
        )

    axes = [
        int_axis("depth", 1, 3, 6, 10, 20),
        (Parameter("maxfeat", "float", 0.05, 1.0), [0.05, 0.15, 0.3, 0.6, 1.0]),
        int_axis("minleaf", 1, 3, 9, 30, log=True),
        cat_axis("crit", "gini", "entropy"),
        cat_axis("boot", "yes", "no"),
    ]
    return Task(data, axes, model, "probability", 2)


def kernel_ridge(data: str) -> Task:
    """Ridge regression with a kernel."""

    def model(c: dict[str, Any]) -> Any:
        from sklearn.kernel_ridge import KernelRidge

        return KernelRidge(kernel=c["kernel"], alpha=c["alpha"], gamma=c["gamma"], degree=int(c.get("degree", 3)))

    axes = [
        cat_axis("kernel", "rbf", "laplacian", "poly"),
        log_axis("alpha", 1e-4, 100, 9),
        log_axis("gamma", 1e-4, 10, 9),
        int_axis("degree", 1, 2, 3, 4, parent=("kernel", ("poly",))),
    ]
    return Task(data, axes, model, "number", 3)


TASKS: dict[str, Task] = {
    "svm_wine": support_vectors("wine"),
    "gb_diabetes": boosting("diabetes"),
    "mlp_digits": perceptron("digits", 700, 8),
    "rf_cancer": forest("breast_cancer"),
    "svm_digits": radial_vectors("digits", 500),
    "kr_diabetes": kernel_ridge("diabetes"),
    "svm_cancer": support_vectors("breast_cancer"),
    "mlp_wine": perceptron("wine", None, 30),
    "rf_iris": forest("iris"),
}


def table(name: str) -> Any:
    """The measured losses of a task, one axis a parameter."""
    with np.load(FILE) as tables:
        return tables[name]


def interpolate(losses: Any, axes: list[tuple[Parameter, list[float]]], configuration: dict[str, Any]) -> float:
    """The loss between the nodes; along an inactive axis it is constant."""
    for parameter, nodes in axes:
        if parameter.name not in configuration:
            losses = losses[0]
        elif parameter.kind == "cat":
            losses = losses[parameter.choices.index(configuration[parameter.name])]
        else:
            scale: Any = np.log if parameter.log else np.asarray
            x, places = float(scale(configuration[parameter.name])), scale(nodes)
            left = min(max(int(np.searchsorted(places, x)) - 1, 0), len(places) - 2)
            share = min(max((x - places[left]) / (places[left + 1] - places[left]), 0.0), 1.0)
            losses = (1 - share) * losses[left] + share * losses[left + 1]
    return float(losses)


def measure(task: Task) -> Any:
    """All losses of a task's grid; what differs in inactive parameters only is measured once."""
    x, y = _data(task)
    losses = np.empty([len(nodes) for nodes in task.grid])
    known: dict[tuple[Any, ...], float] = {}
    for place in itertools.product(*[range(len(nodes)) for nodes in task.grid]):
        configuration: dict[str, Any] = {}
        for (parameter, _), nodes, i in zip(task.axes, task.grid, place, strict=True):
            if parameter.active(configuration):
                configuration[parameter.name] = nodes[i]
        key = tuple(configuration.items())
        if key not in known:
            known[key] = _loss(task, configuration, x, y)
        losses[place] = known[key]
    return losses


def _data(task: Task) -> tuple[Any, Any]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{task.data}")(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(y))[: task.rows]
    x, y = x[chosen], y[chosen]
    deviation = x.std(0)
    x = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
    return x, (y - y.mean()) / y.std() if task.answer == "number" else y.astype(int)


def _loss(task: Task, configuration: dict[str, Any], x: Any, y: Any) -> float:
    folds = task.folds if task.folds > 1 else 3  # one fold is the first of three
    losses: list[float] = []
    for fold in range(task.folds):
        held = np.arange(len(y)) % folds == fold
        model = task.model(configuration)
        try:
            model.fit(x[~held], y[~held])
            loss = _judged(task, model, x[held], y[held], np.unique(y))
        except ValueError:  # the fit has diverged
            loss = WORST
        losses.append(min(loss, WORST) if math.isfinite(loss) else WORST)
    return float(np.mean(losses))


def _judged(task: Task, model: Any, x: Any, y: Any, labels: Any) -> float:
    from sklearn.metrics import log_loss

    if task.answer == "number":
        return math.sqrt(float(np.mean((model.predict(x) - y) ** 2)))
    if task.answer == "probability":
        return float(log_loss(y, np.clip(model.predict_proba(x), 1e-3, 1 - 1e-3), labels=labels))
    margin = model.decision_function(x)
    margin = 2 * (np.stack([-margin, margin], 1) if margin.ndim == 1 else margin)
    chances = np.exp(margin - margin.max(1, keepdims=True))
    return float(log_loss(y, np.clip(chances / chances.sum(1, keepdims=True), 1e-6, 1), labels=labels))


def main() -> None:
    """Measure the tasks that the file lacks."""
    warnings.filterwarnings("ignore")
    tables: dict[str, Any] = {}
    if FILE.exists():
        with np.load(FILE) as stored:
            tables = {name: stored[name] for name in stored.files}
    for name, task in TASKS.items():
        if name not in tables:
            tables[name] = measure(task)
            print(f"{name}: {tables[name].size} nodes, best {tables[name].min():.4f}", flush=True)
            np.savez_compressed(FILE, **tables)


if __name__ == "__main__":
    main()
