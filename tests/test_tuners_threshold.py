"""Threshold: bounds are results as they are reported; what is no number lies outside."""

from __future__ import annotations

import math

import pytest

from tune.engine.plugins import OptimizeMode, Reported, Suggested
from tune.tuners.threshold import Threshold


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_the_bounds_do_not_turn_with_the_mode(mode: OptimizeMode) -> None:
    subject = Threshold(optimize_mode=mode, lower=-1.0, upper=2.0)
    subject.observe(Suggested(0, 0, 0, {}))
    assert subject.verdict(0) is None
    whys: list[str | None] = []
    for step, value in enumerate([-1.0, 2.0, -1.1, 2.1, math.nan, math.inf]):
        subject.observe(Reported(0, 0, 0, step, value))
        verdict = subject.verdict(0)
        whys.append(verdict and verdict.why)
    assert whys == [
        None,
        None,
        "the result at step 3 is -1.1, below -1",
        "the result at step 4 is 2.1, above 2",
        "the result at step 5 is no finite number",
        "the result at step 6 is no finite number",
    ]


def test_one_bound_and_start_step() -> None:
    subject = Threshold(lower=0.5, start_step=3)
    subject.observe(Suggested(0, 0, 0, {}))
    found: list[bool] = []
    for step in range(4):
        subject.observe(Reported(0, 0, 0, step, 0.1 if step < 3 else 1e300))
        found.append(subject.verdict(0) is not None)
    assert found == [False, False, True, False]


def test_arguments() -> None:
    for arguments in ({}, {"lower": 2.0, "upper": 1.0}, {"lower": math.nan}, {"upper": 1.0, "start_step": -1}):
        with pytest.raises(ValueError, match=r"allowed|at least one is needed"):
            Threshold(**arguments)  # type: ignore[arg-type]
