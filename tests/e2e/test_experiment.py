"""`Experiment` from Python: whole experiments through the API of NNI's users, in scripts, threads and event loops."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import SPACE, Bench

from tune import Experiment
from tune.engine.errors import TuneError, UsageError

HEAD = """
from tune import Experiment
def f(parameters):
    return parameters["x"]
experiment = Experiment("local", objective=f)
experiment.config.search_space = {"x": {"_type": "uniform", "_value": [0, 1]}}
"""


def configured(bench: Bench, **fields: object) -> Experiment:
    experiment = Experiment("local")
    experiment.config.search_space = SPACE
    experiment.config.trial_command = bench.fake(steps=2)
    experiment.config.trial_code_directory = bench.home.parent
    for name, value in fields.items():
        setattr(experiment.config, name, value)
    return experiment


def until(condition: object, patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_run_and_what_is_known_then(bench: Bench) -> None:
    experiment = configured(bench, max_trial_number=3, trial_concurrency=2, experiment_name="three")
    assert experiment.run() is True
    assert experiment.get_status() == "DONE"
    jobs = experiment.list_trial_jobs()
    assert [job.number for job in jobs] == [0, 1, 2] == [job.sequenceId for job in jobs]
    assert experiment.get_job_statistics()["SUCCEEDED"] == 3
    assert experiment.get_trial_job(jobs[1].id) == jobs[1] == experiment.get_trial_job(1)
    assert jobs[0].hyperParameters == [jobs[0].parameters] and jobs[0].finalMetricData == [jobs[0].final]
    with pytest.raises(KeyError):
        experiment.get_trial_job(77)
    metrics = experiment.get_job_metrics()
    assert set(metrics) == {job.id for job in jobs}
    assert [one.kind for one in metrics[jobs[0].id]] == ["intermediate", "intermediate", "final"]
    results = experiment.export_data()
    assert sorted(one.trial for one in results) == [0, 1, 2]
    best = experiment.best()
    assert best is not None and best["value"] == max(one.value for one in results)
    profile = experiment.get_experiment_profile()
    assert (profile["name"], profile["config"]["trial_concurrency"]) == ("three", 2)
    assert [one["id"] for one in Experiment.get_all_experiments_metadata()] == [experiment.id]
    viewed = Experiment.view(experiment.id)
    assert viewed.get_status() == "DONE"
    with pytest.raises(UsageError, match="only viewed"):
        viewed.update_trial_concurrency(3)
    with pytest.raises(UsageError, match="already"):
        experiment.start()


def test_start_change_stop_and_go_on(bench: Bench) -> None:
    experiment = configured(bench, trial_command=bench.fake(steps=300, sleep=0.05), trial_concurrency=1)
    experiment.start()
    until(lambda: experiment.get_job_statistics()["RUNNING"])
    other = Experiment.connect(experiment.id)
    other.update_trial_concurrency(2)
    other.update_max_trial_number(5)
    other.update_max_experiment_duration("2h")
    other.add_trial({"x": 0.25, "n": 3})
    until(lambda: experiment.get_job_statistics()["RUNNING"] == 2)
    profile = experiment.get_experiment_profile()
    assert (profile["trial_concurrency"], profile["max_trial_number"]) == (2, 5)
    experiment.kill_trial_job(0)
    until(lambda: experiment.get_trial_job(0).status == "USER_CANCELED")
    with pytest.raises(TuneError, match="ended already"):
        experiment.kill_trial_job(0)
    experiment.stop()
    experiment.stop()
    assert experiment.get_status() == other.get_status() == "STOPPED"
    with pytest.raises(TuneError, match="no engine runs"):
        experiment.update_max_trial_number(6)
    again = Experiment("local").resume(experiment.id, wait_completion=False)
    until(lambda: again.get_job_statistics()["RUNNING"])
    again.stop()


def test_two_experiments_in_one_process_and_many_threads(bench: Bench) -> None:
    made = [configured(bench, max_trial_number=2) for _ in range(2)]
    threads = [threading.Thread(target=one.run) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.get_status() for one in made} == {"DONE"}
    assert len({one.id for one in made}) == 2


def test_inside_an_event_loop(bench: Bench) -> None:
    async def cell() -> bool:  # as in a notebook, whose loop runs while a cell does
        return configured(bench, max_trial_number=1).run()

    assert asyncio.run(cell())


def test_a_config_that_cannot_be_starts_nothing(bench: Bench) -> None:
    experiment = configured(bench, tuner={"name": "NoSuchTuner"})
    with pytest.raises(UsageError, match="NoSuchTuner"):
        experiment.start()
    assert not bench.home.exists() or not list(bench.home.iterdir())
    assert experiment.id == ""


@pytest.mark.parametrize(
    ("tail", "status"),
    [
        ("experiment.start()", "STOPPED"),
        ("experiment.start(detach=True)", "RUNNING"),
        ("experiment.start()\nraise SystemExit(3)", "STOPPED"),
    ],
)
def test_a_script_that_ends(bench: Bench, tmp_path: Path, tail: str, status: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + tail + "\n")
    subprocess.run([sys.executable, str(script)], check=False, timeout=60, cwd=tmp_path)
    [found] = Experiment.get_all_experiments_metadata()
    assert found["status"] == status
    experiment = Experiment.connect(found["id"])
    experiment.stop()
    assert experiment.get_status() == "STOPPED"


def test_ctrl_c_stops_it(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + "experiment.run()\n")
    process = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until(lambda: any(one["counts"]["SUCCEEDED"] for one in Experiment.get_all_experiments_metadata()))
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    [found] = Experiment.get_all_experiments_metadata()
    assert (found["status"], found["engine_pid"]) == ("STOPPED", None)


def test_an_objective_of_a_script(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + "experiment.config.max_trial_number = 4\nassert experiment.run()\nprint(experiment.id)\n")
    said = subprocess.run([sys.executable, str(script)], check=True, timeout=60, cwd=tmp_path, capture_output=True)
    experiment = Experiment.connect(said.stdout.decode().split()[-1])
    for job in experiment.list_trial_jobs():
        assert job.final == job.parameters["x"]
