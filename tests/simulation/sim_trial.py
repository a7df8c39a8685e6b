"""A simulated trial: it behaves as user code with the SDK does, over a real spool and real messages.

Its script is drawn from (seed, trial, attempt): intermediate and final results, further phases, crashes, hangs, TERM
ignored, a second process that reports too, a daemon left behind. It writes down what it reported and what it was told,
which is the truth that the checkers compare the log with.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sim_loop import Node
from sim_machine import SimProcess

from tune.trial_sdk import spool, wire

if TYPE_CHECKING:
    from sim_machine import Host

SILENCE = 5.0
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[wire.ToTrial] = msgspec.msgpack.Decoder(wire.ToTrial)


class Told:
    """What one process of a trial reported: the truth about one sender."""

    def __init__(self, trial: str, attempt: int, process: str, host: str) -> None:
        self.trial, self.attempt, self.process, self.host = trial, attempt, process, host
        self.reports: list[tuple[int, str, int, str]] = []  # number, kind, phase, value
        self.acknowledged: dict[int, str] = {}  # number of a final -> "recorded" or "synced"
        self.answers: dict[int, tuple[int, str | None]] = {}  # number of a request -> phase, parameters
        self.lost_after: int | None = None  # a power cut took what came after this number

    @property
    def sender(self) -> str:
        """Its name in the log."""
        return f"{self.trial}.{self.attempt}.{self.process}"


class SimSdk(asyncio.Protocol):
    """The SDK in one process: spool and connection, as sdk.py and connection.py do it, but awaiting."""

    def __init__(self, trial: SimTrial, process: SimProcess, dice: random.Random) -> None:
        self.trial, self.process, self.dice = trial, process, dice
        self.world = trial.host.world
        name = f"{process.pid}-{dice.getrandbits(32):08x}"
        self.told = Told(trial.trial, trial.attempt, name, trial.host.name)
        self.world.told.append(self.told)
        self.path = trial.folder / f"{name}.spool"
        self.spool: spool.Spool | None = None
        self.synced = 0
        self.transport: asyncio.Transport | None = None
        self.framer = wire.Framer()
        self.recorded = 0
        self.engine: bool | None = None
        self.answer: wire.Parameters | None = None
        self.stopping = False
        self.changed = asyncio.Event()
        self.phase = 0
        self.waits_since: float | None = None

    # -- the connection -----------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.framer = wire.Framer()
        self.engine = None

    def data_received(self, data: bytes) -> None:
        for body in self.framer.feed(data):
            message = wire.decode(_decoder, body)
            match message:
                case wire.Recorded():
                    self.recorded = max(self.recorded, message.number)
                    self.world.check_recorded(self.told, message.number)
                case wire.Parameters():
                    self.answer = message
                case wire.EngineState():
                    self.engine = message.connected
                case wire.StopNotice():
                    self.stopping = True
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.changed.set()

    def dial(self) -> bool:
        if self.transport is not None:
            return True
        trial = self.trial
        try:
            self.world.network.dial(trial.node, trial.host.address, self, f"{trial.host.name}.trial")
        except OSError:
            return False
        self.say(wire.Hello(f"{trial.trial}/{trial.attempt}", self.told.process, self.process.pid))
        return self.transport is not None

    def say(self, *messages: wire.FromTrial) -> None:
        if self.transport is not None:
            self.transport.write(b"".join(wire.frame(_encode(message)) for message in messages))

    # -- reporting ----------------------------------------------------------------------------------------------------
    def append(self, kind: str, value: str = "") -> int:
        if self.trial.host.full and self.dice.random() < 0.3:
            raise OSError(28, "No space left on device")
        if self.spool is None:
            self.spool = spool.Spool(str(self.path))
        number = self.spool.append(kind, self.phase, value)
        self.told.reports.append((number, kind, self.phase, value))
        self.world.witness("report", self.told.sender, number)
        if self.dice.random() < 0.1:
            self.synced = self.spool._end  # the kernel wrote it back
        return number

    def intermediate(self, value: str) -> None:
        self.append("I", value)
        if self.dial():
            self.say(wire.Poke())

    async def final(self, value: str) -> None:
        number = self.append("F", value)
        since = self.world.loop.time()
        if await self.wait_recorded(number):
            self.told.acknowledged[number] = "recorded"
        else:
            assert self.spool is not None
            self.spool.sync()
            self.synced = self.spool._end
            self.told.acknowledged[number] = "synced"
            self.world.check_wait(self.told, since, "a final to be recorded")
        self.world.witness(self.told.acknowledged[number], self.told.sender, number)

    async def wait_recorded(self, number: int) -> bool:
        loop = asyncio.get_running_loop()
        heard, known, dials = loop.time(), self.recorded, 0
        while self.recorded < number:
            if self.transport is None:
                if dials == 2 or not self.dial():
                    return False
                dials += 1
            self.say(wire.Poke(), wire.Waiting(number))
            while self.transport is not None and self.recorded < number:
                if self.recorded > known:
                    heard, known = loop.time(), self.recorded
                left = heard + SILENCE - loop.time()
                if left <= 0 or self.engine is False:
                    return False
                await self.wait(left)
        return True

    async def parameters(self) -> wire.Parameters | None:
        """The next phase's; None when the trial is to stop."""
        number = self.append("R")
        self.waits_since = self.world.loop.time()
        pause = 0.05
        while not self.stopping:
            if self.dial():
                self.say(wire.Poke(), wire.Waiting(number))
                while self.transport is not None and not self.stopping:
                    if self.answer is not None and self.answer.number == number:
                        self.waited()
                        self.told.answers[number] = (self.answer.phase, self.answer.parameters)
                        self.world.check_answer(self.told, number, self.answer)
                        return self.answer
                    await self.wait(60.0)
                if self.engine is not None:
                    pause = 0.05
            if not self.stopping:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        return None

    async def wait(self, seconds: float) -> None:
        self.changed.clear()
        try:
            await asyncio.wait_for(self.changed.wait(), seconds)
        except TimeoutError:
            return

    def waited(self) -> None:
        """The wait for parameters is over, one way or the other."""
        if self.waits_since is not None:
            self.world.check_wait(self.told, self.waits_since, "its next parameters")
            self.waits_since = None

    def power_cut(self) -> None:
        """Cut off some of what was not synced, perhaps in the middle of a frame."""
        if not self.path.exists():
            return
        size = self.path.stat().st_size
        keep = self.dice.randrange(min(self.synced, size), size + 1)
        os.truncate(self.path, keep)
        self.synced = keep
        self.told.lost_after = spool.scan(self.path.read_bytes(), 0)[1]

    def close(self) -> None:
        """The process has gone."""
        if self.spool is not None:
            self.spool.close()
            self.spool = None


