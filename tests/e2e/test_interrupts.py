"""Ctrl-C, TERM, HUP and kill -9 of those who follow, at every moment: no orphan, no lock, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import PATIENCE, Bench, Experiment, gone, steps

MOMENTS = [step / 10 for step in range(16)]


def awake(process: subprocess.Popen[str]) -> None:
    """Wait until the program itself, and no longer the interpreter's start, takes signals: it catches TERM."""
    for _ in steps(PATIENCE):
        text = Path(f"/proc/{process.pid}/status").read_text()
        caught = next((line.split()[1] for line in text.splitlines() if line.startswith("SigCgt")), "0")
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1 or process.poll() is not None:
            return


def only(bench: Bench) -> Experiment:
    """The one experiment in the home, once it is there."""
    for _ in steps(PATIENCE):
        found = [one for one in bench.find_all() if one.folder.head.exists()]
        if found:
            return found[0]
    raise AssertionError("unreachable")


def ended_by_interrupt(bench: Bench, process: subprocess.Popen[str], *, witnessed: bool = True) -> None:
    """130, quiet, and nothing is left: no process of it, no lock; the folder is either gone or STOPPED."""
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in out + err, err
    assert process.returncode == 130, (process.returncode, out, err)
    for experiment in bench.find_all():
        trials = [line for line in experiment.processes().values() if "fake_trial" in line]
        assert not trials, trials
        experiment.assert_nothing_left()
        assert experiment.state().status == "STOPPED"
        if witnessed:
            experiment.check(complete=False)


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_while_create_follows(bench: Bench, moment: float) -> None:
    config = bench.config_file(trial_command=bench.fake(steps=400, sleep=0.05))
    process = bench.spawn("create", config)
    awake(process)
    time.sleep(moment)
    process.send_signal(signal.SIGINT if round(moment * 10) % 2 else signal.SIGTERM)
    ended_by_interrupt(bench, process)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 0.9])
def test_ctrl_c_while_resume_follows_and_then_it_goes_on(bench: Bench, moment: float) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=80, sleep=0.05), max_trial_number=2)
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    experiment.kill_engine()
    process = bench.spawn("resume", experiment.id)
    awake(process)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in out + err, err
    assert process.returncode == 130, (process.returncode, out, err)
    assert not experiment.state().engine_pid or experiment.state().status != "STOPPED"
    result = bench.tune("resume", experiment.id)
    assert result.returncode == 0, result.stderr
    experiment.check(2)
    experiment.assert_nothing_left()


@pytest.mark.parametrize("moment", [0.0, 0.4, 0.8, 1.2])
def test_ctrl_c_in_the_foreground(bench: Bench, moment: float) -> None:
    config = bench.config_file(trial_command=bench.fake(steps=400, sleep=0.05))
    process = bench.spawn("create", config, "--foreground")
    awake(process)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    ended_by_interrupt(bench, process)


def test_ctrl_c_before_the_program_has_begun_leaves_nothing(bench: Bench) -> None:
    """What the interpreter itself says then is not ours; what it leaves would be."""
    config = bench.config_file()
    for moment in (0.0, 0.01, 0.03):
        process = bench.spawn("create", config)
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        for experiment in bench.find_all():
            experiment.assert_nothing_left()


def test_a_second_ctrl_c_kills_at_once(bench: Bench) -> None:
    command = bench.script(
        "import signal, time, tune\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "tune.get_next_parameter()\ntune.report_intermediate_result(1)\ntime.sleep(600)\n"
    )
    process = bench.spawn("create", bench.config_file(trial_command=command, stop_grace="10m"))
    experiment = only(bench)
    experiment.until(lambda state: state.metrics == 2)
    process.send_signal(signal.SIGINT)
    experiment.until(lambda state: state.status == "STOPPING")
    process.send_signal(signal.SIGINT)
    ended_by_interrupt(bench, process, witnessed=False)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_the_death_of_the_follower_does_not_touch_the_engine(bench: Bench, number: int) -> None:
    process = bench.spawn("create", bench.config_file(trial_command=bench.fake(steps=10, sleep=0.05)))
    experiment = only(bench)
    experiment.until(lambda state: state.metrics > 0)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    state = experiment.until(lambda state: state.status == "DONE")
    assert state.counts["SUCCEEDED"] == 4
    experiment.assert_nothing_left()
    experiment.check(4)


