"""How a concurrent tuner is asked: each ask in a thread of its own, or, for an `async def suggest`, as a coroutine.

There is no pool: asks that wait for each other's trials would fill one and then wait for ever. An ask begins when the
one before it has answered or waits for something (at most `SETTLE` seconds later), so that asks which choose first and
wait then choose in the log's order, in the first life of a tuner and in every rebuild.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from .plugins import Ask, Ended, Observation

SETTLE = 0.1  # seconds until an ask that neither answers nor waits no longer holds up the next one
_WAITS = frozenset({"wait", "wait_for", "acquire", "join", "_wait_for_tstate_lock"})  # in threading.py

Done: TypeAlias = Callable[[Any, BaseException | None], None]


class Calls(Protocol):
    """Where a concurrent tuner's code runs. What `run` is given and every `done` happen one at a time."""

    def start(self, ask: Ask, done: Done) -> None:
        """Ask; `done` gets the answer, or what was raised, whenever that comes."""
        ...

    def run(self, action: Callable[[], None]) -> None:
        """Do something in turn, and wait until it is done."""
        ...

    def observed(self, fact: Observation) -> None:
        """The tuner has observed a fact: whoever waits for it goes on."""
        ...


class Threads:
    """For a plain `suggest`, which may block."""

    def __init__(self, suggest: Callable[[Ask], Any]) -> None:
        self._suggest = suggest
        self._turn = threading.RLock()

    def start(self, ask: Ask, done: Done) -> None:
        """Start a thread, and let it come to rest."""

        def answer() -> None:
            found, error = None, None
            try:
                found = self._suggest(ask)
            except (Exception, SystemExit) as raised:
                error = raised
            with self._turn:
                done(found, error)

        thread = threading.Thread(target=answer, name=f"ask {ask.number}", daemon=True)
        thread.start()
        end = time.monotonic() + SETTLE
        while thread.is_alive() and not _waits(thread) and time.monotonic() < end:
            thread.join(0.001)

    def run(self, action: Callable[[], None]) -> None:
        """Do it in this thread."""
        with self._turn:
            action()

    def observed(self, fact: Observation) -> None:
        """Nobody is told: such a tuner has events of its own."""


class Loop:
    """For an `async def suggest`: all asks and all observations share one thread."""

    def __init__(self, suggest: Callable[[Ask], Any]) -> None:
        self._suggest = suggest
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: dict[tuple[int, int], Ended] = {}
        self._waiting: dict[tuple[int, int], list[asyncio.Future[Ended]]] = {}
        threading.Thread(target=self._loop.run_forever, name="asks", daemon=True).start()

    def start(self, ask: Ask, done: Done) -> None:
        """Start a task, and let it run up to its first wait."""
        rests = threading.Event()

        async def answer() -> None:
            found, error = None, None
            try:
                found = await self._suggest(ask)
            except (Exception, SystemExit) as raised:
                error = raised
            done(found, error)

        def begin() -> None:
            task = self._loop.create_task(answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._loop.call_soon(rests.set)

        self._loop.call_soon_threadsafe(begin)
        rests.wait()

    def run(self, action: Callable[[], None]) -> None:
        """Do it in the thread of the asks."""
        box: concurrent.futures.Future[None] = concurrent.futures.Future()

        def act() -> None:
            try:
                action()
            except (Exception, SystemExit) as raised:
                box.set_exception(raised)
            else:
                box.set_result(None)

        self._loop.call_soon_threadsafe(act)
        box.result()

    def observed(self, fact: Observation) -> None:
        """Let those go on that wait for this end."""
        if isinstance(fact, Ended):
            self._ended[fact.trial, fact.phase] = fact
            for future in self._waiting.pop((fact.trial, fact.phase), []):
                if not future.done():
                    future.set_result(fact)

    def result_of(self, trial: int, phase: int) -> asyncio.Future[Ended]:
        """The end of a phase, once it is observed; for `Ask.result_of`."""
        future: asyncio.Future[Ended] = self._loop.create_future()
        found = self._ended.get((trial, phase))
        if found is not None:
            future.set_result(found)
        else:
            self._waiting.setdefault((trial, phase), []).append(future)
        return future


def _waits(thread: threading.Thread) -> bool:
    """Whether a thread is inside a wait of the module `threading`: an event, a condition, a queue, a semaphore."""
    frame = sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage]  # the documented way
    if frame is None:
        return False
    return frame.f_globals.get("__name__") == "threading" and frame.f_code.co_name in _WAITS
