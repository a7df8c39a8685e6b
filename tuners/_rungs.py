"""Rungs of a ladder of budgets: at each one the best 1/eta of the results may go on, at any moment, each once.

The asynchronous promotion rule of ASHA: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, A
System for Massively Parallel Hyperparameter Tuning (MLSys 2020), algorithm 2. A rung is three heaps, so a result and a
promotion cost O(log n).
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import NamedTuple

from ..engine.space import Space
from ._history import Cells
from ._lineages import Budget, Rank, Run, Runs


def ladder_of(low: Budget, high: Budget, eta: int) -> list[Budget]:
    """The budgets high, high / eta, high / eta**2 ... that are at least `low`, ascending; of whole ones, whole ones.

    `ValueError` for what is no ladder.
    """
    if not (0 < low <= high < math.inf):
        raise ValueError(f"the budgets are {low} to {high}; allowed: numbers above 0, the smaller one first")
    if eta < 2:
        raise ValueError(f"eta is {eta}; allowed: 2 or more")
    top = math.floor(math.log(high / low) / math.log(eta) + 1e-9)
    exact = [high / eta**k for k in range(top, -1, -1)]
    return [math.floor(b + 1e-9) for b in exact] if isinstance(low, int) and isinstance(high, int) else exact


def bracket_size(top: int, rungs_above: int, eta: int) -> int:
    """How many configurations Hyperband starts in a bracket that has so many rungs above its first one."""
    return math.ceil((top + 1) / (rungs_above + 1) * eta**rungs_above - 1e-9)


class Rung:
    """The results at one budget."""

    def __init__(self, eta: int) -> None:
        self.count = 0  # ended runs, failed ones too
        self._eta = eta
        self._best: list[tuple[float, float, int]] = []  # the best count // eta, negated: the worst of them in front
        self._rest: list[Rank] = []
        self._left: list[Rank] = []  # those that were not promoted (and some that were: dropped when they come up)
        self._promoted: set[int] = set()

    def add(self, rank: Rank | None) -> None:
        """Take in a result; None: a run that ended without one counts as worse than all."""
        self.count += 1
        if rank is not None:
            heappush(self._left, rank)
            if self._best and rank < self._worst():
                heappush(self._best, _negated(rank))
            else:
                heappush(self._rest, rank)
        quota = self.count // self._eta
        while len(self._best) > quota:
            heappush(self._rest, _negated(heappop(self._best)))
        while len(self._best) < quota and self._rest:
            heappush(self._best, _negated(heappop(self._rest)))

    def promote(self, index: int) -> None:
        """This run has gone on."""
        self._promoted.add(index)

    def candidate(self) -> int | None:
        """The best run among the best 1/eta that has not gone on, or None."""
        while self._left and self._left[0][2] in self._promoted:
            heappop(self._left)
        return self._left[0][2] if self._left and self._best and self._left[0] <= self._worst() else None

    def _worst(self) -> Rank:
        return _negated(self._best[0])


class Promotion(NamedTuple):
    """A run that may go on: from which rung of which bracket, and to which budget."""

    run: int
    bracket: int
    rung: int
    budget: Budget
    results: int  # that its rung holds


class Ladder:
    """The rungs of each bracket in one space: bracket s starts at rung s. Fed with runs in their order."""

    def __init__(self, space: Space, budgets: list[Budget], eta: int, brackets: int) -> None:
        self.space = space
        self.budgets = budgets
        self.taken: set[Cells] = set()
        self.top = len(budgets) - 1
        self.rungs = [[Rung(eta) for _ in budgets] for _ in range(brackets)]
        self.places: dict[int, tuple[int, int]] = {}  # by run: its bracket and rung
        self._read = 0

    def serves(self, space: Space) -> bool:
        """Whether this is a ladder of that space."""
        return space is self.space or space.raw == self.space.raw

    def sync(self, runs: Runs) -> None:
        """Take in what the runs have got since the last time."""
        for event in runs.events[self._read :]:
            if event >= 0:
                self._start(runs.all[event])
            elif ~event in self.places:
                self.end(runs, runs.all[~event])
        self._read = len(runs.events)

    def promotion(self) -> Promotion | None:
        """The run that is to go on now, from the highest rung that has one; None: there is none."""
        for rung in range(self.top - 1, -1, -1):
            for bracket, rungs in enumerate(self.rungs):
                run = rungs[rung].candidate()
                if run is not None:
                    return Promotion(run, bracket, rung, self.budgets[rung + 1], rungs[rung].count)
        return None

    def _start(self, run: Run) -> None:
        if run.parent is None:
            cells = self.space.cells(run.parameters)
            if cells is None:  # a point of a former space, or a stranger's
                return
            self.taken.add(cells)
            if run.kind == "ours" and run.budget in self.budgets[: len(self.rungs)]:
                first = self.budgets.index(run.budget)
                self.places[run.index] = first, first
        elif run.parent in self.places:
            bracket, rung = self.places[run.parent]
            self.rungs[bracket][rung].promote(run.parent)
            self.places[run.index] = bracket, rung + 1

    def end(self, runs: Runs, run: Run) -> None:
        """A run of this ladder has ended."""
        bracket, rung = self.places[run.index]
        if run.state != "cancelled":
            self.rungs[bracket][rung].add(run.rank)


def _negated(rank: tuple[float, float, int]) -> tuple[float, float, int]:
    return -rank[0], -rank[1], -rank[2]
