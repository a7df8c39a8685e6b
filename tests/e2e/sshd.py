"""A real OpenSSH server on loopback, for the user that runs the tests: keys of its own, stopped and started at will."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


class Sshd:
    """One server, and the machine_list entry that reaches it."""

    def __init__(self, base: Path, *lines: str, before: Sequence[str] = ()) -> None:
        """`lines` of its config; `before` is a command that becomes the server at its end."""
        if SSHD is None:
            pytest.skip("needs an OpenSSH server (Debian's package openssh-server)")
        self.base, self.lines, self.before = base, lines, before
        base.mkdir()
        self.home = base / "there"  # where everything of ours lies on that "host"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.new_host_key()
        _keygen(base / "key")
        shutil.copy(base / "key.pub", base / "authorized")
        self.known = base / "known_hosts"
        self.trust()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def new_host_key(self) -> None:
        """Another host key, from the next start on."""
        for name in ("host", "host.pub"):
            (self.base / name).unlink(missing_ok=True)
        _keygen(self.base / "host")

    def trust(self) -> None:
        """Make the present host key known."""
        kind, key = (self.base / "host.pub").read_text().split()[:2]
        self.known.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def machine(self, **fields: Any) -> dict[str, Any]:
        """An entry of machine_list."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "ssh_key_file": str(self.base / "key"),
            "known_hosts": str(self.known),
            "python_path": str(Path(sys.executable).parent),
            "folder": str(self.home),
            **fields,
        }

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert SSHD is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        config = self.base / "config"
        config.write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.base / 'host'}",
                    "PidFile none",
                    f"AuthorizedKeysFile {self.base / 'authorized'}",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "PermitRootLogin prohibit-password",
                    "MaxStartups 100",
                    "MaxSessions 100",
                    *self.lines,
                ]
            )
        )
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, SSHD, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None and time.monotonic() < deadline, (self.base / "log").read_text()
            time.sleep(0.01)

    def connections(self) -> list[int]:
        """The processes that serve connections."""
        assert self.process is not None
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(word) for word in found.stdout.split()]

    def kill_connections(self) -> int:
        """End all connections at once; how many there were."""
        pids = self.connections()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def stop(self) -> None:
        """Take it down, its connections too."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGSTOP)  # nobody new, and the old ones are still its children
        self.kill_connections()
        self.process.kill()
        self.process.wait(10)
        self.process = None


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20)
