"""The engine's side of the tuner host: keeps that process alive, feeds it, and turns its answers into requests.

The host is rebuilt from the log whenever it is started: `Setup`, then every observation up to a point of the log, then
what has happened since, then the asks, in the order in which they came. Nothing about it is on disk.

A serial tuner has one ask at a time, and so long for its answer. A concurrent one may have many, and each may take as
long as something runs that it could be waiting for: only then its time counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import structlog

from ..trial_sdk.devices import CUDA
from ..trial_sdk.wire import Framer, WireError
from . import host_wire
from .plan import AskTuner
from .plugins import Observation
from .requests import Hopeless, Request, SaysExhausted, SaysWait, Suggests, TunerDiffers, TunerFailed, TunerHangs

_log = structlog.get_logger("tuner")
_READ = 1 << 18


class TunerProcess(Protocol):
    """A tuner host that was started, and the two ends of its pipe that are ours."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def kill(self) -> None:
        """End it now; harmless when it has ended."""
        ...

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        ...


class _Started:
    """The real one: a process at the other end of a socket pair."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self.reader, self.writer = reader, writer

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self) -> int:
        return await self._process.wait()


async def start_tuner_host(output: Path, gpus: list[int] | None = None) -> TunerProcess:
    """Start a tuner host; what it prints goes to `output`. `gpus`: those that it may use (by their indices in NVML's
    order), None: as the environment has it. `OSError` when it can't be started."""
    chosen = {CUDA: ",".join(map(str, gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpus is not None else {}
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-P", "-m", "tune.engine.tuner_host", str(theirs.fileno())]
    try:
        with output.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, **chosen},
            )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return _Started(process, *await asyncio.open_unix_connection(sock=ours))


class TunerLink:
    """One tuner host after another, until `shutdown`.

    `history(ready)` marks this point of the log, waits until it is durable, and gives the observations up to it; from
    the mark on, `observe` gets what is new.
    """

    def __init__(
        self,
        config: bytes,
        output: Path,
        timeout: float,
        submit: Callable[[Request], None],
        history: Callable[[host_wire.Ready], Awaitable[list[Observation]]],
        start: Callable[[Path], Awaitable[TunerProcess]] = start_tuner_host,
    ) -> None:
        self._config, self._output, self._timeout = config, output, timeout
        self._submit, self._history, self._start = submit, history, start
        self._queue: list[Observation | AskTuner] = []
        self._writer: asyncio.StreamWriter | None = None
        self._process: TunerProcess | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked: dict[int, AskTuner] = {}  # those that the host has
        self._concurrent = self._quiet = False
        self._why = ""  # it was killed
        self._ending = False
        self._idle = asyncio.Event()
        self.paused = False

    def observe(self, facts: list[Observation]) -> None:
        """What tuner and assessor are to know, in log order."""
        self._queue += facts
        self._flush()

    def ask(self, command: AskTuner) -> None:
        """Put an ask; its answer, or a failure, comes as a request."""
        self._queue.append(command)
        self._flush()

    def look(self, *, quiet: bool) -> None:
        """Whether nothing runs that a concurrent tuner could be waiting for."""
        if quiet != self._quiet:
            self._quiet = quiet
            if self._concurrent:
                self._arm()

    async def run(self) -> None:
        """Serve until `shutdown`."""
        while not self._ending:
            error, traceback = await self._once()
            if self._idle.is_set():  # it was shut down meanwhile
                return
            asked = next(iter(self._asked), None)
            self._asked.clear()
            self._queue.clear()
            _log.error("tuner host ended", error=error)
            self._submit(TunerFailed(asked, error, traceback))
            if self.paused:
                await self._idle.wait()

    def shutdown(self) -> None:
        """End the host and `run`."""
        self._ending = True
        self._idle.set()
        if self._process is not None:
            self._process.kill()

    async def _once(self) -> tuple[str, str]:
        """One host from its start to its end: why it ended."""
        try:
            self._process = process = await self._start(self._output)
        except OSError as error:
            await asyncio.sleep(0.2)
            return f"the tuner host can't be started: {error}", ""
        reader, writer = process.reader, process.writer
        said, self._why = ("", ""), ""
        try:
            writer.write(host_wire.to_host(host_wire.Setup(self._config)))
            said = await self._serve(reader, writer)
        except (OSError, WireError) as error:
            said = (str(error) or type(error).__name__, "")
        finally:
            self._writer = None
            self._disarm()
            writer.close()
            process.kill()
            code = await process.wait()
        if self._why:
            return self._why, ""
        return said if said[0] else (f"the tuner host ended by itself with code {code} (see {self._output.name})", "")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, str]:
        framer = Framer()
        while data := await reader.read(_READ):
            for body in framer.feed(data):
                message = host_wire.read_from_host(body)
                if isinstance(message, host_wire.Ready):
                    if message.error is not None:
                        return f"it can't be set up: {message.error}", message.traceback
                    self._queue = [item for item in self._queue if isinstance(item, AskTuner)]
                    self._concurrent = message.concurrent
                    past = await self._history(message)  # marks its point at once
                    for chunk in host_wire.observe(past, judge=False):
                        writer.write(chunk)
                        await self._drained(writer)
                    self._writer = writer
                    self._flush()
                elif isinstance(message, host_wire.Failed):
                    if message.number in self._asked:  # it is this ask that failed, of several
                        self._asked = {message.number: self._asked[message.number]}
                    return message.error, message.traceback
                elif isinstance(message, host_wire.Differs):
                    _log.warning("the rebuilt tuner differs", reason=message.error)
                    self._submit(TunerDiffers(message.error))
                else:
                    self._hear(message)
        return "", ""

    async def _drained(self, writer: asyncio.StreamWriter) -> None:
        """A rebuilt tuner may hang as well: it is asked again what it was asked."""
        try:
            await asyncio.wait_for(writer.drain(), self._timeout)
        except TimeoutError:
            self._why = f"the tuner that is rebuilt did not take in what happened for {self._timeout:g} s"
            raise

    def _hear(self, message: host_wire.Answered | host_wire.Waits | host_wire.Spent | host_wire.Verdict) -> None:
        if isinstance(message, host_wire.Verdict):
            self._submit(Hopeless(message.trial, message.seen, message.why))
            return
        self._asked.pop(message.number, None)
        self._arm()
        match message:
            case host_wire.Answered():
                request: Request = Suggests(
                    message.number,
                    message.attempt,
                    message.seen,
                    message.parameters,
                    message.continues,
                    message.budget,
                    message.parents,
                    message.decision,
                )
            case host_wire.Waits():
                request = SaysWait(message.number, message.attempt, message.seen, message.reason)
            case host_wire.Spent():
                request = SaysExhausted(message.number, message.attempt, message.seen, message.reason, message.trial)
        self._submit(request)

    def _flush(self) -> None:
        writer = self._writer
        if writer is None or not self._queue:
            return
        queue, self._queue = self._queue, []
        facts: list[Observation] = []
        for item in queue:
            if not isinstance(item, AskTuner):
                facts.append(item)
                continue
            writer.writelines(host_wire.observe(facts))
            facts = []
            writer.write(
                host_wire.to_host(
                    host_wire.AskNow(
                        item.number, item.attempt, item.trial, item.trial_id, item.phase, item.space, item.waiting
                    )
                )
            )
            self._asked[item.number] = item
            self._arm()
        writer.writelines(host_wire.observe(facts))

    def _arm(self) -> None:
        """Give the open asks their time anew; none runs while a concurrent tuner may be waiting for a trial."""
        self._disarm()
        if self._asked and (self._quiet or not self._concurrent):
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        _log.error("the tuner did not answer in time", seconds=self._timeout)
        self._timer = None
        if self._concurrent:
            self._submit(TunerHangs(self._timeout))
        elif self._process is not None:
            self._why = f"the tuner did not answer for {self._timeout:g} s"
            self._why += " (one whose requests wait for results of trials needs multi_thread = true)"
            self._process.kill()
