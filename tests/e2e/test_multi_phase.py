"""Multi-phase, as NNI's page on it has it: a trial asks for configuration after configuration, in one process."""

from __future__ import annotations

import json
from typing import Any

import checker
import pytest
from harness import SPACE, Bench, limits

from tune.engine.state import State

# The page's loop, as long as there is something to try.
LOOP = """
import sys, time
import tune.nni as nni
for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000):
    tuner_param = nni.get_next_parameter()
    if tuner_param is None:
        break
    nni.report_intermediate_result(tuner_param["x"])
    nni.report_final_result(tuner_param["x"])
"""

# Bits as on the page: each trial goes down from 16 while its result is good, and tuners know which trial asks.
BITS = """
import tune.nni as nni

class Bits(nni.MultiPhaseTuner):
    def __init__(self, least=2):
        self.least, self.bits, self.owner = least, {}, {}

    def generate_parameters(self, parameter_id, trial_job_id=None):
        if trial_job_id is None:
            return {"bits": 16, "id": parameter_id, "trial": None}
        bits = self.bits[trial_job_id]
        if bits < self.least:
            raise nni.NoMoreTrialError("small enough")
        return {"bits": bits, "id": parameter_id, "trial": trial_job_id}

    def receive_trial_result(self, parameter_id, parameters, value, trial_job_id):
        assert parameters["id"] == parameter_id
        self.bits[trial_job_id] = parameters["bits"] // 2 if value > 0 else parameters["bits"] * 2

    def trial_end(self, parameter_id, success, trial_job_id):
        assert success
        self.bits.pop(trial_job_id, None)
"""


def phases(state: State) -> list[int]:
    return [len(trial.phases) for trial in state.made]


