"""Odd things that trials report: each by the rule in contract.md ("Finals, attempts, odd results", "Numbers")."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Bench, Experiment

SCRIPT = """
import json, tune
CASES = {cases}
n = tune.get_sequence_id()
{{}}
def tried(call, value):
    try:
        call(value)
    except ValueError:
        print("ValueError")
exec(CASES[n % len(CASES)])
"""

CASES = [
    "tune.get_next_parameter(); tune.report_final_result(float('nan'))",
    "tune.get_next_parameter(); tune.report_final_result(float('inf'))",
    "tune.get_next_parameter(); tune.report_final_result('a word')",
    "tune.get_next_parameter(); tune.report_final_result({'loss': 1.0})",
    "tune.get_next_parameter(); tried(tune.report_final_result, 'x' * (2 << 20)); "
    "tried(tune.report_intermediate_result, 2 ** 64); tune.report_final_result(0.1)",
    "tune.get_next_parameter(); tune.report_final_result(0.2); tune.report_final_result(5.0)",
    "tune.report_intermediate_result(7); tune.report_final_result(0.3); tune.get_next_parameter()",
    "tune.get_next_parameter()",
    "tune.get_next_parameter(); tune.report_final_result({'default': 0.4, 'loss': float('nan'), 'note': 'fine'})",
    "import numpy as np; tune.get_next_parameter(); tune.report_intermediate_result(np.float32(0.5)); "
    "tune.report_final_result(np.float64(0.5))",
    "tune.get_next_parameter(); tune.report_intermediate_result({'default': float('nan')}); "
    "tune.report_intermediate_result(2); tune.report_final_result(0.6)",
    "tune.get_next_parameter(); tune.report_final_result({'default': 'nine'})",
]


@pytest.fixture(params=["Random", "TPE"])
def finished(bench: Bench, request: pytest.FixtureRequest) -> Experiment:
    command = bench.script(SCRIPT.format(cases=CASES).replace("{}", ""))
    experiment = bench.experiment(
        trial_command=command,
        max_trial_number=len(CASES),
        trial_concurrency=4,
        tuner={"name": request.param},
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", len(CASES)), (state.reason, state.counts)
    assert state.tuner_errors == 0
    return experiment


def test_the_table_of_odd_results(bench: Bench, finished: Experiment) -> None:
    out = bench.tune("trials", finished.id, "--json").stdout
    trials: list[dict[str, Any]] = json.loads(out, parse_constant=pytest.fail)  # standard JSON: no bare NaN
    values = {trial.number: trial.phases[0].value for trial in finished.state().made}
    counted = {4: 0.1, 5: 0.2, 6: 0.3, 8: 0.4, 9: 0.5, 10: 0.6}
    assert values == {number: counted.get(number) for number in range(len(CASES))}
    assert trials[4]["final"] == 0.1 and trials[5]["final"] == 0.2
    assert trials[5]["phases"][0]["final_ignored"] == [5.0]
    assert trials[6]["intermediate"] == [7] and trials[6]["final"] == 0.3
    assert trials[7]["final"] is None
    assert trials[8]["final"] == {"default": 0.4, "loss": "NaN", "note": "fine"}
    assert trials[9]["intermediate"] == [0.5]
    assert trials[10]["intermediate"] == ["NaN", 2]
    assert (finished.folder.trials / trials[4]["id"] / "stdout").read_text().split() == ["ValueError"] * 2
    best = json.loads(bench.tune("best", finished.id, "--json").stdout)
    assert (best["trial"], best["value"]) == (10, 0.6)
    exported = bench.tune("export", finished.id, "--format", "json")
    assert exported.returncode == 0, exported.stderr
    rows = json.loads(exported.stdout, parse_constant=pytest.fail)
    assert set(counted) <= {row["trial"] for row in rows}
    assert bench.tune("verify", finished.id).returncode == 0
