"""Tuners of the user's own in whole experiments: NNI's style, blocking requests, weight sharing, kill and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import checker
from harness import Bench, Experiment, limits

from tune.engine.requests import AskTrial

# The pattern of NNI's tutorial on weight sharing, as it stands there.
SHARING = """
import os, threading
from nni.tuner import Tuner

class SharingTuner(Tuner):
    def __init__(self, save_dir_root, fathers=3):
        self.save_dir_root = save_dir_root
        self.fathers = fathers
        self.thread_lock = threading.Lock()
        self.events = {}
        self.results = {}

    def update_search_space(self, search_space):
        self.space = search_space

    def generate_parameters(self, parameter_id):
        self.thread_lock.acquire()
        parent_id = None if parameter_id < self.fathers else parameter_id - self.fathers
        self.events[parameter_id] = threading.Event()
        self.thread_lock.release()
        if parent_id is not None:
            self.events[parent_id].wait()
        restore = "" if parent_id is None else os.path.join(self.save_dir_root, str(parent_id))
        return {"id": parameter_id, "save_path": os.path.join(self.save_dir_root, str(parameter_id)),
                "restore_path": restore, "inherits": self.results.get(parent_id)}

    def receive_trial_result(self, parameter_id, parameters, reward):
        self.thread_lock.acquire()
        self.results[parameter_id] = reward["default"]
        self.thread_lock.release()
        self.events[parameter_id].set()
"""

# Reads what its parent has written, or fails; a father takes its time.
READS = """
import hashlib, os, sys, time
import tune.nni as nni
p = nni.get_next_parameters()
weights = b"father"
if p["restore_path"]:
    with open(p["restore_path"], "rb") as file:
        body, _, checksum = file.read().rpartition(b"|")
    assert hashlib.sha256(body).hexdigest().encode() == checksum, "read before it was written"
    weights = body
else:
    time.sleep({pause})
body = weights + b"." + str(p["id"]).encode()
with open(p["save_path"] + ".new", "wb") as file:
    file.write(body + b"|" + hashlib.sha256(body).hexdigest().encode())
os.rename(p["save_path"] + ".new", p["save_path"])
nni.report_final_result({{"default": p["id"] * 10, "body": body.decode()}})
"""


def own(bench: Bench, source: str, name: str, **class_args: Any) -> dict[str, Any]:
    """A tuner's section for a class of this source."""
    (bench.code / "mine.py").write_text(source)
    return {"class_name": f"mine.{name}", "code_directory": str(bench.code), "class_args": class_args}


def sharing(bench: Bench, **fields: Any) -> Experiment:
    (bench.base / "weights").mkdir()
    return bench.experiment(
        **{
            "tuner": own(bench, SHARING, "SharingTuner", save_dir_root=str(bench.base / "weights")),
            "trial_command": bench.script(READS.format(pause=fields.pop("pause", 0.3))),
            "search_space": {"any": [1, 100]},
            "multi_thread": True,
            "trial_concurrency": 6,
            "max_trial_number": 12,
            **fields,
        }
    )


def assert_inherited(experiment: Experiment) -> None:
    """Every child was given its parent's result, which was recorded before the child's parameters."""
    rows = experiment.rows()
    told = checker.parameters(rows)
    finals = {row.trial: row.seq for row in rows if row.kind == "METRIC" and row.body.get("final")}
    given = {row.trial: row.seq for row in rows if row.kind == "PARAMETER"}
    by_id = {told[key]["id"]: key[0] for key in told}
    for (trial, _), parameters in told.items():
        if parameters["restore_path"]:
            parent = by_id[int(parameters["restore_path"].rpartition("/")[2])]
            assert finals[parent] < given[trial], (parent, trial)
            assert parameters["inherits"] == told[parent, 0]["id"] * 10


def test_children_start_when_their_parents_have_ended(bench: Bench) -> None:
    experiment = sharing(bench)
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 12), (state.reason, state.counts)
    assert_inherited(experiment)
    requested = [row.seq for row in experiment.facts("REQUEST_PARAMETER")]
    answered = [row.seq for row in experiment.facts("PARAMETER")]
    assert requested[5] < answered[3]  # six were open at once, and three of them waited
    assert not experiment.facts("TUNER_ERROR") and not state.warnings
    result = json.loads(bench.tune("verify", experiment.id, "--decisions", "--json").stdout)
    assert result["ok"]


