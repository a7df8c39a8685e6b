"""Batch: the listed configurations in order, unwrapped, each once."""

from __future__ import annotations

from typing import Any

from tune.engine.plugins import Ask, Exhausted, Imported, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.batch import Batch


def listed(*values: Any) -> dict[str, Any]:
    return {"combination": {"_type": "choice", "_value": list(values)}}


def answers(tuner: Batch, raw: dict[str, Any]) -> list[Any]:
    space, found = parse(raw), []
    for number in range(20):
        answer = tuner.suggest(Ask(number, 0, number, "t", 0, space, 0, 0))
        if isinstance(answer, Exhausted):
            return found
        assert isinstance(answer, Suggestion)
        assert Batch.contains(space, answer.parameters) is None
        found.append(dict(answer.parameters))
        tuner.observe(Suggested(number, number, 0, found[-1], ask=number))
    raise AssertionError("it never ends")


def test_the_inner_objects_in_their_order() -> None:
    values = [{"lr": 0.1, "deep": [1, {"a": None}]}, {"lr": 0.01}, {}]
    assert answers(Batch(), listed(*values)) == values


def test_listed_twice_is_tried_twice_and_strangers_count() -> None:
    tuner = Batch()
    tuner.observe(Imported(0, {"lr": 2}, 1.0))
    tuner.observe(Imported(1, {"other": 2}, 1.0))
    assert answers(tuner, listed({"lr": 1}, {"lr": 2}, {"lr": 1}, {"lr": 2}, {"lr": 3})) == [
        {"lr": 1},
        {"lr": 1},
        {"lr": 2},
        {"lr": 3},
    ]


def test_what_it_refuses() -> None:
    wrong = [
        {},
        {**listed({"a": 1}), "x": {"_type": "uniform", "_value": [0, 1]}},
        {"x": {"_type": "uniform", "_value": [0, 1]}},
        listed({"a": 1}, 2),
        listed({"_name": "a", "x": {"_type": "uniform", "_value": [0, 1]}}),
    ]
    assert all(Batch.refuse(parse(raw)) for raw in wrong)
    assert "2 is none" in str(Batch.refuse(parse(wrong[3])))
    assert Batch.refuse(parse(listed({"a": 1}))) is None
    assert Batch.contains(parse(listed({"a": 1})), {"a": 2}) is not None
