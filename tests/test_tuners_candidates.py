"""Candidates: rows of the space, near others or not; scores by rank; the logarithm of the expected improvement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from tune.engine.space import parse
from tune.tuners._candidates import Candidates, log_expected_improvement, quantiles
from tune.tuners._genes import Individual

SPACE = parse(
    {
        "x": {"_type": "uniform", "_value": [0, 1]},
        "n": {"_type": "randint", "_value": [0, 4]},
        "k": {
            "_type": "choice",
            "_value": [{"_name": "a", "y": {"_type": "uniform", "_value": [0, 1]}}, {"_name": "b"}],
        },
    }
)


def test_rows_are_points_of_the_space() -> None:
    drawn, generator = Candidates(SPACE), np.random.default_rng(0)
    rows = drawn.fresh(500, generator)
    near = drawn.near(rows, 0.1, generator)
    for found in (rows, near):
        assert set(found[:, 1]) == {0.125, 0.375, 0.625, 0.875}
        assert (np.isnan(found[:, 3]) == (found[:, 2] == 1)).all()
        assert (np.nan_to_num(found) >= 0).all() and (np.nan_to_num(found) <= 1).all()
    same = (rows == near) | (np.isnan(rows) & np.isnan(near))
    assert 0.5 < np.mean((~same).sum(axis=1)) < 2.0
    assert np.median(np.abs(near[:, 0] - rows[:, 0])[near[:, 0] != rows[:, 0]]) < 0.15


def test_running_points_keep_others_away() -> None:
    drawn = Candidates(SPACE)
    running = np.array([[0.5, 0.125, 0.0, 0.5]])
    rows = np.array([[0.5, 0.125, 0.0, 0.5], [0.55, 0.125, 0.0, 0.5], [0.5, 0.125, 1.0, math.nan], [1, 0.9, 0.0, 0.0]])
    worth = drawn.kept_away(rows, running)
    assert worth[0] < -10 < worth[1] < worth[2] < worth[3] and worth[3] > -1e-3
    assert drawn.kept_away(rows, np.empty((0, 4))).tolist() == [0.0] * 4


def test_scores_are_quantiles_of_ranks() -> None:
    orders = [(0.0, 5.0), (0.0, -1e300), (2.0, -9.0), None, (0.0, 5.0), None]
    scores = quantiles([Individual(i, [], order=order) for i, order in enumerate(orders)])
    expected = norm.ppf(np.array([2.0, 0.5, 3.5, 5.0, 2.0, 5.0]) / 6)
    assert scores == pytest.approx(expected)


def test_the_expected_improvement_far_down() -> None:
    z = np.array([3.0, 0.0, -2.0, -3.9, -4.1, -8.0, -30.0])
    sd = 0.7
    found = log_expected_improvement(-z * sd, np.full(len(z), sd), 0.0)
    exact = [sd * (norm.pdf(one) + one * norm.cdf(one)) for one in z[:4]]
    assert found[:4] == pytest.approx(np.log(exact), abs=0.15)
    assert found[0] == pytest.approx(math.log(exact[0]), abs=1e-4)
    asymptotic = norm.logpdf(z[4:]) - 2 * np.log(-z[4:]) + math.log(sd)
    assert found[4:] == pytest.approx(asymptotic, abs=0.2)
    assert (np.diff(found) < 0).all()
