"""How much a point is worth trying, from what a model expects there: a value, and its slopes by mean and deviation.

Less is better for the mean; more is better for the value. All are logarithms or linear, so none of them underflows to
a plain of zeros far from the best point.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from ._numerics import LOG_ROOT_2PI, Floats, log_improvement, log_normal_cdf

Rule: TypeAlias = Literal["ei", "ucb", "poi"]
Worth: TypeAlias = tuple[Floats, Floats, Floats]  # value, its derivative by the mean, and by the deviation
_TOP = 700.0  # exp of more overflows


def log_expected_improvement(mean: Floats, deviation: Floats, threshold: float) -> Worth:
    """log E[max(threshold - f, 0)]; Jones et al. (1998), in logarithms as in Ament et al. (2023)."""
    z = (threshold - mean) / deviation
    excess = log_improvement(z)
    inside = np.exp(np.minimum(log_normal_cdf(z) - excess, _TOP)) / deviation
    density = np.exp(np.minimum(-0.5 * z * z - LOG_ROOT_2PI - excess, _TOP)) / deviation
    return excess + np.log(deviation), -inside, density


def log_probability(mean: Floats, deviation: Floats, threshold: float) -> Worth:
    """log P(f < threshold): of improvement (Kushner, 1964), or of meeting a constraint."""
    z = (threshold - mean) / deviation
    value = log_normal_cdf(z)
    ratio = np.exp(np.minimum(-0.5 * z * z - LOG_ROOT_2PI - value, _TOP)) / deviation
    return value, -ratio, -z * ratio


def confidence_bound(mean: Floats, deviation: Floats, kappa: float) -> Worth:
    """kappa * deviation - mean: what is best if the model errs by kappa deviations (Srinivas et al., 2010)."""
    return kappa * deviation - mean, np.full(len(mean), -1.0), np.full(len(mean), kappa)


def worth(rule: Rule, mean: Floats, deviation: Floats, threshold: float, kappa: float) -> Worth:
    """What a rule says; the threshold is that of EI and POI, kappa that of the bound."""
    if rule == "ucb":
        return confidence_bound(mean, deviation, kappa)
    if rule == "poi":
        return log_probability(mean, deviation, threshold)
    return log_expected_improvement(mean, deviation, threshold)
