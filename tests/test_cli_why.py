"""`tune why` as people type it, on live, stopped and foreign logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune import AskTell, cli

SPACE = {"x": {"_type": "uniform", "_value": [-1, 1]}}
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))


def typed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[str]:
    """The lines that a command prints."""
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    return (err if code else out).splitlines()


def test_a_suggestion_and_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    with AskTell(SPACE, "TPE", "minimize", seed=1, log="it") as study:
        for _ in range(12):
            trial = study.ask()
            study.tell(trial, trial.parameters["x"] ** 2)
        live = study.ask()
        lines = typed(capsys, "why", "it", str(live.number))
        assert lines[-1] == "RUNNING"
    lines = typed(capsys, "why", "11")  # the newest experiment
    assert lines[0].startswith("trial 11 (") and lines[1].startswith('parameters {"x": ')
    assert lines[2].startswith("    proposed by TPE, ask 12; it knew 11 points, 11 results, best ")
    assert [line.split()[0] for line in lines[4:]] == ["rule", "score", "observed", "candidates", "result", "SUCCEEDED"]
    assert typed(capsys, "why", "it", live.id)[-1] == "SYS_CANCELED: the program that had it has ended"
    assert "no trial '99'" in typed(capsys, "why", "it", "99", code=2)[0]


def test_a_verdict_in_an_old_log(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(GOLDEN / "early_stopped.1.db")
    assert cli.main(["trials", path]) == 0
    stopped = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "EARLY_STOPPED" in line]
    lines = typed(capsys, "why", path, stopped[0])
    at = next(index for index, line in enumerate(lines) if line.startswith("stopped by the assessor Medianstop"))
    assert "is worse than" in lines[at + 1] and lines[at + 2].startswith("    it knew ")
    assert lines[-1].startswith("EARLY_STOPPED: assessor: ")


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = typed(capsys, "why", str(GOLDEN / "single_phase.1.db"), "0", "--json")
    assert line.startswith('{"trial":0,"id":"')
