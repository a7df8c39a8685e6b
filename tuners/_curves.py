"""What an assessor follows: the results of each running phase step by step, signed so that more is better."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from ..engine.plugins import Ended, Observation, OptimizeMode, Reported, Suggested


@dataclass(slots=True)
class Curve:
    """The finite results of one attempt of a phase, and what was reported last.

    `best` is -inf and `last` NaN until there is a finite result; `last` is NaN too when the last report was none.
    """

    phase: int
    reports: int = 0
    step: int = -1  # of the last report; the first one is 0
    last: float = math.nan
    best: float = -math.inf
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class Curves:
    """The curves of all phases that run."""

    def __init__(self, optimize_mode: OptimizeMode) -> None:
        self.sign = -1.0 if optimize_mode == "minimize" else 1.0
        self.running: dict[int, Curve] = {}  # by trial

    def observe(self, fact: Observation) -> Curve | None:
        """Take in one fact; the curve that it made longer or, with its phase, ended. A retry begins a new curve."""
        match fact:
            case Suggested():
                self.running[fact.trial] = Curve(fact.phase)
            case Reported():
                curve = self.running.get(fact.trial)
                if curve is None or curve.phase != fact.phase:
                    return None
                if fact.step == 0 and curve.reports:
                    curve = self.running[fact.trial] = Curve(fact.phase)
                self._extend(curve, fact.step, fact.value)
                return curve
            case Ended():
                curve = self.running.get(fact.trial)
                if curve is not None and curve.phase == fact.phase:
                    return self.running.pop(fact.trial)
            case _:
                pass
        return None

    def _extend(self, curve: Curve, step: int, value: float) -> None:
        curve.reports += 1
        curve.step = step
        curve.last = self.sign * value if math.isfinite(value) else math.nan
        if math.isfinite(value):
            curve.steps.append(step)
            curve.values.append(curve.last)
            curve.best = max(curve.best, curve.last)
