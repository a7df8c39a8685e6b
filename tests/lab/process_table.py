"""What /proc says about a host of the lab: its processes, its listening sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process of a host: its pid there, its pid and its parent's as the controller sees them, uid, command line."""

    pid: int
    outer: int
    parent: int
    uid: int
    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, order=True)
class Listener:
    """A socket that waits for others: "tcp" or "udp" with address and port, or "unix" with a path and port 0."""

    kind: str
    address: str
    port: int = 0


def processes(namespace: str) -> list[Process]:
    """The living processes of a pid namespace ("pid:[4026532000]"), by their pids there; no zombies."""
    found: list[Process] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if str((entry / "ns/pid").readlink()) == namespace:
                    found += _process(entry)
            except OSError:  # gone in the meantime
                continue
    return sorted(found, key=lambda process: process.pid)


def _process(entry: Path) -> Iterator[Process]:
    status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
    if status["State"].split()[0] in "ZX":
        return
    line = (entry / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    yield Process(
        pid=int(status["NSpid"].split()[-1]),
        outer=int(entry.name),
        parent=int(status["PPid"]),
        uid=int(status["Uid"].split()[0]),
        name=status["Name"].strip(),
        argv=tuple(line.split("\0")),
    )


def listening(pid: int) -> list[Listener]:
    """The sockets that wait for others in the network namespace of a process."""
    net = Path(f"/proc/{pid}/net")
    found = [*_internet(net, "tcp", "0A"), *_internet(net, "udp", "07"), *_unix(net / "unix")]
    return sorted(set(found))


def _internet(net: Path, kind: str, state: str) -> Iterator[Listener]:
    for file, family in ((net / kind, socket.AF_INET), (net / f"{kind}6", socket.AF_INET6)):
        for line in file.read_text().splitlines()[1:] if file.exists() else []:
            words = line.split()
            if words[3] == state:
                address, port = words[1].split(":")
                yield Listener(kind, _address(address, family), int(port, 16))


def _address(text: str, family: int) -> str:
    """An address as /proc/net writes it: words of 32 bits in the machine's byte order."""
    numbers = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(numbers)}I", *numbers))


def _unix(file: Path) -> Iterator[Listener]:
    accepts = 0x10000  # __SO_ACCEPTCON
    for line in file.read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if int(words[3], 16) & accepts:
            yield Listener("unix", words[7] if len(words) > 7 else "")
