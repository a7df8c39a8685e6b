"""The judge itself: it finds nothing wrong in a real log, and each thing that is planted into one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import checker
import pytest
from harness import Bench

Rows, Witness = list[checker.Row], list[dict[str, Any]]


def _at(rows: Rows, kind: str, final: bool = False) -> int:
    return next(i for i, row in enumerate(rows) if row.kind == kind and bool(row.body.get("final")) == final)


def lost_report(rows: Rows, witness: Witness) -> None:
    del rows[_at(rows, "METRIC")]


def report_twice(rows: Rows, witness: Witness) -> None:
    row = rows[_at(rows, "METRIC")]
    rows.append(replace(row, seq=len(rows) + 1, number=99))


def report_from_nowhere(rows: Rows, witness: Witness) -> None:
    at = _at(rows, "METRIC")
    rows[at] = replace(rows[at], body={**rows[at].body, "value": 123})


def two_counted_finals(rows: Rows, witness: Witness) -> None:
    row = rows[_at(rows, "METRIC", final=True)]
    rows.append(replace(row, seq=len(rows) + 1, number=row.number + 1))


def started_twice(rows: Rows, witness: Witness) -> None:
    line = next(line for line in witness if line["e"] == "start")
    witness.append({**line, "sid": line["sid"] + 1})


def other_pid(rows: Rows, witness: Witness) -> None:
    for line in witness:
        line["sid"] += 1


def wrong_parameters(rows: Rows, witness: Witness) -> None:
    next(line for line in witness if line["e"] == "parameters")["value"] = {"x": 0}


def a_trial_too_many(rows: Rows, witness: Witness) -> None:
    row = rows[_at(rows, "NEW_TRIAL")]
    rows.append(replace(row, seq=len(rows) + 1, trial=2, body={"id": "other"}, number=10_000))


def an_id_twice(rows: Rows, witness: Witness) -> None:
    for at, row in enumerate(rows):
        if row.kind == "NEW_TRIAL":
            rows[at] = replace(row, body={"id": "same0"})


def ended_twice(rows: Rows, witness: Witness) -> None:
    rows.append(replace(rows[_at(rows, "TRIAL_END")], seq=len(rows) + 1, number=10_000))


def never_ended(rows: Rows, witness: Witness) -> None:
    del rows[_at(rows, "TRIAL_END")]


def counted_after_the_end(rows: Rows, witness: Witness) -> None:
    at = _at(rows, "METRIC", final=True)
    rows.append(rows.pop(at))


def launched_twice(rows: Rows, witness: Witness) -> None:
    rows.append(replace(rows[_at(rows, "LAUNCHED")], seq=len(rows) + 1, number=10_000))


PLANTED: list[Callable[[Rows, Witness], None]] = [
    lost_report,
    report_twice,
    report_from_nowhere,
    two_counted_finals,
    started_twice,
    other_pid,
    wrong_parameters,
    a_trial_too_many,
    an_id_twice,
    ended_twice,
    never_ended,
    counted_after_the_end,
    launched_twice,
]


@pytest.mark.parametrize("renumber", [False, True], ids=["as planted", "numbers made to fit"])
def test_every_planted_fault_is_found(bench: Bench, renumber: bool) -> None:
    experiment = bench.experiment(max_trial_number=2)
    experiment.run()
    rows, witness = experiment.rows(), experiment.witness()
    assert checker.check(rows, witness, 2) == []
    for plant in PLANTED:
        hurt, told = copy.deepcopy(rows), copy.deepcopy(witness)
        plant(hurt, told)
        if renumber:  # the fault has to be found by what it means, not by its number
            next_of: dict[str, int] = {}
            for at, row in enumerate(hurt):
                next_of[row.sender] = next_of.get(row.sender, 0) + 1
                hurt[at] = replace(row, seq=at + 1, number=next_of[row.sender])
        assert checker.check(hurt, told, 2), f"{plant.__name__} is not found"
