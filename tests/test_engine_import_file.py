"""Files of results from elsewhere: what is taken, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.engine.errors import UsageError
from tune.engine.import_file import Result, read
from tune.trial_sdk import values


def results(folder: Path, text: str) -> list[Result]:
    file = folder / "results.json"
    file.write_text(text, encoding="utf-8")
    return read(file)


@pytest.mark.parametrize(
    "text",
    [
        '[{"parameter": {"lr": 0.5}, "value": 1}, {"parameters": {"lr": 1.0}, "value": {"default": 2, "x": "y"}}]',
        '{"parameter": {"lr": 0.5}, "value": 1}\n\n{"parameters": {"lr": 1.0}, "value": {"default": 2, "x": "y"}}\n',
        '\ufeff[{"id": "a", "parameter": "{\\"lr\\": 0.5}", "value": 1},'
        ' {"trial": 3, "phase": 0, "status": "FAILED", "parameters": {"lr": 1.0}, "value": {"default": 2, "x": "y"}}]',
    ],
)
def test_lists_and_lines_of_results(tmp_path: Path, text: str) -> None:
    assert results(tmp_path, text) == [('{"lr":0.5}', "1"), ('{"lr":1.0}', '{"default":2,"x":"y"}')]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"parameter": {}, "value": "0.5", "trialJobId": "GX4"}', "0.5"),  # NNI holds it as the text of its JSON
        ('{"parameter": {}, "value": "{\\"default\\": 0.5, \\"x\\": 1}"}', '{"default":0.5,"x":1}'),
        ('{"parameter": {}, "value": "NaN"}', '"NaN"'),
        ('{"parameters": {}, "value": null, "final": {"default": 1, "b": 2}}', '{"default":1,"b":2}'),
        ('{"parameters": {}, "value": 3, "final": 3}', "3"),
        ('{"parameters": {}, "value": 3, "final": null}', "3"),
    ],
)
def test_values_as_nni_and_tune_export_write_them(tmp_path: Path, text: str, value: str) -> None:
    assert results(tmp_path, text) == [("{}", value)]


def test_a_result_has_a_number_for_each_key_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(
        '[{"parameter": {}, "value": {"acc": 1, "latency": "NaN"}}, {"parameter": {}, "value": {"acc": 1}}]'
    )
    with pytest.raises(UsageError, match="result 1: the value is") as error:
        read(file, ("acc", "latency"))
    assert error.value.hint == 'Allowed: an object with a number "acc" and "latency"'
    with pytest.raises(UsageError, match="result 0") as error:
        read(file)
    assert error.value.hint == 'Allowed: a number, or an object with a number "default"'


def test_a_table_is_told_by_its_suffix(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("trial,phase,status,parameters.lr,value,intermediate\n0,0,SUCCEEDED,0.5,1.5,[]\n")
    assert read(file) == [('{"lr":0.5}', "1.5")]
    file.write_text("trial,phase,status,parameters.lr,value,intermediate\n0,0,SUCCEEDED,0.5,x,[]\n")
    with pytest.raises(UsageError, match="line 2: the value is"):
        read(file)


def test_an_empty_list_is_no_error(tmp_path: Path) -> None:
    assert results(tmp_path, "[]") == [] and results(tmp_path, "\n") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("NaN", '"NaN"'),
        ("-Infinity", '"-Infinity"'),
        ('"Infinity"', '"Infinity"'),
        ("1e999", '"Infinity"'),
        ("-3", "-3"),
    ],
)
def test_numbers_that_are_not_finite_are_texts(tmp_path: Path, value: str, expected: str) -> None:
    assert results(tmp_path, f'[{{"parameter": {{}}, "value": {value}}}]') == [("{}", expected)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[1]", "result 0 is no object"),
        ('[{"value": 1}]', 'result 0 has no object "parameter"'),
        ('[{"parameter": [1], "value": 1}]', 'result 0 has no object "parameter"'),
        ('[{"parameter": {}}]', 'result 0 has no "value"'),
        ('[{"parameter": {}, "value": 1}, {"parameter": {}, "value": "good"}]', "result 1: the value is"),
        ('[{"parameter": {}, "value": {"loss": 1}}]', "result 0: the value is"),
        ('[{"parameter": {}, "value": null}]', "result 0: the value is"),
        ('[{"parameter": {"a": 99999999999999999999}, "value": 1}]', "result 0: an integer of 67 bits"),
        ('[\n{"parameter": {},\n', "results.json:3:1: this is not JSON"),
        ('{"parameter": {}, "value": 1}\n{"parameter"\n', "results.json:2:13: this is not JSON"),
        ("[" * 100_000, "this can't be read"),
        ("trial,value\n0,1\n", "results.json:1:1: this is not JSON"),
    ],
)
def test_what_is_no_result(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(UsageError) as error:
        results(tmp_path, text)
    assert wrong in error.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read(tmp_path / "none.json")
    with pytest.raises(UsageError, match="can't be read"):
        read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no text"):
        read(tmp_path / "binary")


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
objects = st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), max_size=3)


@settings(max_examples=30)
@given(st.lists(st.tuples(objects, st.floats()), max_size=5))
def test_what_python_writes_is_read(tmp_path_factory: pytest.TempPathFactory, given: list[tuple[Any, float]]) -> None:
    file = tmp_path_factory.getbasetemp() / "given.json"
    text = json.dumps([{"parameter": parameters, "value": value} for parameters, value in given])
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    file.write_text(text, encoding="utf-8")
    try:
        found = read(file)
    except UsageError as error:
        assert "no valid Unicode" in error.message  # half a character, written as an escape
        return
    assert [repr(values.number(one.value)) for one in found] == [repr(value) for _, value in given]
