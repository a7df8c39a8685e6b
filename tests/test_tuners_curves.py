"""Curves: one for each running phase, signed, with what is no number left out."""

from __future__ import annotations

import math

from tune.engine.plugins import Ended, Imported, Reported, Suggested
from tune.tuners._curves import Curves


def test_a_curve_follows_one_attempt_of_one_phase() -> None:
    curves = Curves("minimize")
    assert curves.observe(Reported(0, 3, 0, 0, 1.0)) is None  # nobody saw it begin
    assert curves.observe(Imported(0, {}, 1.0)) is None
    curves.observe(Suggested(0, 3, 0, {}))
    for step, value in enumerate([5.0, math.nan, 2.0, 4.0]):
        curve = curves.observe(Reported(0, 3, 0, step, value))
    assert curve is not None
    assert (list(curve.steps), list(curve.values)) == ([0, 2, 3], [-5.0, -2.0, -4.0])
    assert (curve.reports, curve.step, curve.best, curve.last) == (4, 3, -2.0, -4.0)
    assert curves.observe(Reported(0, 3, 1, 0, 1.0)) is None  # another phase
    again = curves.observe(Reported(0, 3, 0, 0, math.inf))  # a retry
    assert again is not None and again is not curve
    assert (again.reports, len(again.values), again.best) == (1, 0, -math.inf) and math.isnan(again.last)
    assert curves.observe(Ended(0, 3, 1, "completed", 1.0)) is None
    assert curves.observe(Ended(0, 3, 0, "completed", 1.0)) is again
    assert not curves.running
