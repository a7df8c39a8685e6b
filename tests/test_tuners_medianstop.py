"""Medianstop: NNI's rule, with what is no number and what did not complete left out of every median."""

from __future__ import annotations

import math
import random
import statistics

from tune.engine.plugins import Ended, Outcome, Reported, Suggested
from tune.tuners.medianstop import Medianstop


def run(subject: Medianstop, trial: int, values: list[float], outcome: Outcome | None = "completed") -> None:
    subject.observe(Suggested(0, trial, 0, {}))
    for step, value in enumerate(values):
        subject.observe(Reported(0, trial, 0, step, value))
    if outcome is not None:
        subject.observe(Ended(0, trial, 0, outcome, 1.0 if outcome == "completed" else None))


def test_the_best_so_far_is_compared_with_the_median_of_the_averages() -> None:
    subject = Medianstop()
    for trial, values in enumerate([[1.0, 3.0], [2.0, 4.0], [3.0, 9.0]]):  # averages at step 2: 2, 3, 6
        run(subject, trial, values)
    run(subject, 3, [1.9], None)
    verdict = subject.verdict(3)
    assert verdict is not None
    assert "1.9" in verdict.why
    assert "step 1 is worse than 2," in verdict.why
    assert "3 completed" in verdict.why
    run(subject, 4, [2.0], None)
    assert subject.verdict(4) is None  # strictly worse only
    run(subject, 5, [3.0, 0.0], None)
    assert subject.verdict(5) is None  # the best so far, not the last
    run(subject, 6, [2.9, 2.9], None)
    assert subject.verdict(6) is not None


def test_minimize() -> None:
    subject = Medianstop(optimize_mode="minimize")
    for trial, value in enumerate([1.0, 2.0, 3.0, 4.0]):
        run(subject, trial, [value])
    run(subject, 5, [2.6], None)
    verdict = subject.verdict(5)
    assert verdict is not None
    assert "2.6" in verdict.why and "2.5" in verdict.why
    run(subject, 6, [2.4], None)
    assert subject.verdict(6) is None


def test_start_step_and_steps_that_nobody_completed() -> None:
    subject = Medianstop(start_step=3)
    run(subject, 0, [5.0, 5.0, 5.0])
    run(subject, 1, [0.0, 0.0], None)
    assert subject.verdict(1) is None
    subject.observe(Reported(0, 1, 0, 2, 0.0))
    assert subject.verdict(1) is not None
    subject.observe(Reported(0, 1, 0, 3, 0.0))
    assert subject.verdict(1) is None


def test_only_completed_trials_enter_a_median() -> None:
    subject = Medianstop()
    outcomes: list[Outcome] = ["failed", "stopped", "cancelled"]
    for trial, outcome in enumerate(outcomes):
        run(subject, trial, [9.0], outcome)
    run(subject, 5, [0.0], None)
    assert subject.verdict(5) is None


def test_no_numbers_count_in_no_mean_and_no_best() -> None:
    subject = Medianstop()
    run(subject, 0, [math.nan, 4.0, math.inf, 2.0])  # averages: none, 4, 4, 3
    run(subject, 1, [math.inf], None)
    assert subject.verdict(1) is None  # nobody has an average at step 1
    subject.observe(Reported(0, 1, 0, 1, math.nan))
    verdict = subject.verdict(1)
    assert verdict is not None and "no finite result" in verdict.why
    run(subject, 2, [math.nan, math.nan, math.nan, 3.0], None)
    assert subject.verdict(2) is None


def test_against_the_rule_in_a_few_lines() -> None:
    draw = random.Random(5)
    subject = Medianstop()
    completed: list[list[float]] = []
    for trial in range(60):
        values = [draw.gauss(0, 1) for _ in range(draw.randint(1, 12))]
        subject.observe(Suggested(0, trial, 0, {}))
        for step, value in enumerate(values):
            subject.observe(Reported(0, trial, 0, step, value))
            averages = [statistics.fmean(one[: step + 1]) for one in completed if len(one) > step]
            expected = bool(averages) and max(values[: step + 1]) < statistics.median(averages) - 1e-12
            assert (subject.verdict(trial) is not None) is expected
        subject.observe(Ended(0, trial, 0, "completed", 0.0))
        completed.append(values)


def test_phases_have_their_own_curves() -> None:
    subject = Medianstop()
    run(subject, 0, [5.0, 5.0])
    run(subject, 1, [6.0], None)
    subject.observe(Ended(0, 1, 0, "completed", 6.0))
    subject.observe(Suggested(0, 1, 1, {}))
    subject.observe(Reported(0, 1, 1, 0, 1.0))
    assert subject.verdict(1) is not None
