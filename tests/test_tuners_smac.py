"""SMAC: when it grows a forest and when it draws by chance, and that a finite space can be searched whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Exhausted, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.smac import RANDOM_EVERY, SMAC, STARTUP, scheduled

SPACE = parse(
    {
        "x": {"_type": "uniform", "_value": [-1, 1]},
        "c": {"_type": "choice", "_value": ["a", "b", "c"]},
        "d": {"_type": "choice", "_value": ["a", "b", "c"]},
    }
)


def loss(p: Any) -> float:
    return abs(p["x"] - 0.3) + (p["c"] != "b") + (p["d"] != "c")


def run(tuner: SMAC, count: int, fails: Any = lambda p: False) -> list[tuple[str, Any]]:
    found = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 1))
        assert isinstance(answer, Suggestion)
        p = dict(answer.parameters)
        found.append((answer.decision["rule"], p))
        tuner.observe(Suggested(n, n, 0, p))
        failed = fails(p)
        tuner.observe(Ended(n, n, 0, "failed" if failed else "completed", None if failed else loss(p)))
    return found


def test_random_points_at_first_and_now_and_then() -> None:
    rules = [rule for rule, _ in run(SMAC(optimize_mode="minimize"), 40)]
    assert rules[:STARTUP] == ["random start"] * STARTUP
    for n in range(STARTUP, 40):
        assert rules[n].startswith("random") is (n % RANDOM_EVERY == RANDOM_EVERY - 1)


def test_it_finds_the_best_choices_and_avoids_what_fails() -> None:
    found = [p for _, p in run(SMAC(optimize_mode="minimize"), 60)]
    assert min(map(loss, found)) < 0.03
    late = [p for _, p in run(SMAC(optimize_mode="minimize"), 80, lambda p: p["c"] == "b")][40:]
    assert np.mean([p["c"] == "b" for p in late]) < 0.25


def test_the_schedule_of_forests() -> None:
    counts = [scheduled(n) for n in range(3000)]
    assert counts[:21] == list(range(21))
    assert all(a <= b for a, b in pairwise(counts))
    assert all(count <= n < count * 1.06 + 1 for n, count in enumerate(counts))
    assert len(set(counts)) < 150


def test_config_dedup_ends_a_finite_space() -> None:
    space = parse({"c": {"_type": "choice", "_value": list(range(12))}})
    for dedup in (True, False):
        tuner, seen = SMAC(config_dedup=dedup), []
        for n in range(15):
            answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, 1))
            if isinstance(answer, Exhausted):
                break
            seen.append(answer.parameters["c"])
            tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
            tuner.observe(Ended(n, n, 0, "completed", float(seen[-1])))
        assert len(seen) == (12 if dedup else 15)
        assert len(set(seen[:12])) == 12


def test_more_than_floats_can_count_is_refused() -> None:
    wide = {"_type": "input_choice", "_value": {"candidates": list(range(60)), "n_chosen": None}}
    assert SMAC.refuse(parse({"i": wide})) == "i has more than 2**53 values, too many for SMAC"
    assert SMAC.refuse(SPACE) is None


@pytest.mark.parametrize("running", [4, 16])
def test_many_at_once_lie_apart(running: int) -> None:
    tuner = SMAC(optimize_mode="minimize")
    run(tuner, 40)
    places = []
    for n in range(40, 40 + running):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 1))
        assert isinstance(answer, Suggestion)
        places.append(dict(answer.parameters))
        tuner.observe(Suggested(n, n, 0, places[-1]))
    same = [
        abs(a["x"] - b["x"]) < 0.01 and (a["c"], a["d"]) == (b["c"], b["d"])
        for i, a in enumerate(places)
        for b in places[:i]
    ]
    assert np.mean(same) < 0.1
