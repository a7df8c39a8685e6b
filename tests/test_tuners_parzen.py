"""The Parzen estimators: densities that integrate to one, samples that follow them, widths and conditionals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tune.engine.space import parse
from tune.tuners._parzen import Axes, Density, normal_cdf

NAN = math.nan


def axes(**raw: Any) -> Axes:
    return Axes(parse({name: {"_type": kind, "_value": list(values)} for name, (kind, *values) in raw.items()}))


def test_the_normal_table() -> None:
    z = np.linspace(-9, 9, 1000)
    exact = [0.5 * math.erfc(-x / math.sqrt(2)) for x in z]
    assert np.abs(normal_cdf(z) - exact).max() < 2e-6


def test_a_density_integrates_to_one() -> None:
    two = axes(x=("uniform", 0, 1), c=("choice", "a", "b", "c"))
    rows = np.array([[0.1, 0.0], [0.15, 2.0], [0.9, 2.0]])
    density = Density(two, rows, np.array([1.0, 2.0, 1.0]), 1.0)
    x = (np.arange(2000) + 0.5) / 2000
    total = sum(np.exp(density.log(np.column_stack([x, np.full(2000, float(c))]))).mean() for c in range(3))
    assert abs(total - 1.0) < 2e-3


def test_it_is_the_sum_of_products_of_truncated_normals() -> None:
    one = axes(x=("uniform", 0, 1))
    density = Density(one, np.array([[0.2], [0.3]]), np.ones(2), 1.0)
    kernels = [
        (0.2, 0.25),
        (0.3, 0.2),
    ]  # the larger gap to a neighbour, from 1 / (kernels + 1); the prior is one at 0.5
    kernels = [(mu, max(1 / 3, width)) for mu, width in kernels]

    def phi(z: float) -> float:
        return 0.5 * math.erfc(-z / math.sqrt(2))

    for x in (0.05, 0.25, 0.9):
        expected = 1.0
        for mu, s in kernels:
            height = math.exp(-0.5 * ((x - mu) / s) ** 2) / (s * math.sqrt(2 * math.pi))
            expected += height / (phi((1 - mu) / s) - phi(-mu / s))
        assert abs(float(density.log(np.array([[x]]))[0]) - math.log(expected / 3)) < 2e-3


def test_samples_follow_the_density() -> None:
    two = axes(x=("uniform", 0, 1), c=("choice", "a", "b", "c"))
    density = Density(two, np.array([[0.1, 2.0], [0.12, 2.0], [0.14, 2.0]]), np.ones(3), 0.1)
    rows = density.sample(np.random.default_rng(0), 4000)
    assert rows[:, 0].min() >= 0.0 and rows[:, 0].max() <= 1.0
    inside = float(np.mean(rows[:, 0] < 0.3))
    x = (np.arange(3000) + 0.5) / 10000
    expected = sum(np.exp(density.log(np.column_stack([x, np.full(3000, float(c))]))).mean() * 0.3 for c in range(3))
    assert abs(inside - expected) < 0.03
    same = 1 / 1.15 + 0.05 / 1.15  # a blur of 2 x 0.1 / 4
    assert abs(float(np.mean(rows[:, 1] == 2.0)) - (3 * same + 0.1 / 3) / 3.1) < 0.02


def test_candidates_lie_in_the_centres_of_cells() -> None:
    one = axes(n=("randint", 0, 4), q=("qloguniform", 1, 8, 1), z=("qnormal", 0, 1, 1))
    rows = Density(one, np.full((1, 3), 0.5), np.ones(1), 1.0).sample(np.random.default_rng(1), 300)
    assert set(rows[:, 0]) == {0.125, 0.375, 0.625, 0.875}
    param = one.space.params[1]
    assert set(rows[:, 1]) <= {param.to_unit(float(v)) for v in range(1, 9)}
    for row in rows[:50]:
        point, cells = one.point(row)
        assert one.space.contains(point) is None and one.space.cells(point) == cells


def test_what_is_inactive_has_its_prior() -> None:
    tree = Axes(
        parse(
            {
                "k": {
                    "_type": "choice",
                    "_value": [
                        {"_name": "a", "x": {"_type": "uniform", "_value": [0, 1]}},
                        {"_name": "b", "c": {"_type": "choice", "_value": [1, 2]}},
                    ],
                }
            }
        )
    )
    rows = np.array([[0.0, 0.3, NAN], [1.0, NAN, 1.0]])
    density = Density(tree, rows, np.ones(2), 1.0)
    x = (np.arange(1000) + 0.5) / 1000
    a = np.exp(density.log(np.column_stack([np.zeros(1000), x, np.full(1000, NAN)]))).mean()
    b = np.exp(density.log(np.array([[1.0, NAN, 0.0], [1.0, NAN, 1.0]]))).sum()
    assert abs(a + b - 1.0) < 2e-3
    drawn = density.sample(np.random.default_rng(0), 200)
    assert np.isnan(drawn[drawn[:, 0] == 0.0, 2]).all() and not np.isnan(drawn[drawn[:, 0] == 0.0, 1]).any()
    assert np.isnan(drawn[drawn[:, 0] == 1.0, 1]).all() and not np.isnan(drawn[drawn[:, 0] == 1.0, 2]).any()
    for row in drawn[:50]:
        point, cells = tree.point(row)
        assert tree.space.contains(point) is None and tree.space.cells(point) == cells
        again = np.array(tree.row(tree.space.flatten(point)))
        assert np.allclose(again, row, equal_nan=True)


def test_branches_are_the_values_of_nested_choices() -> None:
    inner = {"_type": "choice", "_value": [{"_name": "u"}, {"_name": "v", "n": {"_type": "randint", "_value": [0, 9]}}]}
    raw = {
        "x": {"_type": "uniform", "_value": [0, 1]},
        "k": {"_type": "choice", "_value": [{"_name": "one", "in": inner}, {"_name": "two"}]},
    }
    space = parse(raw)
    tree = Axes(space)
    cells = space.cells({"x": 0.5, "k": {"_name": "one", "in": {"_name": "v", "n": 3}}})
    other = space.cells({"x": 0.5, "k": {"_name": "two"}})
    assert cells is not None and other is not None
    assert tree.branch(cells) == (0, 1) and tree.branch(other) == (1, -1)
    assert tree.named((0, 1)) == "k=one, k/one/in=v"
    assert tree.fixed((1, -1)) == {1: 1}
    rows = np.array([tree.row(space.flatten({"x": 0.2, "k": {"_name": "two"}}))])
    drawn = Density(tree, rows, np.ones(1), 1.0).sample(np.random.default_rng(0), 50, tree.fixed((0, 1)))
    found = [tree.point(row)[0] for row in drawn]
    assert all(p["k"]["_name"] == "one" and p["k"]["in"]["_name"] == "v" for p in found)
    assert len({p["k"]["in"]["n"] for p in found}) > 5
    assert axes(x=("uniform", 0, 1)).branch((0.5,)) == ()
