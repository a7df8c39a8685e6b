"""Hostile trials, full disks and bad neighbours: a stop leaves nothing alive, and who behaves notices nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE, Bench, Experiment, steps

from tune.engine import lock
from tune.trial_sdk import control_group

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")

# Each tree carries the mark in its processes' arguments, since some of them clear their environment.
TREES = {
    "ignores TERM": """
import subprocess
level = "trap '' TERM HUP INT; : MARK; %s sleep 1000.MARK; true"
subprocess.Popen(["sh", "-c", level % "(trap '' TERM; sleep 1000.MARK) & (setsid sleep 1000.MARK) &"])
subprocess.Popen(["setsid", "sh", "-c", level % ""])
""",
    "daemons with nothing of ours in them": """
import subprocess
for _ in range(3):
    subprocess.run(["env", "-i", "/usr/bin/setsid", "/bin/sh", "-c",
        "cd /; (/usr/bin/setsid /bin/sh -c '/bin/sleep 1000.MARK; :' >/dev/null 2>&1 </dev/null &)"], check=True)
""",
    "forks on and on": """
import subprocess, sys
code = '''
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.closerange(0, 64)
for _ in range(3):
    if os.fork() == 0: break
while True:
    if os.fork(): os._exit(0)
    os.setsid()
    time.sleep(PAUSE)
'''
subprocess.run(["env", "-i", sys.executable, "-I", "-S", "-c", code, "MARK"], check=True)
""",
}
REST = """
import signal, time, tune
tune.get_next_parameter()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tune.report_intermediate_result(1)
time.sleep(1000)
"""


def marked(mark: str) -> list[int]:
    """The processes that carry a mark in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@pytest.fixture
def mark(bench: Bench) -> Iterator[str]:
    """Digits that nobody else's arguments hold; who carries them is killed at the end."""
    digits = str(10**15 + secrets.randbelow(10**15))
    yield digits
    for _ in range(1000):  # a chain of forks is not hit each time
        for pid in (left := marked(digits)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break


# The ways to end a tree that this machine has.
GROUPS = [way.name for way in control_group.WAYS if not isinstance(control_group.choose(Path("/"), way.name), str)]


def hostile(bench: Bench, mark: str, tree: str, pause: float = 0.02) -> Experiment:
    """An experiment of two such trials, running, their trees complete."""
    source = TREES[tree].replace("MARK", mark).replace("PAUSE", str(pause)) + REST
    experiment = bench.experiment(
        trial_command=bench.script(source), max_trial_number=2, trial_concurrency=2, stop_grace="0.3s"
    )
    experiment.start()
    experiment.until(lambda state: state.metrics == 2)
    for _ in steps(PATIENCE):
        if marked(mark):
            return experiment
    raise AssertionError("unreachable")


def all_gone(mark: str) -> None:
    """Nobody of a tree lives, now or at once."""
    for _ in steps(10.0, lambda: str(marked(mark))):
        if not marked(mark):
            return


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("way", [*GROUPS, control_group.NONE])
def test_a_stop_leaves_nothing_of_a_hostile_tree(
    bench: Bench, mark: str, tree: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(control_group.VARIABLE, way)
    experiment = hostile(bench, mark, tree, pause=0.02 if way == control_group.NONE else 0)
    stopped = bench.tune("stop", experiment.id)
    assert stopped.returncode == 0, stopped.stderr
    state = experiment.finish()
    assert (state.status, state.counts["SYS_CANCELED"]) == ("STOPPED", 2)
    experiment.assert_nothing_left()
    all_gone(mark)


@pytest.mark.parametrize(
    ("way", "tree"), [*((way, tree) for way in GROUPS for tree in TREES), (control_group.NONE, "ignores TERM")]
)
def test_a_new_keeper_leaves_nothing_of_a_hostile_tree(
    bench: Bench, mark: str, tree: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without control groups, a process that has nothing of ours in it is lost with its keeper."""
    monkeypatch.setenv(control_group.VARIABLE, way)
    experiment = hostile(bench, mark, tree, pause=0)
    keeper = experiment.keeper_pid()
    os.kill(keeper, signal.SIGKILL)
    for _ in steps(PATIENCE):
        if experiment.keeper_pid() not in (0, keeper):
            break
    assert bench.tune("stop", experiment.id).returncode == 0
    state = experiment.finish()
    assert (state.status, state.counts["SYS_CANCELED"]) == ("STOPPED", 2)
    experiment.assert_nothing_left()
    all_gone(mark)
    assert not groups_of(experiment)


def groups_of(experiment: Experiment) -> list[Path]:
    """The control groups that are left of an experiment."""
    name = control_group.parent_name(experiment.folder.path.resolve())
    return [path for path in Path("/sys/fs/cgroup").rglob("tune-*") if path.name == name]


def test_a_trial_that_kills_itself_is_failed_with_its_last_words(bench: Bench) -> None:
    command = bench.script(
        "import os, sys, tune\ntune.get_next_parameter()\ntune.report_intermediate_result(1)\n"
        "print('the last word', file=sys.stderr)\nos.kill(os.getpid(), 9)\n"
    )
    experiment = bench.experiment(trial_command=f"exec {command}", max_trial_number=1, max_failures=0)
    trial = experiment.run().trial(0)
    assert (trial.status, trial.exit_code) == ("FAILED", -9), trial
    assert "the last word" in trial.stderr and list(trial.phases[0].intermediate) == [1]


def test_a_trial_without_memory_is_failed_and_says_so(bench: Bench) -> None:
    command = bench.script(
        "import tune\ntune.get_next_parameter()\ntune.report_intermediate_result(1)\nheld = bytearray(1 << 40)\n"
    )
    experiment = bench.experiment(trial_command=f"ulimit -v 1000000; {command}", max_trial_number=1, max_failures=0)
    trial = experiment.run().trial(0)
    assert (trial.status, trial.exit_code) == ("FAILED", 1), trial
    assert "MemoryError" in trial.stderr and list(trial.phases[0].intermediate) == [1]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 1 MiB at `folder`; the test is skipped where none may be mounted."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FULL = """
import errno, os, sys, time, tune
from pathlib import Path
base = Path(sys.argv[1])
def wait(name):
    while not (base / name).exists(): time.sleep(0.01)
tune.get_next_parameter()
big = {"default": 1, "pad": "x" * 9000}
if tune.get_sequence_id() == 0:
    wait("other")
    tune.report_intermediate_result(0)
    try:
        while True: os.write(1, b"x" * 4096)
    except OSError as error:
        said = [error.errno]
    for _ in range(3):
        try: tune.report_intermediate_result(big)
        except OSError as error: said.append(error.errno)
    (base / "said").write_text(repr(said))
    os.ftruncate(1, 0)
    tune.report_intermediate_result(2)
    (base / "free").touch()
elif tune.get_sequence_id() == 1:
    tune.report_intermediate_result(0)
    (base / "other").touch()
    wait("free")
    tune.report_intermediate_result(2)
tune.report_final_result(3)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a tmpfs")
def test_a_full_disk_is_the_report_s_error_and_nobody_else_s(bench: Bench) -> None:
    command = f"{bench.script(FULL)} '{bench.base}'"
    experiment = bench.experiment(trial_command=command, max_trial_number=4, trial_concurrency=2)
    with small_disk(experiment.folder.trials):
        state = experiment.run()
    assert (bench.base / "said").read_text() == repr([errno.ENOSPC] * 4)
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4), (state.status, state.counts, state.reason)
    for trial in state.made:
        assert list(trial.phases[0].intermediate) == ([0, 2] if trial.number < 2 else [])
        assert trial.phases[0].value == 3


def test_a_paused_engine_is_not_doubled_and_goes_on(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=8, sleep=0.05))
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    os.kill(experiment.pid, signal.SIGSTOP)
    try:
        refused = bench.tune("resume", experiment.id)
    finally:
        os.kill(experiment.pid, signal.SIGCONT)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr, refused
    assert experiment.id in refused.stderr and str(experiment.pid) in refused.stderr, refused.stderr
    assert experiment.finish().counts["SUCCEEDED"] == 4
    assert len({row.body.get("pid") for row in experiment.rows() if row.kind == "ENGINE_STARTED"}) <= 1
    experiment.check(4)


def test_a_keeper_that_is_paused_loses_nothing(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=10, sleep=0.05), trial_concurrency=4)
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    keeper = experiment.keeper_pid()
    os.kill(keeper, signal.SIGSTOP)
    try:
        time.sleep(2)  # this is the fault: trials report, and end, meanwhile
    finally:
        os.kill(keeper, signal.SIGCONT)
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4)
    assert [trial.attempt for trial in state.made] == [0] * 4
    experiment.check(4)


