"""Percentile: a trial whose best result so far is not among the best share of the completed trials' at that step ends.

Medianstop's idea (Golovin et al., Google Vizier, KDD 2017, section 3.2.2) with a share that can be chosen, like with
like: best results so far on both sides, and only where enough trials have completed. Results that are no finite
number do not count; a trial that has nothing but those is worse than every share.
"""

from __future__ import annotations

from array import array
from bisect import insort
from itertools import accumulate
from typing import ClassVar, Literal

from ..engine.plugins import Ended, Observation, OptimizeMode, Stopped
from ._curves import Curves


class Percentile:
    """Goes on with what is among the best `percentile` percent, from step `start_step` on (the first is 1).

    Says nothing about a step that fewer than `min_trials` completed trials have reported.
    """

    observes: ClassVar[Literal["intermediates"]] = "intermediates"

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        percentile: float = 50.0,
        start_step: int = 0,
        min_trials: int = 5,
    ) -> None:
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile is {percentile}, a number from 0 to 100 is allowed")
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, an integer >= 0 is allowed")
        if min_trials < 1:
            raise ValueError(f"min_trials is {min_trials}, an integer >= 1 is allowed")
        self.percentile, self.start_step, self.min_trials = percentile, start_step, min_trials
        self._curves = Curves(optimize_mode)
        self._completed: dict[int, array[float]] = {}  # step -> the best so far of completed trials, ascending

    def observe(self, fact: Observation) -> None:
        """Follow the curves; a completed one is compared with from then on."""
        curve = self._curves.observe(fact)
        if curve is not None and isinstance(fact, Ended) and fact.outcome == "completed":
            for step, best in zip(curve.steps, accumulate(curve.values, max), strict=True):
                insort(self._completed.setdefault(step, array("d")), best)

    def verdict(self, trial: int) -> Stopped | None:
        """Whether the trial's best so far is worse than the percentile at its last step."""
        curve = self._curves.running.get(trial)
        if curve is None or not curve.reports or curve.step + 1 < self.start_step:
            return None
        bests = self._completed.get(curve.step)
        if bests is None or len(bests) < self.min_trials:
            return None
        bar = _quantile(bests, 1.0 - self.percentile / 100.0)
        if curve.best >= bar:
            return None
        sign = self._curves.sign
        best = f"the best result {sign * curve.best:.6g}" if curve.values else "no finite result"
        return Stopped(
            f"{best} up to step {curve.step + 1} is worse than {sign * bar:.6g}, where the best "
            f"{self.percentile:g} % of {len(bests)} completed trials begin"
        )


def _quantile(ascending: array[float], share: float) -> float:
    """The value below which a share of them lies, between neighbours in proportion."""
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    part = place - below
    return ascending[below] * (1.0 - part) + ascending[above] * part
