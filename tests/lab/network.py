"""The lab: hosts that are reached over a network and SSH, for tests of what can happen to them.

    with Lab() as lab:
        alpha = lab.host("alpha")
        async with asyncssh.connect(**alpha.login.asyncssh()) as connection:
            ...
        alpha.cut()

A host is made of namespaces of the kernel (host.py), so this needs root on Linux; `why_not` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.bridge import MOUNT_POINT, Bridge
from lab.errors import LabError
from lab.host import Host
from lab.login import make_key
from lab.sshd import SSHD, Traits

PACKAGES = {
    SSHD: "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "mount": "mount",
}


def why_not() -> str:
    """Why no lab can be had here; "" when one can."""
    if sys.platform != "linux":
        return f"the lab's hosts are namespaces of Linux, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "needs root: makes hosts out of namespaces"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        return f"needs Debian's {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    return f"needs root that may make namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class Lab:
    """Hosts on a network of their own. Labs of several processes don't meet."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self._made = 0
        self._bridge = Bridge()
        self.key: Path = self._bridge.folder / "key"
        try:
            make_key(self.key, "lab")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The controller's address on the lab's network."""
        return self._bridge.address

    def host(self, name: str, **traits: Any) -> Host:
        """A new host of that name, up and listening (about 0.2 s); `traits` are the fields of `lab.sshd.Traits`."""
        if name in self.hosts:
            raise LabError(f"there is a host {name} already: {', '.join(self.hosts)}")
        made = Host(
            name,
            self._bridge.host_address(self._made),
            traits=Traits(**traits),
            folder=self._bridge.folder / name,
            mount_point=MOUNT_POINT,
            bridge=self._bridge,
            key=self.key,
        )
        self._made += 1
        made.start()
        self.hosts[name] = made
        self._introduce()
        return made

    def remove(self, host: Host) -> None:
        """Close a host for good; its address is not used again."""
        del self.hosts[host.name]
        host.close()
        self._introduce()

    def known_hosts(self) -> str:
        """The `known_hosts` of all hosts, with the keys that they have now."""
        return "".join(host.known_hosts for host in self.hosts.values())

    def ssh_config(self, folder: Path) -> Path:
        """Write an ssh_config(5) into a folder, in which every host is known by its name; the file."""
        file = folder / "ssh_config"
        file.write_text("\n".join(host.login.config(name) for name, host in self.hosts.items()))
        return file

    def heal(self) -> None:
        """Bring every host back to what it was made as: on, link whole, disk free, sshd up with its first traits."""
        for host in self.hosts.values():
            host.heal()

    def close(self) -> None:
        """End all hosts and take the network away; may be called twice."""
        with contextlib.ExitStack() as ending:
            ending.callback(self._bridge.close)
            for host in self.hosts.values():
                ending.callback(host.close)

    def left(self) -> list[str]:
        """What there is of this lab on the controller, processes of its hosts too; empty after `close`."""
        return [*self._bridge.left(), *(item for host in self.hosts.values() for item in host.left())]

    def _introduce(self) -> None:
        """Let every host know the names of all."""
        names = {name: host.address for name, host in self.hosts.items()}
        for host in self.hosts.values():
            host.know({**names, "controller": self.address})
