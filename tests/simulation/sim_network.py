"""The simulated network: byte streams that are late, split, cut, or half-open; never reordered inside a connection."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from typing import Any, cast

from sim_loop import Node, SimLoop


class Weather:
    """How the network is just now, for everybody."""

    def __init__(self) -> None:
        self.slow = 0.0  # seconds that may be added to each delivery


class End(asyncio.Transport):
    """One end of a connection, a transport for the protocol at this end."""

    def __init__(self, network: Network, node: Node, name: str) -> None:
        super().__init__()
        self.network, self.node, self.name = network, node, name
        self.dice = random.Random(f"{network.seed}/{name}/{network.made}")
        self.protocol: asyncio.BaseProtocol | None = None
        self.peer: End = self
        self.closing = self.lost = self.cut = False
        self._last = 0.0  # when what was last sent arrives
        self._paused = False
        self._held: list[bytes] = []
        self._ended = False
        self._in_flight = 0

    # -- the transport ------------------------------------------------------------------------------------------------
    def write(self, data: Any) -> None:
        if self.closing or self.lost or not data or not self.node.alive:
            return
        content = bytes(data)
        self._in_flight += len(content)
        self._send(self.peer._receive, content)

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        return self._in_flight

    def is_closing(self) -> bool:
        return self.closing or self.lost

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if self.closing or self.lost:
            return
        self.closing = True
        if self.node.alive:
            self._send(self.peer._end, None)
            self.network.loop.call_in(self.node, 0.0, self._lose, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for data in held:
            self.network.loop.call_in(self.node, 0.0, self._take, data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    # -- the wire -----------------------------------------------------------------------------------------------------
    def _send(self, what: Callable[..., None], *content: Any) -> None:
        network = self.network
        delay = self.dice.uniform(0.0001, 0.002)
        if network.weather.slow and self.dice.random() < 0.3:
            delay += self.dice.uniform(0.0, network.weather.slow)
        self._last = max(self._last + 1e-6, network.loop.time() + delay)
        network.loop.call_at(self._last, what, *content, context=self.peer.node.context)

    def _receive(self, data: bytes) -> None:
        self.peer._in_flight -= len(data)
        if self.cut or self.lost or self.closing:
            return
        self.network.witness("data", self.name, len(data))
        if self._paused:
            self._held.append(data)
            return
        if len(data) > 1 and self.dice.random() < 0.1:
            at = self.dice.randrange(1, len(data))
            self._take(data[:at])
            self._take(data[at:])
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if not self.lost and not self.closing and self.protocol is not None:
            cast("asyncio.Protocol", self.protocol).data_received(data)

    def _end(self, error: Exception | None) -> None:
        if not self.cut or error is not None:
            self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.network.witness("lost", self.name, 0)
        if self.protocol is not None:
            self.protocol.connection_lost(error)

    def node_died(self) -> None:
        """The process at this end was killed: what it sent arrives, then the other end hears of it."""
        if not self.lost and not self.closing:
            self.closing = True
            self._send(self.peer._end, ConnectionResetError("the other side died"))


class Listener:
    """A listening socket."""

    def __init__(self, network: Network, address: str, node: Node, factory: Callable[[], asyncio.Protocol]) -> None:
        self.network, self.address, self.node, self.factory = network, address, node, factory
        self.swept = False

    def bound(self) -> bool:
        """Whether its address still leads to it."""
        return not self.swept

    def close(self) -> None:
        """Listen no more."""
        if self.network.listeners.get(self.address) is self:
            del self.network.listeners[self.address]


class Network:
    """All connections of the world."""

    def __init__(self, loop: SimLoop, seed: str, witness: Callable[[str, str, int], None]) -> None:
        self.loop, self.seed, self.witness = loop, seed, witness
        self.weather = Weather()
        self.listeners: dict[str, Listener] = {}
        self.connections: list[tuple[End, End]] = []
        self.made = 0

    def listen(self, address: str, node: Node, factory: Callable[[], asyncio.Protocol]) -> Listener:
        """Listen at an address, in the place of whoever did."""
        listener = self.listeners[address] = Listener(self, address, node, factory)
        node.on_kill.append(listener.close)
        return listener

    def pair(self, one: Node, other: Node, name: str) -> tuple[End, End]:
        """A connection whose protocols are not set yet."""
        self.made += 1
        ends = End(self, one, f"{name}>"), End(self, other, f"{name}<")
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        for end in ends:
            end.node.on_kill.append(end.node_died)
        self.connections = [pair for pair in self.connections if not (pair[0].lost and pair[1].lost)]
        self.connections.append(ends)
        return ends

    def dial(self, node: Node, address: str, protocol: asyncio.BaseProtocol, name: str) -> End:
        """Connect to an address; `ConnectionRefusedError` when nobody listens there."""
        listener = self.listeners.get(address)
        if listener is None or listener.swept or not listener.node.alive:
            raise ConnectionRefusedError(111, f"nobody listens at {name}")
        ours, theirs = self.pair(node, listener.node, name)
        ours.protocol = protocol
        protocol.connection_made(ours)

        def accepted() -> None:
            theirs.protocol = listener.factory()
            theirs.protocol.connection_made(theirs)

        self.loop.call_in(listener.node, 0.0, accepted)
        ours._last = self.loop.time() + 1e-5  # what is sent comes after it was accepted
        return ours

    async def open(self, node: Node, address: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The same as streams."""
        await asyncio.sleep(self.loop.dice.uniform(0.0, 0.002))
        return self.streams(lambda protocol: self.dial(node, address, protocol, name))

    def streams(self, dial: Callable[[asyncio.BaseProtocol], End]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Reader and writer around an end."""
        reader = asyncio.StreamReader(limit=1 << 20, loop=self.loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self.loop)
        end = dial(protocol)
        return reader, asyncio.StreamWriter(end, protocol, reader, self.loop)

    def cut(self, pair: tuple[End, End], longest: float) -> None:
        """Nothing gets through any more; each end notices by itself, `longest` seconds later at most."""
        for end in pair:
            end.cut = True
            wait = self.loop.dice.uniform(0.0, longest)
            error = ConnectionResetError("the connection was cut")
            self.loop.call_in(end.node, wait, end._end, error)

    def living(self, name: str) -> list[tuple[End, End]]:
        """The connections whose name begins so."""
        return [
            pair
            for pair in self.connections
            if pair[0].name.startswith(name) and not pair[0].cut and not pair[0].lost and not pair[1].lost
        ]


def checksum(data: bytes) -> int:
    """A short number for a trace."""
    return zlib.crc32(data)
