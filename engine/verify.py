"""Verifying a log: reads every event and checks all that can be checked without replaying the experiment.

The chain finds every changed byte of an event and `events.head` a cut tail (log.py). On top of that stand here: epochs
never fall, every body is a known event, the numbers of a trial's process (with the ranges that THINNED facts name)
and those of an engine are 1, 2, 3 ... without gap or double, and SQLite's own check of its pages and index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .events import Fact, Thinned, decode
from .log import LogDamaged, Reader, read_head

CHECKED = (
    "the chain over every column of every event, kinds, bodies, epochs, the numbers of each trial process and engine, "
    "SQLite's pages and index"
)
HEAD = "the end of the log against events.head"
_TRIAL = re.compile(r"[a-z][a-z0-9]{4}\.[0-9]+\..+", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class Verified:
    """What came out: `events` are those that are good, from the first one on; `reason` also holds remarks."""

    ok: bool
    events: int
    first_bad_seq: int | None
    reason: str


class _Numbers:
    """The next number of each sender that must leave none out."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def check(self, fact: Fact) -> str:
        """What is wrong with the fact's number, "" for nothing."""
        sender, number, event = fact.sender, fact.sender_seq, fact.event
        if sender != f"e{fact.epoch}" and _TRIAL.fullmatch(sender) is None:
            return ""  # a person's client may have been refused some
        expected = self._next.get(sender, 1)
        if isinstance(event, Thinned):
            if event.first != expected or event.last < event.first or not event.first <= number <= event.last:
                return f"{sender} left out {event.first} to {event.last}, its next number is {expected}"
            self._next[sender] = event.last + 1
            return ""
        if number != expected:
            return f"{sender} said number {number}, its next one is {expected}"
        self._next[sender] = number + 1
        return ""


def verify(path: Path) -> Verified:
    """Read the whole log. Raises `LogMissing`, `LogNewer` and `LogIO`; damage is an answer, no error."""
    events = 0
    try:
        with Reader(path) as reader:
            numbers, epoch = _Numbers(), 0
            for row in reader.rows():
                try:
                    fact = decode(row)
                except ValueError as error:
                    raise LogDamaged(row.seq, str(error)) from error
                if row.epoch < epoch:
                    raise LogDamaged(row.seq, f"event {row.seq} is of epoch {row.epoch}, one before it of {epoch}")
                epoch = row.epoch
                if wrong := numbers.check(fact):
                    raise LogDamaged(row.seq, wrong)
                events = row.seq
            if wrong := reader.integrity():
                raise LogDamaged(None, f"every event is as it was written, but SQLite says: {wrong}")
    except LogDamaged as error:
        return Verified(False, events, error.first_bad_seq, error.reason)
    if read_head(path) is None:
        return Verified(True, events, None, "events.head is missing or unreadable: a cut tail would not be seen")
    return Verified(True, events, None, "")
