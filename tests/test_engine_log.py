"""The log's rules, L1 to L15 of tune/engine/log.py, against real files, killed writers, full and failing disks.

TUNE_CRASHES (5) is how often a writer is killed, TUNE_SEED (1) where the random choices start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.engine import log as module
from tune.engine.events import Row
from tune.engine.log import (
    ZERO,
    Log,
    LogDamaged,
    LogFenced,
    LogIO,
    LogMissing,
    LogNewer,
    Reader,
    chain_of,
    head_path,
    read_head,
)
from tune.engine.verify import verify

CRASHES = int(os.environ.get("TUNE_CRASHES", "5"))
COLUMNS = "seq, epoch, kind, ver, sender, sender_seq, trial, cause, wall_us, body, chain"
SEED = int(os.environ.get("TUNE_SEED", "1"))


def metric(seq: int, *, epoch: int = 1, body: str = "", sender: str = "abcde.0.1", number: int | None = None) -> Row:
    """An intermediate result; by default the sender's number is seq."""
    body = body or f'{{"value":{seq}.5}}'
    return Row(seq, epoch, "METRIC", 1, sender, seq if number is None else number, 0, None, 1_700_000_000_000_000, body)


def metrics(first: int, last: int, epoch: int = 1) -> list[Row]:
    return [metric(seq, epoch=epoch) for seq in range(first, last + 1)]


def write(path: Path, rows: list[Row]) -> None:
    """A log with these rows, closed in good order."""

    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(rows[0].epoch if rows else 1)
        await log.append(rows)
        await log.close()

    asyncio.run(main())


def read(path: Path) -> list[Row]:
    with Reader(path) as reader:
        return list(reader.rows())


def copy_file(file: Path, folder: Path) -> None:
    """A copy by another process: closing a descriptor of the file here would drop SQLite's locks on it."""
    subprocess.run(["cp", str(file), str(folder)], check=True)


@contextlib.contextmanager
def tampered(path: Path):
    """A connection on which the log is an ordinary table; afterwards its schema is ours again."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for name in module._TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for sql in module._TRIGGERS.values():
            connection.execute(sql)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def tmpfs(tmp_path: Path):
    """A small file system of our own: needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root: mounts a tmpfs")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs root that may mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# L1, L2, L3: the table


def test_L1_table_is_the_documented_one(path: Path) -> None:
    write(path, metrics(1, 3))
    connection = sqlite3.connect(path)
    columns = connection.execute("PRAGMA table_info(event)").fetchall()
    connection.close()
    names = COLUMNS.split(", ")
    assert [column[1] for column in columns] == names
    assert {column[1] for column in columns if not column[3]} == {"seq", "trial", "cause"}


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 program")
def test_L1_L12_plain_sqlite3_reads_the_one_file_that_remains(path: Path) -> None:
    write(path, [metric(1, body='{"value":"NaN"}'), metric(2)])
    assert sorted(file.name for file in path.parent.iterdir()) == ["events.db", "events.head"]
    done = subprocess.run(
        ["sqlite3", "-readonly", str(path), "SELECT seq, json_extract(body, '$.value') FROM event"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1|NaN\n2|2.5\n"


REFUSED = {
    "update": "UPDATE event SET body = '{}' WHERE seq = 2",
    "update of nothing new": "UPDATE event SET seq = seq",
    "delete": "DELETE FROM event WHERE seq = 3",
    "replace by seq": f"INSERT OR REPLACE INTO event SELECT {COLUMNS} FROM event WHERE seq = 2",
    "replace by sender": "INSERT OR REPLACE INTO event SELECT 4, epoch, kind, ver, sender, sender_seq, trial, cause, "
    "wall_us, body, chain FROM event WHERE seq = 2",
    "gap": "INSERT INTO event SELECT 5, epoch, kind, ver, sender, 99, trial, cause, wall_us, body, chain "
    "FROM event WHERE seq = 2",
    "no seq": "INSERT INTO event SELECT NULL, epoch, kind, ver, sender, 99, trial, cause, wall_us, body, chain "
    "FROM event WHERE seq = 2",
    "ignored double": "INSERT OR IGNORE INTO event SELECT 4, epoch, kind, ver, sender, sender_seq, trial, cause, "
    "wall_us, body, chain FROM event WHERE seq = 2",
    "older epoch": "INSERT INTO event SELECT 4, 0, kind, ver, sender, 99, trial, cause, wall_us, body, chain "
    "FROM event WHERE seq = 2",
    "wrong type": "INSERT INTO event SELECT 4, 1, kind, ver, sender, 'x', trial, cause, wall_us, body, chain "
    "FROM event WHERE seq = 2",
}


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED.keys())
def test_L2_L3_table_refuses_all_but_the_next_row(path: Path, sql: str) -> None:
    rows = metrics(1, 3)
    write(path, rows)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(sql)
    connection.close()
    assert read(path) == rows


def test_L2_append_refuses_rows_that_do_not_fit_and_goes_on(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 2))
        odd = [
            metric(2),
            metric(4),
            metric(3, epoch=2),
            metric(3, body='{"value":"\0"}'),
            metric(3, sender="a\0b"),
            metric(3, number=1 << 63),
            metric(3, number=1 << 64),
            metric(3, number=-(1 << 63) - 1),
            metric(3, number=3.0),  # type: ignore[arg-type]
            metric(3, number=True),
            metric(3, body="\ud800"),
            metric(3, body='"' + "x" * module.MAX_ROW + '"'),
        ]
        for row in odd:
            with pytest.raises(ValueError):
                await log.append([row])
        with pytest.raises(ValueError):
            log.take(1)
        await log.append([])
        await log.append([metric(3)])
        await log.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 3)


