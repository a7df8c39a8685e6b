"""How everybody but the engine sees and reaches an experiment: its log, read-only, and its engine's socket.

`View` is a fold over the log and needs no engine; `Client` talks to a running one; `start` starts one, in a process of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..trial_sdk import control_group
from ..trial_sdk.crash_point import VARIABLE
from ..trial_sdk.wire import Framer, WireError, decode, frame
from . import home, views
from . import lock as lock_room
from .config import Config
from .config import encode as encode_config
from .decide import Draft
from .door_wire import Done, Durable, Refusal, Say, Watch, encoder, to_client
from .errors import TuneError
from .events import Fact, Row, Status, UnknownEvent
from .events import decode as decode_row
from .home import Folder
from .log import LogError, Reader
from .reduce import reduce
from .requests import AskStop, Exited, PersonsRequest, Refused, Request
from .state import State

_running: list[subprocess.Popen[bytes]] = []
_ODD = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_AT_ONCE = 200  # requests that are put before the first is answered
_STEP = 0.02  # seconds between two looks at the lock of an engine that has said good-bye
START_TIMEOUT = 120.0  # seconds until an engine must have started; the replay of a huge log is in there


class View:
    """An experiment read from its log: replayed, and folded on whenever more is there.

    A log from a newer version is shown as far as it is understood: events of an unknown kind are left out, and
    `unknown` says so (else it is ""). An engine refuses to go on with such a log.
    """

    def __init__(self, folder: Folder, upto: int | None = None) -> None:
        """Replays the log, up to event `upto`; `TuneError` when it is missing, damaged or of a newer format."""
        self.folder = folder
        self.unknown = ""
        self._lost = False  # what was left out was needed: nothing after it can be told
        self.state = State()
        self._chain: bytes | None = None
        try:
            self._reader = Reader(folder.events)
        except LogError as error:
            raise TuneError(str(error), f"tune verify {folder.id} says more.") from error
        try:
            for _ in self._read(upto):
                pass
        except BaseException:
            self._reader.close()
            raise

    def catch_up(self, upto: int | None = None) -> list[Fact]:
        """Fold what is new in the log, and return it."""
        return list(self._read(upto))

    def _read(self, upto: int | None) -> Iterator[Fact]:
        """Fold row after row."""
        try:
            for row in self._reader.rows(after=self.state.seq, upto=upto, chain=self._chain):
                fact = self._fold(row)
                if fact is not None:
                    yield fact
        except LogError as error:
            raise TuneError(str(error), f"tune verify {self.folder.id} says more.") from error
        except ValueError as error:
            raise TuneError(str(error)) from error
        self._chain = self._reader.last[1]

    def _fold(self, row: Row) -> Fact | None:
        """Fold one row; None for one that is left out."""
        try:
            fact = decode_row(row)
        except UnknownEvent as error:
            self.unknown = self.unknown or f"{error}; it is shown without what this version does not know"
        else:
            if not self._lost:
                try:
                    reduce(self.state, fact)
                    return fact
                except _ODD as error:
                    if not self.unknown:  # its chain may be right: whoever wrote it was no engine
                        raise ValueError(f"event {row.seq} ({row.kind}) does not fit what stands before it") from error
                    self._lost = True
                    self.unknown += f", and only up to event {row.seq - 1}"
        self.state.seq = row.seq
        return None

    def close(self) -> None:
        """Let go of the log."""
        self._reader.close()


def engine_pid(folder: Folder) -> int | None:
    """The pid of the engine that holds the experiment; None when nobody does."""
    content = lock_room.peek(folder.lock)
    if content is None:
        return None
    pid = content.get("pid")
    return pid if isinstance(pid, int) else 0


def portal_port(folder: Folder) -> int | None:
    """The port of the web portal of a running experiment; None when none is open."""
    port = (lock_room.peek(folder.lock) or {}).get("port")
    return port if isinstance(port, int) else None


def status(folder: Folder, state: State) -> dict[str, Any]:
    """The status object of an experiment, as `tune status --json` has it."""
    pid, port = engine_pid(folder), portal_port(folder)
    return views.status(state, folder=folder.path, pid=pid, port=port, log=folder.events)


def statuses() -> list[dict[str, Any]]:
    """The status objects of all experiments in $TUNE_HOME, newest first; unreadable ones are left out."""
    found: list[dict[str, Any]] = []
    for folder in home.experiments():
        try:
            view = View(folder)
        except TuneError:
            continue
        view.close()
        if view.state.config is not None:
            found.append(status(folder, view.state))
    return found


class Client:
    """A connection to a running engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._durable = -1
        self._changed = asyncio.Event()
        self._over = False
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, folder: Folder) -> Client | None:
        """The engine of this experiment; None when none runs (or it is not yet, or no more, listening)."""
        for _ in range(100):
            content = lock_room.peek(folder.lock)
            if content is None:
                return None
            path = content.get("socket")
            if isinstance(path, str):
                with contextlib.suppress(OSError):
                    return cls(*await asyncio.open_unix_connection(path))
            await asyncio.sleep(0.05)  # it has the lock and does not listen: it is coming or going
        return None

    async def ask(self, request: PersonsRequest) -> None:
        """Have something done: returns when it is durable. `Refused`, or `TuneError` when the engine has gone."""
        self._number += 1
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        if self._over:
            answer.set_exception(TuneError("the engine has ended"))
        else:
            self._writer.write(frame(encoder.encode(Say(self._number, request))))
        await answer

    async def watch(self) -> AsyncIterator[int]:
        """How far the log is durable, whenever that grows; ends when the engine has ended."""
        self._writer.write(frame(encoder.encode(Watch())))
        told = -1
        while not self._over:
            if self._durable > told:
                told = self._durable
                yield told
                continue
            self._changed.clear()
            if not self._over and self._durable <= told:
                await self._changed.wait()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _listen(self) -> None:
        framer = Framer()
        try:
            while data := await self._reader.read(1 << 16):
                for body in framer.feed(data):
                    match decode(to_client, body):
                        case Durable(seq=seq):
                            self._durable = max(self._durable, seq)
                            self._changed.set()
                        case Done(number=number):
                            self._waiting.pop(number).set_result(None)
                        case Refusal(number=number, reason=reason):
                            self._waiting.pop(number).set_exception(Refused(reason))
        except (OSError, WireError):
            pass  # the engine has gone, however it went
        finally:
            self._over = True
            self._changed.set()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(TuneError("the engine has ended"))


