"""Opening the web portal of an experiment: its port is bound before anything starts, and its program started by name.

The portal is a process of its own (portal/server.py), as the engine is. Whoever opens it holds the listening socket,
the token of its link, and a pipe: when that closes, the portal ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Generator

from .client import Opening, clean_environment
from .errors import UsageError
from .home import Folder


@contextlib.contextmanager
def opening(port: int | None) -> Generator[Opening | None]:
    """Bind the port before anything is started, while the block runs; None when no portal is wanted. `UsageError`."""
    if port is None:
        yield None
        return
    if not 0 <= port <= 65535:
        raise UsageError(f"port: {port} was given", "Allowed: 0 to 65535; 0 takes any free one.")
    with bind(port) as listening:
        yield Opening(listening, secrets.token_urlsafe(32))


def bind(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens at this port (0: any); `UsageError` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise UsageError(f"port {port} of {host} can't be used: {error.strerror}", "0 takes any free one.") from error
    return found


def start(folder: Folder, opening: Opening, *, commands: bool = True) -> tuple[subprocess.Popen[bytes], int]:
    """Start the portal of an experiment: its process, and the descriptor whose closing ends it."""
    listening = opening.listening
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", "tune.portal.server", str(folder.path)]
    command += ["--socket", str(listening.fileno()), "--token-fd", str(read_end)]
    if not commands:
        command.append("--view")
    try:
        with (folder.path / "portal.log").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[listening.fileno(), read_end],
                start_new_session=True,
                env=clean_environment(),
            )
    finally:
        os.close(read_end)
    os.write(write_end, opening.token.encode() + b"\n")
    return process, write_end
