"""`Experiment` from Python: whole experiments through the API of NNI's users, in scripts, threads and event loops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
from harness import SPACE, Bench

from tune import Experiment
from tune.engine.errors import TuneError, UsageError
from tune.engine.views import to_json

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
    assert [one.parameters for one in jobs[0].hyperParameters] == [jobs[0].parameters]
    assert [(one.data, one.type) for one in jobs[0].finalMetricData] == [(jobs[0].final, "FINAL")]
    with pytest.raises(KeyError):
        experiment.get_trial_job(77)
    metrics = experiment.get_job_metrics()
    assert set(metrics) == {job.id for job in jobs}
    assert [one.kind for one in metrics[jobs[0].id]] == ["intermediate", "intermediate", "final"]
    results = experiment.export_data()
    assert sorted(one.trial for one in results) == [0, 1, 2]
    best = experiment.best()
    assert isinstance(best, dict) and best["value"] == max(one.value for one in results)
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
        experiment.kill_trial_job(0)
    experiment.update_max_trial_number(6)  # for the next resume
    again = Experiment("local").resume(experiment.id, wait_completion=False)
    until(lambda: again.get_job_statistics()["RUNNING"])
    assert again.get_experiment_profile()["max_trial_number"] == 6
    again.stop()


def test_what_is_printed_is_what_the_command_line_prints(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = configured(bench, max_trial_number=4)
    over = threading.Event()

    def look() -> None:  # another thread that reads takes no line away
        while not over.is_set():
            if experiment.id:
                experiment.get_status()

    other = threading.Thread(target=look)
    other.start()
    assert experiment.run()
    over.set()
    other.join()
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"Experiment ID: {experiment.id}"
    jobs = experiment.list_trial_jobs()
    expected = [f"trial {job.number} SUCCEEDED {to_json(job.final).decode()}" for job in jobs]
    assert sorted(line.split(" {")[0] for line in lines) == expected
    best = experiment.best()
    assert isinstance(best, dict) and last.startswith(
        f"DONE best {to_json(best['value']).decode()} trial {best['trial']} {{"
    )
    assert experiment.wait() and capsys.readouterr().out.splitlines() == [last]  # nothing is said twice
    Experiment.connect(experiment.id).update_max_trial_number(5)
    assert Experiment.resume(experiment.id).get_status() == "DONE"
    _, only, _ = capsys.readouterr().out.splitlines()
    assert only.startswith("trial 4 SUCCEEDED ")


def test_each_fact_is_told_once(bench: Bench) -> None:
    experiment = configured(bench, max_trial_number=2)
    experiment.start()
    told: list[int] = []
    assert experiment.wait(lambda state, fact: told.append(fact.seq))
    assert told == list(range(1, len(told) + 1)) and len(told) > 10


def fetched(url: str) -> str:
    """The status of the experiment that this link opens, as its page asks for it."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    browser.open(url, timeout=30).close()
    with browser.open(url.partition("?")[0] + "api/status", timeout=30) as answer:
        return str(json.load(answer)["status"])


def test_the_portal_of_a_running_experiment(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = configured(bench, trial_command=bench.fake(steps=300, sleep=0.05))
    experiment.start(port=0)
    assert experiment.port and experiment.url and f":{experiment.port}/?token=" in experiment.url
    assert capsys.readouterr().out == f"Web portal: {experiment.url}\n"
    assert fetched(experiment.url) == "RUNNING"
    assert experiment.get_experiment_profile()["port"] == experiment.port
    code = f"from tune import Experiment; print(Experiment.connect({experiment.port}).id)"
    said = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert said.stdout.split() == [experiment.id]
    busy = configured(bench)
    with pytest.raises(UsageError, match="can't be used"):
        busy.start(port=experiment.port)
    assert (busy.id, len(list(bench.home.iterdir()))) == ("", 1)
    with pytest.raises(UsageError, match="no running experiment"):
        Experiment.connect(1)
    with pytest.raises(UsageError, match="0 to 65535"):
        busy.start(port=70000)
    experiment.stop()
    assert experiment.port is None
    with pytest.raises(URLError):
        fetched(experiment.url)


def test_the_portal_of_an_experiment_that_is_only_viewed(bench: Bench) -> None:
    experiment = configured(bench, max_trial_number=1)
    experiment.run()
    viewed = Experiment.view(experiment.id, port=0, non_blocking=True)
    url = viewed.url
    assert url is not None and fetched(url) == "DONE" and viewed.port and f":{viewed.port}/" in url
    viewed.stop()
    assert (viewed.port, viewed.url, viewed.get_status()) == (None, None, "DONE")
    with pytest.raises(URLError):
        fetched(url)


def test_a_view_serves_until_ctrl_c(bench: Bench, tmp_path: Path) -> None:
    experiment = configured(bench, max_trial_number=1)
    experiment.run()
    code = f"from tune import Experiment; print(Experiment.view({experiment.id!r}, port=0).get_status())"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Web portal: http://127.0.0.1:") and fetched(line.split()[-1]) == "DONE"
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0].split() == ["DONE"]
    assert process.returncode == 0


