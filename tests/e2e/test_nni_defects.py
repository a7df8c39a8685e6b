"""Every fault that was measured in NNI and can occur here, as a regression test by its number in that list."""

from __future__ import annotations

import json
import math

import checker
import pytest
from harness import SPACE, Bench, limits

from tune.engine.requests import AskTrial

GRID = {"a": {"_type": "choice", "_value": [1, 2, 3]}, "b": {"_type": "choice", "_value": ["x", "y"]}}


def test_nni_01_parameters_are_bound_to_their_trial_at_concurrency_8(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.fake(steps=1, sleep=0), trial_concurrency=8, max_trial_number=24, tuner={"name": "TPE"}
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 24)
    experiment.check(24)
    got = {line["trial"]: line["value"] for line in experiment.witness() if line["e"] == "parameters"}
    assert got == {trial: value for (trial, _), value in checker.parameters(experiment.rows()).items()}
    for trial in state.made:  # and the result is that of these parameters
        assert trial.phases[0].value == -((got[trial.number]["x"] - 0.3) ** 2)


@pytest.mark.parametrize("tuner", ["TPE", "Random"])
def test_nni_02_trial_end_before_or_after_the_final_does_not_confuse_the_tuner(bench: Bench, tuner: str) -> None:
    """A final is observed before its trial's end, and the tuner needs nothing of the trial any more."""
    command = bench.script(
        "import os, tune\np = tune.get_next_parameter()\ntune.report_final_result(p['x'])\nos._exit(0)\n"
    )
    experiment = bench.experiment(
        trial_command=command, trial_concurrency=4, max_trial_number=12, tuner={"name": tuner}
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"], state.tuner_errors) == ("DONE", 12, 0)
    assert not experiment.facts("TUNER_ERROR")


# As NNI's tuners are: the result needs what the request left, and the trial's end takes it away.
FORGETFUL = """
import random
import tune.nni as nni

class Forgetful(nni.Tuner):
    def __init__(self):
        self.running, self.results, self.ended = {}, {}, []

    def generate_parameters(self, parameter_id, **kwargs):
        self.running[parameter_id] = {"x": random.random(), "n": parameter_id}
        return self.running[parameter_id]

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        assert self.running[parameter_id] == parameters
        self.results[parameter_id] = nni.extract_scalar_reward(value)

    def trial_end(self, parameter_id, success, **kwargs):
        assert parameter_id in self.results or not success
        del self.running[parameter_id]
"""


def in_nnis_style(bench: Bench, source: str, name: str, **class_args: object) -> dict[str, object]:
    (bench.code / "theirs.py").write_text(source)
    return {"class_name": f"theirs.{name}", "code_directory": str(bench.code), "class_args": class_args}


def test_nni_02_nni_12_a_final_reaches_a_tuner_in_nnis_style_before_its_trials_end(bench: Bench) -> None:
    command = bench.script(
        "import os, tune\np = tune.get_next_parameter()\n"
        "if p['n'] == 3: os._exit(1)\ntune.report_final_result({'default': p['x']})\n"
        "tune.report_final_result(7)\nos._exit(0)\n"
    )
    experiment = bench.experiment(
        trial_command=command,
        trial_concurrency=4,
        max_trial_number=16,
        tuner=in_nnis_style(bench, FORGETFUL, "Forgetful"),
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"], state.counts["FAILED"]) == ("DONE", 15, 1)
    assert not experiment.facts("TUNER_ERROR") and not state.warnings


# NNI's own weight-sharing test: a father writes a file, its children wait for it and check what they read.
ASYNC_SHARING = """
import os, threading
import tune.nni as nni

class SimpleTuner(nni.Tuner):
    def __init__(self, folder, children):
        self.folder, self.father = folder, threading.Event()
        self.lock, self.count, self.children = threading.Lock(), 0, children

    def generate_parameters(self, parameter_id, **kwargs):
        with self.lock:
            self.count += 1
            father = self.count == 1
        path = os.path.join(self.folder, "father")
        if father:
            return {"path": path, "father": True}
        self.father.wait()
        return {"path": path, "father": False, "checksum": self.checksum}

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        if parameters["father"]:
            self.checksum = value["checksum"]
            self.father.set()
"""


def test_nni_07_requests_that_wait_for_each_other_need_no_pool(bench: Bench) -> None:
    """More requests wait than there are processors; in NNI two of them fill the pool, and nothing ever goes on."""
    command = bench.script(
        "import hashlib, os, time, tune\np = tune.get_next_parameter()\n"
        "if p['father']:\n    time.sleep(0.5)\n    data = os.urandom(100_000)\n"
        "    open(p['path'], 'wb').write(data)\n    checksum = hashlib.sha256(data).hexdigest()\n"
        "else:\n    checksum = hashlib.sha256(open(p['path'], 'rb').read()).hexdigest()\n"
        "    assert checksum == p['checksum']\n"
        "tune.report_final_result({'default': 1, 'checksum': checksum})\n"
    )
    experiment = bench.experiment(
        trial_command=command,
        search_space={},
        trial_concurrency=20,
        max_trial_number=24,
        multi_thread=True,
        tuner=in_nnis_style(bench, ASYNC_SHARING, "SimpleTuner", folder=str(bench.base), children=23),
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 24), (state.reason, state.counts)
    assert not experiment.facts("TUNER_ERROR")


CUSTOMIZED = """
import tune.nni as nni

class Counts(nni.Tuner):
    def __init__(self):
        self.by_hand = []

    def generate_parameters(self, parameter_id, **kwargs):
        return {"x": 0.5, "n": 1, "by_hand": self.by_hand}

    def receive_customized_trial_result(self, parameter_id, parameters, value, **kwargs):
        self.by_hand.append([parameters["x"], value])
"""


def test_nni_14_the_result_of_a_trial_that_was_queued_by_hand_reaches_the_tuner(bench: Bench) -> None:
    hold = bench.base / "go"
    command = bench.script(
        f"import os, time, tune\np = tune.get_next_parameter()\n"
        f"while p['x'] == 0.5 and not os.path.exists({str(hold)!r}): time.sleep(0.02)\n"
        "tune.report_final_result(p['x'] * 2)\n"
    )
    tuner = in_nnis_style(bench, CUSTOMIZED, "Counts")
    experiment = bench.experiment(trial_command=command, tuner=tuner, trial_concurrency=1, max_trial_number=4)
    experiment.start()
    experiment.until(lambda state: state.active)
    assert experiment.ask(AskTrial("test", '{"x": 8, "n": 2}'))
    hold.touch()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4), (state.reason, state.counts)
    (by_hand,) = [trial.number for trial in state.made if trial.origin == "user"]
    assert checker.parameters(experiment.rows())[3, 0]["by_hand"] == [[8, 16]] and by_hand != 3


@pytest.mark.parametrize("tuner", ["TPE", "Random"])
def test_nni_03_nni_21_two_finals_count_the_first_and_keep_the_second(bench: Bench, tuner: str) -> None:
    command = bench.script(
        "import tune\np = tune.get_next_parameter()\n"
        "tune.report_final_result(p['x'])\ntune.report_final_result({'default': 99, 'more': 1})\n"
    )
    experiment = bench.experiment(trial_command=command, tuner={"name": tuner}, max_trial_number=6)
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"], state.tuner_errors) == ("DONE", 6, 0)
    told = checker.parameters(experiment.rows())
    for trial in state.made:
        assert trial.phases[0].value == told[trial.number, 0]["x"]
        assert [json.loads(bytes(raw)) for raw in trial.phases[0].ignored] == [{"default": 99, "more": 1}]
    assert state.best is not None and state.best.value < 1


def test_nni_04_a_second_get_next_parameter_gives_the_same(bench: Bench) -> None:
    command = bench.script(
        "import tune\na = tune.get_next_parameter()\nb = tune.get_next_parameter()\n"
        "assert a == b, (a, b)\ntune.report_final_result(a['x'])\n"
    )
    state = bench.experiment(trial_command=command, max_trial_number=2).run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 2)