def test_L2_a_number_said_twice_ends_the_handle(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 2))
        with pytest.raises(LogIO, match="taken"):
            await log.append([metric(3), metric(4, number=1)])
        with pytest.raises(LogIO):
            await log.append([metric(3)])
        await log.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 2)


# L4: the chain

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
numbers = st.integers(-(1 << 63), (1 << 63) - 1)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | numbers | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def batches(draw: st.DrawFn) -> list[list[Row]]:
    rows = []
    for seq in range(1, draw(st.integers(1, 8)) + 1):
        body = msgspec.json.encode(draw(values)).decode() if draw(st.booleans()) else draw(texts)
        rows.append(
            Row(
                *(seq, 1, draw(texts), draw(numbers), f"{seq}{draw(texts)}", draw(numbers)),
                *(draw(st.none() | numbers), draw(st.none() | numbers), draw(numbers), body),
            )
        )
    cut = draw(st.integers(0, len(rows)))
    return [rows[:cut], rows[cut:]]


@settings(max_examples=60, deadline=None)
@given(batches())
def test_L4_rows_come_back_as_they_were_written(parts: list[list[Row]]) -> None:
    async def main(path: Path) -> tuple[int, bytes]:
        log = await Log.open(path, create=True)
        log.take(1)
        for part in parts:
            await log.append(part)
        await log.close()
        return log.last_seq, log.last_chain

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "events.db"
        last = asyncio.run(main(path))
        rows = [row for part in parts for row in part]
        with Reader(path) as reader:
            assert list(reader.rows()) == rows
            assert reader.last == reader.head() == last == read_head(path)
    chain = ZERO
    for row in rows:
        chain = chain_of(chain, row)
    assert last == (len(rows), chain)


def test_L4_chain_is_the_documented_formula() -> None:
    row = Row(1, 2, "k", 3, "s", 4, None, 5, 6, "{}")
    # fixarray of 10; positive fixints; fixstr k, s, {}; nil
    packed = b"\x9a\x01\x02\xa1k\x03\xa1s\x04\xc0\x05\x06\xa2{}"
    assert chain_of(ZERO, row) == hashlib.blake2b(bytes(32) + packed, digest_size=32).digest()


