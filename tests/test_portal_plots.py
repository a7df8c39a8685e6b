"""portal/plots.py and cli/plot.py: `tune.visualization` and `tune plot` give the portal's figures."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

import tune
from tune import AskTell, Experiment, visualization
from tune.cli import plot as plot_room
from tune.cli.plot import plot
from tune.engine import client, home
from tune.engine.errors import TuneError, UsageError
from tune.engine.state import State
from tune.portal.figures import TITLES, FigureError

EVIL = "</script><script>alert(1)</script>"
SPACE = {
    "x": {"_type": "uniform", "_value": [0, 1]},
    "y": {"_type": "uniform", "_value": [0, 1]},
    "kind": {"_type": "choice", "_value": ["a", EVIL]},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[home.Folder]:
    """An experiment of ten results, with a log."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "logs"))
    with AskTell(SPACE, "Random", seed=0, log="ten") as study:
        for _ in range(10):
            trial = study.ask()
            study.report(trial, 0.5)
            study.tell(trial, trial.parameters["x"])
    yield home.find("ten")


def test_there_is_a_function_for_each_figure() -> None:
    assert set(visualization.__all__) == {"FigureError", "plot", *(f"plot_{name}" for name in TITLES)}
    assert all(callable(getattr(visualization, name)) for name in visualization.__all__)
    assert tune.visualization is visualization


def test_each_takes_an_experiment_an_id_a_path_and_a_state(folder: home.Folder) -> None:
    view = client.View(folder)
    view.close()
    sources: list[Any] = [Experiment.view("ten"), "ten", folder.events, folder.path, view.state]
    drawn = [visualization.plot_history(one) for one in sources]
    assert all(isinstance(one, go.Figure) for one in drawn)
    assert len({one.to_json() for one in drawn}) == 1
    for name in TITLES:
        if name != "pareto":
            assert isinstance(getattr(visualization, f"plot_{name}")("ten"), go.Figure)
    assert visualization.plot_contour("ten", x="y", y="x").layout.xaxis.title.text == "y"


def test_what_cannot_be_drawn_is_said(folder: home.Folder) -> None:
    with pytest.raises(FigureError, match="one objective"):
        visualization.plot_pareto("ten")
    with pytest.raises(UsageError, match="x: found 'nope'"):
        visualization.plot_contour("ten", x="nope")
    with pytest.raises(FigureError, match="no objective 'up'"):
        visualization.plot_history("ten", objective="up")
    with pytest.raises(UsageError, match="no figure 'pie'"):
        visualization.plot("ten", "pie")
    with pytest.raises(UsageError, match="history has no option 'color'"):
        visualization.plot("ten", "history", color="red")
    with pytest.raises(UsageError, match="no experiment 'unknown'"):
        visualization.plot_history("unknown")
    with pytest.raises(UsageError, match="not started"):
        visualization.plot_history(Experiment())


def test_a_state_without_a_config_is_no_experiment() -> None:
    with pytest.raises(AssertionError):
        visualization.plot_history(State())


def test_the_verb_writes_a_page_of_one_file(folder: home.Folder, tmp_path: Path) -> None:
    plot("ten", "slice", output=tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "Plotly.newPlot" in text and EVIL not in text
    assert 'src="http' not in text and len(text) > 1_000_000


def test_the_verb_writes_data(folder: home.Folder, tmp_path: Path) -> None:
    plot("ten", "importance", output=tmp_path / "a.json", option=["method=fANOVA"])
    drawn = json.loads((tmp_path / "a.json").read_text())
    assert drawn["layout"]["xaxis"]["title"]["text"] == "importance (fANOVA)"
    assert drawn["data"][0]["y"][-1] == "x"
    assert go.Figure(drawn)


def test_a_picture_needs_kaleido(folder: home.Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_room.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TuneError) as raised:
        plot("ten", "history", output=tmp_path / "a.png")
    assert raised.value.hint is not None and raised.value.hint.startswith("pip install kaleido")
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize(
    ("kind", "options", "wrong"),
    [
        ("history", {}, "into which file"),
        ("history", {"output": "a.gif"}, "allowed|found a.gif"),
        ("pie", {"output": "a.json"}, "no figure 'pie'"),
        ("pareto", {"output": "a.json"}, "pareto: the experiment has one objective"),
        ("contour", {"output": "a.json", "option": ["x"]}, "NAME=VALUE|found 'x'"),
        ("contour", {"output": "a.json", "option": ["z=1"]}, "no option 'z'"),
        ("history", {"output": "none/a.json"}, "can't be written"),
    ],
)
def test_the_verb_says_what_is_wrong(
    folder: home.Folder, tmp_path: Path, kind: str, options: dict[str, Any], wrong: str
) -> None:
    given = {**options, "output": tmp_path / options["output"]} if "output" in options else options
    with pytest.raises((UsageError, TuneError), match=wrong):
        plot("ten", kind, **given)


def test_what_is_typed(folder: home.Folder, tmp_path: Path, tune: Any) -> None:
    tune.environment["TUNE_HOME"] = str(folder.path.parent)
    tune("plot", "ten", "contour", "-o", "c.json", "--option", "x=y", "--option", "y=x", cwd=tmp_path)
    assert json.loads((tmp_path / "c.json").read_text())["layout"]["xaxis"]["title"]["text"] == "y"
    tune("plot", "ten", "pie", "-o", "c.json", cwd=tmp_path, code=2)


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome", "chrome"))), reason="no Chrome, which draws pictures"
)
def test_a_picture_comes_out(folder: home.Folder, tmp_path: Path, tune: Any) -> None:
    tune.environment["TUNE_HOME"] = str(folder.path.parent)
    tune("plot", "ten", "slice", "-o", "a.png", cwd=tmp_path)
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 10_000
    assert struct.unpack(">II", data[16:24]) == (1200, 700)
