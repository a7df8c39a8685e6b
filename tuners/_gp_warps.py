"""Monotone warps that make results and parameters easier for a Gaussian process: of losses, and of the unit interval.

Losses: the better half of the results decides, the worse half often spans many orders of magnitude. Each warp has a
slope at the better ones, so that models of differently warped losses can be compared by how well they predict these.

* plain: shifted and scaled.
* half rank: the worse half becomes the upper half of a normal whose scale is that of the better half, as in Vizier
  (Song et al., arXiv 2408.11527).
* log: the logarithm of the distance to just below the best, then half rank.

Parameters: Kumaraswamy's distribution, 1 - (1 - x^a)^b, as in HEBO (Cowen-Rivers et al., JAIR 74, 2022) and Snoek et
al., Input Warping for Bayesian Optimization (ICML 2014).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._numerics import Floats, normal_quantile

Warp: TypeAlias = Literal["plain", "half rank", "log"]
WARPS: tuple[Warp, ...] = ("half rank", "plain", "log")
_EDGE = 1e-6  # a place this near to the ends of the unit interval is moved away: slopes there are infinite


def warped(losses: Floats, kind: Warp) -> tuple[Floats, Floats]:
    """Losses (n, NaN for a failure) as n numbers of mean 0 and deviation 1, less is better, and log slopes (n).

    The slopes are those of the warp at each loss of the better half, NaN elsewhere; their unit is the same for all
    kinds. Failures are as bad as the worst.
    """
    known = ~np.isnan(losses)
    values = losses[known]
    largest = np.abs(values).max(initial=0.0)
    if largest > 0.0:  # so that sums and squares below can't overflow
        values = values / largest
    middle = np.sort(values)[(len(values) - 1) // 2]  # never between a good and a terrible one
    better = values <= middle
    slopes = np.full(len(losses), np.nan)
    log_slope = np.zeros(int(better.sum()))
    if kind == "log":
        lowest = values.min()
        span = middle - lowest
        if span > 0.0:
            shift = 0.1 * span - lowest
            log_slope = -np.log(values[better] + shift)
            values = np.log(values + shift)
            middle = np.log(middle + shift)
    if kind != "plain":
        values = _half_rank(values, better, float(middle))
    whole = np.empty(len(losses))
    whole[known] = values
    whole[~known] = values.max()
    scale = float(whole.std())
    if not scale > 0.0:
        return np.zeros(len(losses)), slopes
    slopes[np.flatnonzero(known)[better]] = log_slope - np.log(scale)
    return (whole - whole.mean()) / scale, slopes


def graded(violations: Floats) -> tuple[Floats, float]:
    """Violations (n, 0 where constraints are met) as n numbers of mean 0 and deviation 1, and the border among them.

    Below the border constraints are met; there is a gap around it, and above it the logarithm of the violation. While
    nothing meets them the border is a deviation below the least violation.
    """
    violated = violations > 0.0
    if violated.all():
        values, _ = _standard(np.log(violations), 0.0)
        return values, float(values.min(initial=0.0)) - 1.0
    if not violated.any():
        return np.zeros(len(violations)), 1.0
    usual = float(np.median(violations[violated]))
    return _standard(np.where(violated, 1.0 + np.log1p(violations / usual), -1.0), 0.0)


def _standard(values: Floats, border: float) -> tuple[Floats, float]:
    scale = float(values.std()) or 1.0
    mean = float(values.mean())
    return (values - mean) / scale, (border - mean) / scale


def _half_rank(values: Floats, better: NDArray[np.bool_], middle: float) -> Floats:
    scale = float(np.sqrt(np.mean((values[better] - middle) ** 2)))
    if not scale > 0.0:
        scale = float(values.std())
    distinct, places = np.unique(values[~better], return_inverse=True)
    quantiles = 0.5 + 0.5 * (np.arange(len(distinct)) + 0.5) / max(len(distinct), 1)
    result = values.copy()
    result[~better] = (middle + scale * normal_quantile(quantiles))[places]
    return result


def bent(x: Floats, log_a: Floats, log_b: Floats) -> Floats:
    """Places x (n x k) in the unit interval after Kumaraswamy's warp of each column."""
    x = np.clip(x, _EDGE, 1.0 - _EDGE)
    return -np.expm1(np.exp(log_b) * np.log1p(-(x ** np.exp(log_a))))


def bent_slopes(x: Floats, log_a: Floats, log_b: Floats) -> tuple[Floats, Floats, Floats]:
    """Derivatives of `bent` by x, log a and log b, each (n x k)."""
    x = np.clip(x, _EDGE, 1.0 - _EDGE)
    a, b = np.exp(log_a), np.exp(log_b)
    power = x**a
    log_rest = np.log1p(-power)
    outer = b * np.exp((b - 1.0) * log_rest)  # of 1 - (1 - p)^b by p
    log_x = np.log(x)
    return outer * a * power / x, outer * power * a * log_x, -b * log_rest * np.exp(b * log_rest)
