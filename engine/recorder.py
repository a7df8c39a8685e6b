"""The log of a study that runs in ordinary code: one thread whose private event loop holds log, lock and door.

`put` takes facts from any thread, `wait` returns when they are durable. The log is that of log.py, with all its
guarantees: what queued up while the last commit ran is one commit. The loop is nobody else's, so it works inside a
notebook, whose own loop runs already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import TypeAlias

from .door import Watcher, open_door
from .errors import TuneError
from .events import Fact, encode
from .home import Folder
from .lock import Lock, LockHeld
from .log import Log, LogError
from .requests import PersonsRequest

LINGER = 0.05  # seconds that a batch of mere intermediates may wait


Submit: TypeAlias = Callable[[PersonsRequest], int]
"""Takes a person's request, folds and puts its facts: the seq that the answer waits for. Raises `Refused`."""


def hold(folder: Folder) -> Lock:
    """Take the experiment's lock for this process; `TuneError` when somebody has it."""
    try:
        lock = Lock.take(folder.lock)
    except LockHeld as error:
        pid = error.holder.get("pid", "?")
        here = " (this very process: close() that study first)" if pid == os.getpid() else ""
        raise TuneError(
            f"an engine already runs this experiment: pid {pid} on {error.holder.get('host', '?')}{here}",
            f"tune view {folder.id} shows it, tune stop {folder.id} stops it.",
        ) from error
    lock.write(_me())
    return lock


def _me() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


class Recorder:
    """The writer of one log, from `start` to `close`. The lock is given back at the end, however that comes."""

    def __init__(self, folder: Folder, lock: Lock, submit: Submit) -> None:
        self.folder = folder
        self.watchers: set[Watcher] = set()
        self._lock, self._submit = lock, submit
        self._changed = threading.Condition()
        self._batch: list[Fact] = []
        self._durable = 0
        self._closing = False
        self._error: Exception | None = None
        self._ready = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._committed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name=f"log of {folder.id}", daemon=True)
        self._epoch = 1
        self._expect: tuple[int, bytes] | None = None

    @property
    def last_seq(self) -> int:
        """How far the log is durable."""
        return self._durable

    def start(self, epoch: int, expect: tuple[int, bytes] | None) -> None:
        """Make the log, or (with `expect`, a reader's `last`) open it, as this incarnation. `TuneError`."""
        self._epoch, self._expect = epoch, expect
        self._durable = expect[0] if expect is not None else 0
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error is not None)
        if self._error is not None:
            self._thread.join()
            raise self._failed()

    def put(self, facts: list[Fact], *, urgent: bool = True) -> None:
        """Have these written, in this order, as a whole or not at all. Never waits; a linger is LINGER at most."""
        with self._changed:
            if self._error is not None:
                raise self._failed()
            self._batch += facts
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._wake.set if urgent else self._linger)

    def wait(self, seq: int) -> None:
        """Return when everything up to `seq` is durable; `TuneError` when it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._durable >= seq or self._error is not None)
            if self._durable < seq:
                raise self._failed()

    def finish(self) -> None:
        """Write what was put, close the log and give the lock back; returns at once."""
        with self._changed:
            self._closing = True
            if self._loop is not None and self._error is None and self._thread.is_alive():
                with contextlib.suppress(RuntimeError):  # its loop has just closed
                    self._loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """`finish`, and wait for it. Raises `TuneError` when something could not be written."""
        self.finish()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._error is not None:
            raise self._failed()

    async def ask(self, request: PersonsRequest) -> None:
        """A request through the door: done when it is durable; raises `Refused`."""
        seq = self._submit(request)
        while self._durable < seq:
            if self._error is not None:
                raise self._failed()
            await self._committed.wait()

    # -- the thread -----------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # whatever it was, nobody may wait for this thread for ever
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._lock.release()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        log = await Log.open(self.folder.events, create=self._expect is None, expect=self._expect)
        try:
            log.take(self._epoch)
            async with open_door(self, self.folder.data) as path:
                self._lock.write({**_me(), "socket": str(path)})
                with self._changed:
                    self._ready = True
                    self._changed.notify_all()
                await self._write(log)
        finally:
            self._committed.set()
            await log.close()

    async def _write(self, log: Log) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            with self._changed:
                batch, self._batch = self._batch, []
                closing = self._closing
            if batch:
                await log.append([encode(fact) for fact in batch])
                with self._changed:
                    self._durable = log.last_seq
                    self._changed.notify_all()
                committed, self._committed = self._committed, asyncio.Event()
                committed.set()
                for watcher in list(self.watchers):
                    watcher.durable(log.last_seq)
            if closing:
                await asyncio.sleep(0)  # an answer through the door that waited for this commit goes out first
                return

    def _linger(self) -> None:
        if self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_later(LINGER, self._lingered)

    def _lingered(self) -> None:
        self._timer = None
        self._wake.set()

    def _failed(self) -> TuneError:
        error = self._error
        if isinstance(error, LogError):
            return TuneError(f"the log can't be written: {error}", f"tune verify {self.folder.id} checks it.")
        return TuneError(f"the log of experiment {self.folder.id} is closed" if error is None else str(error))
