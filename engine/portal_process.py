"""Opening the web portal of an experiment: its port is bound before anything starts, and its program started by name.

The portal is a process of its own (portal/server.py), as the engine is. Whoever opens it holds the listening socket,
the token of its link, and a pipe: when that closes, the portal ends.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from .client import Opening, clean_environment
from .errors import UsageError
from .home import Folder

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")


@contextlib.contextmanager
def opening(
    port: int | None, host: str | None = None, cert: Path | None = None, key: Path | None = None
) -> Generator[Opening | None]:
    """Bind the port before anything is started, while the block runs; None when no portal is wanted. `UsageError`.

    Beyond this machine (`host`) only with TLS: the files of a certificate and of its key.
    """
    if port is None:
        if (host, cert, key) != (None, None, None):
            raise UsageError("--host, --tls-cert and --tls-key say how the web portal is opened", "Give --port too.")
        yield None
        return
    if not 0 <= port <= 65535:
        raise UsageError(f"port: {port} was given", "Allowed: 0 to 65535; 0 takes any free one.")
    name = host or "127.0.0.1"
    _check_host(name, port, cert is not None and key is not None)
    files = _certificate(cert, key)
    with bind(port, name) as listening:
        yield Opening(listening, secrets.token_urlsafe(32), name, *files)


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


def _check_host(name: str, port: int, secure: bool) -> None:
    """`UsageError` for a name that is none, and for one beyond this machine without TLS."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"--host: found {name!r}", "Allowed: a name or an address of this machine.")
    if name in ("0.0.0.0", "::", "0"):
        raise UsageError(
            f"--host {name} is no address that anybody can ask for",
            "Name the one under which the portal is reached: requests to other names are refused.",
        )
    if not (secure or _is_loopback(name)):
        raise UsageError(
            f"--host {name}: beyond this machine the portal speaks TLS only: give --tls-cert and --tls-key",
            f"Or leave --host out, and on the other machine: "
            f"ssh -L {port or 8080}:127.0.0.1:{port or 'PORT'} {socket.gethostname()}",
        )


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _certificate(cert: Path | None, key: Path | None) -> tuple[str, str]:
    """The absolute paths of a certificate and its key, tried out; two empty ones without. `UsageError`."""
    if cert is None and key is None:
        return "", ""
    if cert is None or key is None:
        raise UsageError("--tls-cert and --tls-key go together", "A certificate without its key can't be used.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")  # it never asks
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(
            f"--tls-cert {cert}, --tls-key {key}: they can't be used: {said}",
            "Allowed: PEM files, the key without a passphrase.",
        ) from error
    return str(cert.absolute()), str(key.absolute())


def start(folder: Folder, opening: Opening, *, commands: bool = True) -> tuple[subprocess.Popen[bytes], int]:
    """Start the portal of an experiment: its process, and the descriptor whose closing ends it."""
    listening = opening.listening
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", "tune.portal.server", str(folder.path)]
    command += ["--socket", str(listening.fileno()), "--token-fd", str(read_end), *opening.arguments]
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
