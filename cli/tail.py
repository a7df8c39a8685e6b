"""`tune tail`: the events of an experiment's log, one a line, and those that come."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Annotated

from cyclopts import Parameter

from ..engine import home, views
from ..engine.client import Client
from ..engine.errors import TuneError, UsageError
from ..engine.events import Row
from ..engine.log import LogError, Reader
from .reading import Follow, Json, Reference, emit, moment, printable, shortened

_LINES = 20


def tail(
    id: Reference = None,
    /,
    *,
    follow: Follow = False,
    lines: Annotated[
        int | None, Parameter(name=["--lines", "-n"], help="Only the last so many. Left out: 20, and all with --json.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the last events, one a line; with -f also those that come, until the engine ends."""
    if lines is not None and lines < 0:
        raise UsageError(f"--lines: {lines} was given, allowed is 0 or more")
    folder = home.find(id)
    count = lines if lines is not None or json else _LINES
    try:
        with Reader(folder.events) as reader:
            _print(reader, json, count)
            if follow:
                asyncio.run(_follow(folder, reader, json))
    except LogError as error:
        raise TuneError(str(error), f"tune verify {folder.id} says more.") from error


def line(row: Row) -> str:
    """An event for people."""
    trial = "" if row.trial is None else f" trial {row.trial}"
    return f"{row.seq:>7}  {moment(row.wall_us)}  {row.kind:<17}{trial:<11} {printable(row.body)}".rstrip()


def _print(reader: Reader, json: bool, count: int | None, upto: int | None = None) -> None:
    """The events after the last one that was read; only the last `count` of them."""
    after, chain = reader.last
    rows = reader.rows(after, upto, chain if after else None)
    for row in rows if count is None else deque(rows, maxlen=count):
        emit(f"{views.to_json(views.fact(row)).decode() if json else shortened(line(row))}\n")


async def _follow(folder: home.Folder, reader: Reader, json: bool) -> None:
    client = await Client.connect(folder)
    if client is not None:
        try:
            async for seq in client.watch():
                if seq > reader.last[0]:
                    _print(reader, json, None, seq)
        finally:
            await client.close()
    _print(reader, json, None)  # what it wrote last, and what came before somebody watched
