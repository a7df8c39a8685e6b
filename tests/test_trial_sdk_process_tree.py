"""The process tree: who belongs to a launch, and that a signal never hits anybody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tune.trial_sdk import process_tree
from tune.trial_sdk.process_tree import Process

pytestmark = pytest.mark.skipif(not process_tree.PROC, reason="there is no /proc")


@pytest.fixture
def child():
    """A process in a session of its own, with a nasty name, that carries a launch folder."""
    code = "open('/proc/self/comm', 'w').write('a) R 1 (b'); print(flush=True); import time; time.sleep(1000)"
    env = {"XTUNE_LAUNCH_DIR": "/wrong", "TUNE_LAUNCH_DIR": "/some where/0", "OTHER": "x"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_read_whatever_its_name(child):
    found = process_tree.read(child.pid)
    assert found is not None
    assert (found.parent, found.group, found.session) == (os.getpid(), child.pid, child.pid)
    assert process_tree.table()[child.pid].start == found.start
    assert process_tree.launch_dir(child.pid) == b"/some where/0"
    assert child.pid in process_tree.descendants({os.getpid()}, process_tree.table())
    assert process_tree.read(1 << 22) is None


def test_the_own_line_is_spared(child):
    relatives = process_tree.relatives()
    assert {1, os.getpid(), os.getppid()} <= relatives
    assert child.pid not in relatives
    here = process_tree.read(os.getpid())
    assert here is not None
    tree = process_tree.Tree(b"/nowhere")
    tree.leader = (here.pid, here.start)
    assert os.getpid() not in {process.pid for process in tree.members()}


def test_a_recycled_pid_is_not_signalled(child):
    found = process_tree.read(child.pid)
    assert found is not None
    process_tree.send(Process(found.pid, 0, 0, 0, found.start - 1, "S"), signal.SIGKILL)
    assert child.poll() is None
    tree = process_tree.Tree(b"/nowhere")
    tree.leader = (found.pid, found.start - 1)
    assert tree.signal(signal.SIGKILL) == []
    assert not tree.group_lives()
    assert child.poll() is None
    process_tree.send(found, signal.SIGKILL)
    assert child.wait(30) == -9


def test_members_are_known_by_group_and_by_environment(child):
    found = process_tree.read(child.pid)
    assert found is not None
    for folder, leader in ((b"/some where/0", None), (b"/nowhere", (found.pid, found.start))):
        tree = process_tree.Tree(folder)
        tree.leader = leader
        assert [process.pid for process in tree.members()] == [child.pid]
    assert process_tree.below(b"/some where")
