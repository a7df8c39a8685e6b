"""Forwarding: reports from the spools of a host to the engine, fairly and within bounds (the keeper's K4 to K7).

Spools are read in whole frames that nobody decodes. What is in flight is bounded per process and in all; processes
take turns; acknowledgements open the windows again and free the processes that wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from . import channel, wire
from .crash_point import point
from .launches import NAME, SpoolReader
from .peers import Connection, Key, Launch, log

PROCESS_WINDOW = 1 << 20
ENGINE_WINDOW = 8 << 20


class Forwarder:
    """The way from spools to one engine. `drained` is called when a launch may have nothing left to send."""

    def __init__(self, launches: Mapping[Key, Launch], drained: Callable[[Launch], None]) -> None:
        self._launches = launches
        self._drained = drained
        self.engine: Connection | None = None
        self.in_flight = 0
        self.ready: dict[tuple[str, int, str], tuple[Launch, SpoolReader]] = {}  # in the order of their turns
        self._pumping = False

    def say(self, message: channel.FromKeeper) -> None:
        """Send a message to the engine, if there is one."""
        if self.engine is not None:
            self.engine.send(message)

    def reset(self) -> None:
        """The engine went: what it was sent and did not acknowledge does not count for the next one."""
        self.ready.clear()
        self.in_flight = 0
        for launch in self._launches.values():
            for reader in launch.spools.values():
                reader.rewind(reader.recorded)
            for connection in launch.connections:
                connection.asked = False

    def begin(self, launch: Launch, recorded: dict[str, int]) -> None:
        """The engine asks for a launch: send what comes after the recorded numbers of its processes."""
        self.look(launch)
        for name, reader in launch.spools.items():
            self.in_flight -= reader.unacked
            reader.rewind(recorded.get(name, 0))
            self.turn(launch, reader)
        for connection in launch.connections:
            connection.asked = False
            self.serve(launch, connection)

    def drop(self, launch: Launch) -> None:
        """Nothing more is to be sent of this launch."""
        for reader in launch.spools.values():
            self.in_flight -= reader.unacked
            self.ready.pop((*launch.key, reader.process), None)
        launch.spools.clear()
        self.pump_soon()

    def more(self, launch: Launch, process: str) -> None:
        """There may be more in this process's spool."""
        reader = launch.spools.get(process)
        if reader is None:
            path = launch.folder.path / f"{process}.spool"
            if not path.exists():
                return
            reader = launch.spools[process] = SpoolReader(path)
        self.turn(launch, reader)

    def look(self, launch: Launch) -> None:
        """Find new spools, and those with more in them than was sent."""
        for path in launch.folder.spools():
            name = path.name.removesuffix(".spool")
            if name not in launch.spools and NAME.match(name):
                launch.spools[name] = SpoolReader(path)
        for reader in launch.spools.values():
            if reader.size() > reader.offset:
                self.turn(launch, reader)

    def turn(self, launch: Launch, reader: SpoolReader) -> None:
        """Let this process have its turn, if it may send now."""
        if launch.told and launch.started.is_set() and self.engine is not None and reader.unacked < PROCESS_WINDOW:
            self.ready[(*launch.key, reader.process)] = (launch, reader)
            self.pump_soon()

    def pump_soon(self) -> None:
        """Forward when the loop comes round."""
        if not self._pumping and self.ready:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """K6: forward, a chunk a turn, while the windows are open; a bounded amount at a time."""
        self._pumping = False
        for _ in range(16):
            if not self.ready or self.engine is None or self.in_flight >= ENGINE_WINDOW:
                return
            key, (launch, reader) = next(iter(self.ready.items()))
            del self.ready[key]
            taken = reader.take()
            if taken is None:
                if reader.damaged and reader.limit != reader.offset:
                    log(f"{reader.path}: {reader.damaged}")
                if reader.damaged or launch.over:
                    reader.limit = reader.offset  # nothing whole is left
            else:
                first, data = taken
                point("keeper.read")
                self.in_flight += len(data)
                self.say(channel.Reports(*launch.key, reader.process, first, data))
                if reader.unacked < PROCESS_WINDOW:
                    self.ready[key] = (launch, reader)  # at the end of the queue
            for connection in launch.connections:
                if connection.process == reader.process and connection.waiting:
                    self.serve(launch, connection)
            self._drained(launch)
        self.pump_soon()

    def ack(self, message: channel.Ack) -> None:
        """The engine has recorded reports: go on, and tell who waits for it."""
        launch = self._launches.get((message.trial, message.attempt))
        reader = launch.spools.get(message.process) if launch is not None else None
        if launch is None or reader is None:
            return
        self.in_flight -= reader.ack(message.number)
        for connection in launch.connections:
            if connection.process == message.process and connection.waiting:
                if reader.recorded >= connection.waiting:
                    self.serve(launch, connection)
                else:
                    connection.send(wire.Recorded(reader.recorded))
        if reader.limit is None or reader.offset < reader.limit:
            self.turn(launch, reader)
        self.pump_soon()

    def serve(self, launch: Launch, connection: Connection) -> None:
        """K7: what a waiting process can be told now, or the engine about it."""
        reader = launch.spools.get(connection.process)
        number = connection.waiting
        if reader is None or not number or not launch.told or self.engine is None or number > reader.number:
            return
        if not connection.kind:
            report = reader.report(number)
            connection.kind = report.kind if report is not None else "?"
        if connection.kind == "R":
            if not connection.asked:
                connection.asked = True
                self.say(channel.TrialWaits(*launch.key, connection.process, number))
        elif reader.recorded >= number:
            connection.waiting = 0
            connection.send(wire.Recorded(reader.recorded))

    def answer(self, message: channel.Answer) -> None:
        """Pass parameters on to the process that asked for them, if it is there."""
        launch = self._launches.get((message.trial, message.attempt))
        if launch is None:
            return
        for connection in launch.connections:
            if connection.process == message.process and connection.waiting == message.number:
                connection.waiting, connection.asked = 0, False
                connection.send(wire.Parameters(message.number, message.phase, message.parameters))
