"""The keeper's rules, each with its number: a real keeper, a scripted engine on its socket, and real trials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tune.training_services.local import Local
from tune.trial_sdk import channel, control_group, process_tree, spool, wire
from tune.trial_sdk.keeper import read_lock


class Engine:
    """The engine's end of the channel: attaches, records what it hears, acknowledges when told to."""

    def __init__(self, world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.world = world
        self.reader, self.writer = reader, writer
        self.acks = True
        self.said: list[Any] = []
        self.reports: dict[tuple[str, int, str], list[wire.Report]] = defaultdict(list)
        self.changed = asyncio.Condition()
        self.closed = False
        self.most_unacked = 0
        self.task = asyncio.create_task(self._listen())

    def send(self, *messages: channel.ToKeeper) -> None:
        self.writer.write(b"".join(wire.frame(channel.encoder.encode(message)) for message in messages))

    async def _listen(self) -> None:
        framer = wire.Framer()
        try:
            while data := await self.reader.read(1 << 18):
                for body in framer.feed(data):
                    message = wire.decode(channel.from_keeper, body)
                    if isinstance(message, channel.Reports):
                        key = (message.trial, message.attempt, message.process)
                        reports = spool.parse(message.data)
                        assert reports[0].number == message.first
                        self.reports[key] += reports
                        if self.acks:
                            self.send(channel.Ack(*key, reports[-1].number))
                    async with self.changed:
                        self.said.append(message)
                        self.changed.notify_all()
        except ConnectionError:
            pass
        async with self.changed:
            self.closed = True
            self.changed.notify_all()

    async def heard(self, kind: type[Any], count: int = 1, trial: str | None = None) -> Any:
        """Wait for the `count`-th message of a kind (about a trial), and give it."""

        def found() -> list[Any]:
            return [m for m in self.said if isinstance(m, kind) and (trial is None or m.trial == trial)]

        async with self.changed:
            async with asyncio.timeout(30):
                await self.changed.wait_for(lambda: len(found()) >= count or self.closed)
        assert len(found()) >= count, f"the connection ended; said: {self.said}"
        return found()[count - 1]

    async def reported(self, count: int, trial: str | None = None) -> list[wire.Report]:
        """Wait until so many reports were heard."""

        def all_of() -> list[wire.Report]:
            return [r for k, rs in self.reports.items() if trial is None or k[0] == trial for r in rs]

        async with self.changed:
            async with asyncio.timeout(30):
                await self.changed.wait_for(lambda: len(all_of()) >= count or self.closed)
        return all_of()

    async def ended(self) -> None:
        async with self.changed:
            async with asyncio.timeout(30):
                await self.changed.wait_for(lambda: self.closed)

    def launch(self, trial: str, script: str, attempt: int = 0, **changes: Any) -> None:
        """Launch a Python script (or a shell command, with `command=`)."""
        path = self.world.root / f"{trial}_{attempt}.py"
        path.write_text(textwrap.dedent(script))
        fields: dict[str, Any] = {
            "number": 7,
            "phase": 0,
            "parameters": '{"lr":0.5,"x":"NaN"}',
            "command": f"{sys.executable} {path}",
            "cwd": str(self.world.root),
        }
        self.send(channel.Launch(trial, attempt, **{**fields, **changes}))

    async def leave(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        await self.task


class World:
    """A folder, a keeper in it, and engines that come and go."""

    def __init__(self, root: Path, lease: float = 600.0, grace: float = 5.0) -> None:
        self.root = root
        self.folder = root / "experiment"
        self.folder.mkdir(exist_ok=True)
        self.local = Local(self.folder, lease=lease, grace=grace)
        self.engines: list[Engine] = []

    async def attach(self, epoch: int = 1, *, acks: bool = True, devices: bool = False) -> Engine:
        engine = Engine(self, *await self.local.channel())
        engine.acks = acks
        self.engines.append(engine)
        engine.send(channel.Attach("exp", epoch, devices=devices))
        await engine.heard(channel.Attached)
        return engine

    @property
    def keeper(self) -> int:
        lock = read_lock(self.folder / "keeper.lock")
        assert lock is not None
        return lock.pid

    def kill_keeper(self) -> None:
        pid = self.keeper
        fd = os.pidfd_open(pid)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)

    async def gone(self) -> None:
        async with asyncio.timeout(30):
            while self.local.running():  # noqa: ASYNC110 -- another process's lock
                await asyncio.sleep(0.01)

    async def leftover(self) -> list[int]:
        """Processes of this world's trials that live."""
        mark = os.fsencode(self.folder)
        return [p for p in process_tree.table() if (process_tree.launch_dir(p) or b"").startswith(mark)]

    async def close(self) -> None:
        for engine in self.engines:
            await engine.leave()
        if self.local.running() or (self.folder / "trials").exists():
            engine = await self.attach(1 << 40)
            engine.send(channel.Shutdown())
            await engine.ended()
            await engine.leave()
            await self.gone()


async def until(condition: Any) -> None:
    """Wait for something that only files tell."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- another process's file
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def world(root: Path, **options: Any) -> Any:
    made = World(root, **options)
    try:
        yield made
    finally:
        await made.close()


def served(**options: Any) -> Any:
    """A test that is a coroutine over a world of its own."""

    def wrap(test: Any) -> Any:
        def run(tmp_path: Path) -> None:
            async def main() -> None:
                async with world(tmp_path, **options) as made:
                    await test(made)

            asyncio.run(main())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return wrap


SLEEPER = """
import time
from tune.trial_sdk import report_intermediate_result
report_intermediate_result(1)
while True: time.sleep(0.05)
"""
WAITS_FOR_FILE = """
import os, time
from tune.trial_sdk import *
get_next_parameter()
report_intermediate_result(1)
while not os.path.exists("go"): time.sleep(0.01)
"""


@served()
async def test_a_trial_from_launch_to_exit(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        import os
        from tune.trial_sdk import *
        print(get_next_parameter(), get_current_parameter("lr"), get_next_parameter())
        print(get_experiment_id(), get_trial_id(), get_sequence_id(), get_attempt())
        print(get_output_dir() == os.environ["NNI_OUTPUT_DIR"], os.environ["NNI_PLATFORM"], os.environ["MINE"])
        assert os.environ["TUNE_CHECKPOINT_DIR"] == os.path.realpath(get_output_dir() + "/../../checkpoints")
        print(os.environ.get("TAKEN"), os.environ["PATH"].split(":")[0], os.getcwd(), os.read(0, 1))
        report_intermediate_result({"default": 1, "x": float("nan")})
        report_final_result(2)
        """,
        env={"MINE": "a b", "TAKEN": "x"} | {"dir": "d", "a": "b"},
        unset=["TAKEN"],
        path="/nowhere",
        attempt=2,
    )
    launched = await engine.heard(channel.Launched)
    exited = await engine.heard(channel.Exited)
    folder = w.folder / "trials/t1/2"
    assert [type(m).__name__ for m in engine.said if not isinstance(m, channel.Reports)] == [
        "Attached",
        "Launched",
        "Exited",
    ]
    assert (exited.code, exited.reason, exited.stderr) == (0, "", "")
    assert 0 <= exited.ended - launched.started < 60_000_000
    assert (w.folder / "trials/t1/stdout").read_text().splitlines() == [
        "{'lr': 0.5, 'x': 'NaN'} 0.5 {'lr': 0.5, 'x': 'NaN'}",
        "exp t1 7 2",
        "True local a b",
        f"x /nowhere {w.root} b''",
    ]
    assert (folder / "exit").read_text() == "0\n"
    assert int((folder / "pid").read_text().split()[0]) == launched.pid
    (reports,) = engine.reports.values()
    assert [(r.number, r.kind, r.value) for r in reports] == [(1, "I", '{"default":1,"x":"NaN"}'), (2, "F", "2")]


