"""Patience: reports without an improvement are counted, and nothing else is."""

from __future__ import annotations

import math

import pytest

from tune.engine.plugins import OptimizeMode, Reported, Suggested
from tune.tuners.patience import Patience


def stopped_at(subject: Patience, values: list[float]) -> int | None:
    """The step (from 1) of the first verdict."""
    subject.observe(Suggested(0, 0, 0, {}))
    for step, value in enumerate(values):
        subject.observe(Reported(0, 0, 0, step, value))
        if subject.verdict(0) is not None:
            return step + 1
    return None


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("maximize", [1, 2, 3, 3, 3, 3], 6),
        ("maximize", [1, 2, 3, 3, 3, 4, 4, 4], None),
        ("maximize", [5, 4, 3, 2], 4),
        ("minimize", [5, 4, 3, 2], None),
        ("minimize", [5, 6, 7, 8], 4),
        ("maximize", [math.nan, math.nan, math.nan], 3),
        ("maximize", [1, math.inf, math.nan, -math.inf], 4),
        ("maximize", [math.nan, math.nan, -1e300, 0, 0], None),
    ],
)
def test_three_reports_without_an_improvement(mode: OptimizeMode, values: list[float], expected: int | None) -> None:
    assert stopped_at(Patience(optimize_mode=mode, patience=3), values) == expected


def test_small_steps_do_not_count_but_add_up() -> None:
    climb = [i / 10 for i in range(30)]
    assert stopped_at(Patience(patience=4, min_delta=0.25), climb) is None  # three steps are more than 0.25
    assert stopped_at(Patience(patience=2, min_delta=0.25), climb) == 3


def test_start_step_and_a_retry() -> None:
    assert stopped_at(Patience(patience=2, start_step=7), [0.0] * 20) == 7
    subject = Patience(patience=3)
    assert stopped_at(subject, [2.0, 1.0, 1.0]) is None
    subject.observe(Reported(0, 0, 0, 0, 1.0))
    assert subject.verdict(0) is None  # it began anew
    verdict = None
    for step in (1, 2, 3):
        subject.observe(Reported(0, 0, 0, step, 1.0))
        verdict = subject.verdict(0)
    assert verdict is not None and verdict.why == "nothing better than 1 in the last 3 reports, up to step 4"


def test_arguments() -> None:
    for name, value in {"patience": 0, "min_delta": -1.0, "start_step": -1}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Patience(**{name: value})  # type: ignore[arg-type]
