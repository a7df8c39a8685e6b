"""create, resume, stop, view and delete as a person or a script uses them, on whole experiments."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, Bench, Experiment, steps

from tune.engine.errors import TuneError

LONG = {"steps": 400, "sleep": 0.05}


def made(bench: Bench, out: str) -> Experiment:
    """The experiment whose id is the first line of what create or resume said."""
    first = out.splitlines()[0]
    assert first.startswith("Experiment ID: "), out
    name = first.removeprefix("Experiment ID: ")
    return next(one for one in bench.find_all() if one.id == name)


def first_line(process: subprocess.Popen[str]) -> str:
    """The first line of a follower, as soon as it is there."""
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, and the rest of what it said."""
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def until_reported(experiment: Experiment, count: int) -> None:
    """Wait until the log, which may not be there yet, holds so many results."""
    for _ in steps(PATIENCE):
        with contextlib.suppress(TuneError):
            if experiment.state().metrics == count:
                return


# -- create -----------------------------------------------------------------------------------------------------------
def test_create_in_a_pipe(bench: Bench) -> None:
    done = bench.tune("create", bench.config_file(), "--id", "digits")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    experiment = made(bench, done.stdout)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and experiment.id == "digits"
    state = experiment.state()
    assert state.best is not None
    word, best, value, trial, number, parameters = lines[-1].split(" ", 5)
    assert (word, best, float(value), trial, int(number)) == (
        "DONE",
        "best",
        state.best.value,
        "trial",
        state.best.trial,
    )
    assert json.loads(parameters) == json.loads(bytes(state.trial(state.best.trial).phases[0].parameters))
    assert sorted(int(line.split()[1]) for line in lines[1:-1]) == [0, 1, 2, 3]
    assert experiment.folder.path.stat().st_mode & 0o777 == 0o700
    assert json.loads(experiment.folder.config.read_text())["max_trial_number"] == 4
    experiment.check(4)
    again = bench.tune("create", bench.config_file(), "--id", "digits")
    assert again.returncode == 2 and "taken" in again.stderr and again.stdout == ""
    result = bench.tune("resume", "digits")
    assert result.returncode == 0 and result.stdout.splitlines()[1:] == lines[-1:]


