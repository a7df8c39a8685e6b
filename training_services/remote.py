"""The training service "remote": trials on machines that are reached by SSH, each under a keeper of its own there.

A machine needs a Python and an SSH server, nothing else. On a fresh connection boot.py looks at it, takes in the
trials' code (once, named by its content) and, where no fitting tune-engine is installed, our SDK; it starts the keeper,
detached from the session, and the channel is the keeper's Unix socket, reached by a forward where the server allows
that, else through boot.py's standard input and output. No port is opened anywhere. When the link breaks, the keeper and
its trials go on; the next connection finds them.

On the machine, below `folder` (~/.tune):

    sdk/<digest>                        our modules, and msgspec where there was none
    experiments/<id>/code/<digest>      the trials' working directory
    experiments/<id>/trials/...         launch folders, as on the engine's host
    experiments/<id>/keeper.<hash>.*    the keeper's lock and log: one for each machine that shares the home

With shared storage that is mounted, code, outputs and checkpoints lie there instead (_shared.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import asyncssh
import msgspec

from ..engine.config import Config, Machine, TrainingService
from ..engine.host_link import Reader, Writer
from ..trial_sdk import channel
from . import _pack, _shared, _ssh
from ._ssh import UPLOAD, Session, Unreachable, put


class Remote:
    """Trials on one machine. `lease` and `grace` are in seconds (see the keeper's K11 and K8)."""

    def __init__(
        self,
        machine: Machine,
        experiment: str,
        code: _pack.Code,
        *,
        lease: float,
        grace: float,
        shared: _shared.Shared | None = None,
    ) -> None:
        self.name = machine.name
        self.machine, self._shared = machine, shared
        self._code, self._lease, self._grace = code, lease, grace
        self._folder = f"{machine.folder}/experiments/{experiment}"
        self._experiment = experiment
        self._connection: asyncssh.SSHClientConnection | None = None
        self._forwards = True  # until the server says that it does not
        self._home = self._cwd = self._path = self._sdk = ""

    @classmethod
    def services(
        cls, folder: Path, settings: Config, own: TrainingService, *, lease: float, grace: float, lock: Path
    ) -> list[Remote]:
        """One for each machine of the config's machine_list; `folder` is the experiment's, named by its id."""
        del lock  # each machine has its own
        code = _pack.Code(Path(settings.trial_code_directory))
        shared = _shared.of(folder.resolve(), settings)
        return [cls(one, folder.name, code, lease=lease, grace=grace, shared=shared) for one in own.machine_list]

    # -- for people ----------------------------------------------------------------------------------------------
    @staticmethod
    async def problems(own: TrainingService, settings: Config) -> list[Unreachable]:
        """What keeps machines from being used, all looked at at once."""

        async def problem(machine: Machine) -> Unreachable | None:
            try:
                await Remote.examine(machine, settings)
            except Unreachable as error:
                return error
            return None

        return [one for one in await asyncio.gather(*map(problem, own.machine_list)) if one is not None]

    @staticmethod
    async def examine(machine: Machine, settings: Config | None = None) -> dict[str, Any]:
        """What a machine is (boot.py's `look`), with `fits`: whether its tune-engine will do, and with the config's
        `storage`, if it is there and can be used. `Unreachable`."""
        looked: dict[str, Any] = {}
        async with await _ssh.connect(machine) as connection, _ssh.session(connection, machine) as opened:
            looked = await look(opened, machine)
            if settings is not None and (trial := _shared.tried(settings)) is not None:
                looked["storage"] = await trial.try_there(machine.name, opened)
        return {**looked, "fits": _pack.fits(looked)}

    @staticmethod
    async def prepare(machine: Machine, wheels: Path | None) -> str:
        """Put the SDK there, with a msgspec from a folder of wheels if one is given: where it lies. `TuneError`."""
        path = ""
        async with await _ssh.connect(machine) as connection, _ssh.session(connection, machine) as opened:
            looked = await look(opened, machine)
            path = f"{looked['home']}/{await provide_sdk(opened, looked, machine, wheels, always=True)}"
        return path

    @staticmethod
    async def host_keys(machine: Machine) -> tuple[list[str], list[str], Callable[[], Path]]:
        """The fingerprints that a machine shows, those known for it, and what makes the shown ones known."""
        tunnel = await _ssh.tunnel_to(machine)
        try:
            shown, known = await _ssh.host_keys(machine, tunnel), _ssh.known_keys(machine)
        finally:
            if tunnel is not None:
                tunnel.close()
        kept = {key.public_data for key in known}
        new = [key for key in shown if key.public_data not in kept]
        return [_fingerprint(key) for key in shown], list(map(_fingerprint, known)), lambda: _ssh.trust(machine, new)

    @staticmethod
    async def clear(own: TrainingService, experiment: str) -> list[str]:
        """Remove an experiment's folder on each machine: what was removed. `Unreachable` where that can't be done."""
        found: list[str] = []
        for machine in own.machine_list:
            async with await _ssh.connect(machine) as connection, _ssh.session(connection, machine) as opened:
                folder = f"{machine.folder}/experiments/{experiment}"
                await opened.order("remove", folder=folder)
                found.append(f"{folder} on {machine.name}")
        return found

    @staticmethod
    async def files(own: TrainingService, host: str, experiment: str) -> RemoteFiles | None:
        """Access to an experiment's files on one of the machines; None when it is none of them. `Unreachable`."""
        machine = next((one for one in own.machine_list if one.name == host), None)
        if machine is None:
            return None
        connection = await _ssh.connect(machine)
        return RemoteFiles(connection, await _ssh.open_session(connection, machine), machine, experiment)

    # -- the channel ----------------------------------------------------------------------------------------------
    async def channel(self) -> tuple[Reader, Writer]:
        """A fresh connection to the keeper, which is started when it is not there. `Unreachable`."""
        connection = await self._connected()
        opened = await _ssh.open_session(connection, self.machine)
        try:
            looked = await look(opened, self.machine)
            await self._provide(opened, looked)
            started = await opened.order(
                "start",
                folder=self._folder,
                lock=f"keeper.{self._tag(looked)}.lock",
                sdk=self._sdk,
                lease=self._lease,
                grace=self._grace,
            )
            if self._forwards:
                try:
                    dial = cast("Any", connection).open_unix_connection  # its types are those of text or bytes
                    reader, writer = await dial(started["socket"], encoding=None)
                except asyncssh.ChannelOpenError:
                    self._forwards = False  # the server forbids it: through the session then
                else:
                    opened.close()
                    return reader, writer
            await opened.order("relay", socket=started["socket"])
        except BaseException as error:
            opened.close()
            if isinstance(error, Unreachable):
                raise Unreachable(f"host {self.name}: {error.message}", error.hint) from error
            raise
        return opened.process.stdout, opened.process.stdin

    async def _connected(self) -> asyncssh.SSHClientConnection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._connection = await _ssh.connect(self.machine)
        return self._connection

    async def _provide(self, opened: Session, looked: dict[str, Any]) -> None:
        """Have the code and the SDK there, and know where."""
        self._sdk = await provide_sdk(opened, looked, self.machine)
        code = await self._code.packed()
        if self._shared is not None:
            self._cwd = await self._shared.code(self.name, opened, code)
        else:
            self._cwd = await put(opened, self.machine.folder, f"experiments/{self._experiment}/code/{code.name}", code)
        self._path = str(Path(looked["executable"]).parent) if self.machine.python_path else ""
        self._home = looked["home"]

    @staticmethod
    def _tag(looked: dict[str, Any]) -> str:
        """What tells this host from others that share its home."""
        return hashlib.blake2b(looked["host"].encode(), digest_size=4).hexdigest()

    def adapt(self, launch: channel.Launch) -> channel.Launch:
        """A launch with the machine's own folders and environment in it."""
        env = {**launch.env, **self.machine.env, "NNI_PLATFORM": "remote"}
        if self._sdk and "PYTHONPATH" in self.machine.env:
            env["PYTHONPATH"] = f"{self._home}/{self._sdk}:{env['PYTHONPATH']}"
        if self._shared is not None:
            env |= self._shared.environment(self.name, launch.trial)
        return msgspec.structs.replace(launch, cwd=self._cwd, path=self._path, env=env)

    async def code(self) -> tuple[str, AsyncIterator[bytes]]:
        """What the trials run, for whoever keeps it: its digest, and a compressed tar."""
        packed = await self._code.packed()
        return packed.digest, packed.pieces()

    async def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._connection.wait_closed()


class RemoteFiles:
    """The files of an experiment on a machine."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, opened: Session, machine: Machine, experiment: str
    ) -> None:
        self._connection, self._opened = connection, opened
        self._folder = f"{machine.folder}/experiments/{experiment}"

    async def read(self, path: str, offset: int, limit: int) -> tuple[int, bytes]:
        """A file's size now, and a piece of it."""
        answer = await self._opened.order("read", folder=self._folder, path=path, offset=offset, limit=limit)
        return int(answer["size"]), str(answer["data"]).encode("latin-1")

    async def take(self, path: str, limit: int, *, optional: bool = False, base: str = "") -> AsyncIterator[bytes]:
        """A folder as a compressed tar, below the experiment's folder or `base`; with `optional` no bytes at all where
        there is nothing."""
        answer = await self._opened.order(
            "take", patience=UPLOAD, folder=base or self._folder, path=path, limit=limit, optional=optional
        )
        if int(answer["size"]) < 0:
            return
        async for data in self._opened.bytes(int(answer["size"])):
            yield data
        await self._opened.answer()

    async def give(self, path: str, packed: Path, size: int, digest: str) -> None:
        """Have a folder be what a compressed tar with this BLAKE2b-256 digest holds, if it is not that already."""
        answer = await self._opened.order("put", folder=self._folder, path=path, size=size, digest=digest, replace=True)
        if answer.get("send"):
            await self._opened.send(_pieces(packed))
            await self._opened.answer(UPLOAD)

    async def close(self) -> None:
        """End the connection."""
        self._opened.close()
        self._connection.close()


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 18):
            yield data


