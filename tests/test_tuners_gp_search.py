"""The search for the best point: it stays in the space and in its box, and finds the top of simple functions."""

from __future__ import annotations

import numpy as np

from tune.engine.space import parse
from tune.tuners._gp_search import Box, Floats, Search
from tune.tuners._parzen import Axes

SPACE = parse(
    {
        "x": {"_type": "uniform", "_value": [0, 1]},
        "n": {"_type": "randint", "_value": [0, 8]},
        "k": {
            "_type": "choice",
            "_value": [
                {
                    "_name": "one",
                    "z": {"_type": "uniform", "_value": [0, 1]},
                    "c": {"_type": "choice", "_value": [1, 2]},
                },
                {"_name": "two"},
                {"_name": "three"},
            ],
        },
    }
)
AXES = Axes(SPACE)


def score(rows: Floats) -> Floats:
    inside = np.where(np.isnan(rows[:, 3]), -1.0, 1.0 - (rows[:, 3] - 0.7) ** 2 + (rows[:, 4] == 1))
    return inside - 5 * (rows[:, 0] - 0.2) ** 2 - (rows[:, 1] - 0.4) ** 2


def slopes(rows: Floats) -> tuple[Floats, Floats]:
    gradient = np.stack([-10 * (rows[:, 0] - 0.2), -2 * (rows[:, 1] - 0.4), -2 * (rows[:, 3] - 0.7)], axis=1)
    return score(rows), np.nan_to_num(gradient)


def whole(rows: Floats) -> None:
    for row in rows:
        point, _ = AXES.point(row)
        assert SPACE.contains(point) is None
        assert np.array_equal(AXES.row(SPACE.flatten(point)), row, equal_nan=True)


def test_steps_stay_in_the_space() -> None:
    search = Search(AXES, np.random.default_rng(0))
    rows = search.random(200)
    whole(rows)
    near = search.around(rows[:20], 10, 0.1)
    whole(near)
    assert (near != np.repeat(rows[:20], 10, axis=0)).any(axis=1).mean() > 0.8  # nan != nan, too
    assert np.isfinite(near[:, 3]).any() and np.isnan(near[:, 3]).any()


def test_it_finds_the_top() -> None:
    search = Search(AXES, np.random.default_rng(0))
    found, values = search.best(score, slopes, search.random(5), np.full(3, 0.3), 100, 4)
    assert (np.diff(values) <= 0).all()
    assert np.allclose(found[0, [0, 3]], [0.2, 0.7], atol=1e-3)
    assert found[0, 1] == 3.5 / 8 and found[0, 2] == 0 and found[0, 4] == 1
    whole(found[:20])


def test_climbers_lose_nothing() -> None:
    search = Search(AXES, np.random.default_rng(0))
    rows = search.random(30)
    rows[:, 1] = 3.5 / 8  # so that no snapping hides it
    before = score(rows)
    after = score(search.climb(rows, slopes, np.array([0.3, 0.3, 0.3])))
    assert (after >= before - 1e-12).all()
    branch = rows[:, 2] == 0
    assert np.allclose(search.climb(rows, slopes, np.full(3, 0.3))[branch, 3], 0.7, atol=1e-4)


def test_a_box_is_kept_and_few_parameters_change() -> None:
    space = parse({f"p{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(100)})
    axes = Axes(space)
    centre = np.full(100, 0.4)
    box = Box(np.full(100, 0.3), np.full(100, 0.5))
    search = Search(axes, np.random.default_rng(0), box, centre)
    rows = search.random(500)
    assert rows.min() >= 0.3 and rows.max() <= 0.5
    assert 15 < (rows != 0.4).sum(axis=1).mean() < 25
    near = search.around(rows[:50], 4, 0.3)
    assert near.min() >= 0.3 and near.max() <= 0.5
    climbed = search.climb(rows[:5], lambda r: (r.sum(axis=1), np.ones_like(r)), np.ones(100))
    assert np.allclose(climbed, 0.5)


def test_only_what_is_allowed() -> None:
    search = Search(AXES, np.random.default_rng(0))
    drawn = search.random(400)
    drawn = drawn[drawn[:, 0] > 0.5]
    found, _ = search.best(score, slopes, drawn[:3], np.full(3, 0.3), 10, 4, lambda rows: rows[:, 0] > 0.5, drawn)
    assert (found[:, 0] > 0.5).all() and 0.5 < found[0, 0] < 0.55