@served()
async def test_exit_codes_are_those_of_the_command(w):
    engine = await w.attach()
    commands = {
        "zero": "true",
        "three": "exit 3",
        "missing": "no-such-command-here",
        "killed": "kill -9 $$",
        "segv": f"{sys.executable} -c 'import os; os.abort()'",
        "quotes": """echo "it's" 'a "b"' $((1+1)); exit 5""",
        "interrupted": "kill -INT $$; exit 1",
    }
    for trial, command in commands.items():
        engine.launch(trial, "", command=command)
    codes = {trial: (await engine.heard(channel.Exited, trial=trial)).code for trial in commands}
    assert codes == {
        "zero": 0, "three": 3, "missing": 127, "killed": -9, "segv": -6, "quotes": 5, "interrupted": -2,
    }  # fmt: skip
    assert "not found" in (await engine.heard(channel.Exited, trial="missing")).stderr
    assert (w.folder / "trials/quotes/stdout").read_text() == 'it\'s a "b" 2\n'


@served()
async def test_k1_a_second_keeper_leaves_quietly(w):
    await w.attach()
    pid = w.keeper
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tune.trial_sdk.keeper", str(w.folder), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert (process.returncode, stderr, w.keeper) == (0, b"", pid)


@served()
async def test_k2_a_launch_said_twice_is_started_once(w):
    engine = await w.attach()
    script = "open('witness', 'a').write('x'); import time; time.sleep(0.2)"
    for _ in range(3):
        engine.launch("t1", script)
    await engine.heard(channel.Exited)
    engine.launch("t1", script)
    await engine.heard(channel.Exited)
    await engine.leave()
    w.kill_keeper()
    await w.gone()
    engine = await w.attach(2)
    engine.launch("t1", script)
    assert (await engine.heard(channel.Exited)).code == 0
    assert (w.root / "witness").read_text() == "x"


@served()
async def test_k2_what_could_not_be_started_never_is(w):
    engine = await w.attach()
    engine.launch("t1", "", cwd=str(w.root / "nowhere"))
    assert "no such folder" in (await engine.heard(channel.LaunchFailed)).reason
    engine.launch("t1", "")
    assert "no such folder" in (await engine.heard(channel.LaunchFailed, 2)).reason
    engine.send(channel.Probe("t1", 0))
    await engine.heard(channel.LaunchFailed, 3)
    engine.launch("t2", "", command="true " + "x" * (1 << 18))
    assert (await engine.heard(channel.LaunchFailed, 4)).trial == "t2"
    engine.launch("t3", "", command="true \0 x")
    assert (await engine.heard(channel.LaunchFailed, 5)).trial == "t3"
    engine.send(channel.Probe("t4", 0))
    await engine.heard(channel.NeverLaunched)