class SimTrial:
    """One launch's tree of processes."""

    def __init__(self, host: Host, folder: Path, env: dict[str, str], leader: SimProcess) -> None:
        self.host, self.folder, self.env, self.leader = host, folder, env, leader
        self.trial, self.attempt = env["TUNE_TRIAL_ID"], int(env["TUNE_ATTEMPT"])
        self.number = int(env["TUNE_TRIAL_NUMBER"])
        self.devices = [name for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        self.world = host.world
        self.dice = random.Random(f"{self.world.seed}/{self.trial}/{self.attempt}")
        self.node: Node = self.world.loop.node(f"{host.name}.{self.trial}.{self.attempt}")
        self.code: int | None = None
        self.started_at = self.world.loop.time()
        self.ended_at: float | None = None
        self.orphaned = False  # its waiter was killed, or its host lost power: nobody knows how it ended
        self.leased = False  # its keeper ended it because no engine was heard for the lease
        self.sdks: list[SimSdk] = []
        leader.on_end.append(self._ended)

    def begin(self) -> None:
        """The command runs."""
        self.world.started(self)
        dice = self.dice
        if dice.random() < 0.15:
            self.leader.patience = None if dice.random() < 0.5 else dice.uniform(0.0, 1.0)
        self.world.loop.spawn(self.node, self._main())

    def power_cut(self) -> None:
        """The host lost its power."""
        for sdk in self.sdks:
            sdk.power_cut()

    def _ended(self, code: int) -> None:
        self.code, self.ended_at = code, self.world.loop.time()
        self.world.loop.kill(self.node)
        for sdk in self.sdks:
            sdk.waited()
            sdk.close()

    _ended.at_power_cut = True  # type: ignore[attr-defined]

    def _sdk(self, process: SimProcess) -> SimSdk:
        sdk = SimSdk(self, process, random.Random(f"{self.world.seed}/{self.trial}/{self.attempt}/{len(self.sdks)}"))
        self.sdks.append(sdk)
        return sdk

    async def _main(self) -> None:
        code = 0
        try:
            await self._script()
        except OSError:  # a report that could not be written: the user's code does not catch it
            code = 1
        except _Crash as crash:
            code = crash.code
        loop = self.world.loop
        loop.call_in(loop.world, 0.0, self.leader.end, code)

    async def _script(self) -> None:
        dice, settings = self.dice, self.world.settings
        given = json.loads((self.folder / "parameters.json").read_bytes())
        self.world.check_first(self, given["phase"], given["parameters"])
        fate = dice.random()
        crash_at = dice.randrange(0, settings.reports + 1) if fate < 0.08 else -1
        hang_at = dice.randrange(0, settings.reports + 1) if 0.08 <= fate < 0.12 else -1
        if dice.random() < 0.15:  # a worker that was forked and reports too
            worker = SimProcess(self.host, "worker", self.leader.pid, self.leader, os.fsencode(self.folder))
            self.world.loop.create_task(self._worker(worker))
        if dice.random() < 0.1:  # a daemon in a session of its own
            daemon = SimProcess(self.host, "daemon", self.leader.pid, None, os.fsencode(self.folder))
            daemon.patience = None if dice.random() < 0.3 else 0.01
        sdk = self._sdk(self.leader)
        sdk.phase = given["phase"]
        await asyncio.sleep(dice.uniform(0.01, 1.0))
        if sdk.phase < 0:  # every phase had its final: this attempt begins with the next one
            first = await sdk.parameters()
            if first is None or first.parameters is None:
                return
            sdk.phase = first.phase
        for _ in range(settings.phases):
            for step in range(dice.randrange(settings.reports // 2, settings.reports + 1)):
                if step == crash_at:
                    raise _Crash(dice.choice([1, 2, -11]))
                if step == hang_at:
                    await asyncio.sleep(1e6)
                sdk.intermediate(self._value())
                await asyncio.sleep(dice.expovariate(1.0 / settings.pause))
                if sdk.stopping and dice.random() < 0.5:
                    if dice.random() < 0.5:
                        await sdk.final(self._value())
                    return
            if fate > 0.97:
                return  # no final at all
            await sdk.final(self._value())
            if dice.random() < 0.05:
                await sdk.final(self._value())  # a second one, which does not count
            if not settings.multi_phase:
                break
            answer = await sdk.parameters()
            if answer is None or answer.parameters is None:
                break
            sdk.phase = answer.phase
        if dice.random() < 0.1:
            raise _Crash(3)
        await asyncio.sleep(dice.uniform(0.0, 0.2))

    async def _worker(self, process: SimProcess) -> None:
        sdk = self._sdk(process)
        for _ in range(self.dice.randrange(1, 6)):
            await asyncio.sleep(self.dice.uniform(0.0, 0.5))
            if not process.alive:
                return
            try:
                sdk.intermediate(self._value())
            except OSError:
                break
        process.end(0)

    def _value(self) -> str:
        roll = self.dice.random()
        number = round(self.dice.random(), 6)
        if roll < 0.9:
            return str(number)
        if roll < 0.95:
            return f'{{"default":{number},"loss":1}}'
        return self.dice.choice(['"NaN"', '"Infinity"', '{"other":2}', '"text"', "null"])


class _Crash(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
