"""The experiment as the portal sees it: followed as its log grows, as of any event, asked for through its engine."""

import asyncio
from pathlib import Path

import made_log
import pytest

from tune.engine.requests import AskStop
from tune.portal import source as source_room
from tune.portal.source import COLUMNS, ReadOnly, Source

_PATIENCE = 20.0


async def until(source: Source, seq: int) -> None:
    """Wait until the source has folded this event."""
    async with asyncio.timeout(_PATIENCE):
        while source.seq < seq:
            await source.news(source.version, _PATIENCE)


def test_it_follows_a_log_that_grows_and_knows_which_trials_changed(tmp_path: Path) -> None:
    async def main() -> None:
        async with made_log.begun(tmp_path) as writer:
            writer.trial()
            await writer.flush()
            source = Source(writer.folder)
            following = asyncio.create_task(source.run())
            before = source.seq
            assert [one.number for one in source.state.made] == [0]
            assert source.changed(before).trials == []
            assert source.changed(before - 1).trials is None  # what was replayed is not remembered trial by trial
            running = writer.trial(ends=None)
            await writer.flush()
            await until(source, writer.seq)
            between = source.seq
            writer.report(running, 4, 0.25)
            writer.trial()
            await writer.flush()
            await until(source, writer.seq)
            assert source.changed(before).trials == [1, 2]
            assert source.changed(between).trials == [1, 2]
            assert source.changed(source.seq) == (writer.seq, [])
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            source.close()

    asyncio.run(main())


def test_what_is_too_long_ago_is_told_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_room, "KEPT", 4)

    async def main() -> None:
        async with made_log.begun(tmp_path) as writer:
            source = Source(writer.folder)
            start = source.seq
            ends: list[int] = []
            for _ in range(10):
                writer.trial()
                ends.append(writer.seq)
            await writer.flush()
            await source.last_words()
            assert source.changed(start).trials is None
            for after in range(start, writer.seq + 1):
                trials = source.changed(after).trials
                touched = [number for number, end in enumerate(ends) if end > after]
                assert trials is None or list(trials) == touched, after
            assert list(source.changed(ends[-2]).trials or []) == [9]
            source.close()

    asyncio.run(main())


def test_news_comes_at_once_or_not_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with made_log.begun(tmp_path) as writer:
            source = Source(writer.folder)
            assert not await source.news(source.version, 0.01)
            waiting = asyncio.create_task(source.news(source.version, _PATIENCE))
            await asyncio.sleep(0)
            await source.last_words()
            assert await waiting
            source.close()

    asyncio.run(main())


def test_any_event_of_the_past_can_be_seen_in_any_order(tmp_path: Path) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 6)
        source = Source(folder)
        counted: dict[int, int] = {}
        for seq in (source.seq, 5, 30, 12, 12, source.seq - 1, 1, 40):
            async with source.at(seq) as state:
                assert state.seq == seq
                counted[seq] = len(state.made)
        assert counted == dict(sorted(counted.items()))
        assert [counted[seq] for seq in sorted(counted)] == sorted(counted.values())
        async with source.at(None) as state:
            assert state is source.state
        for wrong in (0, -1, source.seq + 1):
            with pytest.raises(ValueError, match=f"allowed: 1 to {source.seq}"):
                async with source.at(wrong):
                    raise AssertionError("unreachable")
        source.close()

    asyncio.run(main())


def test_the_past_stands_still_while_somebody_looks_at_it(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source(await made_log.write(tmp_path, 6))

        async def later() -> int:
            async with source.at(40) as state:
                return state.seq

        async with source.at(20) as state:
            other = asyncio.create_task(later())
            assert not await source.news(source.version, 0.05)  # time in which the other one could fold on
            assert state.seq == 20 and not other.done()
            async with source.at(None) as now:  # which does not wait
                assert now.seq == source.seq
        assert await asyncio.wait_for(other, _PATIENCE) == 40
        source.close()

    asyncio.run(main())


def test_rows_of_the_log_come_in_pieces(tmp_path: Path) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 4)
        source = Source(folder)
        read = [row.seq for row in source.rows(0, None, 10_000)]
        assert read == list(range(1, source.seq + 1))
        assert [row.seq for row in source.rows(3, None, 4)] == [4, 5, 6, 7]
        assert [row.seq for row in source.rows(3, 6, 100)] == [4, 5]
        assert source.rows(source.seq, None, 10) == [] == source.rows(10**15, None, 10)
        source.close()

    asyncio.run(main())


def test_without_an_engine_nothing_can_be_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 1)
        for commands, said in ((True, "no engine runs"), (False, "only shows")):
            source = Source(folder, commands=commands)
            assert not source.engine
            with pytest.raises(ReadOnly, match=said):
                await source.ask(AskStop("test"))
            source.close()

    asyncio.run(main())


def test_the_status_says_pace_and_what_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 10, max_trial_number=30)
        source = Source(folder)
        found = source_room.status(source, source.state, 8080)
        assert (found["seq"], found["readonly"], found["port"]) == (source.seq, True, 8080)
        assert found["eta"] == pytest.approx(20 / found["trials_per_hour"] * 3600)
        (host,) = found["hosts"]
        assert (host["name"], host["connected"], host["reason"], host["trials"]) == ("local", True, "", [])
        rows = source_room.rows(source.state, None)
        assert [row[0] for row in rows] == list(range(10)) and {len(row) for row in rows} == {len(COLUMNS)}
        assert source_room.rows(source.state, [3, 99]) == [rows[3]]
        source.close()

    asyncio.run(main())


def test_it_reads_and_never_writes(tmp_path: Path) -> None:
    async def main() -> None:
        folder = await made_log.write(tmp_path, 3)
        before = folder.events.read_bytes()
        source = Source(folder)
        async with source.at(5):
            pass
        source.rows(0, None, 100)
        source.close()
        assert folder.events.read_bytes() == before

    asyncio.run(main())