@pytest.mark.parametrize(
    ("tuner", "space", "count"),
    [
        ("GridSearch", GRID, 6),
        ("Random", GRID, 6),
        ("Batch", {"combine_params": {"_type": "choice", "_value": [{"a": 1}, {"a": 2}, {"a": 3}]}}, 3),
    ],
)
def test_nni_08_an_exhausted_space_ends_done(bench: Bench, tuner: str, space: object, count: int) -> None:
    command = bench.script("import tune\np = tune.get_next_parameter()\ntune.report_final_result(p['a'])\n")
    experiment = bench.experiment(
        trial_command=command, search_space=space, tuner={"name": tuner}, max_trial_number=None, trial_concurrency=4
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", count), (state.reason, state.counts)
    seen = [json.dumps(value, sort_keys=True) for value in checker.parameters(experiment.rows()).values()]
    assert len(seen) == len(set(seen)) == count


def test_nni_09_ids_stay_unique_over_resumes(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=0), max_trial_number=2)
    experiment.run()
    for total in (4, 6):
        experiment.start(limits(max_trial_number=total))
        state = experiment.finish()
        assert (state.status, len(state.made)) == ("DONE", total)
    assert [trial.number for trial in state.made] == list(range(6))
    assert len({trial.id for trial in state.made}) == 6
    asks = [row.body["ask"] for row in experiment.facts("PARAMETER")]
    assert len(set(asks)) == 6
    assert len({json.dumps(value) for value in checker.parameters(experiment.rows()).values()}) == 6
    experiment.check(6)


