"""Every named crash point (trial_sdk/crash_point.py): die there, go on without it, and nothing is lost or doubled.

The points are found in that file's own table, so a new one is tested unasked. TUNE_CRASHES=N tries N // 15 passings of
each point (12 at most) instead of the first alone; one that a whole experiment does not reach then counts for nothing.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Bench, Experiment, gone, steps

from tune.engine import client
from tune.engine.errors import TuneError
from tune.engine.requests import AskKill
from tune.engine.verify import verify
from tune.trial_sdk import crash_point

sys.path.insert(0, str(Path(__file__).parent))

from test_kill import adopted, running

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("trial_sdk", "engine", "tuners", "training_services", "cli")
TABLE = re.findall(r"^    (\w+\.\w+) {2,}\S", crash_point.__doc__ or "", re.MULTILINE)
PASSINGS = min(max(1, int(os.environ.get("TUNE_CRASHES", "15")) // 15), 12)
TRIALS = 4


def test_the_table_names_every_point_once() -> None:
    calls = [
        name
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r'\bpoint\("([\w.]+)"\)', path.read_text())
    ]
    assert len(TABLE) == len(set(TABLE)) >= 14
    assert set(calls) == set(TABLE)


def test_off_it_is_free() -> None:
    assert crash_point.point is crash_point._nowhere
    assert crash_point._nowhere.__code__.co_names == ()


@pytest.mark.parametrize(("at", "passings"), [("a.b", 1), ("a.b:3", 3)])
def test_armed_it_kills_at_the_passing_that_is_named(at: str, passings: int) -> None:
    code = "from tune.trial_sdk.crash_point import point\n"
    code += "for n in range(9): point('a.c'); print(n, flush=True); point('a.b')"
    environment = {**os.environ, crash_point.VARIABLE: at}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [str(n) for n in range(passings)]
    assert done.stderr.startswith("crash point a.b: pid ")


def test_a_passing_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="x"):
        crash_point.armed("a.b:x")


def test_no_trial_inherits_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crash_point.VARIABLE, "nowhere.at_all")
    command = bench.script("import os, tune; tune.report_final_result(float('TUNE_CRASH_AT' in os.environ))")
    experiment = bench.experiment(trial_command=command, max_trial_number=1)
    assert experiment.run().status == "DONE"
    assert [row.body["value"] for row in experiment.facts("METRIC")] == [0]
    assert crash_point.VARIABLE in client.clean_environment()


def deaths(experiment: Experiment, name: str) -> list[int]:
    """The pids of those who said that they die at this point."""
    folder = experiment.folder.path
    files = [experiment.folder.engine_log, folder / "keeper.log", *folder.glob("trials/*/*/stderr")]
    said = "".join(path.read_text() for path in files if path.exists())
    return [int(pid) for pid in re.findall(rf"^crash point {re.escape(name)}: pid (\d+)", said, re.MULTILINE)]


def engine_of(experiment: Experiment) -> subprocess.Popen[bytes]:
    """The process of an engine that was started here (`gone` would take its exit code away)."""
    return next(engine for engine in client._running if engine.pid == experiment.pid)


def ended(experiment: Experiment, **counts: int) -> None:
    """DONE, with so many trials of each status, and everything holds."""
    state = experiment.finish()
    assert state.status == "DONE", (state.status, state.reason)
    assert {status: state.counts[status] for status in counts} == counts
    experiment.check(TRIALS)
    result = verify(experiment.folder.events)
    assert result.ok and not result.reason, result
    experiment.assert_nothing_left()


@pytest.mark.parametrize("passing", range(1, PASSINGS + 1))
@pytest.mark.parametrize("name", TABLE)
def test_killed_at(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, passing: int) -> None:
    at, room = f"{name}:{passing}", name.partition(".")[0]
    command = bench.fake(steps=3, sleep=0.02)
    if room == "trial":  # the first attempt of each trial dies
        command = f'if [ "$TUNE_ATTEMPT" = 0 ]; then export {crash_point.VARIABLE}={at}; fi; {command}'
    stopped = name == "keeper.termed"
    if stopped:  # trial 1 runs until somebody ends it
        command = f'if [ "$TUNE_TRIAL_NUMBER" = 1 ]; then exec sleep 600; fi; {command}'
    experiment = bench.experiment(trial_command=command, max_trial_number=TRIALS, max_retries=1)
    if room == "resume":
        experiment.start()
        experiment.until(lambda state: state.metrics > 0)
        experiment.kill_engine()
    if room != "trial":
        monkeypatch.setenv(crash_point.VARIABLE, at)
    before: dict[tuple[int, int], int] = {}
    early = False
    try:
        experiment.start()
    except TuneError as error:
        assert "-9" in error.message, error
        early = True
    monkeypatch.delenv(crash_point.VARIABLE, raising=False)
    if stopped:
        experiment.until(lambda state: any(trial.number == 1 and trial.status == "RUNNING" for trial in state.made))
        experiment.ask(AskKill("test", 1))
    if not early:
        for _ in steps(60, lambda: f"{name} is not reached: {experiment._told()}"):
            if deaths(experiment, name) or engine_of(experiment).poll() is not None:
                break
    dead = deaths(experiment, name)
    if not dead and passing > 1:
        ended(experiment)
        return
    assert dead, f"{name} was not reached"
    if room == "keeper":  # the engine would start one armed keeper after the other
        experiment.kill_engine()
    elif room != "trial" and not early:
        assert engine_of(experiment).wait() == -signal.SIGKILL
    assert all(gone(pid) for pid in dead)
    if room != "trial":
        if not early:
            before = running(experiment)
        experiment.start()
    if stopped:
        ended(experiment, SUCCEEDED=TRIALS - 1, USER_CANCELED=1)
    elif room == "trial":  # they die with their final in the spool: it counts, and there is nothing to try again
        ended(experiment, FAILED=TRIALS)
        assert sum(row.body.get("final", False) for row in experiment.facts("METRIC")) == TRIALS
    else:
        ended(experiment, SUCCEEDED=TRIALS)
    adopted(experiment, before)
