"""BOHB: Hyperband's brackets, filled with configurations that a model of the earlier results proposes.

Falkner, Klein and Hutter, BOHB: Robust and Efficient Hyperparameter Optimization at Scale (ICML 2018). The model is the
Parzen estimator of TPE: of the results at the largest budget that has enough of them, the best few make one density,
the rest another; candidates are drawn from the first (with wider kernels), and the one with the largest ratio is taken.
A part of the configurations stays random, so that Hyperband's guarantee holds.

* The brackets, TRIAL_BUDGET and checkpoints are as in Hyperband.
* Imported results count at their TRIAL_BUDGET; without one they count as complete trainings.
* What failed is among the rest: it is avoided.
"""

from __future__ import annotations

import math
from bisect import insort
from itertools import islice
from typing import Any

import numpy as np

from ..engine.plugins import Ask, OptimizeMode
from ..engine.space import EXACT, Space
from ._brackets import Brackets, Next
from ._lineages import Budget, Rank, Run, Runs, reserved
from ._parzen import Axes, Density, Floats
from ._rungs import ladder_of
from .hyperband import Hyperband, fresh

GOOD = 64  # kernels at most
REST = 200


class BOHB(Hyperband):
    """Hyperband with a model. The options are NNI's; `min_points_in_model` None: the number of parameters + 1."""

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        min_budget: int | float = 1,
        max_budget: int | float = 3,
        eta: int = 3,
        min_points_in_model: int | None = None,
        top_n_percent: int = 15,
        num_samples: int = 64,
        random_fraction: float = 1 / 3,
        bandwidth_factor: float = 3.0,
        min_bandwidth: float = 1e-3,
        config_space: str | None = None,
    ) -> None:
        if config_space is not None:
            raise ValueError("config_space is not taken here: conditions belong into search_space, as nested choices")
        _within("min_points_in_model", min_points_in_model, 1, math.inf)
        _within("top_n_percent", top_n_percent, 1, 99)
        _within("num_samples", num_samples, 1, 10_000)
        _within("random_fraction", random_fraction, 0, 1)
        _within("bandwidth_factor", bandwidth_factor, 1e-3, 1e3)
        _within("min_bandwidth", min_bandwidth, 0, 1)
        self._set_up(optimize_mode, seed, ladder_of(min_budget, max_budget, eta), eta, False)
        self.min_points = min_points_in_model
        self.top_n_percent, self.num_samples, self.random_fraction = top_n_percent, num_samples, random_fraction
        self.bandwidth_factor, self.min_bandwidth = bandwidth_factor, min_bandwidth
        self._models: Models | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told, or has more values than floats can count, or None."""
        wide = [param.key for param in space.params if param.categorical and (param.size or 0) > EXACT]
        return f"{wide[0]} has more than 2**53 values, too many for BOHB" if wide else reserved(space, "BOHB")

    def _fresh(self, ask: Ask, brackets: Brackets, found: Next) -> tuple[dict[str, Any], dict[str, Any]]:
        generator = ask.generator(self.seed)
        if self._models is None or self._models.space is not brackets.space:
            self._models = Models(brackets.space, self.budgets)
        models = self._models
        models.sync(self._runs)
        dice = generator.random()
        least = len(ask.space.params) + 1 if self.min_points is None else self.min_points
        budget = models.largest(least + 2)
        if budget is None:
            return fresh(ask.space, brackets, generator), {"rule": "new: no model yet"}
        if dice < self.random_fraction:
            return fresh(ask.space, brackets, generator), {"rule": "new: random fraction"}
        good, rest = models.densities(budget, least, self.top_n_percent)
        candidates = good.sample(generator, self.num_samples, wider=self.bandwidth_factor, narrowest=self.min_bandwidth)
        features = models.axes.features(candidates)
        score = good.log_of(*features) - rest.log_of(*features)
        seen = {"model": budget, "results": models.count(budget), "candidates": len(candidates)}
        for place in np.argsort(-score, kind="stable").tolist():
            point, cells = models.axes.point(candidates[place])
            if cells not in brackets.taken and ask.space.allows(point):
                return point, {"rule": "new: model", "score": round(float(score[place]), 6), **seen}
        return fresh(ask.space, brackets, generator), {"rule": "new: all candidates taken", **seen}


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} is {value}; allowed: {low:g} to {high:g}")


class _Level:
    """The results at one budget: ranked, and in the order of time with those that failed (None)."""

    def __init__(self) -> None:
        self.ranking: list[tuple[Rank, int]] = []  # with the run's place in time
        self.runs: list[int] = []
        self.fit: tuple[int, Density, Density] | None = None  # for so many runs


class Models:
    """The two densities of each budget, in one space."""

    def __init__(self, space: Space, budgets: list[Budget]) -> None:
        self.space = space
        self.axes = Axes(space)
        self._budgets = budgets
        self._levels = {budget: _Level() for budget in budgets}
        self._rows: dict[int, list[float]] = {}  # by run that lies in this space
        self._read = 0

    def sync(self, runs: Runs) -> None:
        """Take in what the runs have got since the last time."""
        for event in runs.events[self._read :]:
            run = runs.all[event if event >= 0 else ~event]
            if event < 0:
                self._end(run)
            elif run.parent is not None:
                if run.parent in self._rows:
                    self._rows[run.index] = self._rows[run.parent]
            else:
                try:
                    self._rows[run.index] = self.axes.row(self.space.flatten(run.parameters))
                except ValueError:  # a point of a former space, or a stranger's
                    continue
        self._read = len(runs.events)

    def _end(self, run: Run) -> None:
        level = self._levels.get(self._budgets[-1] if run.budget is None else run.budget)
        if run.index not in self._rows or level is None or run.state == "cancelled":
            return
        if run.rank is not None:
            insort(level.ranking, (run.rank, len(level.runs)))
        level.runs.append(run.index)

    def count(self, budget: Budget) -> int:
        """How many results there are at a budget."""
        return len(self._levels[budget].ranking)

    def largest(self, least: int) -> Budget | None:
        """The largest budget with at least so many results, or None."""
        return next((budget for budget in reversed(self._budgets) if self.count(budget) >= least), None)

    def densities(self, budget: Budget, least: int, percent: int) -> tuple[Density, Density]:
        """The densities of the best `percent` (at least `least` runs, at most half of them) and of the rest."""
        level = self._levels[budget]
        if level.fit is None or level.fit[0] != len(level.runs):
            count = len(level.ranking)
            wanted = min(max(math.ceil(count * percent / 100), min(least, count // 2)), GOOD)
            best = [time for _, time in level.ranking[:wanted]]
            chosen = set(best)
            newest = (time for time in range(len(level.runs) - 1, -1, -1) if time not in chosen)
            rest = list(islice(newest, REST))[::-1]
            level.fit = len(level.runs), self._density(level, best), self._density(level, rest)
        return level.fit[1], level.fit[2]

    def _density(self, level: _Level, times: list[int]) -> Density:
        rows: Floats = np.array([self._rows[level.runs[time]] for time in times], dtype=np.float64)
        return Density(self.axes, rows.reshape(len(times), self.axes.count), np.ones(len(times)), 1.0)
