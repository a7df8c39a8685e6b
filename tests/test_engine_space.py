"""The search space: exact values and bounds, the way to the unit cube and back, and every fault by name."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.engine.space import Param, Space, SpaceError, parse


def spec(kind: str, *values: Any) -> dict[str, Any]:
    return {"_type": kind, "_value": list(values)}


def one(kind: str, *values: Any) -> Param:
    return parse({"x": spec(kind, *values)}).params[0]


def drawn(param: Param, count: int = 2000) -> list[Any]:
    return [param.from_unit((i + 0.5) / count) for i in range(count)]


NESTED = {
    "a/b": spec("randint", 0, 3),
    "opt": spec(
        "choice",
        {
            "_name": "sgd",
            "lr": spec("loguniform", 1e-3, 1),
            "m": spec("choice", {"_name": "no"}, {"_name": "yes", "v": spec("choice", 1, 2)}),
        },
        {"_name": "none"},
    ),
}


# -- exact values -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("randint", (2, 5), [2, 3, 4]),
        ("randint", (-1, 0), [-1]),
        ("quniform", (2, 10, 5), [2.0, 5.0, 10.0]),
        ("quniform", (-5.5, -0.5, 6), [-5.5, -0.5]),
        ("quniform", (0, 1, 0.25), [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("quniform", (2, 3, 10), [2.0]),
        ("quniform", (0.1, 0.5, 0.1), [0.1, 0.2, 0.1 * 3, 0.4, 0.5]),
        ("qloguniform", (1, 8, 4), [1.0, 4.0, 8.0]),
        ("quniform", (3, 3, 2), [3.0]),
        ("uniform", (2.5, 2.5), [2.5]),
        ("loguniform", (3, 3), [3.0]),
        ("normal", (4, 0), [4.0]),
        ("qnormal", (4, 0, 3), [3.0]),
        ("choice", (1, 1.0, True, "1", None, [1], {"k": 1}), [1, 1.0, True, "1", None, [1], {"k": 1}]),
        ("choice", ("a", "b", "a"), ["a", "b"]),
    ],
)
def test_the_values_of_counted_parameters(kind: str, values: tuple[Any, ...], expected: list[Any]) -> None:
    param = one(kind, *values)
    assert param.size == len(expected)
    found = [param.at(i) for i in range(param.size)]
    assert found == expected
    assert [type(v) for v in found] == [type(v) for v in expected]
    assert [param.cell(v) for v in found] == list(range(len(expected)))
    assert all(param.check(v) is None for v in found)
    assert [param.from_unit(param.to_unit(v)) for v in found] == expected
    assert {json.dumps(v) for v in drawn(param)} <= {json.dumps(v) for v in expected}


@pytest.mark.parametrize(
    ("kind", "values", "low", "high"),
    [
        ("uniform", (-2, 3), -2.0, 3.0),
        ("uniform", (-1.7e308, 1.7e308), -1.7e308, 1.7e308),
        ("loguniform", (1e-300, 1e300), 1e-300, 1e300),
        ("loguniform", (1e-5, 1), 1e-5, 1.0),
        ("quniform", (0, 1e300, 1e-300), 0.0, 1e300),
    ],
)
def test_bounded_floats_reach_both_ends_and_never_leave(
    kind: str, values: tuple[Any, ...], low: float, high: float
) -> None:
    param = one(kind, *values)
    assert param.size is None
    assert param.from_unit(0.0) == low
    assert math.isclose(param.from_unit(1.0), high, rel_tol=1e-12)
    for value in drawn(param, 500):
        assert type(value) is float
        assert low <= value <= high
        assert param.check(value) is None
        assert math.isclose(param.from_unit(param.to_unit(value)), value, rel_tol=1e-9)


def test_the_distributions() -> None:
    uniform, log = one("uniform", 0, 10), one("loguniform", 1e-4, 1)
    normal, lognormal = one("normal", 5, 2), one("lognormal", 1, 0.5)
    assert uniform.from_unit(0.25) == 2.5
    assert math.isclose(log.from_unit(0.25), 1e-3)
    assert math.isclose(normal.from_unit(0.5), 5.0)
    assert math.isclose(normal.from_unit(0.8413447460685429), 7.0)
    assert math.isclose(lognormal.from_unit(0.5), math.e)
    assert normal.check(-1e9) is None
    assert lognormal.check(0.0) is not None
    assert Counter(drawn(one("randint", 0, 4))) == {0: 500, 1: 500, 2: 500, 3: 500}
    ends = Counter(drawn(one("quniform", 0, 2, 1), 4000))  # NNI rounds x, so the ends have half a cell
    assert abs(ends[0.0] - 1000) < 3 and abs(ends[1.0] - 2000) < 3
    whole = one("qnormal", 0, 1, 0.5)
    assert whole.from_unit(0.5) == 0.0 and whole.size is None and whole.check(0.25) is not None


def test_binary_fractions_are_as_rounding_makes_them_and_both_spellings_count() -> None:
    param = one("quniform", 0.1, 0.5, 0.1)
    assert param.at(2) == 3 * 0.1 != 0.3
    assert param.check(0.3) is None and param.check(0.30000000000000004) is None
    assert param.cell(0.3) == param.cell(0.30000000000000004) == 2
    assert "no multiple of q" in str(param.check(0.31))


def test_bounds_next_to_each_other() -> None:
    for kind, low in (("uniform", 9.0), ("loguniform", 9.0), ("loguniform", 5e-324), ("uniform", -5e-324)):
        high = math.nextafter(low, math.inf)
        param = one(kind, low, high)
        for u in (0.0, 0.3, 1.0):
            value = param.from_unit(u)
            assert value in (low, high)
            assert 0.0 <= param.to_unit(value) <= 1.0


def test_tails_stay_finite() -> None:
    for kind in ("normal", "lognormal"):
        for u in (0.0, 1e-300, 1 - 2**-53, 1.0):
            value = one(kind, 0, 1e300).from_unit(u)
            assert math.isfinite(value)
            assert one(kind, 0, 1e300).check(value) is None


@pytest.mark.parametrize(
    ("kind", "values", "wrong"),
    [
        ("randint", (0, 5), [5, -1, 1.0, True, "1", None, 10**400]),
        ("uniform", (0, 5), [5.1, -0.1, True, "1", None, math.nan, math.inf, 10**400]),
        ("quniform", (0, 5, 1), [0.5, 6.0, False]),
        ("choice", (1, "a"), [2, "b", True, None, [1], math.nan, object()]),
        ("normal", (0, 1), ["0", math.nan, -math.inf]),
        (
            "layer_choice",
            ("p", "q"),
            [
                "p",
                {"_value": "p"},
                {"_value": "p", "_idx": 1},
                {"_value": "p", "_idx": 2},
                {"_value": "p", "_idx": [0]},
            ],
        ),
    ],
)
def test_check_is_strict(kind: str, values: tuple[Any, ...], wrong: list[Any]) -> None:
    for value in wrong:
        reason = parse({"it": spec(kind, *values)}).contains({"it": value})
        assert reason is not None and reason.startswith("it: ")


def test_check_takes_what_json_writes() -> None:
    assert one("uniform", 0, 5).check(3) is None
    assert one("quniform", 0, 5, 1).check(3) is None
    assert one("choice", 0.5, 1).check(1.0) is None
    assert one("choice", [1, {"a": None}]).check([1, {"a": None}]) is None


# -- architecture -----------------------------------------------------------------------------------------------------
def test_layer_choice() -> None:
    param = one("layer_choice", "conv", "pool")
    assert param.from_unit(0.75) == {"_value": "pool", "_idx": 1}
    assert param.check({"_value": "pool", "_idex": 1}) is None
    assert param.cell({"_value": "pool", "_idex": 1}) == 1


@pytest.mark.parametrize(("n_chosen", "count"), [(0, 1), (1, 4), (2, 6), (4, 1), ([0, 1], 5), (None, 16)])
def test_input_choice(n_chosen: Any, count: int) -> None:
    space = parse(
        {"i": {"_type": "input_choice", "_value": {"candidates": ["a", "b", "c", "d"], "n_chosen": n_chosen}}}
    )
    param = space.params[0]
    assert param.size == space.size == count
    values = [param.at(i) for i in range(count)]
    assert len({json.dumps(value) for value in values}) == count
    for i, value in enumerate(values):
        assert value["_value"] == ["abcd"[j] for j in value["_idx"]]
        assert param.cell(value) == i and param.check(value) is None
    assert param.check({"_value": ["b", "a"], "_idx": [1, 0]}) is not None
    assert param.check({"_value": ["a"] * 9, "_idx": [0] * 9}) is not None
    many = parse({"i": {"_type": "input_choice", "_value": {"candidates": list(range(80)), "n_chosen": None}}}).params[
        0
    ]
    assert many.size == 2**80
    assert many.cell(many.at(2**79 + 12345)) == 2**79 + 12345


# -- the tree ---------------------------------------------------------------------------------------------------------
def test_nested_choice() -> None:
    space = parse(NESTED)
    assert [p.key for p in space.params] == ["a~1b", "opt", "opt/sgd/lr", "opt/sgd/m", "opt/sgd/m/yes/v"]
    assert [(p.parent, p.branch) for p in space.params] == [(None, None), (None, None), (1, 0), (1, 0), (3, 1)]
    assert space.conditional and space.size is None
    point = {"a/b": 2, "opt": {"_name": "sgd", "lr": 0.5, "m": {"_name": "yes", "v": 2}}}
    assert space.contains(point) is None
    assert space.flatten(point) == {
        "a~1b": 2,
        "opt": "sgd",
        "opt/sgd/lr": 0.5,
        "opt/sgd/m": "yes",
        "opt/sgd/m/yes/v": 2,
    }
    assert space.assemble(space.flatten(point)) == point
    assert space.cells(point) == (2, 0, 0.5, 1, 1)
    assert space.cells({"a/b": 2, "opt": {"_name": "none"}}) == (2, 1, None, None, None)
    for wrong, reason in [
        ({"a/b": 2}, "opt: missing"),
        ({"a/b": 2, "opt": "sgd"}, "opt: "),
        ({"a/b": 2, "opt": {"_name": "adam"}}, "opt: "),
        ({"a/b": 2, "opt": {"_name": "none", "lr": 0.5}}, "opt/none/lr: not in"),
        ({"a/b": 2, "opt": {"_name": "sgd", "lr": 2, "m": {"_name": "no"}}}, "opt/sgd/lr: "),
        ({"a/b": 2, "opt": {"_name": "none"}, "c": 1}, "c: not in"),
    ]:
        assert str(space.contains(wrong)).startswith(reason)
        assert space.cells(wrong) is None
        with pytest.raises(ValueError, match=":"):
            space.flatten(wrong)
    assert space.contains({"a/b": 2, "opt": {"_name": "none"}, "TRIAL_BUDGET": 3}, {"TRIAL_BUDGET"}) is None
    assert "an object of parameters" in str(space.contains([1]))  # type: ignore[arg-type]  # a tuner may answer anything


def test_a_choice_is_nested_only_if_all_elements_have_a_name() -> None:
    space = parse({"c": spec("choice", {"_name": "a", "lr": 1}, {"lr": 2})})
    assert not space.params[0].nested
    assert space.contains({"c": {"_name": "a", "lr": 1}}) is None


def test_a_countable_space_is_enumerated_once() -> None:
    space = parse(
        {
            "k": spec("choice", {"_name": "x", "n": spec("randint", 0, 3), "c": spec("choice", 1, 2)}, {"_name": "y"}),
            "b": spec("choice", True, False),
        }
    )
    assert space.size == (3 * 2 + 1) * 2
    points = [space.point(i) for i in range(space.size)]
    assert len({json.dumps(p) for p in points}) == space.size
    assert points[0] == {"k": {"_name": "x", "n": 0, "c": 1}, "b": True}
    assert points[1] == {"k": {"_name": "x", "n": 0, "c": 1}, "b": False}
    assert all(space.contains(p) is None for p in points)
    with pytest.raises(IndexError):
        space.point(space.size)
    assert parse({}).size == 1 and parse({}).point(0) == {}


def test_a_space_stays_as_it_is() -> None:
    raw = {"c": spec("choice", {"a": [1]}, {"a": [2]})}
    space = parse(raw)
    raw["c"]["_value"].clear()
    point = space.sample(lambda: 0.0)
    point["c"]["a"].append(9)
    assert space.sample(lambda: 0.0) == {"c": {"a": [1]}}
    assert space.raw == {"c": spec("choice", {"a": [1]}, {"a": [2]})}


numbers = st.floats(-1e9, 1e9)
params = st.one_of(
    st.tuples(numbers, st.floats(0, 1e9)).map(lambda v: spec("uniform", v[0], v[0] + v[1])),
    st.tuples(numbers, st.floats(0, 1e9), st.floats(1e-6, 1e9)).map(
        lambda v: spec("quniform", v[0], v[0] + v[1], v[2])
    ),
    st.tuples(st.floats(1e-9, 1e9), st.floats(1, 1e9)).map(lambda v: spec("loguniform", v[0], v[0] * v[1])),
    st.tuples(st.floats(1e-9, 1e3), st.floats(1, 1e9), st.floats(1e-6, 1e9)).map(
        lambda v: spec("qloguniform", v[0], v[0] * v[1], v[2])
    ),
    st.tuples(st.integers(-(2**62), 2**62 - 1), st.integers(1, 2**62)).map(
        lambda v: spec("randint", v[0], v[0] + v[1])
    ),
    st.tuples(numbers, st.floats(0, 1e9)).map(lambda v: spec("normal", *v)),
    st.tuples(numbers, st.floats(0, 1e9), st.floats(1e-3, 1e9)).map(lambda v: spec("qnormal", *v)),
    st.tuples(st.floats(-50, 50), st.floats(0, 50)).map(lambda v: spec("lognormal", *v)),
    st.tuples(st.floats(-50, 50), st.floats(0, 50), st.floats(1e-3, 1e9)).map(lambda v: spec("qlognormal", *v)),
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1, 1), st.text(max_size=2)),
        min_size=1,
        max_size=9,
    ).map(lambda v: spec("choice", *v)),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(raw=params, u=st.floats(0, 1, exclude_max=True))
def test_every_unit_is_a_value_and_its_way_back_ends_in_the_same_cell(raw: dict[str, Any], u: float) -> None:
    space = parse({"x": raw})
    param = space.params[0]
    value = param.from_unit(u)
    assert param.check(value) is None
    assert space.contains(json.loads(json.dumps({"x": value}, allow_nan=False))) is None
    unit = param.to_unit(value)
    assert 0.0 <= unit <= 1.0
    if param.size is not None and param.size <= 2**40:
        assert param.cell(param.from_unit(unit)) == param.cell(value)
        low, high = param.edges(int(param.cell(value)))
        assert 0.0 <= low <= unit <= high <= 1.0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_samples_of_a_tree(seed: int) -> None:
    space: Space = parse(NESTED)
    point = space.sample(random.Random(seed).random)
    assert space.contains(point) is None
    assert space.assemble(space.flatten(point)) == point


# -- faults -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (spec("uniform", 2, 1), ["low 2.0 > high 1.0", "low <= high"]),
        (spec("loguniform", 2, 1), ["low 2.0 > high 1.0"]),
        (spec("randint", 5, 5), ["low 5 >= high 5", "low < high"]),
        (spec("randint", 0.5, 5), ["low is 0.5", "integer"]),
        (spec("randint", 0, 2**70), ["64 bits"]),
        (spec("quniform", 0, 1, 0), ["q is 0.0", "q > 0"]),
        (spec("qnormal", 0, 1, -1), ["q is -1.0", "q > 0"]),
        (spec("normal", 0, -1), ["sigma is -1.0", "sigma >= 0"]),
        (spec("loguniform", 0, 1), ["low is 0.0", "> 0"]),
        (spec("qloguniform", 1, -1, 1), ["high is -1.0", "> 0"]),
        (spec("uniform", math.nan, 1), ["low is nan", "finite"]),
        (spec("uniform", 0, math.inf), ["high is inf", "finite"]),
        (spec("normal", math.inf, 1), ["mu is inf", "finite"]),
        (spec("uniform", 0, 10**400), ["high is", "finite"]),
        (spec("uniform", 0, "1"), ["high is '1'", "number"]),
        (spec("uniform", True, 1), ["low is True", "number"]),
        (spec("uniform", 1), ["1 elements", "[low, high]"]),
        (spec("quniform", 0, 1), ["2 elements", "[low, high, q]"]),
        (spec("normal", 1, 2, 3), ["3 elements", "[mu, sigma]"]),
        (spec("choice"), ["empty choice"]),
        (spec("choice", math.nan), ["nan", "finite"]),
        (spec("choice", 2**64), ["64 bits"]),
        (spec("choice", object()), ["JSON"]),
        (spec("choice", {1: 2}), ["texts only"]),
        (spec("choice", {"_name": 1}), ["_name is 1", "text"]),
        (spec("choice", {"_name": "a"}, {"_name": "a"}), ["'a' stands more than once"]),
        (spec("unifrom", 0, 1), ["unknown _type 'unifrom'", "did you mean uniform?", "loguniform"]),
        ({"_type": "uniform"}, ["_value missing"]),
        ({"_value": [0, 1]}, ["_type missing"]),
        ({"_type": ["uniform"], "_value": [0, 1]}, ["unknown _type"]),
        ({"_type": "uniform", "_value": 3}, ["_value is a number", "list"]),
        ([0, 1], ["[0, 1]", "_type and _value"]),
        (None, ["None", "_type and _value"]),
        ({"_type": "input_choice", "_value": ["a"]}, ["candidates"]),
        ({"_type": "input_choice", "_value": {"candidates": []}}, ["empty input_choice"]),
        ({"_type": "input_choice", "_value": {"candidates": ["a"], "n_chosen": 2}}, ["n_chosen is 2", "0 to 1"]),
    ],
)
def test_each_fault_names_the_parameter_and_the_rule(raw: Any, words: list[str]) -> None:
    with pytest.raises(SpaceError) as caught:
        parse({"fine": spec("uniform", 0, 1), "rate": raw})
    assert len(caught.value.errors) == 1
    message = caught.value.errors[0]
    assert message.startswith("rate: ")
    for word in words:
        assert word in message


def test_all_faults_are_told_at_once_and_where_they_are() -> None:
    with pytest.raises(SpaceError) as caught:
        parse(
            {
                "a": spec("uniform", 1, 0),
                "b": spec("choice", {"_name": "x", "c": spec("choice"), "d": 4}),
                5: spec("choice", 1),
            }
        )  # type: ignore[dict-item]
    assert [error.split(":")[0] for error in caught.value.errors] == ["a", "b/x/c", "b/x/d", "5"]
    assert str(caught.value) == "\n".join(caught.value.errors)
    assert isinstance(caught.value, ValueError)


def test_what_is_no_object_and_what_is_too_deep() -> None:
    for wrong in ([], "x", None, 3):
        with pytest.raises(SpaceError, match="an object of parameters is allowed"):
            parse(wrong)  # type: ignore[arg-type]
    bomb: Any = 1
    for _ in range(5000):
        bomb = [bomb]
    tree: Any = spec("choice", 1)
    for _ in range(5000):
        tree = spec("choice", {"_name": "a", "b": tree})
    for raw in (spec("choice", bomb), tree):
        with pytest.raises(SpaceError, match="nested more than 64 levels deep"):
            parse({"x": raw})
    shallow: Any = spec("choice", 1)
    for _ in range(18):
        shallow = spec("choice", {"_name": "a", "b": shallow})
    assert parse({"x": shallow}).size == 1