@served()
async def test_on_shared_storage_only_the_trial_touches_its_folders(w):
    """They may lie on a network file system that says nothing: the keeper does not look, and the trial says it."""
    engine = await w.attach()
    shared = w.root / "shared"
    env = {"TUNE_OUTPUT_DIR": str(shared / "trials/t1"), "TUNE_CHECKPOINT_DIR": str(shared / "checkpoints")}
    engine.launch("t1", "", cwd=str(w.root / "nowhere"), env=env)
    assert "nowhere" in (await engine.heard(channel.Exited)).stderr
    script = """
        import os
        from tune.trial_sdk import *
        get_next_parameter()
        print(get_output_dir(), os.environ["NNI_OUTPUT_DIR"], os.environ["TUNE_CHECKPOINT_DIR"])
    """
    engine.launch("t2", script, env=env)
    assert (await engine.heard(channel.Exited, 2)).code == 0
    said = (w.folder / "trials/t2/0/stdout").read_text().split()
    assert said == [env["TUNE_OUTPUT_DIR"], env["TUNE_OUTPUT_DIR"], env["TUNE_CHECKPOINT_DIR"]]
    assert (shared / "trials/t1").is_dir()


@served()
async def test_k2_a_folder_of_a_keeper_that_died_before_the_start(w):
    engine = await w.attach()
    (w.folder / "trials/t1/0").mkdir(parents=True)
    engine.launch("t1", "open('witness', 'a').write('x')")
    assert "died" in (await engine.heard(channel.LaunchFailed)).reason
    assert not (w.root / "witness").exists()


@served()
async def test_k3_k14_a_killed_keeper_loses_nothing(w):
    engine = await w.attach()
    engine.launch("t1", WAITS_FOR_FILE + "\nreport_intermediate_result(2)\nreport_final_result(3)\nraise SystemExit(4)")
    launched = await engine.heard(channel.Launched)
    await engine.reported(1)
    w.kill_keeper()
    await engine.ended()
    await w.gone()
    again = await w.attach(2)
    (process,) = [key[2] for key in engine.reports]
    again.send(channel.Probe("t1", 0, {process: 1}))
    assert (await again.heard(channel.Launched)).pid == launched.pid
    (w.root / "go").touch()
    assert (await again.heard(channel.Exited)).code == 4
    (reports,) = again.reports.values()
    assert [(r.number, r.kind, r.value) for r in reports] == [(2, "I", "2"), (3, "F", "3")]
    assert (w.folder / "trials/t1/stderr").read_text() == ""


@served()
async def test_k3_a_trial_that_ends_without_a_keeper_keeps_its_code(w):
    engine = await w.attach()
    engine.launch("t1", WAITS_FOR_FILE + "\nreport_final_result(3)\nraise SystemExit(4)")
    await engine.reported(1)
    w.kill_keeper()
    await engine.ended()
    (w.root / "go").touch()
    await until((w.folder / "trials/t1/0/exit").exists)
    again = await w.attach(2)
    again.send(channel.Probe("t1", 0))
    assert (await again.heard(channel.Exited)).code == 4
    (reports,) = again.reports.values()
    assert [r.value for r in reports] == ["1", "3"]


@served()
async def test_k4_nothing_is_said_of_a_launch_before_its_probe(w):
    engine = await w.attach()
    engine.launch("t1", "from tune.trial_sdk import *\nfor i in range(5): report_intermediate_result(i)")
    await engine.heard(channel.Exited)
    await engine.leave()
    again = await w.attach(1)
    again.send(channel.Probe("unknown", 0))
    await again.heard(channel.NeverLaunched)
    assert len(again.said) == 2 and not again.reports
    (process,) = [key[2] for key in engine.reports]
    again.send(channel.Probe("t1", 0, {process: 3}))
    await again.heard(channel.Exited)
    assert [[r.number for r in rs] for rs in again.reports.values()] == [[4, 5]]
    again.send(channel.Forget("t1", 0), channel.Probe("t1", 0, {process: 5}))
    await again.heard(channel.Exited, 2)
    assert [[r.number for r in rs] for rs in again.reports.values()] == [[4, 5]]


@served()
async def test_k5_ten_thousand_intermediates_arrive_exactly_once_before_the_end(w):
    engine = await w.attach()
    engine.launch("t1", "from tune.trial_sdk import *\nfor i in range(10000): report_intermediate_result(i)")
    await engine.heard(channel.Exited)
    (reports,) = engine.reports.values()
    assert [(r.number, r.value) for r in reports] == [(i + 1, str(i)) for i in range(10000)]
    assert isinstance(engine.said[-1], channel.Exited)