def test_run_or_resume(bench: Bench) -> None:
    for most in (1, 2):
        experiment = Experiment("local", "again")
        assert experiment.has_checkpoint() is (most == 2)
        experiment.config = configured(bench, max_trial_number=1).config
        if most == 2:
            Experiment.connect("again").update_max_trial_number(2)
        assert experiment.run_or_resume()
        assert len(experiment.list_trial_jobs()) == most


def test_what_is_brought_along_is_checked_as_by_the_command_line(bench: Bench) -> None:
    experiment = configured(bench, trial_command=bench.fake(steps=300, sleep=0.05), trial_concurrency=1)
    experiment.start()
    with pytest.raises(UsageError, match="outside the search space"):
        experiment.add_trial({"x": 7, "n": 3})
    with pytest.raises(UsageError, match="parameters: "):
        experiment.add_trial({"x": object()})
    with pytest.raises(UsageError, match="search_space: "):
        experiment.update_search_space({"x": {"_type": "uniform", "_value": [1]}})
    with pytest.raises(UsageError, match="result 1: the value is"):
        experiment.import_data([({"x": 0.5, "n": 1}, 1), ({"x": 0.5, "n": 2}, "no number")])
    with pytest.warns(UserWarning, match="1 results are left out"):
        assert experiment.import_data([({"x": 0.5, "n": 1}, 0.25), ({"x": 9, "n": 2}, {"default": 1})]) == 1
    experiment.update_search_space({"y": {"_type": "uniform", "_value": [0, 1]}})
    experiment.add_trial({"y": 0.5})
    experiment.stop()
    assert experiment.read(lambda state: (state.imported, state.space_version)) == (1, 1)


def test_several_objectives(bench: Bench) -> None:
    experiment = configured(
        bench,
        trial_command=bench.script(
            "import tune\nx = tune.get_next_parameter()['x']\ntune.report_final_result({'up': x, 'down': x * x})\n"
        ),
        trial_code_directory=bench.code,
        tuner="Random",
        objectives={"up": "maximize", "down": "minimize"},
        max_trial_number=3,
    )
    assert experiment.run()
    front = experiment.best()
    assert isinstance(front, list) and [set(one["values"]) for one in front] == [{"up", "down"}] * 3
    results = experiment.export_data()
    assert results[0].value is None and results[0].values == results[0].final
    table = experiment.dataframe()
    assert list(table["values.down"]) == [one.values and one.values["down"] for one in results]
    assert Experiment("local", "other").id == "other"
    other = configured(bench, tuner="Random", objectives={"up": "maximize", "down": "minimize"}, max_trial_number=1)
    other.config.trial_command = experiment.config.trial_command
    other.start()
    assert other.import_data(results) == 3
    other.stop()


def test_the_frame_of_pandas(bench: Bench) -> None:
    experiment = configured(bench, max_trial_number=3)
    experiment.run()
    table = experiment.dataframe()
    assert list(table.columns) == ["trial", "phase", "status", "value", "parameters.x", "parameters.n"]
    assert table["value"].max() == pytest.approx(experiment.best()["value"])  # type: ignore[index]
    assert str(table["parameters.n"].dtype).startswith("int")


def test_what_it_says_of_itself(bench: Bench) -> None:
    experiment = configured(bench, max_trial_number=1, experiment_name="<b>bold</b>")
    assert repr(experiment) == "Experiment('')"
    assert experiment._repr_mimebundle_() == {"text/plain": "Experiment('')"}
    experiment.run()
    assert repr(experiment) == f"Experiment({experiment.id!r}, DONE)"
    shown = experiment._repr_mimebundle_()
    assert "&lt;b&gt;bold" in shown["text/html"] and "<b>bold</b>" in shown["text/plain"]


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


def test_an_engine_that_dies_is_said_and_the_experiment_goes_on(bench: Bench) -> None:
    experiment = configured(bench, trial_command=bench.fake(steps=20, sleep=0.05), max_trial_number=2)
    experiment.start()
    until(lambda: experiment.get_job_statistics()["RUNNING"])
    pid = experiment.get_experiment_profile()["engine_pid"]
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(TuneError, match="died") as raised:
        experiment.wait()
    assert raised.value.hint == f"Experiment.resume('{experiment.id}')"
    assert Experiment.resume(experiment.id).get_job_statistics()["SUCCEEDED"] == 2
