"""The engine's door: the Unix socket at which people's programs (CLI, portal, Python API) talk to a running engine.

Frames as in trial_sdk/wire.py. A client says requests, each with a number, and gets `Done` when it is durable or
`Refusal`; or it says `Watch`, and from then on hears how far the log is durable. What the facts are it reads from the
log itself, so there is one way only in which they are seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from ..trial_sdk.socket_dir import make_private, socket_path
from ..trial_sdk.wire import Framer, WireError, decode, frame
from .door_wire import Done, Durable, Refusal, Say, ToClient, Watch, encoder, from_client
from .requests import PersonsRequest, Refused

_READ = 1 << 16
_MAX_CLIENTS = 64


class Watcher(Protocol):
    """Somebody who wants to know how far the log is durable."""

    def durable(self, seq: int) -> None:
        """Everything up to `seq` is on disk."""
        ...


class Inside(Protocol):
    """What is behind the door: the shell's `Engine`, or the recorder of a study in somebody's program."""

    @property
    def watchers(self) -> set[Watcher]:
        """Who hears how far the log is durable."""
        ...

    @property
    def last_seq(self) -> int:
        """How far the log is durable now."""
        ...

    async def ask(self, request: PersonsRequest) -> None:
        """Take a person's request: returns when its facts are durable, raises `Refused` when there are none."""
        ...


class _Visitor:
    """One client's connection. Durable notices are coalesced: a slow reader gets the newest, not all."""

    def __init__(self, engine: Inside, writer: asyncio.StreamWriter) -> None:
        self._engine, self._writer = engine, writer
        self._asks: set[asyncio.Task[None]] = set()
        self._told = -1

    def durable(self, seq: int) -> None:
        if seq > self._told and self._writer.transport.get_write_buffer_size() == 0:
            self._told = seq
            self.say(Durable(seq))

    def say(self, message: ToClient) -> None:
        self._writer.write(frame(encoder.encode(message)))

    async def serve(self, reader: asyncio.StreamReader) -> None:
        framer = Framer()
        try:
            while data := await reader.read(_READ):
                for body in framer.feed(data):
                    message = decode(from_client, body)
                    if isinstance(message, Watch):
                        self._engine.watchers.add(self)
                        self.durable(self._engine.last_seq)
                    else:
                        task = asyncio.create_task(self._ask(message))
                        self._asks.add(task)
                        task.add_done_callback(self._asks.discard)
        except (WireError, OSError):
            pass  # whatever a client sends or however it leaves, only its connection ends
        finally:
            self._engine.watchers.discard(self)
            for task in self._asks:
                task.cancel()
            self._writer.close()

    async def _ask(self, message: Say) -> None:
        try:
            await self._engine.ask(message.request)
        except Refused as error:
            self.say(Refusal(message.number, str(error)))
        else:
            self.say(Done(message.number))


@contextlib.asynccontextmanager
async def open_door(engine: Inside, folder: Path) -> AsyncGenerator[Path, None]:
    """Listen at the experiment's socket while the block runs; gives the socket's path."""
    path = socket_path(folder, ".e")
    make_private(path.parent)
    path.unlink(missing_ok=True)
    visitors: set[asyncio.StreamWriter] = set()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(visitors) >= _MAX_CLIENTS:
            writer.close()
            return
        visitors.add(writer)
        try:
            await _Visitor(engine, writer).serve(reader)
        finally:
            visitors.discard(writer)

    mask = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(visit, path)
    finally:
        os.umask(mask)
    try:
        yield path
    finally:
        server.close()
        for writer in list(visitors):
            writer.close()
        path.unlink(missing_ok=True)
