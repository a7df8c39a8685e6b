"""Trials that compute with PyTorch on the GPUs of this machine, alone, together, and beside another program."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from harness import Bench, Experiment

from tune.trial_sdk.nvml import Nvml

TRAINS = """
import json, os, time
import torch
import tune
x = tune.get_next_parameter()["x"]
seen = torch.cuda.device_count()
line = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "seen": seen, "begin": time.time()}
if seen:
    left = torch.randn(1024, 1024, device="cuda")
    for step in range(20):
        left = torch.tanh(left @ left.T / 1024 + x)
        tune.report_intermediate_result(float(left.mean()))
        time.sleep(0.05)
    line["name"] = torch.cuda.get_device_name(0)
line["end"] = time.time()
print(json.dumps(line))
tune.report_final_result(x)
"""
HOLDS = "import sys, torch; held = torch.zeros(1 << 20, device='cuda'); print('held', flush=True); sys.stdin.read()"


def said(experiment: Experiment) -> list[dict[str, Any]]:
    """What the trials printed, in the order in which they began."""
    lines = [json.loads(path.read_text()) for path in experiment.folder.trials.glob("*/0/stdout") if path.read_text()]
    return sorted(lines, key=lambda line: line["begin"])


def most_at_once(lines: list[dict[str, Any]]) -> int:
    return max(sum(one["begin"] < other["end"] and other["begin"] <= one["begin"] for other in lines) for one in lines)


def test_the_driver_is_asked() -> None:
    gpus, wrong = Nvml().look()
    shown = subprocess.run(
        ["nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert not wrong and [(gpu.uuid, gpu.name) for gpu in gpus] == [tuple(line.split(", ")[:2]) for line in shown]
    assert all(abs(gpu.memory / 2**20 - float(line.split(", ")[2])) < 1 for gpu, line in zip(gpus, shown, strict=True))


@pytest.mark.parametrize("most", [1, 3])
def test_trials_get_the_gpu_and_share_it_as_far_as_they_may(bench: Bench, most: int) -> None:
    experiment = bench.experiment(
        trial_command=bench.script(TRAINS),
        trial_gpu_number=1,
        trial_concurrency=3,
        max_trial_number=6,
        training_service={"platform": "local", "max_trial_number_per_gpu": most, "use_active_gpu": True},
    )
    assert experiment.run(200).counts["SUCCEEDED"] == 6
    lines = said(experiment)
    assert len(lines) == 6 and all(line["seen"] == 1 and line["name"] for line in lines)
    count = len(Nvml().look()[0])
    assert most_at_once(lines) <= min(3, most * count)


def test_without_gpus_none_is_seen(bench: Bench) -> None:
    experiment = bench.experiment(trial_command=bench.script(TRAINS), trial_gpu_number=0, max_trial_number=2)
    assert experiment.run(200).counts["SUCCEEDED"] == 2
    assert [line["seen"] for line in said(experiment)] == [0, 0]


def test_two_experiments_do_not_share_a_gpu(bench: Bench) -> None:
    count = len(Nvml().look()[0])
    both = [
        bench.experiment(
            trial_command=bench.script(TRAINS), trial_gpu_number=count, trial_concurrency=2, max_trial_number=3
        )
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        assert one.finish(200).counts["SUCCEEDED"] == 3
    assert most_at_once(sorted(said(both[0]) + said(both[1]), key=lambda line: line["begin"])) == 1


def test_another_programs_gpu_is_left_alone_until_it_is_free(bench: Bench) -> None:
    count = len(Nvml().look()[0])
    other = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        experiment = bench.experiment(
            trial_command=bench.script(TRAINS), trial_gpu_number=count, trial_concurrency=1, max_trial_number=1
        )
        experiment.start()
        experiment.until(lambda state: any(host.devices for host in state.hosts.values()) and state.ready)
        trials = json.loads(bench.tune("trials", experiment.id, "--json").stdout)
        assert "in use by other processes" in trials[0]["reason"], trials[0]
    finally:
        other.kill()
        other.communicate(timeout=20)
    assert experiment.finish(100).counts["SUCCEEDED"] == 1
