"""A launch as the keeper sees it: its folder's files, read and written, and its spools, read forward.

Everything here can be made anew from the folder, so a keeper that dies loses nothing. The files are listed in
waiter.py; the keeper's own are `owner` (who started it), `parameters.json`, `alive` (empty, locked by the waiter),
`failed` (why it was never started), `reason` (why the keeper ended it) and `lost` (its waiter died without `exit`;
its mtime is the end).
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections import deque
from pathlib import Path

import msgspec
from msgspec import Struct

from . import spool, waiter
from .process_tree import REAL, Processes
from .process_tree import Process as ProcessLine
from .wire import Report

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
CHUNK = 256 << 10
STDERR_TAIL = 4096


class Owner(Struct, frozen=True):
    """Who started a launch, for a keeper on another host, after a reboot or in another container to know."""

    host: str
    boot: str
    namespace: str  # the inode of its pid namespace: only in there do its pids mean anything
    keeper: int
    started: int  # us
    group: str = ""  # the launch's control group, "" for none


def me() -> Owner:
    """The owner that this process is."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:  # no Linux
        boot = namespace = ""
    return Owner(socket.gethostname(), boot, namespace, os.getpid(), time.time_ns() // 1000)


class SpoolReader:
    """One process's spool, read forward in whole frames; what was sent and what was acknowledged of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = path.name.removesuffix(".spool")
        self.number = 0  # of the last report that was read
        self.offset = 0  # where it ends
        self.acked = 0  # the last acknowledged report whose end is known
        self.acked_offset = 0
        self.recorded = 0  # the highest acknowledgement
        self.flight: deque[tuple[int, int, int]] = deque()  # what was sent: last number, end offset, bytes
        self.unacked = 0  # bytes in flight
        self.limit: int | None = None  # where to stop: the size at the launch's end
        self.damaged = ""

    def rewind(self, recorded: int) -> None:
        """Go on after report `recorded`; nothing is in flight."""
        self.flight.clear()
        self.unacked = 0
        self.recorded = recorded
        if recorded < self.acked:
            self.acked = self.acked_offset = 0
        self.number, self.offset = self.acked, self.acked_offset
        while self.number < recorded:  # skip what is recorded
            end, count, _ = self._frames(self.offset, recorded - self.number)
            if not count:
                break
            self.offset, self.number = end, self.number + count
        self.acked, self.acked_offset = self.number, self.offset
        self.number = max(self.number, recorded)  # a power cut may have cost what the log has already

    def take(self) -> tuple[int, bytes] | None:
        """The next whole frames, about 256 KiB at most, as (first number, bytes); None when there are none now."""
        if self.damaged or (self.limit is not None and self.offset >= self.limit):
            return None
        end, count, data = self._frames(self.offset, 1 << 62)
        if not count:
            return None
        first = self.number + 1
        self.number += count
        self.offset = end
        self.flight.append((self.number, end, len(data)))
        self.unacked += len(data)
        return first, data

    def ack(self, number: int) -> int:
        """Take in an acknowledgement; how many bytes it took out of flight."""
        number = min(number, self.number)
        self.recorded = max(self.recorded, number)
        freed = 0
        while self.flight and self.flight[0][0] <= number:
            self.acked, self.acked_offset, size = self.flight.popleft()
            freed += size
        self.unacked -= freed
        return freed

    def report(self, number: int) -> Report | None:
        """Report `number`, decoded; None when the spool does not hold it (or not soundly)."""
        at, offset = (self.acked, self.acked_offset) if self.acked < number else (0, 0)
        while at < number:
            end, count, data = self._frames(offset, number - at)
            if not count:
                return None
            at, offset = at + count, end
            if at == number:
                last, _ = spool.scan(data, 0, count - 1)
                try:
                    return next((report for report in spool.parse(data[last:]) if report.number == number), None)
                except spool.SpoolDamaged:
                    return None
        return None

    def size(self) -> int:
        """Bytes in the file, 0 when it is not there."""
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0

    def _frames(self, offset: int, limit: int) -> tuple[int, int, bytes]:
        """(end, count, bytes) of whole frames from `offset` on."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return offset, 0, b""
        try:
            data = os.pread(fd, CHUNK, offset)
            end, count = spool.scan(data, 0, limit)
            if not count and len(data) == CHUNK:  # one frame that is longer than a chunk
                length = spool.HEADER + int.from_bytes(data[:4], "big")
                data = os.pread(fd, length, offset)
                end, count = spool.scan(data, 0, limit)
            return offset + end, count, data[:end]
        except (OSError, spool.SpoolDamaged) as error:
            self.damaged = str(error)
            return offset, 0, b""
        finally:
            os.close(fd)


class Folder:
    """`trials/<trial id>/<attempt>/`: questions to and statements in its files."""

    def __init__(self, path: Path, processes: Processes = REAL) -> None:
        self.path = path
        self._processes = processes

    def held(self) -> bool:
        """Whether the waiter lives: whether somebody holds the lock on `alive`."""
        try:
            fd = os.open(self.path / "alive", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def lock(self) -> int:
        """Make and lock `alive`; the file descriptor that holds the lock."""
        fd = os.open(self.path / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def leader(self) -> tuple[int, int] | None:
        """The inner shell's pid and start ticks; None when it never came to run the command."""
        text = self.text("pid")
        if not text.endswith("\n"):
            return None
        words = text.split()
        return (int(words[0]), int(words[1])) if len(words) == 2 and all(word.isdigit() for word in words) else None

    def waiter(self) -> ProcessLine | None:
        """The waiter's process, while it lives and holds its lock."""
        text = self.text("waiter").strip()
        if not text.isdigit() or not self.held():
            return None
        return self._processes.read(int(text))

    def started(self) -> int:
        """When the command was started, us."""
        return self.time("pid")

    def status(self) -> int | None:
        """The exit code as the waiter wrote it, -N for signal N; None when it wrote none."""
        text = self.text("exit").strip()
        return waiter.code(int(text)) if text.isdigit() else None

    def owner(self) -> Owner | None:
        """Who started it."""
        try:
            return msgspec.json.decode(self.text("owner"), type=Owner)
        except msgspec.DecodeError:
            return None

    def text(self, name: str) -> str:
        """A small file's text, "" when it is not there."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(1 << 16).decode(errors="replace")
        except OSError:
            return ""

    def time(self, name: str) -> int:
        """A file's mtime in us; 0 when it is not there."""
        try:
            return (self.path / name).stat().st_mtime_ns // 1000
        except OSError:
            return 0

    def write(self, name: str, text: str) -> None:
        """A small file, whole or not at all."""
        temporary = self.path / (name + ".new")
        temporary.write_text(text)
        temporary.replace(self.path / name)

    def stderr(self) -> str:
        """The end of stderr, 4 KiB of UTF-8 at most."""
        try:
            with (self.path / "stderr").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - STDERR_TAIL))
                tail = file.read(STDERR_TAIL)
        except OSError:
            return ""
        text = tail.decode(errors="replace")
        while len(text.encode()) > STDERR_TAIL:
            text = text[max(1, (len(text.encode()) - STDERR_TAIL) // 3) :]
        return text

    def spools(self) -> list[Path]:
        """The spools of all its processes."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(Path(entry.path) for entry in entries if entry.name.endswith(".spool"))
        except OSError:
            return []
