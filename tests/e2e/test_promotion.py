"""Promotion for real: trials that go on with checkpoints of others, through engine, keeper and tuner host, also when
the engine is killed with -9 in the middle."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import checker
import pytest
from harness import Bench, Experiment, gone

from tune.engine.decisions import check_decisions
from tune.engine.verify import verify

TRIAL = """
import json, sys, time
from pathlib import Path
import tune

p = tune.get_next_parameter()
load, save = Path(p["load_checkpoint_dir"]), Path(p["save_checkpoint_dir"])
assert load.is_absolute() and save.is_dir()
epochs = json.loads((load / "epochs").read_text()) if (load / "epochs").exists() else []
budget = p.get("TRIAL_BUDGET", len(epochs) + 2)  # a step of a population is two epochs
while len(epochs) < budget:
    time.sleep(0.01)
    epochs.append(tune.get_sequence_id())
    tune.report_intermediate_result(len(epochs))
(save / "epochs.new").write_text(json.dumps(epochs))
(save / "epochs.new").replace(save / "epochs")
if "fail" in sys.argv and tune.get_sequence_id() % 5 == 2:
    sys.exit(1)  # it has saved, and is never continued all the same
tune.report_final_result(-abs(p["x"] - 0.3) - 1 / len(epochs))
"""


def made(bench: Bench, name: str, trials: int, *, workers: int, words: str = "", **arguments: Any) -> Experiment:
    """An experiment with a tuner that promotes."""
    return bench.experiment(
        tuner={"name": name, "class_args": {"optimize_mode": "maximize", **arguments}},
        trial_command=f"{bench.script(TRIAL)} {words}",
        trial_concurrency=workers,
        max_trial_number=trials,
    )


def answers(experiment: Experiment) -> list[dict[str, Any]]:
    """The PARAMETER facts by trial: parameters, continues, budget."""
    bodies = {row.trial: row.body for row in experiment.facts("PARAMETER")}
    keys = ("parameters", "continues", "budget")
    return [{key: bodies[number].get(key) for key in keys} for number in range(len(bodies))]


def exact(experiment: Experiment, trials: int) -> int:
    """Every promotion is what the tuner would say again, and trained on what its parent left; how many there are."""
    state = experiment.finish()
    assert (state.status, len(state.made)) == ("DONE", trials), (state.status, state.reason, state.counts)
    assert verify(experiment.folder.events).ok
    found = check_decisions(experiment.folder)
    assert found.ok and found.suggestions == trials, found.divergence
    told = answers(experiment)
    rows = experiment.rows()
    ended = {row.trial: row.seq for row in rows if row.kind == "TRIAL_END"}
    launched = {row.trial: row.seq for row in rows if row.kind == "LAUNCH"}
    seen: set[str] = set()
    for number, answer in enumerate(told):
        folder = answer["parameters"]["save_checkpoint_dir"]
        assert folder.startswith("checkpoints/") and folder not in seen
        seen.add(folder)
        path = experiment.folder.path / folder / "epochs"
        epochs = json.loads(path.read_text())
        before: list[int] = []
        parent = answer["continues"]
        if parent is not None:
            assert state.trial(number).continues == parent
            assert state.trial(parent).status == "SUCCEEDED" and ended[parent] < launched[number]
            before_path = experiment.folder.path / told[parent]["parameters"]["save_checkpoint_dir"] / "epochs"
            before = json.loads(before_path.read_text())
        assert epochs == before + [number] * (len(epochs) - len(before))
        if answer["budget"] is not None:
            assert len(epochs) == answer["budget"] == answer["parameters"]["TRIAL_BUDGET"]
    experiment.assert_nothing_left()
    return sum(answer["continues"] is not None for answer in told)


@pytest.mark.parametrize("seed", range(3))
def test_asha_with_an_engine_that_is_killed_promotes_exactly(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    experiment = made(bench, "ASHA", 30, workers=3, words="fail", max_budget=9)
    experiment.start()
    for _ in range(3):
        wait = dice.uniform(0.2, 1.5)
        print(f"seed {seed}: kill after {wait:.4f} s")
        time.sleep(wait)
        if gone(experiment.pid, 0):
            break
        experiment.kill_engine()
        experiment.start()
    assert exact(experiment, 30) >= 5
    parents = [answer["continues"] for answer in answers(experiment) if answer["continues"] is not None]
    assert len(set(parents)) == len(parents)
    assert experiment.state().counts["FAILED"] == 6


def test_one_at_a_time_it_says_what_an_undisturbed_run_says(bench: Bench) -> None:
    calm = made(bench, "ASHA", 14, workers=1, max_budget=9)
    calm.start()
    assert exact(calm, 14) >= 3
    experiment = made(bench, "ASHA", 14, workers=1, max_budget=9)
    experiment.start()
    for metrics in (4, 12):
        experiment.until(lambda state, least=metrics: state.metrics >= least)
        experiment.kill_engine()
        experiment.start()
    exact(experiment, 14)
    assert answers(experiment) == answers(calm)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Hyperband", {"R": 9, "eta": 3, "exec_mode": "parallelism"}),
        ("Hyperband", {"R": 9, "eta": 3, "exec_mode": "serial"}),
        ("BOHB", {"min_budget": 1, "max_budget": 9, "eta": 3}),
        ("DEHB", {"max_budget": 9}),
        ("PASHA", {"max_budget": 9}),
    ],
)
def test_nni_23_tuners_with_budgets_run_to_the_end(bench: Bench, name: str, arguments: dict[str, Any]) -> None:
    experiment = made(bench, name, 16, workers=3, **arguments)
    experiment.start()
    assert exact(experiment, 16) >= 2


@pytest.mark.parametrize("name", ["PBT", "PB2"])
def test_nni_22_a_population_takes_its_documented_arguments_and_goes_on(bench: Bench, name: str) -> None:
    arguments = {"population_size": 4, "factor": 0.2, "resample_probability": 0.25, "fraction": 0.25}
    experiment = made(bench, name, 16, workers=2, **arguments)
    experiment.start()
    assert exact(experiment, 16) == 12


def test_a_stop_in_the_middle_and_a_resume_lose_no_promotion(bench: Bench) -> None:
    experiment = made(bench, "Hyperband", 14, workers=3, R=9)
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 6)
    assert bench.tune("stop", experiment.id).returncode == 0
    experiment.start()
    assert exact(experiment, 14) >= 3


def test_trials_say_which_one_they_continue(bench: Bench) -> None:
    experiment = made(bench, "ASHA", 6, workers=1, max_budget=3)
    experiment.start()
    experiment.finish()
    listed = json.loads(bench.tune("trials", experiment.id, "--json").stdout)
    told = answers(experiment)
    assert [trial["continues"] for trial in listed] == [answer["continues"] for answer in told]
    assert [trial["parameters"] for trial in listed] == list(checker.parameters(experiment.rows()).values())
    child = next(trial for trial in listed if trial["continues"] is not None)
    lines = bench.tune("trials", experiment.id).stdout.splitlines()
    assert lines[0].split().index("FROM") == 5
    assert lines[1 + child["number"]].split()[5] == str(child["continues"])
    log = Path(experiment.folder.events).read_bytes()
    assert str(experiment.folder.path).encode() + b"/checkpoints" not in log  # the log names no place of this machine
