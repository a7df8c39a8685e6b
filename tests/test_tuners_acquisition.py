"""Acquisitions: their slopes against finite differences, and what they prefer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tune.tuners._acquisition import confidence_bound, log_expected_improvement, log_probability, worth


@pytest.mark.parametrize("rule", ["ei", "ucb", "poi"])
def test_slopes_against_finite_differences(rule: Any) -> None:
    mean = np.array([-2.0, -0.3, 0.0, 0.4, 3.0, 12.0])
    deviation = np.array([0.4, 1.0, 0.2, 0.7, 0.5, 0.8])
    value, by_mean, by_deviation = worth(rule, mean, deviation, 0.1, 2.0)
    assert np.isfinite(value).all()
    step = 1e-6
    up = worth(rule, mean + step, deviation, 0.1, 2.0)[0] - worth(rule, mean - step, deviation, 0.1, 2.0)[0]
    assert np.allclose(up / (2 * step), by_mean, rtol=1e-5, atol=1e-7)
    up = worth(rule, mean, deviation + step, 0.1, 2.0)[0] - worth(rule, mean, deviation - step, 0.1, 2.0)[0]
    assert np.allclose(up / (2 * step), by_deviation, rtol=1e-5, atol=1e-6)


def test_improvement_is_that_of_a_sample() -> None:
    sample = np.random.default_rng(0).normal(0.5, 0.8, 400_000)
    value = log_expected_improvement(np.array([0.5]), np.array([0.8]), 0.2)[0][0]
    assert np.exp(value) == pytest.approx(np.maximum(0.2 - sample, 0).mean(), rel=0.01)
    value = log_probability(np.array([0.5]), np.array([0.8]), 0.2)[0][0]
    assert np.exp(value) == pytest.approx((sample < 0.2).mean(), rel=0.01)


def test_more_doubt_is_worth_more_far_from_the_best() -> None:
    mean, deviation = np.array([3.0, 3.0]), np.array([0.1, 0.2])
    for value, by_mean, by_deviation in (
        log_expected_improvement(mean, deviation, 0.0),
        confidence_bound(mean, deviation, 2.0),
        log_probability(mean, deviation, 0.0),
    ):
        assert value[1] > value[0]
        assert (by_mean < 0).all() and (by_deviation > 0).all()
