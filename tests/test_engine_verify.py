"""What verify checks beyond the chain: logs whose chain is right and whose content is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tune.engine import log as module
from tune.engine.events import Fact, Metric, Row, Thinned, encode
from tune.engine.log import ZERO, LogMissing, chain_of
from tune.engine.verify import Verified, verify


def forge(path: Path, rows: list[Row]) -> None:
    """A log with these rows and a right chain, without the triggers' say."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(module._TABLE)
    chain = ZERO
    for row in rows:
        chain = chain_of(chain, row)
        values = [getattr(row, name) for name in Row.__struct_fields__]
        connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*values, chain])
    for sql in module._TRIGGERS.values():
        connection.execute(sql)
    connection.execute(f"PRAGMA application_id = {module.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {module.FORMAT}")
    connection.close()


def metric(seq: int, number: int, sender: str = "abcde.0.1", epoch: int = 1) -> Row:
    return Row(seq, epoch, "METRIC", 1, sender, number, 0, None, 0, '{"value":1}')


def thinned(seq: int, first: int, last: int, number: int) -> Row:
    return encode(Fact(seq, 1, "abcde.0.1", number, 0, None, 0, Thinned(first, last)))


@pytest.mark.parametrize("number", [4, 5, 6])
def test_thinned_ranges_fill_the_gap_that_they_name(tmp_path: Path, number: int) -> None:
    path = tmp_path / "events.db"
    forge(path, [metric(1, 1), metric(2, 2), metric(3, 3), thinned(4, 4, 6, number), metric(5, 7)])
    found = verify(path)
    assert (found.ok, found.events, found.first_bad_seq) == (True, 5, None)
    assert "events.head" in found.reason


BAD = {
    "gap in a trial's numbers": ([metric(1, 1), metric(2, 3)], 2),
    "trial begins at 2": ([metric(1, 2)], 1),
    "order of a trial's numbers": ([metric(1, 2), metric(2, 1)], 1),
    "thinned leaves a gap": ([metric(1, 1), thinned(2, 3, 4, 4)], 2),
    "thinned says again": ([metric(1, 1), thinned(2, 1, 4, 4)], 2),
    "thinned backwards": ([metric(1, 1), thinned(2, 2, 1, 2)], 2),
    "thinned with a number outside": ([metric(1, 1), thinned(2, 2, 3, 4)], 2),
    "gap in an engine's numbers": ([metric(1, 1, "e1"), metric(2, 3, "e1")], 2),
    "epoch falls": ([metric(1, 1, epoch=2), metric(2, 2, epoch=1)], 2),
    "seq has a gap": ([metric(1, 1), metric(3, 2)], 2),
    "unknown kind": ([metric(1, 1), Row(2, 1, "METRICS", 1, "x", 1, 0, None, 0, "{}")], 2),
    "version of tomorrow": ([Row(1, 1, "METRIC", Metric.VER + 1, "x", 1, 0, None, 0, "{}")], 1),
    "body is no JSON": ([Row(1, 1, "METRIC", 1, "x", 1, 0, None, 0, "{")], 1),
    "body lacks a field": ([Row(1, 1, "METRIC", 1, "x", 1, 0, None, 0, "{}")], 1),
    "deep body": ([Row(1, 1, "METRIC", 1, "x", 1, 0, None, 0, '{"value":' + "[" * 100_000)], 1),
}


@pytest.mark.parametrize(("rows", "bad"), BAD.values(), ids=BAD.keys())
def test_what_no_engine_writes_is_found(tmp_path: Path, rows: list[Row], bad: int) -> None:
    path = tmp_path / "events.db"
    forge(path, rows)
    found = verify(path)
    assert (found.ok, found.first_bad_seq, found.events) == (False, bad, bad - 1)
    assert found.reason


def test_clients_may_leave_numbers_out(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    forge(path, [metric(1, 5, "k3j2h1"), metric(2, 9, "k3j2h1"), metric(3, 7, "e77")])
    assert verify(path).ok


def test_damaged_index_is_found_though_every_event_is_right(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    forge(path, [metric(seq, seq) for seq in range(1, 6)])
    connection = sqlite3.connect(path)
    [page] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE type = 'index'").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"abcde", (page - 1) * 4096)
    assert at < page * 4096
    data[at] ^= 1
    path.write_bytes(data)
    found = verify(path)
    assert (found.ok, found.events, found.first_bad_seq) == (False, 5, None)
    assert "SQLite says" in found.reason


def test_an_empty_log_is_one_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    forge(tmp_path / "events.db", [])
    assert verify(tmp_path / "events.db").ok
    with pytest.raises(LogMissing):
        verify(tmp_path / "other.db")
    assert Verified(True, 0, None, "") == Verified(True, 0, None, "")
