"""Mutation fuzzing of everything that reads what somebody else wrote: frames, spools, config files.

Each search yields what went wrong: an exception that is not the parser's own, a result that can't be, memory or CPU
time beyond a bound. Frames are changed a whole batch at a time with numpy, so that a hundred million of them are
minutes; the rest byte by byte from seeds.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from tune.engine import config_load, door_wire, host_wire, plugins, requests, views
from tune.engine import log as log_module
from tune.engine.client import View
from tune.engine.errors import TuneError, UsageError
from tune.engine.events import Row
from tune.engine.home import Folder
from tune.engine.log import Reader
from tune.engine.replay import Replay, plain
from tune.engine.why import explain
from tune.trial_sdk import channel, proof, spool, wire

PATIENCE = 2.0  # seconds of CPU that one input may take
ROOT = Path(__file__).parent.parent.parent
_encode = msgspec.msgpack.encode

# -- frames -----------------------------------------------------------------------------------------------------------
_TRIAL = [wire.Hello("abcde/0", "77", 77), wire.Poke(), wire.Waiting(1 << 40)]
_TO_TRIAL = [wire.Recorded(9), wire.Parameters(3, 1, '{"x":0.25}'), wire.EngineState(True), wire.StopNotice()]
_TO_KEEPER = [
    channel.Attach("exp", 3),
    channel.Launch("abcde", 0, 7, 0, '{"lr":0.1}', "python t.py", "/tmp", {"A": "b"}, ["C"], "/bin", True),
    channel.Probe("abcde", 1, {"77": 12, "78": 0}),
    channel.Stop("abcde", 0, 10.0),
    channel.Ack("abcde", 0, "77", 1 << 33),
    channel.Answer("abcde", 0, "77", 4, 2, None),
    channel.Forget("abcde", 0),
    channel.Shutdown(),
]
_FROM_KEEPER = [
    channel.Attached("host", 1, "boot"),
    channel.Refused("older"),
    channel.Launched("abcde", 0, 4242, 1_700_000_000_000_000),
    channel.LaunchFailed("abcde", 0, "no such folder"),
    channel.NeverLaunched("abcde", 0),
    channel.Reports("abcde", 0, "77", 1, spool.frame(wire.Report(1, "I", 0, "0.5"))),
    channel.TrialWaits("abcde", 0, "77", 2),
    channel.Exited("abcde", 0, -9, 1_700_000_000_000_000, "lease", "Traceback"),
    channel.Flood("abcde", 0, "77", 5, 9),
]
_TO_HOST = [
    host_wire.Setup(b'{"search_space":{}}'),
    host_wire.Observe(
        [
            plugins.Suggested(4, 0, 0, {"x": 1.5}, "abcde", 1),
            plugins.Reported(5, 0, 0, 0, float("nan")),
            plugins.Ended(6, 0, 0, "completed", 0.5),
            plugins.Imported(7, {"x": 2}, None),
            plugins.SpaceChanged(8, 1, {"x": {"_type": "uniform", "_value": [0, 1]}}),
        ]
    ),
    host_wire.AskNow(1, 0, 3, "abcde"),
    host_wire.Bye(),
]
_FROM_HOST = [
    host_wire.Ready("intermediates", False, "x", "y"),
    host_wire.Answered(1, 0, 17, '{"x":0.5}', 3, 1.5, [1, 2], "{}"),
    host_wire.Waits(1, 0, 9, "later"),
    host_wire.Spent(1, 0, 9, "grid"),
    host_wire.Failed("raised", 1, 0, "Traceback", True),
    host_wire.Verdict(3, 99, "hopeless"),
]
_PEOPLE = [door_wire.Say(1, requests.AskStop("me")), door_wire.Watch()]
_TO_PEOPLE = [door_wire.Done(1), door_wire.Refusal(2, "no"), door_wire.Durable(1 << 40)]


def _reader(union: Any) -> Callable[[bytes], object]:
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(union)
    return lambda body: wire.decode(decoder, body)


FRAMES: dict[str, tuple[list[Any], Callable[[bytes], object]]] = {
    "trial to keeper": (_TRIAL, _reader(wire.FromTrial)),
    "keeper to trial": (_TO_TRIAL, _reader(wire.ToTrial)),
    "engine to keeper": (_TO_KEEPER, lambda body: wire.decode(channel.to_keeper, body)),
    "keeper to engine": (_FROM_KEEPER, lambda body: wire.decode(channel.from_keeper, body)),
    "engine to tuner host": (_TO_HOST, host_wire.read_to_host),
    "tuner host to engine": (_FROM_HOST, host_wire.read_from_host),
    "people to engine": (_PEOPLE, lambda body: wire.decode(door_wire.from_client, body)),
    "engine to people": (_TO_PEOPLE, lambda body: wire.decode(door_wire.to_client, body)),
}
_BATCH = 20_000


def frames(count: int, seed: int) -> Iterator[str]:
    """`count` frames, every one with at least one changed byte in its body, through `Framer` and each side's decoder.

    One batch in ten also has lengths changed: there the framer may end the connection, and nothing else may happen.
    """
    dice = np.random.Generator(np.random.Philox(seed))
    names = list(FRAMES)
    done = batch = 0
    while done < count:
        name = names[batch % len(names)]
        messages, read = FRAMES[name]
        made = _batch(messages, dice, lengths=batch % 10 == 9)
        sizes = dice.integers(1, 1 << int(dice.integers(4, 17)), 1 << 12).tolist()
        heard, wrong = _feed(made, sizes, read)
        if wrong:
            yield f"{name}, batch {batch} of seed {seed}: {wrong}"
        if batch % 10 != 9 and heard != _BATCH:
            yield f"{name}, batch {batch} of seed {seed}: {heard} of {_BATCH} frames came through"
        done += _BATCH
        batch += 1


def _batch(messages: list[Any], dice: np.random.Generator, *, lengths: bool) -> bytes:
    """_BATCH frames of these messages in random order, changed."""
    parts = [wire.frame(_encode(message)) for message in messages]
    chosen = dice.integers(0, len(parts), _BATCH)
    data = np.frombuffer(b"".join([parts[index] for index in chosen.tolist()]), dtype=np.uint8).copy()
    size = np.array([len(part) for part in parts])[chosen]
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    for share in (1.0, 0.5, 0.25):  # one change in each, a second one in half of them ...
        hit = np.flatnonzero(dice.random(_BATCH) < share)
        at = start[hit] + 4 + (dice.random(len(hit)) * (size[hit] - 4)).astype(np.int64)
        kind = dice.integers(0, 3, len(hit))
        flip = np.left_shift(1, dice.integers(0, 8, len(hit))).astype(np.uint8)
        anything = dice.integers(0, 256, len(hit)).astype(np.uint8)
        nasty = np.array([0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC6, 0xCB, 0xD3, 0xDD, 0xDF, 0xFF], dtype=np.uint8)
        data[at] = np.choose(kind, [data[at] ^ flip, anything, nasty[dice.integers(0, len(nasty), len(hit))]])
    if lengths:
        hit = dice.integers(0, _BATCH, 3)
        data[start[hit] + dice.integers(0, 4, 3)] = dice.integers(0, 256, 3)
    return data.tobytes()


def _feed(data: bytes, sizes: list[int], read: Callable[[bytes], object]) -> tuple[int, str]:
    """Feed it in pieces: how many bodies came out, and what went wrong."""
    framer = wire.Framer()
    heard = at = 0
    begin = time.process_time()
    piece = 0
    while at < len(data):
        size = sizes[piece % len(sizes)]
        piece += 1
        try:
            bodies = framer.feed(data[at : at + size])
        except wire.WireError:
            return heard, ""
        except Exception as error:
            return heard, f"the framer raised {type(error).__name__}: {error}"
        at += size
        heard += len(bodies)
        for body in bodies:
            try:
                read(body)
            except wire.WireError:
                pass
            except Exception as error:
                return heard, f"{type(error).__name__}: {error} for {body.hex()}"
    if len(framer._buffer) > wire.MAX_FRAME + 4 + (1 << 17):
        return heard, f"the framer holds {len(framer._buffer)} bytes"
    took = time.process_time() - begin
    return heard, "" if took < 10 * PATIENCE else f"it took {took:.1f} s"


# -- single inputs ----------------------------------------------------------------------------------------------------
def mutated(data: bytes, others: list[bytes], choose: random.Random, words: list[bytes]) -> bytes:
    """A few changes: bits, bytes, pieces moved, doubled, taken out, words put in, another seed's piece."""
    made = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 4, 8))):
        size = len(made)
        at = choose.randrange(size + 1)
        how = choose.randrange(9)
        length = min(choose.choice((1, 2, 4, 16, 64)), size - at)
        if how == 0 and at < size:
            made[at] ^= 1 << choose.randrange(8)
        elif how == 1 and at < size:
            made[at] = choose.randrange(256)
        elif how == 2:
            del made[at : at + length]
        elif how == 3:
            made[at:at] = made[at : at + length] * choose.choice((1, 2, 50))
        elif how == 4:
            there = choose.randrange(size + 1)
            made[there:there] = made[at : at + length]
        elif how == 5:
            made[at:at] = choose.choice(words)
        elif how == 6:
            made[at : at + length] = choose.choice(words)
        elif how == 7:
            other = choose.choice(others)
            there = choose.randrange(len(other) + 1)
            made[at:at] = other[there : there + choose.choice((8, 64, 512))]
        else:
            del made[at + choose.randrange(200) :]
    return bytes(made[: 2 << 20])


