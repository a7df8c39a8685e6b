"""State machines of the log, the spool and the framer: any order of calls, kills and damage, against a model."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tune.engine import log as log_module
from tune.engine.events import Row
from tune.engine.log import Log, Reader, read_head
from tune.engine.verify import verify
from tune.trial_sdk import spool, wire


def row(seq: int, epoch: int, sender: str, number: int, body: str) -> Row:
    return Row(seq, epoch, "METRIC", 1, sender, number, 0, None, 7, f'{{"value":"{body}"}}')


class LogMachine(RuleBasedStateMachine):
    """Append, refuse, kill, close and reopen a log: what was appended is there, in order, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.base = Path(tempfile.mkdtemp(prefix="tune-machine-"))
        self.generation = 0
        self.rows: list[Row] = []
        self.epoch = 0
        self.log: Log | None = None

    @property
    def path(self) -> Path:
        return self.base / str(self.generation) / "events.db"

    @initialize(frames=st.sampled_from([2, 10, 1000]))
    def make(self, frames: int) -> None:
        log_module.CHECKPOINT_FRAMES = frames
        self.path.parent.mkdir()
        self.log = self.loop.run_until_complete(Log.open(self.path, create=True))
        self._take()

    def _take(self) -> None:
        assert self.log is not None
        self.epoch += 1
        self.log.take(self.epoch)

    def _next(self, sizes: list[int]) -> list[Row]:
        seq = len(self.rows)
        return [
            row(seq + 1 + index, self.epoch, "abcde.0.1", seq + 1 + index, "x" * size)
            for index, size in enumerate(sizes)
        ]

    @precondition(lambda self: self.log is not None)
    @rule(sizes=st.lists(st.integers(0, 6000), max_size=6))
    def append(self, sizes: list[int]) -> None:
        assert self.log is not None
        batch = self._next(sizes)
        self.loop.run_until_complete(self.log.append(batch))
        self.rows += batch

    @precondition(lambda self: self.log is not None)
    @rule(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=4), shift=st.sampled_from([-1, 1, 5]))
    def append_what_does_not_fit(self, sizes: list[int], shift: int) -> None:
        assert self.log is not None
        batch = [_shifted(one, shift) for one in self._next(sizes)]
        try:
            self.loop.run_until_complete(self.log.append(batch))
        except ValueError:
            return
        raise AssertionError("rows with other seqs were taken")

    @precondition(lambda self: self.log is not None)
    @rule()
    def look_while_it_is_open(self) -> None:
        with Reader(self.path) as reader:
            assert list(reader.rows()) == self.rows

    @precondition(lambda self: self.log is not None)
    @rule()
    def kill(self) -> None:
        """What a killed engine leaves is what the files hold now: a copy of them goes on."""
        assert self.log is not None
        before = self.path.parent
        self.generation += 1
        subprocess.run(["cp", "-r", str(before), str(self.path.parent)], check=True)
        (self.path.parent / "events.db-shm").unlink(missing_ok=True)
        self.loop.run_until_complete(self.log.close(checkpoint=False))
        self.log = None
        shutil.rmtree(before)

    @precondition(lambda self: self.log is not None)
    @rule()
    def close(self) -> None:
        assert self.log is not None
        self.loop.run_until_complete(self.log.close())
        self.log = None
        assert not self.path.with_name("events.db-wal").exists()

    @precondition(lambda self: self.log is None)
    @rule()
    def reopen(self) -> None:
        with Reader(self.path) as reader:
            assert list(reader.rows()) == self.rows
            last = reader.last
        self.log = self.loop.run_until_complete(Log.open(self.path, create=False, expect=last))
        self._take()

    @invariant()
    def verified(self) -> None:
        if self.generation == 0 and not self.path.exists():
            return
        found = verify(self.path)
        assert (found.ok, found.events) == (True, len(self.rows)), found
        head = read_head(self.path)
        assert head is not None and head[0] == len(self.rows)

    def teardown(self) -> None:
        if self.log is not None:
            self.loop.run_until_complete(self.log.close(checkpoint=False))
        self.loop.close()
        shutil.rmtree(self.base)
        log_module.CHECKPOINT_FRAMES = 1000


def _shifted(one: Row, shift: int) -> Row:
    return row(one.seq + shift, one.epoch, one.sender, one.sender_seq, "y")


class SpoolMachine(RuleBasedStateMachine):
    """Append, tear the tail, reopen: every report that was not torn is there."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="tune-machine-"))
        self.path = self.base / "1.spool"
        self.reports: list[wire.Report] = []
        self.spool = spool.Spool(str(self.path))

    @rule(kind=st.sampled_from("IFR"), phase=st.integers(0, 3), value=st.text(max_size=40))
    def append(self, kind: str, phase: int, value: str) -> None:
        number = self.spool.append(kind, phase, value)
        self.reports.append(wire.Report(number, kind, phase, value))

    @rule(cut=st.integers(1, 200))
    def tear_and_reopen(self, cut: int) -> None:
        self.spool.close()
        data = self.path.read_bytes()[:-cut]
        self.path.write_bytes(data)
        end, whole = 0, 0
        for report in self.reports:
            end += len(spool.frame(report))
            whole += end <= len(data)
        self.reports = self.reports[:whole]
        self.spool = spool.Spool(str(self.path))

    @rule(garbage=st.binary(min_size=1, max_size=7))
    def half_a_header_and_reopen(self, garbage: bytes) -> None:
        self.spool.close()
        with self.path.open("ab") as file:
            file.write(b"\0" + garbage[:6])
        self.spool = spool.Spool(str(self.path))

    @rule(zeros=st.integers(1, 5000))
    def zeros_and_reopen(self, zeros: int) -> None:
        self.spool.close()
        with self.path.open("ab") as file:
            file.write(bytes(zeros))
        self.spool = spool.Spool(str(self.path))

    @rule(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
    def damage_is_never_read_as_a_report(self, at: float, flip: int) -> None:
        data = bytearray(self.path.read_bytes())
        if not data:
            return
        data[int(at * len(data))] ^= flip
        try:
            found = spool.parse(bytes(data))
        except spool.SpoolDamaged:
            return
        assert found == self.reports[: len(found)]

    @invariant()
    def whole(self) -> None:
        data = self.path.read_bytes()
        assert spool.parse(data) == self.reports
        assert spool.scan(data, 0)[1] == len(self.reports) == self.spool.number

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.base)


class FramerMachine(RuleBasedStateMachine):
    """Bodies cut anywhere come out whole and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.framer = wire.Framer()
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.pending = b""

    @rule(body=st.binary(max_size=300))
    def send(self, body: bytes) -> None:
        self.sent.append(body)
        self.pending += wire.frame(body)

    @rule(size=st.integers(0, 700))
    def deliver(self, size: int) -> None:
        piece, self.pending = self.pending[:size], self.pending[size:]
        self.got += self.framer.feed(piece)

    @invariant()
    def in_order(self) -> None:
        assert self.got == self.sent[: len(self.got)]
        if not self.pending:
            assert self.got == self.sent


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=25, stateful_step_count=15, deadline=None, derandomize=True, database=None)
TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=20, deadline=None, derandomize=True, database=None)
TestFramer = FramerMachine.TestCase
TestFramer.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None)
