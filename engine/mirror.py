"""Copies of what trials on other hosts have written, made when somebody wants to see it.

A copy lies where the file of a trial on this host would lie, `trials/<trial id>/<attempt>/...`, so whoever shows files
shows these. What trials write here needs no copy, and nothing is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from .config import Config
from .errors import TuneError
from .home import Folder
from .host_files import Files, HostFiles
from .state import Trial

PIECE = 1 << 20
MOST = 64 << 20  # bytes that one look copies
MAX_FOLDER = 4 << 30  # bytes of a folder, packed


class Mirror:
    """The copies of one experiment. Not to be used from several event loops."""

    def __init__(self, folder: Folder, settings: Config) -> None:
        self._folder, self._settings = folder, settings
        self._files = HostFiles(folder.id, settings)
        self._guard = asyncio.Lock()

    async def output(self, one: Trial, name: str) -> None:
        """Bring the copy of a trial's `stdout` or `stderr` up to date, `MOST` bytes at a time at most. `TuneError`."""
        async with self._guard:
            files = await self._files.of(one.host)
            if files is None:
                return
            try:
                await self._copy(files, one, name)
            except BaseException:  # the link may be gone: the next look dials again
                await self._files.drop(one.host)
                raise

    async def folder(self, one: Trial) -> Path:
        """Copy everything that a trial has written: the folder that holds it. `TuneError`."""
        target = self._folder.trials / one.id
        async with self._guard:
            files = await self._files.of(one.host)
            if files is None:
                return target
            path = f"trials/{one.id}"
            await self._unpacked(files.take(path, MAX_FOLDER), target)
            storage = self._settings.shared_storage
            if storage is not None and storage.is_mounted:  # there lies what it has put into its output folder
                base = f"{storage.remote_mount_point}/tune/{self._folder.id}"
                await self._unpacked(files.take(path, MAX_FOLDER, base=base), target)
        return target

    async def _unpacked(self, pieces: AsyncIterator[bytes], target: Path) -> None:
        """Unpack what comes over what is there."""
        with tempfile.TemporaryDirectory(dir=self._folder.path) as room:
            packed = Path(room) / "packed"
            with packed.open("wb") as file:
                async for data in pieces:
                    file.write(data)
            await asyncio.to_thread(_unpack, packed, target)

    async def close(self) -> None:
        """End all accesses."""
        await self._files.close()

    async def _copy(self, files: Files, one: Trial, name: str) -> None:
        folder = self._folder.trials / one.id / str(one.attempt)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, left = folder / name, MOST
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            while left > 0:
                _, data = await files.read(f"trials/{one.id}/{one.attempt}/{name}", file.tell(), PIECE)
                if not data:
                    break
                file.write(data)
                left -= len(data)
        link = folder.parent / name
        with contextlib.suppress(FileExistsError):
            link.symlink_to(f"{one.attempt}/{name}")
        if str(link.readlink()) != f"{one.attempt}/{name}":
            link.unlink()
            link.symlink_to(f"{one.attempt}/{name}")


def _unpack(packed: Path, target: Path) -> None:
    """Unpack a tar over what is there: only plain files and folders, only below `target`."""
    try:
        with tarfile.open(packed) as archive, tempfile.TemporaryDirectory(dir=packed.parent) as room:
            archive.extractall(room, filter="data")
            shutil.copytree(room, target, dirs_exist_ok=True)
    except (tarfile.TarError, EOFError) as error:
        raise TuneError(f"what came is no folder: {error}") from error
