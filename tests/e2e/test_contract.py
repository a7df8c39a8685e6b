"""What contract.md says of stops, resumes, limits and ends, on whole experiments under faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import checker
import pytest
from harness import PATIENCE, Bench, gone, limits, steps

from tune.engine.errors import TuneError
from tune.engine.requests import AskKill, AskStop

LONG = {"steps": 400, "sleep": 0.05}


# -- stop -------------------------------------------------------------------------------------------------------------
def test_stop_then_resume_gives_the_same_trials_another_attempt(bench: Bench) -> None:
    hold = bench.base / "go"
    experiment = bench.experiment(trial_command=bench.fake(hold=str(hold), steps=1), max_trial_number=3)
    experiment.start()
    before = experiment.until(lambda state: state.metrics == 2)
    result = bench.tune("stop", experiment.id)
    assert result.returncode == 0, result.stderr
    assert not [line for line in experiment.processes().values() if "fake_trial" in line]
    state = experiment.finish()
    assert state.status == "STOPPED" and state.counts["SYS_CANCELED"] == 2, (state.status, state.counts)
    ids, told = [trial.id for trial in before.made], checker.parameters(experiment.rows())
    hold.touch()
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 3), (state.reason, state.counts)
    assert [trial.id for trial in state.made][:2] == ids
    assert [trial.attempt for trial in state.made] == [1, 1, 0]
    after = checker.parameters(experiment.rows())
    assert all(after[key] == value for key, value in told.items())
    experiment.check(3)


def test_stop_twice_and_of_an_ended_one(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(**LONG))
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 2)
    first = bench.spawn("stop", experiment.id)
    second = bench.spawn("stop", experiment.id)
    for process in (first, second):
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, (out, err)
        assert "Traceback" not in err
    experiment.assert_nothing_left()
    third = bench.tune("stop", experiment.id)
    assert third.returncode == 0 and experiment.id in third.stdout + third.stderr
    assert experiment.state().status == "STOPPED"


def test_a_second_stop_kills_at_once(bench: Bench) -> None:
    command = bench.script(
        "import signal, time, tune\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "tune.get_next_parameter()\ntune.report_intermediate_result(1)\ntime.sleep(600)\n"
    )
    experiment = bench.experiment(trial_command=command, stop_grace="10m", max_trial_number=2)
    experiment.start()
    experiment.until(lambda state: state.metrics == 2)
    experiment.ask(AskStop("somebody"))
    experiment.until(lambda state: state.status == "STOPPING")
    experiment.ask(AskStop("somebody", force=True))
    state = experiment.finish()
    assert state.status == "STOPPED"
    assert {trial.exit_code for trial in state.made} <= {-9, -15}  # the shell dies of TERM, its child of KILL


def test_stop_during_the_start(bench: Bench) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        experiment = bench.experiment(trial_command=bench.fake(**LONG))
        experiment.start()
        os.kill(experiment.pid, number)  # TERM to the engine is a stop
        state = experiment.finish()
        assert state.status == "STOPPED" and not state.counts["RUNNING"], state.counts
        experiment.assert_nothing_left()


def test_stop_when_the_engine_is_dead_ends_what_still_runs(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(**LONG))
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    experiment.kill_engine()
    assert any("fake_trial" in line for line in experiment.processes().values())
    result = bench.tune("stop", experiment.id)
    assert result.returncode == 0, result.stderr
    experiment.assert_nothing_left()
    assert experiment.state().status == "STOPPED"


# -- resume -----------------------------------------------------------------------------------------------------------
def test_resume_twice_is_refused_and_names_the_first(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(**LONG))
    experiment.start()
    with pytest.raises(TuneError, match=f"pid {experiment.pid}"):
        experiment.start()
    result = bench.tune("resume", experiment.id, "--detach")
    assert result.returncode == 1 and str(experiment.pid) in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    bench.tune("stop", experiment.id)


def test_two_resumes_at_the_same_moment_give_one_engine(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=10, sleep=0.05))
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    experiment.kill_engine()
    racers = [bench.spawn("resume", experiment.id, "--detach") for _ in range(4)]
    codes = []
    for racer in racers:
        _, err = racer.communicate(timeout=PATIENCE)
        assert "Traceback" not in err, err
        codes.append(racer.returncode)
    assert sorted(codes) == [0, 1, 1, 1]
    experiment.until(lambda state: state.status == "DONE")
    experiment.assert_nothing_left()
    experiment.check(4)


def test_a_paused_engine_that_wakes_after_a_takeover_cannot_write(bench: Bench) -> None:
    """The lock is a flock, so this needs the lock file to be taken away: the epoch in the log is the belt."""
    experiment = bench.experiment(trial_command=bench.fake(steps=30, sleep=0.05), max_trial_number=2)
    first = experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    os.kill(first, signal.SIGSTOP)
    experiment.folder.lock.unlink()
    second = experiment.start()
    experiment.until(lambda state: state.epoch == 2)
    os.kill(first, signal.SIGCONT)
    assert gone(first)
    experiment.pid = second
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 2)
    experiment.check(2)


def test_running_trials_are_adopted_with_their_pid(bench: Bench) -> None:
    hold = bench.base / "go"
    experiment = bench.experiment(
        trial_command=bench.fake(hold=str(hold), steps=3), trial_concurrency=4, max_trial_number=4
    )
    experiment.start()
    experiment.until(lambda state: state.metrics == 12)
    for _ in range(2):
        experiment.kill_engine()
        before = {trial.number: (trial.pid, trial.attempt) for trial in experiment.state().made}
        experiment.start()
        hosts = len(experiment.facts("HOST"))
        state = experiment.until(lambda state: len(state.hosts) and state.hosts["local"].connected)
        assert {trial.number: (trial.pid, trial.attempt) for trial in state.made} == before, hosts
        assert state.counts["RUNNING"] == 4
    hold.touch()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4)
    experiment.check(4)


def test_what_ended_while_the_engine_was_dead_is_seen(bench: Bench) -> None:
    hold = bench.base / "go"
    experiment = bench.experiment(
        trial_command=bench.fake(hold=str(hold), steps=2, exit=5), max_trial_number=2, max_failures=0
    )
    experiment.start()
    experiment.until(lambda state: state.metrics == 4)
    experiment.kill_engine()
    hold.touch()
    for _ in steps(PATIENCE):
        if not any("fake_trial" in line for line in experiment.processes().values()):
            break
    experiment.start()
    state = experiment.finish()
    assert [(trial.status, trial.exit_code) for trial in state.made] == [("FAILED", 5)] * 2
    assert all(trial.phases[0].value is not None for trial in state.made)
    experiment.check(2)


ENDS = {0: "sys.exit(0)", 1: "sys.exit(7)", 2: "os.kill(os.getpid(), 9)", 3: "os.abort()", 4: "raise ValueError('é')"}
LAST_WORDS = """
import os, sys, time, tune
tune.get_next_parameter()
number = tune.get_sequence_id()
print("begin", number, flush=True)
tune.report_intermediate_result(number)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
print("out", number, "x" * 5000, "the end", flush=True)
print("err", number, "y" * 50, flush=True, file=sys.stderr)
exec(ENDS[number])
"""


@pytest.mark.parametrize("absent", ["engine", "engine and keeper", "keeper"])
def test_exit_codes_and_last_output_are_exact_over_an_adoption(bench: Bench, absent: str) -> None:
    """The trials end while nobody is there to see it."""
    go = bench.base / "go"
    command = bench.script(LAST_WORDS.replace("ENDS", repr(ENDS)))
    experiment = bench.experiment(
        trial_command=f"exec {command} {go}", trial_concurrency=5, max_trial_number=5, max_failures=0
    )
    experiment.start()
    experiment.until(lambda state: state.metrics == 5)
    keeper = experiment.keeper_pid()
    if "engine" in absent:
        experiment.kill_engine()
    if "keeper" in absent:
        os.kill(keeper, signal.SIGKILL)
        gone(keeper)
    go.touch()
    for _ in steps(PATIENCE):
        if not any("trial.py" in line for line in experiment.processes().values()):
            break
    if "engine" in absent:
        experiment.start()
    state = experiment.finish()
    assert [(trial.number, trial.exit_code, trial.attempt) for trial in state.made] == [
        (0, 0, 0), (1, 7, 0), (2, -9, 0), (3, -6, 0), (4, 1, 0),
    ]  # fmt: skip
    for trial in state.made:
        folder = experiment.folder.trials / trial.id
        assert (folder / "stdout").read_text() == f"begin {trial.number}\nout {trial.number} {'x' * 5000} the end\n"
        err = (folder / "stderr").read_text()
        assert err.startswith(f"err {trial.number} {'y' * 50}\n") and ("ValueError: é" in err) == (trial.number == 4)
        if trial.number:
            assert trial.stderr.strip() == err.strip()
        assert [list(phase.intermediate) for phase in trial.phases] == [[trial.number]]


# -- ends and limits --------------------------------------------------------------------------------------------------
def test_max_retries_gives_failed_trials_another_attempt(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.fake(final=False, exit=3), max_retries=2, max_trial_number=2, max_failures=0
    )
    state = experiment.run()
    assert [(trial.status, trial.attempt, trial.exit_code) for trial in state.made] == [("FAILED", 2, 3)] * 2
    experiment.check(2)


def test_a_retry_that_succeeds_counts(bench: Bench) -> None:
    command = bench.script(
        "import os, sys, tune\np = tune.get_next_parameter()\n"
        "if os.environ['TUNE_ATTEMPT'] == '0': sys.exit('not this time')\ntune.report_final_result(p['x'])\n"
    )
    state = bench.experiment(trial_command=command, max_retries=1, max_trial_number=2).run()
    assert [(trial.status, trial.attempt) for trial in state.made] == [("SUCCEEDED", 1)] * 2


def test_a_failed_trial_keeps_code_and_stderr(bench: Bench) -> None:
    command = bench.script("import sys\nsys.exit('this is why')\n")
    experiment = bench.experiment(trial_command=command, max_trial_number=1)
    state = experiment.run()
    trial = state.trial(0)
    assert (trial.status, trial.exit_code) == ("FAILED", 1) and "this is why" in trial.stderr
    (shown,) = json.loads(bench.tune("trials", experiment.id, "--json").stdout)
    assert shown["exit_code"] == 1
    assert "this is why" in bench.tune("logs", experiment.id, "--trial", 0, "--stderr").stdout


def test_a_trial_that_dies_by_a_signal_and_one_that_cannot_start(bench: Bench) -> None:
    state = bench.experiment(trial_command="kill -9 $$", max_trial_number=1).run()
    assert (state.trial(0).status, state.trial(0).exit_code) == ("FAILED", -9)
    state = bench.experiment(trial_command="/no/such/program", max_trial_number=1).run()
    assert (state.trial(0).status, state.trial(0).exit_code) == ("FAILED", 127)


def test_max_trial_duration_ends_early(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.fake(**LONG), max_trial_duration="0.6s", max_trial_number=2, trial_concurrency=2
    )
    state = experiment.run()
    assert (state.status, state.counts["EARLY_STOPPED"]) == ("DONE", 2), (state.reason, state.counts)
    experiment.check(2, complete=False)


def test_max_trial_duration_goes_on_over_a_killed_engine(bench: Bench) -> None:
    """Time in which no engine ran does not count, time before it does."""
    experiment = bench.experiment(
        trial_command=bench.fake(steps=30, sleep=0.05), max_trial_duration="20s", max_trial_number=2
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    experiment.kill_engine()
    experiment.start()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 2


def test_max_experiment_duration_ends_done(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.fake(steps=3, sleep=0.02), max_experiment_duration="1s", max_trial_number=None
    )
    state = experiment.run()
    assert state.status == "DONE" and "max_experiment_duration" in state.reason, (state.status, state.reason)
    assert not state.counts["RUNNING"] and state.counts["SUCCEEDED"] >= 1
    experiment.check(complete=False)
    experiment.start()  # nothing left: the time is used up
    again = experiment.finish()
    assert again.status == "DONE" and len(again.made) == len(state.made)


def test_max_silence_ends_a_trial_that_says_nothing(bench: Bench) -> None:
    command = bench.script(
        "import time, tune\ntune.get_next_parameter()\ntune.report_intermediate_result(1)\ntime.sleep(600)\n"
    )
    state = bench.experiment(trial_command=command, max_silence="0.7s", max_trial_number=1, max_failures=0).run()
    assert state.trial(0).status == "FAILED" and "max_silence" in state.trial(0).reason, state.trial(0).reason


def test_the_failure_brake_pauses_with_the_reason_and_resume_clears_it(bench: Bench) -> None:
    bench.script("import sys\nsys.exit('broken code')\n")
    experiment = bench.experiment(trial_command="python trial.py", max_trial_number=10, trial_concurrency=1)
    state = experiment.run()
    assert state.status == "PAUSED" and "broken code" in state.reason, (state.status, state.reason)
    assert state.counts["FAILED"] == 3
    bench.script("import tune\np = tune.get_next_parameter()\ntune.report_final_result(p['x'])\n")
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"], state.counts["FAILED"]) == ("DONE", 7, 3), state.reason


def test_the_failure_brake_counts_at_most_max_trial_number(bench: Bench) -> None:
    state = bench.experiment(trial_command="exit 3", max_trial_number=2).run()
    assert state.status == "PAUSED" and state.counts["FAILED"] == 2
    state = bench.experiment(trial_command="exit 3", max_trial_number=5, max_failures=0).run()
    assert state.status == "DONE" and state.counts["FAILED"] == 5


def test_a_person_kills_a_trial(bench: Bench) -> None:
    hold = bench.base / "go"
    experiment = bench.experiment(trial_command=bench.fake(hold=str(hold), steps=1), max_trial_number=3)
    experiment.start()
    state = experiment.until(lambda state: state.metrics == 2)
    result = bench.tune("trial", "kill", "0", state.trial(1).id, "--id", experiment.id)
    assert result.returncode == 0, result.stderr
    hold.touch()
    state = experiment.finish()
    assert [trial.status for trial in state.made] == ["USER_CANCELED", "USER_CANCELED", "SUCCEEDED"]
    experiment.start()  # not run again
    assert experiment.finish().counts["USER_CANCELED"] == 2


def test_a_kill_survives_the_engine(bench: Bench) -> None:
    """The intent is in the log: the next engine says it again."""
    command = bench.script(
        "import signal, time, tune\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "tune.get_next_parameter()\ntune.report_intermediate_result(1)\ntime.sleep(600)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=1, stop_grace="1s")
    experiment.start()
    experiment.until(lambda state: state.metrics == 1)
    experiment.ask(AskKill("somebody", 0))
    experiment.kill_engine()
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.trial(0).status) == ("DONE", "USER_CANCELED")


def test_engine_lease_ends_the_trials_and_resume_runs_them_again(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.fake(**LONG), engine_lease="1s", stop_grace="1s", max_trial_number=2
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 1)
    experiment.kill_engine()
    for _ in steps(PATIENCE):  # trials and keeper end by themselves
        if not experiment.processes():
            break
    experiment.start()
    state = experiment.until(lambda state: state.trials and all(t and t.attempt == 1 for t in state.trials[:2]))
    assert len(state.made) == 2
    ends = [row.body for row in experiment.facts("TRIAL_END")]
    assert [(end["status"], "engine_lease" in end["reason"]) for end in ends] == [("SYS_CANCELED", True)] * 2
    bench.tune("stop", experiment.id)
    experiment.check(2, complete=False)


# -- phases -----------------------------------------------------------------------------------------------------------
def test_multi_phase_limits_answer_none(bench: Bench) -> None:
    experiment = bench.experiment(
        multi_phase=True,
        max_phases_per_trial=3,
        trial_command=bench.fake(phases=9, steps=1),
        max_trial_number=2,
    )
    state = experiment.run()
    assert (state.status, [len(trial.phases) for trial in state.made]) == ("DONE", [3, 3])
    assert len([line for line in experiment.witness() if line["e"] == "none"]) == 2
    experiment.check(2)


def test_max_phase_number_counts_over_all_trials(bench: Bench) -> None:
    experiment = bench.experiment(
        multi_phase=True,
        max_phase_number=5,
        trial_command=bench.fake(phases=9, steps=1),
        trial_concurrency=2,
        max_trial_number=None,
    )
    state = experiment.run()
    assert state.status == "DONE" and sum(len(trial.phases) for trial in state.made) == 5, state.reason
    experiment.check()


def test_a_resumed_multi_phase_trial_goes_on_at_its_first_open_phase(bench: Bench) -> None:
    hold = bench.base / "go"
    command = bench.script(
        "import time, pathlib, tune\n"
        "for _ in range(4):\n"
        "    p = tune.get_next_parameter()\n"
        "    if p is None: break\n"
        "    tune.report_intermediate_result(p['x'])\n"
        f"    phase = tune.trial_sdk.sdk._state.phase\n"
        f"    while phase == 2 and not pathlib.Path({str(hold)!r}).exists(): time.sleep(0.02)\n"
        "    tune.report_final_result({'default': p['x'], 'phase': phase})\n".replace(
            "tune.trial_sdk.sdk", "__import__('tune.trial_sdk.sdk', fromlist=['x'])"
        )
    )
    experiment = bench.experiment(
        multi_phase=True, trial_command=command, trial_concurrency=1, max_trial_number=1, max_phases_per_trial=4
    )
    experiment.start()
    experiment.until(lambda state: state.metrics == 5)
    bench.tune("stop", experiment.id)
    assert experiment.finish().trial(0).status == "SYS_CANCELED"
    before = checker.parameters(experiment.rows())
    hold.touch()
    experiment.start()
    state = experiment.finish()
    trial = state.trial(0)
    assert (state.status, trial.status, trial.attempt) == ("DONE", "SUCCEEDED", 1)
    assert [json.loads(bytes(phase.final or b""))["phase"] for phase in trial.phases] == [0, 1, 2, 3]
    after = checker.parameters(experiment.rows())
    assert len(after) == 4 and all(after[key] == value for key, value in before.items())


# -- plug-ins ---------------------------------------------------------------------------------------------------------
def test_medianstop_really_stops_hopeless_trials(bench: Bench) -> None:
    command = bench.script(
        "import time, tune\np = tune.get_next_parameter()\nbad = tune.get_sequence_id() >= 3\n"
        "for step in range(600 if bad else 5):\n"
        "    tune.report_intermediate_result(0 if bad else 10 + step)\n    time.sleep(0.02)\n"
        "tune.report_final_result(1)\n"
    )
    experiment = bench.experiment(
        trial_command=command,
        assessor={"name": "Medianstop", "class_args": {"start_step": 2}},
        trial_concurrency=1,
        max_trial_number=5,
    )
    state = experiment.run()
    assert [trial.status for trial in state.made] == ["SUCCEEDED"] * 3 + ["EARLY_STOPPED"] * 2
    assert state.status == "DONE" and all("median" in trial.reason for trial in state.made[3:])
    assert all(len(trial.phases[0].intermediate) < 600 for trial in state.made[3:])


def test_a_tuner_and_an_assessor_from_a_code_directory(bench: Bench) -> None:
    (bench.code / "mine.py").write_text(
        "from tune.engine.plugins import Exhausted, Stopped, Suggestion\n"
        "class Count:\n"
        "    def __init__(self, *, top: int = 3): self.top, self.made = top, 0\n"
        "    def observe(self, fact): self.made += type(fact).__name__ == 'Suggested'\n"
        "    def suggest(self, ask):\n"
        "        if self.made >= self.top: return Exhausted('counted up')\n"
        "        return Suggestion({'x': 0.5, 'n': self.made})\n"
        "class Odd:\n"
        "    observes = 'intermediates'\n"
        "    def __init__(self): self.seen = {}\n"
        "    def observe(self, fact):\n"
        "        if type(fact).__name__ == 'Suggested': self.seen[fact.trial] = fact.parameters['n']\n"
        "    def verdict(self, trial): return Stopped('odd') if self.seen.get(trial, 0) % 2 else None\n"
    )
    experiment = bench.experiment(
        tuner={"class_name": "mine.Count", "code_directory": str(bench.code), "class_args": {"top": 4}},
        assessor={"class_name": "mine.Odd", "code_directory": str(bench.code)},
        trial_command=bench.fake(steps=40, sleep=0.02),
        max_trial_number=None,
        trial_concurrency=4,
    )
    state = experiment.run()
    assert [trial.status for trial in state.made] == ["SUCCEEDED", "EARLY_STOPPED"] * 2, state.reason
    assert (state.status, state.reason) == ("DONE", "counted up")
    experiment.check(4, complete=False)


# -- the disk and the home --------------------------------------------------------------------------------------------
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
@pytest.mark.root
def test_a_full_disk_waits_and_goes_on(bench: Bench) -> None:
    bench.home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", bench.home], capture_output=True)
    if mounted.returncode:
        pytest.skip("no mount here")
    try:
        experiment = bench.experiment(trial_command=bench.fake(steps=20, sleep=0.05), max_trial_number=4)
        experiment.start()
        experiment.until(lambda state: state.metrics > 3)
        ballast = bench.home / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                while True:
                    try:
                        file.write(b"x" * size)
                    except OSError:
                        break
        pids = {trial.number: trial.pid for trial in experiment.state().made if trial.status == "RUNNING"}
        stuck = len(experiment.rows())
        time.sleep(1.5)  # a time in which nothing can be written
        assert not gone(experiment.pid, 0)
        assert len(experiment.rows()) <= stuck + 8
        ballast.unlink()
        state = experiment.finish()
        assert state.status == "DONE", (state.status, state.reason)
        assert pids
        experiment.assert_nothing_left()
        assert not [problem for problem in checker.check(experiment.rows(), [], 4) if "trial" not in problem]
    finally:
        for made in bench.made:
            made.sweep()
        subprocess.run(["umount", "-l", bench.home], check=False)


def test_a_home_that_cannot_be_written_is_exit_2(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.base / "file").write_text("")
    for path in ("/proc/nowhere", str(bench.base / "file"), str(bench.base / "file" / "below")):
        monkeypatch.setenv("TUNE_HOME", path)
        result = bench.tune("create", bench.config_file())
        assert result.returncode == 2, (path, result)
        assert "Traceback" not in result.stderr and "TUNE_HOME" in result.stderr
    monkeypatch.setenv("TUNE_HOME", str(bench.home))


def test_raising_a_limit_goes_on(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=0), max_trial_number=1)
    experiment.run()
    experiment.start(limits(max_trial_number=3, trial_concurrency=3))
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 3)
    experiment.check(3)
