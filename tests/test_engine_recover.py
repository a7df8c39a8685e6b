"""Recovering a damaged log: what is good is kept to the bit, what is lost is said, the old log is not touched."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "e2e"))

import harness

from tune.engine import log as log_module
from tune.engine.errors import TuneError, UsageError
from tune.engine.home import Folder
from tune.engine.lock import Lock
from tune.engine.log import Log, Reader
from tune.engine.recover import recover
from tune.engine.verify import verify

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Bench]:
    """A place for whole experiments; when the test is over, nothing of them may be left."""
    with harness.bench(tmp_path, monkeypatch.setenv) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """An experiment of two engines, with its head, in a home of its own."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    path = tmp_path / "home" / "old"
    path.mkdir(parents=True)
    folder = Folder("old", path, path)
    shutil.copyfile(GOLDEN / "killed_and_updated.1.db", folder.events)

    async def touch() -> None:
        with Reader(folder.events) as reader:
            assert list(reader.rows())
            last = reader.last
        await (await Log.open(folder.events, create=False, expect=last)).close()

    asyncio.run(touch())
    assert verify(folder.events).ok
    return folder


def damage(folder: Folder, *statements: str) -> None:
    """Change the table behind the log's back."""
    connection = sqlite3.connect(folder.events, isolation_level=None)
    for name in log_module._TRIGGERS:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for sql in log_module._TRIGGERS.values():
        connection.execute(sql)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def table(path: Path, upto: int) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT * FROM event WHERE seq <= ? ORDER BY seq", (upto,)).fetchall()
    finally:
        connection.close()


def content(folder: Path) -> dict[str, bytes]:
    """All files but those that SQLite makes to read a log."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path): path.read_bytes() for path in files}


DAMAGE = {
    "a changed body": (["UPDATE event SET body = replace(body, '{', '{ ') WHERE seq = 40"], 39),
    "a missing event": (["DELETE FROM event WHERE seq = 70"], 69),
    "a cut tail": (["DELETE FROM event WHERE seq > 80"], 80),
    "the last event": (["UPDATE event SET wall_us = wall_us + 1 WHERE seq = (SELECT max(seq) FROM event)"], -1),
}


@pytest.mark.parametrize(("statements", "good"), DAMAGE.values(), ids=DAMAGE.keys())
def test_the_good_prefix_becomes_a_new_experiment(source: Folder, statements: list[str], good: int) -> None:
    events = verify(source.events).events
    good = good % (events + 1) - (good < 0)
    damage(source, *statements)
    before = content(source.path)
    found = recover(source, "new")
    assert content(source.path) == before
    assert (found.events, found.written, found.first_bad_seq) == (good, events, good + 1)
    assert found.folder.path == source.path.parent / "new"
    again = verify(found.folder.events)
    assert (again.ok, again.events, again.reason) == (True, good, "")
    assert table(found.folder.events, events) == table(source.events, good)
    assert json.loads(found.folder.config.read_text())["max_trial_number"] in (5, 9)


def test_an_index_that_lies_costs_no_event(source: Folder) -> None:
    events = verify(source.events).events
    raw = source.events.read_bytes()
    connection = sqlite3.connect(source.events)
    [root] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE type = 'index'").fetchone()
    connection.close()
    at = root * 4096 - 60
    source.events.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    assert not verify(source.events).ok
    found = recover(source)
    assert (found.events, found.first_bad_seq) == (events, None)
    assert verify(found.folder.events).ok


def test_what_is_not_to_be_recovered_is_refused_and_nothing_is_left(source: Folder) -> None:
    home = source.path.parent
    with pytest.raises(TuneError, match="is good"):
        recover(source)
    damage(source, "UPDATE event SET wall_us = 0 WHERE seq = 40")
    lock = Lock.take(source.lock)
    try:
        with pytest.raises(TuneError, match="still runs"):
            recover(source)
    finally:
        lock.release()
    with pytest.raises(UsageError, match="taken"):
        recover(source, "old")
    damage(source, "UPDATE event SET wall_us = 0 WHERE seq = 1")
    with pytest.raises(TuneError, match="no event"):
        recover(source)
    source.events.write_bytes(b"x" * 5000)
    with pytest.raises(TuneError, match="no event"):
        recover(source)
    assert [path.name for path in home.iterdir()] == ["old"]


def test_a_recovered_experiment_goes_on_and_learns_from_the_spools(bench: harness.Bench) -> None:
    experiment = bench.experiment(max_trial_number=4, trial_concurrency=1)
    before = experiment.run()
    launched = [row.seq for row in experiment.facts("LAUNCHED")]
    damage(experiment.folder, f"UPDATE event SET wall_us = 0 WHERE seq = {launched[2] + 1}")
    said = bench.tune("recover", experiment.id, "--as", "again")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[0] == "Experiment ID: again"
    assert "Lost: " in said.stdout and "tune resume again" in said.stdout
    new = next(one for one in bench.find_all() if one.id == "again")
    state = new.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4)
    values = [trial.phases[0].value for trial in before.made]
    assert [trial.phases[0].value for trial in state.made] == values
    starts = [line["trial"] for line in experiment.witness() if line["e"] == "start"]
    assert sorted(starts) == [0, 1, 2, 3, 3]  # trial 2 had been launched: its reports came from its spool
    assert verify(new.folder.events).ok
    assert bench.tune("verify", "--decisions", "again").returncode == 0
    shown = json.loads(bench.tune("status", "again", "--json").stdout)
    assert (shown["id"], shown["status"]) == ("again", "DONE")


def test_the_verb_says_it_in_json_and_takes_a_path(source: Folder, bench: harness.Bench) -> None:
    damage(source, "UPDATE event SET wall_us = 0 WHERE seq = 40")
    said = bench.tune("recover", str(source.events), "--json", "--as", "other")
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert (told["id"], told["events"], told["first_bad_seq"]) == ("other", 39, 40)
    assert Path(told["log"]).is_file()
    assert bench.tune("recover", str(source.path / "nothing.db")).returncode == 2