NEIGHBOURS = """
import time, tune
tune.get_next_parameter()
if tune.get_sequence_id() == 0:
    end = time.monotonic() + 1.5
    while time.monotonic() < end: tune.report_intermediate_result(0)
else:
    for step in range(20):
        tune.report_intermediate_result(step)
        time.sleep(0.05)
tune.report_final_result(1)
"""


def shout(path: str, done: threading.Event) -> None:
    """Write random bytes at a socket as fast as it takes them, again and again."""
    noise = os.urandom(1 << 20)
    while not done.is_set():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(5)
            caller.connect(path)
            start = secrets.randbelow(1 << 19)
            while not done.is_set():
                caller.sendall(noise[start : start + (1 << 16)])


@pytest.mark.timeout(0)
@pytest.mark.parametrize("neighbours", [int(os.environ.get("TUNE_NEIGHBOURS", "10"))])
def test_a_flood_and_noise_at_wire_speed_cost_the_neighbours_nothing(bench: Bench, neighbours: int) -> None:
    """TUNE_NEIGHBOURS says how many."""
    trials = neighbours + 1
    experiment = bench.experiment(
        trial_command=bench.script(NEIGHBOURS), max_trial_number=trials, trial_concurrency=trials
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    content = lock.peek(experiment.folder.keeper_lock)
    assert content
    done = threading.Event()
    thread = threading.Thread(target=shout, args=(str(content["socket"]), done))
    thread.start()
    try:
        state = experiment.finish(PATIENCE + 5 * neighbours)
    finally:
        done.set()
        thread.join()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", trials), (state.status, state.counts, state.reason)
    for trial in state.made:
        assert trial.phases[0].value == 1
        if trial.number:
            assert list(trial.phases[0].intermediate) == list(range(20))
