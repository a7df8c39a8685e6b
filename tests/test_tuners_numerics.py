"""The numerical functions: logarithms of the normal distribution against quadrature, triangles, the minimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from tune.tuners._numerics import cholesky, inverse_of_triangle, log_improvement, log_normal_cdf, minimize


@pytest.mark.parametrize("z", [-38.0, -30.0, -12.0, -5.0, -1.001, -1.0, -0.999, -0.1, 0.0, 0.7, 3.0, 9.0])
def test_log_improvement_against_quadrature(z: float) -> None:
    # E[max(z - t, 0)] = integral over s > 0 of s phi(z - s); exp(-z * z / 2) is taken out where z < 0
    def integrand(s: float) -> float:
        return s * math.exp(-0.5 * s * s + min(z, 0.0) * s) if z < 0 else s * math.exp(-0.5 * (z - s) ** 2)

    integral = quad(integrand, 0.0, 60.0, epsabs=0.0, epsrel=1e-11, limit=400, points=[0.01, 0.1, 1.0, 10.0])[0]
    expected = math.log(integral) - 0.5 * math.log(2 * math.pi) - (0.5 * z * z if z < 0 else 0.0)
    assert log_improvement(np.array([z]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_log_improvement_far_out() -> None:
    z = -np.logspace(0, 6, 4001)
    values = log_improvement(z)
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()  # also where the series takes over
    leading = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2 * np.log(-z)
    assert values[-1] == pytest.approx(leading[-1], rel=1e-12)
    assert np.isfinite(log_improvement(np.array([-1e200, -np.inf])[:1])).all()


def test_log_normal_cdf() -> None:
    assert log_normal_cdf(np.array([0.0]))[0] == pytest.approx(math.log(0.5))
    assert log_normal_cdf(np.array([-40.0]))[0] == pytest.approx(-804.608442, abs=1e-5)


def test_triangles() -> None:
    draw = np.random.default_rng(0)
    a = draw.standard_normal((7, 7))
    matrix = a @ a.T + np.eye(7)
    lower = cholesky(matrix)
    assert lower is not None
    assert np.allclose(lower @ lower.T, matrix) and np.all(np.triu(lower, 1) == 0)
    assert np.allclose(inverse_of_triangle(lower) @ lower, np.eye(7))
    assert cholesky(-matrix) is None


def test_the_minimiser_stays_in_its_bounds() -> None:
    def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(((x - 3.0) ** 2).sum()), 2.0 * (x - 3.0)

    found, value = minimize(bowl, np.zeros(2), [(-1.0, 1.0), (-9.0, 9.0)], 50)
    assert np.allclose(found, [1.0, 3.0]) and value == pytest.approx(4.0)
