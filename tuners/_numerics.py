"""The few functions of scipy that models use, typed, and the normal distribution's logarithms in its tails.

Importing scipy costs a third of a second, so only tuners that need it import this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg.lapack as _lapack  # pyright: ignore[reportMissingTypeStubs]  # scipy has none
import scipy.optimize as _optimize  # pyright: ignore[reportMissingTypeStubs]  # scipy has none
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]  # scipy has none
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

lapack: Any = _lapack
optimize: Any = _optimize
special: Any = _special

LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR = -1e6  # below it z * z would say nothing new, and 1 + z * Mills(z) is 1 / z**2 long before


def cholesky(matrix: Floats) -> Floats | None:
    """The lower triangle L with L @ L.T = matrix (symmetric, n x n); None when it is not positive definite."""
    lower, info = lapack.dpotrf(matrix.T, lower=1, clean=1)
    return None if info else np.ascontiguousarray(lower)


def inverse_of_triangle(lower: Floats) -> Floats:
    """The inverse of a lower triangle, itself one."""
    upper, _ = lapack.dtrtri(lower.T, lower=0)  # the transpose lies in memory as LAPACK wants it
    return upper.T


def minimize(
    value_and_gradient: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    bounds: Sequence[tuple[float, float]],
    steps: int,
) -> tuple[Floats, float]:
    """The lowest point that L-BFGS-B finds from `start` in at most `steps` iterations, and its value."""
    found, value, _ = optimize.fmin_l_bfgs_b(value_and_gradient, start, bounds=bounds, maxiter=steps, m=8, factr=1e9)
    return np.asarray(found, dtype=np.float64), float(value)


def log_normal_cdf(z: Floats) -> Floats:
    """log Phi(z)."""
    return np.asarray(special.log_ndtr(z), dtype=np.float64)


def normal_quantile(p: Floats) -> Floats:
    """The inverse of Phi."""
    return np.asarray(special.ndtri(p), dtype=np.float64)


def log_improvement(z: Floats) -> Floats:
    """log(phi(z) + z Phi(z)), the logarithm of the unit normal's expected excess over -z, right for any z.

    Ament et al., Unexpected Improvements to Expected Improvement (NeurIPS 2023), with the scaled complementary error
    function erfcx in place of a series: below -1 the sum is phi(z) (1 + z M) with Mills' ratio M(z) = Phi(z) / phi(z).
    """
    z = np.maximum(z, _FAR)
    near = np.maximum(z, -1.0)
    plain = np.log(np.exp(-0.5 * near * near - LOG_ROOT_2PI) + near * special.ndtr(near))
    far = np.minimum(z, -1.0)
    mills = math.sqrt(math.pi / 2.0) * special.erfcx(-far / math.sqrt(2.0))
    squares = 1.0 / (far * far)
    rest = np.where(
        far > -100.0, 1.0 + far * mills, squares * (1.0 - 3.0 * squares)
    )  # the series where 1 + z M cancels
    tail = -0.5 * far * far - LOG_ROOT_2PI + np.log(rest)
    return np.asarray(np.where(z > -1.0, plain, tail), dtype=np.float64)
