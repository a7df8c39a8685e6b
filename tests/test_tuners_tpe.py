"""TPE: it learns, lies about running trials, avoids what fails, and costs the same at any length of history."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.random import Random
from tune.tuners.tpe import GOOD, REST, TPE, TpeArgs, _gains, _Table

SPACE = parse(
    {
        "x": {"_type": "uniform", "_value": [-5, 5]},
        "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
        "c": {"_type": "choice", "_value": ["a", "b", "c", "d"]},
    }
)


def loss(p: Any) -> float:
    return (p["x"] - 2) ** 2 / 10 + (math.log10(p["lr"]) + 3) ** 2 / 4 + (p["c"] != "b")


def search(tuner: Any, count: int, seed: int = 0, sign: float = 1.0) -> list[float]:
    found: list[float] = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, seed))
        assert isinstance(answer, Suggestion)
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
        found.append(loss(answer.parameters))
        tuner.observe(Ended(n, n, 0, "completed", sign * found[-1]))
    return found


def test_it_finds_better_points_than_random_search() -> None:
    ours = [min(search(TPE(optimize_mode="minimize"), 60, seed)) for seed in range(6)]
    other = [min(search(Random(), 60, seed)) for seed in range(6)]
    assert np.median(ours) < np.median(other) / 4
    assert min(search(TPE(optimize_mode="maximize"), 60, 0, -1.0)) == ours[0]


@pytest.mark.parametrize("liar", ["best", "worst", "mean", "none", None])
def test_each_lie(liar: Any) -> None:
    tuner = TPE(tpe_args=TpeArgs(constant_liar_type=liar))
    search(tuner, 30, sign=-1.0)
    points = []
    for n in range(30, 94):  # sixty-four at once
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 0))
        assert isinstance(answer, Suggestion)
        points.append(dict(answer.parameters))
        tuner.observe(Suggested(n, n, 0, points[-1]))
    assert len({repr(p) for p in points}) == 64


def test_running_trials_keep_others_away() -> None:
    def spread(liar: Any) -> float:
        tuner = TPE(optimize_mode="minimize", tpe_args=TpeArgs(constant_liar_type=liar))
        search(tuner, 40)
        drawn = []
        for n in range(40, 56):
            answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 0))
            assert isinstance(answer, Suggestion)
            tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
            drawn.append(answer.parameters["x"])
        return float(np.std(drawn))

    assert spread("worst") > spread("none")


def test_what_fails_is_avoided() -> None:
    tuner = TPE(optimize_mode="minimize")
    late = []
    for n in range(80):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 0))
        assert isinstance(answer, Suggestion)
        p = dict(answer.parameters)
        tuner.observe(Suggested(n, n, 0, p))
        failed = p["c"] == "b"  # the best region of all can't be had
        tuner.observe(Ended(n, n, 0, "failed" if failed else "completed", None if failed else loss(p)))
        if n >= 40:
            late.append(failed)
    assert np.mean(late) < 0.15


def test_infeasible_results_are_worse_than_any_feasible_one() -> None:
    tuner = TPE(optimize_mode="minimize")
    late = []
    for n in range(120):  # the loss falls towards x = -5, where the outcome constraint fails more and more
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 0))
        assert isinstance(answer, Suggestion)
        p = dict(answer.parameters)
        tuner.observe(Suggested(n, n, 0, p))
        tuner.observe(Ended(n, n, 0, "completed", p["x"], violation=max(0.0, 2.0 - p["x"])))
        late.append(p["x"])
    assert tuner._table is not None
    ranking = tuner._table.all.ranking
    first = next(i for i, one in enumerate(ranking) if one[0] > 0)
    assert all(one[0] == 0 for one in ranking[:first]) and all(one[0] > 0 for one in ranking[first:])
    assert abs(float(np.median(late[60:])) - 2.0) < 1.0


def test_good_ones_weigh_as_much_as_they_are_better() -> None:
    ranking = [(0.0, 1.0, 0), (0.0, 3.0, 1), (0.0, 4.0, 2), (0.0, 5.0, 3)]
    assert _gains(ranking, 3) == pytest.approx([3 * 4 / 7, 3 * 2 / 7, 3 * 1 / 7])
    assert _gains(ranking[:3], 3) == pytest.approx([3 * 3 / 4, 3 * 1 / 4, 0.0])  # there is no other one
    assert _gains([(0.0, 1.0, 0), (0.0, 1.0, 1), (0.0, 1.0, 2)], 2) == [1.0, 1.0]
    assert _gains([(0.0, 1.0, 0), (0.0, 2.0, 1), (0.5, -9.0, 2)], 3) == [3.0, 0.0, 0.0]
    assert _gains([(0.5, 1.0, 0), (0.7, 1.0, 1)], 1) == [1.0]
    assert _gains([(0.0, -1.7e308, 0), (0.0, 0.0, 1), (0.0, 1.7e308, 2)], 2) == pytest.approx([4 / 3, 2 / 3])
    assert _gains([], 0) == []


def test_a_branch_that_had_luck_does_not_keep_the_others_out() -> None:
    branches = [
        {"_name": name, **{f"{name}{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(3)}} for name in "abc"
    ]
    space = parse({"k": {"_type": "choice", "_value": branches}})
    base = {"a": 0.1, "b": 0.0, "c": 0.5}
    for seed in range(3):
        tuner, chosen = TPE(optimize_mode="minimize"), []
        for n in range(160):
            answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, seed))
            assert isinstance(answer, Suggestion)
            p = dict(answer.parameters)
            name = p["k"]["_name"]
            off = sum((p["k"][f"{name}{i}"] - 0.5) ** 2 for i in range(3))
            tuner.observe(Suggested(n, n, 0, p))
            tuner.observe(Ended(n, n, 0, "completed", base[name] + off))
            chosen.append(name)
        assert min(chosen.count(name) for name in "abc") >= 10
        assert chosen[80:].count("b") > 40


def test_an_ask_looks_at_a_bounded_number_of_kernels() -> None:
    table = _Table(SPACE, 1.0)
    tuner = TPE()
    draw = np.random.default_rng(0)
    for n in range(3000):
        point = SPACE.sample(draw.random)
        tuner.observe(Suggested(n, n, 0, point))
        if n < 2900:
            tuner.observe(Ended(n, n, 0, "completed", loss(point)))
    table.sync(tuner._history)
    good, rest = table.all.split(TpeArgs())
    assert len(good._cumulative) == GOOD + 1
    assert len(rest._cumulative) == REST + 1
    rows, weights = table.all._rest([0, 5], 25, 200)
    assert len(rows) == 200 and rows[-100:] == list(range(2800, 2900))
    whole, all_weights = table.all._rest([0, 5], 25, 10_000)
    assert len(whole) == 2898
    assert abs(weights.sum() / all_weights.sum() - 1) < 0.02  # those left out are stood for
    assert all_weights[0] == 1 / 2898 and set(all_weights[-25:]) == {1.0}


def test_a_small_space_is_tried_whole_before_anything_comes_again() -> None:
    space = parse({"c": {"_type": "choice", "_value": list(range(12))}})
    tuner, seen = TPE(), []
    for n in range(40):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, 0))
        assert isinstance(answer, Suggestion)
        seen.append(answer.parameters["c"])
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
        tuner.observe(Ended(n, n, 0, "completed", float(seen[-1])))
    assert len(set(seen[:12])) == 12
    assert len(set(seen[12:])) > 1


def test_arguments() -> None:
    assert TPE(tpe_args={"gamma": 0.2, "constant_liar_type": None}).args.gamma == 0.2  # type: ignore[arg-type]
    for wrong in ({"gama": 0.2}, {"n_startup_jobs": 0}, {"n_startup_jobs": "10"}, {"constant_liar_type": "nobody"}):
        with pytest.raises(TypeError, match="tpe_args"):
            TPE(tpe_args=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        TPE(seed=-1)
    wide = {"_type": "input_choice", "_value": {"candidates": list(range(60)), "n_chosen": None}}
    assert "i has more" in str(TPE.refuse(parse({"i": wide})))
    assert TPE.refuse(SPACE) is None
