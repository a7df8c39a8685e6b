"""What trials do to themselves and to others: die, fork, hang on, and answer a stop; and tuners that misbehave."""

from __future__ import annotations

import json
import os
import signal

import pytest
from harness import PATIENCE, Bench, limits, steps

from tune.engine.requests import AskKill, AskStop


def test_the_death_of_a_waiter_ends_its_trial_as_failed(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=400, sleep=0.05), max_trial_number=1, max_failures=0)
    experiment.start()
    state = experiment.until(lambda state: state.metrics > 0)
    trial = state.trial(0)
    waiter = int((experiment.folder.trials / trial.id / "0" / "waiter").read_text())
    os.kill(waiter, signal.SIGKILL)
    state = experiment.finish()
    trial = state.trial(0)
    assert (trial.status, trial.exit_code) == ("FAILED", None) and "waiter" in trial.reason
    experiment.check(1)


def test_reports_of_forked_children_are_all_there_once(bench: Bench) -> None:
    command = bench.script(
        "import os, tune\np = tune.get_next_parameter()\ntune.report_intermediate_result(-1)\n"
        "children = []\n"
        "for child in range(3):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        for step in range(20): tune.report_intermediate_result(child * 100 + step)\n"
        "        os._exit(0)\n"
        "    children.append(pid)\n"
        "for pid in children: os.waitpid(pid, 0)\n"
        "tune.report_final_result(1)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=2)
    state = experiment.run()
    expected = sorted([-1, *(child * 100 + step for child in range(3) for step in range(20))])
    for trial in state.made:
        assert sorted(trial.phases[0].intermediate) == expected
        assert trial.phases[0].value == 1
    assert len({row.sender for row in experiment.facts("METRIC")}) == 8


def test_a_final_within_the_grace_counts_and_the_trial_is_not_run_again(bench: Bench) -> None:
    command = bench.script(
        "import time, tune\np = tune.get_next_parameter()\ntune.report_intermediate_result(1)\n"
        "while not tune.should_stop(): time.sleep(0.02)\n"
        "tune.report_final_result(p['x'])\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=2, stop_grace="30s", trial_concurrency=2)
    experiment.start()
    experiment.until(lambda state: state.metrics == 2)
    experiment.ask(AskStop("test"))
    state = experiment.finish()
    assert state.status == "STOPPED" and [trial.status for trial in state.made] == ["SYS_CANCELED"] * 2
    assert all(trial.phases[0].value is not None for trial in state.made)
    experiment.start()
    state = experiment.finish()
    assert state.status == "DONE" and [trial.attempt for trial in state.made] == [0, 0]


def test_should_stop_is_true_after_a_kill_and_after_the_time_limit(bench: Bench) -> None:
    command = bench.script(
        "import time, tune\np = tune.get_next_parameter()\ntune.report_intermediate_result(1)\n"
        "while not tune.should_stop(): time.sleep(0.02)\n"
        "tune.report_final_result({'default': 2, 'stopped': True})\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=2, stop_grace="30s", max_trial_duration="2s")
    experiment.start()
    experiment.until(lambda state: state.metrics == 2)
    experiment.ask(AskKill("test", 0))
    state = experiment.finish()
    assert [trial.status for trial in state.made] == ["USER_CANCELED", "EARLY_STOPPED"]
    assert [trial.phases[0].value for trial in state.made] == [2, 2]


def test_daemons_of_a_trial_are_gone_when_the_experiment_is(bench: Bench) -> None:
    command = bench.script(
        "import os, subprocess, sys, tune\ntune.get_next_parameter()\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True,\n"
        "                 stdin=-3, stdout=-3, stderr=-3)\n"
        "if os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(600)\n"
        "tune.report_final_result(1)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=2)
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 2)
    experiment.assert_nothing_left()


def test_update_of_the_concurrency_while_it_runs(bench: Bench) -> None:
    hold = bench.base / "go"
    experiment = bench.experiment(trial_command=bench.fake(hold=str(hold), steps=1), max_trial_number=6)
    experiment.start()
    experiment.until(lambda state: state.metrics == 2)
    experiment.ask(limits(trial_concurrency=5))
    experiment.until(lambda state: state.counts["RUNNING"] == 5)
    hold.touch()
    assert experiment.finish().counts["SUCCEEDED"] == 6
    experiment.check(6)


TUNERS = """
import os
from tune.engine.plugins import Exhausted, Suggestion, Wait

class _Base:
    def __init__(self): self.made = 0
    def observe(self, fact): self.made += type(fact).__name__ == "Suggested"

class Nonsense(_Base):
    def suggest(self, ask): return Suggestion({"x": 0.5, "n": 1}) if self.made < 1 else 5

class Leaves(_Base):
    def suggest(self, ask):
        if self.made >= 1: os._exit(3)
        return Suggestion({"x": 0.5, "n": 1})

class Waits(_Base):
    def suggest(self, ask): return Suggestion({"x": 0.5, "n": 1}) if self.made < 1 else Wait("it waits for Godot")

class Prints(_Base):
    def suggest(self, ask):
        print("noise " * 10_000, flush=True)
        os.write(2, b"more noise")
        return Suggestion({"x": 0.5, "n": self.made}) if self.made < 3 else Exhausted()
"""


@pytest.mark.parametrize(
    ("name", "reason"), [("Nonsense", "Suggestion"), ("Leaves", "code 3"), ("Waits", "it waits for Godot")]
)
def test_a_tuner_that_misbehaves_pauses_and_running_trials_go_on(bench: Bench, name: str, reason: str) -> None:
    (bench.code / "odd.py").write_text(TUNERS)
    experiment = bench.experiment(
        tuner={"class_name": f"odd.{name}", "code_directory": str(bench.code)},
        trial_command=bench.fake(steps=20, sleep=0.05),
        max_trial_number=3,
    )
    state = experiment.run()
    assert state.status == "PAUSED" and reason in state.reason, (state.status, state.reason)
    assert state.counts["SUCCEEDED"] == 1  # it ran to its end
    experiment.check(1)


def test_what_a_tuner_prints_hurts_nobody(bench: Bench) -> None:
    (bench.code / "odd.py").write_text(TUNERS)
    experiment = bench.experiment(
        tuner={"class_name": "odd.Prints", "code_directory": str(bench.code)}, max_trial_number=None
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 3)


def test_a_pause_answers_waiting_phases_with_none(bench: Bench) -> None:
    (bench.code / "odd.py").write_text(TUNERS)
    experiment = bench.experiment(
        tuner={"class_name": "odd.Nonsense", "code_directory": str(bench.code)},
        multi_phase=True,
        trial_command=bench.fake(phases=3, steps=1),
        trial_concurrency=1,
        max_trial_number=1,
    )
    state = experiment.run()
    assert state.status == "PAUSED" and state.trial(0).status == "SUCCEEDED", (state.status, state.reason)
    assert [line["e"] for line in experiment.witness()].count("none") == 1
    experiment.check(1)


def test_a_hostile_environment_and_command_reach_the_trial_as_typed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "a b'c\"d$(touch hacked)\n")
    command = """python -c 'import os, tune; p = tune.get_next_parameter()
assert os.environ["ODD"].startswith("a b") and os.environ["PYTHONUNBUFFERED"] == "1"
assert os.getcwd() == os.environ["TUNE_CODE_DIR"] == os.environ["NNI_CODE_DIR"]
tune.report_final_result(len(os.environ["TUNE_EXPERIMENT_ID"]))'"""
    experiment = bench.experiment(trial_command=command, max_trial_number=1)
    state = experiment.run()
    assert (state.trial(0).status, state.trial(0).phases[0].value) == ("SUCCEEDED", 8), state.trial(0).stderr
    assert not (bench.code / "hacked").exists()


def test_a_log_that_is_just_being_made_is_no_damage(bench: Bench) -> None:
    """The verbs see a folder whose engine died before its first commit."""
    experiment = bench.experiment()
    experiment.folder.events.write_bytes(b"")
    for verb in ("status", "trials", "best", "view", "resume", "stop", "verify"):
        result = bench.tune(verb, experiment.id)
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode == 1, (verb, result)
    assert bench.tune("list").returncode == 0
    assert bench.tune("delete", experiment.id, "--yes").returncode == 0
    bench.made.clear()


def test_verbs_read_while_the_engine_writes(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.fake(steps=30, sleep=0.01), trial_concurrency=4, max_trial_number=8
    )
    experiment.start()
    seen = set()
    for _ in steps(PATIENCE):
        result = bench.tune("status", experiment.id, "--json")
        assert result.returncode == 0, result.stderr
        status = json.loads(result.stdout)
        seen.add(status["status"])
        if status["status"] == "DONE":
            break
    assert seen <= {"RUNNING", "NO_MORE_TRIAL", "DONE"}
    assert bench.tune("verify", experiment.id).returncode == 0
    experiment.finish()