def spools(count: int, seed: int) -> Iterator[str]:
    """Changed spools through `parse` and `scan`: reports in order, or SpoolDamaged."""
    choose = random.Random(seed)
    seeds = []
    for salt in range(8):
        dice = random.Random(salt)
        reports = [
            wire.Report(number, dice.choice("IIIFR"), dice.randrange(3), json.dumps(dice.random()) * dice.randrange(3))
            for number in range(1, dice.randrange(2, 12))
        ]
        seeds.append(b"".join(spool.frame(report) for report in reports))
    words = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"\0\x11\0\0", bytes(64), seeds[0][:20]]
    for number in range(count):
        own = choose.randrange(1 << 60)
        dice = random.Random(own)
        data = mutated(dice.choice(seeds), seeds, dice, words)
        begin = time.process_time()
        wrong = ""
        try:
            end, whole = spool.scan(data, 0)
            if not 0 <= end <= len(data) or whole * (spool.HEADER + 1) > max(end, 0):
                wrong = f"scan said {whole} frames up to {end} of {len(data)} bytes"
        except spool.SpoolDamaged:
            pass
        except Exception as error:
            wrong = f"scan raised {type(error).__name__}: {error}"
        try:
            found = spool.parse(data)
            if (
                [report.number for report in found] != list(range(found[0].number, found[0].number + len(found)))
                if found
                else False
            ):
                wrong = "parse gave numbers with a gap"
        except spool.SpoolDamaged:
            pass
        except Exception as error:
            wrong = f"parse raised {type(error).__name__}: {error}"
        if time.process_time() - begin > PATIENCE:
            wrong = f"it took {time.process_time() - begin:.1f} s"
        if wrong:
            yield f"input {number} ({own}) of seed {seed}: {wrong}: {data.hex()[:400]}"


