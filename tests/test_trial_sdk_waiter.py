"""The waiter alone, without a keeper: what the command sees, and that nothing but its end ends it."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

from tune.trial_sdk import process_tree, waiter
from tune.trial_sdk.launches import Folder


def start(folder, command, env=None, files=512):
    """Start a waiter; its pid and the inner shell's."""
    alive = Folder(folder).lock()
    clean = {"PATH": os.environ["PATH"]} | (env or {})
    try:
        pid, pipe = waiter.spawn(folder, command, str(folder), clean, alive, files)
    finally:
        os.close(alive)
    with os.fdopen(pipe) as file:
        line = file.readline().strip()  # the waiter keeps its end
    return pid, int(line or 0)


@pytest.fixture(params=["setsid", "no setsid"])
def starter(request, monkeypatch):
    if request.param == "no setsid":
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    return request.param


def test_a_command_from_start_to_exit(tmp_path, starter):
    script = "import os, sys, signal, resource\nfd = '/proc/self/fd/'\n"
    script += "def files(): return [n for n in os.listdir(fd) if 'test_a_command' in os.path.realpath(fd + n)]\n"
    script += "print(os.getsid(0) == os.getpgid(0) == os.getppid(), os.getcwd(), "
    script += "signal.getsignal(signal.SIGINT) == signal.default_int_handler, signal.getsignal(signal.SIGTERM) == 0, "
    script += "resource.getrlimit(resource.RLIMIT_NOFILE)[0], files(), "
    script += "os.environ['dir'], os.environ['a'], sorted(n for n in os.environ if n.startswith('TUNE')))"
    (tmp_path / "s.py").write_text(script)
    pid, inner = start(tmp_path, f"{sys.executable} s.py; exit 5", {"dir": "mine", "a": "b"})
    os.waitpid(pid, 0)
    folder = Folder(tmp_path)
    assert folder.text("stderr") == ""
    assert folder.text("stdout").strip() == f"True {tmp_path} True True 512 ['1', '2'] mine b ['TUNE_LAUNCH_DIR']"
    assert folder.status() == 5
    assert folder.leader() is not None and folder.leader()[0] == inner
    assert folder.text("waiter").strip() == str(pid)
    assert not folder.held()


def test_signals_to_the_waiter_do_not_end_it(tmp_path, starter):
    pid, inner = start(tmp_path, "while ! test -e go; do sleep 0.02; done; exit 3")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        os.kill(pid, number)
    assert Folder(tmp_path).held()
    (tmp_path / "go").touch()
    os.waitpid(pid, 0)
    assert Folder(tmp_path).status() == 3
    assert process_tree.read(inner) is None


def test_a_background_child_does_not_hold_the_lock(tmp_path):
    pid, inner = start(tmp_path, "sleep 1000 & exit 0")
    os.waitpid(pid, 0)
    assert not Folder(tmp_path).held()
    os.killpg(inner, signal.SIGKILL)


def test_text_is_never_shell(tmp_path):
    folder = tmp_path / "a b'$(touch x);\"c"
    folder.mkdir()
    pid, _ = start(folder, "printf '%s' \"$TUNE_LAUNCH_DIR\"")
    os.waitpid(pid, 0)
    assert (folder / "stdout").read_text() == str(folder)
    assert not (folder / "x").exists()


def test_without_room_for_its_pid_the_command_never_runs(tmp_path):
    (tmp_path / "pid").mkdir()
    pid, inner = start(tmp_path, "touch ran")
    os.waitpid(pid, 0)
    assert inner == 0
    assert not (tmp_path / "ran").exists()


def test_a_keeper_that_died_and_reads_no_pid_does_not_end_the_command(tmp_path):
    alive = Folder(tmp_path).lock()
    try:
        pid, pipe = waiter.spawn(tmp_path, "exit 4", str(tmp_path), {"PATH": os.environ["PATH"]}, alive, 512)
        os.close(pipe)
    finally:
        os.close(alive)
    os.waitpid(pid, 0)
    assert Folder(tmp_path).status() == 4


def test_the_output_folder_on_shared_storage_is_made(tmp_path):
    output = tmp_path / "shared" / "tune" / "t1"
    pid, _ = start(tmp_path, 'echo 1 >"$TUNE_OUTPUT_DIR/out"', {"TUNE_OUTPUT_DIR": str(output)})
    os.waitpid(pid, 0)
    assert Folder(tmp_path).status() == 0 and (output / "out").read_text() == "1\n"


def test_an_output_folder_that_can_not_be_made_is_said(tmp_path):
    (tmp_path / "shared").touch()
    pid, _ = start(tmp_path, "touch ran", {"TUNE_OUTPUT_DIR": str(tmp_path / "shared" / "t1")})
    os.waitpid(pid, 0)
    assert Folder(tmp_path).status() == 126 and "shared" in Folder(tmp_path).text("stderr")
    assert not (tmp_path / "ran").exists()


def test_codes():
    assert [waiter.code(status) for status in (0, 1, 128, 129, 137, 192, 193, 255)] == [
        0,
        1,
        128,
        -1,
        -9,
        -64,
        193,
        255,
    ]
