"""When a model's hyper-parameters are fitted, and from where: a function of the number of results alone.

Fits happen at counts that grow by 6 %. Every fourth is a full one: it starts from the prior, tries each warp of the
results and of the parameters, and keeps what predicts the better half of the results best. Those between go on from the
one before. So whoever rebuilds a tuner makes at most four fits and gets the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ._gp_columns import Columns
from ._gp_model import Kernel, Posterior, Theta, fit, prior_start
from ._gp_trials import Trials
from ._numerics import Floats

GROWTH = 1.06
FULL = 4
FULL_STEPS = 30
STEPS = 10
FIT_ROWS = 200  # that a fit looks at
MODEL_ROWS = 300  # that a model is made of
BEND_PAYS = 1.0  # nats a numeric parameter (two hyper-parameters) by which a warp of the inputs must be likelier


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one fit."""

    theta: Theta
    warp: str


@dataclass(frozen=True, slots=True)
class _Tried:
    theta: Theta
    warp: str
    density: float  # log posterior of theta
    score: float  # mean log density of the better results, each predicted from all others


class Targets(Protocol):
    """What a model is to learn: numbers for the first so many results, in one of several forms."""

    warps: tuple[str, ...]

    def of(self, warp: str, count: int) -> tuple[Floats, Floats]:
        """Targets of the first `count` results, and the log slopes of the warp (NaN: not to be judged by)."""
        ...


class Chain:
    """The fits of one model over the results of `trials`; the first is made at `first` results."""

    def __init__(self, trials: Trials, targets: Targets, kernel: Kernel, first: int) -> None:
        self.trials, self.targets, self.kernel = trials, targets, kernel
        self._counts = [max(first, 1)]
        self._records: dict[int, Record] = {}

    def at(self, count: int) -> Record:
        """The latest fit at up to `count` results."""
        while self._counts[-1] <= count:
            last = self._counts[-1]
            self._counts.append(max(last + 1, int(last * GROWTH)))
        place = max(sum(1 for one in self._counts if one <= count) - 1, 0)
        base = place - place % FULL
        self._records = {number: one for number, one in self._records.items() if number >= base}
        for number in range(base, place + 1):
            if number not in self._records:
                self._records[number] = self._fit(self._counts[number], self._records.get(number - 1))
        return self._records[place]

    def posterior(self, count: int, running: Floats | None = None) -> tuple[Posterior, Record, NDArray[np.intp]]:
        """The model of the first `count` results, the fit that it uses, and which results it is made of."""
        record = self.at(count)
        targets, _ = self.targets.of(record.warp, count)
        places = chosen(targets, self.trials.rows(range_of(count)), MODEL_ROWS)
        rows = self.trials.rows(places)
        columns = Columns(self.trials.axes, rows)
        return Posterior(columns, rows, targets[places], record.theta, self.kernel, running), record, places

    def _fit(self, count: int, before: Record | None) -> Record:
        if before is not None:
            return Record(self._try(before.warp, count, before.theta, STEPS).theta, before.warp)
        columns = len(self.trials.axes.numeric)
        parameters = self.trials.axes.count
        tried = [self._try(warp, count, prior_start(parameters), FULL_STEPS) for warp in self.targets.warps]
        best = max(tried, key=lambda one: one.score)  # the first of equal ones
        if columns:
            bent = self._try(best.warp, count, prior_start(parameters, columns), FULL_STEPS)
            if bent.density > best.density + BEND_PAYS * columns:
                best = bent
        return Record(best.theta, best.warp)

    def _try(self, warp: str, count: int, start: Theta, steps: int) -> _Tried:
        targets, slopes = self.targets.of(warp, count)
        places = chosen(targets, self.trials.rows(range_of(count)), FIT_ROWS)
        rows, targets, slopes = self.trials.rows(places), targets[places], slopes[places]
        columns = Columns(self.trials.axes, rows)
        found = fit(columns, columns.of(rows), targets, start, self.kernel, steps)
        judged = ~np.isnan(slopes)
        score = 0.0
        if len(self.targets.warps) > 1 and judged.any():
            left_out = Posterior(columns, rows, targets, found.theta, self.kernel).left_out()
            score = float(np.mean(left_out[judged] + slopes[judged]))
        return _Tried(found.theta, warp, found.log_density, score)


def range_of(count: int) -> NDArray[np.intp]:
    """The first `count` places."""
    return np.arange(count, dtype=np.intp)


def chosen(targets: Floats, rows: Floats, limit: int) -> NDArray[np.intp]:
    """Which of n results (their targets, and their rows) a model of at most `limit` is made of.

    The best third, the third nearest to the best one, and of the others half the newest, half evenly spaced in time.
    """
    count = len(targets)
    if count <= limit:
        return range_of(count)
    third = limit // 3
    order = np.argsort(targets, kind="stable")
    taken = np.zeros(count, dtype=np.bool_)
    taken[order[:third]] = True
    numbers = np.where(np.isnan(rows), -1.0, rows)
    span = np.maximum(numbers.max(axis=0) - numbers.min(axis=0), 1e-12)
    away = (np.minimum(np.abs(numbers - numbers[order[0]]) / span, 1.0) ** 2).sum(axis=1)
    away[taken] = np.inf
    taken[np.argsort(away, kind="stable")[:third]] = True
    left = np.flatnonzero(~taken)
    room = limit - int(taken.sum())
    newest = left[len(left) - room // 2 :]
    older = left[: len(left) - room // 2]
    spaced = older[np.linspace(0, len(older) - 1, room - len(newest)).astype(np.intp)] if len(older) else older
    taken[newest] = True
    taken[spaced] = True
    return np.flatnonzero(taken)
