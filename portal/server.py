"""The portal's process: `python -m tune.portal.server FOLDER --socket FD --token-fd FD`.

Whoever starts it (engine/portal_process.py) has bound the socket, so a busy port is found before anything starts, and
gives the token through a pipe, whose other end it keeps open: when that closes, the portal ends too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import secrets
import signal
import socket
import sys
from pathlib import Path

import structlog
import uvicorn

from ..engine import home
from ..engine.client import Opening
from ..engine.errors import TuneError
from .app import make_portal
from .connections import Connection
from .source import Source

_LAST_WORDS = 0.5  # seconds in which the pages hear how it ended
_log = structlog.get_logger("portal")


async def run(folder: home.Folder, opening: Opening, *, commands: bool) -> None:
    """Serve until cancelled."""
    source = Source(folder, commands=commands)
    config = uvicorn.Config(
        make_portal(
            source, opening.token, opening.port, opening.host, session=_session(folder), secure=bool(opening.cert)
        ),
        ssl_certfile=opening.cert or None,
        ssl_keyfile=opening.key or None,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        http=Connection,
        ws="none",
        lifespan="off",
        loop="uvloop",
        backlog=128,
        limit_concurrency=512,
        timeout_keep_alive=10,  # seconds; connections.py ends what is half sent
        h11_max_incomplete_event_size=64 << 10,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    following = asyncio.create_task(source.run(), name="follow")
    following.add_done_callback(lambda task: _ended(task, server))
    serving = asyncio.create_task(server.serve(sockets=[opening.listening]), name="serve")
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        await source.last_words()
        await asyncio.sleep(_LAST_WORDS)
        server.should_exit = True
        await serving
        raise
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        source.close()


def _session(folder: home.Folder) -> str:
    """What the cookie of this experiment's pages holds: kept (0600), so that they go on after a resume."""
    path = folder.path / "portal.session"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii") as file:
            kept = file.read().strip()
            if len(kept) >= 40:
                return kept
            made = secrets.token_urlsafe(32)
            file.seek(0)
            file.truncate()
            file.write(made + "\n")
            return made
    except (OSError, UnicodeDecodeError):
        return ""  # a log that we may only read: its pages end with this portal


def _many_files() -> None:
    """Have room for as many connections as the system lets us: who is slow to shake hands holds one, too."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _ended(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("the log can't be followed any more", error=str(task.exception()))
        server.should_exit = True


def main(arguments: list[str] | None = None) -> int:
    """The process."""
    parser = argparse.ArgumentParser(prog="tune.portal.server")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--token-fd", type=int, required=True)
    parser.add_argument("--view", action="store_true")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--tls-cert", default="")
    parser.add_argument("--tls-key", default="")
    given = parser.parse_args(arguments)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with who started it
    for descriptor in (given.socket, given.token_fd):
        os.set_inheritable(descriptor, False)
    pipe = os.fdopen(given.token_fd, "rb")
    token = pipe.readline().decode().strip()
    opening = Opening(socket.socket(fileno=given.socket), token, given.host, given.tls_cert, given.tls_key)
    _many_files()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        serving = asyncio.current_task()
        assert serving is not None

        def left_alone() -> None:
            loop.remove_reader(pipe.fileno())  # once: a second cancel would cut off the last words
            serving.cancel()

        loop.add_reader(pipe.fileno(), left_alone)
        try:
            await run(home.at(given.folder), opening, commands=not given.view)
        except asyncio.CancelledError:
            pass  # who started it has gone
        finally:
            loop.remove_reader(pipe.fileno())

    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except TuneError as error:
        _log.error("the portal can't be opened", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