def test_L4_every_flipped_bit_of_a_body_is_found_at_its_event(path: Path) -> None:
    bodies = [f'{{"value":{seq},"phase":{seq + 7777}}}' for seq in range(1, 7)]
    write(path, [metric(seq, body=body) for seq, body in enumerate(bodies, 1)])
    clean = path.read_bytes()
    assert verify(path).ok
    for seq, body in enumerate(bodies, 1):
        start = clean.index(body.encode())
        for at in range(start, start + len(body)):
            for bit in range(8):
                bad = bytearray(clean)
                bad[at] ^= 1 << bit
                path.write_bytes(bad)
                found = verify(path)
                assert (found.ok, found.first_bad_seq, found.events) == (False, seq, seq - 1), (at, bit, found)


def test_L4_no_flip_anywhere_in_the_file_changes_an_event_unseen(path: Path) -> None:
    rows = metrics(1, 12)
    write(path, rows)
    clean = path.read_bytes()
    choose = random.Random(SEED)
    found = 0
    for at in choose.sample(range(len(clean)), 1200):
        bad = bytearray(clean)
        bad[at] ^= choose.randrange(1, 256)
        path.write_bytes(bad)
        try:
            if verify(path).ok:
                assert read(path) == rows, f"seed {SEED}: byte {at}"
            else:
                found += 1
        except (LogIO, LogNewer):
            found += 1
    assert found > 100  # most of a small file is unused


CHANGES = {
    "body": ("UPDATE event SET body = '{\"value\":9}' WHERE seq = 5", 5),
    "wall": ("UPDATE event SET wall_us = wall_us + 1 WHERE seq = 5", 5),
    "trial to null": ("UPDATE event SET trial = NULL WHERE seq = 5", 5),
    "chain": ("UPDATE event SET chain = x'00' WHERE seq = 5", 5),
    "gone": ("DELETE FROM event WHERE seq = 5", 5),
    "first gone": ("DELETE FROM event WHERE seq = 1", 1),
    "last gone": ("DELETE FROM event WHERE seq = 9", 9),
    "tail gone": ("DELETE FROM event WHERE seq > 4", 5),
    "all gone": ("DELETE FROM event", 1),
    "text of no encoding": ("UPDATE event SET body = CAST(x'ff' AS TEXT) WHERE seq = 5", 5),
}


@pytest.mark.parametrize(("sql", "bad"), CHANGES.values(), ids=CHANGES.keys())
def test_L4_L5_a_changed_table_is_found_at_the_first_bad_event(path: Path, sql: str, bad: int) -> None:
    rows = metrics(1, 9)
    write(path, rows)
    with tampered(path) as connection:
        connection.execute(sql)
    assert verify(path).first_bad_seq == bad
    good = []
    with Reader(path) as reader, pytest.raises(LogDamaged) as caught:
        for row in reader.rows():
            good.append(row)  # noqa: PERF402
    assert good == rows[: bad - 1]
    assert caught.value.first_bad_seq == bad
    assert reader.last[0] == bad - 1


def test_L4_ranges_and_their_chain(path: Path) -> None:
    rows = metrics(1, 20)
    write(path, rows)
    with Reader(path) as reader:
        assert list(reader.rows(upto=7)) == rows[:7]
        seq, chain = reader.last
        assert seq == 7
        assert list(reader.rows(after=seq, chain=chain)) == rows[7:]
        assert list(reader.rows(after=7, upto=9)) == rows[7:9]
        assert list(reader.rows(after=20)) == []
        assert list(reader.rows(after=20, upto=20)) == []
        with pytest.raises(LogDamaged):
            list(reader.rows(after=7, chain=ZERO))
        with pytest.raises(LogDamaged):
            list(reader.rows(after=21))
        with pytest.raises(LogDamaged):
            list(reader.rows(upto=21))


def test_L4_more_rows_than_one_query_takes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ", 4)
    for count in (3, 4, 5, 8, 9):
        file = path.with_name(f"events{count}.db")
        write(file, metrics(1, count))
        assert read(file) == metrics(1, count)


# L5: the head


def test_L5_deleted_wal_is_found(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "events.db"
    copy.parent.mkdir()

    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 4))
        await log._checkpoint("PASSIVE")
        await log.append(metrics(5, 6))
        for file in (path, head_path(path)):  # no -wal
            copy_file(file, copy.parent)
        await log.close()

    asyncio.run(main())
    assert verify(path).ok
    found = verify(copy)
    assert (found.ok, found.events, found.first_bad_seq) == (False, 4, 5)
    with pytest.raises(LogDamaged, match="cut"):
        reopened(copy)


