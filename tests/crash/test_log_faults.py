"""The gate's share of the log's faults: killed writers, power cuts, failing calls, changed bytes; run_log.py has more.

TUNE_SEED (1) is where the random choices start; run_log.py repeats any of these with other counts.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import corruption
import power_cut
import run_log
from writer import can_shim, room

from tune.trial_sdk import spool

SEED = int(os.environ.get("TUNE_SEED", "1"))
shimmed = pytest.mark.skipif(not can_shim(), reason="needs a C compiler (cc) on Linux")


def nothing(found: object) -> None:
    wrong = list(found)  # type: ignore[call-overload]
    assert not wrong, f"REPRO seed {SEED}: " + "\n".join(wrong[:5])


@shimmed
def test_P1_a_killed_writer_loses_nothing_that_was_promised() -> None:
    nothing(run_log.kills(90, SEED))


@shimmed
def test_P10_a_writer_killed_at_any_call_of_making_a_log_is_followed_by_one_that_gets_going() -> None:
    nothing(run_log.makings(SEED))


@shimmed
@pytest.mark.parametrize("control", ["early", "no dedup"])
def test_P1_control_wrong_writers_are_caught_by_kills(control: str) -> None:
    wrong = run_log.kills(150, SEED, early=True) if control == "early" else run_log.kills(30, SEED, dedup=False)
    assert next(wrong, None) is not None
    wrong.close()


@shimmed
def test_P1_a_power_cut_takes_nothing_that_was_promised() -> None:
    nothing(run_log.cuts(600, SEED))


@shimmed
@pytest.mark.parametrize("control", ["synchronous=NORMAL", "early"])
def test_P1_control_wrong_writers_are_caught_by_power_cuts(control: str) -> None:
    wrong = run_log.cuts(500, SEED, early=True) if control == "early" else run_log.cuts(500, SEED, synchronous="NORMAL")
    assert next(wrong, None) is not None
    wrong.close()


@shimmed
def test_P1_a_failing_call_of_the_log_costs_nothing_that_was_promised() -> None:
    nothing(run_log.errors(100, SEED))


@shimmed
def test_P1_a_failing_call_of_a_spool_costs_nothing_that_was_promised() -> None:
    nothing(run_log.spool_errors(200, SEED))


def test_a_spool_whose_cut_failed_as_well_is_cut_before_the_next_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the sweep: half a report stayed, and the next one was written behind it."""
    path = tmp_path / "1.spool"
    made = spool.Spool(str(path))
    made.append("I", 0, "1")
    real, calls = os.write, 0

    def half(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(descriptor, data[:7])
        raise OSError(errno.EIO, "no")

    def no(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", half)
        broken.setattr(os, "ftruncate", no)
        for _ in range(2):  # the second is refused before it writes
            with pytest.raises(OSError):
                made.append("I", 0, "2")
    assert made.append("I", 0, "2") == 2
    made.close()
    assert [report.value for report in spool.parse(path.read_bytes())] == ["1", "2"]


def test_a_spool_whose_sync_failed_never_says_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a lost page once, and calls the next fsync a success."""

    def no(descriptor: int) -> None:
        raise OSError(errno.EIO, "no")

    made = spool.Spool(str(tmp_path / "1.spool"))
    made.append("F", 0, "1")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", no)
        with pytest.raises(OSError):
            made.sync()
    with pytest.raises(OSError, match="an earlier sync failed"):
        made.sync()
    made.close()


def test_P7_every_change_of_an_event_is_found() -> None:
    nothing(corruption.search(3000, SEED))


def test_P7_control_sqlite_alone_does_not_see_a_changed_body() -> None:
    files, truth = corruption.subject(20, SEED, open_wal=False)
    assert truth is not None
    folder = room()
    body = truth[10][9]
    changed = {**files, "events.db": files["events.db"].replace(body, body.replace(b"value", b"VALUE"))}
    assert corruption.wrong(folder, changed, truth) == ""  # found, that is
    assert corruption.plain(folder / "events.db") != truth
    connection = sqlite3.connect(folder / "events.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    shutil.rmtree(folder)


def test_an_image_holds_what_was_synced_and_any_part_of_the_rest() -> None:
    op = power_cut.Op
    disk = power_cut.Disk()
    for one in [
        op(power_cut.CREATE, "a"),
        op(power_cut.WRITE, "a", 0, b"1" * 1024),
        op(power_cut.SYNC, "a"),
        op(power_cut.FOLDERSYNC, "."),
        op(power_cut.WRITE, "a", 0, b"2" * 1024),
        op(power_cut.ACK, "acks", 0, b"7\n"),
        op(power_cut.CREATE, "b"),
    ]:
        disk.apply(one)
    choose = random.Random(SEED)
    seen = {tuple(sorted(disk.image(choose).items())) for _ in range(300)}
    assert disk.acked == 7
    contents = {dict(image)["a"] for image in seen}
    assert contents == {first * 512 + second * 512 for first in (b"1", b"2") for second in (b"1", b"2")}
    assert {"b" in dict(image) for image in seen} == {True, False}