def ask(folder: Folder, *requests: PersonsRequest) -> bool:
    """Have a running engine do these, one after the other; False when none runs. `Refused`."""

    return asyncio.run(asked(folder, *requests))


async def asked(folder: Folder, *requests: PersonsRequest) -> bool:
    """The same, for those who have an event loop."""
    client = await Client.connect(folder)
    if client is None:
        return False
    try:
        for request in requests:
            await client.ask(request)
    finally:
        await client.close()
    return True


def ask_all(folder: Folder, requests: Sequence[PersonsRequest]) -> bool:
    """Have a running engine do these in their order, many in one commit; False when none runs.

    `Refused` when one can't be done; those after it may be done all the same.
    """

    async def main() -> bool:
        client = await Client.connect(folder)
        if client is None:
            return False
        try:
            for first in range(0, len(requests), _AT_ONCE):
                await asyncio.gather(*map(client.ask, requests[first : first + _AT_ONCE]))
        finally:
            await client.close()
        return True

    return asyncio.run(main())


class Opening:
    """A web portal that is to be opened: a socket that listens on this machine, and the token of its link.

    `host` is the name under which it is reached; with `cert` and `key`, two files, it speaks TLS.
    """

    def __init__(
        self, listening: socket.socket, token: str, host: str = "127.0.0.1", cert: str = "", key: str = ""
    ) -> None:
        self.listening, self.token = listening, token
        self.host, self.cert, self.key = host, cert, key
        self.port = int(listening.getsockname()[1])

    @property
    def url(self) -> str:
        """The link that opens it, once."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.cert else ''}://{host}:{self.port}/?token={self.token}"

    @property
    def arguments(self) -> list[str]:
        """What the command line of its process says of it."""
        return ["--host", self.host, *(["--tls-cert", self.cert, "--tls-key", self.key] if self.cert else [])]


def start(
    folder: Folder,
    *,
    actor: str,
    updates: PersonsRequest | None = None,
    cancel: int | None = None,
    portal: Opening | None = None,
) -> int:
    """Start the experiment's engine in a process of its own: its pid, once ENGINE_STARTED is durable.

    A folder without a log is a new experiment: its `config.json` is taken. `updates` is done right after the start.
    `TuneError` when the start failed; then no process is left. An interrupt while it waits ends the process too, and
    so does a descriptor `cancel` that becomes readable: `KeyboardInterrupt`.
    """
    process = _start(folder, actor, updates, cancel, portal)
    _running.append(process)  # it runs on, and its handle is kept until it has ended
    _running[:] = [engine for engine in _running if engine.poll() is None]
    return process.pid


def write_config(folder: Folder, config: Config, sources: Mapping[str, str] | None = None) -> None:
    """config.json of a new experiment: the resolved config, for `start` and for people, and where it came from."""
    content = {**msgspec.json.decode(encode_config(config)), "sources": dict(sources or {})}
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    folder.config.write_bytes(text + b"\n")
    folder.config.chmod(0o600)


async def stop(folder: Folder, request: AskStop) -> bool:
    """Ask the engine to stop, and wait until it has gone; False when there was none."""
    found = False
    while True:
        if engine_pid(folder) is None:
            return found
        client = await Client.connect(folder)
        if client is None:
            continue
        found = True
        try:
            await client.ask(request)
            async for _ in client.watch():
                continue
        except TuneError:
            pass  # it has ended before it could answer
        finally:
            await client.close()
        await asyncio.sleep(_STEP)  # it closes its log, and lets go of the lock; or it lives, and has hung up


def stop_orphans(folder: Folder, *, actor: str) -> None:
    """Stop an experiment whose engine died: what still runs of it is ended, and the log says STOPPED."""
    _start(folder, actor, AskStop(actor), None).wait()


def stop_study(folder: Folder, *, actor: str) -> None:
    """Write STOPPED into the log of a study whose program has ended (ask_tell.py); as `write_offline` otherwise."""
    view = View(folder)
    view.close()
    state = view.state
    gone = [Exited(one.id, one.attempt, None, state.wall_us, "gone") for one in map(state.trial, state.active)]
    write_offline(folder, AskStop(actor), *gone, last=Draft(Status("STOPPED", f"stopped by {actor}", state.clock)))


def write_offline(folder: Folder, *requests: Request, last: Draft | None = None) -> None:
    """Write what follows from these requests into the log of an experiment that has no engine; nothing is started.

    `last` is written after it.

    `Refused` when one can't be done, `TuneError` when an engine runs or the log can't be written.
    """
    from . import shell

    try:
        held = lock_room.Lock.take(folder.lock)
    except lock_room.LockHeld as error:
        raise TuneError(f"an engine runs this experiment: pid {error.holder.get('pid', '?')}") from error
    try:
        asyncio.run(shell.Engine.offline(folder, *requests, last=last))
    except LogError as error:
        raise TuneError(str(error), f"tune verify {folder.id} says more.") from error
    except UnknownEvent as error:
        raise TuneError(str(error), "Use that version of tune.") from error
    finally:
        held.release()


def _start(
    folder: Folder,
    actor: str,
    updates: PersonsRequest | None,
    cancel: int | None,
    portal: Opening | None = None,
) -> subprocess.Popen[bytes]:
    read_end, write_end = os.pipe()
    passed = [write_end]
    command = [sys.executable, "-P", "-m", "tune.cli.serve", str(folder.path), "--ready-fd", str(write_end)]
    command += ["--actor", actor]
    if updates is not None:
        command += ["--updates", encoder.encode(updates).hex()]
    if portal is not None:
        token_end, given_end = os.pipe()
        os.write(given_end, portal.token.encode() + b"\n")  # neither argv nor environment: others could read them
        os.close(given_end)
        passed += [portal.listening.fileno(), token_end]
        command += ["--portal", str(portal.listening.fileno()), "--token", str(token_end), *portal.arguments]
    try:
        with folder.engine_log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=passed,
                start_new_session=True,
                cwd=folder.path,
                env=clean_environment(),
            )
    finally:
        os.close(write_end)
        if portal is not None:
            os.close(passed[2])
    try:
        said = _await_ready(read_end, cancel)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        os.close(read_end)
    if said.get("ok"):
        return process
    process.wait()
    message = said.get("error") or f"the engine ended with code {process.returncode} before it had started"
    raise TuneError(str(message), f"See {folder.engine_log}.")


def _await_ready(descriptor: int, cancel: int | None) -> dict[str, object]:
    data = b""
    watched = [descriptor] if cancel is None else [descriptor, cancel]
    while not data.endswith(b"\n"):
        ready, _, _ = select.select(watched, [], [], START_TIMEOUT)
        if not ready:
            raise TuneError(f"the engine has not started within {START_TIMEOUT:g} s")
        if descriptor not in ready:
            raise KeyboardInterrupt
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return {}
        data += chunk
    content: dict[str, object] = json.loads(data)
    return content


def clean_environment() -> dict[str, str]:
    """This process's environment without what marks a trial: an engine that a trial starts is no part of it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ("TUNE_HOME", VARIABLE, control_group.VARIABLE) or not name.startswith(("TUNE_", "NNI_"))
    }


def control_groups(folder: Path) -> tuple[bool, str]:
    """Whether the trials of the experiment in `folder` get control groups here; in words which ones, or why none."""
    groups = control_group.choose(folder)
    return not isinstance(groups, str), control_group.told(groups)
