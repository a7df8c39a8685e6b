"""The engine's TCP address, at which keepers that dial out (trial_sdk/dial.py) prove themselves; off unless asked for.

One listening socket an engine. A training service says whom it expects, `Listener.expect(name, token)`, and gives what
`Expected.channel()` gives from its own `channel()`. Whoever else connects is nobody: what has not proven itself within
PROOF_TIME goes, and so does the oldest stranger of the address that has most of them when there are MAX_STRANGERS; no
more than a few hundred bytes of one are kept; nothing of it reaches the experiment's log, and engine.log gets a line a
minute at most.

In the folder `channel/` of the experiment lie the port (keepers dial the same one after a resume) and, with TLS, a key
and a certificate made for this experiment: keepers know it by its fingerprint, there is no authority.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import structlog

from ..trial_sdk.dial import keep_alive
from ..trial_sdk.proof import NAME, SIZE, EngineSide, NotProven
from .errors import TuneError

PROOF_TIME = 10.0  # seconds in which a connection must prove itself, TLS included
MAX_STRANGERS = 64  # connections that have not proven themselves
BIND_PATIENCE = 5.0  # seconds in which the port of before may become free
SAID_EVERY = 60.0  # seconds between two lines about strangers
_BUFFER = 1 << 18
_log = structlog.get_logger("listener")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotExpected(ConnectionError):
    """No keeper is expected under this name any more."""


class Expected:
    """A keeper that may come: by its name, as long as its token lives. Made by `Listener.expect`."""

    def __init__(self, listener: Listener, name: str, token: bytes) -> None:
        self.name, self.token = name, token
        self._listener = listener
        self._arrived: Streams | None = None
        self._current: asyncio.StreamWriter | None = None
        self._news = asyncio.Event()
        self._closed = False

    async def channel(self) -> Streams:
        """Reader and writer of the next keeper that has proven itself, which then waits for Attach.

        Waits until there is one; the caller says how long (`asyncio.timeout`). `NotExpected` once it is closed.
        """
        while not self._closed:
            arrived, self._arrived = self._arrived, None
            if arrived is not None:
                reader, writer = arrived
                if not reader.at_eof() and not writer.is_closing():
                    self._current = writer
                    return arrived
                writer.close()  # it has gone before anybody wanted it
            self._news.clear()
            await self._news.wait()
        raise NotExpected(f"no keeper is expected as {self.name} any more")

    def close(self) -> None:
        """The launch is over: its token proves nothing any more, and its connections end."""
        if self._closed:
            return
        self._closed = True
        self._listener.forget(self)
        self._drop()
        self._news.set()

    def arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A keeper has proven itself: it takes the place of the one before, as K13 has it the other way round."""
        self._drop()
        self._arrived = reader, writer
        self._news.set()

    def _drop(self) -> None:
        before = [self._current, self._arrived[1] if self._arrived is not None else None]
        self._current = self._arrived = None
        for writer in before:
            if writer is not None:
                writer.transport.abort()