def test_killed_and_resumed_while_requests_wait(bench: Bench) -> None:
    experiment = sharing(bench, pause=1.0)
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 3 and len(state.asks) == 3)
    experiment.kill_engine()
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 4)
    experiment.kill_engine()
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 12), (state.reason, state.counts)
    assert_inherited(experiment)
    assert not experiment.facts("TUNER_ERROR") and not state.warnings


def test_the_tuner_host_is_killed_while_requests_wait(bench: Bench) -> None:
    experiment = sharing(bench, pause=1.0)
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 3 and len(state.asks) == 3)
    os.kill(experiment.tuner_host_pid(), signal.SIGKILL)
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 12), (state.reason, state.counts)
    assert_inherited(experiment)
    assert len(experiment.facts("TUNER_ERROR")) == 1 and not state.warnings


ASYNC = """
import asyncio
from tune.engine.plugins import Suggestion

class Async:
    concurrent = True

    def __init__(self):
        self.seen = 0

    def observe(self, fact):
        self.seen += 1

    async def suggest(self, ask):
        if ask.trial < 2:
            return Suggestion({"x": ask.trial, "from": -1})
        parent = await ask.result_of(ask.trial - 2)
        return Suggestion({"x": ask.trial, "from": parent.value, "outcome": parent.outcome}, parents=(ask.trial - 2,))
"""


def test_an_async_tuner_waits_for_results(bench: Bench) -> None:
    trial = "import sys, time, tune\np = tune.get_next_parameter()\ntime.sleep(0.1)\n"
    trial += "if p['x'] == 3: sys.exit(1)\ntune.report_final_result(p['x'] * 10)\n"
    experiment = bench.experiment(
        tuner=own(bench, ASYNC, "Async"),
        trial_command=bench.script(trial),
        search_space={},
        trial_concurrency=5,
        max_trial_number=8,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 3)
    experiment.kill_engine()
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"], state.counts["FAILED"]) == ("DONE", 7, 1), state.reason
    told = checker.parameters(experiment.rows())
    assert [told[trial, 0]["from"] for trial in range(8)] == [-1, -1, 0, 10, 20, None, 40, 50]
    assert told[5, 0]["outcome"] == "failed"
    result = json.loads(bench.tune("verify", experiment.id, "--decisions", "--json").stdout)
    assert result["ok"] and result["decisions"]["suggestions"] == 8, result


HANGS = """
import threading
class Hangs:
    def generate_parameters(self, parameter_id):
        if parameter_id > 0:
            threading.Event().wait()
        return {"x": 1}
    def receive_trial_result(self, parameter_id, parameters, value): pass
"""


def test_requests_that_nothing_can_answer_pause_the_experiment(bench: Bench) -> None:
    experiment = bench.experiment(
        tuner=own(bench, HANGS, "Hangs"),
        trial_command=bench.script("import time, tune\ntune.get_next_parameter()\ntime.sleep(3)\n"),
        multi_thread=True,
        search_space={},
    )
    code = "import sys\nfrom pathlib import Path\nfrom tune.cli import serve\nfrom tune.engine import home, shell\n"
    code += "shell.TUNER_TIMEOUT = 2\nserve.run_foreground(home.at(Path(sys.argv[1])), actor='test')\n"
    done = subprocess.run([sys.executable, "-c", code, str(experiment.folder.path)], capture_output=True, text=True)
    state = experiment.state()
    assert state.status == "PAUSED", (done.stderr[-2000:], state.status, state.reason)
    assert "the tuner has not answered for 2 s (asked for trial 1, 2)" in state.reason, state.reason
    assert state.counts["SUCCEEDED"] == 1  # it was not hurt: while it ran, nothing counted as hung
    assert not experiment.facts("TUNER_ERROR")