def reopened(path: Path) -> None:
    """Opens for writing what is there, as far as it can be read."""

    async def main() -> None:
        with Reader(path) as reader:
            expect = reader.head()
        log = await Log.open(path, create=False, expect=expect)
        await log.close()

    asyncio.run(main())


def test_L5_truncated_file_is_found(path: Path) -> None:
    write(path, metrics(1, 200))
    clean = path.read_bytes()
    for size in (*range(0, len(clean), 4096), len(clean) - 1, 100, 5):
        path.write_bytes(clean[:size])
        assert not verify(path).ok, size


def test_L5_head_behind_or_missing_or_torn_is_no_damage(path: Path) -> None:
    write(path, metrics(1, 3))
    early = head_path(path).read_bytes()

    async def main() -> None:
        log = await Log.open(path, create=False, expect=(3, read_last(path)))
        log.take(2)
        await log.append(metrics(4, 6, epoch=2))
        await log.close()

    asyncio.run(main())
    assert verify(path).reason == ""
    head_path(path).write_bytes(early)
    assert (verify(path).ok, verify(path).reason) == (True, "")
    reopened(path)
    assert read_head(path) == (6, read_last(path))
    for data in (b"", early[:-1], early[:-1] + b"\0", bytes(len(early))):
        head_path(path).write_bytes(data)
        assert verify(path).ok
        assert "events.head" in verify(path).reason
    head_path(path).unlink()
    assert "events.head" in verify(path).reason
    reopened(path)
    assert verify(path).reason == ""


def read_last(path: Path) -> bytes:
    with Reader(path) as reader:
        return reader.head()[1]


def test_L5_exchanged_log_is_found(path: Path) -> None:
    write(path, metrics(1, 5))
    head = head_path(path).read_bytes()
    path.unlink()
    write(path, [metric(seq, body='{"value":0}') for seq in range(1, 7)])
    head_path(path).write_bytes(head)
    found = verify(path)
    assert not found.ok
    assert "exchanged" in found.reason
    with pytest.raises(LogDamaged):
        reopened(path)


# L6: durable, whole

WRITER = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_engine_log import metrics
from tune.engine import log as module
from tune.engine.log import Log, LogError, Reader

module.CHECKPOINT_FRAMES = 20

async def main(path):
    if path.exists():
        with Reader(path) as reader:
            for _ in reader.rows(): pass
            epoch = max((row.epoch for row in reader.rows()), default=0) + 1
            log = await Log.open(path, create=False, expect=reader.last)
    else:
        log, epoch = await Log.open(path, create=True), 1
    log.take(epoch)
    for step in range(int(sys.argv[3])):
        first = log.last_seq + 1
        try:
            await log.append(metrics(first, first + step % 5, epoch))
        except LogError as error:
            print("FAILED", type(error).__name__, error, flush=True)
            try:
                await log.append(metrics(log.last_seq + 1, log.last_seq + 1, epoch))
            except LogError as again:
                print("AGAIN", type(again).__name__, flush=True)
            break
        os.write(1, b"%d\\n" % log.last_seq)
    await log.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def writer(path: Path, steps: int, *before: str) -> list[str]:
    return [*before, sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent), str(steps)]


