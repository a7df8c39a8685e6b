"""Clocks that jump and engines that are suspended: no trial is ended or run again for it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Bench
from writer import can_shim

STEPS = 60
DAY = 86400


def hold(pid: int, seconds: float) -> None:
    """Suspend a process for a while: this is the fault."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.skipif(not can_shim(), reason="needs a C compiler (cc) on Linux")
@pytest.mark.parametrize("jumps", [[400 * DAY, -400 * DAY, 0], [-3600, -9000 * DAY, 3600]], ids=["ahead", "back"])
def test_a_wall_clock_that_jumps_ends_no_trial(bench: Bench, jumps: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine, keeper, tuner host and trials see the jumps at once; their monotonic clock is the true one."""
    library, offset = bench.base / "jump.so", bench.base / "offset"
    source = Path(__file__).with_name("jump.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    offset.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("JUMP", str(offset))
    experiment = bench.experiment(
        trial_command=bench.fake(steps=STEPS, sleep=0.03),
        max_trial_duration="10m",
        max_experiment_duration="1h",
        max_silence="1m",
        engine_lease="1m",
    )
    experiment.start()
    for count, jump in enumerate(jumps, 1):
        experiment.until(lambda state, count=count: state.metrics > 20 * count)
        new = offset.with_suffix(".new")
        new.write_text(str(jump))
        new.replace(offset)
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4), (state.status, state.counts, state.reason)
    assert [trial.attempt for trial in state.made] == [0] * 4
    with contextlib.closing(sqlite3.connect(f"file:{experiment.folder.events}?mode=ro", uri=True)) as log:
        walls = [wall / 1e6 for (wall,) in log.execute("SELECT wall_us FROM event ORDER BY seq")]
    steps = [later - sooner for sooner, later in itertools.pairwise(walls)]
    for before, after in itertools.pairwise([0, *jumps]):
        assert any(abs(step - (after - before)) < 60 for step in steps), "a jump was not seen"
    assert 0 < state.clock / 1e6 < 100, "the run clock has seen a jump"
    monkeypatch.delenv("LD_PRELOAD")
    verified = bench.tune("verify", experiment.id, "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["ok"], verified
    experiment.check(4)


def test_an_engine_that_was_suspended_does_not_take_that_for_silence(bench: Bench) -> None:
    """Its trials reported all the time; it has to read that before it may count again."""
    experiment = bench.experiment(
        trial_command=bench.fake(steps=STEPS, sleep=0.1), max_silence="1.5s", trial_concurrency=4
    )
    pid = experiment.start()
    experiment.until(lambda state: state.metrics > 4)
    for _ in range(2):
        hold(pid, 2.0)
        before = experiment.state().metrics
        experiment.until(lambda state, before=before: state.metrics > before)
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4), (state.status, state.counts, state.reason)
    assert [trial.attempt for trial in state.made] == [0] * 4
    experiment.check(4)


def test_a_trial_s_time_runs_on_while_its_engine_is_suspended(bench: Bench) -> None:
    """max_trial_duration is the time in which the trial ran and an engine was there, suspended or not."""
    experiment = bench.experiment(
        trial_command=bench.script("import time, tune\ntune.report_intermediate_result(1)\ntime.sleep(1000)"),
        max_trial_duration="2s",
        max_trial_number=1,
    )
    pid = experiment.start()
    experiment.until(lambda state: state.metrics == 1)
    hold(pid, 2.5)
    state = experiment.finish()
    trial = state.trial(0)
    assert (trial.status, trial.attempt) == ("EARLY_STOPPED", 0) and "2s" in trial.reason, trial
    assert len(experiment.facts("KILL")) == 1
