"""A history as arrays in one space: where the points lie, how they ended, which still run."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..engine.space import Space
from ._history import EXTRAS, Cells, History
from ._numerics import Floats
from ._parzen import Axes


class Trials:
    """What is known of a space; losses (less is better) are NaN for what failed or was stopped without a value.

    A trial that was cancelled counts as taken and says nothing else.
    """

    def __init__(self, space: Space, sign: float) -> None:
        self.axes = Axes(space)
        self.taken: set[Cells] = set()
        self.ended: list[int] = []  # rows, in the order in which they ended
        self.losses: list[float] = []  # of these
        self.violations: list[float] = []  # of the outcome constraints; 0.0 where they are met
        self.known = 0  # how many losses are numbers
        self.count = 0
        self._sign = sign
        self._rows: Floats = np.empty((64, self.axes.count))
        self._row_of: dict[int, int] = {}  # points of the history that lie in this space
        self._running: dict[int, None] = {}
        self._points_read = self._ends_read = 0

    def serves(self, space: Space) -> bool:
        """Whether these are the trials of that space."""
        own = self.axes.space
        return space is own or (space.raw == own.raw and space.constraints == own.constraints)

    def sync(self, history: History) -> None:
        """Take in what the history has got since the last time."""
        for index in range(self._points_read, len(history.points)):
            self._point(index, history)
        self._points_read = len(history.points)
        for index in history.ended[self._ends_read :]:
            row = self._row_of.get(index)
            if row is None:
                continue
            point = history.points[index]
            del self._running[row]
            if point.state == "cancelled":
                continue
            self.ended.append(row)
            self.losses.append(math.nan if point.value is None else self._sign * point.value)
            self.violations.append(point.violation)
            self.known += point.value is not None
        self._ends_read = len(history.ended)

    def rows(self, places: NDArray[np.intp] | list[int]) -> Floats:
        """The rows of ended trials, by their places in `ended`."""
        numbers = np.array(self.ended, dtype=np.intp)[np.asarray(places, dtype=np.intp)]
        return self._rows[numbers]

    def running(self) -> Floats:
        """The rows of trials that have not ended, (m x d)."""
        return self._rows[np.array(list(self._running), dtype=np.intp)]

    def placed(self) -> Floats:
        """The rows of all points, whatever became of them."""
        return self._rows[: self.count]

    def _point(self, index: int, history: History) -> None:
        space = self.axes.space
        try:
            flat = space.flatten(history.points[index].parameters, EXTRAS)
        except ValueError:  # a point of a former space, or a stranger's
            return
        self.taken.add(tuple(param.cell(flat[param.key]) if param.key in flat else None for param in space.params))
        if self.count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self.count] = self.axes.row(flat)
        self._row_of[index] = self.count
        self._running[self.count] = None
        self.count += 1
