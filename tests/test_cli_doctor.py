"""`tune doctor` finds what could keep experiments from running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tune import cli
from tune.cli import doctor
from tune.trial_sdk import control_group


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_a_good_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and {"name", "level", "detail"} == set(found["findings"][0])
    assert cli.main(["doctor"]) == 0
    assert "experiments can run here" in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "file" / "home"))
    assert cli.main(["doctor", "--json"]) == 1
    assert [one for one in json.loads(capsys.readouterr().out)["findings"] if one["level"] == "bad"]


def test_a_folder_called_tune_that_hides_the_package(tmp_path: Path) -> None:
    assert doctor._shadow(tmp_path).level == "ok"
    (tmp_path / "tune").mkdir()
    assert doctor._shadow(tmp_path).level == "ok"
    (tmp_path / "tune" / "__init__.py").write_text("")
    assert doctor._shadow(tmp_path).level == "warning"


@pytest.mark.parametrize(
    ("text", "level"),
    [("", "ok"), ("#KillUserProcesses=yes\n", "ok"), ("[Login]\nKillUserProcesses = yes\n", "warning")],
)
def test_logind(text: str, level: str, tmp_path: Path) -> None:
    (tmp_path / "logind.conf").write_text(text)
    assert doctor._logind(tmp_path / "logind.conf").level == level
    (tmp_path / "logind.conf.d").mkdir()
    (tmp_path / "logind.conf.d" / "mine.conf").write_text("KillUserProcesses=no\n")
    assert doctor._logind(tmp_path / "logind.conf").level == "ok"


@pytest.mark.parametrize(("wanted", "said"), [("none", "none (they are switched off)"), ("v7", "allowed are v2")])
def test_without_control_groups_it_says_what_a_stop_can_do(
    wanted: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(control_group.VARIABLE, wanted)
    found = doctor._control_groups()
    assert found.level == "warning" and said in found.detail and "sweeps the process table" in found.detail


def test_the_control_groups_are_those_that_a_keeper_takes(tmp_path: Path) -> None:
    groups = control_group.choose(tmp_path)
    found = doctor._control_groups()
    if isinstance(groups, str):
        assert found.level == "warning" and groups in found.detail
    else:
        assert found.level == "ok" and found.detail.startswith(f"{groups.way.name}, at {groups.parent.parent}:")