def test_nni_10_the_metrics_of_a_trial_that_ends_at_once_are_all_there(bench: Bench) -> None:
    command = bench.script(
        "import os, tune\ntune.get_next_parameter()\n"
        "for i in range(500): tune.report_intermediate_result(i)\n"
        "tune.report_final_result(1)\ntune.report_intermediate_result(500)\nos.kill(os.getpid(), 9)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=4, trial_concurrency=4)
    state = experiment.run()
    for trial in state.made:
        assert list(trial.phases[0].intermediate) == list(range(501))
        assert (trial.phases[0].value, trial.status, trial.exit_code) == (1, "FAILED", -9)


def test_nni_11_a_compound_command_leaves_no_orphan(bench: Bench) -> None:
    bench.script(
        "import subprocess, sys, time, tune\ntune.get_next_parameter()\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "tune.report_intermediate_result(1)\ntime.sleep(600)\n"
    )
    command = f"cd {bench.code} && python trial.py | cat"
    experiment = bench.experiment(trial_command=command, trial_concurrency=2, max_trial_number=2)
    experiment.start()
    experiment.until(lambda state: state.metrics == 2)
    assert sum("time.sleep(600)" in line for line in experiment.processes().values()) >= 2
    result = bench.tune("stop", experiment.id)
    assert result.returncode == 0, result.stderr
    trials = {pid: line for pid, line in experiment.processes().items() if "trial" in line or "sleep" in line}
    assert not trials, trials
    state = experiment.finish()
    assert state.status == "STOPPED"


def test_nni_13_finals_of_failed_and_stopped_trials_are_seen(bench: Bench) -> None:
    command = bench.script(
        "import sys, time, tune\np = tune.get_next_parameter()\ntune.report_intermediate_result(p['x'])\n"
        "n = tune.get_sequence_id()\n"
        "if n == 0: tune.report_final_result(5); sys.exit(3)\n"
        "if n == 1: time.sleep(600)\n"
        "tune.report_final_result(p['x'])\n"
    )
    experiment = bench.experiment(
        trial_command=command, max_trial_number=3, max_trial_duration="1s", trial_concurrency=3
    )
    state = experiment.run()
    failed, stopped, _ = state.made
    assert (failed.status, failed.exit_code, failed.phases[0].value) == ("FAILED", 3, 5)
    assert (stopped.status, len(stopped.phases[0].intermediate)) == ("EARLY_STOPPED", 1)
    assert state.best is not None and (state.best.trial, state.best.value) == (0, 5)
    trials = json.loads(bench.tune("trials", experiment.id, "--json").stdout)
    assert [trial["status"] for trial in trials] == ["FAILED", "EARLY_STOPPED", "SUCCEEDED"]
    assert trials[0]["final"] == 5 and trials[1]["final"] is None and len(trials[1]["intermediate"]) == 1


TUNER = """
import time
from tune.engine.plugins import Ask, Suggestion

class Slow:
    def __init__(self, *, pause: float = 0.0, raise_at: int = -1, mark: str = "") -> None:
        self.pause, self.raise_at, self.mark, self.seen = pause, raise_at, mark, 0

    def observe(self, fact) -> None:
        self.seen += 1

    def suggest(self, ask: Ask) -> Suggestion:
        time.sleep(self.pause)
        if ask.number == self.raise_at:
            import pathlib
            if not pathlib.Path(self.mark).exists():
                pathlib.Path(self.mark).touch()
                raise RuntimeError("once only")
        return Suggestion({"x": (ask.number * 0.07) % 1, "n": ask.number})
"""


def test_nni_15_a_slow_tuner_does_not_end_the_experiment(bench: Bench) -> None:
    (bench.code / "slow_tuner.py").write_text(TUNER)
    experiment = bench.experiment(
        tuner={"class_name": "slow_tuner.Slow", "code_directory": str(bench.code), "class_args": {"pause": 0.7}},
        trial_command=bench.fake(steps=20, sleep=0.01),
        max_trial_number=3,
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 3)
    assert not experiment.facts("TUNER_ERROR")
    experiment.check(3)


def test_nni_16_a_tuner_that_raises_once_is_rebuilt_and_goes_on(bench: Bench) -> None:
    (bench.code / "slow_tuner.py").write_text(TUNER)
    arguments = {"raise_at": 3, "mark": str(bench.base / "raised")}
    experiment = bench.experiment(
        tuner={"class_name": "slow_tuner.Slow", "code_directory": str(bench.code), "class_args": arguments},
        trial_command=bench.fake(steps=1),
        max_trial_number=5,
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 5)
    (error,) = experiment.facts("TUNER_ERROR")
    assert "once only" in error.body["error"] and "Traceback" in error.body["traceback"]
    experiment.check(5)


def test_nni_16b_a_tuner_that_always_raises_pauses_the_experiment(bench: Bench) -> None:
    (bench.code / "slow_tuner.py").write_text(TUNER.replace("if not pathlib", "if True or not pathlib"))
    tuner = {"class_name": "slow_tuner.Slow", "code_directory": str(bench.code)}
    arguments = {"raise_at": 2, "mark": str(bench.base / "raised")}
    experiment = bench.experiment(tuner={**tuner, "class_args": arguments}, max_trial_number=4, trial_concurrency=1)
    state = experiment.run()
    assert state.status == "PAUSED" and "once only" in state.reason, (state.status, state.reason)
    assert state.counts["SUCCEEDED"] == 1
    (bench.code / "slow_tuner.py").write_text(TUNER)  # repaired: resume goes on
    (bench.base / "raised").touch()
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4), (state.reason, state.counts)
    experiment.check(4)


