"""`tune host trust` and `tune host prepare`: the machines of the platform remote, made known and made ready."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..engine import registry
from ..engine.config import Machine
from ..engine.errors import TuneError, UsageError
from .machines import Config, Key, KnownHosts, PythonPath, SshConfig, chosen
from .reading import note, printable, say


def host(
    action: Annotated[
        Literal["trust", "prepare"],
        Parameter(help="trust: show host keys and make them known; prepare: put what a keeper needs there."),
    ],
    /,
    *hosts: Annotated[
        str, Parameter(help="[user@]host[:port]; with --config names of its machine_list, or none: all.")
    ],
    config: Config = None,
    key: Key = None,
    python_path: PythonPath = None,
    known_hosts: KnownHosts = None,
    ssh_config: SshConfig = False,
    fingerprint: Annotated[
        str | None, Parameter(help="trust: the fingerprint that it has to show (SHA256:...); then nothing is asked.")
    ] = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="trust: don't ask.")] = False,
    wheels: Annotated[
        Path | None, Parameter(help="prepare: a folder with a wheel of msgspec for the machine, where there is no net.")
    ] = None,
) -> int:
    """Make a machine's host key known, or put what a keeper needs there (an experiment does that by itself, too)."""
    machines = chosen(hosts, config, key, python_path, known_hosts, ssh_config)
    remote = registry.training_service_class("remote")
    if wheels is not None and not wheels.is_dir():
        raise UsageError(f"--wheels {wheels}: there is no such folder")
    failed = 0
    for machine in machines:
        try:
            if action == "trust":
                _trust(remote, machine, fingerprint, yes)
            else:
                path = asyncio.run(remote.prepare(machine, wheels))
                say(f"host {printable(machine.name)} is ready: {printable(path)}")
        except UsageError:
            raise
        except TuneError as error:
            failed += 1
            note(f"error: {printable(error.message)}")
            if error.hint:
                note(f"  {printable(error.hint)}")
    return 1 if failed else 0


def _trust(remote: Any, machine: Machine, fingerprint: str | None, yes: bool) -> None:
    shown, known, trust = asyncio.run(remote.host_keys(machine))
    name = printable(machine.name)
    if known and set(known) & set(shown):
        say(f"the host key of {name} is known: {printable(next(one for one in shown if one in known))}")
        return
    if known:
        at = machine.host if machine.port == 22 else f"[{machine.host}]:{machine.port}"
        raise TuneError(
            f"the host key of {name} has CHANGED: it shows {', '.join(shown)}, known is {', '.join(known)}",
            f"Somebody may listen in. If it was set up anew: ssh-keygen -R '{at}', then once more.",
        )
    for one in shown:
        say(f"{name} shows {printable(one)}")
    if fingerprint is not None:
        if not any(one.endswith(" " + fingerprint) for one in shown):
            raise TuneError(f"none of them is {fingerprint}: it is not trusted")
    elif not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "nobody is there to ask whether that is the right machine",
                "Compare it with what the machine itself says (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then "
                "give it: --fingerprint SHA256:...",
            )
        note("Is that what the machine itself says? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise TuneError("it is not trusted")
    say(f"it is known now, in {printable(str(trust()))}")
