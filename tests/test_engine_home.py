"""engine/home.py: where experiments live, how ids are made and found, and what a network file system changes."""

import fcntl
import json
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.engine import home
from tune.engine.errors import TuneError, UsageError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(name: str, age: int = 0) -> home.Folder:
    """An experiment with a log, `age` seconds old."""
    folder, _ = home.create(name)
    with sqlite3.connect(folder.events) as log:
        log.execute("create table event (seq)")
    log.close()
    folder.config.write_text("{}")
    os.utime(folder.config, (10**9 - age, 10**9 - age))
    return folder


@pytest.fixture
def running() -> Iterator[list[int]]:
    handles: list[int] = []
    yield handles
    for handle in handles:
        os.close(handle)


def run(folder: home.Folder, running: list[int]) -> None:
    handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT)
    os.write(handle, b'{"pid": 1}')
    fcntl.flock(handle, fcntl.LOCK_EX)
    running.append(handle)


def test_root_is_the_variable_or_a_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert home.root() == tmp_path / "home"
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("TUNE_HOME", "~/x")
    assert home.root() == Path("/somebody/x")
    monkeypatch.delenv("TUNE_HOME")
    assert home.root() == Path("/somebody/tune-experiments")


def test_made_ids_have_their_form_and_are_not_taken() -> None:
    ids = {home.new_id() for _ in range(200)} | {home.new_id(5) for _ in range(200)}
    assert all(re.fullmatch(r"[a-z][a-z0-9]{7}|[a-z][a-z0-9]{4}", made) for made in ids)
    seen: list[str] = []
    assert home.new_id(taken=lambda text: not seen.append(text) and len(seen) < 3) == seen[2]


@settings(deadline=None)
@given(st.text(max_size=70))
def test_given_ids(text: str) -> None:
    right = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) and not text.startswith("-")
    if right:
        assert home.check_id(text) == text
    else:
        with pytest.raises(UsageError, match="no experiment id"):
            home.check_id(text)


def test_create_makes_a_private_folder_and_refuses_a_taken_id(root: Path) -> None:
    folder, notes = home.create("abc")
    assert notes == [] and folder.path == folder.data == root / "abc"
    assert stat.S_IMODE(folder.path.stat().st_mode) == stat.S_IMODE(root.stat().st_mode) == 0o700
    assert folder.events.name == "events.db" and folder.trials == root / "abc" / "trials"
    assert home.at(folder.path) == folder
    with pytest.raises(UsageError, match="'abc' is taken"):
        home.create("abc")
    with pytest.raises(UsageError):
        home.create("../x")
    home.remove(folder)
    assert not folder.path.exists() and root.exists()


