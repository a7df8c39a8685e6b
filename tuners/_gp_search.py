"""Where an acquisition is largest: random points, steps around good ones, then all the best of them climb together.

Any space: categorical parameters and whole branches change by random steps, numeric ones also by gradients. The
climbers are one batch, so that a step of all of them costs about as much as a step of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._numerics import Floats
from ._parzen import Axes

Score: TypeAlias = Callable[[Floats], Floats]  # rows (m x d) -> their worth (m)
Slopes: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]  # rows -> worth (m), gradient by numeric ones (m x k)
Allowed: TypeAlias = Callable[[Floats], NDArray[np.bool_]]

_AROUND = ((0.1, 4, 24), (0.02, 2, 24))  # deviation of steps, from how many of the best points, steps from each
_ROUNDS = ((0.1, 6, 10), (0.03, 4, 10))  # the same for rounds of steps from the best candidates
_CLIMB = 14  # steps of all climbers
FEW = 20.0  # parameters that change at a time where there are many


@dataclass(frozen=True, slots=True)
class Box:
    """Bounds of the numeric parameters' places, each (k)."""

    low: Floats
    high: Floats

    @staticmethod
    def whole(axes: Axes) -> Box:
        """No bounds but those of the space."""
        return Box(np.zeros(len(axes.numeric)), np.ones(len(axes.numeric)))


class Search:
    """One search over a space; chance comes from `generator`.

    With a `box` and its `centre` (a row) only points inside it are looked at, that differ from the centre in about
    `FEW` parameters.
    """

    def __init__(
        self, axes: Axes, generator: np.random.Generator, box: Box | None = None, centre: Floats | None = None
    ) -> None:
        self.axes, self.generator = axes, generator
        self.box = box or Box.whole(axes)
        self.centre = centre

    def random(self, count: int) -> Floats:
        """Rows of the prior; inside the box, where there is one."""
        axes = self.axes
        rows = self.generator.random((count, axes.count))
        spread = self.box.high - self.box.low
        rows[:, axes.numeric] = self.box.low + spread * rows[:, axes.numeric]
        rows[:, axes.categorical] = np.floor(rows[:, axes.categorical] * axes.sizes)
        if self.centre is not None:
            same = (self.generator.random(rows.shape) >= FEW / axes.count) & ~np.isnan(self.centre)
            rows = np.where(same, self.centre, rows)
        return axes.settle(rows)

    def around(self, rows: Floats, each: int, deviation: float) -> Floats:
        """`each` steps from every row: some of its parameters, one at least, move or are drawn anew."""
        axes = self.axes
        start = np.repeat(rows, each, axis=0)
        other = self.generator.random(start.shape)
        other[:, axes.categorical] = np.floor(other[:, axes.categorical] * axes.sizes)
        spread = self.box.high - self.box.low
        absent = np.isnan(start)
        start = np.where(absent, other, start)
        moved = other
        steps = start[:, axes.numeric] + deviation * spread * self.generator.standard_normal(
            (len(start), len(axes.numeric))
        )
        steps = np.abs(steps - self.box.low) + self.box.low  # reflected at both ends
        moved[:, axes.numeric] = np.clip(self.box.high - np.abs(self.box.high - steps), self.box.low, self.box.high)
        move = self.generator.random(start.shape) < max(0.3, 2.0 / axes.count) * min(1.0, FEW / axes.count)
        move[np.arange(len(start)), self.generator.integers(axes.count, size=len(start))] = True
        return axes.settle(np.where(move, moved, start))

    def climb(self, rows: Floats, slopes: Slopes, lengths: Floats) -> Floats:
        """Rows after steps along the gradient of their numeric parameters; none of them is worth less than before.

        Spectral projected gradient (Birgin, Martinez and Raydan, 2000) in places measured by the model's lengths (k).
        """
        numeric = self.axes.numeric
        if not len(numeric):
            return rows
        rows = rows.copy()
        fixed = np.isnan(rows[:, numeric])
        at: Floats = np.where(fixed, 0.5, rows[:, numeric])
        metric = lengths * lengths

        def look(places: Floats) -> tuple[Floats, Floats]:
            rows[:, numeric] = np.where(fixed, np.nan, places)
            value, gradient = slopes(rows)
            return value, np.where(fixed, 0.0, gradient)

        value, gradient = look(at)
        steepness = np.sqrt((gradient * gradient * metric).sum(axis=1))
        step: Floats = 0.1 / np.maximum(steepness, 1e-12)
        for _ in range(_CLIMB):
            ahead: Floats = np.clip(at + step[:, None] * metric * gradient, self.box.low, self.box.high)
            found, slope = look(ahead)
            moved, turned = ahead - at, slope - gradient
            better = found > value
            bend = -(moved * turned).sum(axis=1)
            length = (moved * moved / metric).sum(axis=1)
            spectral = np.where(bend > 0.0, length / np.maximum(bend, 1e-300), 4.0 * step)
            step = np.where(better, np.clip(spectral, 0.1 * step, 10.0 * step), 0.25 * step)
            at = np.where(better[:, None], ahead, at)
            gradient = np.where(better[:, None], slope, gradient)
            value = np.where(better, found, value)
        rows[:, numeric] = np.where(fixed, np.nan, at)
        return self.axes.settle(rows)

    def best(
        self,
        score: Score,
        slopes: Slopes,
        good: Floats,
        lengths: Floats,
        warm_up: int,
        starts: int,
        allowed: Allowed | None = None,
        drawn: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Candidates (m x d) and their worth (m), best first.

        `good`: rows to search around, best first. `drawn`: rows to begin with in place of random ones.
        """
        pools = [self.random(warm_up) if drawn is None else drawn]
        pools += [self.around(good[:parents], each, deviation) for deviation, parents, each in _AROUND]
        rows = _kept(np.concatenate(pools), allowed)
        values = score(rows)
        for deviation, parents, each in _ROUNDS:
            top = np.argsort(-values, kind="stable")[:parents]
            near = _kept(self.around(rows[top], each, deviation), allowed)
            rows, values = np.concatenate([rows, near]), np.concatenate([values, score(near)])
        top = np.argsort(-values, kind="stable")[:starts]
        climbed = _kept(self.climb(rows[top], slopes, lengths), allowed)
        rows, values = np.concatenate([climbed, rows]), np.concatenate([score(climbed), values])
        order = np.argsort(-values, kind="stable")
        return rows[order], values[order]


def _kept(rows: Floats, allowed: Allowed | None) -> Floats:
    return rows if allowed is None else rows[allowed(rows)]
