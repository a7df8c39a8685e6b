"""Limits of the kernel: a trial that is out of memory or forks on and on is its own fault, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Bench

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes control groups with limits")


def own_group(controller: str) -> Path | None:
    """The directory of this process's group in a hierarchy of cgroup v1; None where it is not to be had."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            found = Path("/sys/fs/cgroup", controller) / path.lstrip("/")
            return found if os.access(found, os.W_OK) else None
    return None


@contextlib.contextmanager
def limited(controller: str, limits: dict[str, int]) -> Iterator[Path]:
    """A group with limits; its file that a process joins it by. Afterwards it is empty."""
    here = own_group(controller)
    if here is None:
        pytest.skip(f"there is no {controller} controller of cgroup v1")
    group = here / f"tune-test-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        for name, value in limits.items():
            (group / name).write_text(str(value))
        yield group / "cgroup.procs"
        assert not (group / "cgroup.procs").read_text(), "somebody is left in the group"
    finally:
        group.rmdir()


OUT_OF_MEMORY = """
import sys, tune
tune.get_next_parameter()
tune.report_intermediate_result(1)
print("about to eat", file=sys.stderr, flush=True)
held = []
while True: held.append(bytearray(1 << 20))
"""


def test_a_trial_that_the_kernel_kills_for_its_memory_is_failed(bench: Bench) -> None:
    command = f"exec {bench.script(OUT_OF_MEMORY)}"
    with limited("memory", {"memory.limit_in_bytes": 64 << 20}) as join:
        experiment = bench.experiment(trial_command=f"echo 0 >{join}; {command}", max_trial_number=1, max_failures=0)
        trial = experiment.run().trial(0)
    assert (trial.status, trial.exit_code) == ("FAILED", -9), trial
    assert "about to eat" in trial.stderr and list(trial.phases[0].intermediate) == [1]
    said = bench.tune("trials", experiment.id)
    assert "ended by signal 9" in said.stdout and "about to eat" in said.stdout, said
    experiment.assert_nothing_left()


FORK_BOMB = """
import os, signal, subprocess, sys, time, tune
tune.get_next_parameter()
tune.report_intermediate_result(0)
if tune.get_sequence_id() == 0:
    open(sys.argv[1], "w").write("0")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0: os.setsid()
        except OSError:
            open(sys.argv[2], "w").close()
            time.sleep(0.01)
else:
    while not os.path.exists(sys.argv[2]): time.sleep(0.01)
    for step in range(1, 20):
        tune.report_intermediate_result(step)
        time.sleep(0.02)
    tune.report_final_result(1)
"""


def test_a_fork_bomb_under_a_limit_hurts_no_neighbour_and_ends_with_the_stop(bench: Bench) -> None:
    full = bench.base / "full"
    with limited("pids", {"pids.max": 60}) as join:
        command = f"{bench.script(FORK_BOMB)} {join} {full}"
        experiment = bench.experiment(trial_command=command, max_trial_number=5, trial_concurrency=5, stop_grace="0.3s")
        experiment.start()
        experiment.until(lambda state: state.counts["SUCCEEDED"] == 4)
        assert full.exists()
        assert bench.tune("stop", experiment.id).returncode == 0
        state = experiment.finish()
        experiment.assert_nothing_left()
    assert state.trial(0).status == "SYS_CANCELED"
    for trial in state.made[1:]:
        assert list(trial.phases[0].intermediate) == list(range(20)) and trial.phases[0].value == 1
