"""The wire: length-prefixed msgpack frames, and what a trial and its keeper say to each other.

A frame is a big-endian u32 length and that many bytes of msgpack, at most 1 MiB + 64 KiB, checked before the body is
read. Bytes are not meaning: `Framer` is fed bytes and gives bodies, `Decoder`s of tagged structs give them meaning.
This module is imported by every trial, so it holds little and imports msgspec only.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")
MAX_FRAME = (1 << 20) + (1 << 16)
VERSION = 1


class WireError(Exception):
    """What came over the wire is no message; only that connection ends."""


def frame(body: bytes) -> bytes:
    """One frame around a body; `WireError` when it is too long."""
    if len(body) > MAX_FRAME:
        raise WireError(f"a message of {len(body)} bytes is longer than {MAX_FRAME}")
    return len(body).to_bytes(4, "big") + body


class Framer:
    """Takes bytes as they come, gives whole bodies; holds at most one incomplete frame."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """All bodies that `data` completes; `WireError` when a length is over the limit."""
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start, end = 0, len(buffer)
        while end - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if length > MAX_FRAME:
                raise WireError(f"a frame claims {length} bytes, the limit is {MAX_FRAME}")
            stop = start + 4 + length
            if stop > end:
                break
            bodies.append(bytes(buffer[start + 4 : stop]))
            start = stop
        if start:
            del buffer[:start]
        return bodies


def decode(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    """The message in a body; every way in which it can be garbage is one `WireError`."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from None


class Report(Struct, frozen=True, array_like=True, gc=False):
    """One record of a spool: what a trial's process says, numbered 1, 2, 3 ... per process.

    kind: "I" intermediate, "F" final, "R" request for the next parameters. `value` is JSON text ("" for R).
    """

    number: int
    kind: str
    phase: int
    value: str = ""


# -- trial -> keeper --------------------------------------------------------------------------------------------------
class Hello(Struct, frozen=True, tag="hello"):
    """First on every connection. `launch` is `<trial id>/<attempt>`; `process` names the spool."""

    launch: str
    process: str
    pid: int
    version: int = VERSION


class Poke(Struct, frozen=True, tag="poke"):
    """There is more in the spool."""


class Waiting(Struct, frozen=True, tag="waiting"):
    """The process waits for the answer to this report (a request), or for it to be recorded (a final)."""

    number: int


# -- keeper -> trial --------------------------------------------------------------------------------------------------
class Recorded(Struct, frozen=True, tag="recorded"):
    """Everything up to this number is in the log."""

    number: int


class Parameters(Struct, frozen=True, tag="parameters"):
    """The answer to request `number`: the phase and its parameters as JSON text; None: nothing more for this trial."""

    number: int
    phase: int
    parameters: str | None


class EngineState(Struct, frozen=True, tag="engine"):
    """Whether an engine listens; said after Hello and at every change."""

    connected: bool


class StopNotice(Struct, frozen=True, tag="stop"):
    """The trial is to end; SIGTERM follows at once."""


FromTrial = Hello | Poke | Waiting
ToTrial = Recorded | Parameters | EngineState | StopNotice