@served()
async def test_k5_a_torn_or_damaged_spool_does_not_hold_up_the_end(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        import os
        from tune.trial_sdk import *
        report_intermediate_result(1)
        for name in os.listdir(os.environ["TUNE_LAUNCH_DIR"]):
            if name.endswith(".spool"):
                open(os.environ["TUNE_LAUNCH_DIR"] + "/" + name, "ab").write(b"\\0\\0\\1")
        open(os.environ["TUNE_LAUNCH_DIR"] + "/1-00000000.spool", "wb").write(b"\\xff" * 100)
        os.mkfifo(os.environ["TUNE_LAUNCH_DIR"] + "/2-00000000.spool")
        os.symlink("/dev/zero", os.environ["TUNE_LAUNCH_DIR"] + "/3-00000000.spool")
        """,
    )
    assert (await engine.heard(channel.Exited)).code == 0
    assert len(await engine.reported(1)) == 1


@served()
async def test_k6_a_flood_waits_for_acknowledgements_and_does_not_starve_others(w):
    engine = await w.attach(acks=False)
    flood = "from tune.trial_sdk import *\nfor i in range(300): report_intermediate_result('x' * 10000)"
    engine.launch("flood", flood)
    await until((w.folder / "trials/flood/0/exit").exists)
    engine.launch("calm", "from tune.trial_sdk import *\nreport_intermediate_result(1)")
    await engine.heard(channel.Exited, trial="calm")
    await engine.reported(100, "flood")
    sent = sum(len(m.data) for m in engine.said if isinstance(m, channel.Reports) and m.trial == "flood")
    assert 1 << 20 <= sent <= (1 << 20) + (256 << 10)
    assert not [m for m in engine.said if isinstance(m, channel.Exited) and m.trial == "flood"]
    engine.acks = True
    (key,) = [key for key in engine.reports if key[0] == "flood"]
    engine.send(channel.Ack(*key, engine.reports[key][-1].number))
    await engine.heard(channel.Exited, trial="flood")
    assert [r.number for r in engine.reports[key]] == list(range(1, 301))


@served()
async def test_k6_a_report_of_a_mebibyte_passes(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        from tune.trial_sdk import *
        report_intermediate_result("x" * (2**20 - 2))
        report_intermediate_result(1)
        report_final_result("y" * (2**20 - 2))
        """,
    )
    assert (await engine.heard(channel.Exited)).code == 0
    assert [len(r.value) for r in await engine.reported(3)] == [1 << 20, 1, 1 << 20]


@served()
async def test_k7_a_final_waits_for_its_acknowledgement_an_intermediate_does_not(w):
    engine = await w.attach(acks=False)
    engine.launch(
        "t1",
        """
        from tune.trial_sdk import *
        report_intermediate_result(1)
        open("reported", "w").close()
        report_final_result(2)
        open("recorded", "w").close()
        """,
    )
    await until((w.root / "reported").exists)
    await engine.reported(2)
    (key,) = engine.reports
    engine.send(channel.Ack(*key, 1), channel.Probe("other", 0))
    await engine.heard(channel.NeverLaunched)  # the keeper has taken in what stands before
    assert not (w.root / "recorded").exists()
    engine.send(channel.Ack(*key, 2))
    await until((w.root / "recorded").exists)


@served()
async def test_k7_without_an_engine_a_final_is_synced_and_returns(w):
    engine = await w.attach()
    engine.launch("t1", WAITS_FOR_FILE + "\nreport_final_result(2)")
    await engine.reported(1)
    await engine.leave()
    (w.root / "go").touch()
    await until((w.folder / "trials/t1/0/exit").exists)
    again = await w.attach(2)
    again.send(channel.Probe("t1", 0))
    assert (await again.heard(channel.Exited)).code == 0
    assert [r.kind for r in await again.reported(2)] == ["I", "F"]


@served()
async def test_k7_an_engine_that_leaves_frees_a_waiting_final(w):
    engine = await w.attach(acks=False)
    engine.launch("t1", "from tune.trial_sdk import *\nreport_final_result(2)")
    await engine.reported(1)
    await engine.leave()
    await until((w.folder / "trials/t1/0/exit").exists)


@served()
async def test_k7_multi_phase_requests_are_answered_also_after_engine_and_keeper_died(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        import time
        from tune.trial_sdk import *
        while (p := get_next_parameter()) is not None:
            report_intermediate_result(p["x"])
            report_final_result(p["x"])
        try:
            get_next_parameter(timeout=0.05)
        except TimeoutError:
            print("timeout")
        print(get_next_parameter())
        """,
        parameters='{"x":0}',
        phase=3,
        multi_phase=True,
    )
    ask = await engine.heard(channel.TrialWaits)
    assert isinstance(engine.said[-2], channel.Reports)
    engine.send(channel.Answer("t1", 0, ask.process, ask.number, 4, '{"x":1}'))
    ask = await engine.heard(channel.TrialWaits, 2)
    await engine.leave()
    engine = await w.attach(2)
    engine.send(channel.Probe("t1", 0, {ask.process: ask.number}))
    again = await engine.heard(channel.TrialWaits)
    assert (again.process, again.number) == (ask.process, ask.number)
    w.kill_keeper()
    await engine.ended()
    await w.gone()
    engine = await w.attach(2)
    engine.send(channel.Probe("t1", 0, {ask.process: ask.number}))
    again = await engine.heard(channel.TrialWaits)
    engine.send(channel.Answer("t1", 0, again.process, again.number, 9, '{"x":"NaN"}'))
    ask = await engine.heard(channel.TrialWaits, 2)
    engine.send(channel.Answer("t1", 0, ask.process, ask.number, 0, None))
    ask = await engine.heard(channel.TrialWaits, 3)
    await until(lambda: "timeout" in (w.folder / "trials/t1/stdout").read_text())
    ask = await engine.heard(channel.TrialWaits, 4)  # the same request again
    engine.send(channel.Answer("t1", 0, ask.process, ask.number, 10, '{"x":5}'))
    assert (await engine.heard(channel.Exited)).code == 0
    data = b"".join(path.read_bytes() for path in (w.folder / "trials/t1/0").glob("*.spool"))
    assert [(r.kind, r.phase, r.value) for r in spool.parse(data)] == [
        ("I", 3, "0"), ("F", 3, "0"), ("R", 3, ""),
        ("I", 4, "1"), ("F", 4, "1"), ("R", 4, ""),
        ("I", 9, '"NaN"'), ("F", 9, '"NaN"'), ("R", 9, ""),
        ("R", 9, ""),
    ]  # fmt: skip
    assert (w.folder / "trials/t1/stdout").read_text() == "timeout\n{'x': 5}\n"


@served()
async def test_reports_of_forked_children_have_senders_of_their_own(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        import os, threading
        from tune.trial_sdk import *
        get_next_parameter()
        report_intermediate_result("parent")
        children = []
        for i in range(3):
            pid = os.fork()
            if not pid:
                report_intermediate_result(i)
                report_final_result(i)
                os._exit(0)
            children.append(pid)
        for pid in children: assert os.waitpid(pid, 0)[1] == 0
        threads = [threading.Thread(target=report_intermediate_result, args=(f"thread{i}",)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        report_final_result("parent")
        """,
    )
    assert (await engine.heard(channel.Exited)).code == 0
    by_process = sorted([[r.value for r in reports] for reports in engine.reports.values()], key=len)
    assert [len(values) for values in by_process] == [2, 2, 2, 10]
    assert sorted(by_process[:3]) == [[str(i)] * 2 for i in range(3)]
    assert sorted(by_process[3]) == ['"parent"'] * 2 + [f'"thread{i}"' for i in range(8)]


