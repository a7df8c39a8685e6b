"""Genes: a point taken apart and put together is the same point; the results of a space in the order of their ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune.engine.plugins import Ended, Imported, Suggested
from tune.engine.space import parse
from tune.tuners._genes import Genome, Results, other, parents, prior, reflected
from tune.tuners._history import History

RAW = {
    "x": {"_type": "uniform", "_value": [-5, 5]},
    "n": {"_type": "randint", "_value": [0, 7]},
    "q": {"_type": "quniform", "_value": [0, 1, 0.25]},
    "k": {
        "_type": "choice",
        "_value": [{"_name": "a", "lr": {"_type": "loguniform", "_value": [1e-4, 1]}}, {"_name": "b"}],
    },
    "c": {"_type": "choice", "_value": ["u", "v", [1]]},
}
SPACE = parse(RAW)


def test_genes_are_the_point() -> None:
    genome, draw = Genome(SPACE), np.random.default_rng(0)
    for _ in range(200):
        point = SPACE.sample(draw.random)
        genes, cells = genome.read(SPACE.flatten(point))
        assert cells == SPACE.cells(point)
        assert all(g >= 0 for g in genes if g == g)
        assert math.isnan(genes[SPACE.by_key["k/a/lr"].index]) is (point["k"]["_name"] == "b")
        again, same = genome.write(lambda param, genes=genes: genes[param.index])  # type: ignore[misc]
        assert same == SPACE.cells(again)
        assert [a for a in same if type(a) is int] == [a for a in cells if type(a) is int]
        assert [a for a in same if type(a) is float] == pytest.approx([a for a in cells if type(a) is float])


def test_results_come_in_the_order_of_the_ends_with_signs_and_violations() -> None:
    history, draw = History(), np.random.default_rng(0)
    results = Results(SPACE, -1.0)
    points = [SPACE.sample(draw.random) for _ in range(5)]
    for trial, point in enumerate(points):
        history.observe(Suggested(0, trial, 0, point))
    history.observe(Suggested(0, 99, 0, {"of": "another space"}))
    assert results.sync(history) == [] and len(results.members) == len(results.running) == 5
    history.observe(Ended(0, 3, 0, "completed", 2.0))
    history.observe(Ended(0, 99, 0, "completed", 9.0))
    history.observe(Ended(0, 1, 0, "failed"))
    history.observe(Ended(0, 0, 0, "completed", 1.0, [1.0, 4.0], 0.5))
    history.observe(Imported(0, SPACE.sample(draw.random), 3.0))
    ended = results.sync(history)
    assert [one.number for one in ended] == [3, 1, 0, 5]
    assert [one.trial for one in ended] == [3, 1, 0, None]
    assert [one.order for one in ended] == [(0.0, -2.0), None, (0.5, -1.0), (0.0, -3.0)]
    assert ended[2].values == [1.0, 4.0]
    assert [one.number for one in results.running] == [2, 4]
    assert parents(ended[0], ended[3], ended[0]) == (3,)
    assert results.sync(history) == []
    assert results.serves(parse(RAW)) and not results.serves(parse({**RAW, "y": RAW["x"]}))


def test_a_child_is_new_and_meets_the_constraints() -> None:
    space = parse({"n": {"_type": "randint", "_value": [0, 6]}}, ["n != 3"])
    history, results = History(), Results(space, 1.0)
    for trial, n in enumerate([0, 1, 2]):
        history.observe(Suggested(0, trial, 0, {"n": n}))
    results.sync(history)
    places = iter([0.1, 0.3, 0.6, 0.9])
    assert results.breed(lambda: lambda _: next(places)) == {"n": 5}  # 0 and 1 are taken, 3 is not allowed
    assert results.breed(lambda: lambda _: 0.1) is None
    assert results.random(np.random.default_rng(0))["n"] in (4, 5)


def test_draws() -> None:
    draw, param = np.random.default_rng(0), SPACE.by_key["c"]
    assert {other(param, 1.0, draw) for _ in range(50)} == {0.0, 2.0}
    assert {prior(param, draw) for _ in range(50)} == {0.0, 1.0, 2.0}
    assert other(parse({"c": {"_type": "choice", "_value": [1]}}).params[0], 0.0, draw) == 0.0
    assert [round(reflected(x), 9) for x in (0.25, -0.25, 1.25, 2.25, -3.5)] == [0.25, 0.25, 0.75, 0.25, 0.5]
