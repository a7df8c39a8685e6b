"""Trials that want GPUs, end to end: a host with described devices, real engines, keepers and trials."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import harness
import pytest
from lab.fake_nvml import FakeGpus, Gpu, why_not

from tune.engine import views
from tune.engine.requests import AskKill
from tune.engine.state import State

TRIAL = """
import json, os, sys, time, tune
gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
def say(event):
    line = {"t": time.time(), "experiment": tune.get_experiment_id(), "trial": tune.get_sequence_id(), "gpus": gpus}
    line["e"] = event
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (json.dumps(line) + "\\n").encode())
x = tune.get_next_parameter()["x"]
say("begin")
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
time.sleep(0.1)
say("end")
tune.report_final_result(x)
"""


class Rig:
    """A bench whose host has four devices, and trials that write down which they see."""

    def __init__(self, bench: harness.Bench, base: Path) -> None:
        self.bench, self.go, self.witness = bench, base / "go", base / "gpus.jsonl"
        self.command = f"{bench.script(TRIAL)} {self.witness} {self.go}"

    def settings(self, **fields: Any) -> dict[str, Any]:
        return {"trial_command": self.command, "trial_gpu_number": 1, "trial_concurrency": 9, **fields}

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.witness.read_text().splitlines()] if self.witness.exists() else []


@pytest.fixture
def rig(bench: harness.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    folder = tmp_path / "home-of-the-user" / ".tune"
    folder.mkdir(parents=True)
    (folder / "devices.toml").write_text('[[device]]\nname = "Described"\n' * 4)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Rig(bench, tmp_path)


def most_at_once(said: list[dict[str, Any]]) -> int:
    """How many trials were on one device at one time, at most."""
    users: dict[str, int] = {}
    most = 0
    for line in sorted(said, key=lambda line: line["t"]):
        for gpu in line["gpus"].split(","):
            users[gpu] = users.get(gpu, 0) + (1 if line["e"] == "begin" else -1)
            most = max(most, users[gpu])
    return most


def given(state: State) -> list[str]:
    """The devices of each trial, as their indices."""
    [host] = state.hosts.values()
    index = {device.uuid: device.index for device in host.devices or []}
    return [",".join(map(str, sorted(index[uuid] for uuid in one.devices))) for one in state.made]


def running(count: int) -> Any:
    return lambda state: state.counts["RUNNING"] >= count


def test_more_trials_than_gpus_run_one_after_the_other(rig: Rig) -> None:
    experiment = rig.bench.experiment(**rig.settings(max_trial_number=7))
    experiment.start()
    state = experiment.until(lambda state: running(4)(state) and len(state.ready) == 3)
    [host] = views.hosts(state)
    assert [device["trials"] for device in host["devices"]] == [[0], [1], [2], [3]]
    waiting = state.trial(4)
    assert views.reason(state, waiting) == (
        "waits for 1 GPU: host local has 4 GPUs: 0, 1, 2 and 3 in use by trials 0, 1, 2 and 3"
    )
    shown = rig.bench.tune("status", experiment.id).stdout
    assert "Host local  trials 0, 1, 2 and 3; 4 GPUs: 0, 1, 2 and 3 in use by trials" in shown
    rig.go.touch()
    state = experiment.finish()
    assert state.status == "DONE" and state.counts["SUCCEEDED"] == 7
    assert most_at_once(rig.said()) == 1 and {line["gpus"] for line in rig.said()} == {"0", "1", "2", "3"}


def test_two_experiments_never_share_a_gpu(rig: Rig) -> None:
    """Through the command line: the second one's trials start by themselves when the first one's end."""
    first = rig.bench.experiment(**rig.settings(max_trial_number=6, trial_concurrency=3))
    first.start()
    first.until(running(3))
    config = rig.bench.config_file(**rig.settings(max_trial_number=4, trial_concurrency=2))
    made = rig.bench.tune("create", config, "--id", "second", "--detach")
    assert made.returncode == 0, made.stderr
    second = rig.bench.find_all()[-1]
    state = second.until(lambda state: running(1)(state) and state.ready)
    assert "0, 1 and 2 in use by another experiment, 3 in use by trial 0" in views.reason(state, state.trial(1))
    assert most_at_once(rig.said()) == 1
    rig.go.touch()
    assert first.finish().status == "DONE"
    assert second.until(lambda state: state.status == "DONE").counts["SUCCEEDED"] == 4
    assert rig.bench.tune("stop", "second").returncode == 0  # it waits until the engine has gone
    assert most_at_once(rig.said()) == 1
    assert len({line["experiment"] for line in rig.said()}) == 2


def test_a_trial_that_wants_all_gpus_gets_its_turn_beside_many_small_ones(rig: Rig) -> None:
    rig.go.touch()
    small = rig.bench.experiment(**rig.settings(max_trial_number=400, trial_concurrency=4))
    small.start()
    small.until(running(4))
    big = rig.bench.experiment(**rig.settings(max_trial_number=2, trial_gpu_number=4))
    state = big.run()
    assert state.counts["SUCCEEDED"] == 2
    seen = small.state()
    assert seen.status == "RUNNING" and len(seen.trials) < 400
    small.until(lambda state: state.counts["SUCCEEDED"] > seen.counts["SUCCEEDED"])  # and goes on
    assert rig.bench.tune("stop", small.id, "--force").returncode == 0
    assert most_at_once([line for line in rig.said() if line["experiment"] == big.id]) == 1


def test_a_killed_engine_finds_its_trials_on_their_gpus(rig: Rig) -> None:
    experiment = rig.bench.experiment(**rig.settings(max_trial_number=6, trial_gpu_number=2))
    experiment.start()
    experiment.until(running(2))
    before = {one.number: (one.pid, one.devices) for one in experiment.state().made if one.status == "RUNNING"}
    experiment.kill_engine()
    os.kill(experiment.keeper_pid(), signal.SIGKILL)
    experiment.start()
    state = experiment.until(lambda state: state.epoch == 2 and any(host.devices for host in state.hosts.values()))
    assert {one.number: (one.pid, one.devices) for one in state.made if one.status == "RUNNING"} == before
    rig.go.touch()
    assert experiment.finish().counts["SUCCEEDED"] == 6
    assert most_at_once(rig.said()) == 1


def test_killing_a_trial_frees_its_gpu(rig: Rig) -> None:
    experiment = rig.bench.experiment(**rig.settings(max_trial_number=2, trial_gpu_number=4))
    experiment.start()
    experiment.until(lambda state: running(1)(state) and state.ready)
    killed = rig.bench.tune("trial", "kill", "0", "--id", experiment.id)
    assert killed.returncode == 0, killed.stderr
    state = experiment.until(lambda state: state.trial(1).status == "RUNNING")
    assert state.trial(0).status == "USER_CANCELED" and len(state.trial(1).devices) == 4
    experiment.ask(AskKill("test", 1))
    experiment.finish()


def test_more_gpus_than_there_are_are_said_at_once(rig: Rig) -> None:
    config = rig.bench.config_file(**rig.settings(trial_gpu_number=5))
    made = rig.bench.tune("create", config, "--id", "big")
    assert made.returncode == 1
    assert "PAUSED: a trial wants 5 GPUs (trial_gpu_number = 5), and no host has as many: local has 4" in made.stdout


def test_the_tuner_host_sees_its_own_gpus(rig: Rig) -> None:
    experiment = rig.bench.experiment(**rig.settings(max_trial_number=1, trial_gpu_number=0, tuner_gpu_indices=[1, 3]))
    experiment.start()
    experiment.until(running(1))
    environment = Path(f"/proc/{experiment.tuner_host_pid()}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=1,3" in environment
    rig.go.touch()
    assert experiment.finish().status == "DONE"
    assert {line["gpus"] for line in rig.said()} == {""}


def test_the_log_tells_who_had_which_gpu(rig: Rig) -> None:
    rig.go.touch()
    experiment = rig.bench.experiment(**rig.settings(max_trial_number=3, trial_concurrency=1))
    experiment.run()
    with sqlite3.connect(experiment.folder.events) as log:
        devices = log.execute("SELECT body FROM event WHERE kind = 'DEVICES'").fetchall()
        launches = [json.loads(body) for (body,) in log.execute("SELECT body FROM event WHERE kind = 'LAUNCH'")]
    log.close()
    assert len(devices) == 1 and len(launches) == 3
    known = {device["uuid"] for device in json.loads(devices[0][0])["devices"]}
    assert all(len(launch["devices"]) == 1 and launch["devices"][0] in known for launch in launches)


# -- by NVML ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def gpus(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """A host whose NVML tells what the test wants; it describes no devices."""
    assert not why_not(), why_not()
    (Path(os.environ["HOME"]) / ".tune" / "devices.toml").unlink()
    made = FakeGpus(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_gpus_on_which_others_compute_are_waited_for(rig: Rig, gpus: FakeGpus) -> None:
    gpus.tell(Gpu(processes=((os.getpid(), 1 << 30),)), *[Gpu(graphics=((os.getpid(), 1 << 20),))] * 7)
    experiment = rig.bench.experiment(**rig.settings(max_trial_number=9))
    experiment.start()
    state = experiment.until(lambda state: running(7)(state) and len(state.ready) == 2)
    assert "0 in use by other processes (use_active_gpu = false)" in views.reason(state, state.trial(7))
    assert sorted(given(state)[:7]) == [str(index) for index in range(1, 8)]
    # now the trials compute too, each on its own GPU, and the stranger has gone
    pids = {state.trial(number).devices[0]: state.trial(number).pid or 0 for number in range(7)}
    [host] = state.hosts.values()
    gpus.tell(*[Gpu(processes=[(pids[one.uuid], 1 << 30)] if one.uuid in pids else []) for one in host.devices or []])
    state = experiment.until(running(8))
    assert [device.busy for host in state.hosts.values() for device in host.devices or []] == [False] * 8
    rig.go.touch()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 9
    assert {line["trial"]: line["gpus"] for line in rig.said()} == dict(enumerate(given(state)))
    assert most_at_once(rig.said()) == 1


def test_two_trials_on_each_gpu_and_two_gpus_for_each_trial(rig: Rig, gpus: FakeGpus) -> None:
    gpus.tell(*[Gpu(processes=((os.getpid(), None),))] * 8)
    service = {"max_trial_number_per_gpu": 2, "gpu_indices": [1, 3, 5, 6], "use_active_gpu": True}
    settings = rig.settings(max_trial_number=6, trial_gpu_number=2, training_service={"platform": "local", **service})
    experiment = rig.bench.experiment(**settings)
    experiment.start()
    state = experiment.until(lambda state: running(4)(state) and len(state.ready) == 2)
    assert sorted(given(state)[:4]) == ["1,3", "1,3", "5,6", "5,6"]
    rig.go.touch()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 6
    assert {line["trial"]: line["gpus"] for line in rig.said()} == dict(enumerate(given(state)))
    assert most_at_once(rig.said()) == 2


def test_a_driver_that_does_not_answer_is_named(rig: Rig, gpus: FakeGpus) -> None:
    gpus.tell(Gpu(), errors={"nvmlInit": 9})
    state = rig.bench.experiment(**rig.settings(max_trial_number=1)).run()
    assert state.status == "PAUSED"
    assert state.reason.endswith("no host has as many: local has no GPU (nvmlInit_v2: Driver Not Loaded)")
