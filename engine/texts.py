"""An experiment's values in words for people: a result, a stretch of time, text that moves no cursor and hides nothing.

Pure functions. Whatever came out of a log, a trial or a file system goes through `printable` before it is shown.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import views
from .constraints import ABSENT
from .state import Phase, State


def printable(text: str) -> str:
    """The text on one line, with everything that a terminal would not simply show written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\N{NO-BREAK SPACE}" else one.encode("unicode_escape").decode()
        for one in text
    )


def printable_lines(text: str) -> list[str]:
    """The lines of a text, each printable; tabs are blanks."""
    return [printable(line) for line in text.expandtabs().splitlines()]


def json_text(value: Any) -> str:
    """A view as a person reads it: JSON with blanks after commas, printable."""
    text = msgspec.json.format(views.to_json(value), indent=0).decode()
    return printable(text.replace("\n", " "))


def number_text(value: Any) -> str:
    """A result for people: six digits of a number, JSON of anything else, "-" for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value) if isinstance(value, str) else json_text(value)


def result_text(state: State, phase: Phase | None) -> str:
    """A counted result for people: its number, or `accuracy=0.9,latency=3` with several objectives; "-" for none."""
    if phase is None or phase.value is None:
        return "-"
    pairs = zip(state.settings.objectives, phase.values, strict=False)
    several = ",".join(f"{printable(key)}={number_text(value)}" for key, value in pairs)
    return several or number_text(phase.value)


def infeasible_text(phase: Phase | None) -> str:
    """What to say of a result that fails the outcome constraints; "" for one that does not."""
    if phase is None or phase.value is None or not phase.violation:
        return ""
    if phase.violation == ABSENT:
        return "fails the outcome constraints: it lacks a number that they ask for"
    return f"fails the outcome constraints by {number_text(phase.violation)}"


def no_best_text(state: State) -> str:
    """Why there is no best result, or none on the Pareto front that meets the outcome constraints."""
    found = views.nearest(state)
    if found is None:
        return "no result yet"
    number, phase = found
    return f"no feasible result yet: trial {number} comes nearest, it {infeasible_text(phase)}"


def span(microseconds: int) -> str:
    """A stretch of time for people: 4.2s, 3m 05s, 2h 07m, 3d 04h."""
    seconds = max(microseconds, 0) / 1_000_000
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 24 else f"{hours // 24}d {hours % 24:02}h"
