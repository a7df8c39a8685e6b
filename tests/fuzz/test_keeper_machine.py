"""State machine of the keeper: engines, trials and keepers come, go and die in any order, against a model.

The keeper is the real one, with real folders, locks and spools; its processes, clock and connections are made up.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tune.trial_sdk import channel, spool, wire
from tune.trial_sdk.keeper import Keeper
from tune.trial_sdk.launches import Folder, Owner
from tune.trial_sdk.machine import Machine
from tune.trial_sdk.peers import Connection
from tune.trial_sdk.process_tree import Process, Processes

KEYS = st.sampled_from([("t1", 0), ("t1", 1)])
Key = tuple[str, int]


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until it is moved."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run what is ready until nothing is."""
        for _ in range(30):
            self.run_until_complete(asyncio.sleep(0))

    def move(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].when() <= end:
            if timers[0].cancelled():
                heapq.heappop(timers)
                continue
            self.now = max(self.now, timers[0].when())
            self.settle()
        self.now = end
        self.settle()


class Trial:
    """A launch's waiter (pid) and its command (pid + 1), as the made-up machine runs them."""

    def __init__(self, host: Host, folder: Path, alive: int, pid: int, *, stubborn: bool) -> None:
        self.host, self.folder, self.pid, self.stubborn = host, folder, pid, stubborn
        self.alive = os.dup(alive)
        self.runs = self.waits = True
        self.spool = spool.Spool(str(folder / f"{pid}-0.spool"))
        self.code: int | None = None
        (folder / "waiter").write_text(f"{pid}\n")
        (folder / "pid").write_text(f"{pid + 1} {pid + 1}\n")

    def end(self, code: int) -> None:
        """The command ends; the waiter, if it is there, writes that down and ends too."""
        if self.runs:
            self.runs = False
            self.spool.close()
            if self.waits:
                self.code = code
                (self.folder / "exit").write_text(f"{code if code >= 0 else 128 - code}\n")
                self.let_go()

    def let_go(self) -> None:
        """The waiter ends, and with it its lock."""
        if self.waits:
            self.waits = False
            os.close(self.alive)
            self.host.tell(self.pid)

    @property
    def key(self) -> Key:
        return self.folder.parent.name, int(self.folder.name)

    def lines(self) -> list[Process]:
        here = self.pid
        found = [Process(here, 1, here, here, here, "S")] if self.waits else []
        return found + ([Process(here + 1, here, here + 1, here + 1, here + 1, "S")] if self.runs else [])


class Host(Processes):
    """The made-up process table."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.starts: dict[Path, int] = {}
        self.watches: dict[int, tuple[int, Callable[[], None]]] = {}
        self.loop: Loop | None = None

    def tell(self, pid: int) -> None:
        for watched, gone in list(self.watches.values()):
            if watched == pid and self.loop is not None:
                self.loop.call_soon(gone)

    def read(self, pid: int) -> Process | None:
        return self.table().get(pid)

    def table(self) -> dict[int, Process]:
        return {line.pid: line for trial in self.trials for line in trial.lines()}

    def launch_dir(self, pid: int) -> bytes | None:
        return next((os.fsencode(trial.folder) for trial in self.trials if pid == trial.pid + 1), None)

    def relatives(self) -> set[int]:
        return {0, 1}

    def me(self) -> int:
        return 2

    def send(self, process: Process, number: int) -> None:
        for trial in self.trials:
            if process in trial.lines() and process.pid == trial.pid + 1:
                self._hit(trial, number)
            assert process.pid != trial.pid or number == 0, "a waiter is signalled"

    def send_group(self, group: int, number: int) -> None:
        members = [trial for trial in self.trials if trial.runs and trial.pid + 1 == group]
        if not members:
            raise ProcessLookupError
        for trial in members:
            self._hit(trial, number)

    @staticmethod
    def _hit(trial: Trial, number: int) -> None:
        if number == signal.SIGKILL or (number == signal.SIGTERM and not trial.stubborn):
            trial.end(-number)


class Made(Machine):
    """The keeper's port to all that."""

    def __init__(self, host: Host, loop: Loop) -> None:
        self.processes = host  # type: ignore[misc]
        self.host, self.loop = host, loop

    def me(self) -> Owner:
        return Owner("host", "boot", "1", 2, 0)

    def monotonic(self) -> float:
        return self.loop.now

    def folder(self, path: Path) -> Folder:
        return Folder(path, self.host)

    def spawn(
        self,
        folder: Path,
        command: str,
        cwd: str,
        env: dict[str, str],
        alive: int,
        told: Callable[[], None],
        join: str = "",
    ) -> int:
        if command == "can't":
            raise OSError(11, "Resource temporarily unavailable", "/bin/sh")
        pid = 1000 + 10 * len(self.host.trials)
        self.host.starts[folder] = self.host.starts.get(folder, 0) + 1
        self.host.trials.append(Trial(self.host, folder, alive, pid, stubborn=command == "stubborn"))
        self.loop.call_soon(told)
        return pid

    def watch(self, pid: int, gone: Callable[[], None]) -> int:
        if pid not in self.host.table():
            return -1
        handle = len(self.host.watches) + 1
        self.host.watches[handle] = (pid, gone)
        return handle

    def unwatch(self, handle: int) -> None:
        self.host.watches[handle] = (0, lambda: None)


