"""The judge of what is left of a log or a spool: shares nothing with the writer but the promise in `acks`."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from writer import body_of, number_of

from tune.engine.events import Row
from tune.engine.log import Log, LogDamaged, LogError, LogMissing, Reader
from tune.engine.verify import verify
from tune.trial_sdk import spool


def bodies(path: Path) -> list[int]:
    """The numbers of the reports in a log, by plain SQLite."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return [number_of(body) for (body,) in connection.execute("SELECT body FROM event ORDER BY seq")]
    finally:
        connection.close()


def wrong_with_log(path: Path, acked: int | None, most: int | None = None) -> str:
    """What is wrong: something promised is gone or doubled, or the log is not good. "" for nothing.

    `acked` None: not even the making of the log was promised, so there may be none. `most`: no later report exists.
    """
    try:
        found = verify(path)
    except LogMissing:
        return "" if acked is None else "the log is gone"
    except LogError as error:
        if acked is None:  # cut off in its making: refused in whatever words
            return ""
        return f"verify: {type(error).__name__}: {error}"
    if acked is None and not found.ok and not found.events:
        return ""
    if not found.ok:
        return f"verify: {found.reason}"
    numbers = bodies(path)
    if numbers != list(range(1, len(numbers) + 1)):
        return f"the reports are not 1, 2, 3 ...: {numbers[:50]}"
    if acked is not None and len(numbers) < acked:
        return f"{acked} reports were promised, {len(numbers)} are there"
    if most is not None and len(numbers) > most:
        return f"{len(numbers)} reports are there, only {most} were made"
    return ""


def wrong_with_reopening(path: Path) -> str:
    """What is wrong when an engine goes on with this log: it must take three more reports."""

    async def main() -> None:
        epoch = number = 0
        with Reader(path) as reader:
            for row in reader.rows():
                epoch, number = row.epoch, number_of(row.body)
            last = reader.last
        log = await Log.open(path, create=False, expect=last)
        log.take(epoch + 1)
        seq = last[0]
        rows = [
            Row(seq + 1 + i, epoch + 1, "METRIC", 1, "abcde.0.1", seq + 1 + i, 0, None, 0, body_of(number + 1 + i))
            for i in range(3)
        ]
        await log.append(rows)
        await log.close()

    try:
        asyncio.run(main())
    except (LogDamaged, LogError) as error:
        return f"reopening: {type(error).__name__}: {error}"
    return wrong_with_log(path, None)


def wrong_with_spool(path: Path, acked: int, *, reopen: bool = True) -> str:
    """What is wrong with a spool of which `acked` reports were promised; it is opened for writing as well."""
    try:
        before = spool.parse(path.read_bytes()) if path.exists() else []
        numbers = [int(report.value) for report in before]
        if reopen:
            again = spool.Spool(str(path))
            again.append("I", 0, str(again.number + 1))
            again.close()
            numbers = [int(report.value) for report in spool.parse(path.read_bytes())][:-1]
    except spool.SpoolDamaged as error:
        return f"damaged: {error}"
    if numbers != list(range(1, len(numbers) + 1)):
        return f"the reports are not 1, 2, 3 ...: {numbers[:50]}"
    if len(numbers) < acked:
        return f"{acked} reports were promised, {len(numbers)} are there"
    return ""
