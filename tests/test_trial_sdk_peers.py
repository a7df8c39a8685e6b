"""A connection of the keeper: what its first message makes of it, and a trial that does not read."""

from __future__ import annotations

import asyncio

from tune.trial_sdk import channel, peers, wire


class Keeper:
    """Takes down what it is told."""

    def __init__(self):
        self.told = []
        self.over = asyncio.Event()

    def greeted(self, connection, message):
        self.told.append(message)
        if isinstance(message, channel.Attach):
            connection.engine = message

    def from_trial(self, connection, message):
        self.told.append(message)

    def from_engine(self, connection, message):
        self.told.append(message)

    def lost(self, connection):
        self.over.set()


async def connected(tmp_path):
    keeper, made = Keeper(), asyncio.get_running_loop().create_future()

    def build():
        connection = peers.Connection(keeper)
        made.set_result(connection)
        return connection

    server = await asyncio.get_running_loop().create_unix_server(build, str(tmp_path / "k"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "k"))
    return keeper, await made, server, reader, writer


async def end(keeper, server, writer):
    writer.close()
    await asyncio.wait_for(keeper.over.wait(), 30)
    server.close()


def test_messages_reach_the_keeper_in_order_whatever_the_cuts(tmp_path):
    async def main():
        keeper, _, server, _, writer = await connected(tmp_path)
        messages = [channel.Attach("exp", 1), channel.Probe("t1", 0), channel.Shutdown()]
        for byte in b"".join(wire.frame(channel.encoder.encode(m)) for m in messages):
            writer.write(bytes([byte]))
            await writer.drain()
        await end(keeper, server, writer)
        assert keeper.told == messages

    asyncio.run(main())


def test_k12_a_trial_that_does_not_read_is_dropped_an_engine_is_not(tmp_path, monkeypatch):
    async def main():
        keeper, connection, server, _, writer = await connected(tmp_path)
        big = wire.Parameters(1, 0, "x" * (1 << 20))
        connection.engine = channel.Attach("exp", 1)
        for _ in range(8):
            connection.send(big)
        assert not keeper.over.is_set()
        connection.engine = None
        connection.send(big)
        await end(keeper, server, writer)

    asyncio.run(main())


def test_who_says_nothing_is_shown_out(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "GREETING", 0.0)

    async def main():
        keeper, _, server, reader, writer = await connected(tmp_path)
        assert await reader.read() == b""
        await end(keeper, server, writer)

    asyncio.run(main())
