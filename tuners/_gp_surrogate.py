"""What a model-based tuner knows of one space: its trials, the models of losses and of violations, where to begin.

`Surrogate` is kept from ask to ask; a `View` is what it knows at one ask, and says which point is the best by a rule.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ask, Exhausted, Suggestion
from ..engine.space import Space
from ._acquisition import Rule, log_probability, worth
from ._gp_chain import Chain
from ._gp_model import Kernel, Posterior
from ._gp_search import Box, Search
from ._gp_trials import Trials
from ._gp_trust import MANY, box, side
from ._gp_warps import WARPS, Warp, graded, warped
from ._numerics import Floats
from .random import untaken

_DESIGNS = 40
_SAME = 0.01  # lengths of the model within which two running trials would say the same
_DRAWN = 100  # points that meet the space's constraints, in place of random rows


class Surrogate:
    """The models of one space; the first is made when `first` results are numbers (None: by the space's size)."""

    def __init__(self, space: Space, sign: float, first: int | None, kernel: Kernel) -> None:
        self.space = space
        self.trials = Trials(space, sign)
        self.first = first or min(max(2 + self.trials.axes.count, 5), 10)
        self.losses = Chain(self.trials, _Losses(self.trials), kernel, self.first)
        self.violations = Chain(self.trials, _Violations(self.trials), kernel, self.first)
        self._design: Floats | None = None

    @property
    def ready(self) -> bool:
        """Whether there are enough results for a model."""
        return bool(self.space.params) and self.trials.known >= self.first

    def start(self, ask: Ask, seed: int | None) -> Suggestion | Exhausted:
        """A point to begin with: points of a design that fills the space, then random ones."""
        trials, space = self.trials, self.space
        if not space.params:
            return Suggestion({}, decision={"rule": "no parameters"})
        generator = ask.generator(seed)
        if self._design is None:
            first = replace(ask, number=0, attempt=0).generator(seed)
            self._design = _spread(Search(trials.axes, first), self.first)
        if trials.count < len(self._design):
            point, cells = trials.axes.point(self._design[trials.count])
            if cells not in trials.taken and space.allows(point):
                return Suggestion(point, decision={"rule": "first design", "observed": trials.known})
        point = untaken(space, trials.taken, generator)
        if point is None:
            point = space.sample(generator.random)
        return Suggestion(point, decision={"rule": "random start", "observed": trials.known})

    def view(self, believe: bool = True) -> View:
        """What is known now; running trials are believed to come out as expected, or (`believe` False) not counted."""
        return View(self, self.trials.running() if believe else None)


class View:
    """The models at one ask."""

    def __init__(self, surrogate: Surrogate, running: Floats | None) -> None:
        self.surrogate, self.trials = surrogate, surrogate.trials
        self.axes = self.trials.axes
        self.observed = len(self.trials.ended)
        self.running = 0 if running is None else len(running)
        self.posterior, self.record, places = surrogate.losses.posterior(self.observed, running)
        self.rows = self.trials.rows(places)
        self.feasibility: tuple[Posterior, float] | None = None  # the model of violations, and the border in it
        violations = np.array(self.trials.violations)
        met = violations <= 0.0
        if not met.all():
            model, _, _ = surrogate.violations.posterior(self.observed, running)
            self.feasibility = model, graded(violations)[1]
        ranked = np.lexsort((self.posterior.means, ~met[places]))
        self.order: NDArray[np.intp] = ranked  # of rows: those that meet the outcome constraints first
        self.any_met = bool(met[places].any())
        self.best = self._best(float(self.posterior.means[ranked[0]]), running)
        self.lengths: Floats = np.exp(self.record.theta.log_lengths[: len(self.axes.numeric)])

    def _best(self, observed: float, running: Floats | None) -> float:
        """The lowest mean at points that meet the constraints: those observed, and those believed to."""
        if running is None or not len(running):
            return observed
        believed = self.posterior.predict(running)[0]
        if self.feasibility is not None:
            model, border = self.feasibility
            believed = believed[model.predict(running)[0] < border]
        return float(np.append(believed, observed).min())

    def worth(self, rule: Rule, rows: Floats, threshold: float, kappa: float) -> Floats:
        """What a rule says of rows; where outcome constraints fail, times the probability that they are met."""
        value: Floats = np.zeros(len(rows))
        if self.any_met or self.feasibility is None:
            value = worth(rule, *self.posterior.predict(rows), threshold, kappa)[0]
        if self.feasibility is not None:
            model, border = self.feasibility
            value = value + log_probability(*model.predict(rows), border)[0]
        return value

    def slopes(self, rule: Rule, rows: Floats, threshold: float, kappa: float) -> tuple[Floats, Floats]:
        """The same with its gradient by the numeric parameters."""
        value, gradient = np.zeros(len(rows)), np.zeros((len(rows), len(self.axes.numeric)))
        if self.any_met or self.feasibility is None:
            mean, deviation, by_mean, by_deviation = self.posterior.slopes(rows)
            value, of_mean, of_deviation = worth(rule, mean, deviation, threshold, kappa)
            gradient = of_mean[:, None] * by_mean + of_deviation[:, None] * by_deviation
        if self.feasibility is not None:
            model, border = self.feasibility
            mean, deviation, by_mean, by_deviation = model.slopes(rows)
            more, of_mean, of_deviation = log_probability(mean, deviation, border)
            value = value + more
            gradient = gradient + of_mean[:, None] * by_mean + of_deviation[:, None] * by_deviation
        return value, gradient

    def search(
        self, rule: Rule, generator: np.random.Generator, *, xi: float, kappa: float, warm_up: int, starts: int
    ) -> tuple[Floats, Floats]:
        """Candidates by a rule, best first, and their worth."""
        threshold = self.best - xi
        axes, space = self.axes, self.surrogate.space
        around: tuple[Box | None, Floats | None] = None, None
        good = self.rows[self.order]
        if axes.count > MANY:
            centre = good[0]
            places = np.where(np.isnan(centre), 0.5, centre)[axes.numeric]
            around = box(places, self.lengths, side(self.trials.losses, axes.count)), centre
        drawn: Floats | None = None
        if space.constraints:
            points = [space.sample(generator.random) for _ in range(min(warm_up, _DRAWN))]
            drawn = np.array([axes.row(space.flatten(point)) for point in points])
        return Search(axes, generator, *around).best(
            lambda rows: self.worth(rule, rows, threshold, kappa),
            lambda rows: self.slopes(rule, rows, threshold, kappa),
            good,
            self.lengths,
            warm_up,
            starts,
            self._allowed if space.constraints else None,
            drawn,
        )

    def _allowed(self, rows: Floats) -> NDArray[np.bool_]:
        """Which rows meet the space's constraints."""
        space = self.surrogate.space
        return np.array([space.allows(self.axes.point(row)[0]) for row in rows], dtype=np.bool_)

    def pick(
        self, found: Floats, values: Floats, generator: np.random.Generator
    ) -> tuple[dict[str, Any], float | None]:
        """The first candidate that nobody has had, and its worth (None: all are taken, it is another point).

        One that is almost where a trial still runs is nothing new either.
        """
        trials, space = self.trials, self.surrogate.space
        apart = self.posterior.apart(found)
        for row, value, distance in zip(found, values.tolist(), apart.tolist(), strict=True):
            if distance < _SAME:
                continue
            point, cells = self.axes.point(row)
            if cells not in trials.taken and space.allows(point):
                return point, value
        point = untaken(space, trials.taken, generator)
        if point is not None:
            return point, None
        return (self.axes.point(found[0])[0] if len(found) else space.sample(generator.random)), None

    def seen(self) -> dict[str, Any]:
        """What a decision record tells of the models."""
        theta = self.record.theta
        keys = [self.axes.space.params[int(index)].key for index in self.posterior.columns.order]
        lengths = sorted(zip(theta.log_lengths.tolist(), keys, strict=True))[:3]
        seen: dict[str, Any] = {
            "observed": self.observed,
            "running": self.running,
            "best expected": round(self.best, 4),  # in deviations of the warped losses
            "noise": float(f"{theta.noise:.2g}"),
            "warp": self.record.warp + (", inputs too" if theta.log_a is not None else ""),
            "lengths": {key[:60]: round(math.exp(log), 3) for log, key in lengths},
        }
        if self.feasibility is not None:
            seen["infeasible"] = sum(1 for one in self.trials.violations if one > 0.0)
        return seen


class _Losses:
    """Losses as targets of a model, in the form that predicts best."""

    warps: tuple[str, ...] = WARPS

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    def of(self, warp: str, count: int) -> tuple[Floats, Floats]:
        kind: Warp = next(one for one in WARPS if one == warp)
        return warped(np.array(self._trials.losses[:count]), kind)


class _Violations:
    """Violations of the outcome constraints as targets of a model."""

    warps: tuple[str, ...] = ("violation",)

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    def of(self, warp: str, count: int) -> tuple[Floats, Floats]:
        del warp
        return graded(np.array(self._trials.violations[:count]))[0], np.full(count, np.nan)


def _spread(search: Search, count: int) -> Floats:
    """Rows far from each other: of random designs the one whose nearest two points are furthest apart."""
    axes = search.axes
    best, best_gap = search.random(count), -1.0
    for _ in range(_DESIGNS):
        rows = search.random(count)
        numbers = np.where(np.isnan(rows), 0.5, rows)
        differences = numbers[:, None, :] - numbers[None, :, :]
        differences[:, :, axes.categorical] = differences[:, :, axes.categorical] != 0.0
        squares = (differences * differences).sum(axis=2)
        gap = float(squares[np.triu_indices(count, 1)].min(initial=np.inf))
        if gap > best_gap:
            best, best_gap = rows, gap
    return best
