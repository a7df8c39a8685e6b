"""`tune delete` removes what it should, and nothing that runs or lies elsewhere."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from tune import cli
from tune.engine import home
from tune.engine.lock import Lock


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> home.Folder:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    made, _ = home.create("digits")
    made.events.write_bytes(b"SQLite format 3\0")
    return made


def test_it_removes_everything(folder: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["delete", "dig", "--yes"]) == 0
    assert capsys.readouterr().out == "deleted digits\n"
    assert not folder.path.exists()


def test_without_a_terminal_it_wants_yes(folder: home.Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli.main(["delete", "digits"]) == 2
    assert folder.events.exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("n\n", 1), ("", 1)])
def test_on_a_terminal_it_asks(answer: str, code: int, folder: home.Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert cli.main(["delete", "digits"]) == code
    assert folder.path.exists() == bool(code)


@pytest.mark.parametrize("which", ["lock", "keeper_lock"])
def test_one_that_runs_is_refused(which: str, folder: home.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    lock = Lock.take(getattr(folder, which))
    lock.write({"pid": 4242})
    try:
        assert cli.main(["delete", "digits", "--yes"]) == 1
    finally:
        lock.release()
    err = capsys.readouterr().err
    assert "4242" in err and "tune stop digits" in err
    assert folder.events.exists()


def test_a_log_elsewhere_is_not_deleted(folder: home.Folder, tmp_path: Path) -> None:
    copy = tmp_path / "downloads"
    shutil.copytree(folder.path, copy)
    assert cli.main(["delete", str(copy), "--yes"]) == 2
    assert cli.main(["delete", str(copy / "events.db"), "--yes"]) == 2
    assert (copy / "events.db").exists()
