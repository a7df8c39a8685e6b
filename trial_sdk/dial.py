"""How a keeper dials out: it connects to the engine's TCP address, proves itself (proof.py) and serves that connection.

For hosts that nobody can reach: containers, batch jobs. The connection that was proven is the engine's as one on the
Unix socket is; the trials keep to the Unix socket. When it ends, or can't be had, the keeper dials again, with pauses
that grow and are drawn at random, so that many keepers don't come at once.

The token lies in a file that only this user can read, which is read anew each time, since a new launch writes a new
one; or it came through an inherited descriptor. With a fingerprint the connection is TLS, and whoever shows another
certificate is left before a byte of the proof is said; there is no authority to trust.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import random
import re
import secrets
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
from msgspec import Struct

from . import channel, proof, wire
from .peers import Connection, Handler, log

PATIENCE = 20.0  # seconds for connecting and the proof
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts
SILENCE = 30  # seconds in which a peer that answers nothing is given up
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%A-Za-z0-9_-]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", re.ASCII)
_attach: msgspec.msgpack.Decoder[channel.Attach] = msgspec.msgpack.Decoder(channel.Attach)


class Target(Struct, frozen=True):
    """Whom to dial, and as who."""

    host: str
    port: int
    name: str
    token: Callable[[], bytes]  # `OSError` or `ValueError` when there is none
    fingerprint: str = ""  # SHA-256 of the listener's certificate, 64 hexadecimal digits; "": no TLS


# -- what a command line says -----------------------------------------------------------------------------------------
def address(text: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT" or "[ADDRESS]:PORT"; `ValueError`."""
    match = _ADDRESS.fullmatch(text)
    port = int(match[3]) if match is not None else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{text!r} is no address; allowed: HOST:PORT, [ADDRESS]:PORT")
    return match[1] or match[2], port


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as 64 hexadecimal digits, also when it is written with colons; `ValueError`."""
    digits = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits, re.ASCII):
        raise ValueError(f"{text!r} is no SHA-256 fingerprint; allowed: 64 hexadecimal digits, with or without colons")
    return digits


def new_token(path: Path) -> bytes:
    """A fresh token, in this file for this user only, in the place of the one before. `OSError`."""
    made = secrets.token_bytes(proof.SIZE)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, made.hex().encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    return made


def kept_token(path: Path) -> bytes:
    """The token in a file that is this user's alone; `OSError`, `PermissionError` for one that others can read.

    `ValueError` when it holds no token.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(
                f"{path} is no file of this user alone (mode {found.st_mode & 0o777:o}); allowed: 600"
            )
        text = os.read(fd, 1024)
    finally:
        os.close(fd)
    return proof.token(text.decode("ascii", errors="replace"))


def handed_token(fd: int) -> bytes:
    """The token that an inherited descriptor gives, to its end; it is closed. `OSError`, `ValueError`."""
    with os.fdopen(fd, "rb") as file:
        return proof.token(file.read(1024).decode("ascii", errors="replace"))


# -- the connection ---------------------------------------------------------------------------------------------------
def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the system find out, in SILENCE seconds or so, that a peer has gone without a word."""
    end: socket.socket | None = transport.get_extra_info("socket")
    if end is None:
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENCE // 3),
        ("TCP_KEEPALIVE", SILENCE // 3),  # macOS's word for it
        ("TCP_KEEPINTVL", SILENCE // 6),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", SILENCE * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            end.setsockopt(socket.IPPROTO_TCP, option, value)


class _Served(Connection):
    """A proven connection: the engine's, and nobody else's."""

    first = _attach

    def __init__(self, keeper: Handler) -> None:
        super().__init__(keeper)
        self.over = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the keeper, and who dials."""
        super().connection_lost(exc)
        self.over.set()


class _Proving(asyncio.Protocol):
    """A connection until it is proven: then `served` has a connection that the keeper serves, or an error."""

    def __init__(self, target: Target, token: bytes, keeper: Handler) -> None:
        self._target, self._token, self._keeper = target, token, keeper
        self._transport: asyncio.Transport | None = None
        self._side: proof.KeeperSide | None = None
        self.served: asyncio.Future[_Served] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look at the certificate, then begin."""
        self._transport = cast("asyncio.Transport", transport)
        keep_alive(transport)
        seen = ""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            seen = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(seen, self._target.fingerprint):
            self._fail(proof.NotProven(f"the certificate there is another one: {seen or 'none'}"))
            return
        self._side = proof.KeeperSide(self._target.name, self._token, secrets.token_bytes(proof.SIZE), seen)
        self._transport.write(self._side.begin())

    def data_received(self, data: bytes) -> None:
        """The engine's part of the proof; what comes after it is for the keeper."""
        if self._side is None or self._transport is None:
            return
        try:
            self._transport.write(self._side.feed(data))
        except proof.NotProven as error:
            self._fail(error)
            return
        if not self._side.proven or self.served.done():
            return
        transport, served = self._transport, _Served(self._keeper)
        transport.set_protocol(served)
        self.served.set_result(served)
        served.connection_made(transport)
        if rest := self._side.rest():
            served.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended before it was proven."""
        self._fail(exc or ConnectionResetError("refused: the connection was closed before the proof"))

    def _fail(self, error: Exception) -> None:
        if not self.served.done():
            self.served.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


def _tls() -> ssl.SSLContext:
    """TLS 1.3 with whoever is there: the fingerprint says who it must be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def pause(failures: int, dice: Callable[[], float] = random.random) -> float:
    """Seconds until the next attempt: twice as long each time, up to LONGEST_PAUSE, of which half is drawn."""
    longest = min(FIRST_PAUSE * 2 ** min(failures, 16), LONGEST_PAUSE)
    return longest * (0.5 + 0.5 * dice())


class Dialler:
    """Dials for a keeper, again and again. `run` ends when it is cancelled."""

    def __init__(self, target: Target, keeper: Handler) -> None:
        self._target, self._keeper = target, keeper
        self._context = _tls() if target.fingerprint else None
        self._said = ""

    async def run(self) -> None:
        """Have a connection, or try to; whatever happens to one, there is a next one."""
        failures = 0
        while True:
            try:
                served = await self._connect()
                self._say("connected")
                await served.over.wait()
                failures = 0 if served.engine is not None else failures + 1
            except (OSError, ValueError, wire.WireError) as error:  # what a token file or a peer can do
                self._say(str(error) or type(error).__name__)
                failures += 1
            await asyncio.sleep(pause(failures))

    async def _connect(self) -> _Served:
        target = self._target
        proving = _Proving(target, target.token(), self._keeper)
        async with asyncio.timeout(PATIENCE):
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: proving, target.host, target.port, ssl=self._context
            )
            try:
                return await proving.served
            except BaseException:
                transport.abort()
                raise

    def _say(self, news: str) -> None:
        """A line for what is new; the same reason again and again is one line."""
        if news != self._said:
            self._said = news
            log(f"{self._target.host}:{self._target.port}, dialled as {self._target.name}: {news}")
