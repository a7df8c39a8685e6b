"""`tune update`: changes limits or the search space of an experiment, running or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from ..engine import config_file, points
from ..engine.client import ask, write_offline
from ..engine.config import Config, seconds
from ..engine.errors import TuneError, UsageError
from ..engine.requests import AskUpdate, Refused
from .reading import Reference, actor, opened, printable, say


def update(
    id: Reference = None,
    /,
    *,
    concurrency: Annotated[int | None, Parameter(help="How many trials run at a time.")] = None,
    max_trials: Annotated[int | None, Parameter(help="How many trials there may be.")] = None,
    duration: Annotated[str | None, Parameter(help='How long it may run, e.g. "90m" or "1.5h".')] = None,
    search_space: Annotated[Path | None, Parameter(help="File (.json, .yaml, .toml) with a new search space.")] = None,
) -> None:
    """Change limits or the search space; of an experiment that does not run, for its next resume."""
    if all(given is None for given in (concurrency, max_trials, duration, search_space)):
        raise UsageError("nothing to change", "Give --concurrency, --max-trials, --duration or --search-space.")
    check_limits(concurrency, max_trials, duration)
    with opened(id) as experiment:
        folder, settings = experiment.folder, experiment.state.settings
    space = None if search_space is None else read_space(search_space, settings)
    request = AskUpdate(actor(), concurrency, max_trials, duration, space)
    try:
        running = ask(folder, request)
        if not running:
            write_offline(folder, request)
    except Refused as error:
        raise TuneError(str(error)) from error
    changes = [
        ("trial_concurrency", settings.trial_concurrency, concurrency),
        ("max_trial_number", settings.max_trial_number, max_trials),
        ("max_experiment_duration", settings.max_experiment_duration, duration),
    ]
    for name, before, now in changes:
        if now is not None:
            say(f"{name}: {'no limit' if before is None else before} -> {printable(str(now))}")
    if search_space is not None:
        say(f"search_space: now that of {printable(str(search_space))}")
    if not running:
        say(f"No engine runs for experiment {folder.id}; it goes on with: tune resume {folder.id}")


def read_space(path: Path, settings: Config) -> str:
    """The JSON text of the search space in a file, checked for this experiment; `UsageError` with every fault."""
    source = config_file.read(path)
    if not config_file.is_table(source.data):
        raise UsageError(f"{path}: a search space is an object of parameters")
    wrong = points.faults(source.data, settings)
    if wrong:
        raise UsageError("\n".join(f"{path}: {text}" for text in wrong))
    return msgspec.json.encode(source.data).decode()


def check_limits(concurrency: int | None, max_trials: int | None, duration: str | None) -> None:
    """`UsageError` for limits that can't be; None is none given."""
    for name, value in (("--concurrency", concurrency), ("--max-trials", max_trials)):
        if value is not None and not 1 <= value < 2**63:
            raise UsageError(f"{name}: {value} was given, allowed is 1 or more")
    if duration is not None:
        try:
            if seconds(duration) <= 0:
                raise ValueError(f"{duration!r} is no time at all; allowed: more than 0s")
        except ValueError as error:
            raise UsageError(f"--duration: {error}") from error
