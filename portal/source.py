"""What the portal shows: one experiment's state, folded from its log as that grows, and a way to its engine.

The portal sees an experiment as everybody does. The log is read; the engine, while one runs, says over its socket how
far the log is durable and takes requests. With no engine everything stays visible, and nothing can be asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Collection
from typing import Any, NamedTuple

from ..engine import client, home, views
from ..engine.errors import TuneError
from ..engine.events import Fact, Parameter, Row, decode
from ..engine.log import LogError, Reader
from ..engine.mirror import Mirror
from ..engine.requests import PersonsRequest
from ..engine.state import State, Trial

KEPT = 200_000  # changes of trials that are remembered for a page that comes back
_AT_ONCE = 200  # requests that are put before the first is answered
_COPY = 20.0  # seconds in which another host has to give a piece of a file
_AWAY = 2.0  # seconds in which one that gave none is not asked again
_LOOK = 0.5  # seconds between two looks for an engine where none runs
COLUMNS = (
    "number",
    "id",
    "status",
    "reason",
    "attempt",
    "parameters",
    "final",
    "value",
    "host",
    "pid",
    "exit_code",
    "created",
    "started",
    "ended",
    "intermediates",
    "last",
    "phases",
    "continues",
)


_NOTHING = array("d")


class Change(NamedTuple):
    """What came after a seq: up to which one, and the trials that it touched (None: more than is remembered)."""

    seq: int
    trials: Collection[int] | None


class ReadOnly(TuneError):
    """No engine runs: the log can be looked at, nothing can be changed."""


class Source:
    """One experiment. Made by `opened`, kept up to date by `run`; all in one event loop."""

    def __init__(self, folder: home.Folder, *, commands: bool = True) -> None:
        self.folder = folder
        self.commands = commands  # False: whatever runs, this portal only shows
        self._view = client.View(folder)
        self._client: client.Client | None = None
        self._changes: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self._first = self._view.state.seq  # changes after this one are remembered
        self._grown = asyncio.Condition()
        self.version = 0  # grows with everything that a page may want to know
        self._past: client.View | None = None
        self._past_guard = asyncio.Lock()
        self._mirror: Mirror | None = None
        self._away: dict[str, tuple[float, str]] = {}  # hosts that gave no file: until when nobody asks again, and why

    @property
    def state(self) -> State:
        """The experiment now, read-only."""
        return self._view.state

    @property
    def seq(self) -> int:
        """The last event that is folded in."""
        return self._view.state.seq

    @property
    def engine(self) -> bool:
        """Whether an engine can be asked."""
        return self._client is not None and self.commands

    # -- following ------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Follow the experiment, through as many engines as come, until cancelled."""
        try:
            await self._follow()
        finally:
            if self._mirror is not None:
                await self._mirror.close()

    async def _follow(self) -> None:
        while True:
            reached = await client.Client.connect(self.folder)
            if reached is not None:
                self._client = reached
                await self._tell()
                try:
                    async for seq in reached.watch():
                        await self._catch_up(seq)
                finally:
                    self._client = None
                    await reached.close()
                await self._catch_up(None)
                await self._tell()  # that the engine has gone
            await self._catch_up(None)
            await asyncio.sleep(_LOOK)

    async def _catch_up(self, upto: int | None) -> None:
        if upto is not None and upto <= self.seq:
            return
        facts = self._view.catch_up(upto)
        if not facts:
            return
        for fact in facts:
            number = fact.trial if fact.trial is not None else self._trial_of(fact)
            if number is not None:
                self._note(fact.seq, number)
        await self._tell()

    async def last_words(self) -> None:
        """Take in what the log got at its end, so that every page hears of it."""
        await self._catch_up(None)
        await self._tell()

    def _trial_of(self, fact: Fact) -> int | None:
        sender = self.state.senders.get(fact.sender)
        return sender.trial if sender is not None else None

    def _note(self, seq: int, number: int) -> None:
        if len(self._changes) == KEPT:
            self._first = self._changes[0][0]
        if self._changes and self._changes[-1][1] == number:
            self._changes[-1] = (seq, number)  # a run of reports of one trial is one change
        else:
            self._changes.append((seq, number))

    async def _tell(self) -> None:
        async with self._grown:
            self.version += 1
            self._grown.notify_all()

    async def news(self, version: int, patience: float) -> bool:
        """Wait until something is other than at `version`, at most so many seconds; False when nothing is."""
        async with self._grown:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait_for(lambda: self.version != version), patience)
        return self.version != version

    def changed(self, seq: int) -> Change:
        """The trials that what came after `seq` has touched."""
        if seq < self._first:
            return Change(self.seq, None)
        found: dict[int, None] = {}
        for at, number in reversed(self._changes):
            if at <= seq:
                break
            found[number] = None
        return Change(self.seq, sorted(found))

    # -- asking ---------------------------------------------------------------------------------------------------
    async def ask(self, *requests: PersonsRequest) -> None:
        """Have the engine do these, many in one commit; `ReadOnly` when none runs, `Refused` when one can't be done."""
        engine = self.need_engine()
        for first in range(0, len(requests), _AT_ONCE):
            await asyncio.gather(*map(engine.ask, requests[first : first + _AT_ONCE]))

    def need_engine(self) -> client.Client:
        """The engine that can be asked; `ReadOnly` when there is none."""
        if self._client is None or not self.commands:
            raise ReadOnly(
                f"no engine runs for experiment {self.folder.id}"
                if self.commands
                else "this portal only shows the experiment",
                f"tune resume {self.folder.id}",
            )
        return self._client

    # -- the past -------------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def at(self, seq: int | None) -> AsyncGenerator[State]:
        """The state as it was after event `seq`, while the block runs; now for None. `ValueError` for none there yet.

        One past state is kept and folded on, so only one is looked at at a time.
        """
        if seq is None or seq == self.seq:
            yield self.state
            return
        if not 0 < seq <= self.seq:
            raise ValueError(f"there is no event {seq}; allowed: 1 to {self.seq}")
        async with self._past_guard:
            yield await asyncio.to_thread(self._fold_to, seq)

    def _fold_to(self, seq: int) -> State:
        past = self._past
        if past is None or past.state.seq > seq:
            if past is not None:
                past.close()
            past = self._past = client.View(self.folder, upto=seq)
        past.catch_up(seq)
        return past.state

    def rows(self, after: int, before: int | None, limit: int) -> list[Row]:
        """Rows of the log after `after`, below `before`, at most `limit`. `TuneError` for a damaged one."""
        last = self.seq if before is None else min(before - 1, self.seq)
        if after >= last:
            return []
        try:
            with Reader(self.folder.events) as reader:
                return list(reader.rows(after=after, upto=min(last, after + limit)))
        except LogError as error:
            raise TuneError(str(error)) from error

    def decisions(self, number: int, upto: int) -> list[dict[str, Any]]:
        """What the log holds on why the phases of a trial have their parameters. `TuneError` for a damaged one."""
        try:
            with Reader(self.folder.events) as reader:
                events = [decode(row).event for row in reader.rows_of(number, "PARAMETER", upto)]
        except (LogError, ValueError) as error:
            raise TuneError(str(error)) from error
        return [
            {"phase": one.phase, "seen": one.seen, "parents": one.parents, "decision": one.decision or None}
            for one in events
            if isinstance(one, Parameter)
        ]

    async def copied(self, one: Trial, name: str) -> str:
        """Have what a trial on another host wrote until now; why that can't be had, "" when it is there."""
        now = time.monotonic()
        if one.host in self._away and now < self._away[one.host][0]:
            return self._away[one.host][1]
        if self._mirror is None:
            self._mirror = Mirror(self.folder, self.state.settings)
        try:
            async with asyncio.timeout(_COPY):
                await self._mirror.output(one, name)
        except (TuneError, TimeoutError) as error:
            reason = str(error) or f"host {one.host} gives no file within {_COPY:g} s"
            self._away[one.host] = time.monotonic() + _AWAY, reason
            return reason
        return ""

    def close(self) -> None:
        """Let go of the log."""
        self._view.close()
        if self._past is not None:
            self._past.close()


