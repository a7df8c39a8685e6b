"""Points of a space as lists of genes, and the history as such: what tuners that breed points work with.

A gene is a number: a numeric parameter's place in [0, 1], a categorical one's number, NaN where it is inactive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ..engine.space import EXACT, Cell, Param, Space
from ._history import EXTRAS, Cells, History, State
from .random import untaken

Genes: TypeAlias = list[float]
Order: TypeAlias = tuple[float, float]  # (violation, loss): less is better, and what meets the constraints comes first

TRIES = 30  # children that are bred before chance decides


@dataclass(slots=True)
class Individual:
    """A point of the space with what became of it."""

    number: int  # its place among the points of this space, in the order in which they were suggested
    genes: Genes
    trial: int | None = None  # None: imported
    state: State = "pending"
    order: Order | None = None  # None: it has no value (yet)
    values: list[float] = field(default_factory=list[float])  # of several objectives


class Genome:
    """How the points of one space are written as genes."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.params = space.params
        self.count = len(space.params)
        self._places: list[dict[Cell, float]] = [{} for _ in space.params]  # of values that can be counted

    def read(self, flat: Mapping[str, Any]) -> tuple[Genes, Cells]:
        """The genes and the cells of a point that `Space.flatten` took apart."""
        genes = [math.nan] * self.count
        cells: list[Cell | None] = [None] * self.count
        for param in self.params:
            if param.key in flat:
                value = flat[param.key]
                cell = param.cell(value)
                cells[param.index] = cell
                genes[param.index] = float(cell) if param.categorical else self._place(param, cell, value)
        return genes, tuple(cells)

    def _place(self, param: Param, cell: Cell, value: Any) -> float:
        if isinstance(cell, float):
            return param.to_unit(value)
        places = self._places[param.index]
        known = places.get(cell)
        if known is None:
            known = places[cell] = param.to_unit(value)
        return known

    def write(self, gene: Callable[[Param], float]) -> tuple[dict[str, Any], Cells]:
        """A point whose active parameters have the genes that `gene` says, asked parents first; and its cells."""
        cells: list[Cell | None] = [None] * self.count

        def choose(param: Param) -> Any:
            place = gene(param)
            if param.categorical:
                cells[param.index] = int(place)
                return param.at(int(place))
            value = param.from_unit(place)
            cells[param.index] = param.cell(value)
            return value

        return self.space.draw(choose), tuple(cells)


class Results:
    """The history in one space: all points that lie in it, and what is taken."""

    def __init__(self, space: Space, sign: float) -> None:
        self.genome = Genome(space)
        self.space = space
        self.members: list[Individual] = []
        self.taken: set[Cells] = set()
        self._sign = sign
        self._points_read = self._ends_read = 0
        self._member_of: dict[int, Individual] = {}  # those that run, by their place in the history

    def serves(self, space: Space) -> bool:
        """Whether these are the results in that space."""
        return space is self.space or space.raw == self.space.raw

    def sync(self, history: History) -> list[Individual]:
        """Take in what the history has got since the last time; who has ended since, in the order of the ends."""
        points, ended = history.points, history.ended
        for index in range(self._points_read, len(points)):
            try:
                flat = self.space.flatten(points[index].parameters, EXTRAS)
            except ValueError:  # a point of a former space, or a stranger's
                continue
            genes, cells = self.genome.read(flat)
            self.taken.add(cells)
            self._member_of[index] = Individual(len(self.members), genes, points[index].trial)
            self.members.append(self._member_of[index])
        self._points_read = len(points)
        new: list[Individual] = []
        for index in ended[self._ends_read :]:
            member = self._member_of.pop(index, None)
            if member is None:
                continue
            point = points[index]
            member.state = point.state
            if point.value is not None:
                member.order = (point.violation, self._sign * point.value)
                member.values = point.values
            new.append(member)
        self._ends_read = len(ended)
        return new

    @property
    def running(self) -> list[Individual]:
        """Those that have no end yet, in the order in which they were suggested."""
        return list(self._member_of.values())

    def breed(self, child: Callable[[], Callable[[Param], float]]) -> dict[str, Any] | None:
        """The first of up to `TRIES` children that is new and meets the constraints; None when there is none.

        `child` is called for each of them, and gives what `Genome.write` asks.
        """
        for _ in range(TRIES):
            point, cells = self.genome.write(child())
            if cells not in self.taken and self.space.allows(point):
                return point
        return None

    def random(self, generator: np.random.Generator) -> dict[str, Any]:
        """A point of the prior, a new one if there is one."""
        point = untaken(self.space, self.taken, generator)
        return self.space.sample(generator.random) if point is None else point


def too_wide(space: Space, tuner: str) -> str | None:
    """Why a space has no genes: a parameter with more values than floats can count; or None."""
    wide = [param.key for param in space.params if param.categorical and (param.size or 0) > EXACT]
    return f"{wide[0]} has more than 2**53 values, too many for {tuner}" if wide else None


def parents(*individuals: Individual) -> tuple[int, ...]:
    """The trials of these, each once."""
    return tuple(dict.fromkeys(one.trial for one in individuals if one.trial is not None))


def prior(param: Param, generator: np.random.Generator) -> float:
    """A gene of a parameter's prior."""
    u = float(generator.random())
    return float(min(int(u * (param.size or 1)), (param.size or 1) - 1)) if param.categorical else u


def grain(param: Param) -> float:
    """How wide a value of a numeric parameter is in [0, 1], on average; 0.0 when its values can't be counted."""
    return 1.0 / param.size if param.size else 0.0


def reflected(x: float) -> float:
    """A place mirrored at the ends of [0, 1]."""
    x = abs(x) % 2.0
    return 2.0 - x if x > 1.0 else x


def other(param: Param, gene: float, generator: np.random.Generator) -> float:
    """Another value of a categorical parameter, each as likely; the same when there is no other."""
    size = param.size or 1
    if size == 1:
        return gene
    drawn = min(int(generator.random() * (size - 1)), size - 2)
    return float(drawn + (drawn >= gene))