def test_nni_16c_a_tuner_in_nnis_style_that_raises_as_it_learns_is_rebuilt(bench: Bench) -> None:
    mark = bench.base / "raised"
    source = FORGETFUL.replace(
        "assert self.running[parameter_id] == parameters",
        f"import pathlib; mark = pathlib.Path({str(mark)!r})\n"
        "        if parameter_id == 2 and not mark.exists(): mark.touch(); raise RuntimeError('once only')",
    )
    tuner = in_nnis_style(bench, source, "Forgetful")
    experiment = bench.experiment(trial_command=bench.fake(steps=1), tuner=tuner, max_trial_number=6)
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 6), (state.reason, state.counts)
    (error,) = experiment.facts("TUNER_ERROR")
    assert "once only" in error.body["error"] and "receive_trial_result" in error.body["traceback"]
    assert not state.warnings  # it was asked everything again, and said the same
    experiment.check(6)


def test_nni_17_zero_cost_trials_are_quick(bench: Bench) -> None:
    """No timed assertion: that no poll of seconds stands in the way shows in the test's own time limit."""
    state = bench.experiment(trial_command="true", max_trial_number=20, trial_concurrency=4, max_failures=0).run(30)
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 20)


def test_nni_19_an_updated_search_space_is_used_after_a_resume(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=0), max_trial_number=2)
    experiment.run()
    space = {"x": {"_type": "uniform", "_value": [5, 6]}, "n": {"_type": "choice", "_value": [-1]}}
    path = bench.base / "space.json"
    path.write_text(json.dumps(space))
    result = bench.tune("update", experiment.id, "--search-space", path, "--max-trials", 5)
    assert result.returncode == 0, result.stderr
    experiment.start()
    state = experiment.finish()
    assert (state.status, len(state.made)) == ("DONE", 5)
    told = checker.parameters(experiment.rows())
    assert all(told[trial, 0]["x"] < 1 for trial in (0, 1))
    assert all(5 <= told[trial, 0]["x"] <= 6 and told[trial, 0]["n"] == -1 for trial in (2, 3, 4))
    experiment.check(5)


