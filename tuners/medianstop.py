"""Median stopping: a trial whose best result so far is below the median of the others' averages at that step ends.

Golovin et al., Google Vizier (KDD 2017), section 3.2.2, as in NNI: the best result of the trial up to its step s is
compared with the median, over all completed trials, of the mean of their results up to s; strictly worse is stopped.
Results that are no finite number count neither in a best nor in a mean; a trial that has nothing but those is worse
than every median. Failed, cancelled and stopped trials enter no median.
"""

from __future__ import annotations

import math
from array import array
from bisect import insort
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..engine.plugins import Ended, Observation, OptimizeMode, Reported, Stopped, Suggested


@dataclass(slots=True)
class _Curve:
    phase: int
    step: int = -1
    best: float = -math.inf
    mean: float = 0.0
    count: int = 0
    steps: array[int] = field(default_factory=lambda: array("q"))
    means: array[float] = field(default_factory=lambda: array("d"))


class Medianstop:
    """Stops what is below the median from step `start_step` on (the first report is step 1, as in NNI)."""

    observes: ClassVar[Literal["intermediates"]] = "intermediates"

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", start_step: int = 0) -> None:
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, an integer >= 0 is allowed")
        self.start_step = start_step
        self._sign = -1.0 if optimize_mode == "minimize" else 1.0
        self._running: dict[int, _Curve] = {}
        self._completed: dict[int, array[float]] = {}  # step -> the means of completed trials, ascending

    def observe(self, fact: Observation) -> None:
        """Follow the curves; a completed one joins the medians of its steps."""
        match fact:
            case Suggested():
                self._running[fact.trial] = _Curve(fact.phase)
            case Reported():
                curve = self._running.get(fact.trial)
                if curve is None or curve.phase != fact.phase:
                    return
                if fact.step == 0 and curve.step >= 0:  # a retry
                    curve = self._running[fact.trial] = _Curve(fact.phase)
                self._extend(curve, fact.step, fact.value)
            case Ended():
                curve = self._running.get(fact.trial)
                if curve is None or curve.phase != fact.phase:
                    return
                del self._running[fact.trial]
                if fact.outcome == "completed":
                    for step, mean in zip(curve.steps, curve.means, strict=True):
                        insort(self._completed.setdefault(step, array("d")), mean)
            case _:
                pass

    def verdict(self, trial: int) -> Stopped | None:
        """Whether the trial's best so far is worse than the median at its last step."""
        curve = self._running.get(trial)
        if curve is None or curve.step < 0 or curve.step + 1 < self.start_step:
            return None
        means = self._completed.get(curve.step)
        if not means:
            return None
        middle = len(means) // 2
        median = means[middle] if len(means) % 2 else means[middle - 1] / 2 + means[middle] / 2
        if curve.best >= median:
            return None
        best = f"the best result {self._sign * curve.best:.6g}" if curve.count else "no finite result"
        return Stopped(
            f"{best} up to step {curve.step + 1} is worse than {self._sign * median:.6g}, "
            f"the median of the averages of {len(means)} completed trials"
        )

    def _extend(self, curve: _Curve, step: int, value: float) -> None:
        curve.step = step
        if math.isfinite(value):
            value *= self._sign
            curve.best = max(curve.best, value)
            curve.count += 1
            curve.mean += value / curve.count - curve.mean / curve.count
        if curve.count:
            curve.steps.append(step)
            curve.means.append(curve.mean)
