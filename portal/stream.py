"""Server-sent events: what changes in an experiment, as it becomes durable; ids are numbers of the log.

A page that was away says the last id that it saw (`Last-Event-ID`) and gets what came since: the trials that were
touched, as they are now, so nothing is missed and nothing comes twice. What comes faster than a page reads is put
together; each message is as long as what changed, not as what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from ..engine import views
from . import source as source_room
from .source import COLUMNS, Source

HEARTBEAT = 15.0  # seconds after which a comment says that we are still there
PACE = 0.1  # seconds between two messages to a page at least
MOST = 100  # messages a second to all pages together: the cores are the trials'
_MOST_FACTS = 2_000
_MOST_MADE = 16  # different messages that are kept
_encode = msgspec.json.Encoder().encode


def message(data: bytes, *, id: int | None = None, event: str = "") -> bytes:
    """One event; JSON of ours has no line ends."""
    head = (f"event: {event}\n" if event else "") + (f"id: {id}\n" if id is not None else "")
    return head.encode() + b"data: " + data + b"\n\n"


class Messages:
    """What the pages of one portal are told; made once for all that are equally far."""

    def __init__(self, source: Source, port: int | None) -> None:
        self._source, self._port = source, port
        self._version = -1  # of the source, at which `_made` was made
        self._made: dict[int | None, tuple[int, bytes]] = {}
        self._pages = 0

    async def since(self, after: int | None) -> AsyncGenerator[bytes]:
        """All messages from event `after` (None: from nothing) on, without end."""
        source = self._source
        if after is not None and not 0 <= after <= source.seq:
            after = None  # an id of another log
        yield b"retry: 500\n\n"
        version = -1
        self._pages += 1
        try:
            while True:
                if source.version != version:
                    version = source.version
                    after, text = self.change(after)
                    yield text
                    await asyncio.sleep(self.pace)
                elif not await source.news(version, HEARTBEAT):
                    yield b": still here\n\n"
        finally:
            self._pages -= 1

    @property
    def pace(self) -> float:
        """Seconds from one message to a page to the next one."""
        return max(PACE, self._pages / MOST)

    def change(self, after: int | None) -> tuple[int, bytes]:
        """The message that brings a page from event `after` to now, and the event it brings it to."""
        if self._version != self._source.version or len(self._made) >= _MOST_MADE:
            self._version = self._source.version
            self._made.clear()
        found = self._made.get(after)
        if found is None:
            found = self._made[after] = self._change(after)
        return found

    def _change(self, after: int | None) -> tuple[int, bytes]:
        source = self._source
        state = source.state
        seq, touched = source.changed(after) if after is not None else source_room.Change(source.seq, None)
        body = {
            "seq": seq,
            "whole": touched is None,
            "status": source_room.status(source, state, self._port),
            "columns": COLUMNS,
            "trials": source_room.rows(state, touched),
        }
        return seq, message(_encode(body), id=seq, event="change")


async def facts(source: Source, after: int) -> AsyncIterator[bytes]:
    """Every event of the log after this one, as `tune tail --json` shows it, without end."""
    yield b"retry: 500\n\n"
    while True:
        for row in source.rows(after, None, _MOST_FACTS):
            after = row.seq
            yield message(views.to_json(views.fact(row)), id=row.seq)
        version = source.version
        if after >= source.seq and not await source.news(version, HEARTBEAT):
            yield b": still here\n\n"
