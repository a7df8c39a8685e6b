"""SSH to a machine: what is asked of a server before any trial runs. The server itself: tests/e2e/test_remote.py."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from tune.cli import machines
from tune.engine.config import Machine
from tune.engine.errors import UsageError
from tune.training_services import _ssh


@pytest.mark.parametrize(
    ("path", "tried"),
    [
        (None, ["python3"]),
        ("/usr/bin/python3.12", ["/usr/bin/python3.12"]),
        ("python3.13", ["python3.13"]),
        ("/opt/venv/", ["/opt/venv/python3", "/opt/venv/bin/python3", "/opt/venv/python", "/opt/venv"]),
    ],
)
def test_a_python_path_is_a_program_a_folder_or_an_environment(path: str | None, tried: list[str]) -> None:
    assert _ssh.pythons(path) == tried


def test_jump_hosts_come_first_and_are_checked_like_the_machine() -> None:
    machine = Machine(
        host="c", name="c", proxy_jump="ada@a,b:2222", ssh_key_file="/key", known_hosts="/known", password="env:P"
    )
    first, second = _ssh._jumps(machine)
    assert (first.host, first.user, first.port) == ("a", "ada", 22)
    assert (second.host, second.user, second.port) == ("b", "", 2222)
    assert first.known_hosts == second.known_hosts == "/known"
    assert first.password is None  # the machine's own password is nobody else's


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(host="h", name="h")
    monkeypatch.setenv("WORD", "one two")
    (tmp_path / "word").write_text("three\n")
    assert _ssh._secret("env:WORD", machine) == "one two"
    assert _ssh._secret(f"file:{tmp_path / 'word'}", machine) == "three"
    with pytest.raises(_ssh.Unreachable, match="no variable NO_WORD"):
        _ssh._secret("env:NO_WORD", machine)
    with pytest.raises(_ssh.Unreachable, match="can't be read"):
        _ssh._secret(f"file:{tmp_path / 'none'}", machine)


@pytest.mark.parametrize("port", [22, 2222])
def test_keys_that_are_trusted_are_known_from_then_on(tmp_path: Path, port: int) -> None:
    machine = Machine(host="h", name="h", port=port, known_hosts=str(tmp_path / "ssh" / "known"))
    key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    assert _ssh.known_keys(machine) == []
    path = _ssh.trust(machine, [key.convert_to_public()])
    path.write_text(path.read_text().rstrip("\n") + "\n# a note without an end of line")
    _ssh.trust(Machine(host="i", name="i", known_hosts=machine.known_hosts), [other.convert_to_public()])
    assert [one.get_fingerprint() for one in _ssh.known_keys(machine)] == [key.get_fingerprint()]
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_file_of_known_hosts_means_that_nobody_is_trusted(tmp_path: Path) -> None:
    assert _ssh._trusted(Machine(host="h", name="h", known_hosts=str(tmp_path / "none"))) == b""


def test_machines_of_the_command_line(tmp_path: Path) -> None:
    def one(text: str) -> Machine:
        return machines.chosen([text], None, None, None, None, False)[0]

    assert one("h") == Machine(host="h", name="h")
    assert one("ada@h:2222") == Machine(host="h", name="h:2222", port=2222, user="ada")
    assert (one("ada@fe80::1").host, one("ada@fe80::1").port) == ("fe80::1", 22)
    for wrong in ("h;id", "", "a b@h"):
        with pytest.raises(UsageError):
            one(wrong)
    with pytest.raises(UsageError, match="which host"):
        machines.chosen([], None, None, None, None, False)
    config = tmp_path / "config.toml"
    config.write_text(
        'trial_command = "true"\nsearch_space = { x = { _type = "uniform", _value = [0, 1] } }\n'
        'training_service = { platform = "remote", machine_list = [{ host = "a" }, { host = "b" }] }\n'
    )
    assert [found.name for found in machines.chosen([], config, None, None, None, False)] == ["a", "b"]
    assert [found.name for found in machines.chosen(["b"], config, None, None, None, False)] == ["b"]
    with pytest.raises(UsageError, match="no machine 'c'"):
        machines.chosen(["c"], config, None, None, None, False)