@served()
async def test_k8_stop_leaves_nothing_behind(w):
    engine = await w.attach()
    script = "import time\nopen(f'up{__import__(\"os\").getpid()}', 'w').close()\nwhile True: time.sleep(1)"
    (w.root / "sleeper.py").write_text(script)
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + script
    (w.root / "stubborn.py").write_text(stubborn)
    py = sys.executable
    engine.launch("cd", "", command=f"cd {w.root} && {py} sleeper.py")
    engine.launch("session", "", command=f"setsid {py} sleeper.py & {py} sleeper.py")
    engine.launch("bare", "", command=f"env -i setsid {py} stubborn.py & {py} sleeper.py")
    engine.launch("stubborn", "", command=f"{py} stubborn.py; {py} stubborn.py")
    await until(lambda: len(list(w.root.glob("up*"))) == 6)
    for trial in ("cd", "session", "bare", "stubborn"):
        engine.send(channel.Stop(trial, 0, 0.5))
    codes = {t: (await engine.heard(channel.Exited, trial=t)).code for t in ("cd", "session", "bare", "stubborn")}
    assert codes == {"cd": -15, "session": -15, "bare": -15, "stubborn": -15}
    assert await w.leftover() == []
    pids = {int(path.name[2:]) for path in w.root.glob("up*")}
    assert not pids & set(process_tree.table())