def test_stop_while_create_starts(bench: Bench) -> None:
    for _ in range(3):
        process = bench.spawn("create", "--id", "early", bench.config_file(trial_command=bench.fake(steps=400)))
        for _ in steps(PATIENCE):
            if (bench.home / "early" / "events.head").exists():
                break
        stop = bench.tune("stop", "early")
        assert "Traceback" not in stop.stderr and stop.returncode == 0, stop.stderr
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1 and "Traceback" not in err, (process.returncode, out, err)
        (experiment,) = bench.find_all()
        experiment.assert_nothing_left()
        assert experiment.state().status == "STOPPED"
        assert bench.tune("delete", "early", "--yes").returncode == 0
        bench.made.clear()


# -- exit codes and what stands on stdout -----------------------------------------------------------------------------
def test_create_prints_id_lines_and_the_best(bench: Bench) -> None:
    result = bench.tune("create", bench.config_file(trial_command=bench.fake(steps=1)))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    (experiment,) = bench.find_all()
    assert lines[0] == f"Experiment ID: {experiment.id}"
    assert len(lines) == 6 and lines[-1].startswith("DONE best "), lines
    best = experiment.state().best
    assert best is not None and f" trial {best.trial} " in lines[-1]


def test_create_json_is_json_only(bench: Bench) -> None:
    result = bench.tune("create", bench.config_file(trial_command=bench.fake(steps=0)), "--json")
    status = json.loads(result.stdout)
    assert (result.returncode, status["status"], status["engine_pid"]) == (0, "DONE", None)
    assert status["counts"]["SUCCEEDED"] == 4 and status["max_trial_number"] == 4


def test_exit_1_when_all_failed_when_paused_and_when_the_engine_dies(bench: Bench) -> None:
    config = bench.config_file(trial_command="exit 3", max_failures=0)
    assert bench.tune("create", config).returncode == 1
    config = bench.config_file(trial_command="exit 3")
    result = bench.tune("create", config)
    assert result.returncode == 1 and "PAUSED" in result.stdout, result
    process = bench.spawn("create", "--id", "dies", bench.config_file(trial_command=bench.fake(steps=100)))
    experiment = next(one for _ in steps(PATIENCE) for one in bench.find_all() if one.id == "dies")
    for _ in steps(PATIENCE):
        if experiment.folder.head.exists() and (state := experiment.state()).metrics:
            break
    os.kill(state.engine_pid, signal.SIGKILL)
    assert gone(state.engine_pid)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "resume" in err and "Traceback" not in err, err
    status = json.loads(bench.tune("status", "dies", "--json").stdout)
    assert (status["status"], status["engine_pid"]) == ("RUNNING", None)
    assert bench.tune("stop", "dies").returncode == 0


def test_resume_of_a_done_one_prints_the_result(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=0), max_trial_number=2)
    experiment.run()
    facts = len(experiment.rows())
    result = bench.tune("resume", experiment.id)
    assert result.returncode == 0 and "DONE best " in result.stdout, result
    assert len(experiment.rows()) == facts
    result = bench.tune("resume", experiment.id, "--max-trials", 4)
    assert result.returncode == 0, result.stderr
    assert experiment.state().counts["SUCCEEDED"] == 4
    experiment.check(4)


def test_a_refused_create_leaves_nothing(bench: Bench) -> None:
    for wrong in ({"tuner": {"name": "Nobody"}}, {"trial_concurrency": 0}, {"trial_code_directory": "/no/such"}):
        result = bench.tune("create", bench.config_file(**wrong))
        assert result.returncode == 2 and "Traceback" not in result.stderr, result
        assert not bench.home.exists() or not list(bench.home.iterdir())
    assert bench.tune("create", "--id", "-x", bench.config_file()).returncode == 2
    assert bench.tune("create", bench.base / "missing.toml").returncode == 2


def test_delete_of_a_running_one_and_a_taken_id_are_refused(bench: Bench) -> None:
    config = bench.config_file(trial_command=bench.fake(steps=400, sleep=0.05))
    assert bench.tune("create", "--id", "mine", "--detach", config).returncode == 0
    taken = bench.tune("create", "--id", "mine", config)
    assert taken.returncode == 2 and "mine" in taken.stderr
    assert bench.tune("delete", "mine", "--yes").returncode in (1, 2)
    assert (bench.home / "mine" / "events.db").exists()
    assert bench.tune("stop", "mine").returncode == 0


def test_create_follow_of_a_stop_by_somebody_else_is_1(bench: Bench) -> None:
    process = bench.spawn("create", bench.config_file(trial_command=bench.fake(steps=400, sleep=0.05)))
    experiment = only(bench)
    experiment.until(lambda state: state.metrics > 0)
    assert bench.tune("stop").returncode == 0  # the only running one
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "STOPPED" in out, (out, err)
