"""How fast the log is, beside bare sqlite3: appends in groups of 1, 10, 100 and 1000 rows, and replay.

    python benchmarks/log.py [rows]

Bare means: the same ten columns and a BLOB in a table without types, index or trigger, one transaction a group by
executemany, WAL and synchronous=FULL on the same disk. Replay is `Reader.rows`, which checks the chain; bare is
`SELECT *`. Every line gives both in rows/s and the ratio; a group is timed until it is durable.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from tune.engine.events import Row
from tune.engine.log import Log, Reader

GROUPS = (1, 10, 100, 1000)
COLUMNS = "seq, epoch, kind, ver, sender, sender_seq, trial, cause, wall_us, body, chain"


def row(seq: int) -> Row:
    """An intermediate result as trials report it, one of 64 trials."""
    trial = seq % 64
    body = f'{{"value":{seq / 7919},"phase":0}}'
    return Row(seq, 1, "METRIC", 1, f"t{trial:04}.0.1", seq, trial, None, 1_700_000_000_000_000 + seq, body)


def bare_append(path: Path, group: int, count: int) -> float:
    """Rows/s of sqlite3 alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"CREATE TABLE event({COLUMNS})")
    chain = bytes(32)
    batches = [
        [(*(getattr(row(seq), name) for name in Row.__struct_fields__), chain) for seq in range(first, first + group)]
        for first in range(1, count + 1, group)
    ]
    start = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)
        connection.execute("COMMIT")
    taken = time.perf_counter() - start
    connection.close()
    return len(batches) * group / taken


async def append(path: Path, group: int, count: int) -> float:
    """Rows/s of `Log.append`."""
    log = await Log.open(path, create=True)
    log.take(1)
    batches = [[row(seq) for seq in range(first, first + group)] for first in range(1, count + 1, group)]
    start = time.perf_counter()
    for batch in batches:
        await log.append(batch)
    taken = time.perf_counter() - start
    await log.close()
    return len(batches) * group / taken


async def main(rows: int) -> None:
    """Measure and print."""
    print(f"SQLite {sqlite3.sqlite_version}, {rows} rows to replay")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for group in GROUPS:
            count = min(rows, 300 * group)
            ours = await append(folder / f"ours{group}.db", group, count)
            bare = bare_append(folder / f"bare{group}.db", group, count)
            print(f"append, {group:5} a commit: {ours:12,.0f} rows/s   bare {bare:12,.0f}   ratio {ours / bare:.2f}")
        path = folder / "replay.db"
        log = await Log.open(path, create=True)
        log.take(1)
        for first in range(1, rows + 1, 1000):
            await log.append([row(seq) for seq in range(first, min(first + 1000, rows + 1))])
        await log.close()
        start = time.perf_counter()
        with Reader(path) as reader:
            read = sum(1 for _ in reader.rows())
        ours = read / (time.perf_counter() - start)
        start = time.perf_counter()
        connection = sqlite3.connect(path)
        read = sum(1 for _ in connection.execute("SELECT * FROM event ORDER BY seq"))
        bare = read / (time.perf_counter() - start)
        connection.close()
        print(f"replay, chain checked: {ours:14,.0f} rows/s   bare {bare:12,.0f}   ratio {ours / bare:.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
