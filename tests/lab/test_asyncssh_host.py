"""The host for machines without root: commands, files, forwards, an abort, another host key."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lab.asyncssh_host import AsyncsshHost
from lab.proxy import Proxy
from lab.waiting import until

Work = Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, Any]]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AsyncsshHost]:
    """A host that runs."""
    with AsyncsshHost(tmp_path) as made:
        yield made


def with_connection(
    host: AsyncsshHost, work: Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, Any]]
) -> Any:
    """Do something over a connection."""

    async def run() -> Any:
        async with asyncio.timeout(30), asyncssh.connect(**host.login.asyncssh()) as connection:
            return await work(connection)

    return asyncio.run(run())


def test_commands_run(host: AsyncsshHost) -> None:
    async def work(connection: asyncssh.SSHClientConnection) -> None:
        done = await connection.run("cat; pwd; echo no >&2; exit 3", input="typed\n")
        assert (done.stdout, done.stderr, done.exit_status) == (f"typed\n{host.home}\n", "no\n", 3)
        done = await connection.run("kill -9 $$")
        assert done.exit_signal is not None and done.exit_signal[0] == "KILL"
        done = await connection.run(input="echo $((6 * 7))\n")
        assert done.stdout == "42\n"
        process = await connection.create_process("sleep 1006")
        process.send_signal("TERM")
        await process.wait()
        assert process.exit_signal is not None and process.exit_signal[0] == "TERM"
        bulk = await connection.run("head -c 3000000 /dev/zero", encoding=None)
        assert bulk.stdout == b"\0" * 3_000_000

    with_connection(host, work)
    done = subprocess.run(host.login.ssh("echo $HOME"), capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"{host.home}\n"


def test_files_and_forwards(host: AsyncsshHost, tmp_path: Path) -> None:
    async def work(connection: asyncssh.SSHClientConnection) -> None:
        async with connection.start_sftp_client() as sftp:
            async with sftp.open(str(tmp_path / "note"), "w") as note:
                await note.write("word")
        assert (tmp_path / "note").read_text() == "word"
        path = str(tmp_path / "talk.sock")
        server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), path)
        async with server:
            reader, writer = await connection.open_unix_connection(path)
            assert await reader.read() == b""
            writer.close()
        _, writer = await connection.open_connection(host.address, host.port)
        writer.close()

    with_connection(host, work)


def test_an_abort_leaves_server_and_commands(host: AsyncsshHost) -> None:
    mark = host.home / "mark"

    async def work(connection: asyncssh.SSHClientConnection) -> None:
        await connection.create_process("touch begun; while [ ! -e go ]; do sleep 0.01; done; touch mark")
        until((host.home / "begun").exists, "the command")
        assert await asyncio.to_thread(host.kill_sessions) == 1
        await connection.wait_closed()

    with_connection(host, work)
    (host.home / "go").touch()
    until(mark.exists, "the command to go on")
    assert host.kill_sessions() == 0


def test_a_stop_ends_commands_too(host: AsyncsshHost) -> None:
    async def work(connection: asyncssh.SSHClientConnection) -> int:
        process = await connection.create_process("echo $$; exec sleep 1007")
        pid = int(await process.stdout.readline())
        await asyncio.to_thread(host.restart_sshd)
        await connection.wait_closed()
        return pid

    pid = with_connection(host, work)
    until(lambda: b"1007" not in command_line(pid), "the command's end")
    assert with_connection(host, lambda connection: connection.run("echo again")).stdout == "again\n"


def command_line(pid: int) -> bytes:
    """The command line of a process; nothing where it is no more."""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, timeout=30).stdout


def test_a_changed_host_key_is_noticed(host: AsyncsshHost) -> None:
    before = host.login
    host.change_host_key()

    async def connect() -> None:
        await asyncssh.connect(**before.asyncssh())

    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        asyncio.run(connect())
    assert with_connection(host, lambda connection: connection.run("echo new")).stdout == "new\n"


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_proxy_cuts_what_comes_back(host: AsyncsshHost, how: Any) -> None:
    with Proxy((host.address, host.port), delay=0.001) as proxy:
        login = host.login.through(*proxy.address)

        async def run() -> None:
            async with asyncio.timeout(30), asyncssh.connect(**login.asyncssh()) as connection:
                proxy.cut_after(50_000, direction="down", how=how)
                done = await connection.run("head -c 1000000 /dev/zero", encoding=None)
                assert done.exit_status is None
                assert 0 < len(done.stdout or b"") < 50_000

        before = proxy.passed["down"]
        asyncio.run(run())
        assert 50_000 < proxy.passed["down"] - before < 60_000  # the greetings came before


def test_a_silent_proxy_holds_and_lets_go(host: AsyncsshHost) -> None:
    with Proxy((host.address, host.port)) as proxy:
        login = host.login.through(*proxy.address)

        async def run() -> None:
            async with asyncio.timeout(30), asyncssh.connect(**login.asyncssh()) as connection:
                proxy.cut("silence")
                asked = asyncio.create_task(connection.run("echo late"))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(asked), 0.3)
                assert proxy.connections() == 1
                proxy.restore()
                assert (await asked).stdout == "late\n"

        asyncio.run(run())
