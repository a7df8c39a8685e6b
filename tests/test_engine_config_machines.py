"""machine_list: every spelling of it, names that tell machines apart, secrets by reference only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tune.engine import config, config_load
from tune.engine.config import Machine
from tune.engine.errors import UsageError
from tune.engine.experiment_config import ExperimentConfig, RemoteMachineConfig


def read(base: Path, service: Any, **more: Any) -> config.Config:
    fields = {"search_space": {"x": {"_type": "uniform", "_value": [0, 1]}}, "trial_command": "true", "seed": 1}
    return config_load.from_mapping({**fields, "training_service": service, **more}, base)[0]


def machines(base: Path, *entries: dict[str, Any], **more: Any) -> list[Machine]:
    (service,) = read(base, {"platform": "remote", "machine_list": list(entries), **more}).training_services
    return service.machine_list


def refusal(base: Path, *entries: Any, **more: Any) -> str:
    with pytest.raises(UsageError) as error:
        machines(base, *entries, **more)
    return str(error.value)


def test_a_machine_has_what_it_was_given_and_else_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    one, two = machines(
        tmp_path,
        {"host": "a", "user": "ada", "port": 2222, "ssh_key_file": "key", "python_path": "/opt/venv/bin", "slots": 2}
        | {"ssh_passphrase": "env:WORD", "password": "file:/secret", "gpu_indices": "0,1", "env": {"A": "1"}},
        {"host": "b.example.org"},
    )
    assert (one.name, one.port, one.user, one.slots, one.gpu_indices) == ("a", 2222, "ada", 2, [0, 1])
    assert one.ssh_key_file == str(tmp_path / "key") and one.env == {"A": "1"}
    assert two == Machine(host="b.example.org", name="b.example.org")
    raw = config.encode(read(tmp_path, {"platform": "remote", "machine_list": [{"host": "a"}]}))
    assert config.decode(raw).training_services[0].machine_list[0].name == "a"
    assert json.loads(raw)["training_service"]["machine_list"][0]["folder"] == ".tune"


@pytest.mark.parametrize(
    "written",
    [
        {"trainingService": {"platform": "Remote", "machineList": [{"host": "h", "sshKeyFile": "key", "port": 23}]}},
        {"training_service": {"name": "remote", "machine_list": [{"host": "h", "ssh_key_file": "key", "port": 23}]}},
        {"trainingServicePlatform": "remote", "machineList": [{"ip": "h", "sshKeyPath": "key", "port": 23}]},
        {"trainingService": [{"platform": "remote", "machineList": [{"host": "h", "sshKeyFile": "key", "port": 23}]}]},
    ],
)
def test_every_spelling_of_nni(tmp_path: Path, written: dict[str, Any]) -> None:
    (tmp_path / "key").write_text("")
    space = {"x": {"_type": "uniform", "_value": [0, 1]}}
    found, _ = config_load.from_mapping({"searchSpace": space, "trialCommand": "true", **written}, tmp_path)
    (service,) = found.training_services
    assert service.platform == "remote"
    assert service.machine_list == [Machine(host="h", name="h", port=23, ssh_key_file=str(tmp_path / "key"))]


def test_reuse_of_version_1(tmp_path: Path) -> None:
    written = {"trainingServicePlatform": "remote", "remoteConfig": {"reuse": True}, "machineList": [{"ip": "h"}]}
    space = {"x": {"_type": "uniform", "_value": [0, 1]}}
    found, _ = config_load.from_mapping({"searchSpace": space, "trialCommand": "true", **written}, tmp_path)
    assert found.training_services[0].reuse_mode is True


def test_names_tell_machines_apart(tmp_path: Path) -> None:
    found = machines(
        tmp_path,
        *({"host": "a"}, {"host": "a", "port": 23}, {"host": "b", "user": "ada"}, {"host": "b", "user": "bob"}),
        {"host": "a", "name": "mine"},
    )
    assert [one.name for one in found] == ["a", "a:23", "ada@b", "bob@b", "mine"]
    assert "found the name a twice" in refusal(tmp_path, {"host": "a"}, {"host": "a"})
    assert "the name local" in refusal(tmp_path, {"host": "local"})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "machine_list[0]: host is missing"),
        ({"hots": "a"}, "did you mean host?"),
        ({"host": "a b"}, "a host's name or address"),
        ({"host": "-oProxyCommand=x"}, "a host's name or address"),
        ({"host": "a", "user": "x; rm -rf /"}, "letters, digits"),
        ({"host": "a", "python_path": "$(id)"}, "letters, digits"),
        ({"host": "a", "folder": "a'b"}, "letters, digits"),
        ({"host": "a", "port": 0}, "1 to 65535"),
        ({"host": "a", "password": "hunter2"}, '"env:NAME", "file:PATH"'),
        ({"host": "a", "ssh_passphrase": "env:"}, '"env:NAME", "file:PATH"'),
        ({"host": "a", "ssh_key_file": "nokey"}, "is no file"),
        ({"host": "a", "proxy_jump": "b;c"}, "[user@]host[:port]"),
        ({"host": "a", "env": {"1A": "x"}}, "not a name of a variable"),
        ({"host": "a", "env": {"TUNE_SOCKET": "x"}}, "not a name of a variable"),
        ({"host": "a", "env": {"A": 1}}, "found 1; allowed: text"),
        ("a", "allowed: a table of fields"),
    ],
)
def test_what_can_not_be_is_refused_at_its_place(tmp_path: Path, entry: Any, said: str) -> None:
    text = refusal(tmp_path, entry)
    assert said in text and "training_service.machine_list[0]" in text and "hunter2" not in text


def test_platforms_and_machines_belong_together(tmp_path: Path) -> None:
    assert "needs a machine_list" in refusal(tmp_path)
    with pytest.raises(UsageError, match="not used by the platform local"):
        read(tmp_path, {"platform": "local", "machine_list": [{"host": "a"}]})
    both = read(tmp_path, {"platform": ["local", "remote"], "machine_list": [{"host": "a"}], "slots": 2})
    assert [one.platform for one in both.training_services] == ["local", "remote"]
    assert [len(one.machine_list) for one in both.training_services] == [0, 1]
    listed = read(tmp_path, [{"platform": "remote", "machine_list": [{"host": "a"}]}, {"platform": "local"}])
    assert [one.platform for one in listed.training_services] == ["remote", "local"]
    for wrong, said in (
        ([{"platform": "local"}, {"platform": "local"}], "found local twice"),
        ({"platform": ["local", "local"]}, "each once"),
        ({"platform": []}, "one or more platforms"),
        ([], "one or more training services"),
        ([{"platform": "local"}, {"platform": "remote", "machine_list": [{"hots": "a"}]}], "did you mean host"),
    ):
        with pytest.raises(UsageError, match=said):
            read(tmp_path, wrong)


def test_the_python_way(tmp_path: Path) -> None:
    made = ExperimentConfig("remote", trial_command="true", search_space={"x": {"_type": "choice", "_value": [1, 2]}})
    machine = RemoteMachineConfig("a", user="ada")
    machine.slots = 3
    made.training_service.machine_list = [machine, {"host": "b"}]
    resolved, _ = made.resolved(tmp_path)
    assert [(one.name, one.user, one.slots) for one in resolved.training_services[0].machine_list] == [
        ("a", "ada", 3),
        ("b", "", None),
    ]
    with pytest.raises(ValueError, match="env:NAME"):
        machine.password = "plain"
    with pytest.raises(AttributeError, match="did you mean host"):
        machine.hots = "b"
