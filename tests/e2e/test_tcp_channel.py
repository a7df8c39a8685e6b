"""A keeper that dials the engine over TCP, through the real program: kills, strangers, and what listens where."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, Bench, Experiment, gone, steps

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="there is no /proc/net/tcp")

TCP: dict[str, Any] = {"platform": "local", "channel": "tcp", "channel_address": "127.0.0.1"}


def listening(pids: set[int]) -> set[tuple[int, str]]:
    """(pid, address as in /proc/net/tcp) of the TCP and UDP sockets at which these processes can be reached."""
    inodes: dict[str, int] = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    inodes[target[8:-1]] = pid
    found: set[tuple[int, str]] = set()
    for table, waiting in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == waiting and words[9] in inodes:
                found.add((inodes[words[9]], words[1]))
    return found


def port_of(experiment: Experiment) -> int:
    return int((experiment.folder.data / "channel" / "port").read_text())


def whole(experiment: Experiment, trials: int) -> None:
    """DONE, nothing lost, doubled, started twice or left over."""
    state = experiment.finish() if experiment.pid else experiment.state()
    assert (state.status, state.counts["SUCCEEDED"]) == ("DONE", trials), (state.status, state.reason, state.counts)
    experiment.check(trials)
    experiment.assert_nothing_left()


@contextlib.contextmanager
def strangers(port: int) -> Iterator[list[int]]:
    """Somebody who connects again and again, and says rubbish or nothing; gives how often."""
    over, count = threading.Event(), [0]

    def attack() -> None:
        kept: list[socket.socket] = []
        what = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            (1 << 31).to_bytes(4, "big") + b"x" * 4096,
            os.urandom(300),
            b"\0\0\0\7",
        ]
        while not over.is_set():
            with contextlib.suppress(OSError):
                kept.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                count[0] += 1
                kept[-1].sendall(what[count[0] % len(what)])
            if len(kept) > 100:
                kept.pop(0).close()
            over.wait(0.005)
        for one in kept:
            one.close()

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join(30)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_tune_create_works_through_it(bench: Bench, tls: bool) -> None:
    done = bench.tune("create", bench.config_file(training_service={**TCP, "channel_tls": tls}), "--json")
    assert done.returncode == 0, done.stderr
    (experiment,) = bench.find_all()
    whole(experiment, 4)
    log = experiment.folder.engine_log.read_text()
    said = [json.loads(line) for line in log.splitlines() if '"listening"' in line]
    assert [one["address"] for one in said] == ["127.0.0.1"] and bool(said[0]["fingerprint"]) is tls
    token = (experiment.folder.data / "channel" / "local.token").read_text().strip()
    for path in experiment.folder.path.rglob("*"):
        if path.is_file() and path.suffix != ".token":
            assert token.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_engine_is_killed_and_resumed_among_strangers(bench: Bench, tls: bool) -> None:
    """The same trials go on under the same pids, and every report is in the log once."""
    experiment = bench.experiment(
        training_service={**TCP, "channel_tls": tls},
        trial_command=bench.fake(steps=30, sleep=0.1),
        trial_concurrency=3,
        max_trial_number=3,
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 6 and state.counts["RUNNING"] == 3)
    port = port_of(experiment)
    with strangers(port) as count:
        for _ in range(2):
            experiment.kill_engine()
            time.sleep(0.3)  # trials report to nobody meanwhile
            experiment.start()
            before = len(experiment.facts("METRIC"))
            experiment.until(lambda state, before=before: state.metrics > before)
            assert port_of(experiment) == port
        whole(experiment, 3)
        assert count[0] > 20
    launched = experiment.facts("LAUNCHED")
    assert len({row.body["pid"] for row in launched}) == len(launched) == 3
    assert not [row for row in experiment.facts("LAUNCH") if row.body.get("attempt")]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_strangers_leave_no_trace_in_the_log(bench: Bench, tls: bool) -> None:
    experiment = bench.experiment(
        training_service={**TCP, "channel_tls": tls},
        trial_command=bench.fake(steps=1, sleep=600),
        max_trial_number=1,
        trial_concurrency=1,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 1)
    settled = experiment.rows()
    with strangers(port_of(experiment)) as count:
        for _ in steps(PATIENCE):
            if count[0] > 300:
                break
    assert experiment.rows() == settled
    lines = experiment.folder.engine_log.read_text().splitlines()
    assert len([line for line in lines if "connections refused" in line]) == 1
    assert [json.loads(line)["event"] for line in lines] == ["listening", "host reached", "connections refused"]
    assert bench.tune("stop", experiment.id).returncode == 0
    assert experiment.finish().status == "STOPPED"


def test_a_keeper_that_is_killed_is_followed_by_another(bench: Bench) -> None:
    experiment = bench.experiment(
        training_service=TCP, trial_command=bench.fake(steps=20, sleep=0.1), trial_concurrency=2, max_trial_number=2
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 2)
    keeper = experiment.keeper_pid()
    os.kill(keeper, signal.SIGKILL)
    assert gone(keeper)
    whole(experiment, 2)
    assert not [row for row in experiment.facts("LAUNCH") if row.body.get("attempt")]


@pytest.mark.parametrize("service", [None, TCP], ids=["off", "on"])
def test_what_listens(bench: Bench, service: dict[str, Any] | None) -> None:
    """Nothing at all unless it is asked for; then one socket, the engine's, at the address that was named."""
    experiment = bench.experiment(
        training_service=service, trial_command=bench.fake(steps=1, sleep=600), max_trial_number=1
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 1)
    allowed = {(experiment.pid, f"0100007F:{port_of(experiment):04X}")} if service is not None else set()
    assert listening(set(experiment.processes()) | {experiment.pid}) == allowed
    assert (experiment.folder.data / "channel").exists() is (service is not None)
    assert bench.tune("stop", experiment.id).returncode == 0
    experiment.finish()


def test_a_port_that_is_taken_is_said_at_once(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = bench.tune("create", bench.config_file(training_service={**TCP, "channel_port": port}))
    assert done.returncode == 1
    assert f"can't listen at 127.0.0.1 port {port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
