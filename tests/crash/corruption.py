"""Changed logs: flips, cuts, splices and swaps of small logs, and whether `verify` sees every one that matters.

A change that leaves every event as it was may go unseen (a free page, a byte between two cells); a change of any event
must be found, and the events before the first bad one must be the true ones.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from log_checks import Row
from writer import room

from tune.engine.log import Log, LogError, Reader
from tune.engine.verify import verify

FILES = ("events.db", "events.db-wal", "events.head")
PATIENCE = 5.0  # seconds of CPU that one look at a small log may take

Files = dict[str, bytes]
Table = list[tuple[Any, ...]] | None


def rows(count: int, salt: int) -> list[Row]:
    """Rows of all shapes: small and large bodies, Nones, numbers of many sizes."""
    choose = random.Random(salt)
    made = []
    numbers: dict[str, int] = {}
    for seq in range(1, count + 1):
        sender = choose.choice(("abcde.0.1", "bcdef.1.77", "cdefg.0.3", "e1"))
        numbers[sender] = numbers.get(sender, 0) + 1
        value = choose.choice((choose.random(), choose.randrange(1 << 60), "NaN", "x" * choose.randrange(1, 300)))
        text = f'"{value}"' if isinstance(value, str) else repr(value)
        trial = choose.choice((None, choose.randrange(min(seq, 9))))
        cause = choose.choice((None, choose.randrange(1 << 40)))
        body = f'{{"value":{text}}}'
        made.append(Row(seq, 1, "METRIC", 1, sender, numbers[sender], trial, cause, 1_700_000_000_000_000 + seq, body))
    return made


def subject(count: int, salt: int, *, open_wal: bool) -> tuple[Files, Table]:
    """The files of a log, closed well or left as a killed engine leaves it, and its table."""
    folder = room()
    path = folder / "events.db"
    copy = room()

    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        made = rows(count, salt)
        for start in range(0, count, 7):
            await log.append(made[start : start + 7])
        await log.close(checkpoint=not open_wal)

    asyncio.run(main())
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
    table = plain(path)
    shutil.rmtree(folder)
    shutil.rmtree(copy)
    return files, table


def plain(path: Path) -> Table:
    """The table by plain SQLite; None when it can't be read."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        return list(connection.execute("SELECT * FROM event ORDER BY seq"))
    except (sqlite3.Error, UnicodeDecodeError):  # SQLite's messages can quote a damaged file
        return None
    finally:
        connection.close()