RAISES = """
import os, random
import tune.nni as nni

class Mine(nni.Tuner):
    def __init__(self, optimize_mode="maximize", mark=""):
        self.mode, self.mark, self.told = optimize_mode, mark, []

    def generate_parameters(self, parameter_id, **kwargs):
        print("a print of the user's")
        if parameter_id == 2 and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os._exit(3)
        return {"x": random.random(), "told": len(self.told), "mode": self.mode}

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        self.told.append(value["loss"])

    def receive_customized_trial_result(self, parameter_id, parameters, value, **kwargs):
        self.told.append("by hand")

    def trial_end(self, parameter_id, success, **kwargs):
        self.told.append(success)
"""


def test_one_that_ends_its_process_learns_again_from_the_log(bench: Bench) -> None:
    trial = "import tune\np = tune.get_next_parameter()\ntune.report_final_result({'default': p['x'], 'loss': [1]})\n"
    experiment = bench.experiment(
        tuner=own(bench, RAISES, "Mine", mark=str(bench.base / "mark"), optimize_mode="minimize"),
        trial_command=bench.script(trial),
        search_space={"any": "thing"},
        trial_concurrency=1,
        max_trial_number=6,
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 6), (state.reason, state.counts)
    told = checker.parameters(experiment.rows())
    # each trial brought a result and its end; the end may come after the next request
    assert [told[trial, 0]["told"] // 2 for trial in range(6)] in ([0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5])
    assert {told[trial, 0]["mode"] for trial in range(6)} == {"minimize"}
    (error,) = experiment.facts("TUNER_ERROR")
    assert "ended by itself with code 3" in error.body["error"]
    assert not state.warnings  # what it was asked before its death it said again
    assert b"a print of the user's" in (experiment.folder.path / "tuner.log").read_bytes()
    result = json.loads(bench.tune("verify", experiment.id, "--decisions", "--json").stdout)
    assert "not comparable" in result["decisions"]["note"]


def test_one_that_is_deterministic_is_checked_against_the_log(bench: Bench) -> None:
    source = RAISES.replace("parameter_id == 2", "False")
    source = source.replace("class Mine(nni.Tuner):", "class Mine(nni.Tuner):\n    deterministic = True\n")
    trial = "import tune\np = tune.get_next_parameter()\ntune.report_final_result({'default': p['x'], 'loss': [1]})\n"
    experiment = bench.experiment(
        tuner=own(bench, source, "Mine"), trial_command=bench.script(trial), search_space={}, max_trial_number=6
    )
    assert experiment.run().status == "DONE"
    result = json.loads(bench.tune("verify", experiment.id, "--decisions", "--json").stdout)
    assert result["ok"] and result["decisions"]["suggestions"] == 6, result
    (bench.code / "mine.py").write_text(source.replace("random.random()", "random.random() / 2"))
    result = json.loads(bench.tune("verify", experiment.id, "--decisions", "--json").stdout)
    assert not result["decisions"]["ok"] and "trial 0, parameters" in result["decisions"]["divergence"], result


def test_one_that_says_another_thing_is_told_of_once_and_the_log_holds(bench: Bench) -> None:
    source = "import os\nclass Mine:\n"
    source += "    def generate_parameters(self, parameter_id): return {'x': 1, 'pid': os.getpid()}\n"
    source += "    def receive_trial_result(self, parameter_id, parameters, value): self.last = parameters\n"
    experiment = bench.experiment(tuner=own(bench, source, "Mine"), max_trial_number=3, trial_command=bench.fake())
    state = experiment.run()
    before = checker.parameters(experiment.rows())
    experiment.start(limits(max_trial_number=5))
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"], state.tuner_errors) == ("DONE", 5, 0)
    (warning,) = state.warnings
    assert warning.startswith("asked again for trial 0, the tuner says")
    assert {key: value for key, value in checker.parameters(experiment.rows()).items() if key in before} == before
    assert warning[:40] in bench.tune("status", experiment.id).stdout


ADVISOR = """
import json
from nni.runtime.msg_dispatcher_base import MsgDispatcherBase
from nni.runtime.protocol import CommandType, send

class Halving(MsgDispatcherBase):
    def __init__(self):
        self.made, self.best = 0, None

    def handle_initialize(self, data):
        self.space = data
        send(CommandType.Initialized, '')

    def handle_request_trial_jobs(self, data):
        for _ in range(data):
            self.new()

    def new(self):
        if self.made == 6:
            send(CommandType.NoMoreTrialJobs, json.dumps({'parameter_id': 'none', 'parameters': ''}))
            return
        name = 'id_%d' % self.made
        send(CommandType.NewTrialJob, json.dumps({'parameter_id': name, 'parameter_source': 'algorithm',
                                                  'parameters': {'n': self.made, 'x': self.made / 10}}))
        self.made += 1

    def handle_report_metric_data(self, data):
        value = json.loads(data['value'])
        if data['type'] == 'PERIODICAL' and data['parameter_id'] == 'id_1':
            send(CommandType.KillTrialJob, json.dumps(data['trial_job_id']))

    def handle_trial_end(self, data):
        json.loads(data['hyper_params'])['parameter_id']
"""


def test_an_advisor_runs_an_experiment_to_its_end(bench: Bench) -> None:
    tuner = own(bench, ADVISOR, "Halving")
    command = bench.fake(steps=30, sleep=0.02)
    experiment = bench.experiment(tuner=tuner, trial_command=command, max_trial_number=None, trial_concurrency=2)
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 2)
    experiment.kill_engine()
    experiment.start()
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"], state.counts["EARLY_STOPPED"]) == ("DONE", 5, 1), state.reason
    assert [checker.parameters(experiment.rows())[trial, 0]["n"] for trial in range(6)] == list(range(6))
    assert state.trial(1).status == "EARLY_STOPPED" and not state.warnings


