"""PASHA: the largest budget is raised while the ranking still changes, and not before."""

from __future__ import annotations

import numpy as np
import pytest
from promotion_search import SPACE, Search

from tune.engine.space import parse
from tune.tuners.pasha import PASHA, agree, noise_of


def test_a_ranking_that_holds_needs_no_larger_budget() -> None:
    search = Search(PASHA())
    search.run(200, 4)
    search.check()
    assert {a.budget for a in search.answers} == {1, 3}  # the loss falls alike for all


def test_a_ranking_that_changes_raises_the_budget_one_rung_at_a_time() -> None:
    search = Search(PASHA(max_budget=27))

    def end(search: Search) -> None:
        number = search.open[0]
        x, budget = search.answers[number].parameters["x"], search.budget(number)
        search.end(number, "completed", x if budget in (1, 9) else -x)  # turned over at each step

    search.run(400, 4, end)
    search.check()
    order = [a.budget for a in search.answers]
    firsts = [order.index(budget) for budget in (1, 3, 9, 27)]
    assert firsts == sorted(firsts)
    assert max(b for b in order if b is not None) == 27


def test_noise_is_what_pairs_that_cross_twice_differ_by() -> None:
    assert noise_of(np.array([[1.0, 2.0], [2.0, 1.0]])) == 0.0
    assert noise_of(np.array([[1.0, 2.0, 1.0], [2.0, 1.5, 2.0]])) == 0.5


def test_agreement_up_to_the_noise() -> None:
    assert agree([[3.0, 0.1], [2.0, 0.05], [1.0, 0.01]])
    assert not agree([[3.0, 0.1], [2.0, 0.05], [1.0, 0.06]])
    crossing = [[1.0, 2.0, 1.0], [2.0, 1.5, 2.0]]  # the order below the top is another one, by less than the noise
    assert agree(crossing)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="budgets"):
        PASHA(min_budget=9, max_budget=3)
    with pytest.raises(TypeError):
        PASHA(brackets=2)  # type: ignore[call-arg]
    assert "PASHA itself" in str(PASHA.refuse(parse({"TRIAL_BUDGET": SPACE.raw["x"]})))