class Listener:
    """The listening socket and who is expected at it. `listening` makes one."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, fingerprint: str) -> None:
        self.host, self.port = host, port
        self.fingerprint = fingerprint  # of the certificate; "": no TLS
        self._context = context
        self._expected: dict[str, Expected] = {}
        self._strangers: dict[_Stranger, None] = {}  # in the order in which they came
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused, self._said = 0, -SAID_EVERY

    @property
    def here(self) -> str:
        """HOST:PORT for a keeper on this host."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def expect(self, name: str, token: bytes) -> Expected:
        """Let a keeper in that knows this token (32 bytes) under this name; an earlier one of the name is over."""
        if len(token) != SIZE or not NAME.fullmatch(name):
            raise ValueError(f"a token of {len(token)} bytes under the name {name!r} proves nothing")
        if (before := self._expected.get(name)) is not None:
            before.close()
        made = self._expected[name] = Expected(self, name, token)
        return made

    def forget(self, expected: Expected) -> None:
        """It is closed (by `Expected.close`, which is what to call)."""
        if self._expected.get(expected.name) is expected:
            del self._expected[expected.name]

    # -- strangers ------------------------------------------------------------------------------------------------
    async def serve(self, end: socket.socket) -> None:
        """Let strangers come in until this is cancelled; whatever one of them does, the next one is heard."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                came, address = await loop.sock_accept(end)
            except OSError as error:  # one that left at once, or no descriptor is free
                self.refused("", error.strerror or "")
                await asyncio.sleep(0.1)
                continue
            stranger = _Stranger(self, came, str(address[0]))
            self._came(stranger)
            task = loop.create_task(stranger.meet(self._context), name="stranger")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _came(self, stranger: _Stranger) -> None:
        """A stranger is there; another may have to go for it."""
        if len(self._strangers) >= MAX_STRANGERS:
            address = Counter(one.address for one in self._strangers).most_common(1)[0][0]
            next(one for one in self._strangers if one.address == address).refuse("too many are not proven")
        self._strangers[stranger] = None

    def gone(self, stranger: _Stranger) -> None:
        """It is no stranger any more: proven, or gone."""
        self._strangers.pop(stranger, None)

    def side(self) -> EngineSide:
        """The engine's side of a fresh proof."""
        return EngineSide(self._token_of, secrets.token_bytes(SIZE), secrets.token_bytes(SIZE), self.fingerprint)

    def _token_of(self, name: str) -> bytes | None:
        expected = self._expected.get(name)
        return expected.token if expected is not None else None

    def proven(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A stranger has shown that it knows this name's token."""
        self._expected[name].arrive(reader, writer)

    def refused(self, address: str, reason: str) -> None:
        """Count it, and say so now and then."""
        self._refused += 1
        now = time.monotonic()
        if now - self._said >= SAID_EVERY:
            _log.warning("connections refused", count=self._refused, last=address, reason=reason)
            self._refused, self._said = 0, now

    async def close(self) -> None:
        """End everything that came in."""
        for expected in list(self._expected.values()):
            expected.close()
        for stranger in list(self._strangers):
            stranger.refuse("")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for task in self._tasks:
            task.cancel()
        if self._refused:
            _log.warning("connections refused", count=self._refused)


class _Stranger(asyncio.Protocol):
    """One connection until it has proven itself."""

    def __init__(self, listener: Listener, end: socket.socket, address: str) -> None:
        self.address = address
        self._listener, self._end = listener, end
        self._side = listener.side()
        self._transport: asyncio.Transport | None = None
        self._over = False
        self._timer = asyncio.get_running_loop().call_later(PROOF_TIME, self.refuse, "no proof in time")

    async def meet(self, context: ssl.SSLContext | None) -> None:
        """Speak TLS, if that is spoken here; from then on bytes come to `data_received`."""
        patience = PROOF_TIME if context is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, self._end, ssl=context, ssl_handshake_timeout=patience
            )
        except OSError:  # errors of TLS are such
            self.refuse("no TLS was spoken")
            self._end.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for what it says."""
        self._transport = cast("asyncio.Transport", transport)
        if self._over:
            self._transport.abort()
            return
        keep_alive(transport)

    def data_received(self, data: bytes) -> None:
        """Its part of the proof."""
        transport = self._transport
        if transport is None or self._over:
            return
        try:
            answer = self._side.feed(data)
        except NotProven as error:
            self.refuse(str(error))
            return
        transport.write(answer)
        if self._side.proven:
            self._leave()
            reader = asyncio.StreamReader(limit=_BUFFER)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
            self._listener.proven(self._side.name, reader, writer)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went by itself."""
        self.refuse("it left without a proof")

    def refuse(self, reason: str) -> None:
        """End it; `reason` is for engine.log."""
        if self._over:
            return
        self._leave()
        if self._transport is not None:
            self._transport.abort()
        else:  # in the middle of TLS: the end of its bytes ends that
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
        if reason:
            self._listener.refused(self.address, reason)

    def _leave(self) -> None:
        self._over = True
        self._timer.cancel()
        self._listener.gone(self)


# -- what lies on disk ------------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def listening(folder: Path, host: str, port: int, *, tls: bool) -> AsyncGenerator[Listener]:
    """Listen at an IP address of this host while the block runs. `folder` is the experiment's, for what is kept.

    `port` 0 is any free one, and the same one again next time. `TuneError` when it can't be had.
    """
    kept = folder / "channel"
    kept.mkdir(mode=0o700, exist_ok=True)
    context, fingerprint = await asyncio.to_thread(_identity, kept / "identity.pem") if tls else (None, "")
    end = await _bound(host, port or _kept_port(kept / "port"))
    try:
        end.listen(256)
        end.setblocking(False)
        number: int = end.getsockname()[1]
        _write_private(kept / "port", b"%d\n" % number)
        _log.info("listening", address=host, port=number, fingerprint=fingerprint)
        listener = Listener(host, number, context, fingerprint)
        serving = asyncio.get_running_loop().create_task(listener.serve(end), name="listener")
        try:
            yield listener
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            await listener.close()
    finally:
        end.close()


def _kept_port(path: Path) -> int:
    try:
        number = int(path.read_text())
    except (OSError, ValueError):
        return 0
    return number if 0 < number < 65536 else 0


async def _bound(host: str, port: int) -> socket.socket:
    """A bound socket; a port of before that is just being given up is waited for."""
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )[0]
            end = socket.socket(family, kind, protocol)
        except OSError as error:
            raise TuneError(f"can't listen at {host}: {error.strerror}", "channel_address is an IP address.") from error
        try:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            end.bind(address)
        except OSError as error:
            end.close()
            if port == 0 or time.monotonic() > deadline:
                raise TuneError(
                    f"can't listen at {host} port {port}: {error.strerror}",
                    "channel_address must be an address of this host, and the port free: keepers dial it.",
                ) from error
            await asyncio.sleep(0.1)
        else:
            return end


def _identity(path: Path) -> tuple[ssl.SSLContext, str]:
    """The TLS of this experiment and its certificate's fingerprint; both are made the first time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if not path.exists():
            _write_private(path, _made_identity())
        context.load_cert_chain(path)
        text = path.read_text()
        start = text.index("-----BEGIN CERTIFICATE-----")
        certificate = ssl.PEM_cert_to_DER_cert(text[start:])
    except (OSError, ValueError) as error:
        raise TuneError(
            f"{path} holds no key and certificate: {error}",
            "Remove it, and another one is made, which no running keeper knows.",
        ) from error
    return context, hashlib.sha256(certificate).hexdigest()


def _made_identity() -> bytes:
    """A key on the curve P-256 and a certificate that it signs itself, as PEM."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tune")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=36500))  # who pins it does not look at dates
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    temporary.replace(path)
