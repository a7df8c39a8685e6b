"""Brackets: Hyperband's arithmetic against the paper's table, and rungs that are halved when they have ended."""

from __future__ import annotations

import pytest

from tune.tuners._brackets import Bracket
from tune.tuners._lineages import Run
from tune.tuners._rungs import ladder_of

# R = 81, eta = 3: (runs, budget) of each rung, bracket by bracket (JMLR 18, table 1)
TABLE = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(34, 3), (11, 9), (3, 27), (1, 81)],
    [(15, 9), (5, 27), (1, 81)],
    [(8, 27), (2, 81)],
    [(5, 81)],
]


@pytest.mark.parametrize("number", range(5))
def test_the_table_of_the_paper(number: int) -> None:
    budgets = ladder_of(1, 81, 3)
    bracket = Bracket(number, budgets[number:], 4, 3)
    assert list(zip(bracket.sizes, bracket.budgets, strict=True)) == TABLE[number]


def test_the_sizes_of_nni_with_its_defaults() -> None:
    budgets = ladder_of(1, 60, 3)  # R = 60, eta = 3
    assert [Bracket(number, budgets[number:], 3, 3).sizes for number in range(4)] == [
        [27, 9, 3, 1],
        [12, 4, 1],
        [6, 2],
        [4],
    ]


def ended(index: int, loss: float | None) -> Run:
    return Run(index, index, "ours", {}, rank=None if loss is None else (0.0, loss, index))


def test_a_rung_is_halved_when_its_last_run_has_ended() -> None:
    bracket = Bracket(0, [1, 3], 1, 3)
    for _ in range(3):
        assert not bracket.full
        bracket.start(None)
    assert bracket.full
    for index, loss in enumerate((0.3, 0.1)):
        bracket.end(ended(index, loss))
        assert bracket.left == [] and bracket.rung == 0
    bracket.end(ended(2, 0.2))
    assert (bracket.left, bracket.rung, bracket.over) == ([1], 1, False)
    bracket.start(1)
    assert bracket.left == []
    bracket.end(ended(3, None))  # the last run fails: it's over all the same
    assert bracket.over


def test_failed_runs_make_room_and_a_rung_of_failures_ends_it() -> None:
    bracket = Bracket(0, [1, 3], 1, 3)
    for _ in range(3):
        bracket.start(None)
    for index, loss in enumerate((None, 0.5, None)):
        bracket.end(ended(index, loss))
    assert bracket.left == [1] and bracket.wanted == 1
    bracket = Bracket(0, [1, 3], 1, 3)
    for _ in range(3):
        bracket.start(None)
    for index in range(3):
        bracket.end(ended(index, None))
    assert bracket.over and bracket.left == []
