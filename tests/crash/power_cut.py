"""What a disk can hold after a power cut: reads what shim.c recorded, and makes images of the files at any moment.

The disk is honest about fsync and nothing else is promised: of what was written to a file since its last fsync any
part may be there, in units of 512 bytes, in any combination, a hole may hold zeros or garbage; of names made or removed
since the folder's last fsync the first few. The file `acks` says what had been promised by then.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CREATE, WRITE, SYNC, TRUNCATE, UNLINK, FOLDERSYNC, ACK = range(1, 8)
_HEAD = struct.Struct("<I32sIqq")
SECTOR = 512


@dataclass(frozen=True)
class Op:
    """One recorded call: on which file, where, and what."""

    op: int
    name: str
    offset: int = 0
    data: bytes = b""


def read(path: Path) -> list[Op]:
    """The calls in a record, in order."""
    raw = path.read_bytes()
    ops: list[Op] = []
    at = 0
    while at < len(raw):
        op, name, _, offset, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        data = raw[at : at + length] if length else b""
        at += length
        ops.append(Op(op, name.rstrip(b"\0").decode(), offset, data))
    return ops


@dataclass
class _Inode:
    safe: bytearray = field(default_factory=bytearray)  # what a cut can't take
    pending: list[Op] = field(default_factory=list)


class Disk:
    """The files of one folder: what is safe, and what still hangs in the air."""

    def __init__(self) -> None:
        self.acked: int | None = None
        self._live: dict[str, _Inode] = {}
        self._safe: dict[str, _Inode] = {}
        self._names: list[tuple[str, _Inode | None]] = []  # changes of names since the folder's last fsync

    def apply(self, op: Op) -> None:
        """Take one more recorded call."""
        if op.op == ACK:
            self.acked = max(int(line) for line in op.data.split())
        elif op.op == CREATE:
            self._live[op.name] = _Inode()
            self._names.append((op.name, self._live[op.name]))
        elif op.op == UNLINK:
            self._live.pop(op.name, None)
            self._names.append((op.name, None))
        elif op.op == FOLDERSYNC:
            self._safe = dict(self._live)
            self._names = []
        elif op.op in (WRITE, TRUNCATE):
            self._live[op.name].pending.append(op)
        elif op.op == SYNC:
            inode = self._live[op.name]
            for pending in inode.pending:
                _apply(inode.safe, pending)
            inode.pending = []

    def image(self, choose: random.Random) -> dict[str, bytes]:
        """One of the things that the folder may hold if the power goes now. Shared memory is not on any disk."""
        names = dict(self._safe)
        for name, inode in self._names[: choose.randint(0, len(self._names))]:
            if inode is None:
                names.pop(name, None)
            else:
                names[name] = inode
        style = choose.randrange(6)
        return {name: bytes(_torn(inode, style, choose)) for name, inode in names.items() if not name.endswith("-shm")}


def _apply(content: bytearray, op: Op) -> None:
    if op.op == TRUNCATE:
        if op.offset < len(content):
            del content[op.offset :]
        else:
            content.extend(bytes(op.offset - len(content)))
        return
    if op.offset > len(content):
        content.extend(bytes(op.offset - len(content)))
    content[op.offset : op.offset + len(op.data)] = op.data


def _torn(inode: _Inode, style: int, choose: random.Random) -> bytearray:
    """The safe part with some of the pending: 0 all, 1 none, 2 a prefix of calls, 3 any calls, 4 any sectors, 5 any
    sectors, with garbage instead of zeros where the file grew without its data."""
    content = bytearray(inode.safe)
    pending = inode.pending
    if style == 1 or not pending:
        return content
    if style == 0:
        for op in pending:
            _apply(content, op)
        return content
    if style == 2:
        cut = choose.randrange(len(pending) + 1)
        for op in pending[:cut]:
            _apply(content, op)
        if cut < len(pending):
            _some_sectors(content, pending[cut], choose, 0.5, False)
        return content
    keep = choose.choice((0.1, 0.5, 0.9))
    for op in pending:
        if op.op == TRUNCATE or style == 3:
            if choose.random() < keep:
                _apply(content, op)
        else:
            _some_sectors(content, op, choose, keep, style == 5)
    return content


def _some_sectors(content: bytearray, op: Op, choose: random.Random, keep: float, garbage: bool) -> None:
    if op.op == TRUNCATE:
        return
    at, end = op.offset, op.offset + len(op.data)
    while at < end:
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        if choose.random() < keep:
            if at > len(content):
                hole = at - len(content)
                content.extend(choose.randbytes(hole) if garbage else bytes(hole))
            content[at:stop] = op.data[at - op.offset : stop - op.offset]
        at = stop


def images(ops: list[Op], count: int, choose: random.Random) -> Iterator[tuple[int, int | None, dict[str, bytes]]]:
    """`count` images spread over all moments of a record: the moment, what had been promised by then, the files."""
    moments = sorted(choose.randrange(len(ops) + 1) for _ in range(count))
    disk = Disk()
    done = 0
    for moment in moments:
        while done < moment:
            disk.apply(ops[done])
            done += 1
        yield moment, disk.acked, disk.image(choose)
