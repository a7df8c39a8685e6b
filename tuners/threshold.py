"""Threshold: a trial whose result lies outside fixed bounds ends, such as a loss that has run away."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from ..engine.plugins import Observation, OptimizeMode, Stopped
from ._curves import Curves


class Threshold:
    """Stops what reports less than `lower` or more than `upper` at step `start_step` or later (the first is 1).

    The bounds are results as they are reported, whatever the optimize_mode; at least one is given. A result that is no
    finite number lies outside.
    """

    observes: ClassVar[Literal["intermediates"]] = "intermediates"

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        lower: float | None = None,
        upper: float | None = None,
        start_step: int = 0,
    ) -> None:
        bounds = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
        if (lower is None and upper is None) or not bounds[0] <= bounds[1]:
            raise ValueError(f"lower is {lower} and upper is {upper}; at least one is needed, and lower <= upper")
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, an integer >= 0 is allowed")
        self.lower, self.upper = bounds
        self.start_step = start_step
        self._curves = Curves(optimize_mode)

    def observe(self, fact: Observation) -> None:
        """Remember the last result of each trial."""
        self._curves.observe(fact)

    def verdict(self, trial: int) -> Stopped | None:
        """Whether the trial's last result lies outside."""
        curve = self._curves.running.get(trial)
        if curve is None or not curve.reports or curve.step + 1 < self.start_step:
            return None
        if math.isnan(curve.last):
            return Stopped(f"the result at step {curve.step + 1} is no finite number")
        value = self._curves.sign * curve.last
        if self.lower <= value <= self.upper:
            return None
        bound = f"below {self.lower:.6g}" if value < self.lower else f"above {self.upper:.6g}"
        return Stopped(f"the result at step {curve.step + 1} is {value:.6g}, {bound}")
