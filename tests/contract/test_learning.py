"""Tuners that learn are clearly better than chance: on four small problems, with fixed seeds and wide margins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tune.engine import registry
from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import Space, parse


def uniform(low: float, high: float) -> dict[str, Any]:
    return {"_type": "uniform", "_value": [low, high]}


def ackley(p: Any) -> float:
    x = np.array(list(p.values()))
    return float(20 - 20 * np.exp(-0.2 * np.sqrt((x * x).mean())) + math.e - np.exp(np.cos(2 * np.pi * x).mean()))


def mixed(p: Any) -> float:
    loss = (p["x"] - 2) ** 2 / 10 + (math.log10(p["lr"]) + 3) ** 2 / 4 + abs(p["n"] - 13) / 10
    return loss + (p["c"] != "b") + 0.5 * (p["d"] != "z")


def conditional(p: Any) -> float:
    kind = p["kind"]
    if kind["_name"] == "far":
        return 2.0 + (kind["y"] - 0.2) ** 2 + p["x"] ** 2
    return 3 * abs(kind["a"] - 0.7) + 3 * abs(kind["b"] - 0.3) + p["x"] ** 2 + abs(kind["c"] - 4) / 4


def choices(p: Any) -> float:
    return float(sum(p[f"c{i}"] != (3 * i) % 6 for i in range(8)))


PROBLEMS: dict[str, tuple[Space, Callable[[Any], float]]] = {
    "ackley": (parse({f"x{i}": uniform(-30, 20) for i in range(4)}), ackley),
    "mixed": (
        parse(
            {
                "x": uniform(-5, 5),
                "lr": {"_type": "loguniform", "_value": [1e-6, 1]},
                "n": {"_type": "randint", "_value": [1, 33]},
                "c": {"_type": "choice", "_value": ["a", "b", "c", "d"]},
                "d": {"_type": "choice", "_value": ["x", "y", "z"]},
            }
        ),
        mixed,
    ),
    "conditional": (
        parse(
            {
                "x": uniform(-2, 3),
                "kind": {
                    "_type": "choice",
                    "_value": [
                        {"_name": "far", "y": uniform(0, 1)},
                        {
                            "_name": "near",
                            "a": uniform(0, 1),
                            "b": uniform(0, 1),
                            "c": {"_type": "randint", "_value": [0, 8]},
                        },
                    ],
                },
            }
        ),
        conditional,
    ),
    "choices": (parse({f"c{i}": {"_type": "choice", "_value": list(range(6))} for i in range(8)}), choices),
}


LEARNERS = ["Anneal", "DifferentialEvolution", "Evolution", "NSGAII", "RegularizedEvolution", "SMAC"]
TRIALS, SEEDS = 200, 5


def best(name: str, problem: str, seed: int, running: int) -> float:
    """The least loss of a search with so many trials at a time."""
    space, loss = PROBLEMS[problem]
    tuner = registry.build(registry.tuner_class(name), {"optimize_mode": "minimize"})
    losses: list[float] = []
    started: list[dict[str, Any]] = []
    for n in range(TRIALS + running - 1):
        if n < TRIALS:
            answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, seed))
            assert isinstance(answer, Suggestion)
            started.append(dict(answer.parameters))
            tuner.observe(Suggested(n, n, 0, started[-1], ask=n))
        if n >= running - 1:
            losses.append(loss(started[len(losses)]))
            tuner.observe(Ended(n, len(losses) - 1, 0, "completed", losses[-1]))
    return min(losses)


@pytest.fixture(scope="module")
def by_chance() -> dict[str, float]:
    """The median over seeds of the least loss of random search."""
    return {p: float(np.median([best("Random", p, seed, 1) for seed in range(SEEDS)])) for p in PROBLEMS}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("running", [1, 8])
def test_it_is_clearly_better_than_chance(name: str, problem: str, running: int, by_chance: dict[str, float]) -> None:
    seeds = range(SEEDS if name != "SMAC" else 3)
    found = float(np.median([best(name, problem, seed, running) for seed in seeds]))
    assert found < (0.6 if running == 1 else 0.75) * by_chance[problem]