def test_L6_nothing_acknowledged_is_lost_by_a_killed_writer(path: Path) -> None:
    choose = random.Random(SEED)
    acknowledged = 0
    for crash in range(CRASHES):
        process = subprocess.Popen(writer(path, 1_000_000), stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(choose.randrange(1, 150)):
            line = process.stdout.readline()
            assert line, f"seed {SEED}, crash {crash}: the writer ended by itself"
            acknowledged = int(line)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.stdout.close()
        process.wait()
        acknowledged = max([acknowledged, *(int(line) for line in rest.splitlines() if rest.endswith(b"\n"))])
        assert nothing_lost(path, acknowledged), f"seed {SEED}, crash {crash}"


def nothing_lost(path: Path, acknowledged: int) -> bool:
    """Whether all that was acknowledged is there, once, and the whole log is good."""
    found = verify(path)
    return (
        found.ok
        and found.events >= acknowledged
        and [row.sender_seq for row in read(path)] == list(range(1, found.events + 1))
    )


def test_L6_control_a_writer_that_acknowledges_before_the_commit_is_caught(path: Path) -> None:
    early = WRITER.replace(
        "await log.append(metrics(first,",
        'os.write(1, b"%d\\n" % first); step == 7 and os.kill(os.getpid(), 9)\n'
        "            await log.append(metrics(first,",
    )
    command = [sys.executable, "-c", early, str(path), str(Path(__file__).parent), "100"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged = int(done.stdout.split()[-1])
    assert verify(path).ok
    assert not nothing_lost(path, acknowledged)


def test_L6_a_batch_is_there_whole_or_not_at_all(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 2))
        with pytest.raises(LogIO):
            await log.append([*metrics(3, 8), metric(9, number=1)])
        await log.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 2)


def test_L6_every_pragma_is_read_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (value, expected) in {"synchronous": ("NORMAL", 2), "journal_mode": ("DELETE", "wal")}.items():
        monkeypatch.setitem(module._PRAGMAS, name, (value, expected))
        with pytest.raises(LogIO, match=name):
            asyncio.run(Log.open(path.with_name(f"{name}.db"), create=True))
        monkeypatch.undo()

    async def main() -> None:
        log = await Log.open(path, create=True)
        found = list(await log._connection.execute_fetchall("PRAGMA synchronous"))
        assert found == [(2,)]
        await log.close()

    asyncio.run(main())


# L7: cancellation


def test_L7_a_cancelled_append_is_whole(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await log.append(metrics(1, 2))
        assert log.last_seq == 2
        await log.append(metrics(3, 3))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await log.close()
        await log.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 3)


