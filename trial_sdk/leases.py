"""Which trials hold which devices of this host, across all experiments of a user.

A lease is a small file that names the devices and the launch that holds them, in a folder that all keepers of the user
share. It lives as long as the launch does, that is while the lock on its `alive` is held: so it ends with the trial,
whatever happens to keeper, engine or host, and nobody has to give it back. Who takes devices does it under one lock
over the folder: looks at what is held, makes the launch, writes the lease, starts the trial.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Generator
from pathlib import Path

import msgspec
from msgspec import Struct

from .launches import Folder


class Lease(Struct, frozen=True):
    """Some devices are a launch's. `experiment` and `launch` are the paths of their folders."""

    experiment: str
    launch: str
    devices: list[str]  # uuids


class Leases:
    """The folder of leases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """No other keeper takes devices in this block. `OSError` when the folder can't be used."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def held(self) -> list[Lease]:
        """The leases that are held now; those that have ended are taken away."""
        found: list[Lease] = []
        try:
            paths = [path for path in self.folder.iterdir() if path.suffix == ".json"]
        except OSError:  # nobody has ever leased anything, or nobody can
            return []
        for path in paths:
            try:
                lease = msgspec.json.decode(path.read_bytes(), type=Lease)
            except (OSError, msgspec.DecodeError):  # it ended just now, or is none
                continue
            if Folder(Path(lease.launch)).held():
                found.append(lease)
            else:  # its lock was taken before it was written, so it is not to come
                path.unlink(missing_ok=True)
        return sorted(found, key=lambda lease: lease.launch)

    def add(self, lease: Lease) -> None:
        """Write a lease, whose launch holds its `alive` already. `OSError`."""
        name = hashlib.blake2b(os.fsencode(lease.launch), digest_size=8).hexdigest()
        temporary = self.folder / f"{name}.new"
        try:
            temporary.write_bytes(msgspec.json.encode(lease))
        except UnicodeEncodeError:
            raise OSError(0, "a folder's name is no UTF-8: its devices can't be leased", lease.launch) from None
        temporary.replace(self.folder / f"{name}.json")


def refusals(held: list[Lease], experiment: str, devices: list[str], *, share: bool, most: int) -> dict[str, str]:
    """Which of these devices can't be leased, and why.

    A device takes `most` trials; and none beside another experiment's, unless this one says that it may `share`.
    """
    found: dict[str, str] = {}
    for device in devices:
        holders = [lease for lease in held if device in lease.devices]
        others = [lease for lease in holders if lease.experiment != experiment]
        if others and not share:
            found[device] = f"a trial of the experiment in {others[0].experiment} has it"
        elif len(holders) >= most:
            found[device] = f"the launch {holders[0].launch} still has it"
    return found
