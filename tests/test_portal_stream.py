"""The stream: a page that comes back from anywhere ends up where one is that never left."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import made_log
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.portal import source as source_room
from tune.portal import stream
from tune.portal.source import Source


def parsed(text: bytes) -> tuple[int, dict[str, Any]]:
    """Id and data of one message."""
    fields = dict(line.split(": ", 1) for line in text.decode().strip().split("\n"))
    return int(fields["id"]), json.loads(fields["data"])


class Page:
    """What a page knows after the messages that it took."""

    def __init__(self) -> None:
        self.trials: dict[int, list[Any]] = {}
        self.seq: int | None = None

    def take(self, id: int, message: dict[str, Any]) -> None:
        if message["whole"]:
            self.trials.clear()
        self.trials.update({row[0]: row for row in message["trials"]})
        self.seq = id


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["trial", "begin", "report", "end"]), st.booleans()), max_size=25), st.data())
def test_a_page_that_was_away_knows_what_one_knows_that_stayed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool]], data: st.DataObject
) -> None:
    async def main() -> None:
        async with made_log.begun(tmp_path_factory.mktemp("log")) as writer:
            source = Source(writer.folder)
            messages = stream.Messages(source, None)
            page = Page()
            running: dict[int, int] = {}
            for what, looks in steps:
                match what:
                    case "trial":
                        writer.trial()
                    case "begin":
                        running[writer.trial(ends=None)] = 3
                    case _ if running:
                        number = data.draw(st.sampled_from(sorted(running)))
                        running[number] += 1
                        writer.report(number, running[number], 0.1, final=what == "end")
                    case _:
                        pass
                await writer.flush()
                await source.last_words()
                if looks:
                    page.take(*parsed(messages.change(page.seq)[1]))
            page.take(*parsed(messages.change(page.seq)[1]))
            fresh = Page()
            fresh.take(*parsed(messages.change(None)[1]))
            assert (page.seq, page.trials) == (fresh.seq, fresh.trials) == (source.seq, fresh.trials)
            source.close()

    asyncio.run(main())


async def next_of(messages: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(20):
        return await anext(messages)


def test_changes_come_whole_first_then_what_changed_then_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PACE", 0.0)

    async def main() -> None:
        async with made_log.begun(tmp_path) as writer:
            writer.trial()
            await writer.flush()
            source = Source(writer.folder)
            messages = stream.Messages(source, 8080).since(None)
            assert await next_of(messages) == b"retry: 500\n\n"
            seq, first = parsed(await next_of(messages))
            assert first["whole"] and len(first["trials"]) == 1 and first["status"]["port"] == 8080
            writer.trial()
            await writer.flush()
            await source.last_words()
            _, second = parsed(await next_of(messages))
            assert not second["whole"] and [row[0] for row in second["trials"]] == [1]
            monkeypatch.setattr(stream, "HEARTBEAT", 0.01)
            await messages.aclose()
            back = stream.Messages(source, 8080).since(seq)
            await next_of(back)
            _, since = parsed(await next_of(back))
            assert not since["whole"] and [row[0] for row in since["trials"]] == [1]
            assert (await next_of(back)).startswith(b":")
            for odd in (10**9, -1):
                other = stream.Messages(source, 8080).since(odd)
                await next_of(other)
                assert parsed(await next_of(other))[1]["whole"]
            source.close()

    asyncio.run(main())


def test_many_pages_hear_less_often_until_they_have_gone(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source(await made_log.write(tmp_path, 1))
        messages = stream.Messages(source, None)
        pages = [messages.since(None) for _ in range(stream.MOST)]
        for page in pages:
            for _ in range(2):
                await next_of(page)
        assert messages.pace == 1.0
        for page in pages:
            await page.aclose()
        assert messages.pace == stream.PACE
        source.close()

    asyncio.run(main())


def test_facts_come_every_one_in_their_order_from_any_event_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with made_log.begun(tmp_path) as writer:
            source = Source(writer.folder)

            async def read(after: int, upto: int) -> list[int]:
                found: list[int] = []
                messages = stream.facts(source, after)
                assert await next_of(messages) == b"retry: 500\n\n"
                while not found or found[-1] < upto:
                    seq, fact = parsed(await next_of(messages))
                    assert fact["seq"] == seq
                    found.append(seq)
                return found

            wanted = 4 + 4 * 10
            readers = [asyncio.create_task(read(after, wanted)) for after in (0, 3, 17, wanted - 1)]
            for _ in range(4):
                writer.trial()
                await writer.flush()
                await source.last_words()
            assert writer.seq == wanted
            assert [await one for one in readers] == [
                list(range(after + 1, wanted + 1)) for after in (0, 3, 17, wanted - 1)
            ]
            source.close()

    asyncio.run(main())


def test_pages_that_are_equally_far_share_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = source_room.status

    def counted(*arguments: Any) -> dict[str, Any]:
        made.append(1)
        return real(*arguments)

    monkeypatch.setattr(source_room, "status", counted)

    async def main() -> None:
        source = Source(await made_log.write(tmp_path, 3))
        messages = stream.Messages(source, 1)
        texts = {messages.change(None) for _ in range(20)}
        assert len(texts) == len(made) == 1
        assert messages.change(source.seq) not in texts
        await source.last_words()
        messages.change(None)
        assert len(made) == 3
        source.close()

    asyncio.run(main())