def mutate(files: Files, other: Files, choose: random.Random, *, alone: bool = True) -> tuple[Files, str]:
    """One change, or now and then several, and what it was. A whole file is exchanged `alone` or not at all."""
    changed = dict(files)
    name = choose.choices(list(files), [30 if n == "events.db" else 20 if n.endswith("-wal") else 2 for n in files])[0]
    data = bytearray(files[name])
    size = len(data)
    if not size:
        return changed, "nothing"
    how = choose.choice((*range(12), 11)) if alone else choose.choice((*range(10), 11))
    at = choose.randrange(size)
    if how <= 3:
        data[at] ^= 1 << choose.randrange(8)
        said = f"bit {at}"
    elif how == 4:
        data[at] = choose.randrange(256)
        said = f"byte {at}"
    elif how == 5:
        length = choose.choice((2, 8, 16, 512, 4096))
        data[at : at + length] = choose.randbytes(min(length, size - at))
        said = f"{length} random bytes at {at}"
    elif how == 6:
        length = choose.choice((1, 16, 512, 4096))
        data[at : at + length] = bytes(min(length, size - at))
        said = f"{length} zeros at {at}"
    elif how == 7:
        del data[at:]
        said = f"cut at {at}"
    elif how == 8:
        unit = choose.choice((1, 512, 4096))
        here, there = choose.randrange(size // unit + 1) * unit, choose.randrange(size // unit + 1) * unit
        piece = data[there : there + unit]
        data[here : here + len(piece)] = piece
        said = f"{unit} bytes of {there} over {here}"
    elif how == 9:
        unit = choose.choice((16, 512, 4096))
        here = choose.randrange(size // unit + 1) * unit
        piece = other.get(name, b"")[here : here + unit]
        data[here : here + len(piece)] = piece
        said = f"{unit} bytes of another log at {here}"
    elif how == 10:
        data = bytearray(other.get(name, b""))
        said = "the file of another log"
    else:
        unit = choose.choice((1, 8, 512, 4096))
        if choose.random() < 0.5:
            del data[at : at + unit]
            said = f"{unit} bytes taken out at {at}"
        else:
            data[at:at] = choose.randbytes(unit)
            said = f"{unit} bytes put in at {at}"
    if choose.random() < 0.01 and name.endswith("-wal"):
        del changed[name]
        return changed, f"{name} taken away"
    changed[name] = bytes(data)
    if choose.random() < 0.1 and how != 10:
        again, more = mutate(changed, other, choose, alone=False)
        return again, f"{name}: {said}; {more}"
    return changed, f"{name}: {said}"


def wrong(folder: Path, files: Files, truth: Table, said: str = "") -> str:
    """What is wrong with how these files are judged; "" for nothing. `said` is what `mutate` did to them."""
    assert truth is not None
    for name in (*FILES, "events.db-shm"):
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / "events.db"
    begin = time.process_time()
    try:
        found = verify(path)
    except LogError as error:
        return "" if time.process_time() - begin < PATIENCE else f"it took long to say {error}"
    except Exception as error:
        return f"verify raised {type(error).__name__}: {error}"
    if time.process_time() - begin > PATIENCE:
        return f"verify took {time.process_time() - begin:.1f} s"
    table = plain(path)
    if found.ok:
        if table == truth:
            return ""
        if "events.head is missing" in found.reason and table == truth[: found.events]:
            return ""  # a cut tail together with a head that was hit as well: said, and not promised
        return "an event was changed, and verify says ok"
    # what is good in itself and another log's is found, but by its end: no event can be named
    exchanged = found.first_bad_seq is None or "another log" in said
    if not exchanged and table is not None and table[: found.events] != truth[: found.events]:
        return f"verify calls {found.events} events good, and one of them was changed"
    if found.first_bad_seq is not None and found.first_bad_seq > len(truth) + 1:
        return f"the first bad event is said to be {found.first_bad_seq}"
    if table is not None and found.first_bad_seq is not None and not exchanged:
        first = next((seq for seq, (a, b) in enumerate(zip(table, truth, strict=False), 1) if a != b), None)
        if first is not None and found.first_bad_seq > first:
            return f"event {first} was changed, and {found.first_bad_seq} is called the first bad one"
    return "" if exchanged else _read_so_far(path, found.events, truth)


def _read_so_far(path: Path, events: int, truth: list[tuple[Any, ...]]) -> str:
    """What the Reader yields before it refuses must be true."""
    if not events:
        return ""
    try:
        with Reader(path) as reader:
            for row, expected in zip(reader.rows(upto=events), truth, strict=False):
                if row.body.encode() != expected[9]:
                    return f"event {row.seq} was read wrong"
    except LogError as error:
        return f"{events} good events can't be read again: {error}"
    return ""


def search(count: int, seed: int) -> Iterator[str]:
    """`count` changed logs; yields what went wrong."""
    choose = random.Random(seed)
    folder = room()
    for start in range(0, count, 2000):
        salt = choose.randrange(1 << 30)
        size = choose.choice((3, 20, 45))
        open_wal = choose.random() < 0.5
        files, truth = subject(size, salt, open_wal=open_wal)
        other, _ = subject(size, salt + 1, open_wal=open_wal)
        older, _ = subject(size - 1, salt, open_wal=open_wal)
        for number in range(start, min(start + 2000, count)):
            own = choose.randrange(1 << 60)
            changed, said = mutate(files, choose.choice((other, older)), random.Random(own))
            if told := wrong(folder, changed, truth, said):
                yield f"change {number} ({said}) of the log with salt {salt}, {size} events: {told}"
    shutil.rmtree(folder)
