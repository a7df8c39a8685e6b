"""`tune hello` writes an example whose config is right and whose trial runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tune import cli
from tune.engine.config_load import load


def test_it_writes_a_right_config_and_a_trial_that_runs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "first"
    assert cli.main(["hello", str(folder)]) == 0
    assert "tune create config.toml" in capsys.readouterr().out
    config, notes = load(folder / "config.toml")
    assert config.max_trial_number == 12 and not notes
    source = (folder / "trial.py").read_text().replace("time.sleep(0.05)", "")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "Final result" in done.stdout


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("keep")
    assert cli.main(["hello", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    assert cli.main(["hello", str(tmp_path / "mine")]) == 2


def test_the_working_folder_is_meant_when_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["hello"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.toml", "trial.py"]
