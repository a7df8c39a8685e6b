"""Rungs: the best 1/eta may go on, each once, whatever the order in which results come."""

from __future__ import annotations

import random

import pytest

from tune.tuners._rungs import Rung, bracket_size, ladder_of


@pytest.mark.parametrize(
    ("low", "high", "eta", "budgets"),
    [
        (1, 81, 3, [1, 3, 9, 27, 81]),
        (1, 60, 3, [2, 6, 20, 60]),
        (1, 3, 3, [1, 3]),
        (5, 5, 2, [5]),
        (1, 2, 3, [2]),
        (0.5, 10.0, 2, [0.625, 1.25, 2.5, 5.0, 10.0]),
    ],
)
def test_budgets(low: float, high: float, eta: int, budgets: list[float]) -> None:
    found = ladder_of(low, high, eta)
    assert found == budgets
    assert {type(budget) for budget in found} == {type(high)}


@pytest.mark.parametrize(("low", "high", "eta"), [(0, 9, 3), (9, 1, 3), (1, 9, 1), (1, float("inf"), 3)])
def test_what_is_no_ladder(low: float, high: float, eta: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        ladder_of(low, high, eta)


def test_sizes_of_the_paper() -> None:
    assert [bracket_size(4, above, 3) for above in (4, 3, 2, 1, 0)] == [81, 34, 15, 8, 5]  # R = 81, eta = 3


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_any_order_of_results_and_promotions(eta: int) -> None:
    draw = random.Random(eta)
    rung, results, gone = Rung(eta), [], []
    for count, index in enumerate(range(400), 1):
        if draw.random() < 0.2:
            rung.add(None)
        else:
            rank = (0.0, float(draw.randrange(50)), index)
            results.append(rank)
            rung.add(rank)
        top = sorted(results)[: count // eta]
        left = [rank[2] for rank in top if rank[2] not in gone]
        assert rung.candidate() == (left[0] if left else None)
        while left and draw.random() < 0.7:
            index_gone = rung.candidate()
            assert index_gone is not None
            rung.promote(index_gone)
            gone.append(index_gone)
            left = [rank[2] for rank in top if rank[2] not in gone]
            assert rung.candidate() == (left[0] if left else None)
    assert len(set(gone)) == len(gone) > 20


def test_infeasible_results_go_on_last() -> None:
    rung = Rung(2)
    for index, violation in enumerate((0.5, 0.0, 0.1, 0.2)):
        rung.add((violation, -float(10 - index), index))
    assert rung.candidate() == 1
    rung.promote(1)
    assert rung.candidate() == 2
    rung.promote(2)
    assert rung.candidate() is None
