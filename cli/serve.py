"""The composition root: puts log, hosts, tuner and door together into a running engine. Not a verb for people.

`python -m tune.cli.serve FOLDER --ready-fd N` is what `engine.client.start` runs; `run_foreground` is the same in the
calling process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog

from ..engine import config, home, registry
from ..engine.blobs import Blobs
from ..engine.carrier import Carrier
from ..engine.client import Opening
from ..engine.decide import microseconds
from ..engine.door import open_door
from ..engine.errors import TuneError
from ..engine.events import Fact
from ..engine.host_link import TrainingService
from ..engine.listener import Listener, listening
from ..engine.lock import Lock, LockHeld
from ..engine.log import LogError, has_begun
from ..engine.portal_process import start
from ..engine.requests import AskStop, PersonsRequest, Refused
from ..engine.shell import Engine
from ..engine.state import State

_logger = structlog.get_logger("engine")


def run_foreground(
    folder: home.Folder,
    *,
    actor: str,
    updates: PersonsRequest | None = None,
    on_started: Callable[[], None] | None = None,
    on_fact: Callable[[State, Fact], None] | None = None,
    portal: Opening | None = None,
) -> State:
    """Run the experiment in this process until it has ended: its last state. `TuneError` when it can't start."""
    return _run(serve(folder, actor, updates, on_started, on_fact, portal))


def _run(main: Coroutine[Any, Any, State]) -> State:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def serve(
    folder: home.Folder,
    actor: str,
    updates: PersonsRequest | None,
    on_started: Callable[[], None] | None,
    on_fact: Callable[[State, Fact], None] | None,
    portal: Opening | None = None,
) -> State:
    """One engine, from taking the lock to giving it back."""
    try:
        lock = Lock.take(folder.lock)
    except LockHeld as error:
        raise TuneError(
            f"an engine already runs this experiment: pid {error.holder.get('pid', '?')} "
            f"on {error.holder.get('host', '?')}",
            f"tune view {folder.id} shows it, tune stop {folder.id} stops it.",
        ) from error
    try:
        return await _serve(folder, lock, actor, updates, on_started, on_fact, portal)
    finally:
        lock.release()


async def _serve(
    folder: home.Folder,
    lock: Lock,
    actor: str,
    updates: PersonsRequest | None,
    on_started: Callable[[], None] | None,
    on_fact: Callable[[State, Fact], None] | None,
    portal: Opening | None,
) -> State:
    me: dict[str, object] = {"pid": os.getpid(), "host": socket.gethostname()}
    lock.write(me)
    loop = asyncio.get_running_loop()
    stops = 0
    engine: Engine | None = None

    def interrupted() -> None:
        nonlocal stops
        stops += 1
        if engine is not None:
            engine.submit(AskStop(actor or "signal", force=stops > 1))

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, interrupted)
    try:
        requests = [updates] if updates is not None else []
        try:
            if has_begun(folder.events):
                engine = await Engine.resume(folder, actor, _disk_full, *requests)
            else:
                settings = config.decode(folder.config.read_bytes())
                engine = await Engine.create(folder, settings, actor, _disk_full)
        except (LogError, OSError, ValueError) as error:
            raise TuneError(f"the engine can't start: {error}", f"tune verify {folder.id} checks the log.") from error
        except Refused as error:
            raise TuneError(str(error)) from error
        engine.on_fact = on_fact
        try:
            engine.carrier = _carrier(folder, engine)
            async with _listening(folder, engine) as listener, open_door(engine, folder.data) as path:
                lock.write({**me, "socket": str(path), **({} if portal is None else {"port": portal.port})})
                with _portal(folder, portal):
                    if on_started is not None:
                        on_started()
                    if stops:
                        engine.submit(AskStop(actor or "signal"))
                    await engine.run(_services(folder, engine, listener))
        finally:
            await engine.close()
        _logger.info("ended", status=engine.state.status, reason=engine.state.reason)
        return engine.state
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextlib.contextmanager
def _portal(folder: home.Folder, opening: Opening | None) -> Generator[None]:
    """The portal's process, while the block runs: it can't hurt the engine, and ends with it."""
    if opening is None:
        yield
        return
    process, held = start(folder, opening)
    try:
        yield
    finally:
        os.close(held)
        process.wait()
        opening.listening.close()  # nobody is let in any more, and nobody waits in vain


