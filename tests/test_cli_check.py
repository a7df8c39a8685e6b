"""`tune check` shows a config as one that can be used again, and points that lie in its space."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tune import cli
from tune.engine.space import parse

CONFIG = """
experiment_name = "a \\"name\\""
trial_command = "true"
max_trial_number = 3
seed = 5
[search_space]
lr = { _type = "loguniform", _value = [0.001, 1] }
"net.size" = { _type = "choice", _value = [1, "two", { _name = "deep", n = { _type = "randint", _value = [0, 9] } }] }
[tuner]
name = "random"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def test_what_is_shown_is_the_same_config_again(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(config)]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["tuner"] == {"name": "Random"}
    again = tmp_path / "again.toml"
    again.write_text(shown)
    assert cli.main(["check", "--config", str(again)]) == 0
    assert capsys.readouterr().out == shown
    assert not (tmp_path / "home").exists()


def test_json_holds_config_and_three_points(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    space = parse(found["config"]["search_space"])
    assert found["config"]["max_trial_number"] == 3 and len(found["samples"]) == 3
    assert all(space.contains(point) is None for point in found["samples"])


RICH = """
constraints = ["lr < 0.1", "not (size == 'two' and lr > 0.01)"]
outcome_constraints = ["latency <= 10"]
objectives = { accuracy = "maximize", latency = "minimize" }
initial_parameters = [{ lr = 0.05, size = 1 }]
"""


def test_points_meet_the_constraints_and_objectives_are_shown_as_they_are_written(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(RICH + CONFIG.replace('"net.size"', "size").replace(', { _name = "deep"', ', { name = "deep"'))
    assert cli.main(["check", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "optimize_mode" not in shown
    assert {key: tomllib.loads(shown)[key] for key in tomllib.loads(RICH)} == tomllib.loads(RICH)
    config.write_text(shown)
    assert cli.main(["check", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["samples"]) == 3 and all(one["lr"] < 0.1 for one in found["samples"])
    assert not any(one["size"] == "two" and one["lr"] > 0.01 for one in found["samples"])


def test_no_limits_are_said_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.replace("max_trial_number = 3", ""))
    assert cli.main(["check", str(config)]) == 0
    assert "runs until it is stopped" in capsys.readouterr().err


def test_a_wrong_config_is_exit_2_with_every_fault(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.replace("seed = 5", "seed = -5\ntrial_comand = 7"))
    assert cli.main(["check", str(config)]) == 2
    err = capsys.readouterr().err
    assert "seed" in err and "did you mean trial_command" in err and "config.toml:5" in err
