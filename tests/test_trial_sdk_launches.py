"""A launch's files and the reader of a spool, over every order of writing, taking, acknowledging and rewinding."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tune.trial_sdk import launches, spool
from tune.trial_sdk.launches import Folder, SpoolReader


class Reading(RuleBasedStateMachine):
    """Whatever happens, an engine that takes what is new hears 1, 2, 3 ... and nothing twice in one connection."""

    @initialize()
    def begin(self):
        self.place = tempfile.TemporaryDirectory()
        path = Path(self.place.name) / "1-a.spool"
        self.writer = spool.Spool(str(path))
        self.reader = SpoolReader(path)
        self.values: list[str] = []
        self.recorded = 0
        self.sent = 0

    @rule(size=st.sampled_from([1, 10, 1000, 100_000, 300_000]), count=st.integers(1, 30))
    def write(self, size, count):
        for _ in range(count if size < 100_000 else 1):
            self.values.append("x" * size)
            assert self.writer.append("I", 0, self.values[-1]) == len(self.values)

    @rule()
    def take(self):
        taken = self.reader.take()
        if taken is None:
            assert self.sent == len(self.values)
            return
        first, data = taken
        assert first == self.sent + 1
        reports = spool.parse(data)
        assert [report.number for report in reports] == list(range(first, first + len(reports)))
        assert [report.value for report in reports] == self.values[first - 1 : first - 1 + len(reports)]
        assert len(data) <= launches.CHUNK or len(reports) == 1
        self.sent = reports[-1].number

    @precondition(lambda self: self.sent > self.recorded)
    @rule(data=st.data())
    def ack(self, data):
        self.recorded = data.draw(st.integers(self.recorded + 1, self.sent))
        before = self.reader.unacked
        assert before - self.reader.ack(self.recorded) == self.reader.unacked >= 0

    @rule(lost=st.booleans())
    def rewind(self, lost):
        reader = SpoolReader(self.reader.path) if lost else self.reader  # a new keeper, or a new engine
        reader.rewind(self.recorded)
        self.reader, self.sent = reader, self.recorded
        assert reader.unacked == 0

    @precondition(lambda self: self.sent > 0)
    @rule(data=st.data())
    def ask(self, data):
        number = data.draw(st.integers(1, self.sent))
        report = self.reader.report(number)
        assert report is not None and (report.number, report.value) == (number, self.values[number - 1])

    @invariant()
    def counts(self):
        if hasattr(self, "reader"):
            assert self.reader.number == self.sent
            assert self.reader.unacked == sum(size for _, _, size in self.reader.flight)

    def teardown(self):
        if hasattr(self, "place"):
            self.writer.close()
            self.place.cleanup()


Reading.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestReading = Reading.TestCase


def test_the_log_may_know_more_than_a_spool_that_a_power_cut_shortened(tmp_path):
    path = tmp_path / "1-a.spool"
    writer = spool.Spool(str(path))
    for _ in range(3):
        writer.append("I", 0, "1")
    writer.close()
    reader = SpoolReader(path)
    reader.rewind(5)
    assert reader.take() is None
    assert reader.report(9) is None


def test_a_link_or_a_pipe_is_no_spool(tmp_path):
    (tmp_path / "1-a.spool").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "2-a.spool")
    for name in ("1-a", "2-a", "3-a"):
        assert SpoolReader(tmp_path / f"{name}.spool").take() is None


def test_a_lock_is_the_truth(tmp_path):
    folder = Folder(tmp_path)
    assert not folder.held()
    fd = folder.lock()
    assert folder.held()
    copy = os.dup(fd)
    os.close(fd)
    assert folder.held()  # a copy holds it on
    with pytest.raises(BlockingIOError):
        folder.lock()
    os.close(copy)
    assert not folder.held()
    fcntl.flock(folder.lock(), fcntl.LOCK_UN)


def test_the_end_of_stderr_is_short_whatever_it_is(tmp_path):
    folder = Folder(tmp_path)
    assert folder.stderr() == ""
    for data in (b"x" * 10_000, b"\xff" * 10_000, "é".encode() * 5_001, b"last words"):
        (tmp_path / "stderr").write_bytes(data)
        text = folder.stderr()
        assert 0 < len(text.encode()) <= 4096
        assert data.decode(errors="replace").endswith(text)


@pytest.mark.parametrize(
    ("text", "leader"), [("12 345\n", (12, 345)), ("12 345", None), ("", None), ("12\n", None), ("a b\n", None)]
)
def test_a_pid_counts_when_its_line_is_whole(tmp_path, text, leader):
    (tmp_path / "pid").write_text(text)
    assert Folder(tmp_path).leader() == leader


def test_statuses(tmp_path):
    folder = Folder(tmp_path)
    assert folder.status() is None
    for text, code in (("0\n", 0), ("3\n", 3), ("137\n", -9), ("128\n", 128), ("193\n", 193), ("x", None)):
        (tmp_path / "exit").write_text(text)
        assert folder.status() == code


def test_an_owner_that_is_not_there_is_nobody(tmp_path):
    assert Folder(tmp_path).owner() is None
    (tmp_path / "owner").write_text("{}")
    assert Folder(tmp_path).owner() is None
