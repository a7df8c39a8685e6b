"""The engine's side of a host: reaches its keeper, says its commands, and turns what it hears into requests.

One coroutine a host. When the channel breaks it is dialled again with growing pauses; the state hears of both. What is
said while the channel is down is dropped: at the next HOST fact `reduce` queues everything anew that still matters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from ..trial_sdk import channel, spool
from ..trial_sdk.crash_point import point
from ..trial_sdk.wire import Framer, Report, WireError, decode, frame
from .flood import thinned
from .requests import (
    DevicesFound,
    Exited,
    Flooded,
    HostDown,
    HostUp,
    NeverStarted,
    NotFree,
    NotStarted,
    Reported,
    Request,
    Started,
)

_log = structlog.get_logger("host")
_READ = 1 << 18
_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Reader(Protocol):
    """Bytes from a keeper: asyncio's StreamReader, or one like it."""

    async def read(self, n: int, /) -> bytes:
        """At most `n` bytes, none at the end."""
        ...


class Writer(Protocol):
    """Bytes to a keeper: asyncio's StreamWriter, or one like it."""

    def write(self, data: bytes, /) -> None:
        """Send these, some time."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class TrainingService(Protocol):
    """Runs trials somewhere: it knows how a keeper is started there and how its channel is reached.

    It may have more, each of which is looked for by its name and may be missing. An instance, for its host:

    * `adapt(launch)`: the launch as it is to be said there, with that host's folders and environment
    * `async code()`: digest and bytes of the code that trials run there, for whoever keeps it (carrier.py)
    * `async close()`: its host is not needed any more

    A class, for the table of the config that it was chosen by (`own`):

    * `services(folder, settings, own, **common)`: an instance for each of several hosts, instead of one
    * `async problems(own, settings)`: an error for each host that can't be used now (host_check.py)
    * `async files(own, host, experiment)`: access to files that lie there (host_files.py)
    * `async clear(own, experiment)`: remove what an experiment left there; what was removed (host_check.py)
    """

    name: str

    async def channel(self) -> tuple[Reader, Writer]:
        """A fresh connection to the keeper, which is started when it is not there. Any `Exception`: not reached."""
        ...


class HostLink:
    """The channel to one keeper. `submit` takes requests, `waits` hears that a process waits for its answer."""

    def __init__(
        self,
        service: TrainingService,
        experiment: str,
        epoch: int,
        submit: Callable[[Request], None],
        acknowledge: Callable[[str, int, str, int], None],
        waits: Callable[[str, int, str, int], None],
        *,
        devices: bool = False,
    ) -> None:
        """`devices`: whether the host is to say which devices it has."""
        self.service, self.name = service, service.name
        self._attach = channel.Attach(experiment, epoch, devices=devices)
        self._submit, self._acknowledge, self._waits = submit, acknowledge, waits
        self._adapt: Callable[[channel.Launch], channel.Launch] = getattr(service, "adapt", lambda launch: launch)
        self._writer: Writer | None = None
        self._ending = asyncio.Event()
        self._reached = False  # a keeper was, so something may be left on its host
        self._cleared = False  # until a keeper says that nothing is
        self._over = asyncio.Event()
        self._said: list[bytes] = []
        self.fenced = ""

    def send(self, message: channel.ToKeeper) -> None:
        """Say something to the keeper, if it is there; what one burst says goes out in one write."""
        if self._writer is None:
            return
        if isinstance(message, channel.Launch):
            message = self._adapt(message)
        if not self._said:
            asyncio.get_running_loop().call_soon(self._flush)
        self._said.append(frame(channel.encoder.encode(message)))

    def _flush(self) -> None:
        said, self._said = self._said, []
        if self._writer is not None:
            with contextlib.suppress(OSError):  # the channel has just ended, which its reader is about to say
                self._writer.write(b"".join(said))
            point("engine.said")

    async def run(self) -> None:
        """Serve until `shutdown`; never raises for what the keeper does.

        One attempt is made in any case: an engine that has nothing left to do may still find a keeper to shut down. One
        that was reached is dialled until it has said that nothing is left, or `shutdown` has no more patience.
        """
        failures = 0
        try:
            while True:
                reason = "the keeper closed the channel"
                writer: Writer | None = None
                try:
                    reader, writer = await self.service.channel()
                    if await self._serve(reader, writer):
                        failures = 0
                except (OSError, WireError, spool.SpoolDamaged, asyncio.IncompleteReadError) as error:
                    reason = str(error) or type(error).__name__
                except Exception as error:  # a plug-in's own errors: whatever it raises, the host is not reached
                    reason = f"{type(error).__name__}: {error}"
                finally:
                    self._writer, self._said = None, []
                    if writer is not None:
                        writer.close()
                if self.fenced or (self._ending.is_set() and (self._cleared or not self._reached)):
                    return
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                failures += 1
                if self._ending.is_set():  # the keeper may never have heard that all is over
                    await asyncio.sleep(pause)
                    continue
                _log.warning("host lost", host=self.name, reason=reason)
                self._submit(HostDown(self.name, reason))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), pause)
        finally:
            self._over.set()
            close: Callable[[], Awaitable[None]] | None = getattr(self.service, "close", None)
            if close is not None:
                await close()

    async def shutdown(self, patience: float) -> None:
        """Tell the keeper that all is over, and wait until it has gone, at most `patience` seconds.

        A keeper that is just being started or dialled hears it as soon as it is reached.
        """
        self._ending.set()
        self.send(channel.Shutdown())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), patience)

    async def _serve(self, reader: Reader, writer: Writer) -> bool:
        framer = Framer()
        attached = False
        writer.write(frame(channel.encoder.encode(self._attach)))
        while data := await reader.read(_READ):
            for body in framer.feed(data):
                message = decode(channel.from_keeper, body)
                if attached:
                    self._hear(message)
                    continue
                if isinstance(message, channel.Refused):
                    self.fenced = message.reason
                    _log.error("refused by the keeper", host=self.name, reason=message.reason)
                    return False
                if not isinstance(message, channel.Attached):
                    raise WireError(f"the keeper began with {type(message).__name__}")
                attached = self._reached = True
                self._writer = writer
                _log.info("host reached", host=self.name, keeper=message.pid)
                if self._ending.is_set():
                    self.send(channel.Shutdown())
                else:
                    self._submit(HostUp(self.name, message.pid))
        return attached

    def _hear(self, message: channel.FromKeeper) -> None:
        match message:
            case channel.Reports():
                launch = (message.trial, message.attempt, message.process)
                reports = self._read(message)
                for item in thinned(reports):
                    self._submit(Flooded(*launch, *item) if isinstance(item, tuple) else Reported(*launch, item))
                if reports:
                    self._acknowledge(*launch, reports[-1].number)
            case channel.TrialWaits():
                self._waits(message.trial, message.attempt, message.process, message.number)
            case channel.Launched():
                self._submit(Started(message.trial, message.attempt, message.pid, message.started))
            case channel.LaunchFailed():
                self._submit(NotStarted(message.trial, message.attempt, message.reason))
            case channel.NeverLaunched():
                self._submit(NeverStarted(message.trial, message.attempt, self.name))
            case channel.NotLaunched():
                self._submit(NotFree(self.name, message.trial, message.attempt, message.devices, message.reason))
            case channel.Inventory():
                self._submit(DevicesFound(self.name, message.devices, message.reason))
            case channel.Exited():
                self._submit(
                    Exited(message.trial, message.attempt, message.code, message.ended, message.reason, message.stderr)
                )
            case channel.Flood():
                self._submit(Flooded(message.trial, message.attempt, message.process, message.first, message.last))
                self._acknowledge(message.trial, message.attempt, message.process, message.last)
            case channel.Over():
                self._cleared = True
            case channel.Attached() | channel.Refused():
                raise WireError("the keeper greets twice")

    def _read(self, message: channel.Reports) -> list[Report]:
        try:
            return spool.parse(message.data)
        except spool.SpoolDamaged as error:  # a disk, or a trial that writes into its spool: only that report is lost
            _log.error("spool damaged", trial=message.trial, process=message.process, reason=str(error))
            return spool.salvage(message.data, message.first)
