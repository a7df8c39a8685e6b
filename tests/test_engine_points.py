"""engine/points.py: which parameters of people's an experiment can take."""

from __future__ import annotations

from typing import Any

import pytest

from tune.engine.config import Algorithm, Config
from tune.engine.errors import UsageError
from tune.engine.points import gate, read, space_of, unmet
from tune.engine.space import parse

SPACE = {"a": {"_type": "uniform", "_value": [0, 1]}, "b": {"_type": "randint", "_value": [0, 10]}}
MINE = Algorithm(class_name="mine.Tuner", code_directory="/tmp")


def settings(tuner: Algorithm | str = "Random", space: Any = SPACE, *constraints: str) -> Config:
    chosen = Algorithm(name=tuner) if isinstance(tuner, str) else tuner
    return Config(
        search_space=space, trial_command="x", trial_code_directory="/", tuner=chosen, constraints=list(constraints)
    )


def test_a_point_of_the_space_is_taken() -> None:
    why_not = gate(settings("Random", SPACE, "a * b < 4"))
    assert why_not({"a": 0.5, "b": 3}) is None
    assert why_not({"a": 0.5, "b": 3, "TRIAL_BUDGET": 9}) is None
    assert why_not({"a": 0.5, "b": 9}) == "the constraint 'a * b < 4' is not met"
    assert why_not({"a": 2, "b": 3}) == "a: 2.0 is not in 0.0 <= x <= 1.0"
    assert why_not({"a": 0.5}) == "b: missing"
    assert why_not({"a": 0.5, "b": 1, "c": 1}) is not None


def test_a_users_tuner_takes_what_meets_the_constraints() -> None:
    assert gate(settings(MINE, {"any": [1, 2]}))({"thing": 7}) is None
    why_not = gate(settings(MINE, SPACE, "a < 0.5"))
    assert why_not({"a": 7, "new": 1}) == "the constraint 'a < 0.5' is not met"
    assert why_not({"a": 0.25, "new": 1}) is None
    with pytest.raises(UsageError, match="search_space"):
        gate(settings(MINE, {"any": [1, 2]}, "any < 1"))


def test_batch_takes_what_it_lists() -> None:
    space = {"combine": {"_type": "choice", "_value": [{"lr": 1}, {"lr": 2}]}}
    why_not = gate(settings("Batch", space))
    assert why_not({"lr": 2}) is None and why_not({"lr": 2, "TRIAL_BUDGET": 1}) is None
    assert why_not({"combine": {"lr": 2}}) is not None


def test_a_space_in_the_users_own_words_is_none() -> None:
    assert space_of(settings(MINE, {"any": [1, 2]})) is None
    found = space_of(settings("Random", SPACE, "a < 1"))
    assert found is not None and len(found.constraints) == 1
    with pytest.raises(UsageError, match="search_space: any"):
        space_of(settings("Random", {"any": [1, 2]}))


def test_constraints_that_nothing_meets_are_named() -> None:
    assert unmet(parse(SPACE, ["a * b < 4"])) is None
    alone = unmet(parse(SPACE, ["a < 2", "b > 10"]))
    assert alone is not None and "'b > 10' is met by none of them even alone" in alone
    together = unmet(parse(SPACE, ["b > 5", "b < 5"]))
    assert together is not None and "alone" not in together
    assert together == unmet(parse(SPACE, ["b > 5", "b < 5"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"lr": 0.1}', ['{"lr":0.1}']),
        ('[{"lr": 1}, {}]', ['{"lr":1}', "{}"]),
        ('{"lr": NaN}', ['{"lr":"NaN"}']),
    ],
)
def test_parameters_are_an_object_or_a_list_of_them(text: str, expected: list[str]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("lr=0.1", "this is not JSON"),
        ("[1]", "found 1; allowed: an object of parameters"),
        ("3", "found 3"),
        ("[]", "found an empty list"),
        ('{"lr": 99999999999999999999}', "an integer of 67 bits"),
        ("[" * 100_000, "nested"),
    ],
)
def test_what_is_no_parameters(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read(text)
