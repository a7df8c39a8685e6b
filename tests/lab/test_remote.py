"""Experiments on hosts of the lab: links that are cut, lossy or gone for ever, reboots, uploads cut off, full disks."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from harness import FAKE, Bench, Experiment, steps
from harness import bench as make_bench

from lab.asyncssh_host import AsyncsshHost
from lab.host import Host
from lab.network import Lab

WITNESS = "/home/ada/witness.jsonl"


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> tuple[Host, Host]:
    return lab.host("alpha"), lab.host("beta", socket_forwarding=False)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: Lab, hosts: tuple[Host, Host]) -> Iterator[Bench]:
    """A bench in front of hosts that are as new."""
    lab.heal()
    for host in hosts:
        host.run("rm", "-rf", ".tune", WITNESS)
    with make_bench(tmp_path, monkeypatch.setenv) as made:
        yield made
        for host in hosts:
            alive = [one for one in host.processes() if "tune" in " ".join(one.argv)]
            assert not alive, f"left on {host.name}: {alive}"


def machine(bench: Bench, host: Host, **fields: Any) -> dict[str, Any]:
    """A host as an entry of machine_list."""
    login = host.login
    known = bench.base / f"known.{host.name}"
    known.write_text(login.known_hosts)
    return {
        "host": login.address,
        "name": host.name,
        "port": login.port,
        "user": login.user,
        "ssh_key_file": str(login.key),
        "known_hosts": str(known),
        "keepalive": "0.5s",
        **fields,
    }


def remote(bench: Bench, *hosts: Host, **fields: Any) -> dict[str, Any]:
    machines = [machine(bench, host, **fields) for host in hosts]
    return {"training_service": {"platform": "remote", "machine_list": machines}}


def fake(**options: object) -> str:
    return shlex.join(["python", str(FAKE), WITNESS, json.dumps(options)])


def check(experiment: Experiment, *hosts: Host, trials: int, complete: bool = True) -> None:
    """The checker, over the log and what the trials wrote down on their hosts."""
    with experiment.bench.witness.open("wb") as file:
        for host in hosts:
            if host.exists(WITNESS):
                file.write(host.read(WITNESS))
    experiment.check(trials, complete=complete)


def connected(experiment: Experiment, name: str) -> Any:
    return lambda state: name in state.hosts and state.hosts[name].connected


def test_two_hosts_with_files_and_ports_of_their_own(bench: Bench, hosts: tuple[Host, Host]) -> None:
    alpha, beta = hosts
    before = {host.name: {str(one) for one in host.listening() if one.kind != "unix"} for host in hosts}
    experiment = bench.experiment(
        trial_command=fake(steps=30), trial_concurrency=6, max_trial_number=12, **remote(bench, alpha, beta)
    )
    experiment.start()
    experiment.until(lambda state: {trial.host for trial in state.made if trial.status == "RUNNING"} == set(before))
    for host in hosts:
        ports = {str(one) for one in host.listening() if one.kind != "unix"}
        assert ports == before[host.name]  # SSH's, and no other
        assert host.exists(f".tune/experiments/{experiment.id}")
    assert experiment.finish().counts["SUCCEEDED"] == 12
    check(experiment, *hosts, trials=12)


def test_a_cut_that_is_over_before_anybody_misses_a_sign(bench: Bench, hosts: tuple[Host, Host]) -> None:
    alpha, _ = hosts
    experiment = bench.experiment(
        trial_command=fake(steps=80, sleep=0.05), max_trial_number=2, **remote(bench, alpha, keepalive="5s")
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 10)
    alpha.cut()
    time.sleep(1)
    alpha.restore()
    assert experiment.finish().counts["SUCCEEDED"] == 2
    assert [row.body["state"] for row in experiment.facts("HOST")] == ["connected"]
    check(experiment, alpha, trials=2)


@pytest.mark.parametrize("way", ["cut", "drop", "reject"])
def test_a_link_that_is_away_for_longer(bench: Bench, hosts: tuple[Host, Host], way: str) -> None:
    alpha, _ = hosts
    experiment = bench.experiment(trial_command=fake(steps=100, sleep=0.05), max_trial_number=2, **remote(bench, alpha))
    experiment.start()
    experiment.until(lambda state: state.metrics > 10)
    pids = {one.id: one.pid for one in experiment.state().made}
    getattr(alpha, way)()
    away = experiment.until(lambda state: not state.hosts["alpha"].connected)
    assert away.counts["RUNNING"] == 2
    alpha.restore()
    experiment.until(connected(experiment, "alpha"))
    assert {one.id: one.pid for one in experiment.state().made} == pids
    assert experiment.finish().counts["SUCCEEDED"] == 2
    check(experiment, alpha, trials=2)


def test_a_link_that_loses_packets(bench: Bench, hosts: tuple[Host, Host]) -> None:
    alpha, beta = hosts
    for host in hosts:
        host.lossy(0.1)
    experiment = bench.experiment(
        trial_command=fake(steps=20), max_trial_number=6, trial_concurrency=4, **remote(bench, alpha, beta)
    )
    assert experiment.run(110).counts["SUCCEEDED"] == 6
    check(experiment, *hosts, trials=6)


def test_a_link_that_is_gone_for_ever_and_comes_back(bench: Bench, hosts: tuple[Host, Host]) -> None:
    """After the lease the trial is LOST and its slot free; what it reported late is stored, and not counted twice."""
    alpha, beta = hosts
    experiment = bench.experiment(
        trial_command=fake(steps=40, sleep=0.05),
        trial_concurrency=2,
        max_trial_number=2,
        max_retries=1,
        engine_lease="4s",
        stop_grace="1s",
        **remote(bench, alpha, beta, slots=1),
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 10 and state.counts["RUNNING"] == 2)
    beta.drop()
    lost = experiment.until(lambda state: any(one.attempt == 1 for one in state.made))
    again = next(one for one in lost.made if one.attempt == 1)
    assert "LOST" in json.dumps([row.body for row in experiment.facts("TRIAL_END")])
    assert again.host in ("", "alpha")
    beta.restore()
    assert experiment.finish().counts["SUCCEEDED"] == 2
    check(experiment, *hosts, trials=2, complete=False)


def test_a_reboot_ends_its_trials_and_they_are_tried_again(bench: Bench, hosts: tuple[Host, Host]) -> None:
    alpha, _ = hosts
    experiment = bench.experiment(
        trial_command=fake(steps=60, sleep=0.05), max_trial_number=2, max_retries=1, **remote(bench, alpha)
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 10)
    alpha.reboot()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 2 and [one.attempt for one in state.made] == [1, 1]
    ends = [row.body for row in experiment.facts("TRIAL_END")]
    assert [(end["status"], end.get("exit_code")) for end in ends[:2]] == [("FAILED", None)] * 2
    check(experiment, alpha, trials=2, complete=False)


def test_an_upload_that_is_cut_off_anywhere_is_whole_in_the_end(bench: Bench, hosts: tuple[Host, Host]) -> None:
    alpha, _ = hosts
    dice = random.Random(5)
    (bench.code / "weights.bin").write_bytes(dice.randbytes(3 << 20))
    command = bench.script(
        "import hashlib, tune\ntune.get_next_parameter()\n"
        "tune.report_final_result(int(hashlib.md5(open('weights.bin', 'rb').read()).hexdigest()[:8], 16))\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=2, **remote(bench, alpha))
    alpha.cut_after(400_000)
    experiment.start()
    code = f".tune/experiments/{experiment.id}/code"
    for count, size in enumerate([dice.randrange(50_000, 2_500_000) for _ in range(4)], start=1):
        for _ in steps(60, experiment.folder.engine_log.read_text):
            if experiment.folder.engine_log.read_text().count("host lost") >= count:
                break
        alpha.restore()
        alpha.cut_after(size, reset=bool(size % 2))
        names = alpha.run("ls", "-A", code, check=False).split()
        assert all(name.startswith(".new-") for name in names), names
    alpha.restore()
    state = experiment.finish(110)
    assert state.counts["SUCCEEDED"] == 2
    for _ in steps(30, lambda: alpha.run("ls", "-A", code)):
        if len(alpha.run("ls", "-A", code).split()) == 1:  # nothing half of it is left
            break
    digest = subprocess.run(["md5sum", bench.code / "weights.bin"], capture_output=True, text=True, check=True).stdout
    assert state.made[0].phases[0].value == int(digest[:8], 16)


def test_a_full_disk_is_said_and_waited_for(bench: Bench, hosts: tuple[Host, Host]) -> None:
    alpha, _ = hosts
    (bench.code / "data.bin").write_bytes(random.Random(1).randbytes(1 << 20))
    experiment = bench.experiment(trial_command=fake(), max_trial_number=2, **remote(bench, alpha))
    alpha.fill_disk()
    experiment.start()
    full = experiment.until(lambda state: "alpha" in state.hosts)
    assert "No space left" in full.hosts["alpha"].reason and full.hosts["alpha"].name == "alpha"
    alpha.free_disk()
    assert experiment.finish().counts["SUCCEEDED"] == 2
    check(experiment, alpha, trials=2)


def test_an_engine_is_killed_with_sixteen_trials_on_two_hosts(bench: Bench, hosts: tuple[Host, Host]) -> None:
    experiment = bench.experiment(
        trial_command=fake(steps=120, sleep=0.05),
        trial_concurrency=16,
        max_trial_number=16,
        **remote(bench, *hosts),
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 16 and state.metrics > 30, 100)
    for _ in range(2):
        before = {one.id: one.pid for one in experiment.state().made}
        experiment.kill_engine()
        experiment.start()
        experiment.until(lambda state: all(host.connected for host in state.hosts.values()))
        assert {one.id: one.pid for one in experiment.state().made} == before
    assert experiment.finish(100).counts["SUCCEEDED"] == 16
    check(experiment, *hosts, trials=16)


def test_what_doctor_says_of_a_host(bench: Bench, lab: Lab) -> None:
    odd = lab.host(
        "gamma",
        shell="/bin/sh",
        python=None,
        programs={"old": "#!/bin/sh\nexec python3.7 x\n"},
    )
    try:
        config = bench.config_file(**remote(bench, odd))
        done = bench.tune("doctor", "--config", config)
        assert done.returncode == 1 and "has no Python: tried python3" in done.stdout
        created = bench.tune("create", config)
        assert created.returncode == 1 and "python_path" in created.stderr
        told = bench.tune("doctor", "--config", bench.config_file(**remote(bench, odd, python_path=sys.executable)))
        assert told.returncode == 0 and "calls itself gamma" in told.stdout, told.stdout
        odd.run("mkdir", ".tune")
        odd.run("chmod", "500", ".tune")
        closed = bench.tune("doctor", "--config", bench.config_file(**remote(bench, odd, python_path=sys.executable)))
        assert closed.returncode == 1 and "can't be written" in closed.stdout
    finally:
        lab.remove(odd)


def test_hosts_that_share_a_home(bench: Bench, lab: Lab) -> None:
    """Each has a keeper of its own there, and no launch happens twice, over a killed engine too."""
    shared = Path(tempfile.mkdtemp(prefix="tune-lab-", dir="/mnt"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", shared], check=True)
    both: list[Host] = []
    try:
        both += [lab.host("delta"), lab.host("epsilon")]
        experiment = bench.experiment(
            trial_command=fake(steps=200, sleep=0.05).replace(WITNESS, f"{shared}/witness"),
            trial_concurrency=8,
            max_trial_number=16,
            **remote(bench, *both, folder=str(shared / "tune"), slots=4),
        )
        experiment.start()
        experiment.until(lambda state: {one.host for one in state.made if one.pid} == {"delta", "epsilon"})
        experiment.until(lambda state: state.metrics > 30)
        before = {one.id: (one.host, one.pid) for one in experiment.state().made if one.status == "RUNNING"}
        experiment.kill_engine()
        experiment.start()
        experiment.until(lambda state: all(host.connected for host in state.hosts.values()))
        after = {one.id: (one.host, one.pid) for one in experiment.state().made}
        assert before.items() <= after.items()
        assert len(list(shared.glob(f"tune/experiments/{experiment.id}/keeper.*.lock"))) == 2
        assert experiment.finish(100).counts["SUCCEEDED"] == 16
        bench.witness.write_bytes((shared / "witness").read_bytes())
        experiment.check(16)
    finally:
        for host in both:
            lab.remove(host)
        subprocess.run(["umount", "-l", shared], check=True)
        shared.rmdir()


def test_a_server_of_asyncssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server than OpenSSH's, which needs no root; its sessions are killed in the middle."""
    (tmp_path / "host").mkdir()
    with AsyncsshHost(tmp_path / "host") as host, make_bench(tmp_path / "bench", monkeypatch.setenv) as bench:
        login = host.login
        known = tmp_path / "known"
        known.write_text(login.known_hosts)
        entry = {"host": login.address, "port": login.port, "user": login.user, "ssh_key_file": str(login.key)}
        entry |= {"known_hosts": str(known), "python_path": str(Path(sys.executable).parent)}
        experiment = bench.experiment(
            trial_command=bench.fake(steps=60, sleep=0.05),
            max_trial_number=4,
            training_service={"platform": "remote", "machine_list": [{**entry, "folder": str(tmp_path / "there")}]},
        )
        experiment.start()
        experiment.until(lambda state: state.metrics > 10)
        before = {one.id: one.pid for one in experiment.state().made if one.pid}
        host.kill_sessions()
        experiment.until(lambda state: sum(row.kind == "HOST" for row in experiment.rows()) >= 3)
        assert before.items() <= {one.id: one.pid for one in experiment.state().made}.items()
        assert experiment.finish().counts["SUCCEEDED"] == 4
        experiment.check(4)
