"""Patience: a trial that has not got better for a number of reports ends.

Early stopping as in Prechelt, Early Stopping - But When? (1998): no other trial is looked at. A report is an
improvement when it is better than the last improvement by more than `min_delta`; one that is no finite number is none.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from ..engine.plugins import Ended, Observation, OptimizeMode, Reported, Stopped
from ._curves import Curves


class Patience:
    """Stops after `patience` reports in a row without an improvement, from step `start_step` on (the first is 1)."""

    observes: ClassVar[Literal["intermediates"]] = "intermediates"

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        patience: int = 10,
        min_delta: float = 0.0,
        start_step: int = 0,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}, an integer >= 1 is allowed")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta is {min_delta}, a finite number >= 0 is allowed")
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, an integer >= 0 is allowed")
        self.patience, self.min_delta, self.start_step = patience, min_delta, start_step
        self._curves = Curves(optimize_mode)
        self._waits: dict[int, tuple[float, int]] = {}  # trial -> the last improvement, and reports since

    def observe(self, fact: Observation) -> None:
        """Count the reports since a trial got better."""
        curve = self._curves.observe(fact)
        if curve is None:
            return
        if isinstance(fact, Reported):
            best, waited = self._waits[fact.trial] if curve.reports > 1 else (-math.inf, 0)
            better = curve.last > best if best == -math.inf else curve.last - best > self.min_delta
            self._waits[fact.trial] = (curve.last, 0) if better else (best, waited + 1)
        elif isinstance(fact, Ended):
            self._waits.pop(fact.trial, None)

    def verdict(self, trial: int) -> Stopped | None:
        """Whether the trial's patience is over."""
        curve = self._curves.running.get(trial)
        if curve is None or not curve.reports or curve.step + 1 < self.start_step:
            return None
        best, waited = self._waits[trial]
        if waited < self.patience:
            return None
        had = "no finite result" if best == -math.inf else f"nothing better than {self._curves.sign * best:.6g}"
        return Stopped(f"{had} in the last {waited} reports, up to step {curve.step + 1}")
