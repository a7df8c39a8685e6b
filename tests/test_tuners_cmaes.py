"""CMA-ES: it converges, on mixed and conditional spaces too, in any order of ends, and is a fold over the facts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Imported, Suggested, Suggestion
from tune.engine.space import Space, parse
from tune.tuners.cmaes import CMAES, _Axes
from tune.tuners.random import Random

PLAIN = parse({f"x{i}": {"_type": "uniform", "_value": [-5, 5]} for i in range(5)})
MIXED = parse(
    {
        "x": {"_type": "uniform", "_value": [-5, 5]},
        "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
        "n": {"_type": "randint", "_value": [0, 40]},
        "opt": {
            "_type": "choice",
            "_value": [{"_name": "sgd", "m": {"_type": "uniform", "_value": [0, 1]}}, {"_name": "adam"}],
        },
        "c": {"_type": "choice", "_value": ["a", "b", "c", "d"]},
    }
)


def plain_loss(p: Any) -> float:
    return sum((4**i) * (p[f"x{i}"] - i / 2) ** 2 for i in range(5))


def mixed_loss(p: Any) -> float:
    loss = (p["x"] - 2) ** 2 / 10 + (math.log10(p["lr"]) + 3) ** 2 / 4 + (p["n"] - 31) ** 2 / 100 + (p["c"] != "b")
    return loss + (abs(p["opt"]["m"] - 0.7) if p["opt"]["_name"] == "sgd" else 1.0)


def search(tuner: Any, space: Space, loss: Any, count: int, seed: int = 0, at_once: int = 1) -> list[float]:
    """The losses; with several at once they end in a mixed-up order, and every tenth fails."""
    found: list[float] = []
    running: list[tuple[int, float]] = []
    draw = np.random.default_rng(seed)
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, seed))
        assert isinstance(answer, Suggestion)
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters), ask=n))
        running.append((n, loss(answer.parameters)))
        if len(running) == at_once:
            trial, value = running.pop(int(draw.integers(at_once)))
            failed = at_once > 1 and trial % 10 == 7
            tuner.observe(Ended(n, trial, 0, "failed" if failed else "completed", None if failed else value))
            found.append(math.inf if failed else value)
    return found


def test_it_converges_on_an_ill_conditioned_valley() -> None:
    best = min(search(CMAES(optimize_mode="minimize"), PLAIN, plain_loss, 900))
    assert best < 1e-4 < min(search(Random(), PLAIN, plain_loss, 900)) / 1e4


def test_mixed_and_conditional_spaces() -> None:
    ours = [min(search(CMAES(optimize_mode="minimize"), MIXED, mixed_loss, 400, seed)) for seed in range(3)]
    other = [min(search(Random(), MIXED, mixed_loss, 400, seed)) for seed in range(3)]
    assert np.median(ours) < np.median(other) / 4


def test_many_at_once_in_any_order_with_failures() -> None:
    one = CMAES(optimize_mode="minimize")
    found = search(one, PLAIN, plain_loss, 1200, at_once=16)
    assert min(found[-200:]) < min(found[:200]) / 20
    assert one._search is not None and one._search.cma is not None
    assert one._search.cma.population_size == 8  # half of those that ran at the first result, of 8 that it has anyway


def test_a_generation_is_counted_in_results() -> None:
    tuner = CMAES(optimize_mode="minimize", population_size=6)
    search(tuner, PLAIN, plain_loss, 25)
    answer = tuner.suggest(Ask(25, 0, 25, "t", 0, PLAIN, 0, 0))
    assert isinstance(answer, Suggestion)
    assert answer.decision == {"rule": "cma-es", "observed": 25, "generation": 4, "population": 6, "restarts": 0}


def test_only_the_order_of_results_counts() -> None:
    first, second = CMAES(optimize_mode="minimize"), CMAES(optimize_mode="minimize")
    search(first, PLAIN, plain_loss, 60)
    search(second, PLAIN, lambda p: math.atan(plain_loss(p) / 1e4), 60)
    ask = Ask(60, 0, 60, "t", 0, PLAIN, 0, 0)
    assert first.suggest(ask) == second.suggest(ask)


def test_it_begins_at_the_best_point_of_others() -> None:
    tuner = CMAES(optimize_mode="minimize", sigma=0.01)
    for value in (4.0, -4.0, 3.0):
        tuner.observe(Imported(0, {f"x{i}": value for i in range(5)}, abs(value + 4.0)))
    for n in range(6):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, PLAIN, 0, 0))
        assert isinstance(answer, Suggestion)
        assert all(abs(x + 4.0) < 0.5 for x in answer.parameters.values())


def test_infeasible_results_are_worse_than_any_feasible_one() -> None:
    tuner = CMAES(optimize_mode="minimize")
    late: list[float] = []
    for n in range(400):  # the unbounded loss pulls to x0 = -5, where the violation grows
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, PLAIN, 0, 0))
        assert isinstance(answer, Suggestion)
        p = dict(answer.parameters)
        tuner.observe(Suggested(n, n, 0, p, ask=n))
        tuner.observe(Ended(n, n, 0, "completed", p["x0"], violation=max(0.0, 2.0 - p["x0"])))
        late.append(p["x0"])
    assert abs(float(np.median(late[-50:])) - 2.0) < 0.5


def test_it_restarts_with_twice_the_population() -> None:
    tuner = CMAES(optimize_mode="minimize", population_size=4)
    search(tuner, PLAIN, lambda _: 1.0, 400)
    assert tuner._search is not None and tuner._search.cma is not None
    assert tuner._search.seen()["restarts"] >= 1
    assert tuner._search.cma.population_size == 4 * 2 ** tuner._search.seen()["restarts"]


def test_what_is_counted_and_what_is_not() -> None:
    space = parse(
        {
            "two": {"_type": "randint", "_value": [0, 2]},
            "few": {"_type": "quniform", "_value": [0, 1, 0.25]},
            "many": {"_type": "randint", "_value": [0, 1000]},
            "one": {"_type": "choice", "_value": ["only"]},
            "log": {"_type": "qloguniform", "_value": [1, 100, 1]},
        }
    )
    axes = _Axes(space)
    names = [[p.name for p in kind] for kind in (axes.continuous, axes.counted, axes.categorical)]
    assert names == [["many"], ["few", "log"], ["two"]]


def test_arguments_and_refusals() -> None:
    for wrong in ({"seed": -1}, {"population_size": 3}, {"sigma": 0.0}, {"sigma": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CMAES(**wrong)  # type: ignore[arg-type]
    assert CMAES.refuse(MIXED) is None
    assert "1001 categories" in str(CMAES.refuse(parse({"c": {"_type": "choice", "_value": list(range(1001))}})))
    many = parse({f"x{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(1001)})
    assert "1001 parameters" in str(CMAES.refuse(many))
