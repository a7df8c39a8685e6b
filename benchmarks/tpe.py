"""TPE: milliseconds per ask with 10 mixed parameters after N results, beside the raw limit and the peers installed.

Raw limit: one numpy draw of as many numbers as an ask's candidates need. A peer (optuna) runs only if this Python has
it. One run measures all of them in turn; the figures are medians of `--rounds` interleaved rounds of CPU time, the
history being made up at random. `python benchmarks/tpe.py [--at 100 1000 10000] [--rounds 5]`
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # as in the tuner host

import numpy as np  # noqa: E402

from tune.engine.plugins import Ask, Ended, Suggested  # noqa: E402
from tune.engine.space import parse  # noqa: E402
from tune.tuners.tpe import TPE  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SPACE = parse(
    {
        "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
        "decay": {"_type": "loguniform", "_value": [1e-8, 0.1]},
        "momentum": {"_type": "uniform", "_value": [0, 1]},
        "dropout": {"_type": "uniform", "_value": [0, 0.8]},
        "smoothing": {"_type": "quniform", "_value": [0, 0.5, 0.05]},
        "layers": {"_type": "randint", "_value": [1, 13]},
        "width": {"_type": "qloguniform", "_value": [8, 1024, 1]},
        "batch": {"_type": "choice", "_value": [16, 32, 64, 128]},
        "optimizer": {"_type": "choice", "_value": ["sgd", "adam", "rmsprop"]},
        "activation": {"_type": "choice", "_value": ["relu", "tanh", "gelu", "silu", "elu"]},
    }
)


def loss(p: Any) -> float:
    """Something to learn."""
    return (math.log10(p["lr"]) + 3) ** 2 + (p["momentum"] - 0.9) ** 2 + (p["optimizer"] != "adam") + p["dropout"]


def ours(n: int) -> Callable[[], None]:
    """Ask and tell once more, after n results."""
    tuner = TPE(optimize_mode="minimize")
    draw = np.random.default_rng(0)
    number = 0

    def tell(parameters: Any) -> None:
        nonlocal number
        tuner.observe(Suggested(number, number, 0, parameters, ask=number))
        tuner.observe(Ended(number, number, 0, "completed", loss(parameters)))
        number += 1

    def step() -> None:
        ask = Ask(number, 0, number, "t", 0, SPACE, 0, 1)
        tell(dict(tuner.suggest(ask).parameters))  # type: ignore[union-attr]

    for _ in range(n):
        tell(SPACE.sample(draw.random))
    step()  # reads the whole history once
    return step


def raw(n: int) -> Callable[[], None]:
    """One draw of the numbers that the candidates need."""
    del n
    generator = np.random.default_rng(0)

    def step() -> None:
        generator.random((32, 21))

    return step


def optuna(n: int) -> Callable[[], None]:
    """Optuna's TPE as it comes."""
    import optuna as o  # type: ignore[import-not-found]  # a peer, not a dependency

    o.logging.set_verbosity(o.logging.ERROR)
    study = o.create_study(sampler=o.samplers.TPESampler(seed=0))
    kinds: dict[str, Any] = {}
    for p in SPACE.params:
        if p.categorical:
            kinds[p.name] = o.distributions.CategoricalDistribution(p.choices)
        elif p.kind == "randint" or p.kind == "qloguniform":
            high = int(p.high) - (p.kind == "randint")
            kinds[p.name] = o.distributions.IntDistribution(int(p.low), high, log=p.kind == "qloguniform")
        else:
            kinds[p.name] = o.distributions.FloatDistribution(
                p.low, p.high, log=p.kind == "loguniform", step=p.q or None
            )
    draw = np.random.default_rng(0)
    for _ in range(n):
        params = SPACE.sample(draw.random)
        params["width"] = int(params["width"])
        study.add_trial(o.trial.create_trial(params=params, distributions=kinds, value=loss(params)))

    def step() -> None:
        trial = study.ask(kinds)
        study.tell(trial, loss(trial.params))

    step()
    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", nargs="+", type=int, default=[100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--asks", type=int, default=50)
    arguments = parser.parse_args()
    makers: dict[str, Callable[[int], Callable[[], None]]] = {"raw draw": raw, "tune TPE": ours}
    if importlib.util.find_spec("optuna"):
        makers["optuna TPE"] = optuna
    print(f"{'ms per ask + tell':<20}" + "".join(f"{f'N = {n:,}':>14}" for n in arguments.at))
    table: dict[str, list[float]] = {name: [] for name in makers}
    for n in arguments.at:
        steps = {name: make(n) for name, make in makers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(arguments.rounds):
            for name, step in steps.items():
                start = time.process_time()
                for _ in range(arguments.asks):
                    step()
                seconds[name].append((time.process_time() - start) / arguments.asks)
        for name in makers:
            table[name].append(statistics.median(seconds[name]) * 1e3)
    for name, row in table.items():
        print(f"{name:<20}" + "".join(f"{ms:14.4f}" for ms in row))


if __name__ == "__main__":
    main()
