"""`tune trial`: `kill` ends single trials, `add` queues ones with your parameters, `fetch` brings their files here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..engine.client import ask, write_offline
from ..engine.errors import TuneError, UsageError
from ..engine.mirror import Mirror
from ..engine.points import gate, read
from ..engine.requests import AskKill, AskTrial, Refused
from .reading import actor, find_trial, note, opened, printable, say

_EXAMPLES = {
    "kill": "Give their numbers or ids, e.g. tune trial kill 3 5",
    "add": "Give their parameters, e.g. tune trial add '{\"lr\": 0.1}'",
    "fetch": "Give their numbers or ids, e.g. tune trial fetch 3 5",
}


def trial(
    action: Annotated[
        Literal["kill", "add", "fetch"],
        Parameter(help="kill: end trials; add: queue new ones; fetch: bring their files."),
    ],
    /,
    *trials: Annotated[
        str,
        Parameter(
            help="To kill, to fetch: numbers or ids. To add: parameters as a JSON object, or @FILE with one or a list."
        ),
    ],
    id: Annotated[
        str | None, Parameter(help="Id of the experiment. Left out: the only running one, else the newest.")
    ] = None,
) -> int:
    """End trials: TERM, and KILL after the experiment's stop_grace; they end as USER_CANCELED. Or queue new ones.

    An added trial has a number like any other and counts for max_trial_number. It runs before those that the tuner
    proposes; of an experiment that does not run, with its next resume.

    What a trial on another host has written is brought into its folder here, $TUNE_HOME/ID/trials/TRIAL.
    """
    if not trials:
        raise UsageError(f"tune trial {action}: which trials?", _EXAMPLES[action])
    return {"kill": _kill, "add": _add, "fetch": _fetch}[action](trials, id)


def _fetch(trials: tuple[str, ...], reference: str | None) -> int:
    with opened(reference) as experiment:
        folder, state = experiment.folder, experiment.state
        found = {one.number: one for one in (find_trial(state, text) for text in trials)}

    async def all_of_them() -> None:
        mirror = Mirror(folder, state.settings)
        try:
            for one in found.values():
                path = await mirror.folder(one)
                say(f"trial {one.number} ({one.id}): {printable(str(path))}")
        finally:
            await mirror.close()

    asyncio.run(all_of_them())
    return 0


def _kill(trials: tuple[str, ...], reference: str | None) -> int:
    with opened(reference) as experiment:
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


def _add(given: tuple[str, ...], reference: str | None) -> int:
    texts = [text for one in given for text in _read(one)]
    with opened(reference) as experiment:
        folder, settings = experiment.folder, experiment.state.settings
    why_not = gate(settings)
    for text in texts:  # all, before any is added
        reason = why_not(json.loads(text))
        if reason is not None:
            raise UsageError(f"{text[:200]} is outside the search space: {reason}")
    running = True
    for added, text in enumerate(texts):
        request = AskTrial(actor(), text)
        try:
            running = ask(folder, request)
            if not running:
                write_offline(folder, request)
        except Refused as error:
            raise TuneError(str(error), f"{added} of {len(texts)} were added." if len(texts) > 1 else None) from error
        say(f"queued: {printable(text)}")
    if not running:
        say(f"No engine runs for experiment {folder.id}; what is queued runs with: tune resume {folder.id}")
    return 0


def _read(given: str) -> list[str]:
    """The JSON texts of the parameters in an argument; `UsageError` when it holds none."""
    text = given
    if given.startswith("@"):
        try:
            text = Path(given[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{given[1:]} can't be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{given[:200]}: {error}", _EXAMPLES["add"]) from error