@served()
async def test_k8_a_trial_that_asks_should_stop_ends_in_its_own_time(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        import time, sys
        from tune.trial_sdk import *
        assert not should_stop()
        report_intermediate_result(1)
        while not should_stop(): time.sleep(0.01)
        report_final_result("saved")
        sys.exit(9)
        """,
        command=f"cd {w.root} && {sys.executable} t1_0.py",  # the shell dies of TERM at once, the script goes on
    )
    await engine.reported(1)
    engine.send(channel.Stop("t1", 0, 20.0))
    await engine.heard(channel.Exited)
    assert [r.value for r in await engine.reported(2)] == ["1", '"saved"']


@served()
async def test_k8_another_thread_hears_of_the_stop_too(w):
    engine = await w.attach()
    engine.launch(
        "t1",
        """
        import signal, threading, time
        from tune.trial_sdk import *
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def work():
            while not should_stop(): time.sleep(0.01)
            report_intermediate_result("heard")
        report_intermediate_result(1)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """,
    )
    await engine.reported(1)
    engine.send(channel.Stop("t1", 0, 20.0))
    assert (await engine.heard(channel.Exited)).code == -15  # the shell around it
    assert [r.value for r in await engine.reported(2)] == ["1", '"heard"']


@served()
async def test_k8_a_second_stop_shortens_the_grace(w):
    engine = await w.attach()
    engine.launch("t1", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + SLEEPER)
    await engine.reported(1)
    engine.send(channel.Stop("t1", 0, 600.0), channel.Stop("t1", 0, 0.0), channel.Stop("t1", 0, 600.0))
    assert (await engine.heard(channel.Exited)).code == -15
    assert await w.leftover() == []


@served()
async def test_k8_stop_right_after_launch(w):
    engine = await w.attach()
    for n in range(8):
        engine.launch(f"t{n}", SLEEPER)
        engine.send(channel.Stop(f"t{n}", 0, 20.0))
    for n in range(8):
        assert (await engine.heard(channel.Exited, trial=f"t{n}")).code in (-15, None)
    assert await w.leftover() == []


@served()
async def test_k8_a_launch_has_its_control_group_until_it_is_over(w):
    groups = control_group.choose(w.folder)
    engine = await w.attach()
    engine.launch("t1", SLEEPER)
    launched = await engine.heard(channel.Launched)
    recorded = msgspec.json.decode((w.folder / "trials/t1/0/owner").read_bytes())["group"]
    if isinstance(groups, str):
        assert recorded == "" and groups in (w.folder / "keeper.log").read_text()
        return
    assert recorded == str(groups.parent / "t1.0")
    group = control_group.Group(Path(recorded))
    assert launched.pid in group.pids()
    assert int((w.folder / "trials/t1/0/waiter").read_text()) not in group.pids()
    engine.send(channel.Stop("t1", 0, 5.0))
    await engine.heard(channel.Exited)
    assert not group.threads()
    engine.send(channel.Forget("t1", 0), channel.Probe("t2", 0))
    await engine.heard(channel.NeverLaunched)
    assert not group.path.exists()


@served()
async def test_k8_a_trial_does_without_a_control_group_that_is_not_there(w):
    groups = control_group.choose(w.folder)
    limited = not isinstance(groups, str) and groups.way.name == "v2"
    if not isinstance(groups, str) and limited:
        control_group._make(groups.parent, groups.way)
        (groups.parent / "cgroup.max.descendants").write_text("0")
    engine = await w.attach()
    engine.launch("t1", SLEEPER)
    engine.launch("t2", SLEEPER)
    await engine.reported(1, "t1")
    await engine.reported(1, "t2")
    if limited or isinstance(groups, str):
        assert (w.folder / "keeper.log").read_text().count("control groups") == 1
    engine.send(channel.Stop("t1", 0, 5.0), channel.Stop("t2", 0, 5.0))
    for trial in ("t1", "t2"):
        assert (await engine.heard(channel.Exited, trial=trial)).code == -15
    assert await w.leftover() == []


@served()
async def test_k9_a_killed_waiter_is_an_end_without_a_code(w):
    engine = await w.attach()
    engine.launch("t1", SLEEPER)
    await engine.reported(1)
    os.kill(int((w.folder / "trials/t1/0/waiter").read_text()), signal.SIGKILL)
    exited = await engine.heard(channel.Exited)
    assert exited.code is None and exited.ended > 0
    assert await w.leftover() == []


@served()
async def test_k9_what_is_left_of_the_group_after_a_normal_end_is_killed(w):
    engine = await w.attach()
    (w.root / "child.py").write_text(SLEEPER)
    engine.launch("t1", "", command=f"{sys.executable} child.py & exit 6")
    assert (await engine.heard(channel.Exited)).code == 6
    assert await w.leftover() == []


@served()
async def test_shutdown_kills_daemons_of_ended_trials_and_removes_the_socket(w):
    engine = await w.attach()
    (w.root / "child.py").write_text("open('up', 'w').close()" + SLEEPER)
    engine.launch("t1", "", command=f"setsid {sys.executable} child.py & while ! test -e up; do sleep 0.05; done")
    await engine.heard(channel.Exited)
    assert len(await w.leftover()) == 1
    lock = read_lock(w.folder / "keeper.lock")
    engine.send(channel.Shutdown())
    await engine.ended()
    await w.gone()
    assert await w.leftover() == []
    assert not (w.folder / lock.socket).exists()


@served()
async def test_k10_a_recycled_pid_is_never_signalled(w):
    stranger = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    try:
        engine = await w.attach()
        engine.launch("t1", SLEEPER)
        await engine.reported(1)
        w.kill_keeper()
        await engine.ended()
        await w.gone()
        pid = w.folder / "trials/t1/0/pid"
        true_pid = int(pid.read_text().split()[0])
        pid.write_text(f"{stranger.pid} {int(pid.read_text().split()[1]) - 1}\n")  # same number, another start
        engine = await w.attach(2)
        engine.send(channel.Probe("t1", 0), channel.Stop("t1", 0, 0.2))
        await engine.heard(channel.Exited)
        assert stranger.returncode is None and stranger.pid in process_tree.table()
        assert true_pid not in process_tree.table()
    finally:
        stranger.kill()
        await stranger.wait()


@served(lease=0.5, grace=5.0)
async def test_k11_the_lease_ends_trials_and_keeper(w):
    engine = await w.attach()
    engine.launch("t1", SLEEPER)
    await engine.reported(1)
    await engine.leave()
    await w.gone()
    assert await w.leftover() == []
    engine = await w.attach(2)
    engine.send(channel.Probe("t1", 0))
    exited = await engine.heard(channel.Exited)
    assert (exited.code, exited.reason) == (-15, "lease")
    assert [r.value for r in await engine.reported(1)] == ["1"]


@served()
async def test_k12_garbage_ends_its_own_connection_only(w):
    engine = await w.attach()
    engine.launch("t1", WAITS_FOR_FILE)
    await engine.reported(1)
    path = read_lock(w.folder / "keeper.lock").socket
    hello = wire.frame(channel.encoder.encode(wire.Hello("t1/0", "1-00000000", 1)))
    for data in (
        b"\xff" * 100,
        b"\x7f\xff\xff\xff",
        b"\0\0\0\1\xc1",
        wire.frame(b"\x91" * 1000),
        wire.frame(channel.encoder.encode(channel.Forget("t1", 0))),
        wire.frame(channel.encoder.encode(wire.Hello("../../etc/0", "1", 1))),
        wire.frame(channel.encoder.encode(wire.Hello("t1/0", "1", 1, 99))),
        wire.frame(channel.encoder.encode(wire.Hello("t1/0", "../x", 1))),
        hello + b"\0\0\0\1\x01",
        hello + hello,
    ):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(hello[:10])
    writer.close()
    await writer.wait_closed()
    (w.root / "go").touch()
    assert (await engine.heard(channel.Exited)).code == 0


@served()
async def test_k12_a_launch_that_is_no_name_ends_the_engines_connection(w):
    engine = await w.attach()
    engine.send(channel.Probe("../..", 0))
    await engine.ended()
    engine = await w.attach()
    engine.send(channel.Probe("t1", 0))
    await engine.heard(channel.NeverLaunched)


@served()
async def test_k13_the_newest_engine_wins_also_over_a_keepers_death(w):
    first = await w.attach(5)
    second = await w.attach(5)
    await first.ended()
    third = await w.attach(6)
    await second.ended()
    old = Engine(w, *await w.local.channel())
    w.engines.append(old)
    old.send(channel.Attach("exp", 5), channel.Shutdown())
    assert "epoch" in (await old.heard(channel.Refused)).reason
    await old.ended()
    w.kill_keeper()
    await third.ended()
    await w.gone()
    old = Engine(w, *await w.local.channel())
    w.engines.append(old)
    old.send(channel.Attach("exp", 5))
    await old.heard(channel.Refused)


@served()
async def test_a_socket_that_was_swept_away_is_bound_again(w):
    engine = await w.attach()
    path = w.folder / read_lock(w.folder / "keeper.lock").socket
    path.unlink()
    await until(path.exists)
    engine.launch("t1", "from tune.trial_sdk import *\nreport_final_result(1)")
    assert (await engine.heard(channel.Exited)).code == 0


@served()
async def test_a_trial_without_a_socket_is_heard_by_its_spool(w):
    engine = await w.attach()
    script = "import time\nfrom tune.trial_sdk import *\nreport_intermediate_result(1)\nreport_final_result(2)"
    engine.launch("t1", script, command=f"TUNE_SOCKET=/{'x' * 200} {sys.executable} t1_0.py; sleep 1000")
    await engine.reported(2)
    engine.send(channel.Stop("t1", 0, 5.0))
    assert (await engine.heard(channel.Exited)).code == -15


REPORTER = """
import time
from tune.trial_sdk import *
get_next_parameter()
for i in range(150):
    report_intermediate_result(i)
    time.sleep(0.004)
report_final_result("end")
raise SystemExit(7)
"""


async def hurt(w: World, seed: int, trials: int) -> None:
    """Trials report while keeper and engine die at random moments; nothing may be lost, doubled or started twice."""
    dice = random.Random(seed)
    recorded: dict[str, dict[str, int]] = {f"t{n}": {} for n in range(trials)}
    heard: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    codes: dict[str, int | None] = {}
    epoch = 1
    engine = await w.attach(epoch)
    for trial in recorded:
        engine.launch(trial, "open('witness', 'a').write(__file__ + '\\n')" + REPORTER)
    while len(codes) < trials:
        try:
            async with asyncio.timeout(dice.uniform(0.05, 0.4)):
                await engine.ended()
        except TimeoutError:
            pass
        if dice.random() < 0.5:
            w.kill_keeper()
            await engine.ended()
            await w.gone()
        await engine.leave()
        for (trial, _, process), reports in engine.reports.items():  # the log takes in what is new, and counts on
            for report in reports:
                if report.number > recorded[trial].get(process, 0):
                    assert report.number == recorded[trial].get(process, 0) + 1
                    recorded[trial][process] = report.number
                    heard[trial, process].append((report.number, report.value))
        codes |= {m.trial: m.code for m in engine.said if isinstance(m, channel.Exited)}
        failed = [m for m in engine.said if isinstance(m, channel.LaunchFailed)]
        assert not failed, failed
        epoch += 1
        engine = await w.attach(epoch)
        for trial in recorded:
            if trial not in codes:
                if (w.folder / "trials" / trial / "0").exists():
                    engine.send(channel.Probe(trial, 0, dict(recorded[trial])))
                else:
                    engine.launch(trial, "open('witness', 'a').write(__file__ + '\\n')" + REPORTER)
    assert set(codes.values()) == {7}, codes
    values = [(i + 1, str(i)) for i in range(150)] + [(151, '"end"')]
    assert {len(processes) for processes in recorded.values()} == {1}
    assert all(said == values for said in heard.values())
    lines = (w.root / "witness").read_text().splitlines()
    assert len(lines) == len(set(lines)) == trials
    assert await w.leftover() == []


@pytest.mark.parametrize("seed", [1, 2])
def test_k14_keeper_and_engine_die_at_random_moments(tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            await hurt(w, seed, trials=3)

    asyncio.run(main())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_long_k14_keeper_and_engine_die_at_random_moments(tmp_path: Path) -> None:
    async def main(folder: Path, seed: int) -> None:
        async with world(folder) as w:
            await hurt(w, seed, trials=4)

    for seed in range(int(os.environ.get("TUNE_LONG", "20"))):
        folder = tmp_path / str(seed)
        folder.mkdir()
        asyncio.run(main(folder, seed))


# -- devices ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A home whose host has three devices: their uuids."""
    home = tmp_path / "home"
    (home / ".tune").mkdir(parents=True)
    (home / ".tune" / "devices.toml").write_text("[[device]]\n" * 3)
    monkeypatch.setenv("HOME", str(home))
    return [f"{socket.gethostname()}-{index}" for index in range(3)]


def with_devices(test: Any) -> Any:
    """A test over two worlds of one host with three devices."""

    def run(tmp_path: Path, described: list[str]) -> None:
        async def main() -> None:
            (tmp_path / "one").mkdir()
            (tmp_path / "two").mkdir()
            async with world(tmp_path / "one") as one, world(tmp_path / "two") as two:
                await test(one, two, described)

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


SEES = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'unset'), os.environ.get('CUDA_DEVICE_ORDER'))"


