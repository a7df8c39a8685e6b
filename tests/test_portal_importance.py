"""portal/importance.py: functions whose parameters are known to matter so much, and what the two measures say."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tune.engine.space import parse
from tune.portal.importance import fanova, ped_anova

SPACE = parse({name: {"_type": "uniform", "_value": [0, 1]} for name in ("x", "y", "z")})
NESTED = parse(
    {
        "branch": {
            "_type": "choice",
            "_value": [{"_name": "off"}, {"_name": "on", "rate": {"_type": "uniform", "_value": [0, 1]}}],
        },
        "z": {"_type": "uniform", "_value": [0, 1]},
    }
)
MEASURES = pytest.mark.parametrize("measure", [ped_anova, fanova])
Pairs = list[tuple[dict[str, Any], float]]


def pairs(function: Callable[[float, float, float], float], count: int = 400) -> Pairs:
    dice = random.Random(1)
    points = [{name: dice.random() for name in ("x", "y", "z")} for _ in range(count)]
    return [(point, function(point["x"], point["y"], point["z"])) for point in points]


@MEASURES
def test_an_additive_function(measure: Any) -> None:
    found = measure(SPACE, pairs(lambda x, y, z: 5 * x + y), minimize=False)
    assert found["x"] > 0.7 and found["x"] > 3 * found["y"] and found["z"] < 0.1
    assert measure(SPACE, pairs(lambda x, y, z: -5 * x - y), minimize=True) == pytest.approx(found)


def test_fanova_gives_the_shares_of_the_variance() -> None:
    """Of 5x + y they are 25/26 and 1/26; of 2x + y 4/5 and 1/5."""
    found = fanova(SPACE, pairs(lambda x, y, z: 5 * x + y, 1000), minimize=True)
    assert found["x"] == pytest.approx(25 / 26, abs=0.05)
    found = fanova(SPACE, pairs(lambda x, y, z: 2 * x + y, 1000), minimize=True)
    assert (found["x"], found["y"]) == (pytest.approx(0.8, abs=0.08), pytest.approx(0.2, abs=0.08))
    assert sum(found.values()) <= 1.0 + 1e-9


def test_ped_anova_sums_to_one_and_sees_what_makes_the_best() -> None:
    found = ped_anova(SPACE, pairs(lambda x, y, z: (x - 0.5) ** 2 + 0.01 * y, 1000), minimize=True)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["x"] > found["y"] > found["z"]


@MEASURES
def test_when_nothing_matters(measure: Any) -> None:
    found = measure(SPACE, pairs(lambda x, y, z: 1.0, 100), minimize=True)
    assert set(found) == {"x", "y", "z"} and all(0.0 <= share <= 1.0 for share in found.values())


@MEASURES
def test_children_of_a_branch_that_is_not_taken(measure: Any) -> None:
    dice = random.Random(2)
    made: Pairs = []
    for index in range(400):
        point: dict[str, Any] = {"branch": "on" if index % 2 else "off", "z": dice.random()}
        if index % 2:
            point["branch/on/rate"] = dice.random()
        made.append((point, point.get("branch/on/rate", -3.0)))
    found = measure(NESTED, made, minimize=False)
    assert set(found) == {"branch", "branch/on/rate", "z"}
    assert found["branch"] + found["branch/on/rate"] > 0.8 and found["z"] < 0.1
    assert found["branch/on/rate"] > 0.01


@MEASURES
def test_values_of_a_former_space_count_as_inactive(measure: Any) -> None:
    made = pairs(lambda x, y, z: x, 50)
    made += [({"x": 7.0, "y": "text", "w": 1}, 0.5) for _ in range(5)]
    found = measure(SPACE, made, minimize=True)
    assert set(found) == {"x", "y", "z"}


@MEASURES
def test_the_same_results_give_the_same_bits(measure: Any) -> None:
    made = pairs(lambda x, y, z: x * y, 100)
    assert measure(SPACE, made, minimize=True) == measure(SPACE, made, minimize=True)
