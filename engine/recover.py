"""Recovering a damaged log: writes a new experiment that holds every event before the first bad one.

The old experiment is read and never touched. The good events go into the new log as they stand, so their chain comes
out the same; the folders of the trials that they launched are copied, and with them the spools, from which the next
engine learns what these trials had reported and the damaged log no longer tells.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from . import config as config_room
from . import home
from . import lock as lock_room
from .errors import TuneError
from .events import Experiment, Launch, Row, UnknownEvent, decode
from .home import Folder
from .log import Log, LogError, Reader, read_head
from .reduce import reduce
from .state import State
from .verify import Verified, verify

_BATCH = 1000


@dataclass(frozen=True)
class Recovered:
    """What was saved and what was not. `written` is how many events there had been, None if nobody knows."""

    folder: Folder
    events: int
    written: int | None
    first_bad_seq: int | None
    reason: str
    state: State


def recover(source: Folder, given: str | None = None) -> Recovered:
    """Make a new experiment (id `given`, or a made one) of what is good in the log of `source`.

    `TuneError` when an engine or a keeper still runs it, when its log is good, from a newer version, or good for
    nothing; `UsageError` when the id is taken. Then nothing is left behind.
    """
    for path, who in ((source.lock, "an engine"), (source.keeper_lock, "a keeper, and perhaps its trials,")):
        if (holder := lock_room.peek(path)) is not None:
            raise TuneError(
                f"{who} still runs experiment {source.id}: pid {holder.get('pid', '?')}",
                "Recover it when that has ended.",
            )
    try:
        found = verify(source.events)
        if found.ok:
            raise TuneError(f"the log of experiment {source.id} is good: there is nothing to recover")
        head = read_head(source.events)
        if not found.events:
            raise TuneError(f"no event of {source.events} is good: {found.reason}", "There is nothing to recover.")
        _refuse_newer(source.events, found)
        return _recovered(source, found, head[0] if head is not None else None, given)
    except LogError as error:
        raise TuneError(f"{source.events} can't be recovered: {error}") from error


def _refuse_newer(path: Path, found: Verified) -> None:
    """A log from a newer version is not damaged: a copy that ends before its first new word would lose the rest."""
    if found.first_bad_seq is None:
        return
    try:
        with Reader(path) as reader:
            for row in reader.rows(after=found.events, upto=found.first_bad_seq):
                decode(row)
    except UnknownEvent as error:
        raise TuneError(str(error), "It is not damaged: use that version of tune.") from error
    except (LogError, ValueError):
        return  # damaged, as verify said


def _recovered(source: Folder, found: Verified, written: int | None, given: str | None) -> Recovered:
    folder, _ = home.create(given)
    try:
        state, launched, config = State(), list[tuple[str, int]](), b""
        with Reader(source.events) as reader:
            for row in reader.rows(upto=found.events):
                fact = decode(row)
                reduce(state, fact)
                if isinstance(fact.event, Experiment):
                    config = config_room.encode(state.settings)
                elif isinstance(fact.event, Launch) and fact.trial is not None:
                    launched.append((state.trial(fact.trial).id, fact.event.attempt))
        if not config:
            raise TuneError(f"{source.events} does not begin with an experiment: there is nothing to recover")
        folder.config.write_bytes(config)
        _copy_trials(source, folder, launched)
        with Reader(source.events) as reader:
            last = asyncio.run(_write(folder.events, reader.rows(upto=found.events, raw=True)))
            if last != reader.last:
                raise TuneError(f"the chain of the new log is another one: {source.events} changed meanwhile")
    except BaseException:
        home.remove(folder)
        raise
    return Recovered(folder, found.events, written, found.first_bad_seq, found.reason, state)


async def _write(path: Path, rows: Iterator[Row]) -> tuple[int, bytes]:
    log = await Log.open(path, create=True)
    try:
        for epoch, group in groupby(rows, key=lambda row: row.epoch):
            log.take(epoch)
            batch: list[Row] = []
            for row in group:
                batch.append(row)
                if len(batch) == _BATCH:
                    await log.append(batch)
                    batch = []
            await log.append(batch)
        return log.last_seq, log.last_chain
    finally:
        await log.close()


def _copy_trials(source: Folder, folder: Folder, launched: list[tuple[str, int]]) -> None:
    """Copy what the good events know of: a launch that they don't know would be taken for the next one of its trial."""
    known = set(launched)
    for trial in dict(launched):
        origin = source.trials / trial
        if not origin.is_dir():
            continue

        def strange(where: str, names: list[str], origin: Path = origin, trial: str = trial) -> set[str]:
            if Path(where) != origin:
                return set()
            return {name for name in names if name.isdigit() and (trial, int(name)) not in known}

        shutil.copytree(origin, folder.trials / trial, symlinks=True, ignore=strange)
