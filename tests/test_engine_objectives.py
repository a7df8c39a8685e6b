"""engine/objectives.py: what a result counts as, by how much it fails, and which results make the Pareto front."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.engine.config import Config
from tune.engine.constraints import ABSENT
from tune.engine.objectives import Judged, is_better, judge, step, with_result
from tune.engine.state import Ranked

NOTHING = Judged(None, [], 0.0)
TWO = {"accuracy": "maximize", "latency": "minimize"}


def settings(**fields: Any) -> Config:
    return Config(search_space={}, trial_command="true", trial_code_directory="/tmp", **fields)


def judged(text: str, **fields: Any) -> Judged:
    return judge(settings(**fields), text.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", Judged(0.5, [], 0.0)),
        ('{"default":2,"loss":1}', Judged(2.0, [], 0.0)),
        ('"NaN"', NOTHING),
        ('{"loss":1}', NOTHING),
        ("[1]", NOTHING),
        ("true", NOTHING),
        ("1e999", NOTHING),
    ],
)
def test_one_objective_is_a_number_or_default(text: str, expected: Judged) -> None:
    assert judged(text) == expected
    assert judged(text, outcome_constraints=["default < 100"]) == expected


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ('{"default":1,"latency":10}', 0.0),
        ('{"default":1,"latency":12.5}', 2.5),
        ('{"default":9,"latency":12.5}', 6.5),  # both fail: the sum
        ('{"default":1,"latency":"Infinity"}', ABSENT),
        ('{"default":1,"latency":"NaN"}', ABSENT),
        ('{"default":1,"latency":"fast"}', ABSENT),
        ('{"default":1}', ABSENT),
        ("1", ABSENT),
        ('{"default":9}', ABSENT),  # ABSENT and more is still ABSENT
    ],
)
def test_outcome_constraints_say_by_how_much_a_result_fails(text: str, violation: float) -> None:
    found = judged(text, outcome_constraints=["latency <= 10", "default <= 5"])
    assert found.value is not None and found.violation == violation


def test_a_plain_number_is_default_for_outcome_constraints_too() -> None:
    assert judged("7", outcome_constraints=["default <= 5"]) == Judged(7.0, [], 2.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"accuracy":0.5,"latency":3,"note":"x"}', Judged(0.5, [0.5, 3.0], 0.0)),
        ('{"latency":3,"accuracy":0.5}', Judged(0.5, [0.5, 3.0], 0.0)),
        ('{"accuracy":0.5}', NOTHING),
        ('{"accuracy":0.5,"latency":"NaN"}', NOTHING),
        ('{"accuracy":"-Infinity","latency":3}', NOTHING),
        ('{"accuracy":true,"latency":3}', NOTHING),
        ("0.5", NOTHING),
    ],
)
def test_of_several_objectives_each_has_to_be_finite(text: str, expected: Judged) -> None:
    assert judged(text, objectives=TWO) == expected


def test_objectives_and_outcome_constraints_together() -> None:
    found = judged('{"accuracy":0.5,"latency":3,"memory":8}', objectives=TWO, outcome_constraints=["memory <= 4"])
    assert found == Judged(0.5, [0.5, 3.0], 4.0)


@pytest.mark.parametrize(
    ("text", "alone", "several"),
    [
        ("0.5", 0.5, 0.5),
        ('{"default":1,"accuracy":2}', 1.0, 2.0),
        ('{"default":1}', 1.0, 1.0),
        ('{"accuracy":2}', None, 2.0),
        ('{"latency":2}', None, None),
    ],
)
def test_an_intermediate_counts_for_the_first_objective(text: str, alone: float | None, several: float | None) -> None:
    assert step(settings(), text.encode()) == alone
    assert step(settings(objectives=TWO), text.encode()) == several


def test_better_is_strict_and_knows_its_direction() -> None:
    assert is_better(settings(), 2.0, 1.0) and not is_better(settings(), 1.0, 1.0)
    assert is_better(settings(optimize_mode="minimize"), 1.0, 2.0)
    assert not is_better(settings(optimize_mode="minimize"), 1.0, 1.0)


# -- the front --------------------------------------------------------------------------------------------------------
def front_of(*results: Ranked) -> list[Ranked]:
    front: list[Ranked] = []
    for one in results:
        front = with_result(settings(objectives=TWO), front, one)
    return front


def ranked(trial: int, accuracy: float, latency: float, violation: float = 0.0) -> Ranked:
    return Ranked(trial, 0, [accuracy, latency], violation)


def test_a_front_holds_what_nothing_beats() -> None:
    a, b, c = ranked(0, 0.5, 3), ranked(1, 0.6, 4), ranked(2, 0.6, 3)
    assert front_of(a, b) == [a, b]
    assert front_of(a, b, c) == [c]
    assert front_of(c, a, b) == [c]


def test_of_equal_results_the_first_stays() -> None:
    assert front_of(*(ranked(number, 0.5, 3) for number in range(5))) == [ranked(0, 0.5, 3)]


def test_an_infeasible_result_stays_only_while_there_is_no_feasible_one() -> None:
    far, near, good = ranked(0, 0.9, 1, 5.0), ranked(1, 0.1, 9, 2.0), ranked(2, 0.0, 10)
    assert front_of(far) == [far]
    assert front_of(far, near) == front_of(near, far) == [near]
    assert front_of(far, near, good) == front_of(good, far, near) == [good]
    assert front_of(near, ranked(3, 0.2, 10, 2.0)) == [near, ranked(3, 0.2, 10, 2.0)]


numbers = st.integers(-3, 3).map(float)
results = st.lists(st.tuples(numbers, numbers, st.sampled_from([0.0, 0.0, 1.0, 2.0])), max_size=12)


def beats(one: Ranked, other: Ranked) -> bool:
    """Written anew, from the definition."""
    if one.violation != other.violation:
        return one.violation < other.violation
    a, b = (one.values[0], -one.values[1]), (other.values[0], -other.values[1])
    return a != b and a[0] >= b[0] and a[1] >= b[1]


@given(results)
def test_the_front_is_that_of_the_definition_in_any_order(drawn: list[tuple[float, float, float]]) -> None:
    everything = [ranked(number, *one) for number, one in enumerate(drawn)]
    expected = {(*one.values, one.violation) for one in everything if not any(beats(x, one) for x in everything)}
    for order in itertools.islice(itertools.permutations(everything), 6):
        found = front_of(*order)
        assert {(*one.values, one.violation) for one in found} == expected
        assert len(found) == len(expected)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5) | st.just({"a": 1}))
def test_any_json_is_judged(value: Any) -> None:
    text = json.dumps(value).replace("NaN", '"NaN"').replace("-Infinity", '"-Infinity"').encode()
    for fields in ({}, {"objectives": TWO}, {"outcome_constraints": ["a / default > 1"]}):
        found = judge(settings(**fields), text)
        assert found.value is None or math.isfinite(found.value)
        assert 0.0 <= found.violation <= ABSENT
