"""What the engine and the tuner host say to each other: every message, once, over a socket pair.

Frames as in trial_sdk/wire.py: a big-endian u32 length and that many bytes of msgpack. What the host says keeps that
module's limit, so that the engine reads it with a `Framer`; what the engine says may be longer (`MAX_TO_HOST`), since
1 MiB of JSON can be more than that as msgpack.

The host answers in order: Setup by Ready, AskNow by Answered, Waits, Spent or Failed (a concurrent tuner: whenever it
likes). Observe is not answered; it may bring Verdicts, and Failed with number None; that of a rebuild, Differs.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from ..trial_sdk.wire import MAX_FRAME, WireError, decode, frame
from .plugins import Observation

MAX_TO_HOST = 8 * MAX_FRAME
_BATCH = 1 << 18


# -- engine -> host ---------------------------------------------------------------------------------------------------
class Setup(Struct, frozen=True, tag="setup"):
    """First and once: the experiment's config, as config.encode wrote it. Answered by Ready."""

    config: bytes


class Observe(Struct, frozen=True, tag="observe"):
    """Facts in log order. With `judge` the assessor is asked after each intermediate; not so in a rebuild."""

    facts: list[Observation]
    judge: bool = True


class AskNow(Struct, frozen=True, tag="ask"):
    """One request for parameters; the fields are those of plugins.Ask."""

    number: int
    attempt: int
    trial: int
    trial_id: str
    phase: int = 0
    space_version: int = 0
    waiting: int = 0


class Bye(Struct, frozen=True, tag="bye"):
    """The host is to end; so it does when the socket closes."""


# -- host -> engine ---------------------------------------------------------------------------------------------------
class Ready(Struct, frozen=True, tag="ready"):
    """The tuner and the assessor stand, or why not (`error`, one line); then the host ends.

    `observes` is "intermediates" when one of the two wants them, else "results". `stateful`: one of the two is, so a
    rebuild wants the asks among the facts. `concurrent`: AskNow is answered when the tuner likes, in any order.
    """

    observes: str = "results"
    deterministic: bool = True
    error: str | None = None
    traceback: str = ""
    stateful: bool = False
    concurrent: bool = False


class Answered(Struct, frozen=True, tag="answered"):
    """A suggestion that was checked. `parameters` (extras included) and `decision` ("" for none) are JSON texts."""

    number: int
    attempt: int
    seen: int
    parameters: str
    continues: int | None = None
    budget: float | None = None
    parents: list[int] = []
    decision: str = ""


class Waits(Struct, frozen=True, tag="waits"):
    """Nothing before something new was observed."""

    number: int
    attempt: int
    seen: int
    reason: str = ""


class Spent(Struct, frozen=True, tag="spent"):
    """Nothing more, ever; with `trial` only nothing more for the trial that asks."""

    number: int
    attempt: int
    seen: int
    reason: str = ""
    trial: bool = False


class Differs(Struct, frozen=True, tag="differs"):
    """A stateful tuner was rebuilt, and says another thing than it did; the log's answers hold. Said once a rebuild."""

    error: str  # one line


class Failed(Struct, frozen=True, tag="failed"):
    """The tuner or assessor raised, or answered nonsense: to ask `number`, or (None) while it observed or judged.

    `fatal`: what it has observed is no longer what the log holds; the host ends after this, and has to be rebuilt.
    """

    error: str  # one line
    number: int | None = None
    attempt: int = 0
    traceback: str = ""
    fatal: bool = False


class Verdict(Struct, frozen=True, tag="verdict"):
    """The assessor says that this trial is hopeless; it may say so more than once."""

    trial: int
    seen: int
    why: str


ToHost = Setup | Observe | AskNow | Bye
FromHost = Ready | Answered | Waits | Spent | Failed | Verdict | Differs

_encoder = msgspec.msgpack.Encoder()
_to_host: msgspec.msgpack.Decoder[ToHost] = msgspec.msgpack.Decoder(ToHost)
_from_host: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)


def to_host(message: ToHost) -> bytes:
    """One frame for the host; `WireError` when it is over `MAX_TO_HOST`."""
    body = _encoder.encode(message)
    if len(body) > MAX_TO_HOST:
        raise WireError(f"a message of {len(body)} bytes to the tuner host is longer than {MAX_TO_HOST}")
    return len(body).to_bytes(4, "big") + body


def observe(facts: list[Observation], *, judge: bool = True) -> list[bytes]:
    """Frames for these facts, in as many Observe messages as keep each one small."""
    frames: list[bytes] = []
    batch: list[msgspec.Raw] = []
    length = 0
    for fact in facts:
        body = msgspec.Raw(_encoder.encode(fact))
        batch.append(body)
        length += len(bytes(body))
        if length >= _BATCH:
            frames.append(_observe(batch, judge))
            batch, length = [], 0
    if batch:
        frames.append(_observe(batch, judge))
    return frames


class _Observe(Struct, frozen=True, tag="observe"):
    facts: list[msgspec.Raw]
    judge: bool


def _observe(batch: list[msgspec.Raw], judge: bool) -> bytes:
    body = _encoder.encode(_Observe(batch, judge))
    if len(body) > MAX_TO_HOST:
        raise WireError(f"a message of {len(body)} bytes to the tuner host is longer than {MAX_TO_HOST}")
    return len(body).to_bytes(4, "big") + body


def from_host(message: FromHost) -> bytes:
    """One frame for the engine; `WireError` when it is over the wire's limit."""
    return frame(_encoder.encode(message))


def read_to_host(body: bytes) -> ToHost:
    """The engine's message in a body; `WireError` when it is none."""
    return decode(_to_host, body)


def read_from_host(body: bytes) -> FromHost:
    """The host's message in a body; `WireError` when it is none."""
    return decode(_from_host, body)
