"""engine/import_table.py: what tune export and NNI write as csv is read again, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.engine.errors import UsageError
from tune.engine.export_file import render
from tune.engine.import_table import rows
from tune.engine.space import Space, parse

RAW = {
    "lr": {"_type": "loguniform", "_value": [1e-5, 1]},
    "n": {"_type": "randint", "_value": [0, 100]},
    "net.size": {"_type": "choice", "_value": ["1", "true", "wide, [1]", 7, None, False, [1, 2], "\n"]},
    "opt": {
        "_type": "choice",
        "_value": [{"_name": "sgd", "momentum": {"_type": "uniform", "_value": [0, 1]}}, {"_name": "adam"}],
    },
    "layer": {"_type": "layer_choice", "_value": ["a", "2"]},
    "inputs": {"_type": "input_choice", "_value": {"candidates": ["x", "y", "z"], "n_chosen": 2}},
    "shape": {"_type": "choice", "_value": [{"w": 1, "h": [2]}, {"w": 3, "h": []}]},
}
SPACE = parse(RAW)
FLAT = parse({"lr": RAW["lr"], "act": {"_type": "choice", "_value": ["relu", "1"]}})


def items(text: str, space: Space | None = SPACE, *keys: str) -> list[dict[str, Any]]:
    return [item for _, item in rows(Path("x.csv"), text, space, keys)]


def exported(parameters: list[dict[str, Any]], **fields: Any) -> str:
    base = {"trial": 0, "phase": 0, "status": "SUCCEEDED", "value": 0.5, "intermediate": [1.0, "NaN"]}
    rest = {"values": None, "violation": None, "final": 0.5}
    return render([{**base, "parameters": one, **rest, **fields} for one in parameters], "csv")


@given(st.randoms(use_true_random=False))
def test_what_export_writes_is_read_again(dice: random.Random) -> None:
    points = [SPACE.sample(dice.random) for _ in range(3)]
    assert items(exported(points)) == [{"parameters": one, "value": 0.5} for one in points]


def test_several_objectives_come_back_whole() -> None:
    several = {"value": None, "values": {"val.acc": 0.5, "latency": 3.0}, "violation": 2.0}
    reported = {"val.acc": 0.5, "latency": 3.0, "memory": 7, "note": "x"}
    text = exported([{"lr": 0.5, "act": "1"}], **several, final=reported)
    assert "values.val.acc" in text.splitlines()[0]
    [found] = items(text, FLAT, "val.acc", "latency")
    assert found == {"parameters": {"lr": 0.5, "act": "1"}, "value": reported}
    lines = text.splitlines()
    keep = [index for index, head in enumerate(lines[0].split(",")) if not head.startswith("final")]
    rest = "\n".join(",".join(line.split(",")[i] for i in keep) for line in (lines[0], lines[-1].replace('"', "")))
    assert items(rest.replace("[1.0,NaN]", "-"), FLAT, "val.acc", "latency")[0]["parameters"]["act"] == "1"


def test_a_table_of_nni() -> None:
    text = "lr,act,trialJobId,reward\n0.5,relu,GX4,0.25\n0.125,1,AB1,NaN\n"
    assert items(text, FLAT) == [
        {"parameters": {"lr": 0.5, "act": "relu"}, "value": 0.25},
        {"parameters": {"lr": 0.125, "act": "1"}, "value": "NaN"},
    ]
    assert items(text, None)[1] == {"parameters": {"lr": 0.125, "act": 1}, "value": "NaN"}


def test_a_table_of_nni_with_dicts_needs_the_space() -> None:
    text = "lr,act,default,loss,trialJobId\n0.5,relu,0.25,7,GX4\n"
    assert items(text, FLAT) == [
        {"parameters": {"lr": 0.5, "act": "relu"}, "value": {"default": 0.25, "loss": 7}},
    ]
    with pytest.raises(UsageError, match="line 2 has no reward"):
        items(text, None)


def test_an_empty_cell_is_not_there() -> None:
    text = "trial,phase,status,parameters.lr,parameters.act,value,intermediate\n0,0,X,0.5,,1,\n"
    assert items(text, FLAT) == [{"parameters": {"lr": 0.5}, "value": 1}]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is no table of results: its columns are none"),
        ("a,b\n1,2\n", "is no table of results: its columns are a, b"),
        ('phase,value\n"1', "this is no table"),
        (f"phase,parameters{'.a' * 100_000},value\n0,1,2\n", "has 100000 dots; allowed: 64"),
        (f"phase,value\n0,{'1' * 2_000_000}\n", "field larger than field limit"),
    ],
)
def test_what_is_no_table_of_results(text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        items(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for head in ("", "phase,parameters.lr,value\n", "trialJobId,lr,reward\n"):
        try:
            items(head + text)
        except UsageError as error:
            assert "x.csv" in error.message