@pytest.mark.parametrize("tuner", ["TPE", "Random"])
def test_built_in_tuners_need_no_change(bench: Bench, tuner: str) -> None:
    experiment = bench.experiment(
        trial_command=f"{bench.script(LOOP)} 5", multi_phase=True, max_trial_number=4, tuner={"name": tuner}
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"], phases(state)) == ("DONE", 4, [5] * 4)
    told = checker.parameters(experiment.rows())
    assert len({json.dumps(value) for value in told.values()}) == 20
    rows = json.loads(bench.tune("export", experiment.id, "--format", "json").stdout)
    assert {(row["trial"], row["phase"]): row["value"] for row in rows} == {key: told[key]["x"] for key in told}
    assert state.best is not None and state.best.value == max(value["x"] for value in told.values())


def test_a_tuner_knows_which_trial_asks_and_ends_one_by_none(bench: Bench) -> None:
    (bench.code / "bits.py").write_text(BITS)
    trial = "import tune.nni as nni\n"
    trial += "while (p := nni.get_next_parameter()) is not None: nni.report_final_result(p['bits'])\n"
    experiment = bench.experiment(
        tuner={"class_name": "bits.Bits", "code_directory": str(bench.code)},
        trial_command=bench.script(trial),
        search_space={},
        multi_phase=True,
        trial_concurrency=2,
        max_trial_number=4,
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 4), (state.reason, state.counts)
    assert not experiment.facts("TUNER_ERROR") and not state.exhausted
    for trial_ in state.made:
        told = [json.loads(bytes(phase.parameters)) for phase in trial_.phases]
        assert [one["bits"] for one in told] == [16, 8, 4, 2]
        assert [one["trial"] for one in told] == [None, *[trial_.id] * 3]
        assert [phase.value for phase in trial_.phases] == [16, 8, 4, 2]
    experiment.start(limits(max_trial_number=5))  # rebuilt: the trials' requests are asked again in their places
    state = experiment.finish()
    assert phases(state) == [4] * 5 and not state.warnings


def test_the_final_belongs_to_the_configuration_that_was_asked_for_last(bench: Bench) -> None:
    trial = (
        "import tune\na = tune.get_next_parameter()\nb = tune.get_next_parameter()\nc = tune.get_next_parameter()\n"
        "assert a != b != c\ntune.report_final_result(c['x'])\ntune.report_intermediate_result(0)\n"
    )
    experiment = bench.experiment(trial_command=bench.script(trial), multi_phase=True, max_trial_number=2)
    state = experiment.run()
    told = checker.parameters(experiment.rows())
    for trial_ in state.made:
        assert [phase.value for phase in trial_.phases] == [None, None, told[trial_.number, 2]["x"]]
        assert [list(phase.intermediate) for phase in trial_.phases] == [[], [], [0]]


def test_without_multi_phase_the_configuration_stays_the_same(bench: Bench) -> None:
    trial = (
        "import tune\na = tune.get_next_parameter()\ntune.report_final_result(a['x'])\n"
        "assert tune.get_next_parameters() == a\ntune.report_final_result(99)\n"
    )
    experiment = bench.experiment(trial_command=bench.script(trial), max_trial_number=2)
    state = experiment.run()
    assert (state.counts["SUCCEEDED"], phases(state)) == (2, [1, 1])
    assert state.best is not None and state.best.value < 1


@pytest.mark.parametrize(
    ("changes", "each"),
    [({"max_phase_number": 17}, None), ({"max_phases_per_trial": 6}, [6, 6])],
)
def test_trials_that_never_end_by_themselves_end_at_the_limits(
    bench: Bench, changes: dict[str, Any], each: list[int] | None
) -> None:
    experiment = bench.experiment(
        trial_command=bench.script(LOOP), multi_phase=True, max_trial_number=2, trial_concurrency=2, **changes
    )
    state = experiment.run()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", 2), (state.reason, state.counts)
    assert phases(state) == each if each else sum(phases(state)) == 17
    experiment.start(limits(max_trial_number=3))
    state = experiment.finish()
    assert state.status == "DONE" and len(state.made) == (3 if each else 2)


def test_an_exhausted_space_gives_none_to_every_trial(bench: Bench) -> None:
    experiment = bench.experiment(
        trial_command=bench.script(LOOP),
        search_space={"x": {"_type": "choice", "_value": list(range(9))}},
        tuner={"name": "GridSearch"},
        multi_phase=True,
        max_trial_number=None,
        trial_concurrency=2,
    )
    state = experiment.run()
    assert (state.status, sum(phases(state))) == ("DONE", 9), (state.reason, state.counts)
    assert sorted(phase.value for trial in state.made for phase in trial.phases) == list(range(9))


def test_killed_in_the_middle_of_a_phase_and_resumed(bench: Bench) -> None:
    """The engine dies and the trials go on; then everything is stopped, and they go on where they were."""
    command = bench.fake(phases=4, steps=4, sleep=0.15, first_phase=True)
    experiment = bench.experiment(
        trial_command=command, search_space=SPACE, multi_phase=True, max_trial_number=2, max_phases_per_trial=4
    )
    experiment.start()
    experiment.until(lambda state: all(len(trial.phases) == 2 for trial in state.made) and len(state.made) == 2)
    pids = [trial.pid for trial in experiment.state().made]
    experiment.kill_engine()
    experiment.start()
    experiment.until(lambda state: any(len(trial.phases) == 3 for trial in state.made))
    state = experiment.state()
    assert [trial.pid for trial in state.made] == pids and [trial.attempt for trial in state.made] == [0, 0]
    assert bench.tune("stop", experiment.id).returncode == 0
    experiment.finish()
    before = checker.parameters(experiment.rows())
    experiment.start()
    state = experiment.finish()
    assert (state.status, phases(state)) == ("DONE", [4, 4]), (state.reason, [trial.stderr for trial in state.made])
    assert all(phase.value is not None for trial in state.made for phase in trial.phases)
    told = checker.parameters(experiment.rows())
    assert {key: told[key] for key in before} == before
    for line in experiment.witness():
        if line["e"] == "parameters":
            assert line["value"] == told[line["trial"], line["phase"]]
    assert {trial.attempt for trial in state.made} <= {0, 1}