def test_a_home_that_can_not_be_written_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "under", tmp_path / "file", Path("/proc/tune-home")):
        monkeypatch.setenv("TUNE_HOME", str(place))
        with pytest.raises(UsageError, match=r"TUNE_HOME") as caught:
            home.create("abc")
        assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def no(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    real = Path.mkdir
    monkeypatch.setenv("TUNE_HOME", str(root))
    monkeypatch.setattr(Path, "mkdir", lambda path, *a, **k: (no if path.name == "abc" else real)(path, *a, **k))
    with pytest.raises(UsageError, match="can't be written: Permission denied"):
        home.create("abc")
    assert not root.exists()


def test_find_by_id_prefix_and_path(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = made("abc1"), made("abd2")
    made("abd")
    assert home.find("abc1") == one == home.find("abc") == home.find(str(one.path)) == home.find(str(one.events))
    assert home.find("abd").id == "abd"  # a whole id is not a mere beginning
    assert home.find("abd2") == two
    monkeypatch.chdir(one.path)
    assert home.find("events.db").events == one.events and home.find(".").id == "abc1"
    for ref, said in [("ab", "several ids: abc1, abd, abd2"), ("zz", "no experiment 'zz'"), ("", "no experiment")]:
        with pytest.raises(UsageError, match=said):
            home.find(ref)
    copy = tmp_path / "copy.db"
    copy.write_bytes(one.events.read_bytes())
    assert home.find(str(copy)).events == copy
    (tmp_path / "no.db").write_text("this is no log, surely")
    with pytest.raises(UsageError, match="no log"):
        home.find(str(tmp_path / "no.db"))


def test_an_id_left_out_is_the_only_running_one_else_the_newest(running: list[int]) -> None:
    with pytest.raises(UsageError, match="there is no experiment"):
        home.find()
    old, new = made("old1", 100), made("new1", 1)
    assert [folder.id for folder in home.experiments()] == ["new1", "old1"]
    assert home.pick() == new
    with pytest.raises(UsageError, match="no experiment runs"):
        home.find(running_only=True)
    run(old, running)
    assert home.is_running(old) and not home.is_running(new)
    assert home.pick() == old == home.pick(running_only=True) == home.find(None)
    run(new, running)
    assert home.pick() == new
    with pytest.raises(UsageError, match="several experiments run: new1, old1"):
        home.pick(running_only=True)


def test_what_is_no_experiment_is_not_listed(root: Path) -> None:
    made("real")
    (root / "empty").mkdir()
    (root / "note.txt").write_text("")
    assert [folder.id for folder in home.experiments()] == ["real"]
    with pytest.raises(UsageError):
        home.find("empty")


MOUNTS = """/dev/vda / ext4 rw 0 0
server:/home {0} nfs4 rw 0 0
/dev/vdb {0}/local\\040disk xfs rw 0 0
user@host: {0}/ssh fuse.sshfs rw 0 0
"""


def test_network_file_systems_are_known_by_the_nearest_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_text(MOUNTS.format(tmp_path / "net"))
    monkeypatch.setattr(home, "MOUNTS", tmp_path / "mounts")
    (tmp_path / "net" / "local disk").mkdir(parents=True)
    (tmp_path / "net" / "ssh").mkdir()
    (tmp_path / "network").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    kinds = {"net": "nfs4", "net/x/y": "nfs4", "link": "nfs4", "net/local disk": None, "net/ssh/a": "fuse.sshfs"}
    for name, kind in {**kinds, "network": None, "": None}.items():
        assert home.network_file_system(tmp_path / name) == kind, name
    monkeypatch.setattr(home, "MOUNTS", tmp_path / "none")
    assert home.network_file_system(tmp_path / "net") is None


def test_on_a_network_file_system_the_log_lies_on_the_host(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(f"server:/ {root} nfs rw 0 0\n")
    monkeypatch.setattr(home, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(home, "_local_root", lambda: tmp_path / "var")
    root.mkdir()
    folder, notes = home.create("abc")
    assert folder.path == root / "abc" and folder.data == tmp_path / "var" / "abc"
    assert folder.events.parent == folder.lock.parent == folder.data and folder.trials.parent == folder.path
    assert len(notes) == 1 and "nfs" in notes[0]
    assert home.at(folder.path) == home.find("abc") == folder == home.find(str(folder.path)) and home.experiments() == [
        folder
    ]
    pointer = folder.path / "pointer.json"
    pointer.write_text(json.dumps({"host": "elsewhere", "path": "/var/tmp/x"}))
    with pytest.raises(TuneError, match="lies on host elsewhere in /var/tmp/x") as caught:
        home.find("abc")
    assert caught.value.exit_code == 1 and len(home.experiments()) == 1
    pointer.write_text("[" * 100_000)
    with pytest.raises(TuneError, match="can't be read"):
        home.find("abc")
    home.remove(folder)
    assert not folder.data.exists() and not folder.path.exists()


def test_a_local_folder_that_others_can_enter_is_not_used(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(f"server:/ {root} nfs rw 0 0\n")
    (tmp_path / "var").mkdir(mode=0o755)
    monkeypatch.setattr(home, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(home, "_local_root", lambda: tmp_path / "var")
    root.mkdir()
    with pytest.raises(UsageError, match="not a private folder"):
        home.create("abc")
    assert not (root / "abc").exists()
