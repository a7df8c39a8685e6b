"""The machine that a keeper runs on: its clocks, processes, launch folders and socket. Here it is the real one.

A simulation hands another `Machine` to the keeper, and the keeper does not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import control_group, process_tree, waiter
from .devices import Finder, Look
from .launches import Folder, Owner, me
from .leases import Leases


class Socket:
    """The keeper's listening socket."""

    def __init__(self, path: Path, server: asyncio.Server) -> None:
        self._path, self._server = path, server
        self._inode = path.stat().st_ino

    def bound(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Listen no more; the path goes, if it is still this one's."""
        self._server.close()
        if self.bound():
            self._path.unlink(missing_ok=True)


class Machine:
    """The real machine, for the process that this is."""

    processes = process_tree.REAL

    def __init__(self) -> None:
        self._finder = Finder()

    def settle(self, reap: Callable[[], None], end: Callable[[], None]) -> None:
        """Make this process a keeper: open files, signals (`reap` on SIGCHLD, `end` on SIGTERM), no hang-up."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._files = soft
        if soft != hard:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, reap)
        loop.add_signal_handler(signal.SIGTERM, end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def me(self) -> Owner:
        """The owner that this process is."""
        return me()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wall(self) -> int:
        """The wall clock, in us."""
        return time.time_ns() // 1000

    def groups(self, folder: Path) -> control_group.Groups | str:
        """The control groups for the experiment in `folder`; in words why there are none."""
        return control_group.choose(folder)

    async def devices(self) -> Look:
        """What devices this host has just now."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Look] = loop.create_future()

        def tell(found: Look) -> None:
            if not told.done():
                told.set_result(found)

        def work() -> None:
            found = self._finder.look(os.environ, Path.home())
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, found)

        # A thread of its own that nobody waits for at the end: a driver that hangs must not keep the keeper.
        threading.Thread(target=work, name="devices", daemon=True).start()
        return await told

    def leases(self) -> Leases:
        """The leases of devices on this host, of all experiments of this user."""
        return Leases(Path.home() / ".tune" / ".leases" / socket.gethostname())

    def folder(self, path: Path) -> Folder:
        """A launch's folder."""
        return Folder(path, self.processes)

    def spawn(
        self,
        folder: Path,
        command: str,
        cwd: str,
        env: dict[str, str],
        alive: int,
        told: Callable[[], None],
        join: str = "",
    ) -> int:
        """Start a waiter: its pid. `told` is called once: the inner shell has told its pid, or ended before.

        `alive` is the locked file descriptor; the caller closes its own. The trial joins a control group by the file
        `join`. `OSError`; `ValueError` for a null byte.
        """
        pid, pipe = waiter.spawn(folder, command, cwd, env, alive, self._files, join)
        os.set_blocking(pipe, False)
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                os.read(pipe, 64)
            except BlockingIOError:
                return
            loop.remove_reader(pipe)
            os.close(pipe)
            told()

        loop.add_reader(pipe, readable)
        return pid

    def watch(self, pid: int, gone: Callable[[], None]) -> int:
        """Call `gone` when this process has ended: a handle for `unwatch`; -1 when it can't be watched (any more)."""
        if not hasattr(os, "pidfd_open"):
            return -1
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # gone already
            return -1
        asyncio.get_running_loop().add_reader(handle, gone)
        return handle

    def unwatch(self, handle: int) -> None:
        """Watch no more."""
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)

    def reap(self) -> list[int]:
        """The children that have ended since it was last asked."""
        pids: list[int] = []
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return pids
            if not pid:
                return pids
            pids.append(pid)

    async def listen(self, path: Path, connection: Callable[[], asyncio.Protocol]) -> Socket:
        """Listen at `path`, in the place of whoever did; each one who calls gets a fresh `connection`."""
        listener = _bind(path)
        server = await asyncio.get_running_loop().create_unix_server(connection, sock=listener, backlog=1024)
        return Socket(path, server)


def _bind(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, for this user only."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(mask)
    listener.listen(1024)
    return listener
