"""portal/connections.py: who does not finish a request is sent away, however slowly its bytes drip; nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from tune.portal import connections
from tune.portal.connections import Connection

HALF = b"GET / HTTP/1.1\r\nHost: x\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Web:
    """A server whose application answers when it may."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.go = asyncio.Event()
        self.go.set()
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        self.inside += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def visit(self, data: bytes) -> Stream:
        """A connection on which this was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    async def asks(self) -> bytes:
        """What a visitor gets that brings its request whole."""
        reader, writer = await self.visit(HALF + b"Connection: close\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving() -> AsyncGenerator[Web]:
    listening = socket.create_server(("127.0.0.1", 0))
    web = Web(listening.getsockname()[1])
    config = uvicorn.Config(web, http=Connection, log_config=None, ws="none", lifespan="off", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield web
    finally:
        web.go.set()
        server.should_exit = server.force_exit = True
        await asyncio.wait_for(task, 30)
        assert not connections._waiting


def run(do: Callable[[Web], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving() as web:
            await asyncio.wait_for(do(web), 60)

    asyncio.run(main())


async def ended(visitor: Stream) -> bytes:
    """Everything that still came, once the connection has ended."""
    reader, writer = visitor
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), 30):
            found += data
    writer.close()
    return found


@pytest.mark.parametrize(
    "data",
    [b"", HALF, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", HALF + b"\r\n"],
    ids=["nothing", "half a head", "half a body", "one request and no other"],
)
def test_a_connection_without_a_whole_request_ends(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.2)

    async def do(web: Web) -> None:
        said = await ended(await web.visit(data))
        assert said.endswith(b"ok") == data.endswith(b"\r\n\r\n")

    run(do)


def test_bytes_that_drip_do_not_begin_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.5)

    async def do(web: Web) -> None:
        reader, writer = visitor = await web.visit(HALF)

        async def drip() -> None:
            while not reader.at_eof():
                writer.write(b"X-More: 1\r\n")
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        await ended(visitor)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert not web.inside

    run(do)


def test_who_waits_for_an_answer_waits_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.2)

    async def do(web: Web) -> None:
        web.go.clear()
        asking = asyncio.create_task(web.asks())
        await ended(await web.visit(HALF))  # a whole time passes meanwhile, and more
        await ended(await web.visit(HALF))
        assert not asking.done() and web.inside == 1
        web.go.set()
        assert (await asking).endswith(b"ok")

    run(do)


def test_of_very_many_that_wait_the_first_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_WAITING", 4)

    async def do(web: Web) -> None:
        slow = [await web.visit(HALF) for _ in range(9)]
        for one in slow[:5]:
            assert await ended(one) == b""
        assert all(not reader.at_eof() for reader, _ in slow[5:])
        assert len(connections._waiting) == 4
        assert (await web.asks()).endswith(b"ok")
        for _, writer in slow[5:]:
            writer.close()

    run(do)
