"""Where sockets lie: private, short, the same for the same folder, and never in somebody else's folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tune.trial_sdk import socket_dir


@pytest.fixture
def runtime(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # short, as real ones are
        folder = Path(place) / "run"
        folder.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder


def test_the_runtime_folder_comes_first(runtime, tmp_path):
    path = socket_dir.socket_path(tmp_path, ".k")
    assert path.parent == runtime / "tune"
    assert path == socket_dir.socket_path(tmp_path, ".k")
    assert path != socket_dir.socket_path(tmp_path, ".e")
    assert path != socket_dir.socket_path(tmp_path / "other", ".k")
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_long_runtime_folder_is_passed_over(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    path = socket_dir.socket_path(tmp_path, ".k")
    assert path.parent.name == f"tune-{os.geteuid()}"
    assert len(os.fsencode(path)) <= socket_dir.MAX_PATH


def test_an_open_runtime_folder_is_passed_over(runtime, tmp_path, monkeypatch):
    runtime.chmod(0o777)
    assert socket_dir.socket_path(tmp_path, ".k").parent != runtime / "tune"


def test_a_link_is_refused(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(PermissionError):
        socket_dir.make_private(tmp_path / "link")
    assert not socket_dir.is_private(tmp_path / "link")


def test_an_own_open_folder_is_closed(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    socket_dir.make_private(tmp_path / "open")
    assert socket_dir.is_private(tmp_path / "open")


def test_without_a_runtime_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path) if len(str(tmp_path)) < 60 else "/tmp")
    assert socket_dir.socket_path(tmp_path, ".k").parent.name == f"tune-{os.geteuid()}"
