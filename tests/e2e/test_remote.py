"""Trials on a machine that is reached by SSH: a real OpenSSH server on loopback, a real asyncssh, real keepers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Experiment, gone, steps
from sshd import Sshd
from visitor import Browser, interrupted, opened

from tune.trial_sdk.keeper import read_lock


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Makes servers; when the test is over they go, and so do the keepers behind them."""
    made: list[Sshd] = []

    def make(*lines: str) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", *lines))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        for lock in one.home.glob("experiments/*/keeper.*.lock"):
            known = read_lock(lock)
            if known is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(known.pid, signal.SIGKILL)


def remote(*machines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"training_service": {"platform": "remote", "machine_list": list(machines), **fields}}


def adopted(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The trials whose process is the same before and after."""
    return [name for name, pid in before.items() if after.get(name) == pid]


def pids(experiment: Experiment) -> dict[str, int | None]:
    return {one.id: one.pid for one in experiment.state().made if one.status == "RUNNING"}


def test_an_experiment_from_create_to_its_end(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    command = bench.script(
        "import os, tune\nx = tune.get_next_parameter()['x']\nprint('here', os.getcwd(), os.environ['NNI_PLATFORM'])\n"
        "open('written', 'w').close()\ntune.report_final_result(x)\n"
    )
    config = bench.config_file(trial_command=command, **remote(one.machine()))
    done = bench.tune("create", config, "--id", "far")
    assert done.returncode == 0 and "DONE best" in done.stdout, done.stderr
    assert not (bench.code / "written").exists()
    logs = bench.tune("logs", "far", "--trial", "2")
    assert logs.stdout == f"here {next(one.home.glob('experiments/far/code/*'))} remote\n"
    assert bench.tune("trial", "fetch", "0", "--id", "far").returncode == 0
    assert len(list((bench.home / "far/trials").glob("*/0/exit"))) == 1
    assert bench.find_all()[0].state().counts["SUCCEEDED"] == 4
    assert not list(one.home.glob("experiments/far/keeper.*.sock"))


def test_every_metric_arrives_once_and_the_engine_is_replaceable(bench: Bench, server: Callable[..., Sshd]) -> None:
    """Engine killed -9 with 16 remote trials, resumed: all adopted, nothing lost or doubled, nothing started twice."""
    one = server()
    experiment = bench.experiment(
        trial_command=bench.fake(steps=60, sleep=0.05),
        trial_concurrency=16,
        max_trial_number=16,
        **remote(one.machine()),
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 16 and state.metrics > 40)
    for _ in range(2):
        before = pids(experiment)
        experiment.kill_engine()
        experiment.start()
        experiment.until(lambda state: next(iter(state.hosts.values())).connected)
        assert adopted(before, pids(experiment)) == list(before) and len(before) == 16
    assert experiment.finish().counts["SUCCEEDED"] == 16
    experiment.check(16)


