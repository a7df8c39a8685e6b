"""The wire: bodies come out whole however the bytes are cut, and garbage is one error."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.trial_sdk import channel, wire


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 100), min_size=1))
def test_bodies_come_out_whole_however_the_bytes_are_cut(bodies, sizes):
    stream = b"".join(map(wire.frame, bodies))
    framer, found, turn = wire.Framer(), [], 0
    while stream:
        size = sizes[turn % len(sizes)]
        found += framer.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert found == bodies


def test_a_length_is_checked_before_the_body_is_there():
    with pytest.raises(wire.WireError, match="claims"):
        wire.Framer().feed((wire.MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(wire.WireError, match="longer"):
        wire.frame(bytes(wire.MAX_FRAME + 1))
    assert wire.Framer().feed(wire.frame(bytes(wire.MAX_FRAME))) == [bytes(wire.MAX_FRAME)]


@given(st.binary(max_size=100))
def test_garbage_is_one_error(data):
    for decoder in (channel.to_keeper, channel.from_keeper):
        try:
            wire.decode(decoder, data)
        except wire.WireError:
            pass


@pytest.mark.parametrize("body", [b"", b"\x91" * 100_000, b"\xa2\xff\xff", b"\x81\xa4type\xa2\xff\xff", b"\xc1"])
def test_each_kind_of_garbage(body):
    with pytest.raises(wire.WireError):
        wire.decode(channel.to_keeper, body)


def test_every_message_comes_back():
    for message in (
        channel.Launch("t1", 0, 3, 1, "{}", "true", "/", {"A": "b"}, ["C"], "/bin", True),
        channel.Probe("t1", 0, {"1-a": 5}),
        channel.Answer("t1", 0, "1-a", 3, 2, None),
    ):
        assert wire.decode(channel.to_keeper, channel.encoder.encode(message)) == message
    for answer in (
        channel.Reports("t1", 0, "1-a", 1, b"\0\xff"),
        channel.Exited("t1", 0, None, 5, "lease", "stderr"),
    ):
        assert wire.decode(channel.from_keeper, channel.encoder.encode(answer)) == answer


def test_a_report_is_an_array():
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(wire.Report(1, "I", 0, "2"))) == [1, "I", 0, "2"]
