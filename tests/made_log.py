"""Makes a log without running anything, by the core's own facts: as many trials as wanted, with whatever names.

For the tests and measures of what shows an experiment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec

from tune.engine import config, config_load, home
from tune.engine.client import write_config
from tune.engine.events import (
    EMPTY,
    EngineStarted,
    Event,
    Experiment,
    Fact,
    Host,
    Launch,
    Launched,
    Metric,
    NewTrial,
    Parameter,
    RequestParameter,
    Status,
    TrialEnd,
    encode,
)
from tune.engine.log import Log

BEGAN = 1_700_000_000_000_000  # microseconds on the wall clock
SPACE: dict[str, Any] = {"x": {"_type": "uniform", "_value": [0, 1]}, "n": {"_type": "randint", "_value": [0, 1000]}}


def settings(code: Path, **fields: Any) -> config.Config:
    """A resolved config; `fields` win."""
    given: dict[str, Any] = {
        "search_space": SPACE,
        "trial_command": "python trial.py",
        "trial_code_directory": str(code),
        "trial_concurrency": 4,
        "max_trial_number": 1000,
        "seed": 7,
        "tuner": {"name": "Random"},
    }
    read, _ = config_load.from_mapping({**given, **fields}, code)
    return config_load.resolve(read)


class Writer:
    """Adds facts to the log of an experiment, as its engine and its trials would."""

    def __init__(self, folder: home.Folder, log: Log) -> None:
        self.folder = folder
        self.seq = self._own = self._asks = 0
        self.made = 0
        self._log = log
        self._facts: list[Fact] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def begin(cls, folder: home.Folder, made: config.Config) -> AsyncGenerator[Writer]:
        """A new log, and `config.json`, in the folder; durable and let go of when the block ends, however it ends."""
        write_config(folder, made)
        log = await Log.open(folder.events, create=True)
        writer = cls(folder, log)
        try:
            log.take(1)
            writer.add(Experiment(id=folder.id, config=msgspec.Raw(config.encode(made)), seed=made.seed or 1))
            writer.add(EngineStarted(host="here", pid=1, clock=0))
            writer.add(Status(status="RUNNING"))
            writer.add(Host(name="local", state="connected", clock=1, pid=2))
            await writer.flush()
            yield writer
            await writer.flush()
        finally:
            await log.close()  # its thread would keep the process from ending

    def add(self, event: Event, trial: int | None = None, sender: str = "", number: int = 0) -> int:
        """One fact: its seq."""
        self.seq += 1
        if not sender:
            self._own += 1
            number = self._own
        wall = BEGAN + self.seq * 1000
        self._facts.append(Fact(self.seq, 1, sender or "e1", number, trial, None, wall, event))
        return self.seq

    def trial(
        self,
        parameters: Any = None,
        *,
        reports: int = 3,
        final: Any = None,
        ends: str | None = "SUCCEEDED",
        decision: Any = None,
        **end: Any,
    ) -> int:
        """One trial, whole (`ends=None`: it runs on): its number. Reports without end are numbers that fall to 0.5."""
        number = self.made
        self.made += 1
        self._asks += 1
        name = f"t{number:04x}"
        asked = self.add(RequestParameter(ask=self._asks), number)
        self.add(NewTrial(id=name), number)
        point = {"x": (number * 37 % 101) / 101, "n": number % 1000} if parameters is None else parameters
        record = EMPTY if decision is None else msgspec.Raw(msgspec.json.encode(decision))
        self.add(
            Parameter(ask=self._asks, parameters=msgspec.Raw(msgspec.json.encode(point)), seen=asked, decision=record),
            number,
        )
        self.add(Launch(attempt=0, host="local"), number)
        self.add(Launched(attempt=0, pid=number + 10, clock=self.seq, started=BEGAN + self.seq * 1000), number)
        for report in range(reports):
            self.report(number, report + 1, 0.5 + 1 / (report + 1))
        if ends == "SUCCEEDED":
            value = (number * 53 % 997) / 997 if final is None else final
            self.report(number, reports + 1, value, final=True)
        if ends is not None:
            self.add(TrialEnd(0, ends, clock=self.seq, ended=BEGAN + self.seq * 1000, **end), number)
        return number

    def report(self, trial: int, number: int, value: Any, *, final: bool = False) -> int:
        """The report with this number of a trial's process."""
        body = Metric(value=msgspec.Raw(msgspec.json.encode(value)), final=final)
        return self.add(body, trial, f"t{trial:04x}.0.1", number)

    async def flush(self) -> None:
        """Make durable what was added."""
        facts, self._facts = self._facts, []
        if facts:
            await self._log.append([encode(fact) for fact in facts])


async def write(base: Path, trials: int = 5, *, reports: int = 3, id: str = "made", **fields: Any) -> home.Folder:
    """A whole experiment in a new folder below `base`, with so many trials that succeeded."""
    path = base / id
    path.mkdir(parents=True)
    folder = home.Folder(id, path, path)
    async with Writer.begin(folder, settings(base, **fields)) as writer:
        for number in range(trials):
            writer.trial(reports=reports)
            if number % 1000 == 999:
                await writer.flush()
    return folder


def begun(base: Path, id: str = "made", **fields: Any) -> contextlib.AbstractAsyncContextManager[Writer]:
    """An experiment that goes on while the block runs, in a new folder below `base`."""
    path = base / id
    path.mkdir(parents=True)
    return Writer.begin(home.Folder(id, path, path), settings(base, **fields))
