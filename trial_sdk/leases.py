"""Which trials hold which devices of this host, across all experiments of a user.

A lease is a small file that names the devices and the launch that holds them, in a folder that all keepers of the user
share. It lives as long as the launch does, that is while the lock on its `alive` is held: so it ends with the trial,
whatever happens to keeper, engine or host, and nobody has to give it back. Who takes devices does it under one lock
over the folder: looks at what is held, makes the launch, writes the lease, starts the trial.

An experiment that holds nothing and has trials waiting may lay a claim, which its keeper holds: who would take devices
of which it then had too few leaves them alone. So a trial that wants four GPUs gets its turn beside an experiment whose
trials want one each, and a second experiment does not wait for the end of the first.
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


class Claim(Struct, frozen=True):
    """An experiment waits for `wants` of these devices; the one with the lowest `since` goes first."""

    experiment: str
    since: float  # s, on the host's monotonic clock
    devices: list[str]
    wants: int


class Leases:
    """The folder of leases and claims."""

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

    def lay(self, claim: Claim) -> int:
        """Lay a claim, in the place of the experiment's last one: the descriptor that holds it. `OSError`."""
        with self.alone():
            path = self._claim(claim.experiment)
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(fd, msgspec.json.encode(claim))
                temporary.replace(path)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def withdraw(self, experiment: str, fd: int) -> None:
        """Take a claim back."""
        with contextlib.suppress(OSError):
            self._claim(experiment).unlink()
        os.close(fd)

    def claims(self) -> list[Claim]:
        """The claims that are held now."""
        found: list[Claim] = []
        try:
            paths = [path for path in self.folder.iterdir() if path.suffix == ".claim"]
        except OSError:
            return []
        for path in paths:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)  # its keeper has died
            except BlockingIOError:
                with contextlib.suppress(msgspec.DecodeError):
                    found.append(msgspec.json.decode(os.pread(fd, 1 << 16, 0), type=Claim))
            finally:
                os.close(fd)
        return sorted(found, key=lambda claim: claim.since)

    def _claim(self, experiment: str) -> Path:
        return self.folder / f"{hashlib.blake2b(os.fsencode(experiment), digest_size=8).hexdigest()}.claim"


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


def yielded(held: list[Lease], claims: list[Claim], experiment: str, devices: list[str]) -> dict[str, str]:
    """Which of these devices are left to other experiments that wait for them, and why.

    To those that were there before the claim of this one, if it has one; and no more than they want.
    """
    own = next((claim for claim in claims if claim.experiment == experiment), None)
    leased = {device for lease in held for device in lease.devices}
    found: dict[str, str] = {}
    for claim in claims:
        if claim.experiment == experiment or (own is not None and own.since < claim.since):
            continue
        free = [device for device in claim.devices if device not in leased and device not in devices]
        if len(free) < claim.wants:
            reason = f"it is left to the experiment in {claim.experiment}, which waits for {claim.wants}"
            found |= {device: reason for device in devices if device in claim.devices}
    return found
