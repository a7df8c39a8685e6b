"""What a host of the lab is like: its user, shell, programs, sizes, and the configuration of its OpenSSH server."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SSHD = "/usr/sbin/sshd"  # sshd wants an absolute path: it starts itself again for each connection
SETTINGS = "/etc/ssh"  # where a host sees its folder with keys and configuration
PROGRAMS = "/srv"  # where a host sees its own programs, first on the PATH
PATH = f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Traits:
    """What can be different from host to host; sizes are those of tmpfs: bytes, or with k, m, g."""

    user: str = "ada"  # who logs in; made up in the host's own /etc/passwd. "root" is root
    uid: int = 1000  # ignored for root
    shell: str = "/bin/bash"  # the login shell
    bashrc: str = ""  # ~/.bashrc, which Debian's bash also reads for a command over SSH
    profile: str = ""  # ~/.profile, for login shells
    python: Path | str | None = sys.executable  # what `python` and `python3` start; None: both are not found (127)
    programs: Mapping[str, str] = field(default_factory=dict[str, str])  # name -> script, first on the PATH
    environment: Mapping[str, str] = field(default_factory=dict[str, str])  # variables of every session
    visible: tuple[Path, ...] = ()  # more folders of the controller to be seen, read-only, at the same path
    home_size: str = "256m"  # /home and /root together with /var/tmp: each a file system of that size
    tmp_size: str = "64m"  # /tmp
    port: int = 22
    tcp_forwarding: bool = True
    socket_forwarding: bool = True
    force_command: str = ""
    terminal: bool = True  # PermitTTY
    sshd_lines: tuple[str, ...] = ()  # more lines of sshd_config; they come first, and the first one counts

    @property
    def home(self) -> str:
        """The user's home on the host."""
        return "/root" if self.user == "root" else f"/home/{self.user}"

    @property
    def ids(self) -> tuple[int, int]:
        """The user's uid and gid."""
        return (0, 0) if self.user == "root" else (self.uid, self.uid)

    def variables(self) -> dict[str, str]:
        """The environment of a command that is run inside without SSH: what a session gets."""
        return {
            "HOME": self.home,
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": self.shell,
            "PATH": PATH,
            **self.environment,
        }

    def sshd_config(self, address: str) -> str:
        """The server's configuration."""
        variables = " ".join(f'"{name}={value}"' for name, value in {"PATH": PATH, **self.environment}.items())
        options = {
            "Port": str(self.port),
            "ListenAddress": address,
            "HostKey": f"{SETTINGS}/host_key",
            "PidFile": "none",
            "AuthorizedKeysFile": f"{SETTINGS}/authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "PrintMotd": "no",
            "PrintLastLog": "no",
            "LogLevel": "VERBOSE",
            "MaxStartups": "200",
            "MaxSessions": "200",
            "AllowTcpForwarding": "yes" if self.tcp_forwarding else "no",
            "AllowStreamLocalForwarding": "yes" if self.socket_forwarding else "no",
            "StreamLocalBindUnlink": "yes",
            "PermitTTY": "yes" if self.terminal else "no",
            "Subsystem": "sftp internal-sftp",
            "SetEnv": variables,
        }
        if self.force_command:
            options["ForceCommand"] = self.force_command
        if _version() >= (9, 8):
            options["PerSourcePenalties"] = "no"  # else a client that was refused is shut out for a while
        return "\n".join([*self.sshd_lines, *(f"{name} {value}" for name, value in options.items())]) + "\n"

    def scripts(self) -> dict[str, str]:
        """The programs that lie first on the host's PATH, as texts."""
        if self.python is None:
            start = '#!/bin/sh\necho "$0: not found" >&2\nexit 127\n'
        else:
            start = f'#!/bin/sh\nexec {shlex.quote(str(self.python))} "$@"\n'
        return {"python": start, "python3": start, **self.programs}

    def passwd(self) -> str:
        """The host's /etc/passwd: the controller's, with the user first."""
        uid, gid = self.ids
        mine = f"{self.user}:*:{uid}:{gid}::{self.home}:{self.shell}"
        return _with_first(Path("/etc/passwd"), self.user, mine)

    def group(self) -> str:
        """The host's /etc/group, likewise."""
        return _with_first(Path("/etc/group"), self.user, f"{self.user}:*:{self.ids[1]}:")

    def needed(self) -> list[Path]:
        """The folders that have to be seen on the host for its Python to run this project."""
        root = Path(__file__).resolve().parents[2]
        found = [root, Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), *self.visible]
        return [path for path in dict.fromkeys(found) if not any(path.is_relative_to(p) for p in found if p != path)]


def _with_first(file: Path, name: str, line: str) -> str:
    others = [entry for entry in file.read_text().splitlines() if not entry.startswith(f"{name}:")]
    return "\n".join([line, *others]) + "\n"


def _version() -> tuple[int, int]:
    """OpenSSH's version, as its client says it."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=True).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
