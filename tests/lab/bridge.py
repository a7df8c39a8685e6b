"""The lab's network as the controller sees it: a bridge with an address of its own, and a port for each host.

A lab takes a number N that no other lab on the machine has: it holds a lock on /run/tune-lab/N.lock while it lives. Its
network is 10.77.N.0/24 with the controller at .1; its links are called tlabN (the bridge) and tlabNpI (the port of the
host at .I); its files lie in /run/tune-lab/N. Whoever gets a lock may take away what a killed lab has left under it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.errors import LabError
from lab.waiting import until

PLACE = Path("/run/tune-lab")
MOUNT_POINT = PLACE / "root"  # always an empty folder here; in a host's own namespace its root is built on it
_LINK = re.compile(r"tlab(\d+)(p\d+)?")


class Bridge:
    """The network of one lab."""

    def __init__(self) -> None:
        MOUNT_POINT.mkdir(parents=True, exist_ok=True)
        sweep()
        self.number, self._lock = _free_number()
        self.name = f"tlab{self.number}"
        self.address = f"10.77.{self.number}.1"
        self.folder = PLACE / str(self.number)
        try:
            self.folder.mkdir()
            ip(f"link add {self.name} type bridge", f"addr add {self.address}/24 dev {self.name}")
            ip(f"link set {self.name} up")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the bridge, its ports and the files away, and give the number back; may be called twice."""
        if self._lock >= 0:
            _clean(self.number)
            os.close(self._lock)
            self._lock = -1

    def host_address(self, index: int) -> str:
        """The address of the host with this index, from 0."""
        if not 0 <= index < 250:
            raise LabError(f"host number {index}: a lab has room for 250")
        return f"10.77.{self.number}.{index + 2}"

    def port(self, address: str) -> str:
        """The name of the link that leads to a host."""
        return f"{self.name}p{address.rpartition('.')[2]}"

    def add_port(self, address: str, pid: int) -> None:
        """Lay a line to the network namespace of a process: it gets an eth0 with this address, up and routed.

        The hardware address hangs on the IP address, so that neighbours know a host again after its reboot.
        """
        port = self.port(address)
        hardware = "02:4d:00:00:{:02x}:{:02x}".format(self.number, int(address.rpartition(".")[2]))
        ip(
            f"link add {port} type veth peer name eth0 address {hardware} netns {pid}",
            f"link set {port} master {self.name}",
            f"link set {port} up",
        )
        ip(
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.address}",
            inside=pid,
        )

    def set_port(self, address: str, *, up: bool) -> None:
        """Switch the line to a host on or off, where there is one."""
        if self.port(address) in links():
            ip(f"link set {self.port(address)} {'up' if up else 'down'}")

    def remove_port(self, address: str) -> None:
        """Take the line to a host away, where there is one."""
        _delete(self.port(address))

    def left(self) -> list[str]:
        """What there is of this lab on the controller: links, mounts, files."""
        found = [f"link {name}" for name in links() if _number(name) == self.number]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line}" for line in mounts if str(PLACE) in line]
        return found + ([f"folder {self.folder}"] if self.folder.exists() else [])


def ip(*commands: str, inside: int = 0) -> None:
    """Run commands of ip(8) in one process, here or in the network namespace of the process `inside`."""
    enter = ["nsenter", "--target", str(inside), "--net", "--"] if inside else []
    done = subprocess.run(
        [*enter, "ip", "-batch", "-"], input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=20
    )
    if done.returncode:
        raise LabError(f"ip: {'; '.join(commands)}: {done.stderr.strip()}")


def links() -> list[str]:
    """The network links of the controller's namespace."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def sweep() -> None:
    """Take away what killed labs have left: links and files whose number nobody holds."""
    numbers = {_number(name) for name in links()} | {
        int(path.name) for path in PLACE.iterdir() if path.name.isdecimal()
    }
    for number in sorted(numbers - {-1}):
        lock = _lock(number)
        if lock >= 0:
            try:
                _clean(number)
            finally:
                os.close(lock)


def _number(link: str) -> int:
    found = _LINK.fullmatch(link)
    return int(found[1]) if found else -1


def _lock(number: int) -> int:
    """A descriptor that holds the lock of a number, -1 when somebody else holds it."""
    lock = os.open(PLACE / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1
    return lock


def _free_number() -> tuple[int, int]:
    for number in range(256):
        lock = _lock(number)
        if lock >= 0:
            _clean(number)
            return number, lock
    raise LabError("256 labs on one machine are the most: is each of them in use?")


def _clean(number: int) -> None:
    for name in links():
        if _number(name) == number:
            _delete(name)
    shutil.rmtree(PLACE / str(number), ignore_errors=True)


def _delete(link: str) -> None:
    """Delete a link. One end of a veth pair also goes when the other's namespace does, when the kernel likes."""
    with contextlib.suppress(LabError):
        ip(f"link del {link}")
    until(lambda: link not in links(), f"the link {link} to be gone")