def status(source: Source, state: State, port: int | None) -> dict[str, Any]:
    """The status object, and what a page wants besides."""
    folder = source.folder
    found = views.status(state, folder=folder.path, pid=client.engine_pid(folder), port=port, log=folder.events)
    done = state.counts["SUCCEEDED"] + state.counts["EARLY_STOPPED"] + state.counts["FAILED"]
    hours = state.clock / 3_600_000_000
    rate = done / hours if hours > 0 else None
    most = state.settings.max_trial_number
    over = sum(state.counts.values()) - state.counts["WAITING"] - state.counts["RUNNING"]
    left = None if most is None else max(most - over, 0)
    return {
        **found,
        "seq": state.seq,
        "readonly": not source.engine,
        "clock": state.clock / 1_000_000,
        "trials_per_hour": rate,
        "eta": left / rate * 3600 if left and rate else None,
        "warnings": list(state.warnings),
        "tuner": state.settings.tuner.title,
        "asking": [{"trial": ask.trial, "reason": ask.reason} for ask in state.asks.values()],
        "multi_phase": state.settings.multi_phase,
    }


def row(state: State, one: Trial) -> list[Any]:
    """A trial as the table shows it, in the order of `COLUMNS`; JSON texts stay as they were written."""
    phase = one.phases[-1] if one.phases else None
    series = phase.intermediate if phase is not None else _NOTHING
    return [
        one.number,
        one.id,
        one.status,
        views.reason(state, one),
        one.attempt,
        phase.parameters if phase is not None else None,
        phase.final if phase is not None else None,
        phase.value if phase is not None else None,
        one.host or None,
        one.pid,
        one.exit_code,
        views.time(one.created_us),
        views.time(one.started_us),
        views.time(one.ended_us),
        len(series),
        views.number(series[-1]) if len(series) else None,
        len(one.phases),
        one.continues,
    ]


def rows(state: State, numbers: Collection[int] | None) -> list[list[Any]]:
    """The rows of these trials, or of all."""
    trials = state.trials
    if numbers is None:
        return [row(state, one) for one in state.made]
    chosen = (trials[number] for number in numbers if number < len(trials))
    return [row(state, one) for one in chosen if one is not None]
