"""`tune stop`: ends an experiment and its trials; `tune resume` goes on with it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import Parameter

from ..engine import home
from ..engine.client import Client, engine_pid, stop_orphans, stop_study
from ..engine.errors import TuneError
from ..engine.requests import AskStop
from .reading import Json, actor, note, opened_at, say, say_json

_STEP = 0.02  # seconds between two looks at the lock of an engine that has said good-bye


def stop(
    id: Annotated[
        str | None, Parameter(help="Id of the experiment or the beginning of one. Left out: the only running one.")
    ] = None,
    /,
    *,
    force: Annotated[bool, Parameter(negative=(), help="Kill the trials at once, without stop_grace.")] = False,
    json: Json = False,
) -> None:
    """Stop an experiment: TERM to its trials, KILL after stop_grace. Returns when engine and trials are gone."""
    folder = home.find(id, running_only=True)
    with opened_at(folder) as experiment:
        in_process = experiment.state.settings.in_process
        ended = experiment.state.status if experiment.state.finished and experiment.pid is None else ""
    if ended:
        said = f"experiment {folder.id} has already ended: {ended}"
    elif asyncio.run(_stop(folder, AskStop(actor(), force))):
        said = ""
    else:
        note(f"no engine runs for experiment {folder.id}: what is left of it is ended")
        stop = stop_study if in_process else stop_orphans
        stop(folder, actor=actor())
        said = ""
    with opened_at(folder) as experiment:
        status = experiment.status()
    if json:
        if said:
            note(said)
        say_json(status)
    else:
        say(said or f"experiment {folder.id}: {status['status']}")


async def _stop(folder: home.Folder, request: AskStop) -> bool:
    """Ask the engine, and wait until it has gone; False when there was none."""
    found = False
    while True:
        if engine_pid(folder) is None:
            return found
        client = await Client.connect(folder)
        if client is None:
            continue
        found = True
        try:
            await client.ask(request)
            async for _ in client.watch():
                continue
        except TuneError:
            pass  # it has ended before it could answer
        finally:
            await client.close()
        await asyncio.sleep(_STEP)  # it closes its log, and lets go of the lock; or it lives, and has hung up
