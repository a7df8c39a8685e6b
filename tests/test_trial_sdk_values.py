"""Values: one JSON text for everything that JSON can hold, a ValueError for the rest, and the number in it."""

from __future__ import annotations

import json
import math
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.trial_sdk import values

leaves = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text()
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def written(value):
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [written(item) for item in value]
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    return value


@given(trees)
def test_standard_json_says_the_same(value):
    assert json.loads(values.encode(value), parse_constant=pytest.fail) == written(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_bit_for_bit(value):
    assert values.number(values.encode(value)) == value
    assert math.copysign(1, values.number(values.encode(value)) or 0.0) == math.copysign(1, value) or value == 0


class Colour(IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Infinity"'),
        ({"default": float("inf"), "x": [1, (2, None)]}, '{"default":"Infinity","x":[1,[2,null]]}'),
        (np.float64(0.5), "0.5"),
        (np.float32(0.5), "0.5"),
        (np.float64("nan"), '"NaN"'),
        (np.int64(7), "7"),
        (np.uint64((1 << 64) - 1), "18446744073709551615"),
        (np.bool_(True), "true"),
        (np.str_("a"), '"a"'),
        (np.longdouble(0.25), "0.25"),
        (np.array(3.5), "3.5"),
        (np.array([3.5]), "3.5"),
        (Colour.RED, "3"),
        (True, "true"),
        ({1: 2}, '{"1":2}'),
    ],
)
def test_what_counts_as_json(value, text):
    assert values.encode(value) == text


def circle():
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1 << 64, "64 bits"),
        (-(1 << 63) - 1, "64 bits"),
        (1 << 10_000, "64 bits"),
        ({"a": [1 << 64]}, "64 bits"),
        ("x" * (1 << 20), "limit"),
        ("\ud800", "Unicode"),
        (object(), "object"),
        (1j, "complex"),
        ({1.5: 1}, "key"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (np.array([1.0, 2.0]), "not one number"),
        (np.complex128(1j), "complex"),
        (circle(), "deeper"),
    ],
)
def test_what_does_not(value, word):
    with pytest.raises(ValueError, match=word):
        values.encode(value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0),
        (b"-2.5e3", -2500.0),
        ('{"default":3,"loss":1}', 3.0),
        ('{"default":"Infinity"}', math.inf),
        ('"-Infinity"', -math.inf),
        ("true", None),
        ('{"default":true}', None),
        ('{"default":{"default":1}}', None),
        ('{"loss":1}', None),
        ('"1"', None),
        ("null", None),
        ("[1]", None),
        ("", None),
        ("NaN", None),
        (b"\xff", None),
        ("[" * 100_000, None),
        ("1" + "0" * 400, None),
    ],
)
def test_what_a_metric_counts_as(text, number):
    assert values.number(text) == number


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.5", {"default": 0.5}),
        ('{"a":1,"b":-2.5,"c":"x","d":true,"e":null,"f":[1],"g":"Infinity"}', {"a": 1.0, "b": -2.5, "g": math.inf}),
        ('{"default":1}', {"default": 1.0}),
        ("{}", {}),
        ('"fast"', {}),
        ("[1]", {}),
        ("no JSON", {}),
    ],
)
def test_the_numbers_of_a_metric_by_key(text, numbers):
    assert values.numbers(text) == numbers


def test_nan_is_a_number_that_is_not_finite():
    assert math.isnan(values.number('"NaN"') or 0.0)


@given(st.binary(max_size=50))
def test_number_takes_anything(data):
    assert values.number(data) == values.numbers(data).get("default")
