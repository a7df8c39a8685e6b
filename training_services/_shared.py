"""Storage that all hosts mount: whether it is there, and the same on each, and where an experiment's files lie on it.

A host is admitted when it sees at once what another one has just written (the engine's, or where the engine has no
mount the first host's), and the other way round: a mark, under a name that nobody has ever looked for, since network
file systems remember what was not there. The looking is boot.py's `share`, in a process of its own also on this host: a
server that is away may keep whoever asks for its files waiting, and must not keep the engine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import shlex
import sys
import weakref
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import asyncssh
from msgspec import Struct

from ..engine.config import Config, SharedStorage
from ..trial_sdk.boot import COMMAND
from ._pack import Packed
from ._ssh import Session, Unreachable, boot_text, put

LOCAL = "local"  # the name of the engine's own host


class _First(Struct, frozen=True):
    """What was left by the first host, where the engine has no mount of its own."""

    mark: str
    host: str
    mount: str


class Shared:
    """What the hosts of one experiment share."""

    def __init__(self, storage: SharedStorage, experiment: str, owner: str) -> None:
        """`owner` tells the experiment from others of its name."""
        self._storage, self._folder, self._owner = storage, f"tune/{experiment}", owner
        self._bases: dict[str, str] = {}  # by host: the experiment's folder there
        self._guard = asyncio.Lock()
        self._first: _First | None = None

    async def code(self, host: str, opened: Session, packed: Packed) -> str:
        """Have the storage on a host, and the code on the storage, sent once for all: its folder. `Unreachable`."""
        base = self._bases[host] = await self._admit(host, opened)
        async with self._guard:
            return await put(opened, base, f"code/{packed.name}", packed)

    def environment(self, host: str, trial: str) -> dict[str, str]:
        """What tells a trial's keeper where its files lie."""
        base = self._bases[host]
        output = f"{base}/trials/{trial}"
        return {"TUNE_OUTPUT_DIR": output, "NNI_OUTPUT_DIR": output, "TUNE_CHECKPOINT_DIR": f"{base}/checkpoints"}

    async def try_there(self, host: str, opened: Session) -> str:
        """Whether the storage can be used on a host: what it is there. Nothing is left on it. `Unreachable`."""
        try:
            await self._admit(host, opened)
            return self._told(host, await self._order(opened, host, clear=True))
        except Unreachable as error:
            raise Unreachable(f"host {host}: {error.message}", error.hint) from error

    async def _admit(self, host: str, opened: Session) -> str:
        """Find out whether a host has what the others have: the experiment's folder there."""
        ours, theirs = secrets.token_hex(8), secrets.token_hex(8)
        if host == LOCAL:
            answer = await self._order(opened, host, write=ours, read=[ours], remove=[ours])
        elif self._storage.local_mounted == "nomount":
            async with self._guard:
                first = self._first
                if first is None:
                    answer = await self._order(opened, host, write=ours)
                    self._first = _First(ours, host, self._told(host, answer))
                    return str(answer["folder"])
            answer = await self._order(opened, host, read=[first.mark])
            self._compare(host, answer, f"host {first.host}", first.mount)
        else:
            async with session_here() as here:
                mine = await self._order(here, LOCAL, write=ours)
                answer = await self._order(opened, host, read=[ours], write=theirs)
                self._compare(host, answer, "this host", self._told(LOCAL, mine))
                mine = await self._order(here, LOCAL, read=[theirs], remove=[ours, theirs])
                if mine["missing"]:
                    raise Unreachable(f"what host {host} writes to {self._told(host, answer)} is not seen on this host")
        return str(answer["folder"])

    def _compare(self, host: str, answer: dict[str, Any], other: str, mount: str) -> None:
        if answer["missing"]:
            raise Unreachable(
                f"{self._told(host, answer)} is not what {other} has: a mark that was just left there, on {mount}, is "
                "not to be seen",
                "Mount the same export of the same server on all hosts, and without the option nocto.",
            )

    def _point(self, host: str) -> str:
        storage = self._storage
        return (storage.local_mount_point if host == LOCAL else storage.remote_mount_point) or ""

    def _told(self, host: str, answer: dict[str, Any]) -> str:
        return f"{self._point(host)} ({answer['kind']} {answer['source']})"

    async def _order(self, opened: Session, host: str, **rest: Any) -> dict[str, Any]:
        storage = self._storage
        how = storage.local_mounted if host == LOCAL else storage.remote_mounted
        server = storage.nfs_server or ""
        server = f"[{server}]" if ":" in server else server
        source = f"{server}:{storage.exported_directory}" if how == "tunemount" else ""
        try:
            point = {"point": self._point(host), "source": source, "folder": self._folder, "owner": self._owner}
            return await opened.order("share", **point, **rest)
        except Unreachable as error:
            where = "here" if host == LOCAL else "there"
            raise Unreachable(f"shared storage {where}: {error.message}", error.hint) from error


_known: weakref.WeakValueDictionary[Path, Shared] = weakref.WeakValueDictionary()


def of(folder: Path, settings: Config) -> Shared | None:
    """What the hosts of the experiment in `folder` share, the same for all its training services; None when they mount
    nothing."""
    storage = settings.shared_storage
    if storage is None or not storage.is_mounted:
        return None
    found = _known.get(folder)
    if found is None:
        found = _known[folder] = Shared(storage, folder.name, _owner(folder))
    return found


def _owner(folder: Path) -> str:
    """A word that the experiment has from its first engine on."""
    path = folder / "storage.owner"
    with contextlib.suppress(FileExistsError), path.open("x") as file:
        file.write(secrets.token_hex(8))
    return path.read_text()


def tried(settings: Config) -> Shared | None:
    """The same for a trial run, before there is an experiment."""
    storage = settings.shared_storage
    word = secrets.token_hex(8)
    return Shared(storage, f".try-{word}", word) if storage is not None and storage.is_mounted else None


# -- this host --------------------------------------------------------------------------------------------------------
class _Process:
    """A process of asyncio with what a session uses of one of asyncssh."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    @property
    def exit_status(self) -> int | None:
        return self._process.returncode

    async def wait_closed(self) -> None:
        await self._process.wait()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


@contextlib.asynccontextmanager
async def session_here() -> AsyncGenerator[Session, None]:
    """boot.py, running on this host while the block does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *shlex.split(COMMAND),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    mark = secrets.token_hex(16).encode()
    opened = Session(cast("asyncssh.SSHClientProcess[bytes]", _Process(process)), mark, 60.0)
    try:
        assert process.stdin is not None
        process.stdin.write(base64.b64encode(boot_text()) + b"\n" + mark + b"\n")
        yield opened
    finally:
        opened.close()
        with contextlib.suppress(TimeoutError):  # what waits for a server that is away can't be killed
            async with asyncio.timeout(2):
                await process.wait()