ASSESSOR = """
from nni.assessor import Assessor, AssessResult
class Low(Assessor):
    def assess_trial(self, trial_job_id, trial_history):
        return AssessResult.Bad if len(trial_history) > 3 and trial_history[0] < 0.5 else AssessResult.Good
"""


def test_an_assessor_in_nnis_style(bench: Bench) -> None:
    (bench.code / "judge.py").write_text(ASSESSOR)
    experiment = bench.experiment(
        assessor={"class_name": "judge.Low", "code_directory": str(bench.code)},
        trial_command=bench.fake(steps=40, sleep=0.02),
        max_trial_number=6,
        trial_concurrency=3,
    )
    state = experiment.run()
    low = {trial.number for trial in state.made if trial.phases[0].intermediate[0] < 0.5}
    assert low and {trial.number for trial in state.made if trial.status == "EARLY_STOPPED"} == low
    assert "assessed as bad" in state.trial(min(low)).reason


def test_results_of_a_trial_that_was_queued_by_hand_reach_the_tuner(bench: Bench) -> None:
    trial = "import time, tune\np = tune.get_next_parameter()\ntime.sleep(0.2)\n"
    trial += "tune.report_final_result({'default': p['x'], 'loss': [1]})\n"
    experiment = bench.experiment(
        tuner=own(bench, RAISES.replace("parameter_id == 2", "False"), "Mine"),
        trial_command=bench.script(trial),
        search_space={},
        trial_concurrency=1,
        max_trial_number=4,
    )
    experiment.start()
    experiment.until(lambda state: state.active)
    assert experiment.ask(AskTrial("test", '{"x": 9}'))
    state = experiment.finish()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4)
    assert state.best is not None and state.best.value == 9


V1 = """
authorName: nni
experimentName: sharing
trialConcurrency: 4
maxExecDuration: 1h
maxTrialNum: 6
trainingServicePlatform: local
searchSpacePath: space.json
useAnnotation: false
multiThread: true
tuner: {codeDir: ., classFileName: mine.py, className: SharingTuner, classArgs: {save_dir_root: weights, fathers: 2}}
trial: {command: python trial.py, codeDir: ., gpuNum: 0}
"""


def test_an_experiment_of_nni_1_runs_from_its_own_file(bench: Bench) -> None:
    """The config file and the tuner as they are; of the trial only the import is another one."""
    (bench.code / "mine.py").write_text(SHARING)
    bench.script(READS.format(pause=0.2))
    (bench.code / "space.json").write_text('{"any": [1, 100]}')
    (bench.code / "config.yml").write_text(V1)
    (bench.code / "weights").mkdir()
    result = bench.tune("create", bench.code / "config.yml", "--json")
    assert result.returncode == 0, result.stderr
    status = json.loads(result.stdout)
    assert (status["status"], status["counts"]["SUCCEEDED"]) == ("DONE", 6)
    (experiment,) = bench.find_all()
    assert_inherited(experiment)
