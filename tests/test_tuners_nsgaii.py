"""NSGA-II: its fronts are those of the definition, loneliness keeps the ends, and it spreads along a known front."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tune.engine import registry
from tune.engine.plugins import Ask, Ended, Objective, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.nsgaii import NSGAII, distances, fronts, polynomial, simulated_binary


def dominates(a: Any, b: Any, more: float, less: float) -> bool:
    if more != less:
        return more < less
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def by_definition(losses: Any, violations: Any) -> list[int]:
    left, found, number = set(range(len(losses))), [0] * len(losses), 0
    while left:
        front = {
            i for i in left if not any(dominates(losses[j], losses[i], violations[j], violations[i]) for j in left)
        }
        for i in front:
            found[i] = number
        left -= front
        number += 1
    return found


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_fronts_are_those_of_the_definition(objectives: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    losses = np.round(draw.random((40, objectives)), 1)  # with equal ones
    violations = np.where(draw.random(40) < 0.6, 0.0, np.round(draw.random(40), 1))
    assert fronts(losses, violations).tolist() == by_definition(losses.tolist(), violations.tolist())


def test_loneliness() -> None:
    losses = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0], [1.1, 2.9]])
    found = distances(losses)
    assert found[0] == found[3] == math.inf
    assert found[2] > found[1] > found[4] - 1.5 and found[4] == pytest.approx((3 - 1) / 4 + (3 - 1) / 4)
    assert np.isinf(distances(np.ones((3, 2)))[[0, 2]]).all()
    assert np.isfinite(distances(np.array([[-1.7e308, 0.0], [0.0, 0.0], [1.7e308, 0.0]]))[1])


def search(tuner: NSGAII, count: int, objectives: tuple[Objective, ...], evaluate: Any, seed: int = 0) -> list[Any]:
    space = parse({f"x{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(4)})
    found = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, seed, objectives=objectives))
        assert isinstance(answer, Suggestion)
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
        values, violation = evaluate(answer.parameters)
        found.append((values, violation))
        tuner.observe(Ended(n, n, 0, "completed", values[0], values, violation))
    return found


def volume(points: list[list[float]]) -> float:
    """The area dominated within [0, 1.2] x [0, 1.2], both minimized."""
    area, ceiling = 0.0, 1.2
    for a, b in sorted(points):
        if a < 1.2 and b < ceiling:
            area += (1.2 - a) * (ceiling - b)
            ceiling = b
    return area


def zdt(p: Any) -> list[float]:
    g = 1 + 3 * (p["x1"] + p["x2"] + p["x3"])
    return [p["x0"], g * (1 - math.sqrt(p["x0"] / g))]


def test_it_spreads_along_the_front_whatever_the_directions() -> None:
    both = (Objective("f", "minimize"), Objective("g", "minimize"))
    turned = (Objective("f", "minimize"), Objective("g", "maximize"))
    draw = np.random.default_rng(0)
    chance = volume([zdt({f"x{i}": draw.random() for i in range(4)}) for _ in range(250)])
    found = [search(NSGAII(), 250, both, lambda p: (zdt(p), 0.0), seed) for seed in range(3)]
    assert np.median([volume([values for values, _ in one]) for one in found]) > 1.3 * chance
    plain = [values for values, _ in found[0]]
    other = search(NSGAII(), 250, turned, lambda p: ([zdt(p)[0], -zdt(p)[1]], 0.0))
    assert [[a, -b] for (a, b), _ in other] == plain


def test_outcome_constraints_come_first() -> None:
    one = (Objective("f", "minimize"), Objective("g", "minimize"))
    found = search(NSGAII(), 200, one, lambda p: (zdt(p), max(0.0, 0.5 - p["x0"])))
    late = [violation for _, violation in found[100:]]
    assert np.mean([v == 0 for v in late]) > 0.8


def test_results_without_all_objectives_are_no_parents() -> None:
    tuner, space = NSGAII(), parse({"x": {"_type": "uniform", "_value": [0, 1]}})
    objectives = (Objective("f", "minimize"), Objective("g", "minimize"))
    for trial in range(60):
        tuner.observe(Suggested(trial, trial, 0, {"x": trial / 60}))
        tuner.observe(Ended(trial, trial, 0, "stopped", 1.0, [1.0, 2.0] if trial >= 50 else []))
    answers = [tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, 1, objectives=objectives)) for n in range(30)]
    assert {parent for answer in answers for parent in answer.parents} <= set(range(50, 60))
    alone = tuner.suggest(Ask(0, 0, 0, "t", 0, space, 0, 1))
    assert alone.decision["rule"] == "child" and alone.decision["population"] == 10


def test_operators_stay_near_their_parents() -> None:
    u = (np.arange(2000) + 0.5) / 2000
    crossed = np.array([simulated_binary(0.3, 0.5, float(one)) for one in u])
    assert crossed.mean() == pytest.approx(0.3, abs=0.01)
    assert np.median(np.abs(crossed - 0.3)) < 0.02
    for x in (0.0, 0.02, 0.5, 1.0):
        moved = np.array([polynomial(x, float(one)) for one in u])
        assert moved.min() >= 0 and moved.max() <= 1
        assert np.median(np.abs(moved - x)) < 0.1
        assert np.all(np.diff(moved) >= -1e-12)


def test_which_tuners_take_several_objectives() -> None:
    known = {"Batch", "GridSearch", "NSGAII", "Random"}
    found = {name for name in known if registry.tuner_class(name).multi_objective}
    assert found == known
    with pytest.raises(ValueError, match="population_size is 3"):
        NSGAII(population_size=3)
