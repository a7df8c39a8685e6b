"""Who talks to a keeper: a connection, which its first message makes a trial's process or the engine, and a launch.

Bytes come in here and messages go out; what they mean is the business of a `Handler`, the keeper.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from . import channel, process_tree, wire
from .launches import SpoolReader
from .machine import Machine

TRIAL_BUFFER = 4 << 20  # what may wait to be read by a trial
GREETING = 30.0  # seconds in which a connection must say what it is

_first: msgspec.msgpack.Decoder[wire.Hello | channel.Attach] = msgspec.msgpack.Decoder(wire.Hello | channel.Attach)
_from_trial: msgspec.msgpack.Decoder[wire.FromTrial] = msgspec.msgpack.Decoder(wire.FromTrial)
Key = tuple[str, int]


def log(line: str) -> None:
    """A line to stderr, which is `keeper.log`."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f"{stamp} keeper {os.getpid()}: {line}\n")
    sys.stderr.flush()


class Handler(Protocol):
    """What is told of messages."""

    def greeted(self, connection: Connection, message: wire.Hello | channel.Attach) -> None:
        """A connection said what it is."""
        ...

    def from_trial(self, connection: Connection, message: wire.FromTrial) -> None:
        """A trial's process said something."""
        ...

    def from_engine(self, connection: Connection, message: channel.ToKeeper) -> None:
        """The engine said something."""
        ...

    def lost(self, connection: Connection) -> None:
        """A connection ended."""
        ...


class Launch:
    """One launch that this keeper knows: running, or over and not yet forgotten."""

    def __init__(self, trial: str, attempt: int, path: Path, machine: Machine | None = None) -> None:
        machine = machine or Machine()
        self.trial, self.attempt = trial, attempt
        self.folder = machine.folder(path)
        self.tree = process_tree.Tree(os.fsencode(path), machine.processes)
        self.spools: dict[str, SpoolReader] = {}
        self.connections: dict[Connection, None] = {}  # in the order in which they came
        self.started = asyncio.Event()  # the inner shell is there, or never will be
        self.over = False
        self.told = False  # the present engine knows of it
        self.exited_said = False
        self.failed = ""
        self.ending: asyncio.Task[None] | None = None
        self.kill_at = 0.0
        self.watch = -1  # the machine's handle of the watch on its waiter
        self.mine = True
        self.piped = False  # the inner shell's pid comes by a pipe

    @property
    def key(self) -> Key:
        """Trial id and attempt."""
        return self.trial, self.attempt


class Connection(asyncio.Protocol):
    """One connection: frames in, messages out. It becomes a trial's process or the engine by its first message."""

    first: msgspec.msgpack.Decoder[Any] = _first  # of what it may say first: a greeting

    def __init__(self, keeper: Handler) -> None:
        self._keeper = keeper
        self._framer = wire.Framer()
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.TimerHandle | None = None
        self.launch: Launch | None = None
        self.process = ""
        self.waiting = 0
        self.kind = ""  # of the waited-for report, once it is known
        self.asked = False  # the engine was told of this request
        self.engine: channel.Attach | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the greeting, for a while."""
        self._transport = cast("asyncio.Transport", transport)
        self._greeting = asyncio.get_running_loop().call_later(GREETING, self.close)

    def data_received(self, data: bytes) -> None:
        """Frames, each to whom it is for; garbage ends the connection (K12)."""
        try:
            for body in self._framer.feed(data):
                if self.engine is not None:
                    self._keeper.from_engine(self, wire.decode(channel.to_keeper, body))
                elif self.launch is not None:
                    self._keeper.from_trial(self, wire.decode(_from_trial, body))
                else:
                    if self._greeting is not None:
                        self._greeting.cancel()
                    self._keeper.greeted(self, wire.decode(self.first, body))
                if self._transport is None or self._transport.is_closing():
                    return
        except wire.WireError as error:
            log(f"a connection was ended: {error}")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the keeper."""
        if self._greeting is not None:
            self._greeting.cancel()
        self._transport = None
        self._keeper.lost(self)

    def send(self, message: wire.ToTrial | channel.FromKeeper) -> None:
        """Send a message; a trial that does not read is dropped."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(wire.frame(channel.encoder.encode(message)))
        if self.engine is None and self._transport.get_write_buffer_size() > TRIAL_BUFFER:
            self.abort()

    def close(self) -> None:
        """End the connection after what was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()
