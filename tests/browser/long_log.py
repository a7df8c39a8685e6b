"""Writes the log of a long experiment by the engine's own writer, without running anything."""

from __future__ import annotations

import msgspec

from tune.engine import config, home
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

BEGAN = 1_700_000_000_000_000  # microseconds on the wall clock


async def write(settings: config.Config, trials: int) -> home.Folder:
    """A new experiment in the home whose trials have all succeeded: `x` of trial n is n/trials, its result n/3."""
    folder, _ = home.create()
    folder.config.write_bytes(config.encode(settings))
    log = await Log.open(folder.events, create=True)
    log.take(1)
    facts: list[Fact] = []
    seq = own = 0

    def add(event: Event, trial: int | None = None, sender: str = "e1", number: int = 0) -> int:
        nonlocal seq, own
        seq += 1
        own += sender == "e1"
        facts.append(Fact(seq, 1, sender, number or own, trial, None, BEGAN + seq * 1000, event))
        return seq

    add(Experiment(id=folder.id, config=msgspec.Raw(config.encode(settings)), seed=1))
    add(EngineStarted(host="here", pid=1, clock=0))
    add(Host(name="local", state="connected", clock=1, pid=2))
    for trial in range(trials):
        asked = add(RequestParameter(ask=trial + 1), trial)
        add(NewTrial(id=f"t{trial:05}"), trial)
        point = msgspec.Raw(b'{"x":%f,"n":%d}' % (trial / trials, trial % 1000))
        add(Parameter(ask=trial + 1, parameters=point, seen=asked), trial)
        add(Launch(attempt=0, host="local"), trial)
        add(Launched(attempt=0, pid=trial + 10, clock=seq, started=BEGAN + seq * 1000), trial)
        for number, final in ((1, False), (2, True)):
            add(Metric(value=msgspec.Raw(b"%f" % (trial / 3)), final=final), trial, f"t{trial:05}.0.1", number)
        add(TrialEnd(attempt=0, status="SUCCEEDED", exit_code=0, ended=BEGAN + seq * 1000, clock=seq), trial)
    add(Status(status="DONE", reason="max_trial_number", clock=seq))
    await log.append([encode(fact) for fact in facts])
    await log.close()
    return folder
