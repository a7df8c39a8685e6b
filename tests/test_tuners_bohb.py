"""BOHB: Hyperband's brackets with a model of the largest budget that has enough results."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from promotion_search import SPACE, Search, loss

from tune.engine.plugins import Imported
from tune.engine.space import parse
from tune.tuners.bohb import BOHB, Models
from tune.tuners.hyperband import Hyperband


def test_its_brackets_are_hyperbands() -> None:
    found = []
    for tuner in (BOHB(min_budget=1, max_budget=9), Hyperband(R=9)):
        search = Search(tuner)
        search.run(120, 3)
        search.check()
        found.append(Counter((a.decision["bracket"], a.decision["rung"], a.budget) for a in search.answers))
    assert found[0] == found[1]


def test_the_model_finds_better_points_than_chance() -> None:
    def late(tuner: Hyperband) -> float:
        search = Search(tuner)
        search.run(150)
        new = [a.parameters["x"] for a in search.answers[75:] if a.continues is None]
        return float(np.median(np.abs(np.array(new) - 0.3)))

    assert late(BOHB(max_budget=9, random_fraction=0.0)) < late(BOHB(max_budget=9, random_fraction=1.0)) * 0.7


def test_rules_in_their_order() -> None:
    search = Search(BOHB(max_budget=9))
    search.run(120)
    rules = Counter(a.decision["rule"] for a in search.answers)
    assert rules["new: no model yet"] >= 5 and rules["promote"] > 10
    assert 0.15 < rules["new: random fraction"] / (rules["new: random fraction"] + rules["new: model"]) < 0.5
    models = [a.decision["model"] for a in search.answers if a.decision["rule"] == "new: model"]
    assert models == sorted(models) and set(models) == {1, 3, 9}  # it moves up as larger budgets fill


def test_imports_count_at_their_budget_and_else_as_complete() -> None:
    tuner = BOHB(max_budget=9)
    search = Search(tuner)
    for n in range(20):
        point = {"x": n / 20, "n": 5}
        search.observe(Imported(n, point, -loss(point)))
        search.observe(Imported(n, {**point, "TRIAL_BUDGET": 3}, -loss(point)))
        search.observe(Imported(n, {**point, "TRIAL_BUDGET": 2}, 1e9))  # none of its budgets
        search.observe(Imported(n, point, None))
    search.ask()
    models = Models(SPACE, tuner.budgets)
    models.sync(tuner._runs)
    assert [models.count(budget) for budget in (1, 3, 9)] == [0, 20, 20]
    assert models.largest(5) == 9 and models.largest(21) is None
    good, rest = models.densities(9, 3, 15)
    rows = np.array([[0.3, 0.05], [0.9, 0.05]])
    ratio = good.log(rows) - rest.log(rows)
    assert ratio[0] > ratio[1]


def test_arguments() -> None:
    with pytest.raises(ValueError, match="config_space is not taken here"):
        BOHB(config_space="space.pcs")
    for wrong in ({"top_n_percent": 0}, {"random_fraction": 2}, {"num_samples": 0}, {"min_points_in_model": 0}):
        with pytest.raises(ValueError, match="allowed"):
            BOHB(**wrong)  # type: ignore[arg-type]
    wide = {"_type": "input_choice", "_value": {"candidates": list(range(60)), "n_chosen": None}}
    assert "i has more" in str(BOHB.refuse(parse({"i": wide})))
    assert "TRIAL_BUDGET" in str(BOHB.refuse(parse({"TRIAL_BUDGET": SPACE.raw["x"]})))