def test_create_with_json_prints_the_status_object_only(bench: Bench) -> None:
    done = bench.tune("create", "--config", bench.config_file(max_trial_number=1), "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert (status["status"], status["engine_pid"], status["counts"]["SUCCEEDED"]) == ("DONE", None, 1)
    assert f"Experiment ID: {status['id']}" in done.stderr


def test_create_detached(bench: Bench) -> None:
    done = bench.tune("create", bench.config_file(trial_command=bench.fake(**LONG)), "--detach", "--json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["status"] == "RUNNING" and status["engine_pid"]
    assert bench.tune("delete", status["id"], "--yes").returncode == 1
    seen = bench.tune("view", status["id"])
    assert seen.returncode == 0 and "RUNNING" in seen.stdout
    assert bench.tune("stop").returncode == 0
    assert bench.tune("stop").returncode == 2  # none runs
    assert bench.tune("stop", status["id"]).stdout == f"experiment {status['id']} has already ended: STOPPED\n"
    assert bench.tune("delete", status["id"], "--yes").returncode == 0
    assert list(bench.home.iterdir()) == []


def test_create_in_the_foreground(bench: Bench) -> None:
    done = bench.tune("create", bench.config_file(), "--foreground")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len(done.stdout.splitlines()) == 6 and done.stdout.splitlines()[-1].startswith("DONE best ")
    experiment = made(bench, done.stdout)
    assert all(json.loads(line)["event"] for line in experiment.folder.engine_log.read_text().splitlines())
    resumed = bench.tune("resume", experiment.id, "--foreground", "--max-trials", 6)
    assert resumed.returncode == 0, resumed.stderr
    assert len(resumed.stdout.splitlines()) == 4  # the id, two trials, the result
    experiment.check(6)


@pytest.mark.parametrize("where", [(), ("--foreground",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_a_stop(where: tuple[str, ...], number: int, bench: Bench) -> None:
    process = bench.spawn("create", bench.config_file(trial_command=bench.fake(**LONG)), *where)
    experiment = made(bench, first_line(process))
    for _ in steps(PATIENCE):
        if bench.witness.exists():
            break
    process.send_signal(number)
    code, out, _ = ended(process)
    assert code == 130 and out.splitlines()[-1] == "STOPPED no result", out
    assert experiment.state().status == "STOPPED"
    experiment.assert_nothing_left()


def test_a_second_interrupt_spares_the_grace(bench: Bench) -> None:
    command = bench.script(
        "import signal, time, tune, pathlib\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "tune.get_next_parameter()\npathlib.Path('here').touch()\ntime.sleep(600)\n"
    )
    path = bench.config_file(trial_command=command, stop_grace="10m", max_trial_number=1)
    process = bench.spawn("create", path)
    experiment = made(bench, first_line(process))
    for _ in steps(PATIENCE):
        if (bench.code / "here").exists():
            break
    process.send_signal(signal.SIGINT)
    experiment.until(lambda state: state.status == "STOPPING")
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130 and out.endswith("STOPPED no result\n") and "10m to end" in err


@pytest.mark.parametrize("where", [(), ("--foreground",), ("--detach",)])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(where: tuple[str, ...], bench: Bench) -> None:
    path = bench.config_file(trial_command=bench.fake(**LONG))
    for moment in range(8):
        process = bench.spawn("create", path, *where)
        if moment > 1:
            first_line(process)
            time.sleep(0.06 * (moment - 2))
        else:
            time.sleep(0.1 * moment + 0.1)
        number = signal.SIGINT if moment % 2 else signal.SIGTERM
        process.send_signal(number)
        code, _, _ = ended(process)
        for experiment in bench.find_all():
            if not experiment.folder.path.exists():
                continue
            state = experiment.state()
            if where == ("--detach",) and not state.finished:
                assert code == 0
                assert bench.tune("stop", experiment.id).returncode == 0
                state = experiment.state()
            assert state.status == "STOPPED", (code, state.status)
            experiment.assert_nothing_left()
            shutil.rmtree(experiment.folder.path)
        assert code == 130 or (code == 0 and where == ("--detach",)) or (code == -number and moment < 2), (code, moment)


def test_a_follower_that_dies_does_not_touch_the_engine(bench: Bench) -> None:
    hold = bench.base / "go"
    for number in (signal.SIGHUP, signal.SIGKILL):
        hold.unlink(missing_ok=True)
        path = bench.config_file(trial_command=bench.fake(hold=str(hold), steps=1), max_trial_number=2)
        process = bench.spawn("create", path)
        experiment = made(bench, first_line(process))
        until_reported(experiment, 2)
        process.send_signal(number)
        assert ended(process)[0] == -number
        hold.touch()
        state = experiment.until(lambda state: state.status == "DONE")
        assert state.counts["SUCCEEDED"] == 2
        experiment.assert_nothing_left()


def test_an_engine_that_dies_is_said_and_resume_goes_on(bench: Bench) -> None:
    hold = bench.base / "go"
    path = bench.config_file(trial_command=bench.fake(hold=str(hold), steps=1), max_trial_number=2)
    process = bench.spawn("create", path)
    experiment = made(bench, first_line(process))
    until_reported(experiment, 2)
    status = json.loads(bench.tune("status", experiment.id, "--json").stdout)
    os.kill(status["engine_pid"], signal.SIGKILL)
    code, _, err = ended(process)
    assert code == 1 and "the engine died" in err and f"tune resume {experiment.id}" in err
    assert "no engine runs" in bench.tune("view", experiment.id).stdout
    hold.touch()
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    done = bench.tune("resume", experiment.id)
    assert done.returncode == 0, done.stderr
    assert "has changed since create" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("DONE best ") and len(done.stdout.splitlines()) == 4
    experiment.check(2)


def test_a_start_that_fails_leaves_nothing(bench: Bench) -> None:
    def no_room_for_a_log() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    for where in ((), ("--foreground",)):
        done = bench.tune("create", bench.config_file(), *where, preexec_fn=no_room_for_a_log)
        assert done.returncode == 1 and "error: the engine can't start" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert list(bench.home.iterdir()) == []


def test_all_trials_failed_is_exit_1_with_the_reason(bench: Bench) -> None:
    command = bench.script("import sys\nsys.exit('no luck\\x1b[2J today')\n")
    done = bench.tune("create", bench.config_file(trial_command=command, max_failures=0, max_trial_number=2))
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "DONE no result"
    assert "no luck" in done.stderr and "\x1b" not in done.stderr + done.stdout
    done = bench.tune("create", bench.config_file(trial_command=command))
    assert done.returncode == 1  # two run at a time: the fourth may have ended in the same moment as the third
    assert re.match(r"PAUSED: the first [34] trials all failed", done.stdout.splitlines()[-1])
    assert "no luck" in done.stderr


# -- in a terminal ----------------------------------------------------------------------------------------------------
def in_terminal(bench: Bench, *arguments: object, keys: bytes = b"", when: bytes = b"") -> tuple[int, str]:
    """Run a verb in a terminal, and press keys as soon as a text was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.base)
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        os.execve(sys.executable, [sys.executable, "-m", "tune.cli", *map(str, arguments)], environment)
    shown, pressed = b"", False
    try:
        while select.select([terminal], [], [], PATIENCE)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Linux says so when the last process has left the terminal
                break
            shown += data
            if keys and not pressed and when in shown:
                os.write(terminal, keys)
                pressed = True
    finally:
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_live_view(bench: Bench) -> None:
    code, shown = in_terminal(bench, "create", bench.config_file())
    assert code == 0
    assert shown.startswith("Experiment ID: ") and "4 of 4: 4 done, 0 running, 0 failed" in shown
    assert "DONE best " in shown.splitlines()[-1]
    code, shown = in_terminal(
        bench, "create", bench.config_file(trial_command=bench.fake(**LONG)), keys=b"\x03", when=b"2 running"
    )
    assert code == 130 and "STOPPED no result" in shown and "Traceback" not in shown


# -- resume, view -----------------------------------------------------------------------------------------------------
def test_resume_of_a_damaged_log_points_to_verify(bench: Bench) -> None:
    done = bench.tune("create", bench.config_file(max_trial_number=1))
    experiment = made(bench, done.stdout)
    raw = bytearray(experiment.folder.events.read_bytes())
    at = raw.find(b'"seed":7')
    raw[at + 7] = ord("8")
    experiment.folder.events.write_bytes(raw)
    for suffix in ("-wal", "-shm"):
        experiment.folder.events.with_name(f"events.db{suffix}").unlink(missing_ok=True)
    for verb in ("resume", "view"):
        done = bench.tune(verb, experiment.id)
        assert done.returncode == 1 and f"tune verify {experiment.id}" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    shutil.rmtree(experiment.folder.path)
    bench.made.remove(experiment)


def test_resume_of_a_done_one_goes_on_when_a_limit_is_raised(bench: Bench) -> None:
    done = bench.tune("create", bench.config_file(max_trial_number=2))
    experiment = made(bench, done.stdout)
    for arguments in (("--max-trials", 2), ("--concurrency", 3), ("--duration", "2h")):
        again = bench.tune("resume", experiment.id, *arguments)
        assert again.returncode == 0 and len(again.stdout.splitlines()) == 2, again.stdout
    assert bench.tune("update", experiment.id, "--max-trials", 3).returncode == 0
    again = bench.tune("resume", experiment.id)
    assert again.returncode == 0 and len(again.stdout.splitlines()) == 3, again.stdout
    again = bench.tune("resume", experiment.id, "--max-trials", 5, "--json")
    assert json.loads(again.stdout)["counts"]["SUCCEEDED"] == 5
    experiment.check(5)


def test_view_reads_a_copy_of_the_log_alone(bench: Bench, tmp_path: Path) -> None:
    done = bench.tune("create", bench.config_file(max_trial_number=2))
    experiment = made(bench, done.stdout)
    alone = tmp_path / "copy"
    alone.mkdir()
    shutil.copy(experiment.folder.events, alone)
    (alone / "events.db").chmod(0o400)
    alone.chmod(0o500)
    try:
        seen: Any = json.loads(bench.tune("view", alone / "events.db", "--json").stdout)
        shown = bench.tune("view", alone / "events.db")
    finally:
        alone.chmod(0o700)
    assert (seen["id"], seen["status"], seen["counts"]["SUCCEEDED"]) == (experiment.id, "DONE", 2)
    assert shown.returncode == 0 and shown.stdout.startswith("VIEWED") and "2 of 2: 2 SUCCEEDED" in shown.stdout


def test_hello_runs(bench: Bench) -> None:
    folder = bench.base / "first"
    assert bench.tune("hello", folder).returncode == 0
    config = (folder / "config.toml").read_text().replace("max_trial_number = 12", "max_trial_number = 2")
    (folder / "config.toml").write_text(config)
    done = bench.tune("create", "config.toml", cwd=folder)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("DONE best "), done.stderr
