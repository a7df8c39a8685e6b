"""Forwarding, without a socket: turns, windows, acknowledgements, and a new engine in the middle of it."""

from __future__ import annotations

import asyncio

from tune.trial_sdk import channel, forwarding, spool, wire
from tune.trial_sdk.forwarding import Forwarder
from tune.trial_sdk.peers import Launch


class Listener:
    """Stands in for a connection: keeps what it is sent."""

    def __init__(self, process=""):
        self.said = []
        self.process, self.waiting, self.kind, self.asked = process, 0, "", False

    def send(self, message):
        self.said.append(message)


def make(tmp_path, trials, processes=1, size=1000, count=100):
    """Launches with spools of `count` reports of `size` bytes, a forwarder, and who is called when one is drained."""
    launches, drained = {}, []
    for trial in trials:
        folder = tmp_path / trial / "0"
        folder.mkdir(parents=True)
        launch = launches[trial, 0] = Launch(trial, 0, folder)
        launch.started.set()
        launch.told = True
        for process in range(processes):
            writer = spool.Spool(str(folder / f"{process}-a.spool"))
            for _ in range(count):
                writer.append("I", 0, "x" * size)
            writer.close()
    return launches, Forwarder(launches, drained.append), drained


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


def bytes_of(engine, trial=None):
    return sum(len(m.data) for m in engine.said if trial in (None, m.trial))


def test_the_whole_window_is_never_exceeded_by_more_than_a_chunk(tmp_path):
    async def main():
        launches, forward, _ = make(tmp_path, [f"t{n}" for n in range(3)], processes=4, count=12, size=100_000)
        forward.engine = engine = Listener()
        for launch in launches.values():
            forward.begin(launch, {})
        await settle()
        top = forwarding.ENGINE_WINDOW
        assert top <= bytes_of(engine) == forward.in_flight < top + (256 << 10)
        done = 0
        while done < len(engine.said):
            message = engine.said[done]
            done += 1
            last = spool.parse(message.data)[-1].number
            forward.ack(channel.Ack(message.trial, 0, message.process, last))
            await settle()
            assert forward.in_flight < top + (256 << 10)
        assert forward.in_flight == 0
        assert bytes_of(engine) == sum(r.size() for launch in launches.values() for r in launch.spools.values())

    asyncio.run(main())


def test_processes_take_turns(tmp_path):
    async def main():
        launches, forward, _ = make(tmp_path, ["a", "b"], count=2000)
        forward.engine = engine = Listener()
        for launch in launches.values():
            forward.begin(launch, {})
        await settle()
        assert [m.trial for m in engine.said[:6]] == ["a", "b"] * 3
        assert all(bytes_of(engine, t) < forwarding.PROCESS_WINDOW + (256 << 10) for t in "ab")

    asyncio.run(main())


def test_a_new_engine_gets_what_the_old_one_did_not_record(tmp_path):
    async def main():
        launches, forward, drained = make(tmp_path, ["a"], count=2000)
        (launch,) = launches.values()
        forward.engine = Listener()
        forward.begin(launch, {})
        await settle()
        forward.ack(channel.Ack("a", 0, "0-a", 300))
        forward.engine = None
        forward.reset()
        assert forward.in_flight == 0
        forward.engine = engine = Listener()
        forward.begin(launch, {"0-a": 150})
        await settle()
        assert engine.said[0].first == 151
        forward.ack(channel.Ack("a", 0, "0-a", 10**9))  # more than was sent: as much as was sent
        await settle()
        numbers = [r.number for m in engine.said for r in spool.parse(m.data)]
        assert numbers == list(range(151, 2001))
        assert launch in drained

    asyncio.run(main())


def test_a_request_is_told_after_its_report_and_a_final_when_it_is_recorded(tmp_path):
    async def main():
        launches, forward, _ = make(tmp_path, ["a"], count=3)
        (launch,) = launches.values()
        writer = spool.Spool(str(launch.folder.path / "0-a.spool"))
        assert (writer.append("R", 0), writer.append("F", 1, "1")) == (4, 5)
        writer.close()
        forward.engine = engine = Listener()
        asks, ends = Listener("0-a"), Listener("0-a")
        asks.waiting, ends.waiting = 4, 5
        launch.connections = {asks: None, ends: None}
        forward.begin(launch, {})
        await settle()
        assert [type(m) for m in engine.said] == [channel.Reports, channel.TrialWaits]
        assert ends.said == []
        forward.ack(channel.Ack("a", 0, "0-a", 4))
        assert ends.said == [wire.Recorded(4)]  # progress
        forward.ack(channel.Ack("a", 0, "0-a", 5))
        assert ends.said == [wire.Recorded(4), wire.Recorded(5)]
        forward.answer(channel.Answer("a", 0, "0-a", 3, 1, "{}"))  # of an earlier request
        forward.answer(channel.Answer("a", 0, "0-a", 4, 1, "{}"))
        assert wire.Parameters(4, 1, "{}") in asks.said
        assert not [m for m in asks.said if isinstance(m, wire.Parameters) and m.number != 4]

    asyncio.run(main())
