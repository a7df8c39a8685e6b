"""What the shell needs of the world: clocks, the log's file, the tuner's process. Here they are the real ones.

A simulation hands another `Ports` to the shell, and the shell does not notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from .events import Row
from .log import Log, Reader
from .tuner_link import TunerProcess, start_tuner_host


class Clock:
    """The run clock: microseconds in which engines of this experiment ran. Monotonic; not the wall clock."""

    def __init__(self, before: int = 0) -> None:
        self._start = time.monotonic_ns() // 1000 - before

    def now(self) -> int:
        """The run clock now."""
        return time.monotonic_ns() // 1000 - self._start

    @staticmethod
    def monotonic() -> float:
        """Seconds that never go back; only differences mean anything."""
        return time.monotonic()

    @staticmethod
    def wall() -> int:
        """The wall clock, in us."""
        return time.time_ns() // 1000


class LogWriter(Protocol):
    """The one writer of a log (log.py's `Log`)."""

    epoch: int
    last_seq: int

    def take(self, epoch: int) -> None:
        """Write as this incarnation of the engine from now on."""
        ...

    async def append(self, rows: Sequence[Row]) -> None:
        """Write the batch; it is durable when this returns."""
        ...

    async def close(self) -> None:
        """End the handle."""
        ...


class LogReader(Protocol):
    """Reads a log (log.py's `Reader`)."""

    last: tuple[int, bytes]

    def rows(self, after: int = 0, upto: int | None = None) -> Iterator[Row]:
        """The rows with after < seq <= upto, checked."""
        ...


class Ports:
    """The real world."""

    def clock(self, before: int = 0) -> Clock:
        """A run clock that starts at `before` us."""
        return Clock(before)

    async def create_log(self, path: Path, on_full: Callable[[str], None] | None) -> LogWriter:
        """Make a log."""
        return await Log.open(path, create=True, on_full=on_full)

    async def open_log(self, path: Path, expect: tuple[int, bytes], on_full: Callable[[str], None] | None) -> LogWriter:
        """Open a log that was read up to `expect`, for writing."""
        return await Log.open(path, create=False, expect=expect, on_full=on_full)

    def read_log(self, path: Path) -> AbstractContextManager[LogReader]:
        """Open a log for reading, in any thread."""
        return Reader(path)

    async def start_tuner(self, output: Path, gpus: list[int] | None = None) -> TunerProcess:
        """Start a tuner host; what it prints goes to `output`. `gpus`: what it may use, None: as the environment has
        it. `OSError` when it can't be started."""
        return await start_tuner_host(output, gpus)