class Wire(asyncio.Transport):
    """The engine's connection: what the keeper says on it, checked as it comes (K4, K5)."""

    def __init__(self, machine: KeeperMachine) -> None:
        super().__init__()
        self.machine = machine
        self.framer = wire.Framer()
        self.open = True
        self.told: set[Key] = set()
        self.exited: set[Key] = set()
        self.next: dict[tuple[str, int, str], int] = {}

    def write(self, data: bytes | bytearray | memoryview) -> None:
        for body in self.framer.feed(data):
            try:
                self.machine.heard(self, wire.decode(channel.from_keeper, body))
            except AssertionError as error:  # a loop would only log it
                self.machine.problems.append(error)

    def is_closing(self) -> bool:
        return not self.open

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        if self.open:
            self.open = False
            connection = self.machine.connection
            if connection is not None and self.machine.wire is self:
                self.machine.loop.call_soon(connection.connection_lost, None)
                self.machine.connection = None

    abort = close


class KeeperMachine(RuleBasedStateMachine):
    """What engine and trials do and suffer; the log is `recorded`."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="tune-machine-"))
        (self.base / "trials").mkdir()
        self.host = Host()
        self.problems: list[BaseException] = []
        self.epoch = 0
        self.recorded: dict[tuple[str, int, str], list[wire.Report]] = {}
        self.exits: dict[Key, int | None] = {}
        self.failed: set[Key] = set()
        self.asked: set[Key] = set()
        self.connection: Connection | None = None
        self.begin()

    def begin(self) -> None:
        """A keeper starts, on a loop of its own."""
        self.loop = self.host.loop = Loop()
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context["exception"]))
        self.keeper = Keeper(self.base, 1e9, 1.0, Made(self.host, self.loop))
        self.wire = Wire(self)

        async def adopt() -> None:
            self.keeper._adopt()

        self.loop.run_until_complete(adopt())
        self.loop.settle()

    def say(self, message: channel.ToKeeper) -> None:
        assert self.connection is not None
        self.loop.call_soon(self.connection.data_received, wire.frame(channel.encoder.encode(message)))
        self.loop.settle()

    def heard(self, source: Wire, message: channel.FromKeeper) -> None:
        if isinstance(message, channel.Attached):
            return
        assert not isinstance(message, channel.Refused | channel.TrialWaits | channel.Flood)
        key = (message.trial, message.attempt)
        assert key in source.told, f"{message} before the engine asked for it"
        match message:
            case channel.Reports():
                reports = spool.parse(message.data)
                sender = (*key, message.process)
                assert key not in source.exited, "a report after the end"
                assert reports[0].number == message.first == source.next.get(sender, message.first)
                source.next[sender] = reports[-1].number + 1
                known = self.recorded.setdefault(sender, [])
                assert message.first <= len(known) + 1, "a report is left out"
                known += reports[len(known) - message.first + 1 :]
            case channel.Exited():
                assert key not in source.exited, "an end is said twice on one connection"
                source.exited.add(key)
                assert self.exits.setdefault(key, message.code) == message.code, "an end changes"
            case channel.LaunchFailed():
                assert self.base / "trials" / key[0] / str(key[1]) not in self.host.starts
                self.failed.add(key)
            case channel.NeverLaunched():
                assert key not in self.asked
            case _:
                pass

    def numbers(self, key: Key) -> dict[str, int]:
        return {sender[2]: len(reports) for sender, reports in self.recorded.items() if sender[:2] == key}

    def running(self) -> list[Trial]:
        return [trial for trial in self.host.trials if trial.runs]

    # -- the engine ---------------------------------------------------------------------------------------------------
    @initialize(command=st.sampled_from(["kind", "stubborn"]), count=st.integers(0, 3))
    def something_runs(self, command: str, count: int) -> None:
        self.attach()
        self.launch(("t1", 0), command)
        for _ in range(count):
            self.host.trials[0].spool.append("I", 0, "0")

    @rule()
    def attach(self) -> None:
        self.epoch += 1
        if self.connection is not None:
            self.wire.close()
            self.loop.settle()
        self.wire = Wire(self)
        self.connection = Connection(self.keeper)
        self.loop.call_soon(self.connection.connection_made, self.wire)
        self.say(channel.Attach("exp", self.epoch))

    @precondition(lambda self: self.connection is not None)
    @rule()
    def detach(self) -> None:
        self.wire.close()
        self.loop.settle()

    @precondition(lambda self: self.connection is not None)
    @rule(key=KEYS, command=st.sampled_from(["kind", "stubborn", "can't"]))
    def launch(self, key: Key, command: str) -> None:
        self.wire.told.add(key)
        self.asked.add(key)
        self.wire.exited.discard(key)
        self.forget_sent(key)
        self.say(channel.Launch(*key, 1, 0, "{}", command, "/"))

    @precondition(lambda self: self.connection is not None)
    @rule(key=KEYS)
    def probe(self, key: Key) -> None:
        self.wire.told.add(key)
        self.wire.exited.discard(key)
        self.forget_sent(key)
        self.say(channel.Probe(*key, self.numbers(key)))

    def forget_sent(self, key: Key) -> None:
        for sender in [sender for sender in self.wire.next if sender[:2] == key]:
            del self.wire.next[sender]

    @precondition(lambda self: self.connection is not None)
    @rule(key=KEYS, grace=st.sampled_from([0.0, 0.5, 30.0]))
    def stop(self, key: Key, grace: float) -> None:
        self.wire.told.add(key)
        self.say(channel.Stop(*key, grace))

    @precondition(lambda self: self.connection is not None)
    @rule(key=KEYS)
    def acknowledge(self, key: Key) -> None:
        for process, number in self.numbers(key).items():
            self.say(channel.Ack(*key, process, number))

    @precondition(lambda self: self.connection is not None)
    @rule(key=KEYS)
    def forget(self, key: Key) -> None:
        if key in self.exits:
            self.wire.exited.discard(key)
            self.forget_sent(key)
            self.say(channel.Forget(*key))

    # -- trials and time ----------------------------------------------------------------------------------------------
    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 9), count=st.integers(1, 4), poked=st.booleans())
    def report(self, which: int, count: int, poked: bool) -> None:
        trial = self.running()[which % len(self.running())]
        for _ in range(count):
            trial.spool.append("I", 0, str(trial.spool.number + 1))
        launch = self.keeper.launches.get(trial.key)
        if poked and launch is not None:
            self.loop.call_soon(self.keeper.forward.more, launch, f"{trial.pid}-0")
            self.loop.settle()

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 9), code=st.sampled_from([0, 1, -9]))
    def end(self, which: int, code: int) -> None:
        self.running()[which % len(self.running())].end(code)
        self.loop.settle()

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 9))
    def kill_waiter(self, which: int) -> None:
        self.running()[which % len(self.running())].let_go()
        self.loop.settle()

    @rule(seconds=st.sampled_from([0.01, 0.6, 2.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.loop.move(seconds)

        async def tick() -> None:
            await self.keeper._tick()

        self.loop.run_until_complete(tick())
        self.loop.settle()

    @rule()
    def kill_keeper(self) -> None:
        self.stop_loop()
        self.begin()

    def stop_loop(self) -> None:
        """The keeper is no more: nothing of it runs on."""
        self.connection = None
        self.wire.open = False
        self.host.watches = {}
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.close()

    # -- what holds always, and at the end ----------------------------------------------------------------------------
    @invariant()
    def started_at_most_once(self) -> None:
        assert not self.problems, self.problems
        assert set(self.host.starts.values()) <= {1}
        for sender, reports in self.recorded.items():
            assert [report.number for report in reports] == list(range(1, len(reports) + 1)), sender

    def teardown(self) -> None:
        """A last engine asks for everything and stops it: every end is told, with all that was reported."""
        try:
            self.attach()
            for key in sorted(self.asked):
                self.probe(key)
                self.stop(key, 0.0)
            for _ in range(3):
                self.wait(2.0)
            assert not self.running(), "something outlives its stop"
            for trial in self.host.trials:
                assert self.exits[trial.key] == trial.code, trial.key
                written = spool.parse((trial.folder / f"{trial.pid}-0.spool").read_bytes())
                assert self.recorded.get((*trial.key, f"{trial.pid}-0"), []) == written
            assert not self.problems, self.problems
            assert self.asked == self.exits.keys() | self.failed
        finally:
            self.stop_loop()
            for trial in self.host.trials:
                trial.end(0)
                trial.let_go()
            shutil.rmtree(self.base)


TestKeeper = KeeperMachine.TestCase
TestKeeper.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, database=None)
