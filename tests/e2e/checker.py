"""An independent judge of a finished log: plain sqlite3 and json, nothing of the program that wrote it.

The log is compared with what the trials themselves wrote down (fake_trial.py): each line of the witness file is a JSON
object with `e` (start, parameters, try, did, end), `trial`, `attempt`, `sid` (the trial's session), and for a report
`kind` (I, F), `value` and `phase`. "try" stands before a call, "did" after it returned.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One fact, as it stands in the table."""

    seq: int
    epoch: int
    kind: str
    sender: str
    number: int
    trial: int | None
    body: dict[str, Any]


def read(path: Path) -> list[Row]:
    """All facts of a log."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        query = "SELECT seq, epoch, kind, sender, sender_seq, trial, body FROM event ORDER BY seq"
        return [Row(*row[:-1], json.loads(row[-1])) for row in connection.execute(query)]
    finally:
        connection.close()


def read_witness(path: Path) -> list[dict[str, Any]]:
    """What the trials wrote down."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def parameters(rows: list[Row]) -> dict[tuple[int, int], Any]:
    """(trial, phase) -> parameters."""
    return {
        (row.trial, row.body.get("phase", 0)): row.body["parameters"]
        for row in rows
        if row.kind == "PARAMETER" and row.trial is not None
    }


def check(rows: list[Row], witness: list[dict[str, Any]], trials: int | None, *, complete: bool = True) -> list[str]:
    """What is wrong; empty when nothing is. `complete`: every trial has ended, so all it reported must be there."""
    return [
        *_order(rows),
        *_trials(rows, trials),
        *_launches(rows, witness),
        *_parameters(rows, witness),
        *_reports(rows, witness, complete),
        *_finals(rows),
        *_ends(rows, complete),
    ]


def _order(rows: list[Row]) -> list[str]:
    wrong = [f"seq {row.seq} stands at place {place}" for place, row in enumerate(rows, 1) if row.seq != place]
    last: dict[str, int] = {}
    for row in rows:
        if row.sender.startswith("e") and row.sender[1:].isdigit() and row.sender != f"e{row.epoch}":
            wrong.append(f"fact {row.seq} of epoch {row.epoch} is from {row.sender}")
        first = row.body["first"] if row.kind == "THINNED" else row.number
        if first != last.get(row.sender, 0) + 1:
            wrong.append(f"{row.sender}: number {row.number} follows {last.get(row.sender, 0)} (seq {row.seq})")
        last[row.sender] = row.number
    return wrong


def _trials(rows: list[Row], trials: int | None) -> list[str]:
    made = [row.trial for row in rows if row.kind == "NEW_TRIAL"]
    wrong = []
    if sorted(number for number in made if number is not None) != list(range(len(made))):
        wrong.append(f"the trials are {made}")
    if trials is not None and len(made) != trials:
        wrong.append(f"{len(made)} trials were made, not {trials}")
    ids = [row.body["id"] for row in rows if row.kind == "NEW_TRIAL"]
    if len(set(ids)) != len(ids):
        wrong.append(f"an id is there twice: {ids}")
    return wrong


def _launches(rows: list[Row], witness: list[dict[str, Any]]) -> list[str]:
    """At most one process tree a launch, and it is the one that the log names."""
    wrong = []
    pids = {(row.trial, row.body.get("attempt", 0)): row.body["pid"] for row in rows if row.kind == "LAUNCHED"}
    count = Counter((row.trial, row.body.get("attempt", 0)) for row in rows if row.kind == "LAUNCHED")
    wrong += [f"trial {key} was LAUNCHED {times} times" for key, times in count.items() if times > 1]
    seen: dict[tuple[int, int], int] = {}
    for line in witness:
        if line["e"] != "start":
            continue
        key = line["trial"], line["attempt"]
        if key in seen:
            wrong.append(f"trial {key} was started twice: sessions {seen[key]} and {line['sid']}")
        seen[key] = line["sid"]
        if key in pids and pids[key] != line["sid"]:
            wrong.append(f"trial {key} ran as {line['sid']}, the log says {pids[key]}")
    return wrong


def _parameters(rows: list[Row], witness: list[dict[str, Any]]) -> list[str]:
    """What a trial got is what the log says of it."""
    told = parameters(rows)
    return [
        f"trial {line['trial']} phase {line['phase']} got {line['value']}, the log says "
        f"{told.get((line['trial'], line['phase']))}"
        for line in witness
        if line["e"] == "parameters" and line["value"] != told.get((line["trial"], line["phase"]))
    ]


def _reports(rows: list[Row], witness: list[dict[str, Any]], complete: bool) -> list[str]:
    """Every launch's reports: each that returned is there, in order, once; none is there that was not made."""
    Key = tuple[int, int]
    tried: defaultdict[Key, list[Any]] = defaultdict(list)
    returned: defaultdict[Key, int] = defaultdict(int)
    finals: defaultdict[Key, int] = defaultdict(int)
    for line in witness:
        key = line["trial"], line["attempt"]
        if line["e"] == "try":
            tried[key].append([line["kind"], line["phase"], line["value"]])
        elif line["e"] == "did":
            returned[key] = len(tried[key])
            if line["kind"] == "F":
                finals[key] = len(tried[key])
    logged: defaultdict[Key, list[Any]] = defaultdict(list)
    for row in rows:
        if row.kind == "METRIC" and row.trial is not None:
            attempt = int(row.sender.split(".")[1])
            kind = "F" if row.body.get("final") else "I"
            logged[row.trial, attempt].append([kind, row.body.get("phase", 0), row.body["value"]])
    wrong = []
    for key in sorted(set(tried) | set(logged)):
        there, made = logged[key], tried[key]
        if there != made[: len(there)]:
            wrong.append(f"trial {key} reported {made}, the log holds {there}")
        least = returned[key] if complete else 0
        if len(there) < least:
            wrong.append(f"trial {key}: {least} reports returned, {len(there)} are in the log")
    return wrong


def _finals(rows: list[Row]) -> list[str]:
    count = Counter(
        (row.trial, row.body.get("phase", 0))
        for row in rows
        if row.kind == "METRIC"
        and row.body.get("final")
        and not row.body.get("ignored")
        # a new attempt may report again where the first one's final was no number
        and isinstance(row.body["value"], int | float)
    )
    return [f"phase {key} has {times} counted finals" for key, times in count.items() if times > 1]


def _ends(rows: list[Row], complete: bool) -> list[str]:
    """Each launch ends at most once, with nothing counted after; with `complete` every one has."""
    open_: set[tuple[int | None, int]] = set()
    ended: set[tuple[int | None, int]] = set()
    wrong = []
    for row in rows:
        key = row.trial, row.body.get("attempt", 0)
        if row.kind == "LAUNCH":
            open_.add(key)
        elif row.kind == "TRIAL_END":
            if key in ended:
                wrong.append(f"launch {key} ended twice")
            ended.add(key)
            open_.discard(key)
        elif row.kind == "METRIC" and not row.body.get("ignored"):
            launch = row.trial, int(row.sender.split(".")[1])
            if launch in ended:
                wrong.append(f"a report of launch {launch} counts after its end (seq {row.seq})")
    if complete and open_:
        wrong.append(f"launches without an end: {sorted(open_)}")
    return wrong
