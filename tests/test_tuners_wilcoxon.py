"""Wilcoxon: its p-values are SciPy's, and it stops what is worse step for step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tune.engine.plugins import Ended, OptimizeMode, Reported, Suggested
from tune.tuners.wilcoxon import Wilcoxon, p_less


def run(subject: Wilcoxon, trial: int, values: list[float], final: float | None) -> int | None:
    """The step (from 1) of the first verdict."""
    subject.observe(Suggested(0, trial, 0, {}))
    first: int | None = None
    for step, value in enumerate(values):
        subject.observe(Reported(0, trial, 0, step, value))
        if first is None and subject.verdict(trial) is not None:
            first = step + 1
    if final is not None:
        subject.observe(Ended(0, trial, 0, "completed", final))
    return first


@pytest.mark.parametrize("n", [1, 2, 5, 17, 50])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.5])
def test_exact_p_values(n: int, shift: float) -> None:
    values = np.random.default_rng(n).standard_normal(n) + shift
    expected = wilcoxon(values, alternative="less", method="exact").pvalue
    assert p_less(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [7, 51, 400])
def test_p_values_with_ties_and_zeros(n: int) -> None:
    values = np.round(np.random.default_rng(n).standard_normal(n) * 2)
    expected = wilcoxon(values, alternative="less", method="approx", zero_method="zsplit").pvalue
    assert p_less(values) == pytest.approx(expected, rel=1e-9)


def test_a_tabulated_value() -> None:
    """Of eight differences with the rank sum 5 above, 10 of the 256 signs give as little: one-sided 0.039."""
    assert p_less(np.array([1.0, 4.0, -2.0, -3.0, -5.0, -6.0, -7.0, -8.0])) == pytest.approx(10 / 256)
    assert p_less(np.zeros(5)) == 0.5


def test_worse_on_every_step_is_stopped_when_the_test_can_tell() -> None:
    modes: list[OptimizeMode] = ["maximize", "minimize"]
    for mode in modes:
        sign = 1 if mode == "maximize" else -1
        subject = Wilcoxon(optimize_mode=mode)
        assert run(subject, 0, [sign * 0.9] * 8, sign * 0.9) is None  # nothing to compare it with
        worse = [sign * (0.9 - 0.01 * (i + 1)) for i in range(8)]
        assert run(subject, 1, worse, None) == 4  # 1/16 is the first p below 0.1
        verdict = subject.verdict(1)
        assert verdict is not None and verdict.why == "worse than trial 0 on 8 steps, p = 0.0039 (signed-rank test)"
        assert run(subject, 2, [sign * (0.9 + 0.01 * i) for i in range(8)], sign * 0.95) is None
        assert run(subject, 3, worse, None) == 4


def test_a_few_large_gains_count() -> None:
    subject = Wilcoxon(p_threshold=0.5)
    run(subject, 0, [0.0] * 10, 0.0)
    mixed = [10.0, *[-1.0 - i / 100 for i in range(9)]]
    assert run(subject, 1, mixed, None) is None  # its mean is better, whatever the ranks say


def test_only_steps_that_both_have_and_only_numbers() -> None:
    subject = Wilcoxon()
    run(subject, 0, [1.0, math.nan, 1.0, 1.0, 1.0, 1.0], 1.0)
    assert run(subject, 1, [0.9, -9.0, 0.8, math.nan, 0.7, 0.6], None) == 6
    subject.observe(Reported(0, 1, 0, 6, math.nan))
    assert subject.verdict(1) is None


def test_false_stops_are_as_rare_as_the_threshold_says() -> None:
    draw = np.random.default_rng(0)
    stops = 0
    for _ in range(400):
        subject = Wilcoxon(p_threshold=0.05, n_startup_steps=12)
        run(subject, 0, draw.standard_normal(12).tolist(), 1.0)
        stops += run(subject, 1, draw.standard_normal(12).tolist(), None) is not None
    assert stops <= 0.08 * 400


def test_arguments() -> None:
    for name, value in {"p_threshold": 1.5, "n_startup_steps": -1}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Wilcoxon(**{name: value})  # type: ignore[arg-type]