def no_leases() -> None:
    """Put a file where the folder of leases would be."""
    Path(os.environ["HOME"], ".tune", ".leases").write_text("no folder")


def seen(w: World, trial: str) -> str:
    return (w.folder / "trials" / trial / "stdout").read_text().strip()


@with_devices
async def test_K15_an_engine_that_wants_to_know_hears_of_the_devices(one, two, uuids):
    engine = await one.attach(devices=True)
    inventory = await engine.heard(channel.Inventory)
    assert [(device.index, device.uuid, device.busy, device.leases) for device in inventory.devices] == [
        (index, uuid, False, 0) for index, uuid in enumerate(uuids)
    ]
    other = await two.attach()
    other.launch("t1", SEES)
    await other.heard(channel.Exited)
    assert not [message for message in other.said if isinstance(message, channel.Inventory)]
    assert seen(two, "t1").startswith(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))


@with_devices
async def test_K15_a_trial_sees_the_devices_that_it_is_given(one, two, uuids):
    engine = await one.attach(devices=True)
    await engine.heard(channel.Inventory)
    engine.launch("t1", SEES, devices=[uuids[2], uuids[0]])
    engine.launch("t2", SEES, devices=[], env={"CUDA_VISIBLE_DEVICES": "7"})
    for trial in ("t1", "t2"):
        await engine.heard(channel.Exited, trial=trial)
    assert seen(one, "t1") == "0,2 PCI_BUS_ID"
    assert seen(one, "t2") == "None"  # and before it the empty text


