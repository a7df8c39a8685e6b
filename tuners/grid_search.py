"""Grid search over every kind of parameter, coarse first: each level halves the gaps of the one before.

Categorical parameters and those of up to 32 values are taken whole at once. Wider ones are cut at 1/2 of their
cumulative distribution on level 0, at 1/4 and 3/4 on level 1, and so on, as NNI 2.6 and later do; what rounding makes
equal counts once. Level k is every combination of values of levels 0 to k that is new in it. A countable space ends in
`Exhausted` when all of it was taken, by whomever; a continuous one when halving finds no other floats any more.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._history import History, Taken

WHOLE = 32  # values that are taken at once
LISTED = 1024  # quantised values whose order is written down; beyond, halving goes on like in a continuous one
DEEPEST = 52  # halvings that a float can tell apart


class GridSearch:
    """Goes through the grid level by level. `optimize_mode` changes nothing."""

    dedups: ClassVar[bool] = True
    multi_objective: ClassVar[bool] = True

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize") -> None:
        self._history = History()
        self._taken = Taken(self._history)
        self._grid: Grid | None = None
        self._level = self._number = 0  # the first point that may be free: those before it are taken for ever

    def observe(self, fact: Observation) -> None:
        """Remember which points are taken."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """The first point of the grid that is not taken."""
        if self._taken.sync(ask.space) or self._grid is None:
            self._grid, self._level, self._number = Grid(ask.space), 0, 0
        grid = self._grid
        while self._level <= DEEPEST:
            count = grid.count_new(self._level)
            if not count and self._level >= grid.depth:
                break
            while self._number < count:
                point = grid.point(self._level, self._number)
                if point not in self._taken and ask.space.allows(point):
                    return Suggestion(point, decision={"rule": "grid", "level": self._level, "number": self._number})
                self._number += 1
            self._level, self._number = self._level + 1, 0
        return Exhausted(f"all {len(self._taken.cells)} points were taken")


class Grid:
    """The points of a space by level and number; how many there are is counted, none is stored.

    A parameter has `total(k)` values on levels 0 to k, the old ones first. The points of a group of parameters that
    are new on level k fall into parts by the first parameter whose value is new: those before it have old values,
    those after it any.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._levels = {param.index: _levels(param) for param in space.params if not param.nested}
        self._deepest = {
            index: _deepest(space.params[index]) if levels is None else len(levels) - 1
            for index, levels in self._levels.items()
        }
        self.depth = max(self._deepest.values(), default=0) + 1
        self._totals: dict[tuple[int, int], int] = {}

    def count_new(self, level: int) -> int:
        """How many points are new on a level."""
        return self._group(self.space.roots, level) - self._group(self.space.roots, level - 1)

    def point(self, level: int, number: int) -> dict[str, Any]:
        """Point `number` of those that are new on a level."""
        flat: dict[str, Any] = {}
        self._fill_new(self.space.roots, level, number, flat)
        return self.space.assemble(flat)

    def _group(self, indices: tuple[int, ...], level: int) -> int:
        return math.prod(self._total(index, level) for index in indices) if level >= 0 else 0

    def _total(self, index: int, level: int) -> int:
        if level < 0:
            return 0
        known = self._totals.get((index, level))
        if known is None:
            param = self.space.params[index]
            if param.nested:
                known = sum(self._group(children, level) for children in param.children)
            else:
                levels = self._levels[index]
                halved = min(level, self._deepest[index])
                known = 2 ** (halved + 1) - 1 if levels is None else sum(map(len, levels[: level + 1]))
            self._totals[index, level] = known
        return known

    def _fill_new(self, indices: tuple[int, ...], level: int, number: int, flat: dict[str, Any]) -> None:
        before, after = 1, math.prod(self._total(index, level) for index in indices)
        place = 0
        for place, index in enumerate(indices):  # noqa: B007  # the place where it breaks is the one that is new
            after //= self._total(index, level)
            old = self._total(index, level - 1)
            part = before * (self._total(index, level) - old) * after
            if number < part:
                break
            number -= part
            before *= old
        else:
            return  # a group without parameters has one point, new on level 0
        for later in reversed(range(len(indices))):
            one = indices[later]
            old, total = self._total(one, level - 1), self._total(one, level)
            choice = old if later < place else total - old if later == place else total
            number, rest = divmod(number, choice)
            self._fill(one, level, rest + old if later == place else rest, flat)

    def _fill(self, index: int, level: int, number: int, flat: dict[str, Any]) -> None:
        """Value `number` of a parameter among those on levels up to this one."""
        param = self.space.params[index]
        while level > 0 and self._total(index, level - 1) > number:
            level -= 1
        number -= self._total(index, level - 1)
        levels = self._levels.get(index)
        if not param.nested:
            unit = (number + 0.5) / 2**level
            flat[param.key] = param.from_unit(unit) if levels is None else param.at(levels[level][number])
            return
        for name, children in zip(param.choices, param.children, strict=True):
            new = self._group(children, level) - self._group(children, level - 1)
            if number < new:
                flat[param.key] = name
                self._fill_new(children, level, number, flat)
                return
            number -= new


def _deepest(param: Param) -> int:
    """The last level on which halving tells most values apart; what is finer, a float or a quantum can't say."""
    places = 64
    for level in range(1, DEEPEST + 1):
        count = 2**level
        firsts = dict.fromkeys((count - 2) * place // (places - 1) for place in range(places))
        apart = sum(param.from_unit((i + 0.5) / count) != param.from_unit((i + 1.5) / count) for i in firsts)
        if 2 * apart < len(firsts):
            return level - 1
    return DEEPEST


def _levels(param: Param) -> list[range | list[int]] | None:
    """The cells of a parameter that are new on each level; None when halving has no end."""
    if param.size is not None and (param.categorical or param.size <= WHOLE):
        return [range(param.size)]
    countable = (param.size or LISTED + 1) <= LISTED or param.kind in ("qnormal", "qlognormal")
    if not countable or isinstance(param.cell(param.from_unit(1.0)), float):
        return None
    levels: list[range | list[int]] = []
    seen: set[int | float] = set()
    for level in range(LISTED.bit_length()):
        cells = (param.cell(param.from_unit((i + 0.5) / 2**level)) for i in range(2**level))
        levels.append([int(cell) for cell in dict.fromkeys(cells) if cell not in seen])
        seen.update(levels[-1])
    if param.size is None:  # qnormal, qlognormal: what so fine a grid does not reach lies in tails nobody draws from
        return None if len(seen) > LISTED // 2 else levels
    levels.append([cell for cell in range(param.size) if cell not in seen])
    return levels
