"""The simulated ports of the engine: its log's disk, its clocks, and a tuner host in the same process.

`Disk` is what is durable. A `SimLog` writes it as log.py's rules say: whole batches, dense numbers, a sender's number
once, an older epoch refused, a full disk waited for, any other error the end of the handle.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim_loop import Node, SimLoop
from sim_network import End

from tune.engine import host_wire, tuner_host
from tune.engine.events import Row
from tune.engine.log import LogFenced, LogIO
from tune.engine.ports import Clock, Ports
from tune.trial_sdk.wire import Framer

if TYPE_CHECKING:
    from world import World


class Disk:
    """What is on the disk of the engine's host, and how that disk is just now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: list[Row] = []
        self.numbers: dict[str, int] = {}  # the highest number of each sender
        self.exists = False
        self.full = False
        self.slow = 0.0
        self.fail_next = ""  # "before": EIO and nothing is written; "after": EIO although it was

    def write(self, rows: Sequence[Row]) -> None:
        """One statement: as a whole or not at all."""
        last = self.rows[-1] if self.rows else None
        for index, row in enumerate(rows):
            if row.seq != len(self.rows) + index + 1:
                raise LogFenced("somebody else writes this log")
            if last is not None and row.epoch < last.epoch:
                raise LogFenced("a newer engine has taken the log over")
        fresh: dict[str, int] = {}
        for row in rows:
            known = fresh.get(row.sender, self.numbers.get(row.sender, 0))
            if row.sender_seq <= known:
                raise LogIO(f"UNIQUE constraint failed: {row.sender} {row.sender_seq}")
            fresh[row.sender] = row.sender_seq
        self.numbers.update(fresh)
        self.rows += rows
        self.world.committed(rows)


class SimLog:
    """The writer's handle."""

    def __init__(self, disk: Disk, dice: random.Random, on_full: Callable[[str], None] | None) -> None:
        self.disk, self.dice, self._on_full = disk, dice, on_full
        self.epoch = 0
        self.last_seq = len(disk.rows)
        self._dead: Exception | None = None

    def take(self, epoch: int) -> None:
        self.epoch = epoch

    async def append(self, rows: Sequence[Row]) -> None:
        if self._dead is not None:
            raise type(self._dead)(f"the log can't be written any more: {self._dead}")
        if not rows:
            return
        disk, dice = self.disk, self.dice
        try:
            await asyncio.sleep(dice.uniform(0.0001, 0.004) + dice.uniform(0.0, disk.slow))
            told = False
            while disk.full:
                if not told and self._on_full is not None:
                    told = True
                    self._on_full("the disk is full")
                await asyncio.sleep(1.0)
            if any(row.epoch != self.epoch for row in rows) or rows[0].seq != self.last_seq + 1:
                raise ValueError("rows that don't fit")
            fail, disk.fail_next = disk.fail_next, ""
            if fail == "before":
                raise LogIO("EIO")
            disk.write(rows)
            await asyncio.sleep(dice.uniform(0.0001, 0.002) + dice.uniform(0.0, disk.slow))
            if fail == "after":
                raise LogIO("EIO")
        except (LogFenced, LogIO) as error:
            self._dead = error
            raise
        self.last_seq = rows[-1].seq

    async def close(self) -> None:
        await asyncio.sleep(0.001)


class SimReader:
    """Reads the disk."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.last = (0, b"")

    def rows(self, after: int = 0, upto: int | None = None) -> Iterator[Row]:
        found = self.disk.rows[after:upto]
        for row in found:
            self.last = (row.seq, b"")
            yield row


class SimClock(Clock):
    """The engine's clocks: virtual."""

    def __init__(self, world: World, before: int) -> None:
        self.world = world
        self._from = world.loop.time() - before / 1e6

    def now(self) -> int:
        return round((self.world.loop.time() - self._from) * 1e6)

    def monotonic(self) -> float:  # type: ignore[override]
        return self.world.loop.time() + 5000.0

    def wall(self) -> int:  # type: ignore[override]
        return self.world.wall()


class SimTuner(asyncio.Protocol):
    """A tuner host's process: the real `Host` behind a simulated pipe, that takes its time to think."""

    def __init__(self, world: World, node: Node, dice: random.Random) -> None:
        self.world, self.node, self.dice = world, node, dice
        self.host = tuner_host.Host()
        self.framer = Framer()
        self.todo: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: End | None = None
        self.code = -9

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for body in self.framer.feed(data):
            self.todo.put_nowait(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.world.loop.kill(self.node)

    async def serve(self) -> None:
        """Start up, then one message after the other."""
        await asyncio.sleep(self.dice.uniform(0.01, 0.3))
        while not self.host.over:
            message = host_wire.read_to_host(await self.todo.get())
            if isinstance(message, host_wire.AskNow):
                await asyncio.sleep(self.dice.uniform(0.0005, 0.02))
            for reply in self.host.handle(message):
                assert self.transport is not None
                self.transport.write(host_wire.from_host(reply))
        self.code = 1
        assert self.transport is not None
        self.transport.close()


class SimTunerProcess:
    """The engine's handle of it."""

    def __init__(
        self, loop: SimLoop, tuner: SimTuner, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader, self.writer = reader, writer
        self._loop, self._tuner = loop, tuner
        self._gone = asyncio.Event()
        tuner.node.on_kill.append(self._gone.set)

    def kill(self) -> None:
        self._loop.kill(self._tuner.node)

    async def wait(self) -> int:
        await self._gone.wait()
        return self._tuner.code


class SimPorts(Ports):
    """The ports of one engine process."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.dice = random.Random(f"{world.seed}/{node.name}")
        self.tuners: list[Node] = []
        node.on_kill.append(self._end_tuners)

    def _end_tuners(self) -> None:
        for tuner in self.tuners:  # the pipe closes with the engine, and the host ends with its pipe
            self.world.loop.kill(tuner)

    def clock(self, before: int = 0) -> Clock:
        return SimClock(self.world, before)

    async def create_log(self, path: Path, on_full: Callable[[str], None] | None) -> SimLog:
        await asyncio.sleep(self.dice.uniform(0.0, 0.01))
        self.world.disk.exists = True
        return SimLog(self.world.disk, self.dice, on_full)

    async def open_log(self, path: Path, expect: tuple[int, bytes], on_full: Callable[[str], None] | None) -> SimLog:
        if len(self.world.disk.rows) != expect[0]:
            raise LogFenced("it grew since it was read")
        return SimLog(self.world.disk, self.dice, on_full)

    def read_log(self, path: Path) -> contextlib.AbstractContextManager[SimReader]:
        return contextlib.nullcontext(SimReader(self.world.disk))

    async def start_tuner(self, output: Path, gpus: list[int] | None = None) -> SimTunerProcess:
        loop = self.world.loop
        await asyncio.sleep(self.dice.uniform(0.0, 0.01))
        node = loop.node(f"{self.node.name}.tuner{len(self.tuners)}")
        self.tuners.append(node)
        tuner = SimTuner(self.world, node, random.Random(f"{self.world.seed}/{node.name}"))

        def dial(protocol: asyncio.BaseProtocol) -> End:
            ours, theirs = self.world.network.pair(self.node, node, "tuner")
            ours.protocol, theirs.protocol = protocol, tuner
            protocol.connection_made(ours)
            tuner.connection_made(theirs)
            return ours

        reader, writer = self.world.network.streams(dial)
        loop.spawn(node, tuner.serve())
        return SimTunerProcess(loop, tuner, reader, writer)
