"""GridSearch: the levels, the count, and the end."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tune.engine.plugins import Ask, Exhausted, Imported, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.grid_search import Grid, GridSearch


def spec(kind: str, *values: Any) -> dict[str, Any]:
    return {"_type": kind, "_value": list(values)}


def answers(raw: dict[str, Any], count: int, tuner: GridSearch | None = None) -> list[dict[str, Any]]:
    tuner, space, found = tuner or GridSearch(), parse(raw), list[dict[str, Any]]()
    for number in range(count):
        answer = tuner.suggest(Ask(number, 0, number, "t", 0, space, 0, 0))
        if isinstance(answer, Exhausted):
            break
        assert isinstance(answer, Suggestion)
        found.append(dict(answer.parameters))
        tuner.observe(Suggested(number, number, 0, found[-1], ask=number))
    return found


def test_a_continuous_parameter_is_halved() -> None:
    assert [p["x"] for p in answers({"x": spec("uniform", 0, 8)}, 9)] == [4, 2, 6, 1, 3, 5, 7, 0.5, 1.5]
    assert [round(p["x"], 9) for p in answers({"x": spec("loguniform", 1, 10000)}, 3)] == [100, 10, 1000]


def test_each_level_is_what_is_new_in_the_product() -> None:
    raw = {"x": spec("uniform", 0, 4), "c": spec("choice", "a", "b"), "y": spec("uniform", 0, 4)}
    found = answers(raw, 2 * 9)
    assert [tuple(p.values()) for p in found[:2]] == [(2, "a", 2), (2, "b", 2)]
    assert sorted(tuple(p.values()) for p in found) == sorted(itertools.product((1, 2, 3), "ab", (1, 2, 3)))
    assert len({json.dumps(p) for p in answers(raw, 2 * 49)}) == 2 * 49


def test_a_finite_space_is_a_full_product_in_order() -> None:
    raw = {"c": spec("choice", "a", "b"), "n": spec("randint", 0, 3), "q": spec("quniform", -5.5, -0.5, 6)}
    assert [tuple(p.values()) for p in answers(raw, 99)] == list(itertools.product("ab", range(3), (-5.5, -0.5)))


def test_wide_counted_parameters_are_halved_and_complete() -> None:
    found = [p["n"] for p in answers({"n": spec("randint", 0, 100)}, 999)]
    assert found[:3] == [50, 25, 75]
    assert sorted(found) == list(range(100))
    found = [p["q"] for p in answers({"q": spec("quniform", 0, 50, 1)}, 999)]
    assert found[0] == 25
    assert sorted(found) == list(range(51))
    assert [p["n"] for p in answers({"n": spec("randint", 0, 2**60)}, 3)] == [2**59, 2**58, 3 * 2**58]


def test_unbounded_quantised_parameters_end() -> None:
    found = [p["z"] for p in answers({"z": spec("qnormal", 0, 1, 1)}, 99)]
    assert set(found) >= {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    assert len(set(found)) == len(found) < 12


def test_nested_choices() -> None:
    raw = {
        "k": spec(
            "choice",
            {"_name": "a", "x": spec("uniform", 0, 4)},
            {"_name": "b", "n": spec("randint", 0, 2)},
            {"_name": "c"},
        ),
        "y": spec("choice", 0, 1),
    }
    found = answers(raw, 2 * (3 + 2 + 1))
    assert [p["k"] for p in found[:8:2]] == [
        {"_name": "a", "x": 2},
        {"_name": "b", "n": 0},
        {"_name": "b", "n": 1},
        {"_name": "c"},
    ]
    assert [p["k"]["x"] for p in found[8:]] == [1, 1, 3, 3]  # the branches that are complete don't come again
    assert answers({"k": spec("choice", {"_name": "a"}, {"_name": "b"})}, 9) == [
        {"k": {"_name": "a"}},
        {"k": {"_name": "b"}},
    ]


def test_strangers_points_are_taken() -> None:
    tuner = GridSearch()
    tuner.observe(Imported(0, {"n": 1}, 0.5))
    tuner.observe(Suggested(1, 7, 0, {"n": 2, "TRIAL_BUDGET": 1}, origin="user"))
    tuner.observe(Imported(2, {"m": 1}, 0.5))
    assert answers({"n": spec("randint", 0, 5)}, 9, tuner) == [{"n": 0}, {"n": 3}, {"n": 4}]


def test_counts_and_points_agree() -> None:
    raw = {
        "x": spec("uniform", 0, 1),
        "k": spec("choice", {"_name": "a", "y": spec("uniform", 0, 1), "n": spec("randint", 0, 3)}, {"_name": "b"}),
    }
    grid = Grid(parse(raw))
    seen: set[str] = set()
    for level in range(4):
        points = [json.dumps(grid.point(level, i)) for i in range(grid.count_new(level))]
        assert len(set(points)) == len(points)
        assert not seen & set(points)
        seen |= set(points)
        edge = 2 ** (level + 1) - 1
        assert len(seen) == edge * (edge * 3 + 1)


def test_a_hundred_parameters_are_counted_and_never_listed() -> None:
    assert len(answers({f"p{i}": spec("uniform", 0, 1) for i in range(100)}, 30)) == 30
    assert answers({}, 5) == [{}]


@pytest.mark.parametrize(
    ("one", "least", "most"),
    [
        (spec("lognormal", 5, 0), 1, 1),
        (spec("normal", 1e300, 1e-5), 1, 1),
        (spec("uniform", 1, 1 + 100 * 2**-52), 50, 101),
        (spec("randint", 0, 1500), 1500, 1500),
        (spec("quniform", 0, 1100, 1), 1101, 1101),
    ],
)
def test_it_ends_when_halving_finds_nothing_new(one: dict[str, Any], least: int, most: int) -> None:
    found = answers({"x": one}, 3000)
    assert least <= len(found) <= most and len({p["x"] for p in found}) == len(found)


def test_a_parameter_of_one_float_beside_an_endless_one() -> None:
    found = answers({"x": spec("lognormal", 5, 0), "y": spec("uniform", 0, 8)}, 50)
    assert len(found) == 50 and [p["y"] for p in found[:3]] == [4, 2, 6]
