"""`tune trial kill`: ends single trials of a running experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ..engine.client import ask
from ..engine.errors import TuneError, UsageError
from ..engine.requests import AskKill, Refused
from .reading import actor, find_trial, note, opened, say


def trial(
    action: Annotated[Literal["kill"], Parameter(help="What to do with them.")],
    /,
    *trials: Annotated[str, Parameter(help="Numbers or ids of the trials.")],
    id: Annotated[
        str | None, Parameter(help="Id of the experiment. Left out: the only running one, else the newest.")
    ] = None,
) -> int:
    """End trials: TERM, and KILL after the experiment's stop_grace. They end as USER_CANCELED."""
    if not trials:
        raise UsageError(f"tune trial {action}: which trials?", "Give their numbers or ids, e.g. tune trial kill 3 5")
    with opened(id) as experiment:
        folder, state = experiment.folder, experiment.state
        found = {one.number: one for one in (find_trial(state, text) for text in trials)}  # all, before any is ended
    refused = 0
    for one in found.values():
        try:
            if not ask(folder, AskKill(actor(), one.number)):
                raise TuneError(
                    f"no engine runs for experiment {folder.id}: there is nothing to end",
                    f"Go on with: tune resume {folder.id}",
                )
            say(f"trial {one.number} ({one.id}) is being ended")
        except Refused as error:
            refused += 1
            note(f"error: {error}")
    return 1 if refused else 0
