"""The spool: a trial process's own append-only file of numbered reports, which outlives every process.

A record is `u32 length | u32 crc32 | body`, big-endian, where the body is a msgpack `wire.Report` and the checksum is
that of the body. Numbers are 1, 2, 3 ... without gaps, so the n-th frame of a spool is report n. What a crash leaves
half-written at the end is a *torn tail*: readers stop before it, the writer cuts it off before its first append.
A frame of length 0 is never written; a run of zeros, as a power cut can leave it, is a torn tail too.
"""

from __future__ import annotations

import os
from zlib import crc32

import msgspec

from .wire import MAX_FRAME, Report

HEADER = 8
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Report)


class SpoolDamaged(Exception):
    """A whole frame of a spool is not what was written."""


def frame(report: Report) -> bytes:
    """One record; `ValueError` when the report is too long for any reader."""
    body = _encoder.encode(report)
    if len(body) > MAX_FRAME - 4096:  # room for what the wire puts around it
        raise ValueError(f"a report of {len(body)} bytes is too long")
    return len(body).to_bytes(4, "big") + crc32(body).to_bytes(4, "big") + body


def scan(buffer: bytes | memoryview, offset: int, limit: int = 1 << 62) -> tuple[int, int]:
    """Where the whole frames that start at `offset` end, and how many they are, `limit` at most.

    Walks lengths and nothing else, so it is cheap; `SpoolDamaged` when a length can't be true.
    """
    end = len(buffer)
    count = 0
    while end - offset >= HEADER and count < limit:
        length = int.from_bytes(buffer[offset : offset + 4], "big")
        if length > MAX_FRAME:
            raise SpoolDamaged(f"a frame claims {length} bytes, the limit is {MAX_FRAME}")
        stop = offset + HEADER + length
        if length == 0 or stop > end:
            break
        offset = stop
        count += 1
    return offset, count


def _report(data: bytes | memoryview, offset: int, stop: int) -> Report:
    """The report in one whole frame, checked."""
    body = data[offset + HEADER : stop]
    if crc32(body) != int.from_bytes(data[offset + 4 : offset + HEADER], "big"):
        raise SpoolDamaged(f"the frame at byte {offset} has a wrong checksum")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpoolDamaged(f"the frame at byte {offset} is no report: {error}") from None


def parse(data: bytes) -> list[Report]:
    """The reports in whole frames, a torn tail left out; `SpoolDamaged` when one of them is not as written."""
    reports: list[Report] = []
    offset = 0
    while True:
        stop, count = scan(data, offset, 1)
        if not count:
            return reports
        report = _report(data, offset, stop)
        if reports and report.number != reports[-1].number + 1:
            raise SpoolDamaged(f"report {report.number} follows report {reports[-1].number}")
        reports.append(report)
        offset = stop


def salvage(data: bytes, first: int) -> list[Report]:
    """The reports in whole frames whose first has the number `first`, damaged ones among them.

    What stands in the place of a damaged report has its number and the kind "X": so the others still count, in order.
    """
    reports: list[Report] = []
    offset = 0
    while True:
        stop, count = scan(data, offset, 1)
        if not count:
            return reports
        number = first + len(reports)
        try:
            report = _report(data, offset, stop)
        except SpoolDamaged:
            report = Report(number, "X", 0)
        reports.append(report if report.number == number else Report(number, "X", 0))
        offset = stop


def _sound(data: bytes) -> tuple[int, int]:
    """Where the sound part of a spool ends, and its last number: what a crash tore at the end doesn't count.

    The last frame may be whole by its length and torn inside (its page was not written back); anything wrong before
    it is damage, and `SpoolDamaged`.
    """
    offset = number = 0
    while True:
        try:
            stop, count = scan(data, offset, 1)
            if not count:
                return offset, number
            report = _report(data, offset, stop)
        except SpoolDamaged:
            length = int.from_bytes(data[offset : offset + 4], "big")
            if offset + HEADER + length >= len(data):
                return offset, number
            raise
        if report.number != number + 1:
            raise SpoolDamaged(f"report {report.number} follows report {number}")
        offset, number = stop, report.number


class Spool:
    """The writer: one process's own spool, opened for appending. Not thread-safe: its owner holds a lock.

    `number` is that of the last report. Errors of the disk are `OSError`s; after one the file is as before it, or, when
    even the cut failed, will be before the next report is written. A sync that failed once fails for ever: the kernel
    reports what it could not write back a single time, and calls the next fsync a success.
    """

    __slots__ = ("_end", "_fd", "_folder_synced", "_torn", "_unsynced", "number", "path")

    def __init__(self, path: str) -> None:
        """Open or create `path`, and cut off what a crash tore; `SpoolDamaged` when more than the tail is broken."""
        self.path = path
        self._folder_synced = False
        self._torn = False  # there may be half a report behind `_end`
        self._unsynced = ""  # why a sync failed
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(self._fd).st_size
            self._end, self.number = _sound(_read(self._fd, size)) if size else (0, 0)
            if size > self._end:
                os.ftruncate(self._fd, self._end)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, kind: str, phase: int, value: str = "") -> int:
        """Write one report by one write, and give its number. It is then safe from the death of any process."""
        number = self.number + 1
        data = frame(Report(number, kind, phase, value))
        if self._torn:
            self._cut()
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                # A full disk or a file size limit takes a part; the rest, tried alone, names the reason.
                os.write(self._fd, data[written:])
                if os.fstat(self._fd).st_size != self._end + len(data):
                    raise OSError(f"{self.path}: a report was not written whole")
        except BaseException:
            self._torn = True  # nothing half-written may stand before the next report
            self._cut()
            raise
        self._end += len(data)
        self.number = number
        return number

    def _cut(self) -> None:
        os.ftruncate(self._fd, self._end)
        self._torn = False

    def sync(self) -> None:
        """Return when all reports, and the names of the file and its folders, are on the disk."""
        if self._unsynced:
            raise OSError(f"{self.path}: an earlier sync failed: {self._unsynced}")
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._unsynced = str(error)
            raise
        if not self._folder_synced:
            folder = os.path.dirname(os.path.abspath(self.path))  # noqa: PTH120, PTH100 -- pathlib is dear in a trial
            for _ in range(3):  # <attempt>, <trial id>, trials
                fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
                folder = os.path.dirname(folder)  # noqa: PTH120
            self._folder_synced = True

    def close(self) -> None:
        """Close the file; further appends fail."""
        os.close(self._fd)


def _read(fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    offset = 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
