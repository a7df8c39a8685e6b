"""Which machine is meant, on the command line: one of a config's machine_list, or [user@]host[:port]. Not a verb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from ..engine.config import Machine
from ..engine.config_load import load, machine
from ..engine.errors import UsageError

Config: TypeAlias = Annotated[Path | None, Parameter(name=["--config", "-c"], help="A config with a machine_list.")]
Key: TypeAlias = Annotated[Path | None, Parameter(help="The private key; left out: the agent's and ~/.ssh/id_*.")]
PythonPath: TypeAlias = Annotated[str | None, Parameter(help="A Python there, or the folder it is in.")]
KnownHosts: TypeAlias = Annotated[Path | None, Parameter(help="The file of known host keys (~/.ssh/known_hosts).")]
SshConfig: TypeAlias = Annotated[bool, Parameter(negative=(), help="Read ~/.ssh/config.")]


def chosen(
    hosts: Sequence[str],
    config: Path | None,
    key: Path | None,
    python_path: str | None,
    known_hosts: Path | None,
    ssh_config: bool,
) -> list[Machine]:
    """The machines that are meant; `UsageError`."""
    if config is not None:
        resolved, _ = load(config)
        known = {one.name: one for own in resolved.training_services for one in own.machine_list}
        for name in hosts:
            if name not in known:
                raise UsageError(f"{config} has no machine {name!r}", f"allowed: {', '.join(known) or 'none is there'}")
        return [known[name] for name in hosts] if hosts else list(known.values())
    if not hosts:
        raise UsageError("which host?", "Name one: [user@]host[:port], or give a config with --config.")
    made: list[Machine] = []
    for text in hosts:
        user, _, address = text.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or ":" in host:  # an IPv6 address has no port here
            host, port = address, ""
        fields: dict[str, Any] = {"host": host, "name": address, "ssh_config": ssh_config}
        given: dict[str, Any] = {"user": user, "port": int(port or 0), "python_path": python_path}
        given |= {"ssh_key_file": key and str(key), "known_hosts": known_hosts and str(known_hosts)}
        fields.update({name: value for name, value in given.items() if value})
        made.append(machine(fields, Path.cwd()))
    return made
