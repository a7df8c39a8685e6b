"""The proof that opens a TCP channel: keeper and engine each show that they know the launch's token. Pure.

A keeper that dials out and the engine that listens share a token of 256 bits, made for one launch of that keeper. It
never goes over the wire. Four messages do, framed as in wire.py, at most LONGEST bytes each:

    keeper -> engine   Dial        the name it was started under, its nonce
    engine -> keeper   Challenge   the engine's nonce
    keeper -> engine   Proof       HMAC-SHA256(token, transcript as "keeper")
    engine -> keeper   Proof       HMAC-SHA256(token, transcript as "engine"); the engine's Attach comes next

The transcript holds this protocol's version, the role, the name, both nonces and the binding: the SHA-256 fingerprint
of the TLS certificate that each side sees, "" without TLS. Both nonces are fresh, so a recorded talk is worth nothing;
the role is in it, so nothing can be sent back to where it came from; the binding is in it, so a proof made for one
listener is refused by another. The engine shows nothing to who has not proven itself: an unknown name is challenged and
refused as a wrong token is. The handshake is the usual one of challenge and response with a shared key (ISO/IEC 9798-4,
mutual, by random numbers), with HMAC of RFC 2104.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Struct

from . import wire

T = TypeVar("T")
VERSION = 1
SIZE = 32  # bytes of a token, of a nonce, and of a proof
LONGEST = 512  # bytes of a message before the proof
NAME = re.compile(r"[A-Za-z0-9_.@:-]{1,128}", re.ASCII)  # of a keeper
_LABEL = b"tune keeper channel"


class NotProven(wire.WireError):
    """The other side has not shown that it knows the token; the connection ends."""


class Dial(Struct, frozen=True, tag="dial", forbid_unknown_fields=True):
    """Opens: who dials."""

    name: str
    nonce: bytes
    version: int = VERSION


class Challenge(Struct, frozen=True, tag="challenge", forbid_unknown_fields=True):
    """The engine's answer to Dial."""

    nonce: bytes
    version: int = VERSION


class Proof(Struct, frozen=True, tag="proof", forbid_unknown_fields=True):
    """That one side knows the token."""

    mac: bytes


_dial: msgspec.msgpack.Decoder[Dial] = msgspec.msgpack.Decoder(Dial)
_challenge: msgspec.msgpack.Decoder[Challenge] = msgspec.msgpack.Decoder(Challenge)
_proof: msgspec.msgpack.Decoder[Proof] = msgspec.msgpack.Decoder(Proof)
_encode = msgspec.msgpack.encode


def mac(token: bytes, role: str, name: str, keeper_nonce: bytes, engine_nonce: bytes, binding: str) -> bytes:
    """The proof of one role: 32 bytes over everything that was agreed; each part with its length, so none can move."""
    parts = (_LABEL, b"%d" % VERSION, role.encode(), name.encode(), keeper_nonce, engine_nonce, binding.encode())
    return hmac.digest(token, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


def token(text: str) -> bytes:
    """The token that 64 hexadecimal digits write; `ValueError` when they are none. The text is never in the message."""
    digits = text.strip()
    if not re.fullmatch(r"[0-9a-f]{64}", digits, re.ASCII):
        raise ValueError(f"{len(digits)} characters that are no token; allowed: 64 hexadecimal digits, lower case")
    return bytes.fromhex(digits)


class _Talk:
    """Bytes in, one message after the other out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.proven = False

    def _next(self, decoder: msgspec.msgpack.Decoder[T], *, last: bool = False) -> T | None:
        """The next message, None while it is incomplete. Nothing may follow it, but for the last one."""
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        length = int.from_bytes(buffer[:4], "big")
        if length > LONGEST:
            raise NotProven(f"a message of {length} bytes before the proof; at most {LONGEST} are allowed")
        if len(buffer) < 4 + length:
            return None
        if len(buffer) > 4 + length and not last:
            raise NotProven("it talks on before it is answered")
        body = bytes(buffer[4 : 4 + length])
        del buffer[: 4 + length]
        try:
            return wire.decode(decoder, body)
        except wire.WireError:  # whose words may be a stranger's
            raise NotProven("what came is no message of the proof") from None

    def rest(self) -> bytes:
        """What came after the proof; it is given once."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def _checked(nonce: bytes, version: int) -> bytes:
    if version != VERSION:
        raise NotProven(f"version {version} of the proof is not {VERSION}")
    if len(nonce) != SIZE:
        raise NotProven(f"a nonce of {len(nonce)} bytes is not one of {SIZE}")
    return nonce


class KeeperSide(_Talk):
    """The keeper's side. `nonce` is 32 fresh random bytes; `binding` is of the certificate that it really sees."""

    def __init__(self, name: str, token: bytes, nonce: bytes, binding: str) -> None:
        super().__init__()
        if len(token) != SIZE or not NAME.fullmatch(name):
            raise ValueError(f"a token of {len(token)} bytes under the name {name!r} proves nothing")
        self._name, self._token, self._nonce, self._binding = name, token, nonce, binding
        self._theirs = b""

    def begin(self) -> bytes:
        """What to send first."""
        return wire.frame(_encode(Dial(self._name, self._nonce)))

    def feed(self, data: bytes) -> bytes:
        """Take bytes, give what to send; afterwards see `proven`, then `rest`. `NotProven` ends it."""
        self._buffer += data
        if self.proven:
            return b""
        if not self._theirs:
            challenge = self._next(_challenge)
            if challenge is None:
                return b""
            self._theirs = _checked(challenge.nonce, challenge.version)
            return wire.frame(_encode(Proof(self._mac("keeper"))))
        proof = self._next(_proof, last=True)
        if proof is not None:
            if not hmac.compare_digest(proof.mac, self._mac("engine")):
                raise NotProven("who listens there does not know the token")
            self.proven = True
        return b""

    def _mac(self, role: str) -> bytes:
        return mac(self._token, role, self._name, self._nonce, self._theirs, self._binding)


class EngineSide(_Talk):
    """The engine's side. `token_of` gives the token expected under a name now, None for an unknown one.

    `nonce` and `decoy` are 32 fresh random bytes each; the decoy stands in for the token of an unknown name.
    """

    def __init__(self, token_of: Callable[[str], bytes | None], nonce: bytes, decoy: bytes, binding: str) -> None:
        super().__init__()
        self._token_of, self._nonce, self._decoy, self._binding = token_of, nonce, decoy, binding
        self._theirs = b""
        self.name = ""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, give what to send; afterwards see `proven` and `name`. `NotProven` ends it."""
        self._buffer += data
        if self.proven:
            return b""
        if not self._theirs:
            dial = self._next(_dial)
            if dial is None:
                return b""
            if not NAME.fullmatch(dial.name):
                raise NotProven("what it says is no name")
            self._theirs, self.name = _checked(dial.nonce, dial.version), dial.name
            return wire.frame(_encode(Challenge(self._nonce)))
        proof = self._next(_proof)
        if proof is None:
            return b""
        known = self._token_of(self.name)  # now: it may have died since the challenge
        token = self._decoy if known is None else known
        right = hmac.compare_digest(proof.mac, self._mac(token, "keeper"))
        if known is None or not right:
            raise NotProven("it does not know the token")
        self.proven = True
        return wire.frame(_encode(Proof(self._mac(token, "engine"))))

    def _mac(self, token: bytes, role: str) -> bytes:
        return mac(token, role, self.name, self._theirs, self._nonce, self._binding)
