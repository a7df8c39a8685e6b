"""A TCP proxy in a thread of its own that can be slow, can fall silent, and can die after an exact number of bytes.

    with Proxy((host.address, 22)) as proxy:
        proxy.cut_after(100_000)
        login = host.login.through(*proxy.address)

It needs no root and sees bytes, not packets: for uploads that are cut at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, TypeVar

from lab.errors import LabError
from lab.waiting import PATIENCE

How = Literal["reset", "close", "silence"]
Direction = Literal["up", "down"]  # up: from the client to the target
T = TypeVar("T")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close sends a reset


class Proxy:
    """Forwards every connection to a target, until told otherwise; its methods may be called from any thread."""

    def __init__(self, target: tuple[str, int], delay: float = 0.0) -> None:
        """Listen on a free port of loopback. `delay`: seconds that each piece waits, each way."""
        self.target = target
        self.delay = delay
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}  # bytes, over all connections
        self._limits: dict[Direction, int] = {}  # of `passed`
        self._how: How = "reset"  # what happens at a limit
        self._refuses = False
        self._open: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()  # cleared in silence
        self._flows.set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut_after(self, size: int, *, direction: Direction = "up", how: How = "reset") -> None:
        """Let exactly `size` more bytes pass in a direction, over all connections together; then cut.

        "reset" and "close" end all connections and every new one; in "silence" they stay open and nothing passes.
        """

        def limit() -> None:
            self._limits = {direction: self.passed[direction] + size}
            self._how = how

        self._call(limit)

    def cut(self, how: How = "reset") -> None:
        """Cut now."""
        self._call(lambda: self._cut(how))

    def restore(self) -> None:
        """Take new connections again, and let through what waits in the silent ones."""

        def undo() -> None:
            self._limits, self._refuses = {}, False
            self._flows.set()

        self._call(undo)

    def connections(self) -> int:
        """How many connections are open."""
        return self._call(lambda: len(self._open))

    def close(self) -> None:
        """End all connections and the thread; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                raise LabError("the proxy's thread does not end")

    # -- in the thread ------------------------------------------------------------------------------------------------
    def _call(self, function: Callable[[], T]) -> T:
        """Call something in the thread, from another."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def _run(self) -> None:
        accepting = self._loop.create_task(self._accept())
        try:
            self._loop.run_forever()
            tasks = {accepting, *self._open}
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            self._listener.close()
            self._loop.close()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            if self._refuses:
                self._hang_up(client)
                continue
            task = self._loop.create_task(self._serve(client))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _serve(self, client: socket.socket) -> None:
        """One connection, to its end."""
        target = socket.socket()
        target.setblocking(False)
        try:
            await self._loop.sock_connect(target, self.target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(client, target, "up"))
                both.create_task(self._pump(target, client, "down"))
        except* OSError:  # one side has broken it: so does the proxy with the other
            pass
        finally:
            self._hang_up(client)
            self._hang_up(target)

    async def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        while data := await self._loop.sock_recv(source, 1 << 16):
            if self.delay:
                await asyncio.sleep(self.delay)
            while data:
                await self._flows.wait()
                room = max(0, self._limits[direction] - self.passed[direction]) if direction in self._limits else None
                now, data = (data, b"") if room is None else (data[:room], data[room:])
                await self._loop.sock_sendall(sink, now)
                self.passed[direction] += len(now)
                if room is not None and len(now) == room:
                    self._cut(self._how)
                    await asyncio.sleep(0)  # where the cut has cancelled this very task, it ends here
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _cut(self, how: How) -> None:
        self._how = how
        if how == "silence":
            self._flows.clear()
            return
        self._refuses = True
        for task in self._open:
            task.cancel()

    def _hang_up(self, end: socket.socket) -> None:
        if self._how == "reset" and self._refuses:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.close()
