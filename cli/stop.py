"""`tune stop`: ends an experiment and its trials; `tune resume` goes on with it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import Parameter

from ..engine import client, home
from ..engine.requests import AskStop
from ..engine.state import HostState, State
from .reading import Json, actor, note, opened_at, printable, say, say_json


def _away(state: State) -> list[HostState]:
    """The hosts that can't be reached and still have trials."""
    names = {state.trial(number).host for number in state.active}
    return [host for host in state.hosts.values() if host.name in names and not host.connected and host.reason]


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
        for host in [] if ended else _away(experiment.state):
            what = "its trials are given up, and ended when it is back" if force else "--force gives its trials up"
            note(f"note: host {printable(host.name)} is away ({printable(host.reason)}): {what}")
    if ended:
        said = f"experiment {folder.id} has already ended: {ended}"
    elif asyncio.run(client.stop(folder, AskStop(actor(), force))):
        said = ""
    else:
        note(f"no engine runs for experiment {folder.id}: what is left of it is ended")
        stop = client.stop_study if in_process else client.stop_orphans
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
