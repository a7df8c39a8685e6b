"""Percentile: the best so far against a share of the best so far of those that completed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tune.engine.plugins import Ended, OptimizeMode, Outcome, Reported, Suggested
from tune.tuners.percentile import Percentile


def run(subject: Percentile, trial: int, values: list[float], outcome: Outcome | None = "completed") -> bool:
    subject.observe(Suggested(0, trial, 0, {}))
    found = False
    for step, value in enumerate(values):
        subject.observe(Reported(0, trial, 0, step, value))
        found = subject.verdict(trial) is not None
    if outcome is not None:
        subject.observe(Ended(0, trial, 0, outcome, 1.0 if outcome == "completed" else None))
    return found


@pytest.mark.parametrize("percentile", [0.0, 10.0, 50.0, 77.0, 100.0])
@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_against_the_rule_in_a_few_lines(percentile: float, mode: OptimizeMode) -> None:
    draw = random.Random(5)
    subject = Percentile(optimize_mode=mode, percentile=percentile, min_trials=3)
    sign = 1 if mode == "maximize" else -1
    completed: list[list[float]] = []
    stopped = 0
    for trial in range(50):
        values = [draw.gauss(0, 1) for _ in range(draw.randint(1, 9))]
        bests = [max(sign * v for v in one[: len(values)]) for one in completed if len(one) >= len(values)]
        bar = np.quantile(bests, 1 - percentile / 100) if len(bests) >= 3 else -math.inf
        expected = bool(max(sign * v for v in values) < bar - 1e-12)
        assert run(subject, trial, values) is expected
        stopped += expected
        completed.append(values)
    assert stopped  # at 100 what is worse than all


def test_few_trials_early_steps_and_what_did_not_complete_say_nothing() -> None:
    subject = Percentile(min_trials=2, start_step=2)
    run(subject, 0, [5.0, 5.0])
    outcomes: list[Outcome] = ["failed", "stopped", "cancelled"]
    for trial, outcome in enumerate(outcomes, 1):
        run(subject, trial, [5.0, 5.0], outcome)
    assert not run(subject, 5, [0.0, 0.0], None)
    run(subject, 6, [5.0, 5.0])
    assert not run(subject, 7, [0.0], None)
    assert run(subject, 8, [0.0, 0.0], None)
    assert run(subject, 9, [math.nan, math.inf], None)
    verdict = subject.verdict(9)
    assert verdict is not None and verdict.why.startswith("no finite result up to step 2 is worse than 5,")


def test_arguments() -> None:
    for name, value in {"percentile": 101.0, "start_step": -1, "min_trials": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Percentile(**{name: value})  # type: ignore[arg-type]
