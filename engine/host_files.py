"""Access to the files that an experiment has on other hosts: asked of the training services, kept as long as it works.

A training service whose hosts have files of their own gives access to one host's by `async files(own, host,
experiment)`, or None where it is no host of its; without it trials write here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from . import registry
from .config import Config, TrainingService
from .errors import TuneError


class Files(Protocol):
    """The files of an experiment on another host. Each of these may raise `TuneError`."""

    async def read(self, path: str, offset: int, limit: int) -> tuple[int, bytes]:
        """The file's size now, and a piece of it; (0, b"") where there is none."""
        ...

    def take(self, path: str, limit: int, *, optional: bool = False, base: str = "") -> AsyncIterator[bytes]:
        """A folder as a compressed tar, below the experiment's folder there or `base`; with `optional` no bytes at all
        where there is nothing."""
        ...

    async def give(self, path: str, packed: Path, size: int, digest: str) -> None:
        """Have a folder be what a compressed tar with this BLAKE2b-256 digest holds."""
        ...

    async def close(self) -> None:
        """End the access."""
        ...


class HostFiles:
    """The accesses of one experiment, one a host."""

    def __init__(self, experiment: str, settings: Config) -> None:
        self._experiment, self._settings = experiment, settings
        self._known: dict[str, Files | None] = {}

    async def of(self, host: str) -> Files | None:
        """Access to a host's files; None when they are here. `TuneError`."""
        if host not in self._known:
            found: Files | None = None
            for own in self._settings.training_services:
                kind = registry.training_service_class(own.platform)
                access: Callable[[TrainingService, str, str], Awaitable[Files | None]] | None
                access = getattr(kind, "files", None)
                if access is not None and found is None:
                    found = await access(own, host, self._experiment)
            self._known[host] = found
        return self._known[host]

    async def drop(self, host: str) -> None:
        """End the access to a host: the next one begins anew. After an error, say: the link may be gone."""
        files = self._known.pop(host, None)
        if files is not None:
            with contextlib.suppress(OSError, TuneError):
                await files.close()

    async def close(self) -> None:
        """End all of them."""
        for host in list(self._known):
            await self.drop(host)
