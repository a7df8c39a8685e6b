"""Annealing: the window shrinks with the results, about the best ones, and lies count when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners._genes import Individual
from tune.tuners.anneal import Anneal, near

SPACE = parse({"x": {"_type": "uniform", "_value": [0, 1]}, "c": {"_type": "choice", "_value": ["a", "b", "c", "d"]}})


def fed(ended: int, running: int = 0, **arguments: Any) -> Anneal:
    tuner, draw = Anneal(optimize_mode="minimize", **arguments), np.random.default_rng(0)
    for trial in range(ended + running):
        tuner.observe(Suggested(trial, trial, 0, SPACE.sample(draw.random)))
        if trial < ended:
            tuner.observe(Ended(trial, trial, 0, "completed", float(trial)))
    return tuner


def decisions(tuner: Anneal, count: int) -> list[Any]:
    found = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 1))
        assert isinstance(answer, Suggestion)
        found.append(answer.decision)
    return found


def test_the_best_is_picked_half_of_the_time_and_the_next_half_of_the_rest() -> None:
    picked = [decision["trial"] for decision in decisions(fed(30), 800)]
    assert picked.count(0) == pytest.approx(400, abs=50)
    assert picked.count(1) == pytest.approx(200, abs=45)
    assert max(picked) < 15


def test_the_window_shrinks() -> None:
    for ended, width in ((5, 1 / 1.5), (30, 0.25), (990, 0.01)):
        assert decisions(fed(ended), 1)[0]["width"] == pytest.approx(width, abs=1e-4)
    x, c = SPACE.params
    draw = np.random.default_rng(0)
    for middle, low, high in ((0.5, 0.4, 0.6), (0.02, 0.0, 0.12), (1.0, 0.9, 1.0)):
        gene = near(Individual(0, [middle, 2.0]), 0.2, draw)
        found = [gene(x) for _ in range(300)]
        assert low <= min(found) < low + 0.01 and high - 0.01 < max(found) <= high
        kept = np.mean([near(Individual(0, [middle, 2.0]), 0.2, draw)(c) == 2.0 for _ in range(600)])
        assert kept == pytest.approx(0.8 + 0.2 / 4, abs=0.06)


def test_lies() -> None:
    assert {d["rule"] for d in decisions(fed(0, 10, parallel_optimize=True), 5)} == {"random start"}
    places = {"min": {10, 11}, "mean": {10, 11}, "max": set[int]()}
    for liar, running in places.items():
        found = decisions(fed(10, 2, parallel_optimize=True, constant_liar_type=liar), 400)
        assert {d["trial"] for d in found} & {10, 11} == running, liar
        assert found[0]["width"] == pytest.approx(1 / 2.2, abs=1e-4)
    quiet = decisions(fed(10, 2), 400)
    assert not {d["trial"] for d in quiet} & {10, 11}
    assert quiet[0]["width"] == 0.5


def test_arguments() -> None:
    with pytest.raises(ValueError, match="allowed: min, max, mean"):
        Anneal(constant_liar_type="best")  # type: ignore[arg-type]
