"""engine/tuner_link.py: the asks that a host has, and the time that they may take."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tune.engine import host_wire
from tune.engine.host_wire import Answered, Differs, Failed, FromHost, Ready
from tune.engine.plan import AskTuner
from tune.engine.requests import Request, Suggests, TunerDiffers, TunerFailed, TunerHangs
from tune.engine.tuner_link import TunerLink


class Fake:
    """A host of the test's own: a socket, and a process that is only a flag."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, theirs: socket.socket) -> None:
        self.reader, self.writer, self.theirs = reader, writer, theirs
        self.killed = asyncio.Event()

    def kill(self) -> None:
        self.killed.set()
        self.theirs.close()

    async def wait(self) -> int:
        await self.killed.wait()
        return -9

    def say(self, *messages: FromHost) -> None:
        self.theirs.sendall(b"".join(map(host_wire.from_host, messages)))


class Bench:
    """A link with its fake hosts, and what it has submitted."""

    def __init__(self, timeout: float) -> None:
        self.hosts: list[Fake] = []
        self.said: list[Request] = []
        self.came = asyncio.Event()
        self.link = TunerLink(b"{}", Path("tuner.log"), timeout, self.submit, self.history, self.start)

    async def start(self, output: Path) -> Any:
        ours, theirs = socket.socketpair()
        self.hosts.append(Fake(*await asyncio.open_unix_connection(sock=ours), theirs))
        self.came.set()
        return self.hosts[-1]

    async def history(self, ready: Ready) -> list[Any]:
        return []

    def submit(self, request: Request) -> None:
        self.said.append(request)
        self.came.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 30)


def ask(number: int) -> AskTuner:
    return AskTuner(number, 0, number, "", 0, 0, 0)


def run(timeout: float, script: Callable[[Bench], Awaitable[None]]) -> list[Request]:
    async def main() -> list[Request]:
        bench = Bench(timeout)
        serving = asyncio.create_task(bench.link.run())
        try:
            await bench.until(lambda: bench.hosts)
            await script(bench)
        finally:
            bench.link.shutdown()
            await serving
        return bench.said

    return asyncio.run(main())


def test_a_concurrent_tuners_time_counts_only_while_nothing_runs() -> None:
    async def script(bench: Bench) -> None:
        bench.link.look(quiet=False)
        bench.hosts[0].say(Ready(concurrent=True))
        bench.link.ask(ask(1))
        bench.link.ask(ask(2))
        await asyncio.sleep(0.3)  # three times as long as it has: something runs
        assert not bench.said
        bench.link.look(quiet=True)
        await bench.until(lambda: bench.said)
        bench.hosts[0].say(Answered(2, 0, 5, "{}"))
        await bench.until(lambda: len(bench.said) == 2)

    said = run(0.1, script)
    assert said[:2] == [TunerHangs(0.1), Suggests(2, 0, 5, "{}")] and not any(isinstance(x, TunerFailed) for x in said)


def test_a_serial_tuner_that_does_not_answer_is_killed() -> None:
    async def script(bench: Bench) -> None:
        bench.hosts[0].say(Ready())
        bench.link.ask(ask(1))
        await bench.until(lambda: bench.said)
        await bench.until(lambda: len(bench.hosts) == 2)

    [failed, *_] = run(0.1, script)
    assert isinstance(failed, TunerFailed) and failed.ask == 1
    assert failed.error.startswith("the tuner did not answer for 0.1 s")


def test_the_ask_that_failed_is_named_among_several() -> None:
    async def script(bench: Bench) -> None:
        bench.hosts[0].say(Ready(concurrent=True))
        for number in (1, 2, 3):
            bench.link.ask(ask(number))
        bench.hosts[0].say(Differs("it says another thing"), Failed("no", 2, 0, "trace"))
        await bench.until(lambda: len(bench.said) == 2)

    assert run(60.0, script) == [TunerDiffers("it says another thing"), TunerFailed(2, "no", "trace")]
