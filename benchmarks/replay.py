"""Replay of a log of 1,000,000 events and 10,000 trials: read, chain checked, folded; beside a bare SELECT of its rows.

python benchmarks/replay.py [events]
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from pathlib import Path

import msgspec
from side_by_side import folder, line, medians

from tune.engine import config, home
from tune.engine.client import View
from tune.engine.events import (
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

METRICS = 92  # of a trial; with what else it takes, 100 events


async def write(path: Path, trials: int) -> int:
    """Make the log; how many events it holds."""
    log = await Log.open(path, create=True)
    log.take(1)
    settings = config.Config(
        search_space={"x": {"_type": "uniform", "_value": [0, 1]}},
        trial_command="python trial.py",
        trial_code_directory="/",
        trial_concurrency=8,
        max_trial_number=trials,
    )
    rows: list[Fact] = []
    seq = own = 0

    def add(
        event: Event, trial: int | None = None, sender: str = "e1", number: int = 0, cause: int | None = None
    ) -> int:
        nonlocal seq, own
        seq += 1
        if sender == "e1":
            own += 1
            number = own
        rows.append(Fact(seq, 1, sender, number, trial, cause, 1_700_000_000_000_000 + seq * 1000, event))
        return seq

    add(Experiment(id="bench", config=msgspec.Raw(config.encode(settings)), seed=1))
    add(EngineStarted(host="here", pid=1, clock=0))
    add(Host(name="local", state="connected", clock=1, pid=2))
    for trial in range(trials):
        name = f"t{trial:04x}"
        asked = add(RequestParameter(ask=trial + 1), trial)
        add(NewTrial(id=name), trial, cause=asked)
        text = msgspec.Raw(f'{{"x":{trial / (trials + 1)}}}'.encode())
        add(Parameter(ask=trial + 1, parameters=text, seen=asked), trial, cause=asked)
        add(Launch(attempt=0, host="local"), trial)
        add(Launched(attempt=0, pid=trial + 10, clock=seq, started=seq), trial)
        for number in range(METRICS):
            add(Metric(value=msgspec.Raw(f"{number / 7919}".encode())), trial, f"{name}.0.1", number + 1)
        add(Metric(value=msgspec.Raw(b"0.5"), final=True), trial, f"{name}.0.1", METRICS + 1)
        add(TrialEnd(attempt=0, status="SUCCEEDED", exit_code=0, ended=seq, clock=seq), trial)
        if len(rows) > 10_000:
            await log.append([encode(fact) for fact in rows])
            rows.clear()
    add(Status(status="DONE", reason="max_trial_number", clock=seq))
    await log.append([encode(fact) for fact in rows])
    await log.close()
    return seq


def main(events: int) -> None:
    """Measure and print."""
    with folder() as base:
        (base / "bench").mkdir()
        place = home.Folder("bench", base / "bench", base / "bench")
        count = asyncio.run(write(place.events, events // (METRICS + 8)))

        def ours() -> float:
            begin = time.perf_counter()
            view = View(place)
            view.close()
            if view.state.seq != count:
                raise SystemExit(f"{view.state.seq} events read instead of {count}")
            return time.perf_counter() - begin

        def bare() -> float:
            connection = sqlite3.connect(f"file:{place.events}?mode=ro", uri=True)
            begin = time.perf_counter()
            for _ in connection.execute("SELECT * FROM event ORDER BY seq"):
                pass
            connection.close()
            return time.perf_counter() - begin

        found = medians({"ours": ours, "bare": bare}, 3)
    limit = f"bare SELECT: {found['bare']:.2f} s ({count / found['bare'] / 1e6:.2f} M/s)"
    what = f"replay of {count:,} events"
    line(what, f"{found['ours']:.2f} s", limit, found["ours"] / found["bare"], "<= 5 s for 1,000,000")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
