"""Following an experiment while its engine runs: a live view in a terminal, plain lines in a pipe, and the end's code.

What is shown is a fold over the log, like everything; the engine only says how far that is durable. A follower may
die at any moment, and the engine goes on. Its Ctrl-C or TERM is `tune stop`, the second one without grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..engine import views
from ..engine.client import Client, View, engine_pid
from ..engine.errors import TuneError
from ..engine.events import Fact, Metric, TrialEnd
from ..engine.home import Folder
from ..engine.progress import LABEL, ended, frame, last_line, trial_line
from ..engine.requests import AskStop
from ..engine.state import State
from .interrupts import Interrupts
from .reading import emit, note, printable, printable_lines, say_json

if TYPE_CHECKING:
    from rich.text import Text

_REFRESH = 0.15  # seconds between two pictures of the live view, at least
_TICK = 1.0  # and at most, for the clock in it
_GONE_STEP = 0.02  # seconds between two looks at the lock of an engine that has said good-bye
_KEPT = 400  # results that the spark line may show


Ends: TypeAlias = Collection[tuple[int, int]]  # trials that had ended before, by number and attempt


class Screen(Protocol):
    """Where a follower shows what it sees."""

    def begin(self, state: State, before: Ends) -> None:
        """The log has been read up to here; `before`: the trials that had ended when the engine started."""
        ...

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """The state has come this far; these facts are new."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def ends_of(state: State) -> Ends:
    """The trials that have ended, by number and attempt."""
    return {(one.number, one.attempt) for one in state.made if one.over}


def watch(folder: Folder, interrupts: Interrupts, actor: str, *, json: bool = False, before: Ends = ()) -> State:
    """Follow an engine that was started until it has ended: the last state, which is not `finished` if it died.

    A live view in a terminal, else a line for each trial that ends and is not in `before`; nothing with `json`.
    """
    view = View(folder)
    try:
        screen: Screen = Silent() if json else Plain()
        if not json and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            screen = Live(view.state)
        try:
            screen.begin(view.state, before)
            return asyncio.run(_Follower(folder, view, screen, interrupts, actor).run())
        finally:
            screen.close()
    finally:
        view.close()


