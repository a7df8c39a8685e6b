"""The forest: it learns steps, categories and what is missing, and is unsure where it has seen nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tune.tuners._forest import Forest, starts_of


def grown(x: np.ndarray, y: np.ndarray, categorical: list[bool], **arguments: int) -> Forest:
    return Forest(x, y, np.array(categorical), np.random.default_rng(0), **arguments)


def test_it_learns_a_function_of_numbers_and_categories() -> None:
    draw = np.random.default_rng(1)
    x = np.column_stack([draw.random(600), draw.integers(0, 5, 600).astype(float), draw.random(600)])

    def truth(rows: np.ndarray) -> np.ndarray:
        return 2 * rows[:, 0] + np.where(rows[:, 1] == 2, 3.0, 0.0)

    forest = grown(x[:500], truth(x[:500]), [False, True, False])
    mean, variance = forest.predict(x[500:])
    assert mean.shape == variance.shape == (100,)
    assert np.corrcoef(mean, truth(x[500:]))[0, 1] > 0.97
    assert (variance >= 0).all()


def test_with_leaves_of_one_point_it_gives_back_what_it_was_given() -> None:
    draw = np.random.default_rng(2)
    x, y = draw.random((60, 3)), draw.standard_normal(60)
    mean, variance = grown(x, y, [False] * 3, leaf=1).predict(x)
    assert mean == pytest.approx(y, abs=0.35) and np.corrcoef(mean, y)[0, 1] > 0.99
    assert variance.max() < 0.3


def test_what_is_missing_is_a_value_of_its_own() -> None:
    draw = np.random.default_rng(3)
    x = draw.random((300, 2))
    x[::2, 1] = np.nan
    y = np.where(np.isnan(x[:, 1]), 5.0, x[:, 1])
    mean, _ = grown(x, y, [False, False]).predict(np.array([[0.5, np.nan], [0.5, 0.1], [0.5, 0.9]]))
    assert mean[0] == pytest.approx(5.0, abs=0.2) and mean[1] < mean[2] < 1.1


def test_it_is_less_sure_where_results_scatter() -> None:
    draw = np.random.default_rng(4)
    x = draw.random((400, 1))
    y = np.where(x[:, 0] > 0.5, draw.standard_normal(400), 0.0)
    _, variance = grown(x, y, [False]).predict(np.array([[0.2], [0.8]]))
    assert variance[1] > 10 * variance[0]


def test_points_that_are_all_the_same_are_one_leaf() -> None:
    forest = grown(np.ones((20, 2)), np.arange(20.0), [False, True])
    mean, variance = forest.predict(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert mean == pytest.approx([9.5, 9.5]) and variance == pytest.approx([33.25, 33.25])
    assert starts_of(np.array([0, 0, 1, 4, 4])).tolist() == [0, 2, 3]
