"""Hyperband's brackets: groups of runs that are halved together, rung by rung, when the whole rung has ended.

Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization (JMLR 18, 2018), algorithm 1. Bracket s starts n = ceil((top + 1) / (s + 1) * eta**s) runs with the budget
R * eta**-s; of each rung the best 1/eta go on. The brackets s = top, ..., 1, 0 follow each other, and begin again after
the last one.

Which bracket a run belongs to is a matter of order: those that start afresh fill one bracket after the other, those
that continue a run are in its bracket.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.space import Space
from ._history import Cells
from ._lineages import Budget, Run, Runs
from ._rungs import bracket_size


class Bracket:
    """One round of successive halving: `sizes[i]` runs at `budgets[i]`."""

    def __init__(self, number: int, budgets: list[Budget], top: int, eta: int) -> None:
        self.number = number
        self.budgets = budgets
        first = bracket_size(top, len(budgets) - 1, eta)
        self.sizes = [first // eta**rung for rung in range(len(budgets))]
        self.rung = 0
        self.started = self.ended = 0  # in the rung
        self.wanted = first  # how many runs the rung gets
        self.left: list[int] = []  # runs of the rung below that are still to go on, the best one last
        self.over = False
        self._results: list[Run] = []

    @property
    def full(self) -> bool:
        """Whether it takes no further run that starts afresh."""
        return self.rung > 0 or self.started == self.wanted

    def start(self, parent: int | None) -> None:
        """A run of the rung has started: afresh, or going on with one of the rung below."""
        self.started += 1
        if parent is not None:
            self.left.remove(parent)

    def end(self, run: Run) -> None:
        """A run of the rung has ended; with the last one the best go on."""
        self.ended += 1
        if run.rank is not None:
            self._results.append(run)
        if self.ended == self.wanted:
            self._halve()

    def _halve(self) -> None:
        best = sorted(self._results, key=lambda run: run.rank or ())
        self.rung += 1
        if self.rung == len(self.budgets) or not best:
            self.over, self.left = True, []
            return
        self.left = [run.index for run in best[: self.sizes[self.rung]]][::-1]
        self.wanted, self.started, self.ended, self._results = len(self.left), 0, 0, []


class Next(NamedTuple):
    """What is to run next: in which bracket and rung, with which budget, going on with which run (None: afresh)."""

    bracket: Bracket
    rung: int
    budget: Budget
    run: int | None


class Brackets:
    """The brackets in one space, fed with runs in their order."""

    def __init__(self, space: Space, budgets: list[Budget], eta: int, serial: bool) -> None:
        self.space = space
        self.budgets = budgets
        self.taken: set[Cells] = set()
        self.places: dict[int, tuple[int, int]] = {}  # by run that has not ended its rung: its bracket and rung
        self._eta, self._serial = eta, serial
        self._newest = self._bracket(0)
        self._going: dict[int, Bracket] = {0: self._newest}  # those that are not over
        self._read = 0

    def serves(self, space: Space) -> bool:
        """Whether these are the brackets of that space."""
        return space is self.space or space.raw == self.space.raw

    def sync(self, runs: Runs) -> None:
        """Take in what the runs have got since the last time."""
        for event in runs.events[self._read :]:
            if event >= 0:
                self._start(runs.all[event])
            elif ~event in self.places:
                self._end(runs.all[~event])
        self._read = len(runs.events)

    def next(self) -> Next | None:
        """What is to run next; None: nothing before another run has ended."""
        for bracket in self._going.values():
            if bracket.left:
                return Next(bracket, bracket.rung, bracket.budgets[bracket.rung], bracket.left[-1])
        bracket = self._newest
        if bracket.full:
            if self._serial and not bracket.over:
                return None
            bracket = self._bracket(bracket.number + 1)
        return Next(bracket, 0, bracket.budgets[0], None)

    def _bracket(self, number: int) -> Bracket:
        rungs = len(self.budgets)
        return Bracket(number, self.budgets[number % rungs :], rungs - 1, self._eta)

    def _start(self, run: Run) -> None:
        if run.parent is None:
            cells = self.space.cells(run.parameters)
            if cells is None:  # a point of a former space, or a stranger's
                return
            self.taken.add(cells)
            if run.kind != "ours":
                return
            bracket = self._newest if not self._newest.full else self._bracket(self._newest.number + 1)
            if run.budget != bracket.budgets[0]:
                return
            if bracket is not self._newest:
                self._newest = self._going[bracket.number] = bracket
            bracket.start(None)
            self.places[run.index] = bracket.number, 0
            return
        place = self.places.get(run.parent)
        bracket = self._going.get(place[0]) if place is not None else None
        if place is not None and bracket is not None and run.parent in bracket.left:
            bracket.start(run.parent)
            self.places[run.index] = bracket.number, place[1] + 1

    def _end(self, run: Run) -> None:
        bracket = self._going[self.places[run.index][0]]
        bracket.end(run)
        if bracket.over:
            del self._going[bracket.number]
