"""A host for machines without root: asyncssh's own server on loopback, in a process of its own, with real commands.

It takes the place of a namespace's host (host.py) where a test needs no more than to get in and be cut off: commands
run as whoever runs the tests, with a home in a temporary folder, and files are not private. Started as a program it is
the server: it prints its port and then obeys the lines of its input, and ends when that does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import asyncssh

from lab.errors import LabError
from lab.login import Login, known_hosts_line, make_key
from lab.waiting import PATIENCE

_PLACE = Path(__file__).resolve().parents[1]  # where the package `lab` lies


# -- the side of the tests --------------------------------------------------------------------------------------------
class AsyncsshHost:
    """A server of asyncssh; the same small interface as Host: login, known_hosts, start_sshd, stop_sshd, ..."""

    name = "localhost"
    address = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        """`folder` gets the keys, the log and the home; it must exist."""
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.port = 0  # taken at the first start, and kept
        make_key(folder / "key", "lab")
        make_key(folder / "host_key", self.name)
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> AsyncsshHost:
        self.start_sshd()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_sshd(self) -> None:
        """Start the server; back when it listens."""
        if self._server is not None:
            raise LabError("the server runs already")
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "lab.asyncssh_host", str(self.folder), str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(_PLACE)},
            )
        self.port = int(self._answer())

    def stop_sshd(self) -> None:
        """End the server, its connections and the commands that they have started."""
        if self._server is not None:
            assert self._server.stdin is not None and self._server.stdout is not None
            self._server.stdin.close()
            self._server.stdout.close()
            try:
                self._server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait(PATIENCE)
            self._server = None

    def restart_sshd(self) -> None:
        """Stop it and start it at the same port."""
        self.stop_sshd()
        self.start_sshd()

    def kill_sessions(self) -> int:
        """Abort every connection, without a goodbye; their commands live on. How many connections there were."""
        if self._server is None or self._server.stdin is None:
            raise LabError("the server does not run")
        self._server.stdin.write(b"abort\n")
        self._server.stdin.flush()
        return int(self._answer())

    def change_host_key(self) -> str:
        """Give it another host key, and start it again where it runs; the new line of `known_hosts`."""
        make_key(self.folder / "host_key", self.name)
        if self._server is not None:
            self.restart_sshd()
        return self.known_hosts

    @property
    def known_hosts(self) -> str:
        """Its line for a `known_hosts` file."""
        return known_hosts_line(self.address, self.port, (self.folder / "host_key.pub").read_text())

    @property
    def login(self) -> Login:
        """How to get in."""
        return Login(self.address, self.port, "ada", self.folder / "key", self.known_hosts)

    def close(self) -> None:
        """The same as stop_sshd; may be called twice."""
        self.stop_sshd()

    def _answer(self) -> str:
        assert self._server is not None and self._server.stdout is not None
        ready, _, _ = select.select([self._server.stdout], [], [], PATIENCE)
        line = self._server.stdout.readline().decode().strip() if ready else ""
        if not line:
            log = (self.folder / "server.log").read_text(errors="replace")
            self.stop_sshd()
            raise LabError(f"asyncssh's server does not answer:\n{log}")
        return line


# -- the server -------------------------------------------------------------------------------------------------------
class _Server(asyncssh.SSHServer):
    """One connection: the lab's key gets in, and everything may be forwarded."""

    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember it."""
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._connection is not None:
            self._connections.discard(self._connection)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """A TCP forward."""
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        """A forward to a Unix socket (direct-streamlocal)."""
        return True


class _Commands:
    """The commands that run, each in a session of its own with its streams on socket pairs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running: set[int] = set()

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run what a client asks for, through a shell as sshd does; without a command the shell reads its input.

        When the connection is lost, the command's streams break and it lives on.
        """
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        child = subprocess.Popen(  # noqa: ASYNC220 - the start is quick, and its streams are ours
            ["/bin/sh", *(("-c", process.command) if process.command else ())],
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home), "USER": "ada", **dict(process.env)},
            start_new_session=True,
        )
        for end in theirs:
            end.close()
        self.running.add(child.pid)
        waiting = asyncio.create_task(self._wait(child))
        streams = [await asyncio.open_connection(sock=end) for end in ours]
        feeding = asyncio.create_task(self._feed(process, streams[0][1], child.pid))
        try:
            outputs = ((streams[1][0], process.stdout), (streams[2][0], process.stderr))
            await asyncio.gather(*(self._tell(source, sink) for source, sink in outputs))
            code = await asyncio.shield(waiting)
            if code < 0:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                process.exit(code)
        except (OSError, asyncssh.Error):  # the connection is lost
            process.close()
        finally:
            feeding.cancel()
            for _, writer in streams:
                writer.close()

    async def _wait(self, child: subprocess.Popen[bytes]) -> int:
        code = await asyncio.to_thread(child.wait)
        self.running.discard(child.pid)
        return code

    async def _feed(self, process: asyncssh.SSHServerProcess[bytes], sink: asyncio.StreamWriter, pid: int) -> None:
        """What the client types, and the signals that it sends."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while True:
                try:
                    data = await process.stdin.read(1 << 16)
                except asyncssh.SignalReceived as received:
                    os.killpg(pid, signal.Signals[f"SIG{received.signal}"])
                    continue
                except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                    continue
                if not data:
                    sink.write_eof()
                    return
                sink.write(data)
                await sink.drain()

    async def _tell(self, source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()

    def end(self) -> None:
        """Kill all of them, with what they have started in their sessions."""
        for pid in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


async def _main(folder: Path, port: int) -> None:
    connections: set[asyncssh.SSHServerConnection] = set()
    commands = _Commands(folder / "home")
    server = await asyncssh.create_server(
        lambda: _Server(connections),
        AsyncsshHost.address,
        port,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "key.pub"),
        process_factory=commands.serve,
        sftp_factory=True,
        encoding=None,
        reuse_address=True,
    )
    print(server.get_port(), flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        while await lines.readline():
            doomed = list(connections)
            for connection in doomed:
                connection.abort()
            print(len(doomed), flush=True)
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        commands.end()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2])))