# -- what a machine is and has ----------------------------------------------------------------------------------------
async def look(opened: Session, machine: Machine) -> dict[str, Any]:
    """What a machine is (boot.py's `look`); `Unreachable` when no trial can run there."""
    looked = await opened.order("look", folder=machine.folder)
    if looked["old"]:
        version = ".".join(map(str, looked["python"]))
        raise Unreachable(
            f"{looked['executable']} is Python {version}; 3.11 or later is needed",
            "Name another one with python_path.",
        )
    if not looked["writable"]:
        raise Unreachable(f"{looked['folder']} can't be written", "Name another folder with folder = ... .")
    return looked


async def provide_sdk(
    opened: Session, looked: dict[str, Any], machine: Machine, wheels: Path | None = None, *, always: bool = False
) -> str:
    """Have an SDK there: its folder below the home, "" for the tune-engine that is installed (unless `always`)."""
    if _pack.fits(looked) and not always:
        return ""
    packed = await asyncio.to_thread(_sdk_for, looked, wheels)
    path = f"sdk/{packed.name}"
    await put(opened, machine.folder, path, packed, check=_pack.CHECK)
    return f"{machine.folder}/{path}"


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


_sdks: dict[tuple[Any, ...], _pack.Packed] = {}


def _sdk_for(looked: dict[str, Any], wheels: Path | None) -> _pack.Packed:
    """Packed once for machines of the same kind."""
    kind = (looked["msgspec"], looked["soabi"], looked["machine"], *looked["python"][:2], *looked["libc"], wheels)
    if kind not in _sdks:
        _sdks[kind] = _pack.sdk(looked, wheels)
    return _sdks[kind]
