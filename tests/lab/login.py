"""How a test gets into a host over SSH: the few facts that every client asks for, in the forms that clients take."""

from __future__ import annotations

import dataclasses
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Login:
    """An address, a user, the user's private key (without a passphrase) and the server's line for `known_hosts`."""

    address: str
    port: int
    user: str
    key: Path
    known_hosts: str

    def asyncssh(self) -> dict[str, Any]:
        """The keywords of `asyncssh.connect`: no agent, no config and no keys of whoever runs the tests."""
        return {
            "host": self.address,
            "port": self.port,
            "username": self.user,
            "client_keys": [str(self.key)],
            "known_hosts": self.known_hosts.encode(),
            "config": None,
            "agent_path": None,
        }

    def config(self, alias: str) -> str:
        """A block of ssh_config(5) that knows the host as `alias`; writes `known_hosts` next to the key."""
        known = self.key.with_name(f"known_hosts.{self.address}.{self.port}")
        known.write_text(self.known_hosts)
        options = {
            "HostName": self.address,
            "Port": self.port,
            "User": self.user,
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 10,
        }
        return "\n".join([f"Host {alias}", *(f"    {name} {value}" for name, value in options.items())]) + "\n"

    def ssh(self, *command: str) -> list[str]:
        """The argv of OpenSSH's client that runs a command there; the words are joined as `ssh` joins them."""
        file = self.key.with_name(f"ssh_config.{self.address}.{self.port}")
        file.write_text(self.config("host"))
        return ["ssh", "-F", str(file), "host", *command]

    def through(self, address: str, port: int) -> Login:
        """The same host by another way, such as a proxy: the host's key is now known by that address."""
        keys = [line.split(" ", 1)[1] for line in self.known_hosts.splitlines()]
        return dataclasses.replace(
            self, address=address, port=port, known_hosts="".join(known_hosts_line(address, port, key) for key in keys)
        )


def known_hosts_line(address: str, port: int, public_key: str) -> str:
    """The line of `known_hosts` for a public key ("ssh-ed25519 AAAA...")."""
    name = address if port == 22 else f"[{address}]:{port}"
    return f"{name} {' '.join(public_key.split()[:2])}\n"


def make_key(path: Path, comment: str) -> str:
    """Make a new key pair at a path, whatever lay there; the public key."""
    public = path.with_name(path.name + ".pub")
    path.unlink(missing_ok=True)
    public.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=20)
    return public.read_text()
