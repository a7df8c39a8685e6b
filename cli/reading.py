"""What the verbs that read an experiment share: opening its log, finding a trial in it, and printing for people.

Whatever came out of a log, a trial or a file system goes through `printable` before a terminal sees it: a name or a
line of stderr must not move the cursor or hide text.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import sys
import unicodedata
from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from ..engine import home, views
from ..engine.client import View, engine_pid, status
from ..engine.errors import TuneError, UsageError
from ..engine.state import State, Trial
from ..engine.texts import infeasible_text as infeasible_text
from ..engine.texts import json_text, no_best_text, number_text, printable
from ..engine.texts import printable_lines as printable_lines
from ..engine.texts import result_text as result_text
from ..engine.texts import span as span

Reference: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="Id of the experiment or the beginning of one, or the path of its log. "
        "Left out: the only running one, else the newest."
    ),
]
Json: TypeAlias = Annotated[
    bool, Parameter(name="--json", negative=(), help="Print JSON, and nothing else, to stdout.")
]
Follow: TypeAlias = Annotated[
    bool, Parameter(name=["--follow", "-f"], negative=(), help="Go on with what comes, until it has ended.")
]

GAP = "  "


class Opened:
    """An experiment whose log was read: its folder, its state, and who runs it."""

    def __init__(self, folder: home.Folder, view: View) -> None:
        self.folder = folder
        self.view = view

    @property
    def state(self) -> State:
        """What the log says, as far as it was read."""
        return self.view.state

    @property
    def pid(self) -> int | None:
        """The pid of the engine; None when nobody holds the lock."""
        return engine_pid(self.folder)

    def status(self) -> dict[str, Any]:
        """The status object of `--json`."""
        return status(self.folder, self.state)


@contextlib.contextmanager
def opened(reference: str | None) -> Generator[Opened, None, None]:
    """Find an experiment and read its log; raises `UsageError` and `TuneError`."""
    with opened_at(home.find(reference)) as experiment:
        yield experiment


@contextlib.contextmanager
def opened_at(folder: home.Folder) -> Generator[Opened, None, None]:
    """Read the log of an experiment that was found; raises `TuneError`."""
    view = View(folder)
    try:
        if view.state.config is None:
            raise TuneError(f"the log of experiment {folder.id} is empty", "Its engine is starting, or never did.")
        if view.unknown:
            note(f"warning: {printable(view.unknown)}")
        yield Opened(folder, view)
    finally:
        view.close()


def actor() -> str:
    """Who asks, for the log: the user's name and this process."""
    try:
        return f"{getpass.getuser()} (pid {os.getpid()})"
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()} (pid {os.getpid()})"


def find_trial(state: State, text: str) -> Trial:
    """The trial with this number or id; `UsageError` when there is none."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        with contextlib.suppress(KeyError):
            return state.trial(int(text))
    elif text in state.ids:
        return state.trial(state.ids[text])
    made = len(state.made)
    known = f"It has {made} trials so far; see them with: tune trials {state.id}" if made else "It has none so far."
    raise UsageError(f"experiment {state.id} has no trial {text!r}", known)


def aside(yes: bool) -> contextlib.AbstractContextManager[object]:
    """What user code prints in a block goes to stderr: it must not stand between our lines."""
    return contextlib.redirect_stdout(sys.stderr) if yes else contextlib.nullcontext()


# -- printing ---------------------------------------------------------------------------------------------------------
def say(text: str = "") -> None:
    """One text and a line's end to stdout, also where the terminal's encoding lacks some of its characters."""
    _write(sys.stdout, f"{text}\n")


def note(text: str) -> None:
    """One text and a line's end to stderr."""
    _write(sys.stderr, f"{text}\n")


def emit(text: str) -> None:
    """A text as it is to stdout, at once."""
    _write(sys.stdout, text)
    sys.stdout.flush()


def say_json(value: Any) -> None:
    """A view as one line of JSON to stdout."""
    say(views.to_json(value).decode())


def best_text(state: State) -> str:
    """The best result in a few characters: its number, or how large the Pareto front is; "-" for none."""
    if state.settings.objectives:
        return f"{len(state.front)} on the front" if state.front else "-"
    return number_text(state.best and state.best.value)


def front_table(state: State) -> None:
    """The Pareto front as a table to stdout, or why there is none."""
    front = views.pareto(state) or []
    if not front or front[0]["violation"]:
        say(no_best_text(state))
    if not front:
        return
    keys = [printable(key) for key in state.settings.objectives]
    rows = [
        (
            f"{one['trial']}/{one['phase']}" if state.settings.multi_phase else str(one["trial"]),
            *map(number_text, one["values"].values()),
            json_text(one["parameters"]),
        )
        for one in front
    ]
    table(("TRIAL", *keys, "PARAMETERS"), rows, right=range(1 + len(keys)))


def moment(wall_us: int) -> str:
    """A wall clock's time for people: local, to the second; "-" for none."""
    if wall_us <= 0:
        return "-"
    try:
        return datetime.fromtimestamp(wall_us // 1_000_000).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "-"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Aligned columns to stdout; those in `right` are flush right. In a terminal lines end at its edge."""
    cells = [list(heads), *map(list, rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        padded = [
            " " * (size - width(text)) + text if column in right else text + " " * (size - width(text))
            for column, (text, size) in enumerate(zip(row, widths, strict=True))
        ]
        say(shortened(GAP.join(padded).rstrip()))


def shortened(line: str) -> str:
    """The line, cut at the edge of the terminal when stdout is one."""
    if not sys.stdout.isatty():
        return line
    room = shutil.get_terminal_size().columns
    if width(line) <= room:
        return line
    found, used = "", 1
    for one in line:
        used += width(one)
        if used > room:
            break
        found += one
    return found + "…"


def width(text: str) -> int:
    """How many columns a printable text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _write(stream: Any, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