_WORDS = [
    *(bytes([byte]) for byte in b"[]{}:,=\"'#-*&!|>."),
    *(b"_type", b"_value", b"choice", b"uniform", b"1e999", b"nan"),
    b"\n",
    b"\t",
    b"  ",
    b"&a [*a,*a]",
    b"[[",
    b"a.b.c.d.e.f = 1\n",
    b'"""',
    b"'''",
    b"\xff\xfe",
    b"\0",
    b"!!python/object/apply:os.system",
    b"<<: *a",
    b"9" * 400,
    b"0x",
    b"1979-05-27T07:32:00Z",
    b"\\u0000",
    b"\\ud800",
    b"? ",
    b"[" * 70,
    b"- " * 70,
    "ä€😀".encode(),
]


def config_seeds() -> dict[str, list[bytes]]:
    """The examples' files, by suffix."""
    found: dict[str, list[bytes]] = {".toml": [], ".yaml": [], ".json": []}
    for path in sorted((ROOT / "examples").glob("*/config*")):
        found[path.suffix].append(path.read_bytes())
    found[".json"] = [
        json.dumps(tomllib.loads(text.decode()), default=str, indent=1).encode() for text in found[".toml"]
    ]
    return found


def configs(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Changed config files through `config_load.load`: a config, or one UsageError."""
    choose = random.Random(seed)
    seeds = config_seeds()
    everything = [text for texts in seeds.values() for text in texts]
    for number in range(count):
        own = choose.randrange(1 << 60)
        dice = random.Random(own)
        suffix = dice.choice(list(seeds))
        data = mutated(dice.choice(seeds[suffix]), everything, dice, _WORDS)
        path = folder / f"config{suffix}"
        path.write_bytes(data)
        begin = time.process_time()
        wrong = ""
        try:
            config_load.load(path)
        except UsageError as error:
            if not str(error).strip() or len(str(error)) > 20_000:
                wrong = f"its message has {len(str(error))} characters"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if time.process_time() - begin > PATIENCE:
            wrong = f"it took {time.process_time() - begin:.1f} s"
        if wrong:
            yield f"input {number} ({own}) of seed {seed}: {wrong[:300]}: {suffix} {data[:4000]!r}"


# -- the proof of a TCP channel ---------------------------------------------------------------------------------------
def handshakes(count: int, seed: int) -> Iterator[str]:
    """Talks of proof.py with a changed message in them, in pieces: refused, or waited for; and nobody is ever sure."""
    choose = random.Random(seed)
    token, binding = bytes(range(32)), "ab" * 32
    words = [bytes(4), b"\0\0\x02\0", b"\xff\xff\xff\xff", b"\xa4type", b"\xa5proof", b"\xc4\x20", token, b"\x84"]
    for number in range(count):
        own = choose.randrange(1 << 60)
        dice = random.Random(own)
        keeper = proof.KeeperSide("local", token, dice.randbytes(32), binding)
        engine = proof.EngineSide({"local": token}.get, dice.randbytes(32), dice.randbytes(32), binding)
        said: list[bytes] = []
        lie, lied, wrong = dice.randrange(4), 4, ""
        begin = time.process_time()
        try:
            for step in range(4):
                out = keeper.begin() if step == 0 else _in_pieces([engine, keeper][step % 2 == 0], said[-1], dice)
                if step == lie:
                    made = mutated(out, said or [b"x"], dice, words)
                    if made != out and not (step == 3 and made.startswith(out)):
                        lied = step
                    out = made
                said.append(out)
            _in_pieces(keeper, said[-1], dice)
        except proof.NotProven as error:
            if len(str(error)) > 200:
                wrong = f"its message has {len(str(error))} characters"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if (engine.proven and lied < 3) or (keeper.proven and lied < 4):
            wrong = f"message {lied} was changed, and a side is sure: {said[lied].hex()}"
        if lied == 4 and not wrong and not (engine.proven and keeper.proven):
            wrong = "nothing was changed, and a side is not sure"
        if time.process_time() - begin > PATIENCE:
            wrong = f"it took {time.process_time() - begin:.1f} s"
        if wrong:
            yield f"input {number} ({own}) of seed {seed}: {wrong}"


def _in_pieces(side: proof.KeeperSide | proof.EngineSide, data: bytes, dice: random.Random) -> bytes:
    """What a side answers to bytes that come in pieces."""
    out, at = b"", 0
    while at < len(data):
        size = dice.choice((1, 7, 64, 4096))
        out += side.feed(data[at : at + size])
        at += size
    return out


# -- logs of strangers ------------------------------------------------------------------------------------------------
_ODD_NUMBERS = [0, 1, -1, 2, 7, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 40]
_ODD_VALUES: list[Any] = [
    None,
    "",
    "x" * 1000,
    "\u202e\x1b[2J",
    [],
    {},
    [[[[1]]]],
    {"a": {"b": 1}},
    True,
    1e308,
    -0.0,
    "NaN",
]


def logs(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Logs whose chain is right and whose events are not: seen, or one TuneError; never a crash or a bomb."""
    choose = random.Random(seed)
    golden = []
    for path in sorted((ROOT / "tests" / "golden").glob("*.db")):
        with Reader(path) as reader:
            golden.append(list(reader.rows()))
    place = Folder("log", folder, folder)
    for number in range(count):
        own = choose.randrange(1 << 60)
        dice = random.Random(own)
        rows = _odd(dice.choice(golden), dice)
        forge(place.events, rows)
        begin = time.process_time()
        wrong = ""
        try:
            view = View(place)
            try:
                views.to_json(views.status(view.state, folder=folder, pid=None))
                views.to_json(views.trials(view.state, folder=folder))
                for row in rows:
                    views.to_json(views.fact(row))
                view.state.digest()
                if number % 8 == 0:
                    for step in Replay(place).steps():
                        views.to_json(plain(step))
                    for one in view.state.made[:1]:
                        views.to_json(explain(place, one.number))
            finally:
                view.close()
        except TuneError:
            pass
        except AssertionError:
            if rows and rows[0].kind == "EXPERIMENT":
                wrong = "AssertionError"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error} at {traceback.extract_tb(error.__traceback__)[-1]}"
        if time.process_time() - begin > PATIENCE:
            wrong = f"it took {time.process_time() - begin:.1f} s"
        if wrong:
            yield f"log {number} ({own}) of seed {seed}: {wrong[:600]}"


