"""The training service "local": trials run on this very host, under a keeper that is started here when none runs.

A training service only says how a keeper is started and how its channel is reached; everything else is the keeper's
(trial_sdk/keeper.py). Here the keeper is a process in a session of its own, dialled at its Unix socket. With
`channel = "tcp"` it is the keeper that dials, at the engine's TCP address (engine/listener.py), as in a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..engine.config import Config, TrainingService
from ..engine.errors import TuneError
from ..engine.listener import Expected, Listener
from ..trial_sdk import channel, control_group
from ..trial_sdk.crash_point import VARIABLE
from ..trial_sdk.dial import kept_token, new_token
from ..trial_sdk.keeper import read_lock

START_TIMEOUT = 30.0  # seconds for a keeper to come up
LOOK_AGAIN = 2.0  # seconds after which a keeper that is to dial may have died


class KeeperUnreachable(Exception):
    """No keeper can be started or reached; the message says why."""


class Local:
    """Trials on this host. `lease` and `grace` are in seconds (see the keeper's K11 and K8)."""

    name = "local"

    def __init__(
        self,
        folder: Path,
        *,
        lease: float = 2400.0,
        grace: float = 10.0,
        lock: Path | None = None,
        listener: Listener | None = None,
        settings: Config | None = None,
    ) -> None:
        """`folder` is the experiment's; `lock` is keeper.lock, if it lies elsewhere; at a `listener` it dials;
        `settings` say what is shared."""
        self._folder = folder.resolve()
        self._lease, self._grace = lease, grace
        self._lock = lock or self._folder / "keeper.lock"
        self._listener = listener
        self._token = self._lock.parent / "channel" / f"{self.name}.token"
        self._expected: Expected | None = None
        self._secret = settings.secret_variables if settings is not None else []
        self._mounted: Mounted | None = None
        if settings is not None and settings.shared_storage is not None and settings.shared_storage.is_mounted:
            self._mounted = Mounted(self._folder, settings)

    @classmethod
    def services(cls, folder: Path, settings: Config, own: TrainingService, **common: Any) -> list[Local]:
        """The one for this host."""
        del own
        return [cls(folder, settings=settings, **common)]

    @staticmethod
    async def problems(own: TrainingService, settings: Config) -> list[TuneError]:
        """What keeps this host from being used."""
        del own
        if settings.shared_storage is None or not settings.shared_storage.is_mounted:
            return []
        try:
            await Mounted.tried(settings)
        except TuneError as error:
            return [error]
        return []

    def adapt(self, launch: channel.Launch) -> channel.Launch:
        """A launch with the storage's folders in it, where there is one."""
        return launch if self._mounted is None else self._mounted.adapt(launch)

    async def channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A fresh connection to the keeper, which is started when it is not there. `KeeperUnreachable`."""
        if self._mounted is not None:
            await self._mounted.provide()
        return await self._dialled() if self._listener is None else await self._met(self._listener)

    async def _dialled(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = time.monotonic() + START_TIMEOUT
        pause = 0.01
        while True:
            if self.running():
                lock = read_lock(self._lock)
                if lock is not None:
                    with contextlib.suppress(OSError):
                        return await asyncio.open_unix_connection(lock.socket)
                # It holds its lock and does not listen: it is coming up, or on its way out.
                if time.monotonic() > deadline:
                    pid = "?" if lock is None else lock.pid
                    raise KeeperUnreachable(f"the keeper (pid {pid}) does not answer")
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)
            elif not await self._start() and time.monotonic() > deadline:
                raise KeeperUnreachable("the keeper does not come up")

    async def _met(self, listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection that the keeper makes; each keeper that is started gets a token of its own."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.running():
                self._expected = listener.expect(self.name, new_token(self._token))
                await self._start(self._to_dial(listener))
            elif self._expected is None:  # it was started by an engine before this one
                self._expected = listener.expect(self.name, self._kept_token())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    return await self._expected.channel()
        raise KeeperUnreachable(f"the keeper does not dial {listener.here}")

    def _kept_token(self) -> bytes:
        """The token of the keeper that runs; a new one, which it finds, when that is lost."""
        try:
            return kept_token(self._token)
        except (OSError, ValueError):
            return new_token(self._token)

    def _to_dial(self, listener: Listener) -> list[str]:
        options = ["--dial", listener.here, "--name", self.name, "--token-file", os.fspath(self._token)]
        return options + (["--fingerprint", listener.fingerprint] if listener.fingerprint else [])

    def running(self) -> bool:
        """Whether a keeper holds the lock."""
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    async def _start(self, options: Sequence[str] = ()) -> bool:
        """Start a keeper and wait until it listens; False when another one was faster."""
        read_end, write_end = os.pipe()
        try:
            process = self._spawn(write_end, options)
        except OSError as error:
            os.close(read_end)
            raise KeeperUnreachable(f"the keeper can't be started: {error}") from error
        finally:
            os.close(write_end)
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bytes] = loop.create_future()

        def readable() -> None:
            loop.remove_reader(read_end)
            if not told.done():
                told.set_result(os.read(read_end, 1))

        loop.add_reader(read_end, readable)
        try:
            ready = await asyncio.wait_for(told, START_TIMEOUT)
        except TimeoutError:
            raise KeeperUnreachable(f"the keeper (pid {process.pid}) is not ready after {START_TIMEOUT:g} s") from None
        finally:
            loop.remove_reader(read_end)
            os.close(read_end)
        if ready:
            _reap_later(process)
            return True
        code = await asyncio.to_thread(process.wait)
        if code:
            raise KeeperUnreachable(f"the keeper ended with code {code}: {self._last_words()}")
        return False

    def _spawn(self, ready_fd: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
        env = {  # the user's, without what marks a trial when this runs inside one
            name: value
            for name, value in os.environ.items()
            if name in ("TUNE_HOME", VARIABLE, control_group.VARIABLE) or not name.startswith(("TUNE_", "NNI_"))
            if name not in self._secret
        }
        command = [sys.executable, "-P", "-m", "tune.trial_sdk.keeper", os.fspath(self._folder)]
        command += ["--lease", str(self._lease), "--grace", str(self._grace), "--ready-fd", str(ready_fd)]
        command += ["--lock", os.fspath(self._lock), *options]
        with (self._folder / "keeper.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                pass_fds=[ready_fd],
                start_new_session=True,
                cwd=self._folder,
            )

    def _last_words(self) -> str:
        try:
            text = (self._folder / "keeper.log").read_bytes()[-2000:].decode(errors="replace")
        except OSError:
            return "it left no log"
        return text.strip() or "it said nothing"


class Mounted:
    """The storage that this host mounts: what lies there of an experiment."""

    def __init__(self, folder: Path, settings: Config) -> None:
        from . import _pack, _shared  # they bring asyncssh, which trials on this host alone don't need

        shared = _shared.of(folder, settings)
        assert shared is not None
        self._shared, self._session = shared, _shared.session_here
        self._code = _pack.Code(Path(settings.trial_code_directory))
        self._cwd = ""

    @staticmethod
    async def tried(settings: Config) -> None:
        """Find out whether it can be used. `TuneError`."""
        from . import _shared

        trial = _shared.tried(settings)
        assert trial is not None
        async with _shared.session_here() as opened:
            await trial.try_there(_shared.LOCAL, opened)

    async def provide(self) -> None:
        """Have it mounted, and the code there. `TuneError`."""
        async with self._session() as opened:
            self._cwd = await self._shared.code(Local.name, opened, await self._code.packed())

    def adapt(self, launch: channel.Launch) -> channel.Launch:
        """A launch with its folders in it."""
        env = {**launch.env, **self._shared.environment(Local.name, launch.trial)}
        return msgspec.structs.replace(launch, cwd=self._cwd, env=env)


_keepers: list[subprocess.Popen[bytes]] = []


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    """Keep the handle of a keeper that runs on, and collect those that have ended: it is nobody's to wait for."""
    _keepers.append(process)
    _keepers[:] = [keeper for keeper in _keepers if keeper.poll() is None]
