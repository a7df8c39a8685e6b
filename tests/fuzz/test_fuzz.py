"""The gate's share of fuzzing: frames, spools and config files; run_fuzz.py has more of each.

TUNE_SEED (1) is where the random choices start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import parsers

from tune.trial_sdk import wire

SEED = int(os.environ.get("TUNE_SEED", "1"))


def test_P8_frames() -> None:
    assert list(parsers.frames(400_000, SEED)) == []


def test_P8_spools() -> None:
    assert list(parsers.spools(20_000, SEED)) == []


def test_P8_P12_handshakes() -> None:
    assert list(parsers.handshakes(20_000, SEED)) == []


def test_control_a_side_that_believes_everybody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.trial_sdk.proof.mac", lambda *_: bytes(32))
    assert next(parsers.handshakes(20_000, SEED), None) is not None


def test_P8_config_files(tmp_path: Path) -> None:
    assert list(parsers.configs(1500, SEED, tmp_path)) == []


def test_P8_logs_of_strangers(tmp_path: Path) -> None:
    assert list(parsers.logs(800, SEED, tmp_path)) == []


def test_every_message_of_the_wire_is_a_seed() -> None:
    unions = [wire.FromTrial, wire.ToTrial]
    seeds = {type(message) for messages, _ in parsers.FRAMES.values() for message in messages}
    for union in unions:
        assert set(union.__args__) <= seeds


def test_seeds_are_read_as_they_are() -> None:
    for messages, read in parsers.FRAMES.values():
        for message in messages:
            assert msgspec.msgpack.encode(read(msgspec.msgpack.encode(message))) == msgspec.msgpack.encode(message)


def test_control_a_reader_that_lets_other_errors_through_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(body: bytes) -> object:
        return body.decode()

    monkeypatch.setattr(parsers, "FRAMES", {"careless": (parsers.FRAMES["engine to people"][0], careless)})
    assert next(parsers.frames(100_000, SEED), None) is not None
