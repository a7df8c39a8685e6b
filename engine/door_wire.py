"""What people's programs and a running engine say to each other, framed as in trial_sdk/wire.py."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from .requests import PersonsRequest


class Say(Struct, frozen=True, tag="say"):
    """A person's request; `number` names it in the answer."""

    number: int
    request: PersonsRequest


class Watch(Struct, frozen=True, tag="watch"):
    """Tell me from now on how far the log is durable."""


class Done(Struct, frozen=True, tag="done"):
    """The request is in the log."""

    number: int


class Refusal(Struct, frozen=True, tag="refusal"):
    """The request can't be done; nothing was changed."""

    number: int
    reason: str


class Durable(Struct, frozen=True, tag="durable"):
    """Everything up to `seq` is on disk."""

    seq: int


FromClient = Say | Watch
ToClient = Done | Refusal | Durable
encoder = msgspec.msgpack.Encoder()
from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)