def test_connections_and_server_go_and_come(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    experiment = bench.experiment(
        trial_command=bench.fake(steps=80, sleep=0.05), max_trial_number=2, **remote(one.machine())
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 5)
    before = pids(experiment)
    assert one.kill_connections()
    experiment.until(lambda state: sum(row.kind == "HOST" for row in experiment.rows()) >= 3)
    one.stop()
    down = experiment.until(lambda state: not next(iter(state.hosts.values())).connected)
    assert down.counts["RUNNING"] == 2
    one.start()
    experiment.until(lambda state: next(iter(state.hosts.values())).connected)
    assert pids(experiment) == before
    assert experiment.finish().counts["SUCCEEDED"] == 2
    experiment.check(2)


def test_where_forwarding_is_forbidden_the_session_carries_it(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server("DisableForwarding yes", "PermitTTY no")
    experiment = bench.experiment(**remote(one.machine()))
    assert experiment.run().counts["SUCCEEDED"] == 4
    experiment.check(4)


def test_a_shell_that_talks_does_not_matter(bench: Bench, server: Callable[..., Sshd], tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text('#!/bin/sh\necho "You have mail."\necho oops >&2\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
    noisy.chmod(0o755)
    one = server(f"ForceCommand {noisy}", "AllowStreamLocalForwarding no")
    experiment = bench.experiment(**remote(one.machine()))
    assert experiment.run().counts["SUCCEEDED"] == 4
    experiment.check(4)


def test_a_host_that_has_only_a_python_gets_what_is_needed(
    bench: Bench, server: Callable[..., Sshd], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=60)
    one = server()
    machine = one.machine(python_path=str(tmp_path / "bare"))
    command = bench.fake()
    assert command.startswith("python ")
    experiment = bench.experiment(trial_command=command, **remote(machine))
    assert experiment.run().counts["SUCCEEDED"] == 4
    experiment.check(4)
    sdk = next(one.home.glob("sdk/*"))
    assert (sdk / "tune/trial_sdk/keeper.py").is_file() and (sdk / "msgspec").is_dir()
    again = bench.tune("host", "prepare", "--config", bench.config_file(**remote(machine)))
    assert again.stdout.strip().endswith(str(sdk))


def test_an_unknown_or_changed_host_key_is_refused(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    config = bench.config_file(**remote(one.machine()))
    known = one.known.read_text()
    shown = subprocess.run(
        ["ssh-keygen", "-lf", one.base / "host.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    one.known.write_text("")
    refused = bench.tune("create", config)
    assert refused.returncode == 1 and shown in refused.stderr and "tune host trust" in refused.stderr
    assert not bench.home.exists()
    blind = bench.tune("host", "trust", "--config", config)
    assert blind.returncode == 2 and shown in blind.stdout
    wrong = bench.tune("host", "trust", "--config", config, "--fingerprint", "SHA256:other")
    assert wrong.returncode == 1 and one.known.read_text() == ""
    assert bench.tune("host", "trust", "--config", config, "--fingerprint", shown).returncode == 0
    assert one.known.read_text() == known
    one.stop()
    one.new_host_key()
    one.start()
    changed = bench.tune("create", config)
    assert changed.returncode == 1 and "CHANGED" in changed.stderr and shown in changed.stderr
    assert bench.tune("host", "trust", "--config", config, "--yes").returncode == 1
    assert one.known.read_text() == known and not bench.home.exists()


def test_a_key_that_is_not_let_in_and_a_python_that_is_not_there(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    (one.base / "authorized").write_text("")
    refused = bench.tune("create", bench.config_file(**remote(one.machine())))
    assert refused.returncode == 1 and "does not let" in refused.stderr and "ssh_key_file" in refused.stderr
    (one.base / "authorized").write_text((one.base / "key.pub").read_text())
    missing = bench.tune("create", bench.config_file(**remote(one.machine(python_path="/no/such/python3"))))
    assert missing.returncode == 1 and "has no Python: tried /no/such/python3" in missing.stderr
    doctor = bench.tune("doctor", "--config", bench.config_file(**remote(one.machine())))
    assert doctor.returncode == 0 and "experiments can run there" in doctor.stdout


def test_no_port_is_opened(bench: Bench, server: Callable[..., Sshd]) -> None:
    def listening() -> set[str]:
        lines = [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]
        return {line.split()[1] for line in lines[1:] if line.split()[3] == "0A"}

    one = server()
    before = listening()
    experiment = bench.experiment(trial_command=bench.fake(steps=40), max_trial_number=2, **remote(one.machine()))
    experiment.start()
    experiment.until(lambda state: state.metrics > 5)
    files = [file for pid in experiment.processes() for file in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {str(file.readlink()) for file in files if file.is_symlink()}
    sockets = [
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert not [inode for inode in sockets if f"socket:[{inode}]" in inodes]
    assert f"0100007F:{one.port:04X}" in before
    experiment.finish()


def test_a_stop_leaves_nothing_on_the_host(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    command = bench.script(
        "import subprocess, sys, time, tune\n"
        "subprocess.Popen(['setsid', 'sleep', '3600'])\ntune.get_next_parameter()\ntime.sleep(3600)\n"
    )
    experiment = bench.experiment(trial_command=command, **remote(one.machine()))
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] == 2)
    assert bench.tune("stop", experiment.id).returncode == 0
    lock = read_lock(next(one.home.glob("experiments/*/keeper.*.lock")))
    assert lock is not None and gone(lock.pid, 20)
    assert experiment.state().status == "STOPPED"
    experiment.assert_nothing_left()


def test_local_and_remote_in_one_experiment(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    experiment = bench.experiment(
        trial_command=bench.fake(steps=20),
        trial_concurrency=4,
        max_trial_number=8,
        training_service={"platform": ["local", "remote"], "machine_list": [one.machine(name="there")]},
    )
    state = experiment.run()
    assert state.counts["SUCCEEDED"] == 8 and {trial.host for trial in state.made} == {"local", "there"}
    experiment.check(8)


def test_secrets_by_reference_are_nowhere_to_be_read(
    bench: Bench, server: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = server()
    canary = "canary-in-a-coal-mine"
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", canary, "-f", str(one.base / "key")], check=True, timeout=20
    )
    monkeypatch.setenv("KEY_WORD", canary)
    plain = bench.tune("create", bench.config_file(**remote(one.machine(ssh_passphrase=canary))))
    assert plain.returncode == 2 and "env:NAME" in plain.stderr and canary not in plain.stderr
    command = bench.script("import os, tune\nprint(sorted(os.environ.items()))\ntune.report_final_result(1)\n")
    experiment = bench.experiment(
        trial_command=command, debug=True, log_level="debug", **remote(one.machine(ssh_passphrase="env:KEY_WORD"))
    )
    experiment.start()
    experiment.finish()
    assert experiment.state().counts["SUCCEEDED"] == 4
    for folder in (bench.home, one.home):
        for path in folder.rglob("*"):
            assert not path.is_file() or canary.encode() not in path.read_bytes(), path


def test_a_host_that_is_away_is_waited_for_and_says_why(bench: Bench, server: Callable[..., Sshd]) -> None:
    one, two = server(), server()
    two.stop()
    machines = remote(one.machine(name="one"), two.machine(name="two"))
    done = bench.tune("create", bench.config_file(max_trial_number=2, **machines))
    assert done.returncode == 0 and "host two" in done.stderr and "can't be reached" in done.stderr
    one.stop()
    refused = bench.tune("create", bench.config_file(**machines))
    assert refused.returncode == 1 and "host one" in refused.stderr and "host two" in refused.stderr
    experiment = bench.experiment(max_trial_number=2, **machines)
    experiment.start()
    experiment.until(lambda state: len(state.hosts) == 2 and state.ready)
    trials = json.loads(bench.tune("trials", experiment.id, "--json").stdout)
    assert "no host is reached" in trials[0]["reason"] and "Connection refused" in trials[0]["reason"]
    two.start()
    assert experiment.finish().counts["SUCCEEDED"] == 2


def test_a_keeper_that_is_killed_is_started_again(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    experiment = bench.experiment(
        trial_command=bench.fake(steps=60, sleep=0.05), max_trial_number=2, **remote(one.machine())
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 5)
    before = pids(experiment)
    lock = read_lock(next(one.home.glob("experiments/*/keeper.*.lock")))
    assert lock is not None
    os.kill(lock.pid, signal.SIGKILL)
    experiment.until(lambda state: next(iter(state.hosts.values())).pid not in (0, lock.pid))
    assert pids(experiment) == before
    assert experiment.finish().counts["SUCCEEDED"] == 2
    experiment.check(2)


def test_a_jump_host_is_checked_too(bench: Bench, server: Callable[..., Sshd]) -> None:
    jump, one = server(), server("AllowStreamLocalForwarding no")
    (one.base / "authorized").write_text((jump.base / "key.pub").read_text())
    own = one.known.read_text()
    machine = one.machine(ssh_key_file=str(jump.base / "key"), proxy_jump=f"127.0.0.1:{jump.port}")
    config = bench.config_file(max_trial_number=2, **remote(machine))
    refused = bench.tune("create", config)
    assert refused.returncode == 1 and "jump host 127.0.0.1" in refused.stderr
    assert f"(127.0.0.1:{jump.port}) is not known" in refused.stderr
    one.known.write_text(jump.known.read_text())
    trusted = bench.tune("host", "trust", "--config", config, "--yes")  # through the jump host, which is known now
    assert trusted.returncode == 0 and one.known.read_text() == jump.known.read_text() + own, trusted.stderr
    done = bench.tune("create", config)
    assert done.returncode == 0 and "DONE best" in done.stdout, done.stderr
    assert "Accepted publickey" in (jump.base / "log").read_text()


def test_the_agent_and_the_files_of_ssh(
    bench: Bench, server: Callable[..., Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stranger has: keys in the agent, an ordinary known_hosts, an entry in ~/.ssh/config."""
    one = server()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh/known_hosts").write_text(one.known.read_text())
    (tmp_path / ".ssh/config").write_text(f"Host lab\n  HostName 127.0.0.1\n  Port {one.port}\n")
    socket = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        while not os.path.exists(socket):  # noqa: PTH110
            assert agent.poll() is None
        subprocess.run(["ssh-add", "-q", one.base / "key"], check=True, timeout=20)
        plain = one.machine(ssh_key_file=None, known_hosts=None)
        machines = [{name: value for name, value in plain.items() if value is not None}]
        machines.append(
            {"host": "lab", "ssh_config": True, "python_path": plain["python_path"], "folder": str(tmp_path)}
        )
        for machine in machines:
            done = bench.tune("create", bench.config_file(max_trial_number=2, **remote(machine)))
            assert done.returncode == 0 and "DONE best" in done.stdout, done.stderr
        assert len(list((tmp_path / "experiments").iterdir())) == 1
        gone_too = bench.tune("delete", bench.find_all()[-1].id, "--yes", "--hosts")
        assert gone_too.returncode == 0, gone_too.stderr
        assert sum(len(list(folder.glob("experiments/*"))) for folder in (tmp_path, one.home)) == 1
    finally:
        agent.kill()
        agent.wait(10)


def test_the_portal_shows_what_a_trial_writes_there(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    command = bench.script("import tune\nprint('words')\ntune.report_final_result(tune.get_next_parameter()['x'])\n")
    experiment = bench.experiment(trial_command=command, max_trial_number=1, **remote(one.machine()))
    experiment.run()
    process = bench.spawn("view", experiment.id, "--port", "0")
    browser = Browser(*opened(process))
    assert browser.get("/api/trials/0/log/stdout")["text"] == "words\n"
    assert browser.get("/api/status")["hosts"][0]["name"] == "127.0.0.1"
    one.stop()
    for said in ("connection has ended", "can't be reached", "can't be reached"):  # the one that was there, new ones
        for _ in steps(30):  # for a while nobody asks again
            away = browser.get("/api/trials/0/log/stderr")
            if said in away["note"]:
                break
        assert away["text"] == ""
    assert browser.get("/api/trials/0/log/stdout")["text"] == "words\n"  # the copy stays
    assert interrupted(process) == 130


def test_a_promoted_trial_goes_where_its_checkpoint_lies(bench: Bench, server: Callable[..., Sshd]) -> None:
    one, two = server(), server()
    command = bench.script(
        "import json, tune\nfrom pathlib import Path\np = tune.get_next_parameter()\n"
        "load, save = Path(p['load_checkpoint_dir']), Path(p['save_checkpoint_dir'])\n"
        "had = json.loads((load / 'epochs').read_text()) if (load / 'epochs').exists() else []\n"
        "while len(had) < p['TRIAL_BUDGET']:\n"
        "    had.append(tune.get_sequence_id())\n    tune.report_intermediate_result(len(had))\n"
        "(save / 'epochs').write_text(json.dumps(had))\n"
        "tune.report_final_result(-abs(p['x'] - 0.3) - 1 / len(had))\n"
    )
    experiment = bench.experiment(
        trial_command=command,
        trial_concurrency=4,
        max_trial_number=20,
        tuner={"name": "ASHA", "class_args": {"optimize_mode": "maximize", "min_budget": 1, "max_budget": 9}},
        **remote(one.machine(name="one"), two.machine(name="two")),
    )
    state = experiment.run()
    assert state.counts["SUCCEEDED"] == 20, [trial.reason for trial in state.made]
    promoted = [trial for trial in state.made if trial.continues is not None]
    assert promoted and {trial.host for trial in state.made} == {"one", "two"}
    for trial in promoted:
        assert trial.continues is not None
        assert trial.host == state.trial(trial.continues).host


def test_what_is_followed_is_whole(bench: Bench, server: Callable[..., Sshd]) -> None:
    """Also what a trial writes right before it ends."""
    one = server()
    command = bench.script(
        "import time, tune\ntune.get_next_parameter()\n"
        "for number in range(20):\n    print(number, flush=True)\n    time.sleep(0.1)\n"
        "tune.report_final_result(1)\nprint('the last words', flush=True)\n"
    )
    experiment = bench.experiment(trial_command=command, max_trial_number=1, **remote(one.machine()))
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"])
    followed = bench.tune("logs", experiment.id, "--trial", "0", "--follow")
    assert followed.stdout.splitlines() == [*map(str, range(20)), "the last words"]
    experiment.finish()


def test_a_forced_stop_does_not_wait_for_a_host_that_is_away(bench: Bench, server: Callable[..., Sshd]) -> None:
    one = server()
    experiment = bench.experiment(
        trial_command=bench.script("import time, tune\ntune.get_next_parameter()\ntime.sleep(3600)\n"),
        max_trial_number=1,
        **remote(one.machine()),
    )
    experiment.start()
    running = experiment.until(lambda state: state.counts["RUNNING"] == 1)
    pid = running.made[0].pid
    one.stop()
    experiment.until(lambda state: not state.hosts["127.0.0.1"].connected)
    done = bench.tune("stop", experiment.id, "--force")
    assert done.returncode == 0 and "is away" in done.stderr
    state = experiment.state()
    assert (state.status, state.made[0].status) == ("STOPPED", "LOST") and "given up" in state.made[0].reason
    assert pid is not None and Path(f"/proc/{pid}").exists()  # nobody could tell it
    one.start()
    experiment.run()  # a resume: the host is back, and hears of it
    assert gone(pid, 30)


def test_an_answer_without_end_is_not_read_on(bench: Bench, server: Callable[..., Sshd], tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec yes noise\n")
    endless.chmod(0o755)
    one = server(f"ForceCommand {endless}")
    refused = bench.tune("create", bench.config_file(**remote(one.machine())))
    assert refused.returncode == 1 and "prints without end" in refused.stderr