def test_nni_20_output_that_looks_like_a_metric_is_only_output(bench: Bench) -> None:
    command = bench.script(
        "import sys, tune\np = tune.get_next_parameter()\n"
        "print('NNISDK_MEb\\'{\"value\": 99}\\'')\n"
        "sys.stdout.buffer.write(b'\\x00\\x00\\x00\\x10ME000017{\"value\": 99}' * 1000 + b'\\xff\\xfe no newline')\n"
        "sys.stdout.flush()\nsys.stderr.write('ME%06d{}' % 2)\ntune.report_final_result(0.5)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=2)
    state = experiment.run()
    assert state.metrics == 2 and state.best is not None and state.best.value == 0.5
    trial = state.trial(0)
    assert b"NNISDK" in (experiment.folder.trials / trial.id / "stdout").read_bytes()


def test_nni_10000_intermediates(bench: Bench) -> None:
    command = bench.script(
        "import tune\ntune.get_next_parameter()\n"
        "for i in range(10_000): tune.report_intermediate_result(i)\ntune.report_final_result(1)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=1, trial_concurrency=1)
    state = experiment.run()
    assert list(state.trial(0).phases[0].intermediate) == list(range(10_000))
    assert state.trial(0).phases[0].value == 1


def test_nni_nan_and_infinities_are_never_best(bench: Bench) -> None:
    command = bench.script(
        "import tune\np = tune.get_next_parameter()\nn = tune.get_sequence_id()\n"
        "value = [float('nan'), float('inf'), float('-inf'), 0.25][n % 4]\n"
        "tune.report_intermediate_result(value)\ntune.report_final_result(value)\n"
    )
    experiment = bench.experiment(
        trial_command=command, max_trial_number=8, tuner={"name": "TPE"}, search_space=SPACE, trial_concurrency=2
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"], state.tuner_errors) == ("DONE", 8, 0)
    assert state.best is not None and state.best.value == 0.25
    finals = [row.body["value"] for row in experiment.facts("METRIC") if row.body.get("final")]
    assert sorted(map(str, finals)) == sorted(["NaN", "Infinity", "-Infinity", "0.25"] * 2)
    assert math.isnan(state.trial(0).phases[0].intermediate[0])
