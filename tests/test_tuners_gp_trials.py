"""Trials of a space as arrays: what ended how, what runs, what was left out."""

from __future__ import annotations

import math

import numpy as np

from tune.engine.plugins import Ended, Imported, Suggested
from tune.engine.space import parse
from tune.tuners._gp_trials import Trials
from tune.tuners._history import History

RAW = {"x": {"_type": "uniform", "_value": [0, 4]}, "c": {"_type": "choice", "_value": ["a", "b"]}}


def test_every_kind_of_end() -> None:
    space, history = parse(RAW), History()
    trials = Trials(space, -1.0)
    for n in range(6):
        history.observe(Suggested(n, n, 0, {"x": n / 2, "c": "b"}))
    history.observe(Ended(6, 1, 0, "completed", 5.0, violation=0.5))
    history.observe(Ended(7, 0, 0, "failed", None))
    history.observe(Ended(8, 2, 0, "cancelled", None))
    history.observe(Ended(9, 3, 0, "stopped", 2.0))
    history.observe(Imported(10, {"x": 4.0, "c": "a"}, 7.0))
    history.observe(Imported(11, {"x": 40.0, "c": "a"}, 7.0))  # not of this space
    trials.sync(history)
    trials.sync(history)
    assert np.array_equal(trials.losses, [-5.0, math.nan, -2.0, -7.0], equal_nan=True)
    assert trials.violations == [0.5, 0.0, 0.0, 0.0]
    assert trials.known == 3 and trials.count == 7 and len(trials.taken) == 7
    assert trials.rows([0, 3])[:, 0].tolist() == [0.125, 1.0]
    assert trials.running()[:, 0].tolist() == [0.5, 0.625]
    assert trials.rows([0])[0, 1] == 1.0


def test_it_grows() -> None:
    space, history = parse(RAW), History()
    trials = Trials(space, 1.0)
    for n in range(200):
        history.observe(Imported(n, {"x": n / 50, "c": "a"}, float(n)))
    trials.sync(history)
    assert trials.placed()[:, 0].tolist() == [n / 200 for n in range(200)]
    assert trials.serves(parse(RAW)) and not trials.serves(parse(RAW, ["x > 1"]))