def test_L7_a_bare_task_cancel_ends_the_handle(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        task = asyncio.create_task(log.append(metrics(1, 2)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(LogIO, match="cancelled"):
            await log.append(metrics(1, 1))
        await log.close()

    asyncio.run(main())
    assert len(read(path)) in (0, 2)
    assert verify(path).ok


def test_L7_one_append_at_a_time(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        results = await asyncio.gather(log.append(metrics(1, 2)), log.append(metrics(1, 1)), return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], anyio.BusyResourceError)
        await log.close()

    asyncio.run(main())


# L8: a full disk


def big(first: int, last: int) -> list[Row]:
    return [metric(seq, body='{"value":"' + "x" * 5000 + '"}') for seq in range(first, last + 1)]


def test_L8_full_disk_waits_says_so_once_and_goes_on(path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        full = asyncio.Event()

        def on_full(message: str) -> None:
            told.append(message)
            full.set()

        log = await Log.open(path, create=True, on_full=on_full, retry=0.001)
        log.take(1)
        await log.append(big(1, 3))
        [(pages,)] = list(await log._connection.execute_fetchall("PRAGMA page_count"))
        for first in (4, 24):  # two episodes
            limit = pages + first
            await log._connection.execute_fetchall(f"PRAGMA max_page_count = {limit}")
            async with asyncio.TaskGroup() as group:
                task = group.create_task(log.append(big(first, first + 19)))
                await full.wait()
                assert not task.done()
                assert log.last_seq == first - 1
                await log._connection.execute_fetchall("PRAGMA max_page_count = 1000000")
            full.clear()
            assert log.last_seq == first + 19
            [(pages,)] = list(await log._connection.execute_fetchall("PRAGMA page_count"))
        assert len(told) == 2
        assert "events 4 to 23" in told[0]
        await log.close()

    asyncio.run(main())
    assert read(path) == big(1, 43)
    assert verify(path).ok


def test_L8_a_wait_for_room_can_be_cancelled(path: Path) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            log = await Log.open(path, create=True, on_full=lambda message: scope.cancel(), retry=60)
            log.take(1)
            [(pages,)] = list(await log._connection.execute_fetchall("PRAGMA page_count"))
            await log._connection.execute_fetchall(f"PRAGMA max_page_count = {pages}")
            await log.append(big(1, 20))
        assert scope.cancelled_caught
        assert log.last_seq == 0
        await log._connection.execute_fetchall("PRAGMA max_page_count = 1000000")
        await log.append(metrics(1, 1))
        await log.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 1)


def test_L8_a_batch_that_is_there_after_all_is_not_written_twice(path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        log = await Log.open(path, create=True, on_full=told.append, retry=0)
        log.take(1)
        real = log._connection.execute_fetchall

        class Liar:
            async def execute_fetchall(self, sql: str, parameters: tuple[object, ...] = ()) -> object:
                result = await real(sql, parameters)
                if sql.startswith("INSERT") and not told:
                    error = sqlite3.OperationalError("database or disk is full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    error.sqlite_errorname = "SQLITE_FULL"
                    raise error
                return result

        connection = log._connection
        log._connection = Liar()  # type: ignore[assignment]
        await log.append(metrics(1, 3))
        assert len(told) == 1
        log._connection = connection
        await log.append(metrics(4, 4))
        await log.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 4)


@pytest.mark.root
def test_L8_a_really_full_disk(tmpfs: Path) -> None:
    path = tmpfs / "events.db"
    filler = tmpfs / "filler"

    async def main() -> int:
        told: list[str] = []

        def on_full(message: str) -> None:
            told.append(message)
            filler.unlink()

        log = await Log.open(path, create=True, on_full=on_full, retry=0.001)
        log.take(1)
        filler.write_bytes(bytes(1 << 20))
        while not told:
            await log.append(big(log.last_seq + 1, log.last_seq + 7))
        await log.append(big(log.last_seq + 1, log.last_seq + 7))
        await log.close()
        assert len(told) == 1
        return log.last_seq

    last = asyncio.run(main())
    assert read(path) == big(1, last)
    assert verify(path).ok


# L9: a failing disk


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="needs strace that may trace")
@pytest.mark.parametrize("when", [8, 13, 14, 21])
def test_L9_a_failed_sync_ends_the_handle_and_loses_nothing(path: Path, when: int) -> None:
    inject = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        f"inject=fdatasync:error=EIO:when={when}",
    ]
    done = subprocess.run(writer(path, 200, *inject), capture_output=True, text=True)
    lines = done.stdout.split("\n")
    assert done.returncode == 0, done.stderr
    acknowledged = max((int(line) for line in lines if line.isdigit()), default=0)
    assert any(line.startswith("FAILED LogIO") for line in lines), done.stdout[-500:]
    assert "AGAIN LogIO" in lines
    assert path.with_name("events.db-wal").exists()  # closing it made no checkpoint
    found = verify(path)
    assert found.ok
    assert found.events >= acknowledged
    again = subprocess.run(writer(path, 5), capture_output=True, text=True, check=True)
    assert "FAILED" not in again.stdout


def test_L9_a_dead_handle_stays_dead_and_is_closed_without_a_checkpoint(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 3))
        real = log._connection.execute_fetchall
        calls = 0

        class Failing:
            async def execute_fetchall(self, sql: str, parameters: tuple[object, ...] = ()) -> object:
                nonlocal calls
                calls += 1
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
                raise error

            close = log._connection.close

        log._connection = Failing()  # type: ignore[assignment]
        for _ in range(3):
            with pytest.raises(LogIO, match="IOERR_FSYNC"):
                await log.append(metrics(4, 4))
        assert calls == 1
        assert real is not None
        await log.close()

    asyncio.run(main())
    assert path.with_name("events.db-wal").stat().st_size > 0
    assert read(path) == metrics(1, 3)


# L10: one writer, many readers


def test_L10_readers_see_each_commit_and_hold_nothing_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_FRAMES", 30)
    monkeypatch.setattr(module, "_READ", 5)

    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 10))
        with Reader(path) as reader, Reader(path) as slow:
            stalled = slow.rows()
            assert next(stalled).seq == 1
            seen = list(reader.rows())
            for first in range(11, 1500, 3):
                await log.append(metrics(first, first + 2))
                seen += reader.rows(*(reader.last[0], None, reader.last[1]))
                assert len(seen) == first + 2
            # The stalled reader holds no snapshot, so the WAL was begun anew many times.
            assert path.with_name("events.db-wal").stat().st_size < 100 * 4200
            assert seen == metrics(1, log.last_seq)
            assert [1, *(row.seq for row in stalled)] == list(range(1, log.last_seq + 1))
        await log.close()

    asyncio.run(main())
    assert sorted(file.name for file in path.parent.iterdir()) == ["events.db", "events.head"]