def _odd(rows: list[Row], dice: random.Random) -> list[Row]:
    """Some events taken out, doubled, moved, or with other values; seq, epochs and senders' numbers made to fit."""
    made = list(rows)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(made))
        how = dice.randrange(7)
        row = made[at]
        if how == 0 and len(made) > 1:
            del made[at]
        elif how == 1:
            made.insert(dice.randrange(len(made) + 1), row)
        elif how == 2:
            made.insert(dice.randrange(len(made)), made.pop(at))
        elif how == 3:
            made[at] = replace(row, trial=dice.choice([None, dice.randrange(12), dice.choice(_ODD_NUMBERS)]))
        elif how == 4:
            made[at] = replace(row, wall_us=dice.choice(_ODD_NUMBERS), cause=dice.choice(_ODD_NUMBERS))
        else:
            body = json.loads(row.body)
            inner = body["config"] if row.kind == "EXPERIMENT" and dice.random() < 0.8 else body
            if isinstance(inner, dict) and inner:
                key = dice.choice(list(inner))
                inner[key] = dice.choice([dice.choice(_ODD_VALUES), dice.choice(_ODD_NUMBERS), dice.random()])
            made[at] = replace(row, body=json.dumps(body))
    numbers: Counter[str] = Counter()
    for at, row in enumerate(made):
        numbers[row.sender] += 1
        made[at] = replace(row, sender_seq=numbers[row.sender])
    return made


def forge(path: Path, rows: list[Row]) -> None:
    """A log with these rows, dense and rightly chained."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    connection.execute(log_module._TABLE)
    chain = log_module.ZERO
    for seq, row in enumerate(rows, 1):
        row = replace(row, seq=seq)
        chain = log_module.chain_of(chain, row)
        values = [getattr(row, name) for name in Row.__struct_fields__]
        connection.execute(f"INSERT OR IGNORE INTO event VALUES ({', '.join('?' * 11)})", [*values, chain])
    for sql in log_module._TRIGGERS.values():
        connection.execute(sql)
    connection.execute(f"PRAGMA application_id = {log_module.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {log_module.FORMAT}")
    connection.execute("COMMIT")
    connection.close()
