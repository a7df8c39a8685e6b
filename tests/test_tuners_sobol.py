"""Sobol: even, shifted by the seed, in every kind of space, and nothing twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Exhausted, Suggested, Suggestion
from tune.engine.space import Space, parse
from tune.tuners.sobol import Sequence, Sobol

SQUARE = parse({"x": {"_type": "uniform", "_value": [0, 1]}, "y": {"_type": "uniform", "_value": [0, 1]}})


def points(space: Space, count: int, seed: int = 0, tuner: Any = None) -> list[dict[str, Any]]:
    tuner = tuner or Sobol()
    found: list[dict[str, Any]] = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, seed))
        if isinstance(answer, Exhausted):
            break
        assert isinstance(answer, Suggestion)
        found.append(dict(answer.parameters))
        tuner.observe(Suggested(n, n, 0, found[-1], ask=n))
    return found


def test_each_part_of_the_square_gets_its_share() -> None:
    found = points(SQUARE, 64)
    squares = np.zeros((8, 8), dtype=int)
    strips = np.zeros(64, dtype=int)
    for p in found:
        squares[int(p["x"] * 8), int(p["y"] * 8)] += 1
        strips[int(p["y"] * 64)] += 1
    assert (squares == 1).all() and (strips == 1).all()


def test_a_longer_sequence_begins_like_a_shorter_one() -> None:
    long, short = Sequence(3, 5), Sequence(3, 5)
    late = long.places(200)
    assert [long.places(n) for n in range(64)] == [short.places(n) for n in range(64)]
    assert short.places(200) == late
    assert Sequence(3, 6).places(0) != long.places(0)


def test_seeds_differ_and_an_own_one_wins() -> None:
    assert points(SQUARE, 5, 1) != points(SQUARE, 5, 2)
    assert points(SQUARE, 5, 1, Sobol(seed=3)) == points(SQUARE, 5, 2, Sobol(seed=3))
    with pytest.raises(ValueError, match="seed is -1"):
        Sobol(seed=-1)


def test_a_finite_space_is_gone_through_once() -> None:
    space = parse({"a": {"_type": "choice", "_value": list(range(7))}, "b": {"_type": "randint", "_value": [0, 5]}})
    found = points(space, 100)
    assert len(found) == 35 == len({repr(p) for p in found})


def test_points_that_are_not_allowed_are_skipped() -> None:
    narrow = parse(SQUARE.raw, ["x + y <= 0.2"])
    found = points(narrow, 30)
    assert len(found) == 30 and all(p["x"] + p["y"] <= 0.2 for p in found)
    whole = [p for p in points(SQUARE, 3000) if p["x"] + p["y"] <= 0.2]
    assert found == whole[:30]


def test_too_many_dimensions_are_refused() -> None:
    wide = parse({f"x{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(21202)})
    assert "21202 parameters" in str(Sobol.refuse(wide))
    assert Sobol.refuse(SQUARE) is None
