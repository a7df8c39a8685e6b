"""Experiments on the GPUs of this machine: what trials see of them, asked of the driver from inside the trials."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import pytest

from tune.engine import views
from tune.engine.state import State
from tune.trial_sdk.nvml import Gpu, Nvml

CUDA = '''
import ctypes, os, sys, time, uuid

def visible():
    """The GPUs that CUDA shows to this process: their uuids."""
    cuda = ctypes.CDLL("libcuda.so.1")
    code = cuda.cuInit(0)
    if code == 100:  # CUDA_ERROR_NO_DEVICE
        return []
    assert code == 0, f"cuInit: {code}"
    count = ctypes.c_int()
    assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    found = []
    for index in range(count.value):
        raw = (ctypes.c_ubyte * 16)()
        assert cuda.cuDeviceGetUuid(raw, index) == 0
        found.append(f"GPU-{uuid.UUID(bytes=bytes(raw))}")
    return found

def compute():
    """Hold a context with some memory on the first GPU, as a training does."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, memory = ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.cuInit(0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
    assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(64 << 20)) == 0
'''
TRIAL = (
    CUDA
    + """
import json, tune
x = tune.get_next_parameter()["x"]
def say(event, **more):
    line = {"e": event, "t": time.time(), "experiment": tune.get_experiment_id(), "trial": tune.get_sequence_id()}
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (json.dumps({**line, **more}) + "\\n").encode())
gpus = visible()
if gpus:
    compute()
say("begin", gpus=gpus, variable=os.environ.get("CUDA_VISIBLE_DEVICES"))
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
say("end", gpus=gpus)
tune.report_final_result(x)
"""
)
STRANGER = CUDA + "compute()\nprint('computes', flush=True)\nsys.stdin.read()\n"


@pytest.fixture(scope="module")
def gpus() -> list[Gpu]:
    """The GPUs of this machine, one at least."""
    found, wrong = Nvml().look()
    assert found, f"no GPU on this machine: {wrong or 'NVML knows none'}"
    return found


class Rig:
    """A bench with trials that tell what they see."""

    def __init__(self, bench: harness.Bench, base: Path) -> None:
        self.bench, self.go, self.witness = bench, base / "go", base / "seen.jsonl"
        self.command = f"{bench.script(TRIAL)} {self.witness} {self.go}"

    def experiment(self, **fields: Any) -> harness.Experiment:
        settings = {"trial_command": self.command, "trial_gpu_number": 1, "trial_concurrency": 9, **fields}
        return self.bench.experiment(**settings)

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.witness.read_text().splitlines()] if self.witness.exists() else []


@pytest.fixture
def rig(bench: harness.Bench, tmp_path: Path, gpus: list[Gpu]) -> Rig:
    return Rig(bench, tmp_path)


def only_first(**more: Any) -> dict[str, Any]:
    return {"platform": "local", "gpu_indices": [0], **more}


def most_at_once(said: list[dict[str, Any]]) -> int:
    users: dict[str, int] = {}
    most = 0
    for line in sorted(said, key=lambda line: line["t"]):
        for gpu in line["gpus"]:
            users[gpu] = users.get(gpu, 0) + (1 if line["e"] == "begin" else -1)
            most = max(most, users[gpu])
    return most


def waiting(state: State) -> str:
    [number] = list(state.ready)[:1] or [-1]
    return views.reason(state, state.trial(number)) if number >= 0 else ""


def test_nvml_tells_what_nvidia_smi_tells(gpus: list[Gpu]) -> None:
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [f"{gpu.index}, {gpu.uuid}, {gpu.name}" for gpu in gpus] == told
    assert all(gpu.memory > 1 << 30 for gpu in gpus)


def test_each_trial_sees_the_gpu_that_it_was_given_and_no_other(rig: Rig, gpus: list[Gpu]) -> None:
    experiment = rig.experiment(max_trial_number=len(gpus) + 2)
    rig.go.touch()
    state = experiment.run()
    assert state.counts["SUCCEEDED"] == len(gpus) + 2, [one.stderr for one in state.made]
    by_trial = {line["trial"]: line["gpus"] for line in rig.said()}
    assert by_trial == {one.number: one.devices for one in state.made}
    assert all(len(seen) == 1 for seen in by_trial.values()) and most_at_once(rig.said()) == 1


def test_a_trial_that_wants_all_gpus_sees_them_all(rig: Rig, gpus: list[Gpu]) -> None:
    rig.go.touch()
    state = rig.experiment(max_trial_number=2, trial_gpu_number=len(gpus)).run()
    assert state.counts["SUCCEEDED"] == 2
    assert all(sorted(line["gpus"]) == sorted(gpu.uuid for gpu in gpus) for line in rig.said())


def test_a_trial_that_wants_none_sees_none(rig: Rig) -> None:
    rig.go.touch()
    state = rig.experiment(max_trial_number=1, trial_gpu_number=0).run()
    assert state.counts["SUCCEEDED"] == 1
    assert rig.said()[0]["gpus"] == [] and rig.said()[0]["variable"] == ""


def test_one_gpu_more_than_there_are_is_said_at_once(rig: Rig, gpus: list[Gpu]) -> None:
    state = rig.experiment(trial_gpu_number=len(gpus) + 1).run()
    assert state.status == "PAUSED" and f"local has {len(gpus)} GPU" in state.reason


def test_a_trial_s_own_process_is_no_stranger(rig: Rig, gpus: list[Gpu]) -> None:
    service = only_first(max_trial_number_per_gpu=2)
    experiment = rig.experiment(max_trial_number=3, training_service=service)
    experiment.start()
    state = experiment.until(lambda state: state.counts["RUNNING"] == 2 and state.ready)
    assert "0 in use by trials 0 and 1" in waiting(state)
    rig.go.touch()
    assert experiment.finish().counts["SUCCEEDED"] == 3
    assert most_at_once(rig.said()) == 2


def test_a_stranger_on_the_gpu_is_waited_for(rig: Rig, gpus: list[Gpu]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        try:
            assert stranger.stdout is not None and stranger.stdout.readline() == "computes\n"
            experiment = rig.experiment(max_trial_number=1, training_service=only_first())
            experiment.start()
            experiment.until(lambda state: "0 in use by other processes (use_active_gpu = false)" in waiting(state))
        finally:
            stranger.communicate("")
    experiment.until(lambda state: state.counts["RUNNING"])
    rig.go.touch()
    assert experiment.finish().counts["SUCCEEDED"] == 1


def test_two_experiments_take_turns_on_one_gpu(rig: Rig, gpus: list[Gpu]) -> None:
    first, second = (rig.experiment(max_trial_number=1, training_service=only_first()) for _ in range(2))
    first.start()
    first.until(lambda state: state.counts["RUNNING"])
    second.start()
    second.until(lambda state: "0 in use by another experiment" in waiting(state))
    rig.go.touch()
    assert (first.finish().status, second.finish().status) == ("DONE", "DONE")
    assert most_at_once(rig.said()) == 1
