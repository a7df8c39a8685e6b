"""The lock: a file that at most one process in the world holds, and that says who and where that process is.

A held lock is a `flock`, so it ends with its process, however that dies; the JSON in the file only says whose it is.
Peeking at it takes a shared lock for an instant, so a process that takes the lock tries for a moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Any, cast

import msgspec

_PATIENCE = 0.25  # seconds; a peek lasts microseconds
_STEP = 0.005
_MAX = 65536  # bytes of JSON that are read


class LockHeld(Exception):
    """Another process holds the lock; `holder` is what it wrote, {} if that can't be read."""

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        who = f"pid {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
        super().__init__(f"{path} is held by {who}")
        self.path = path
        self.holder = holder


class Lock:
    """A lock that this process holds, from `Lock.take` to `release` or its death.

    A child that is forked without exec shares the lock and keeps it alive; descriptors don't pass an exec.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Lock:
        """Take the lock, making its file (0600) if there is none; `LockHeld` after a quarter of a second."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):
                    os.ftruncate(descriptor, 0)
                    return cls(path, descriptor)
                os.close(descriptor)  # the file was deleted meanwhile: this lock is nobody's
            except BlockingIOError:
                holder = _content(descriptor)
                os.close(descriptor)
                if time.monotonic() >= deadline:
                    raise LockHeld(path, holder or {}) from None
                time.sleep(_STEP)
            except BaseException:
                os.close(descriptor)
                raise

    def write(self, content: dict[str, Any]) -> None:
        """Say who holds the lock: JSON, {"pid", "host", "socket" ...}."""
        data = msgspec.json.encode(content)
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def release(self) -> None:
        """Give the lock back; its file stays. Releasing twice is fine."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.ftruncate(descriptor, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def peek(path: Path) -> dict[str, Any] | None:
    """What the holder of the lock wrote; None when nobody holds it, {} when that can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        for _ in range(5):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if (content := _content(descriptor)) is not None:
                    return content
                time.sleep(_STEP)  # half-written, or just taken
            else:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                return None
        return {}
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> dict[str, Any] | None:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = msgspec.json.decode(os.pread(descriptor, _MAX, 0))
        if isinstance(content, dict):
            return cast("dict[str, Any]", content)
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
