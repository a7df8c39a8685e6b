"""Points of a space as columns of numbers whose weighted squared distances a kernel is made of.

A numeric parameter is one column, its place in the unit interval; where it is inactive it has the middle, so that two
points of another branch do not differ in it. A categorical one has a column for each value that occurs among the data
and one for all the others, 1 / sqrt(2) where it has that value, so that two values differ by a squared distance of 1
(Hamming); inactive counts as a value.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ._numerics import Floats
from ._parzen import Axes

MIDDLE = 0.5
_SAME = math.sqrt(0.5)


class Columns:
    """The way from rows (as `Axes` has them) to columns, for the categories that occur in `rows` (n x d)."""

    def __init__(self, axes: Axes, rows: Floats) -> None:
        self.axes = axes
        self.numbers = len(axes.numeric)  # they come first
        codes = np.where(np.isnan(rows), -1.0, rows)
        self._known: list[tuple[int, Floats]] = [(int(j), np.unique(codes[:, j])) for j in axes.categorical]
        widths = [len(known) + 1 for _, known in self._known]
        owners = [*range(self.numbers)]
        for place, width in enumerate(widths):
            owners += [self.numbers + place] * width
        self.owner: NDArray[np.intp] = np.array(owners, dtype=np.intp)  # by column: numeric ones first, then the rest
        self.parameters = self.numbers + len(widths)
        self.order: NDArray[np.intp] = np.concatenate([axes.numeric, axes.categorical])  # parameters as owners count

    def of(self, rows: Floats) -> Floats:
        """Columns of rows, (m x columns)."""
        columns = np.zeros((len(rows), len(self.owner)))
        numbers = rows[:, self.axes.numeric]
        columns[:, : self.numbers] = np.where(np.isnan(numbers), MIDDLE, numbers)
        each = np.arange(len(rows))
        first = self.numbers
        for j, known in self._known:
            codes = np.where(np.isnan(rows[:, j]), -1.0, rows[:, j])
            place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
            place = np.where(known[place] == codes, place, len(known))
            columns[each, first + place] = _SAME
            first += len(known) + 1
        return columns

    def sum_by_parameter(self, by_column: Floats) -> Floats:
        """What the columns have, added up by parameter."""
        return np.bincount(self.owner, by_column, self.parameters).astype(np.float64)
