"""The chain of fits: it depends on the number of results alone, and keeps the warp that predicts best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Imported
from tune.engine.space import parse
from tune.tuners import _gp_chain
from tune.tuners._gp_chain import FULL, Chain, chosen
from tune.tuners._gp_model import Kernel
from tune.tuners._gp_surrogate import _Losses
from tune.tuners._gp_trials import Trials
from tune.tuners._history import History

SPACE = parse({name: {"_type": "uniform", "_value": [0, 1]} for name in "xy"})


def trials(count: int, loss: Any) -> Trials:
    history, draw = History(), np.random.default_rng(0)
    for n in range(count):
        point = {"x": draw.random(), "y": draw.random()}
        history.observe(Imported(n, point, loss(point)))
    found = Trials(SPACE, 1.0)
    found.sync(history)
    return found


def bowl(p: Any) -> float:
    return (p["x"] - 0.3) ** 2 + 0.2 * (p["y"] - 0.6) ** 2


def same(a: Any, b: Any) -> bool:
    return a.warp == b.warp and a.theta.log_lengths.tolist() == b.theta.log_lengths.tolist()


def test_it_does_not_matter_which_asks_came_before() -> None:
    known = trials(44, bowl)
    steady = Chain(known, _Losses(known), Kernel(), 25)
    records = {count: steady.at(count) for count in range(25, 45)}
    assert len({id(one) for one in records.values()}) < 20  # not every result is a fit
    for count in (25, 31, 38, 44):
        fresh = Chain(known, _Losses(known), Kernel(), 5)
        assert same(fresh.at(count), records[count])
    back = steady.at(27)  # an earlier count again
    assert same(back, records[27])
    longer = trials(70, bowl)  # later results change nothing about earlier fits
    assert same(Chain(longer, _Losses(longer), Kernel(), 25).at(38), records[38])


def test_a_rebuild_makes_at_most_four_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    original = _gp_chain.fit

    def counting(columns: Any, features: Any, *rest: Any) -> Any:
        counts.append(len(features))
        return original(columns, features, *rest)

    monkeypatch.setattr(_gp_chain, "fit", counting)
    known = trials(80, bowl)
    Chain(known, _Losses(known), Kernel(), 5).at(80)
    assert 1 <= len(set(counts)) <= FULL and min(counts) > 60


def test_wild_losses_are_warped() -> None:
    known = trials(60, lambda p: 10.0 ** (8 * bowl(p)) if p["x"] < 0.8 else 1e9)
    assert Chain(known, _Losses(known), Kernel(), 5).at(60).warp != "plain"


def test_which_results_a_large_model_is_made_of() -> None:
    draw = np.random.default_rng(0)
    rows, targets = draw.random((1000, 3)), draw.random(1000)
    places = chosen(targets, rows, 300)
    assert len(places) == 300 and (np.diff(places) > 0).all()
    order = np.argsort(targets)
    assert set(order[:100].tolist()) <= set(places.tolist())
    near = np.argsort(((rows - rows[order[0]]) ** 2).sum(axis=1))[:60]
    assert len(set(near.tolist()) - set(places.tolist())) < 5
    assert set(range(960, 1000)) <= set(places.tolist())
    assert (places < 500).sum() > 80
    assert chosen(targets[:300], rows[:300], 300).tolist() == list(range(300))


def test_failures_are_the_worst() -> None:
    known = trials(30, lambda p: None if p["x"] > 0.5 else bowl(p))
    posterior, _, places = Chain(known, _Losses(known), Kernel(), 5).posterior(30)
    losses = np.array(known.losses)[places]
    failed = np.isnan(losses)
    assert failed.any() and math.isfinite(posterior.means.sum())
    assert posterior.means[failed].mean() > posterior.means[~failed].mean() + 0.5
