"""The flood policy: how many of a process's intermediate results go into the log when it reports without end.

A trial that reports each millisecond would write 15 GB a day. Its first 100,000 reports are recorded one and all; of
those after, every 10th up to a million, every 100th up to ten millions, every 1,000th beyond. What is left out is said:
each run of it is one THINNED fact with its first and last number. Finals and requests are never left out. The rule
looks at a report's number alone, so it is the same for a resumed engine and for a report that comes twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..trial_sdk.wire import Report

FULL = 100_000


def one_in(number: int) -> int:
    """Every how manieth intermediate is recorded around the report `number`."""
    step, limit = 1, FULL
    while number > limit and step < 1000:
        step, limit = step * 10, limit * 10
    return step


def thinned(reports: Iterable[Report]) -> Iterator[Report | tuple[int, int]]:
    """The reports to be recorded, in order, and between them the runs (first, last) that are left out."""
    first = last = 0
    for report in reports:
        number = report.number
        if number > FULL and report.kind == "I" and number % one_in(number):
            first, last = first or number, number
            continue
        if first:
            yield first, last
            first = 0
        yield report
    if first:
        yield first, last