def test_rows_of_one_trial_are_found_by_the_table_alone(path: Path) -> None:
    rows = [msgspec.structs.replace(row, trial=row.seq % 3) for row in metrics(1, 30)]
    write(path, rows)
    with Reader(path) as reader:
        assert reader.rows_of(1, "METRIC", 20) == [row for row in rows if row.trial == 1 and row.seq <= 20]
        assert reader.rows_of(1, "PARAMETER", 20) == reader.rows_of(7, "METRIC", 20) == []


def test_L10_a_reader_open_at_the_end_leaves_the_log_whole(path: Path) -> None:
    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 10))
        with Reader(path) as reader:
            assert len(list(reader.rows())) == 10
            await log.close()
            assert list(reader.rows()) == metrics(1, 10)

    asyncio.run(main())
    assert verify(path).ok
    reopened(path)


# L11: fencing


def test_L11_an_engine_that_was_taken_over_can_not_write(path: Path) -> None:
    async def main() -> None:
        old = await Log.open(path, create=True)
        old.take(1)
        await old.append(metrics(1, 3))
        new = await Log.open(path, create=False, expect=(old.last_seq, old.last_chain))
        new.take(2)
        await new.append(metrics(4, 4, epoch=2))
        for _ in range(2):
            with pytest.raises(LogFenced):
                await old.append([metric(4, number=77), metric(5)])
        await old.close()
        await new.append(metrics(5, 6, epoch=2))
        await new.close()

    asyncio.run(main())
    assert read(path) == metrics(1, 3) + metrics(4, 6, epoch=2)
    assert verify(path).ok


def test_L11_two_writers_of_one_epoch_never_mix(path: Path) -> None:
    async def main() -> None:
        one = await Log.open(path, create=True)
        one.take(1)
        await one.append(metrics(1, 3))
        two = await Log.open(path, create=False, expect=(one.last_seq, one.last_chain))
        two.take(1)
        await two.append([metric(4, sender="other.0.1", number=1)])
        with pytest.raises(LogFenced):
            await one.append(metrics(4, 4))
        await one.close()
        await two.close()

    asyncio.run(main())
    assert verify(path).ok


def test_L11_opening_needs_the_end_that_was_read(path: Path) -> None:
    write(path, metrics(1, 3))
    with Reader(path) as reader:
        seq, chain = reader.head()
    for expect in ((2, chain), (3, ZERO), (4, chain)):
        with pytest.raises(LogDamaged):
            asyncio.run(Log.open(path, create=False, expect=expect))
    for arguments in ({"create": False}, {"create": True, "expect": (seq, chain)}):
        with pytest.raises(ValueError, match="expect"):
            asyncio.run(Log.open(path, **arguments))


# L13: strangers' files


def test_L13_what_is_no_log_is_refused(path: Path) -> None:
    with pytest.raises(LogMissing):
        Reader(path)
    with pytest.raises(LogMissing):
        asyncio.run(Log.open(path, create=False, expect=(0, ZERO)))
    path.write_bytes(b"")  # a log that is just being made looks like this, and it has no head yet
    with pytest.raises(LogMissing, match="being made"):
        Reader(path)
    head_path(path).write_bytes(b"")
    for data in (b"", b"not a database at all" * 300):
        path.write_bytes(data)
        with pytest.raises(LogDamaged):
            Reader(path)
        with pytest.raises(LogDamaged):
            asyncio.run(Log.open(path, create=False, expect=(0, ZERO)))
        assert not verify(path).ok
    with pytest.raises(LogIO, match="exists"):
        asyncio.run(Log.open(path, create=True))


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW more AS SELECT 1",
        "CREATE TABLE more(x)",
        "CREATE INDEX more ON event(body)",
        "DROP TRIGGER event_delete",
        "ALTER TABLE event ADD COLUMN more TEXT",
        "CREATE TRIGGER more AFTER INSERT ON event BEGIN SELECT 1; END",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 0",
    ],
)
def test_L13_another_schema_is_refused_before_any_query(path: Path, sql: str) -> None:
    write(path, metrics(1, 3))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql)
    connection.close()
    with pytest.raises(LogDamaged, match="schema"):
        Reader(path)
    with pytest.raises(LogDamaged, match="schema"):
        asyncio.run(Log.open(path, create=False, expect=(3, ZERO)))


