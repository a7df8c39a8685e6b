"""The notebook of the examples, run by a kernel: functions of its cells as objectives, one output that updates."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

QUICKSTART = Path(__file__).parent.parent / "examples" / "notebook" / "quickstart.ipynb"
RUN = Path(__file__).parent / "run_notebook.py"
PATIENCE = 90  # seconds for a notebook


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a notebook in a folder and a home of its own; its code cells' outputs."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share" / "jupyter"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def call(notebook: Any) -> list[list[Any]]:
        before, after = tmp_path / "before.ipynb", tmp_path / "after.ipynb"
        nbformat.write(notebook, before)
        command = [sys.executable, "-W", "ignore", RUN, before, after]
        options: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, cwd=tmp_path, text=True, **options) as process:
            try:
                said, _ = process.communicate(timeout=PATIENCE)
            except BaseException:
                _kill_all(f"TUNE_HOME={tmp_path / 'home'}")
                raise
        assert process.returncode == 0, said
        done: Any = nbformat.read(after, as_version=4)
        return [cell.outputs for cell in done.cells if cell.cell_type == "code"]

    return call


def _kill_all(mark: str) -> None:
    """End what has this in its environment: the program, its kernel, their experiments."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        if entry.parent.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                if mark.encode() in entry.read_bytes().split(b"\0"):
                    os.kill(int(entry.parent.name), signal.SIGKILL)


def written(*cells: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def texts(outputs: list[Any]) -> list[str]:
    """The streams and plain texts of a cell."""
    return [one.text if one.output_type == "stream" else one.data["text/plain"] for one in outputs]


def test_the_quickstart(run: Any) -> None:
    _, first, best, table, history, importance, both, again = run(nbformat.read(QUICKSTART, as_version=4))
    said, picture, value = first
    assert said.text.startswith("Experiment ID: ") and value.data["text/plain"] == "True"
    lines = picture.data["text/plain"].splitlines()  # one output, and its last state
    assert lines[0].startswith("tune ") and lines[1].startswith("status    DONE")
    assert "12 of 12: 12 done" in lines[2] and any(line.startswith("last      DONE best ") for line in lines)
    assert "<table>" in picture.data["text/html"]
    assert "'value': " in texts(best)[0] and "parameters.rate" in texts(table)[0]
    for figure in (history, importance):
        assert "application/vnd.plotly.v1+json" in figure[0].data
    assert len([one for one in both if "text/html" in one.get("data", {})]) == 2
    assert texts(again)[0].splitlines()[1].startswith("status    DONE")


def test_what_a_notebook_may_do(run: Any) -> None:
    """Magics, a loop that runs already, an objective that was written twice, and one cell that awaits."""
    outputs = run(
        written(
            "%config Completer.use_jedi = False\n!true\nSCALE = 1",
            "def objective(parameters):\n    return 'first'",
            "SCALE = 10\ndef objective(parameters):\n    return SCALE * parameters['x']",
            "from tune import Experiment\n"
            "def made():\n"
            "    experiment = Experiment('local', objective=objective)\n"
            "    experiment.config.search_space = {'x': {'_type': 'randint', '_value': [1, 9]}}\n"
            "    experiment.config.max_trial_number = 2\n"
            "    return experiment",
            "import asyncio\n"
            "one, two = made(), made()\n"
            "await asyncio.gather(asyncio.to_thread(one.run), asyncio.to_thread(two.run))",
            "[job.final == 10 * job.parameters['x'] for e in (one, two) for job in e.list_trial_jobs()]",
            "one.update_max_trial_number(3)\nExperiment.resume(one.id).get_job_statistics()['SUCCEEDED']",
        )
    )
    assert texts(outputs[4])[-1] == "[True, True]"
    assert texts(outputs[5]) == ["[True, True, True, True]"]
    assert texts(outputs[6])[-1] == "3"


def test_an_interrupted_cell_stops_the_experiment(run: Any) -> None:
    outputs = run(
        written(
            "import os, signal, threading, time\nfrom tune import Experiment\n"
            "def objective(parameters):\n    time.sleep(60)",
            "experiment = Experiment('local', objective=objective)\n"
            "experiment.config.search_space = {'x': {'_type': 'uniform', '_value': [0, 1]}}\n"
            "def interrupt():\n"
            "    while not (experiment.id and experiment.get_job_statistics()['RUNNING']):\n"
            "        time.sleep(0.02)\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "threading.Thread(target=interrupt).start()\n"
            "try:\n    experiment.run()\nexcept KeyboardInterrupt:\n    print('interrupted')",
            "experiment.get_status()",
        )
    )
    assert "interrupted\n" in texts(outputs[1])
    assert texts(outputs[2]) == ["'STOPPED'"]