def _carrier(folder: home.Folder, engine: Engine) -> Carrier | None:
    """What carries files between hosts, where they share blobs. `TuneError` when the storage can't be used at all."""
    storage = engine.state.settings.shared_storage
    if storage is None or storage.is_mounted:
        return None
    return Carrier(folder, engine.state.settings, Blobs(storage))


@contextlib.asynccontextmanager
async def _listening(folder: home.Folder, engine: Engine) -> AsyncGenerator[Listener | None]:
    """The address at which keepers dial, while the block runs; None where no training service asks for one."""
    dialled = [one for one in engine.state.settings.training_services if one.channel is not None]
    if not dialled:
        yield None
        return
    one = dialled[0]  # all of them name the same (config_load.py)
    async with listening(folder.data, one.channel_address or "", one.channel_port, tls=one.secured) as listener:
        yield listener


def _services(folder: home.Folder, engine: Engine, listener: Listener | None) -> list[TrainingService]:
    """The hosts that the config names. A training service makes one; or several, if its class has `services`."""
    settings = engine.state.settings
    made: list[TrainingService] = []
    for own in settings.training_services:
        kind = registry.training_service_class(own.platform)
        common: dict[str, Any] = {
            "lease": microseconds(settings.engine_lease) / 1_000_000,
            "grace": microseconds(settings.stop_grace) / 1_000_000,
            "lock": folder.keeper_lock,
        }
        if own.channel is not None:
            common["listener"] = listener
        services = getattr(kind, "services", None)
        made += [kind(folder.path, **common)] if services is None else services(folder.path, settings, own, **common)
    return made


def _disk_full(message: str) -> None:
    _logger.error("the disk is full: waiting for room, trials go on", detail=message)


def log_to(file: TextIO) -> None:
    """Let the engine in this process say what it says as JSON lines to this file."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=file),
    )


def main(arguments: list[str] | None = None) -> int:
    """The engine's own process."""
    parser = argparse.ArgumentParser(prog="tune.cli.serve")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--actor", default="")
    parser.add_argument("--updates", default="")
    parser.add_argument("--portal", type=int)
    parser.add_argument("--token", type=int)
    parser.add_argument("--host", default="")
    parser.add_argument("--tls-cert", default="")
    parser.add_argument("--tls-key", default="")
    given = parser.parse_args(arguments)
    log_to(sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ready = os.fdopen(given.ready_fd, "w", encoding="utf-8")
    os.set_inheritable(given.ready_fd, False)
    folder = home.at(given.folder)
    updates: PersonsRequest | None = None
    if given.updates:
        updates = msgspec.msgpack.decode(bytes.fromhex(given.updates), type=PersonsRequest)

    portal = None
    if given.portal is not None:
        for descriptor in (given.portal, given.token):
            os.set_inheritable(descriptor, False)
        with os.fdopen(given.token, encoding="ascii") as file:
            token = file.readline().strip()
        portal = Opening(socket.socket(fileno=given.portal), token, given.host, given.tls_cert, given.tls_key)

    def say(**content: object) -> None:
        with contextlib.suppress(OSError):  # whoever started this has gone: that does not touch the engine
            ready.write(json.dumps(content) + "\n")
            ready.close()

    try:
        started = functools.partial(say, ok=True)
        run_foreground(folder, actor=given.actor, updates=updates, on_started=started, portal=portal)
    except TuneError as error:
        _logger.error("not started", error=str(error))
        if not ready.closed:
            say(error=error.message)
        return 1
    except BaseException:
        _logger.exception("the engine failed")
        if not ready.closed:
            say(error="the engine failed as it started")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