def test_L13_a_newer_format_says_so(path: Path) -> None:
    write(path, metrics(1, 3))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(LogNewer, match="newer"):
        verify(path)


def test_L13_reading_changes_no_byte(path: Path) -> None:
    write(path, metrics(1, 30))
    before = path.read_bytes()
    assert verify(path).ok
    assert path.read_bytes() == before
    with Reader(path) as reader, pytest.raises(sqlite3.OperationalError):
        reader._connection.execute("DELETE FROM event")


@pytest.fixture
def readonly_folder(tmp_path: Path, request: pytest.FixtureRequest):
    """A folder, and a function that makes it read-only: by its mode, or for root by a mount."""
    if os.geteuid() == 0:
        folder: Path = request.getfixturevalue("tmpfs")
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        folder = tmp_path / "readonly"
        folder.mkdir()
        yield folder, lambda: folder.chmod(0o500)
        folder.chmod(0o700)


def test_L13_a_log_in_a_read_only_folder_can_be_read(readonly_folder) -> None:
    folder, freeze = readonly_folder
    write(folder / "events.db", metrics(1, 30))
    freeze()
    assert verify(folder / "events.db").ok
    assert sorted(file.name for file in folder.iterdir()) == ["events.db", "events.head"]


def test_L13_a_leftover_wal_in_a_read_only_folder_is_never_left_out(readonly_folder, path: Path) -> None:
    folder, freeze = readonly_folder

    async def main() -> None:
        log = await Log.open(path, create=True)
        log.take(1)
        await log.append(metrics(1, 5))
        for name in ("events.db", "events.db-wal", "events.head"):
            copy_file(path.with_name(name), folder)
        await log.close()

    asyncio.run(main())
    freeze()
    with contextlib.suppress(LogIO):
        assert verify(folder / "events.db").events == 5


# L14, L15


def test_L14_old_bodies_are_lifted_after_the_chain_was_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = metrics(1, 3)
    write(path, rows)
    monkeypatch.setitem(module.UPCAST, ("METRIC", 1), lambda body: body.replace("value", "worth"))
    monkeypatch.setitem(module.UPCAST, ("METRIC", 2), lambda body: body.replace("worth", "merit"))
    with Reader(path) as reader:
        lifted = list(reader.rows())
        last = reader.last
    assert [row.body for row in lifted] == ['{"merit":1.5}', '{"merit":2.5}', '{"merit":3.5}']
    assert {row.ver for row in lifted} == {3}
    monkeypatch.undo()
    assert read(path) == rows
    assert last == read_head(path)


def test_L15_files_are_private(path: Path) -> None:
    old = os.umask(0)
    try:

        async def main() -> None:
            log = await Log.open(path, create=True)
            log.take(1)
            await log.append(metrics(1, 3))
            assert {file.name for file in path.parent.iterdir()} >= {"events.db", "events.db-wal", "events.head"}
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            await log.close()
            with pytest.raises(LogIO, match="closed"):
                await log.append(metrics(4, 4))

        asyncio.run(main())
    finally:
        os.umask(old)


def test_an_odd_path_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "a ?b#c%41 ü"
    folder.mkdir()
    write(folder / "events.db", metrics(1, 3))
    assert read(folder / "events.db") == metrics(1, 3)
    assert sorted(file.name for file in folder.iterdir())[0] == "events.db"
