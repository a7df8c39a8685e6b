"""What a tuner remembers: points, their ends, and which are taken in which space."""

from __future__ import annotations

from typing import Any

import pytest

from tune.engine.plugins import Ended, Imported, Suggested
from tune.engine.space import parse
from tune.tuners._history import History, Taken


def space(low: float, high: float) -> Any:
    return parse({"x": {"_type": "uniform", "_value": [low, high]}})


@pytest.mark.parametrize(
    ("outcome", "value", "state", "kept"),
    [
        ("completed", 2, "completed", 2.0),
        ("completed", float("nan"), "failed", None),
        ("completed", None, "failed", None),
        ("stopped", 1.5, "stopped", 1.5),
        ("stopped", None, "stopped", None),
        ("failed", None, "failed", None),
        ("cancelled", 1.0, "cancelled", None),
    ],
)
def test_ends(outcome: Any, value: Any, state: str, kept: float | None) -> None:
    history = History()
    history.observe(Suggested(0, 3, 1, {"x": 1}))
    history.observe(Ended(1, 3, 0, "completed", 1.0))  # another phase
    assert history.points[0].state == "pending" and history.ended == []
    history.observe(Ended(1, 3, 1, outcome, value))
    history.observe(Ended(2, 3, 1, "completed", 7.0))
    assert (history.points[0].state, history.points[0].value, history.ended) == (state, kept, [0])


def test_several_objectives_and_violations_are_kept() -> None:
    history = History()
    history.observe(Suggested(0, 0, 0, {"x": 1}))
    history.observe(Ended(1, 0, 0, "completed", 1.0, [1.0, 2.0], 0.5))
    history.observe(Imported(2, {"x": 2}, 3.0, [3.0, 4.0], 1.5))
    history.observe(Imported(3, {"x": 3}, None))
    assert [(one.values, one.violation) for one in history.points] == [([1.0, 2.0], 0.5), ([3.0, 4.0], 1.5), ([], 0.0)]


def test_taken_follows_the_space() -> None:
    history = History()
    taken = Taken(history)
    history.observe(Suggested(0, 0, 0, {"x": 1.0, "TRIAL_BUDGET": 4}))
    history.observe(Imported(1, {"x": 3}, None))
    assert history.points[1].state == "failed"
    assert taken.sync(space(0, 2)) is True
    assert {"x": 1.0} in taken and {"x": 1} in taken
    assert len(taken.cells) == 1
    assert taken.sync(space(0, 2)) is False  # an equal one
    assert taken.sync(space(2, 4)) is True
    assert {"x": 3.0} in taken and len(taken.cells) == 1
