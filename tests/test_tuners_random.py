"""Random: the prior, no point twice, and the end of a countable space."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tune.engine.plugins import Ask, Exhausted, Imported, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.random import Random


def answers(raw: dict[str, Any], count: int, tuner: Random | None = None, seed: int = 1) -> list[dict[str, Any]]:
    tuner, space, found = tuner or Random(), parse(raw), list[dict[str, Any]]()
    for number in range(count):
        answer = tuner.suggest(Ask(number, 0, number, "t", 0, space, 0, seed))
        if isinstance(answer, Exhausted):
            break
        assert isinstance(answer, Suggestion)
        found.append(dict(answer.parameters))
        tuner.observe(Suggested(number, number, 0, found[-1], ask=number))
    return found


def test_it_draws_from_the_prior() -> None:
    raw = {"lr": {"_type": "loguniform", "_value": [1e-4, 1]}, "c": {"_type": "choice", "_value": ["a", "b"]}}
    found = answers(raw, 800)
    decades = Counter(len(f"{1 / p['lr']:.0f}") for p in found)
    assert all(150 < decades[n] < 250 for n in (1, 2, 3, 4))
    assert 340 < sum(p["c"] == "a" for p in found) < 460


def test_a_large_countable_space_is_taken_to_the_last_point() -> None:
    raw = {"a": {"_type": "randint", "_value": [0, 20]}, "b": {"_type": "qloguniform", "_value": [0.5, 20, 1]}}
    size = parse(raw).size
    assert size is not None
    assert len({json.dumps(p) for p in answers(raw, 1000)}) == size


def test_what_cannot_be_counted_ends_too_when_nothing_new_is_found() -> None:
    assert len(answers({"z": {"_type": "qnormal", "_value": [0, 0.1, 10]}}, 20)) == 1


def test_strangers_points_are_taken() -> None:
    tuner = Random()
    tuner.observe(Imported(0, {"n": 1}, None))
    assert sorted(p["n"] for p in answers({"n": {"_type": "randint", "_value": [0, 4]}}, 9, tuner)) == [0, 2, 3]


def test_seeds() -> None:
    raw = {"x": {"_type": "uniform", "_value": [0, 1]}}
    assert answers(raw, 5, seed=1) == answers(raw, 5, seed=1) != answers(raw, 5, seed=2)
    assert answers(raw, 5, Random(seed=4), seed=1) == answers(raw, 5, Random(seed=4), seed=2)
    assert answers({}, 3) == [{}, {}, {}]
    with pytest.raises(ValueError, match="seed is -1"):
        Random(seed=-1)