@with_devices
async def test_K15_two_experiments_don_t_get_the_same_device(one, two, uuids):
    first, second = await one.attach(devices=True), await two.attach(devices=True)
    await first.heard(channel.Inventory)
    await second.heard(channel.Inventory)
    first.launch("t1", SLEEPER, devices=uuids[:2])
    await first.heard(channel.Launched)
    second.launch("t1", SEES, devices=uuids[1:])
    refused = await second.heard(channel.NotLaunched)
    assert (refused.trial, refused.attempt, refused.devices) == ("t1", 0, [uuids[1]])
    assert refused.reason == f"a trial of the experiment in {one.folder} has it"
    assert not (two.folder / "trials" / "t1").exists()
    second.send(channel.Probe("t1", 0))
    await second.heard(channel.NeverLaunched)
    assert [device.leases for device in (await second.heard(channel.Inventory, 2)).devices] == [1, 1, 0]
    one.kill_keeper()  # the lease is the trial's, and not the keeper's
    second.launch("t2", SEES, devices=uuids[:1], share=True)
    await second.heard(channel.NotLaunched, 2)
    second.launch("t3", SEES, devices=uuids[:1], share=True, most=2)
    await second.heard(channel.Exited)
    again = await one.attach(2)
    again.send(channel.Probe("t1", 0), channel.Stop("t1", 0, 0.0))
    await again.heard(channel.Exited)
    assert [device.leases for device in (await second.heard(channel.Inventory, 3)).devices] == [0, 0, 0]
    second.launch("t1", SEES, devices=uuids[1:])
    await second.heard(channel.Exited, trial="t1")
    assert seen(two, "t1") == "1,2 PCI_BUS_ID"


@with_devices
async def test_K15_a_device_that_a_launch_of_its_own_still_has_is_refused_until_it_is_free(one, two, uuids):
    engine = await one.attach(devices=True)
    await engine.heard(channel.Inventory)
    engine.launch("t1", SLEEPER, devices=uuids[:1])
    await engine.reported(1)
    engine.launch("t2", SEES, devices=uuids[:1])
    assert "still has it" in (await engine.heard(channel.NotLaunched)).reason
    engine.launch("t3", SEES, devices=["gone"])
    assert (await engine.heard(channel.NotLaunched, 2)).devices == ["gone"]
    engine.send(channel.Stop("t1", 0, 1.0))
    await engine.heard(channel.Exited)
    await engine.heard(channel.Inventory, 2)  # the same as before, since what was refused can be had
    engine.launch("t2", SEES, devices=uuids[:1])
    assert (await engine.heard(channel.Exited, trial="t2")).code == 0


@with_devices
async def test_K16_a_claim_lasts_as_long_as_its_engine(one, two, uuids):
    first, second = await one.attach(devices=True), await two.attach(devices=True)
    await first.heard(channel.Inventory)
    await second.heard(channel.Inventory)
    first.send(channel.Claim(uuids, 3), channel.Probe("none", 0))
    await first.heard(channel.NeverLaunched)
    second.launch("t1", SEES, devices=uuids[:1])
    refused = await second.heard(channel.NotLaunched)
    assert refused.reason == f"it is left to the experiment in {one.folder}, which waits for 3"
    first.launch("t1", SEES, devices=uuids)
    await first.heard(channel.Exited)
    await first.leave()
    await second.heard(channel.Inventory, 2)
    second.launch("t1", SEES, devices=uuids[:1])
    await second.heard(channel.Exited)


@with_devices
async def test_K15_without_a_place_for_leases_trials_start_all_the_same(one, two, uuids):
    engine = await one.attach(devices=True)
    await engine.heard(channel.Inventory)
    no_leases()
    engine.launch("t1", SEES, devices=uuids[:1])
    assert (await engine.heard(channel.Exited)).code == 0
    assert "devices can't be leased" in (one.folder / "keeper.log").read_text()