class _Follower:
    def __init__(self, folder: Folder, view: View, screen: Screen, interrupts: Interrupts, actor: str) -> None:
        self._folder, self._view, self._screen = folder, view, screen
        self._interrupts, self._actor = interrupts, actor
        self._client: Client | None = None
        self._struck = asyncio.Event()
        if interrupts.count:
            self._struck.set()

    async def run(self) -> State:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._interrupts.fd, self._strike)
        watching = asyncio.create_task(self._watch(), name="watch")
        beside = [
            asyncio.create_task(self._stop(watching), name="stop"),
            asyncio.create_task(self._tick(), name="clock"),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the third Ctrl-C: leave it to the engine
                await watching
        finally:
            loop.remove_reader(self._interrupts.fd)
            for task in beside:
                task.cancel()
            for outcome in await asyncio.gather(*beside, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome
        return self._view.state

    async def _watch(self) -> None:
        """Show what comes until no engine is there any more."""
        while True:
            client = await Client.connect(self._folder)
            if client is not None:
                self._client = client
                if self._interrupts.count:
                    self._struck.set()
                try:
                    async for seq in client.watch():
                        self._catch_up(seq)
                finally:
                    self._client = None
                    await client.close()
            self._catch_up()
            if engine_pid(self._folder) is None:
                break
            await asyncio.sleep(_GONE_STEP)  # it is closing its log; or it lives and has hung up
        self._catch_up()

    def _catch_up(self, upto: int | None = None) -> None:
        if upto is None or upto > self._view.state.seq:
            facts = self._view.catch_up(upto)
            if facts:
                self._screen.show(self._view.state, facts)

    def _strike(self) -> None:
        self._interrupts.drain()
        self._struck.set()

    async def _stop(self, watching: asyncio.Task[None]) -> None:
        said = 0
        while True:
            await self._struck.wait()
            self._struck.clear()
            count = self._interrupts.count
            if count > max(said, 2):
                note(f"experiment {self._folder.id} is still being stopped; tune status {self._folder.id} shows it")
                watching.cancel()
                return
            if said < count == 1:
                grace = self._view.state.settings.stop_grace
                note(f"stopping: trials have {grace} to end; Ctrl-C again kills them at once")
            said = count
            if self._client is not None:
                with contextlib.suppress(TuneError):  # it has ended meanwhile: what was asked for is so
                    await self._client.ask(AskStop(self._actor, force=count > 1))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._screen.show(self._view.state, ())


# -- the end ----------------------------------------------------------------------------------------------------------
def conclude(
    state: State, folder: Folder, interrupted: bool, json: bool, more: Mapping[str, object] | None = None
) -> int:
    """Say how it ended, and the exit code for it; `TuneError` when the engine died before the end.

    `more` belongs into the status object of `json`.
    """
    pid = engine_pid(folder)
    if json:
        say_json({**views.status(state, folder=folder.path, pid=pid, log=folder.events), **(more or {})})
    if not state.finished:
        if pid is not None:
            return 130  # left by a third Ctrl-C
        raise TuneError("the engine died", f"Go on with: tune resume {folder.id}")
    failed = bool(state.made) and all(one.status in ("FAILED", "LOST") for one in state.made)
    if not json:
        _, *rest = printable_lines(state.reason) or [""]
        for line in rest:
            note(f"  {line}")
        if failed and state.status == "DONE":
            last = max(state.made, key=lambda one: one.ended_us)
            note(f"all trials failed; trial {last.number}: {printable(last.reason)}")
            for line in printable_lines(views.stderr_tail(last)):
                note(f"  {line}")
        emit(last_line(state) + "\n")
        if state.status in ("PAUSED", "STOPPED"):
            note(f"go on with: tune resume {folder.id}")
    if state.status == "STOPPED" and interrupted:
        return 130
    return 0 if state.status == "DONE" and not failed else 1


# -- screens ----------------------------------------------------------------------------------------------------------
class Silent:
    """Shows nothing."""

    def begin(self, state: State, before: Ends) -> None:
        """Nothing."""

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Plain:
    """One line for each trial that has ended, for pipes and files."""

    def begin(self, state: State, before: Ends) -> None:
        """Say which trials ended while the log was being read."""
        for number, _ in sorted(set(ends_of(state)) - set(before)):
            emit(trial_line(state, state.trial(number)) + "\n")

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Say which trials have ended for good."""
        for one in ended(state, facts):
            emit(trial_line(state, one) + "\n")

    def close(self) -> None:
        """Nothing is open."""


class Live:
    """A picture of the experiment that stays in place in a terminal."""

    def __init__(self, state: State) -> None:
        from rich.console import Console
        from rich.live import Live as Picture

        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._picture = Picture(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._results = [phase.value for one in state.made for phase in one.phases if phase.value is not None][-_KEPT:]
        self._last = ""
        self._state = state
        self._began = time.monotonic() - state.clock / 1_000_000
        self._drawn = 0.0
        self._picture.start()

    def begin(self, state: State, before: Ends) -> None:
        """Draw the first picture."""
        self._draw()

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Take in the facts, and draw unless that was just done."""
        for fact in facts:
            event = fact.event
            if isinstance(event, Metric) and event.final and not event.ignored and fact.trial is not None:
                value = state.trial(fact.trial).phases[event.phase].value
                if value is not None:
                    self._results.append(value)
            elif isinstance(event, TrialEnd) and fact.trial is not None and state.trial(fact.trial).over:
                self._last = trial_line(state, state.trial(fact.trial))
        del self._results[:-_KEPT]
        self._state = state
        if time.monotonic() - self._drawn >= _REFRESH:
            self._draw()

    def close(self) -> None:
        """Leave the last picture where it is."""
        self._draw()
        self._picture.stop()

    def _draw(self) -> None:
        lasted = round((time.monotonic() - self._began) * 1_000_000)
        lines = frame(self._state, self._results, self._last, lasted, self._console.width)
        self._picture.update(_styled(lines), refresh=True)
        self._drawn = time.monotonic()


def _styled(lines: list[tuple[str, str]]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for index, (label, line) in enumerate(lines):
        style = {"best": "bold green", "tune": "bold", "warning": "yellow", "results": "cyan", "reports": "cyan"}
        text.append("\n" if index else "")
        text.append(f"{label:<{LABEL}}", "dim")
        text.append(line, style.get(label, ""))
    return text
