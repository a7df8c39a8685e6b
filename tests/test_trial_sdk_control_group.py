"""Control groups: each way that this machine has is tried, and all that can be wrong with one is done without."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tune.trial_sdk import control_group, process_tree
from tune.trial_sdk.control_group import Group, Groups

JOIN = "import os, sys; open(sys.argv[1], 'w').write('0'); "


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


def inside(group: Group, code: str) -> subprocess.Popen[bytes]:
    """A Python process that joins a group, and then says so."""
    command = [sys.executable, "-c", JOIN + "print(flush=True); " + code, str(group.join)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    return process


def end(group: Group) -> None:
    """Kill all that is in a group, as a keeper does it."""
    tree = process_tree.Tree(b"/nowhere")
    tree.group = group

    def gone() -> bool:
        tree.signal(signal.SIGKILL)
        return not group.threads()

    until(gone)


ALL = [way.name for way in control_group.WAYS]
HERE = [name for name in ALL if not isinstance(control_group.choose(Path("/"), name), str)]


@pytest.fixture(params=HERE or ALL)
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Groups]:
    found = control_group.choose(tmp_path, request.param)
    if isinstance(found, str):
        pytest.skip(f"no control groups here: {found}")
    yield found
    if found.parent.exists():
        end(Group(found.parent))
        Group(found.parent).remove()
    assert not found.parent.exists()


def test_a_group_from_its_making_to_its_removal(groups: Groups, tmp_path: Path) -> None:
    group = groups.make("t1", 3)
    assert group.path == groups.parent / "t1.3" and group.way == groups.way
    assert not group.threads()
    assert groups.make("t1", 3).path == group.path
    process = inside(group, "import time; time.sleep(1000)")
    assert group.pids() == group.threads() == {process.pid}
    group.remove()
    again = control_group.found(os.fspath(group.path), tmp_path, "t1", 3)
    assert again is not None and again.pids() == {process.pid}
    end(again)
    assert process.communicate() and process.returncode == -signal.SIGKILL
    group.remove()
    assert not group.path.exists()


def test_a_recorded_group_that_is_another_one_is_not_touched(groups: Groups, tmp_path: Path) -> None:
    path = groups.make("t1", 0).path
    groups.make("t2", 0)
    assert control_group.found(os.fspath(path), tmp_path, "t2", 0) is None
    assert control_group.found(os.fspath(path), tmp_path / "other", "t1", 0) is None
    assert control_group.found(os.fspath(path.parent.parent), tmp_path, "t1", 0) is None
    assert control_group.found("", tmp_path, "t1", 0) is None
    assert control_group.found(os.fspath(path.with_name("t3.0")), tmp_path, "t3", 0) is None


def test_what_was_begun_by_a_keeper_that_died_is_let_go(groups: Groups) -> None:
    group = groups.make("t1", 0)
    process = inside(group, "import time; time.sleep(1000)")
    group.freeze()
    Group(group.path).let_go(at_once=True)
    frozen, line = group.way.state
    deadline = time.monotonic() + 20  # the kernel takes a moment, and freezes meanwhile what it was told before
    while line in (group.path / frozen).read_text().splitlines():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    end(group)
    process.communicate(timeout=20)


def test_a_group_below_and_one_with_many_threads(groups: Groups) -> None:
    group = groups.make("t1", 0)
    control_group._make(group.path / "below", groups.way)
    below = Group(group.path / "below")
    many = "import threading, time\nfor _ in range(5): threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    first = inside(group, "exec(" + repr(many + "print(flush=True)") + ")")
    second = inside(below, "import time; time.sleep(1000)")
    assert first.stdout is not None and first.stdout.readline() == b"\n"
    assert group.pids() == {first.pid, second.pid}
    assert len(group.threads()) == 7
    end(group)
    assert (first.wait(), second.wait()) == (-9, -9)
    for process in (first, second):
        process.communicate()
    group.remove()
    assert not group.path.exists()


def test_a_process_whose_first_thread_has_ended_is_found(groups: Groups) -> None:
    group = groups.make("t1", 0)
    code = (  # the system call `exit`, which ends one thread
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); "
        "ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)"
    )
    process = inside(group, code)
    until(lambda: (found := process_tree.read(process.pid)) is not None and found.state == "Z")
    assert process.pid not in process_tree.table()
    assert group.pids() == {process.pid}
    end(group)
    assert process.wait() in (0, -9)
    process.communicate()


def test_a_chain_of_forks_does_not_outrun_the_end(groups: Groups) -> None:
    group = groups.make("t1", 0)
    chain = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(3):\n    if os.fork() == 0: break\n"
        "while True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
    )
    process = inside(group, "exec(" + repr(chain) + ")")
    assert process.wait() == 0
    if process.stdout is not None:
        process.stdout.close()  # the chain holds its other end
    seen = group.threads()
    until(lambda: group.threads() and not group.threads() & seen)
    end(group)
    assert not group.threads()


def test_nobody_else_is_hit(groups: Groups) -> None:
    group, other = groups.make("t1", 0), groups.make("t2", 0)
    process, neighbour = (inside(one, "import time; time.sleep(1000)") for one in (group, other))
    end(group)
    assert process.wait() == -9 and neighbour.poll() is None
    end(other)
    for one in (process, neighbour):
        one.communicate()


def test_the_way_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert control_group.choose(tmp_path, "none") == "they are switched off"
    found = control_group.choose(tmp_path, "v3")
    assert isinstance(found, str) and "v3" in found and "v2, freezer and none" in found
    monkeypatch.setenv(control_group.VARIABLE, "none")
    assert control_group.choose(tmp_path) == "they are switched off"
    monkeypatch.delenv(control_group.VARIABLE)
    first = control_group.choose(tmp_path)
    assert isinstance(first, str) or first.way in control_group.WAYS


MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "37 31 0:34 /box {base}/v1 rw,relatime - cgroup cgroup rw,freezer,devices\n"
    "41 31 0:38 / {base}/the\\040unified rw - cgroup2 cgroup2 rw\n"
)


@pytest.mark.parametrize(
    ("own", "name", "where"),
    [
        ("6:freezer,devices:/box/a\n0::/user/b\n", "freezer", "v1/a"),
        ("6:freezer,devices:/box\n0::/\n", "freezer", "v1"),
        ("6:freezer,devices:/boxes\n", "freezer", None),  # not below what is mounted
        ("6:devices:/box\n", "freezer", None),
        ("0::/user/b\n", "v2", "the unified/user/b"),
        ("0::/../other\n", "v2", None),  # outside of the cgroup namespace
        ("6:freezer:/\n", "v2", None),
        ("", "v2", None),
    ],
)
def test_the_own_group_is_found(
    own: str, name: str, where: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"/proc/self/cgroup": own, "/proc/self/mountinfo": MOUNTS.format(base=tmp_path)}
    monkeypatch.setattr(control_group, "_text", lambda path: texts[str(path)])
    (way,) = [way for way in control_group.WAYS if way.name == name]
    assert control_group._here(way) == (None if where is None else tmp_path / where)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    way = control_group.WAYS[0]
    assert "can't be written" in control_group._closed(tmp_path / "nowhere", way)
    (tmp_path / "cgroup.procs").touch()
    assert "can't freeze" in control_group._closed(tmp_path, control_group.WAYS[1])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_group_that_has_gone_does_no_harm(tmp_path: Path) -> None:
    group = Group(tmp_path / f"tune-{secrets.token_hex(4)}")
    group.freeze()
    group.let_go(at_once=True)
    group.remove()
    assert group.threads() == group.pids() == set()
