"""Wilcoxon: a trial ends when a test says that it is worse than the best one, step for step.

For results of which each step is another instance or fold, not a further epoch: the differences to the best completed
trial at the same steps are put to Wilcoxon's signed-rank test (Individual Comparisons by Ranking Methods, Biometrics
Bulletin 1, 1945), one-sided. A trial whose mean difference is not negative goes on whatever the ranks say, so that a
few large gains count. Differences of 0 are split between both sides.
"""

from __future__ import annotations

import math
from array import array
from functools import cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ended, Observation, OptimizeMode, Stopped
from ._curves import Curve, Curves

EXACT = 50  # differences up to which the distribution is counted out, if no two are equal


class Wilcoxon:
    """Stops when the p-value is below `p_threshold`, with at least `n_startup_steps` steps that both trials have."""

    observes: ClassVar[Literal["intermediates"]] = "intermediates"

    def __init__(
        self, *, optimize_mode: OptimizeMode = "maximize", p_threshold: float = 0.1, n_startup_steps: int = 2
    ) -> None:
        if not 0 <= p_threshold <= 1:
            raise ValueError(f"p_threshold is {p_threshold}, a number from 0 to 1 is allowed")
        if n_startup_steps < 0:
            raise ValueError(f"n_startup_steps is {n_startup_steps}, an integer >= 0 is allowed")
        self.p_threshold, self.n_startup_steps = p_threshold, n_startup_steps
        self._curves = Curves(optimize_mode)
        self._best: tuple[float, int, Curve] | None = None  # its final result, its trial, its curve

    def observe(self, fact: Observation) -> None:
        """Follow the curves, and remember that of the best completed trial."""
        curve = self._curves.observe(fact)
        if curve is None or not isinstance(fact, Ended) or fact.outcome != "completed" or fact.value is None:
            return
        final = self._curves.sign * fact.value
        if curve.values and (self._best is None or final > self._best[0]):
            self._best = final, fact.trial, curve

    def verdict(self, trial: int) -> Stopped | None:
        """Whether the trial is worse than the best one, as far as both have come."""
        curve = self._curves.running.get(trial)
        if curve is None or self._best is None or math.isnan(curve.last):
            return None
        _, number, best = self._best
        differences = _differences(curve, best)
        count = len(differences)
        if count < max(self.n_startup_steps, 1) or float((differences / count).sum()) >= 0:
            return None
        p = p_less(differences)
        if p >= self.p_threshold:
            return None
        return Stopped(f"worse than trial {number} on {count} steps, p = {p:.2g} (signed-rank test)")


def p_less(differences: NDArray[np.float64]) -> float:
    """The chance of ranks as low as those of the differences, shape (n,), if they were symmetric about 0.

    Exact up to 50 differences of which no two are equal and none is 0, else by the normal approximation with the
    correction for ties.
    """
    n = len(differences)
    sizes, place, count = np.unique(np.abs(differences), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]  # equal ones share the mean of their ranks
    above = float(ranks[differences > 0].sum() + ranks[differences == 0].sum() / 2)
    if len(sizes) == n <= EXACT and sizes[0] > 0:
        return float(_cumulative(n)[int(above)])
    ties = float((count.astype(np.float64) ** 3 - count).sum())
    variance = (n * (n + 1) * (2 * n + 1) - ties / 2) / 24
    if variance <= 0:
        return 1.0
    return 0.5 * math.erfc((n * (n + 1) / 4 - above) / math.sqrt(2.0 * variance))


@cache
def _cumulative(n: int) -> NDArray[np.float64]:
    """The chance of a sum of ranks of at most w = 0 ... n (n + 1) / 2, each rank counting with a chance of 1/2."""
    ways = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    return np.cumsum(ways)


def _differences(curve: Curve, best: Curve) -> NDArray[np.float64]:
    """The trial's results less the best one's, halved, at the steps that both have."""
    steps, values = _arrays(curve.steps, curve.values)
    others, bests = _arrays(best.steps, best.values)
    n = min(len(steps), len(others))
    if not np.array_equal(steps[:n], others[:n]):
        _, mine, theirs = np.intersect1d(steps, others, assume_unique=True, return_indices=True)
        values, bests = values[mine], bests[theirs]
        n = len(values)
    return values[:n] / 2 - bests[:n] / 2


def _arrays(steps: array[int], values: array[float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)
