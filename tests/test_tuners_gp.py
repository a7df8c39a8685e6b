"""GP: it learns in any space, believes running trials, avoids what fails or is infeasible, honours its arguments."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Imported, Suggested, Suggestion
from tune.engine.space import Space, parse
from tune.tuners.gp import GP
from tune.tuners.random import Random

SPACE = parse(
    {
        "x": {"_type": "uniform", "_value": [-5, 5]},
        "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
        "c": {"_type": "choice", "_value": ["a", "b", "c", "d"]},
    }
)
PLANE = parse({name: {"_type": "uniform", "_value": [0, 1]} for name in "xy"})


def loss(p: Any) -> float:
    return (p["x"] - 2) ** 2 / 10 + (math.log10(p["lr"]) + 3) ** 2 / 4 + (p["c"] != "b")


def bowl(p: Any) -> float:
    return (p["x"] - 0.3) ** 2 + (p["y"] - 0.6) ** 2


def ask(tuner: Any, n: int, space: Space, seed: int = 0) -> Suggestion:
    answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, seed))
    assert isinstance(answer, Suggestion)
    tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
    return answer


def search(tuner: Any, count: int, seed: int = 0) -> list[float]:
    found: list[float] = []
    for n in range(count):
        found.append(loss(ask(tuner, n, SPACE, seed).parameters))
        tuner.observe(Ended(n, n, 0, "completed", found[-1]))
    return found


def taught(space: Space, value: Any, count: int = 16, **arguments: Any) -> GP:
    """A tuner that knows some random points."""
    tuner, draw = GP(optimize_mode="minimize", **arguments), np.random.default_rng(0)
    for n in range(count):
        point = space.sample(draw.random)
        tuner.observe(Imported(n, point, value(point)))
    return tuner


def test_it_finds_better_points_than_random_search() -> None:
    ours = [min(search(GP(optimize_mode="minimize"), 30, seed)) for seed in range(2)]
    other = [min(search(Random(), 30, seed)) for seed in range(2)]
    assert max(ours) < min(other) / 10


def test_running_trials_keep_others_away() -> None:
    tuner = taught(PLANE, bowl)
    points = np.array([[p["x"], p["y"]] for p in (ask(tuner, n, PLANE).parameters for n in range(12))])
    gaps = ((points[:, None] - points[None]) ** 2).sum(axis=2) + 9 * np.eye(12)
    assert np.sqrt(gaps.min()) > 1e-3
    assert len(np.unique(np.round(points, 2), axis=0)) >= 11


def test_what_fails_is_avoided() -> None:
    tuner = GP(optimize_mode="minimize")
    late = []
    for n in range(36):
        p = dict(ask(tuner, n, SPACE).parameters)
        failed = p["c"] == "b"  # the best region of all can't be had
        tuner.observe(Ended(n, n, 0, "failed" if failed else "completed", None if failed else loss(p)))
        if n >= 18:
            late.append(failed)
    assert np.mean(late) < 0.2


def test_results_that_break_an_outcome_constraint_are_not_the_best() -> None:
    tuner = GP(optimize_mode="minimize")
    late = []
    for n in range(30):
        answer = ask(tuner, n, PLANE)
        p = answer.parameters
        violation = max(0.0, 0.5 - p["x"])  # the bowl's bottom is at x = 0.3
        tuner.observe(Ended(n, n, 0, "completed", bowl(p), violation=violation))
        if n >= 18:
            late.append((p["x"], p["y"]))
    middle = np.median(late, axis=0)
    assert 0.45 < middle[0] < 0.6 and abs(middle[1] - 0.6) < 0.1
    assert answer.decision["infeasible"] > 0


def test_without_a_feasible_result_it_looks_for_one() -> None:
    tuner, draw = GP(optimize_mode="minimize"), np.random.default_rng(0)
    for n in range(12):
        p = {"x": 0.6 * draw.random(), "y": draw.random()}
        tuner.observe(Suggested(n, n, 0, p))
        tuner.observe(Ended(n, n, 0, "completed", bowl(p), violation=0.9 - p["x"]))
    assert ask(tuner, 12, PLANE).parameters["x"] > 0.6


def test_many_dimensions() -> None:
    space = parse({f"p{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(30)})
    tuner, losses = GP(optimize_mode="minimize"), []
    for n in range(45):
        p = ask(tuner, n, space).parameters
        losses.append(sum((v - 0.4) ** 2 for v in p.values()))
        tuner.observe(Ended(n, n, 0, "completed", losses[-1]))
    assert min(losses[30:]) < 0.7 * min(losses[:10])


def test_constraints_that_few_points_meet() -> None:
    space = parse(PLANE.raw, ["x + y <= 0.1"])
    values: list[float] = []
    tuner = taught(space, lambda p: values.append(bowl(p)) or values[-1])
    points = [ask(tuner, n, space).parameters for n in range(4)]
    assert all(p["x"] + p["y"] <= 0.1 for p in points)
    assert min(map(bowl, points)) < min(values)


def test_a_small_space_is_tried_whole_before_anything_comes_again() -> None:
    space = parse({"c": {"_type": "choice", "_value": list(range(12))}})
    tuner, seen = GP(), []
    for n in range(16):
        seen.append(ask(tuner, n, space).parameters["c"])
        tuner.observe(Ended(n, n, 0, "completed", float(seen[-1])))
    assert len(set(seen[:12])) == 12


@pytest.mark.parametrize(
    "arguments",
    [
        {"utility": "ei"},
        {"utility": "ei", "xi": 0.5},
        {"utility": "poi"},
        {"utility": "ucb", "kappa": 0.0},
        {"utility": "ucb", "kappa": 9.0},
        {"utility": "ei", "nu": 1.5},
        {"utility": "ei", "nu": 0.5},
        {"utility": "ei", "nu": math.inf},
        {"utility": "ei", "alpha": 0.1},
        {"utility": "ei", "selection_num_warm_up": 1000},
        {"utility": "ei", "selection_num_starting_points": 0},
        {"cold_start_num": 20},
        {"seed": 5},
    ],
)
def test_every_argument_has_an_effect(arguments: Any) -> None:
    base = {"utility": "ei"} if set(arguments) - {"cold_start_num", "seed", "utility"} else {}
    plain = taught(SPACE, loss, **({} if arguments == {"utility": "ei"} else base))
    other = taught(SPACE, loss, **arguments)
    answers = [(dict(ask(plain, n, SPACE).parameters), dict(ask(other, n, SPACE).parameters)) for n in range(2)]
    assert any(a != b for a, b in answers)


def test_kappa_is_courage() -> None:
    tame = ask(taught(PLANE, bowl, utility="ucb", kappa=0.0), 0, PLANE).parameters
    bold = ask(taught(PLANE, bowl, utility="ucb", kappa=50.0), 0, PLANE).parameters
    assert bowl(tame) < 0.01 < bowl(bold)


def test_the_decision_says_why() -> None:
    decision = ask(taught(SPACE, loss), 0, SPACE).decision
    assert decision["rule"] in ("log expected improvement", "confidence bound")
    assert decision["observed"] == 16 and decision["running"] == 0
    assert set(decision["lengths"]) == {"x", "lr", "c"}
    assert len(json.dumps(decision)) < 1024
    assert ask(GP(), 0, SPACE).decision["rule"] == "first design"


def test_wrong_arguments() -> None:
    for wrong in ({"seed": -1}, {"nu": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GP(**wrong)  # type: ignore[arg-type]
    wide = {"_type": "input_choice", "_value": {"candidates": list(range(60)), "n_chosen": None}}
    assert "i has more" in str(GP.refuse(parse({"i": wide})))
    assert GP.refuse(SPACE) is None
