"""Constraints, several objectives, outcome constraints and warm starts, on whole experiments by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import PATIENCE, Bench, steps

SPACE = {
    "batch": {"_type": "choice", "_value": [8, 64, 512]},
    "width": {"_type": "randint", "_value": [1, 1000]},
    "opt": {
        "_type": "choice",
        "_value": [{"_name": "sgd", "lr": {"_type": "uniform", "_value": [0, 1]}}, {"_name": "adam"}],
    },
}
CONSTRAINTS = ["batch * width <= 65536", "not (opt == 'sgd' and lr > 0.5)"]
REPORTS = """
import tune
p = tune.get_next_parameter()
size = p["batch"] * p["width"]
tune.report_intermediate_result({"accuracy": size / 65536, "latency": p["width"]})
tune.report_final_result({"accuracy": size / 65536, "latency": p["width"], "memory": p["batch"]})
"""
TWO = {"accuracy": "maximize", "latency": "minimize"}
FIRST = {"batch": 512, "width": 128, "opt": {"_name": "adam"}}


def settings(bench: Bench, script: str = REPORTS, **fields: Any) -> Path:
    """A config with constraints, as a file; `fields` win."""
    base = {"search_space": SPACE, "constraints": CONSTRAINTS, "trial_command": bench.script(script)}
    return bench.config_file(**{**base, **fields})


def allowed(parameters: dict[str, Any]) -> bool:
    """The two constraints, in Python."""
    slow = parameters["opt"]["_name"] != "sgd" or parameters["opt"]["lr"] <= 0.5
    return parameters["batch"] * parameters["width"] <= 65536 and slow


def test_every_trial_meets_the_constraints(bench: Bench) -> None:
    script = REPORTS.replace("accuracy", "default")
    for tuner in ("Random", "TPE", "GridSearch"):
        limits = ["memory < 100"]
        path = settings(bench, script, tuner={"name": tuner}, max_trial_number=12, outcome_constraints=limits)
        done = bench.tune("create", path, "--id", tuner)
        assert done.returncode == 0, done.stderr
        trials = json.loads(bench.tune("trials", tuner, "--json").stdout)
        assert len(trials) == 12 and all(allowed(trial["parameters"]) for trial in trials)
        best = json.loads(bench.tune("best", tuner, "--json").stdout)
        feasible = [trial for trial in trials if trial["final"]["memory"] < 100]
        assert best["value"] == max(trial["final"]["default"] for trial in feasible)
        assert [trial["phases"][0]["violation"] for trial in trials] == [
            0.0 if trial["final"]["memory"] < 100 else 412.0 for trial in trials
        ]
        assert "12 suggestions" in bench.tune("verify", tuner, "--decisions").stdout
    bench.find_all()


def test_several_objectives_from_config_to_front(bench: Bench) -> None:
    path = settings(
        bench, objectives=TWO, outcome_constraints=["memory < 100"], initial_parameters=[FIRST], max_trial_number=10
    )
    done = bench.tune("create", path, "--id", "two")
    assert done.returncode == 0, done.stderr
    status = json.loads(bench.tune("status", "two", "--json").stdout)
    trials = json.loads(bench.tune("trials", "two", "--json").stdout)
    assert trials[0]["parameters"] == FIRST and len(trials) == 10
    finals = {
        trial["number"]: (trial["final"]["accuracy"], -trial["final"]["latency"])
        for trial in trials
        if trial["final"]["memory"] < 100
    }
    unbeaten = [
        number
        for number, (accuracy, fast) in finals.items()
        if not any((a, f) != (accuracy, fast) and a >= accuracy and f >= fast for a, f in finals.values())
    ]
    assert status["best"] is None and status["optimize_mode"] == "maximize"
    assert sorted(one["trial"] for one in status["pareto"]) == sorted(unbeaten)
    assert json.loads(bench.tune("best", "two", "--json").stdout) == status["pareto"]
    numbers = " ".join(str(one["trial"]) for one in status["pareto"])
    assert done.stdout.splitlines()[-1] == f"DONE pareto {len(unbeaten)} trials {numbers}"
    assert len(bench.tune("best", "two").stdout.splitlines()) == 1 + len(unbeaten)
    again = bench.tune("resume", "two", "--max-trials", 11)
    assert again.returncode == 0 and again.stdout.splitlines()[-1].startswith("DONE pareto "), again.stderr
    bench.find_all()


def test_results_go_from_one_experiment_to_another(bench: Bench) -> None:
    path = settings(bench, objectives=TWO, max_trial_number=5)
    assert bench.tune("create", path, "--id", "first").returncode == 0
    narrow = {**SPACE, "width": {"_type": "randint", "_value": [1, 400]}}
    path = settings(bench, objectives=TWO, max_trial_number=3, search_space=narrow)
    assert bench.tune("create", path, "--id", "second").returncode == 0
    trials = json.loads(bench.tune("trials", "first", "--json").stdout)
    inside = [trial for trial in trials if trial["parameters"]["width"] < 400]
    known: list[Any] = []
    for suffix in ("csv", "json", "jsonl", ""):
        file = bench.base / f"results.{suffix}"
        if suffix:
            assert bench.tune("export", "first", "-o", file).returncode == 0
            done = bench.tune("import", file, "second")
        else:
            done = bench.tune("import", "second", "--from", "first")
        assert done.returncode == 0, done.stderr
        assert f"{len(inside)} results imported" in done.stdout
        assert (f"{5 - len(inside)} skipped: outside" in done.stderr) == (len(inside) < 5)
        known += [(trial["parameters"], trial["final"]) for trial in inside]
    tail = bench.tune("tail", "second", "--json", "--lines", 1000).stdout
    bodies = [json.loads(line)["body"] for line in tail.splitlines() if json.loads(line)["kind"] == "IMPORT"]
    assert [(body["parameters"], body["value"]) for body in bodies] == known
    done = bench.tune("resume", "second", "--max-trials", 5)  # a tuner that is rebuilt learns from them too
    assert done.returncode == 0, done.stderr
    assert bench.tune("verify", "second").returncode == 0
    bench.find_all()


def test_a_trial_is_added_to_a_running_and_to_an_ended_experiment(bench: Bench) -> None:
    hold = bench.base / "go"
    space = {"x": {"_type": "uniform", "_value": [0, 1]}}
    path = bench.config_file(
        search_space=space,
        constraints=["x != 0.25"],
        trial_command=bench.fake(hold=str(hold), steps=1),
        trial_concurrency=1,
        max_trial_number=3,
    )
    started = bench.tune("create", path, "--id", "mine", "--detach")
    assert started.returncode == 0, started.stderr
    [experiment] = bench.find_all()
    experiment.until(lambda state: state.metrics == 1)
    assert bench.tune("trial", "add", '{"x": 0.5}').stdout == 'queued: {"x":0.5}\n'
    for wrong in ('{"x": 0.25}', '{"x": 2}', "{}"):
        refused = bench.tune("trial", "add", wrong)
        assert refused.returncode == 2 and "outside the search space" in refused.stderr
    hold.touch()
    state = experiment.until(lambda state: state.status == "DONE")
    assert json.loads(bytes(state.trial(1).phases[0].parameters)) == {"x": 0.5}
    assert [trial.origin for trial in state.made] == ["tuner", "user", "tuner"]
    experiment.assert_nothing_left()
    refused = bench.tune("trial", "add", '{"x": 0.125}')
    assert refused.returncode == 1 and "tune update --max-trials" in refused.stderr
    assert bench.tune("update", "--max-trials", 4).returncode == 0
    assert "tune resume mine" in bench.tune("trial", "add", '{"x": 0.125}').stdout
    done = bench.tune("resume", "mine")
    assert done.returncode == 0, done.stderr
    assert "trial 3 SUCCEEDED" in done.stdout and '{"x": 0.125}' in done.stdout


def test_results_are_imported_while_the_engine_runs_in_their_order(bench: Bench) -> None:
    hold = bench.base / "go"
    path = bench.config_file(trial_command=bench.fake(hold=str(hold), steps=1), max_trial_number=1)
    assert bench.tune("create", path, "--id", "many", "--detach").returncode == 0
    [experiment] = bench.find_all()
    file = bench.base / "many.jsonl"
    given = [{"parameter": {"x": number / 500, "n": number}, "value": number} for number in range(450)]
    file.write_text("\n".join(map(json.dumps, given)))
    assert "450 results imported" in bench.tune("import", file).stdout
    values = [row.body["value"] for row in experiment.facts("IMPORT")]
    assert values == list(range(450))
    hold.touch()
    for _ in steps(PATIENCE):
        if experiment.state().status == "DONE":
            break


def test_a_search_space_that_constraints_do_not_fit_changes_nothing(bench: Bench) -> None:
    assert bench.tune("create", settings(bench, objectives=TWO, max_trial_number=1), "--id", "kept").returncode == 0
    [experiment] = bench.find_all()
    before = experiment.rows()
    file = bench.base / "space.json"
    for space, wrong in (
        ({"width": SPACE["width"]}, "'batch * width <= 65536' names 'batch'; allowed: width"),
        ({**SPACE, "width": {"_type": "randint", "_value": [90_000, 99_000]}}, "none of 10000 random points"),
    ):
        file.write_text(json.dumps(space))
        refused = bench.tune("update", "kept", "--search-space", file)
        assert refused.returncode == 2 and wrong in refused.stderr
    assert experiment.rows() == before


def test_what_is_wrong_with_a_config_is_said_before_anything_is_written(bench: Bench) -> None:
    for fields, wrong in (
        ({"objectives": TWO, "tuner": {"name": "TPE"}}, "TPE takes one objective only; tuners that take several:"),
        ({"objectives": {"accuracy": "maximize"}}, "objectives: found 1 objective; allowed: two or more"),
        ({"constraints": ["batch > 1000"]}, "constraints: none of 10000 random points of the search space meets"),
        ({"constraints": ["bacth > 10"]}, "config.yaml:1: constraints[0]: 'bacth > 10' names 'bacth'"),
        ({"outcome_constraints": ["a <"]}, "config.yaml:1: outcome_constraints[0]: 'a <' can't be read"),
        ({"initial_parameters": [{"batch": 8}]}, "initial_parameters[0]: outside the search space: width: missing"),
    ):
        for verb in ("check", "create"):
            done = bench.tune(verb, settings(bench, **fields))
            assert done.returncode == 2 and wrong in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
    assert not bench.home.exists() or list(bench.home.iterdir()) == []
