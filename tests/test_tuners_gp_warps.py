"""Warps: monotone, invertible where they should be, equal for equal results, and right about their slopes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tune.tuners._gp_warps import WARPS, bent, bent_slopes, graded, warped

LOSSES = np.array([3.0, -1.0, 1e9, 0.5, 0.5, np.nan, 7.0, 200.0, -0.9, 2.0])


@pytest.mark.parametrize("kind", WARPS)
def test_losses_keep_their_order(kind: Any) -> None:
    values, slopes = warped(LOSSES, kind)
    known = ~np.isnan(LOSSES)
    order = np.argsort(LOSSES[known], kind="stable")
    steps = np.diff(values[known][order])
    assert (steps[np.diff(LOSSES[known][order]) > 0] > 0).all() or kind == "plain"
    assert (steps >= 0).all()
    assert values[3] == values[4]
    assert values[5] == values[known].max()  # a failure is as bad as the worst
    assert values.mean() == pytest.approx(0.0, abs=1e-12) and values.std() == pytest.approx(1.0)
    better = np.nanmedian(LOSSES) >= LOSSES
    assert np.array_equal(~np.isnan(slopes), better)


@pytest.mark.parametrize("kind", WARPS)
def test_slopes_are_those_of_the_warp(kind: Any) -> None:
    losses = np.linspace(-1.0, 4.0, 2001) ** 3  # dense: differences are slopes
    values, slopes = warped(losses, kind)
    unit = np.abs(losses).max()
    better = np.flatnonzero(~np.isnan(slopes))[10:-10]
    found = (values[better + 1] - values[better - 1]) / (losses[better + 1] - losses[better - 1]) * unit
    fair = np.abs(losses[better]) > 0.01  # where the steps are not all rounding
    assert np.allclose(np.log(found)[fair], slopes[better][fair], atol=0.02)


@pytest.mark.parametrize("kind", WARPS)
def test_losses_of_any_size(kind: Any) -> None:
    for losses in ([1.7e308, -1.7e308, 0.0, 5e-324, 3.0], [5e-324, 0.0, 5e-324], [2.0, 2.0, 2.0], [0.0], [1.0, np.nan]):
        values, _ = warped(np.array(losses), kind)
        assert np.isfinite(values).all()


def test_half_rank_forgets_how_bad_the_bad_are() -> None:
    losses = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    worse = np.array([1.0, 2.0, 3.0, 40.0, 5e5, 6e9])
    assert np.allclose(warped(losses, "half rank")[0], warped(worse, "half rank")[0])
    assert not np.allclose(warped(losses, "plain")[0], warped(worse, "plain")[0])


def test_bends_are_monotone_and_start_straight() -> None:
    x = np.linspace(0.0, 1.0, 201)[:, None]
    assert np.allclose(bent(x, np.zeros(1), np.zeros(1)), x, atol=2e-6)
    for a, b in ((-1.5, 0.3), (1.2, -0.8), (0.5, 1.5)):
        y = bent(x, np.array([a]), np.array([b]))[:, 0]
        assert (np.diff(y) > 0).all() and y[0] >= 0 and y[-1] <= 1
        inverse = (1 - (1 - y) ** np.exp(-b)) ** np.exp(-a)
        assert np.allclose(inverse, x[:, 0], atol=1e-5)


def test_slopes_of_bends_against_finite_differences() -> None:
    x = np.linspace(0.05, 0.95, 9)[:, None] * np.ones(2)
    a, b, step = np.array([-0.7, 0.9]), np.array([0.4, -0.5]), 1e-6
    by_x, by_a, by_b = bent_slopes(x, a, b)
    assert np.allclose((bent(x + step, a, b) - bent(x - step, a, b)) / (2 * step), by_x, rtol=1e-6)
    assert np.allclose((bent(x, a + step, b) - bent(x, a - step, b)) / (2 * step), by_a, rtol=1e-6)
    assert np.allclose((bent(x, a, b + step) - bent(x, a, b - step)) / (2 * step), by_b, rtol=1e-6)


def test_violations_have_a_border() -> None:
    values, border = graded(np.array([0.0, 2.0, 0.0, 0.1, 1e30]))
    assert (values[[0, 2]] < border).all() and (values[[1, 3, 4]] > border).all()
    assert values[3] < values[1] < values[4]
    values, border = graded(np.array([3.0, 1.0]))
    assert border < values[1] < values[0]
    assert graded(np.zeros(3))[0].tolist() == [0.0, 0.0, 0.0]
