"""Where `Experiment` shows how far it is: a line for each trial that ends, or in a notebook one output that updates."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

from .events import Fact
from .progress import LABEL, ended, frame, last_line, trial_line
from .state import State

_REFRESH = 0.5  # seconds between two pictures in a notebook, at least
_COLUMNS = 110
_KEPT = 400  # results that the spark line may show


class Screen(Protocol):
    """What is shown while an experiment is followed."""

    def say(self, text: str) -> None:
        """One line that stays."""
        ...

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """The state has come this far; these facts are new."""
        ...

    def close(self, state: State) -> None:
        """Nothing more will come."""
        ...


def choose() -> Screen:
    """The screen for where this program runs."""
    room: Any = sys.modules.get("IPython")
    shell: Any = None if room is None else room.get_ipython()
    return Cell() if getattr(shell, "kernel", None) is not None else Lines()


class Lines:
    """One line for each trial that has ended, and one at the end: the same as `tune create` prints into a pipe."""

    def say(self, text: str) -> None:
        """One line."""
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))  # whole: threads mix lines
        sys.stdout.flush()

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Say which trials have ended for good."""
        for one in ended(state, facts):
            self.say(trial_line(state, one))

    def close(self, state: State) -> None:
        """Say how it ended."""
        if state.finished:
            self.say(last_line(state))


class Cell(Lines):
    """One output of a notebook's cell that updates in place, however many trials there are."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display").display
        self._handle: Any = None
        self._drawn = 0.0
        self._ahead = 0.0  # of the experiment's clock, which only facts tell
        self._last = ""

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Draw, unless that was just done."""
        new = list(facts)
        if state.config is None:
            return
        now = time.monotonic()
        if new or not self._ahead:
            self._ahead = now - state.clock / 1_000_000
        for one in ended(state, new):
            self._last = trial_line(state, one)
        if now - self._drawn >= _REFRESH:
            self._draw(state, round((now - self._ahead) * 1_000_000))

    def close(self, state: State) -> None:
        """Draw the last picture."""
        self._last = last_line(state) if state.finished else self._last
        self._draw(state, state.clock)

    def _draw(self, state: State, lasted_us: int) -> None:
        self._drawn = time.monotonic()
        content = bundle(picture(state, self._last, lasted_us))
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def picture(state: State, last: str, lasted_us: int) -> list[tuple[str, str]]:
    """The lines of the live view: a label and a text each."""
    values = [phase.value for one in state.made for phase in one.phases if phase.value is not None]
    return frame(state, values[-_KEPT:], last, lasted_us, _COLUMNS)


def bundle(lines: list[tuple[str, str]]) -> dict[str, str]:
    """Lines as what a notebook shows: plain text, and HTML in which nothing of somebody's is markup."""
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td><td><code>{html.escape(line)}</code></td></tr>" for label, line in lines
    )
    style = "<style scoped>td{text-align:left!important;vertical-align:top}code{white-space:pre-wrap}</style>"
    return {
        "text/plain": "\n".join(f"{label:<{LABEL}}{line}".rstrip() for label, line in lines),
        "text/html": f"<div>{style}<table>{rows}</table></div>",
    }
