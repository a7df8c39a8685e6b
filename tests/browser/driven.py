"""A Chromium that can't hold up the tests: it is driven in a thread of its own, and ended by its processes' numbers.

Playwright's blocking calls run an event loop within the thread that makes them. An exception that a signal raises there
(pytest-timeout's, Ctrl-C) ends that loop for good, and the next call, in a teardown at the latest, never returns.
Signals only reach the main thread. That one waits here, never longer than it was told; when the time is over, or a
signal has come, the browser's processes are killed, and whatever waited for them fails.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
LAST_WORDS = 10.0  # seconds for a call whose browser was killed to say where it waited

_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


class Stuck(AssertionError):
    """Something in the browser has not ended in time."""


class Driven:
    """The browser; begun when it is first wanted, and anew after it had to be killed."""

    def __init__(self, executable: str) -> None:
        self._executable = executable
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] | None = None
        self._driver = 0  # the pid of Playwright's process, whose child Chromium is
        self._browser: Any = None
        self._playwright: Any = None
        self.killed = 0  # how often; what was opened before the last time is gone

    def do(self, call: Callable[[], Result], patience: float) -> Result:
        """What `call` gives or raises, made in the browser's thread; `Stuck` after so many seconds."""
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name="browser", daemon=True).start()
        answer: Future[Result] = Future()
        self._calls.put((call, answer))
        try:
            return answer.result(patience)
        except BaseException as error:
            if answer.done():
                raise  # it is the call's own
            self.kill()
            if not isinstance(error, TimeoutError):
                raise
            why = None
            with contextlib.suppress(TimeoutError):
                why = answer.exception(LAST_WORDS)
            raise Stuck(f"the browser has not done it within {patience:g} s") from why

    def context(self, **options: Any) -> Any:
        """A profile of its own in the browser; call it, and use it, within `do`."""
        if self._browser is None:
            from playwright.sync_api import sync_playwright

            before = _children(os.getpid())
            self._playwright = playwright = sync_playwright().start()
            (self._driver,) = _children(os.getpid()) - before
            self._browser = playwright.chromium.launch(
                executable_path=self._executable, args=_ARGUMENTS, timeout=40_000
            )
        return self._browser.new_context(**options)

    def end(self) -> None:
        """Close it as one should, or, when that does not work, kill it."""
        browser = self._browser
        if browser is not None:
            with contextlib.suppress(Exception):
                self.do(browser.close, LAST_WORDS)
                self.do(self._playwright.stop, LAST_WORDS)
        self.kill()

    @property
    def processes(self) -> list[int]:
        """Playwright's process, Chromium, and all of Chromium's."""
        return _tree(self._driver) if self._driver else []

    def kill(self) -> None:
        """End its processes, and let go of the thread: what waits there fails."""
        self.killed += 1
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._calls is not None:
            self._calls.put(None)
        self._calls = self._browser = None
        self._driver = 0


def _serve(calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    """Make the calls, one after the other, until None comes."""
    while (wanted := calls.get()) is not None:
        call, answer = wanted
        try:
            answer.set_result(call())
        except BaseException as error:  # a failed assertion, a skip: whoever waits raises it
            answer.set_exception(error)


def _children(of: int) -> set[int]:
    """The processes whose parent this one is."""
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == of:
                found.add(int(entry.parent.name))
    return found


def _tree(root: int) -> list[int]:
    """A process and all below it, from the top."""
    return [root, *(pid for child in _children(root) for pid in _tree(child))]
