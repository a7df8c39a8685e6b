"""The Gaussian process: gradients against finite differences, the closed forms against slow ones, believed points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tune.engine.space import parse
from tune.tuners._gp_columns import Columns
from tune.tuners._gp_model import Kernel, Posterior, Theta, fit, negative_log_likelihood, prior_start
from tune.tuners._gp_search import Search
from tune.tuners._parzen import Axes

SPACE = parse(
    {
        "x": {"_type": "uniform", "_value": [0, 1]},
        "y": {"_type": "uniform", "_value": [0, 1]},
        "c": {"_type": "choice", "_value": ["a", "b", "c"]},
        "k": {
            "_type": "choice",
            "_value": [{"_name": "one", "z": {"_type": "uniform", "_value": [0, 1]}}, {"_name": "two"}],
        },
    }
)
AXES = Axes(SPACE)
DRAW = np.random.default_rng(1)
ROWS = Search(AXES, np.random.default_rng(0)).random(24)
TARGETS = np.sin(5 * ROWS[:, 0]) + (ROWS[:, 2] == 1) + 0.1 * DRAW.standard_normal(24)
TARGETS = (TARGETS - TARGETS.mean()) / TARGETS.std()
COLUMNS = Columns(AXES, ROWS)
NUMBERS = COLUMNS.numbers


def theta(bends: bool) -> Theta:
    lengths = np.linspace(-0.9, 0.3, COLUMNS.parameters)
    if not bends:
        return Theta(lengths, 0.2, -3.0)
    return Theta(lengths, 0.2, -3.0, np.linspace(-0.4, 0.5, NUMBERS), np.linspace(0.3, -0.2, NUMBERS))


def vector(t: Theta) -> np.ndarray:
    bends = [] if t.log_a is None else [t.log_a, t.log_b]
    return np.concatenate([t.log_lengths, [t.log_scale, t.log_noise], *bends])  # type: ignore[list-item]


def unpacked(v: np.ndarray, like: Theta) -> Theta:
    p = COLUMNS.parameters
    bends = () if like.log_a is None else (v[p + 2 : p + 2 + NUMBERS], v[p + 2 + NUMBERS :])
    return Theta(v[:p], float(v[p]), float(v[p + 1]), *bends)


def test_columns_measure_distances() -> None:
    columns = COLUMNS.of(ROWS)
    c = COLUMNS.order.tolist().index(2)
    own = columns[:, COLUMNS.owner == c]
    squares = ((own[:, None] - own[None]) ** 2).sum(axis=2)
    assert np.allclose(squares, ROWS[:, 2][:, None] != ROWS[:, 2])
    z = COLUMNS.order.tolist().index(4)
    assert set(columns[np.isnan(ROWS[:, 4])][:, z]) == {0.5}  # inactive: no distance between two such points
    few = Columns(AXES, ROWS[ROWS[:, 2] == 0])
    strange = few.of(ROWS[ROWS[:, 2] == 1])[0] - few.of(ROWS[ROWS[:, 2] == 0])[0]
    assert (strange[few.owner == c] ** 2).sum() == pytest.approx(1.0)  # a category that the data don't have


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, math.inf])
@pytest.mark.parametrize("bends", [False, True])
def test_gradient_of_the_likelihood(nu: float, bends: bool) -> None:
    t, kernel = theta(bends), Kernel(nu)
    features = COLUMNS.of(ROWS)
    _, gradient = negative_log_likelihood(COLUMNS, features, TARGETS, t, kernel)
    v, step = vector(t), 1e-6

    def value(w: np.ndarray) -> float:
        return negative_log_likelihood(COLUMNS, features, TARGETS, unpacked(w, t), kernel)[0]

    units = np.eye(len(v)) * step
    expected = [(value(v + unit) - value(v - unit)) / (2 * step) for unit in units]
    assert np.allclose(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, math.inf])
@pytest.mark.parametrize("bends", [False, True])
def test_gradient_of_predictions(nu: float, bends: bool) -> None:
    posterior = Posterior(COLUMNS, ROWS[:20], TARGETS[:20], theta(bends), Kernel(nu), ROWS[20:22])
    at, step = ROWS[22:], 1e-5
    at = np.where(np.isnan(at), np.nan, np.clip(at, 0.05, None))
    mean, deviation, by_mean, by_deviation = posterior.slopes(at)
    assert np.allclose((mean, deviation), posterior.predict(at))
    for place, parameter in enumerate(AXES.numeric):
        right, left = at.copy(), at.copy()
        right[:, parameter] += step
        left[:, parameter] -= step
        active = ~np.isnan(at[:, parameter])
        up, down = np.array(posterior.predict(right)), np.array(posterior.predict(left))
        expected = (up - down)[:, active] / (2 * step)
        assert np.allclose((by_mean[active, place], by_deviation[active, place]), expected, rtol=1e-3, atol=1e-6)


def test_leaving_out_in_closed_form() -> None:
    t, kernel = theta(False), Kernel()
    found = Posterior(COLUMNS, ROWS, TARGETS, t, kernel).left_out()
    for i in (0, 7, 23):
        others = np.arange(24) != i
        mean, deviation = Posterior(COLUMNS, ROWS[others], TARGETS[others], t, kernel).predict(ROWS[i : i + 1])
        variance = deviation[0] ** 2 + t.noise + kernel.floor
        expected = -0.5 * (TARGETS[i] - mean[0]) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)
        assert found[i] == pytest.approx(expected, rel=1e-6)


def test_believed_points_change_no_mean_and_only_reduce_doubt() -> None:
    t, kernel = theta(True), Kernel()
    plain = Posterior(COLUMNS, ROWS[:16], TARGETS[:16], t, kernel)
    believed = Posterior(COLUMNS, ROWS[:16], TARGETS[:16], t, kernel, ROWS[16:])
    at = Search(AXES, np.random.default_rng(5)).random(300)
    mean, deviation = plain.predict(at)
    other, surer = believed.predict(at)
    assert np.array_equal(mean, other)
    assert (surer <= deviation + 1e-12).all() and surer.mean() < 0.95 * deviation.mean()
    assert np.array_equal(plain.means, believed.means)
    # appended as a block, the factor is that of the whole
    whole = Posterior(COLUMNS, ROWS, np.append(TARGETS[:16], plain.predict(ROWS[16:])[0]), t, kernel)
    assert np.allclose(whole.predict(at), (other, surer), atol=1e-8)


def test_means_at_the_data() -> None:
    posterior = Posterior(COLUMNS, ROWS, TARGETS, theta(False), Kernel())
    assert np.allclose(posterior.means, posterior.predict(ROWS)[0], atol=1e-9)


def test_a_fit_finds_what_matters() -> None:
    found = fit(COLUMNS, COLUMNS.of(ROWS), TARGETS, prior_start(COLUMNS.parameters), Kernel(), 60)
    by_parameter = dict(zip(COLUMNS.order.tolist(), found.theta.log_lengths, strict=True))
    assert by_parameter[0] < by_parameter[1] and by_parameter[2] < by_parameter[3]
    start = fit(COLUMNS, COLUMNS.of(ROWS), TARGETS, prior_start(COLUMNS.parameters), Kernel(), 1)
    assert found.log_density > start.log_density


def test_a_fit_that_may_bend_is_no_worse() -> None:
    rows = Search(AXES, np.random.default_rng(3)).random(60)
    targets = np.exp(-30 * rows[:, 0]) + 0.01 * np.random.default_rng(2).standard_normal(60)  # all happens near 0
    targets = (targets - targets.mean()) / targets.std()
    columns = Columns(AXES, rows)
    features, kernel = columns.of(rows), Kernel()
    straight = fit(columns, features, targets, prior_start(columns.parameters), kernel, 60)
    bends = fit(columns, features, targets, prior_start(columns.parameters, columns.numbers), kernel, 60)
    assert bends.log_density > straight.log_density + 1
    assert bends.theta.log_a is not None and bends.theta.log_b is not None
    assert bends.theta.log_b[0] - bends.theta.log_a[0] > 0.5  # the beginning of the interval is stretched


def test_equal_rows_without_noise() -> None:
    rows = np.repeat(ROWS[:3], 4, axis=0)
    kernel: Any = Kernel(math.inf, 0.0)
    posterior = Posterior(
        COLUMNS, rows, np.zeros(12), Theta(np.zeros(COLUMNS.parameters), 0.0, -60.0), kernel, rows[:2]
    )
    assert np.isfinite(posterior.predict(ROWS)).all()
