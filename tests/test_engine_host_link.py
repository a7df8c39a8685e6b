"""engine/host_link.py: the link to a keeper ends when the keeper has said that nothing is left, and not before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tune.engine.host_link import HostLink
from tune.engine.requests import HostDown, HostUp, Request
from tune.trial_sdk import channel
from tune.trial_sdk.wire import Framer, decode, frame

Script = Callable[["Keeper"], None]


class Keeper:
    """One keeper's side of a channel: attaches, and does with a Shutdown what its script says."""

    def __init__(self, end: socket.socket, script: Script) -> None:
        self.end, self.script = end, script
        self.heard: list[channel.ToKeeper] = []
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self) -> None:
        reader, self.writer = await asyncio.open_unix_connection(sock=self.end)
        framer = Framer()
        try:
            while data := await reader.read(1 << 16):
                for body in framer.feed(data):
                    message = decode(channel.to_keeper, body)
                    self.heard.append(message)
                    if isinstance(message, channel.Attach):
                        self.say(channel.Attached("here", 7, "boot"))
                    elif isinstance(message, channel.Shutdown):
                        self.script(self)
        except ConnectionResetError:
            pass
        finally:
            self.writer.close()

    def say(self, message: channel.FromKeeper) -> None:
        assert self.writer is not None
        self.writer.write(frame(channel.encoder.encode(message)))

    def die(self) -> None:
        assert self.writer is not None
        self.writer.transport.abort()

    def end_in_order(self) -> None:
        assert self.writer is not None
        self.say(channel.Over())
        self.writer.close()


class Service:
    """A training service that starts one keeper after another, each with its script; none: it can't be reached."""

    name = "here"

    def __init__(self, *scripts: Script | None) -> None:
        self.scripts = list(scripts)
        self.keepers: list[Keeper] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        script = self.scripts.pop(0)
        if script is None:
            raise OSError("no route to it")
        ours, theirs = socket.socketpair()
        keeper = Keeper(theirs, script)
        self.keepers.append(keeper)
        self.tasks.append(asyncio.create_task(keeper.serve()))
        return await asyncio.open_unix_connection(sock=ours)


async def ended(service: Service, *, when_up: bool = True) -> list[Request]:
    """What a link submits until it has ended; it is told to when its first keeper is there (or at once)."""
    said: list[Request] = []
    up = asyncio.Event()

    def submit(request: Request) -> None:
        said.append(request)
        if isinstance(request, HostUp):
            up.set()

    def nothing(*_: Any) -> None:
        raise AssertionError("no report was made")

    link = HostLink(service, "exp", 1, submit, nothing, nothing)  # type: ignore[arg-type]  # what a link needs of one
    running = asyncio.create_task(link.run())
    if when_up:
        await up.wait()
    await link.shutdown(patience=30.0)
    await asyncio.wait_for(running, 30.0)
    await asyncio.gather(*service.tasks)
    assert not service.scripts
    return said


def shutdowns(service: Service) -> list[int]:
    return [sum(isinstance(one, channel.Shutdown) for one in keeper.heard) for keeper in service.keepers]


@pytest.mark.parametrize(
    ("scripts", "told"),
    [
        ([Keeper.end_in_order], [1]),
        ([Keeper.die, Keeper.end_in_order], [1, 1]),  # killed as it was told: daemons of its trials may be left
        ([Keeper.die, None, None, Keeper.end_in_order], [1, 1]),
    ],
)
def test_the_end_is_what_a_keeper_has_confirmed(scripts: list[Script | None], told: list[int]) -> None:
    service = Service(*scripts)
    said = asyncio.run(ended(service))
    assert shutdowns(service) == told
    assert not any(isinstance(one, HostDown) for one in said)


def test_an_engine_with_nothing_to_do_still_ends_the_keeper_that_it_finds() -> None:
    service = Service(Keeper.end_in_order)
    asyncio.run(ended(service, when_up=False))
    assert shutdowns(service) == [1]
