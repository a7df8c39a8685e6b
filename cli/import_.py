"""`tune import`: gives an experiment's tuner results from elsewhere to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from ..engine import import_file, points
from ..engine.client import ask_all, write_offline
from ..engine.config import Config
from ..engine.errors import TuneError, UsageError
from ..engine.import_file import Result
from ..engine.objectives import judge
from ..engine.requests import AskImport, Refused
from .reading import Opened, Reference, actor, note, opened, printable, say


def import_(
    file: Annotated[
        Path | None,
        Parameter(help='A JSON list of {"parameter": {...}, "value": ...}, one such object a line, or a .csv table.'),
    ] = None,
    id: Reference = None,
    /,
    *,
    from_: Annotated[
        str | None,
        Parameter(name="--from", help="Id, or path of the log, of an earlier experiment whose results are taken."),
    ] = None,
) -> int:
    """Give the tuner results from elsewhere: NNI's export, one of `tune export`, or those of an earlier experiment.

    tune import FILE [ID], or tune import [ID] --from EARLIER. Results whose parameters lie outside the search space are
    skipped. An experiment that does not run learns from them when it is resumed.
    """
    if from_ is not None:
        if file is not None and id is not None:
            raise UsageError("a file and --from exclude each other", "tune import [ID] --from EARLIER")
        file, id = None, id if file is None else str(file)
    elif file is None:
        raise UsageError("tune import: which results?", "Name a file, or an earlier experiment with --from.")
    with opened(id) as experiment:
        folder, settings = experiment.folder, experiment.state.settings
        found = _earlier(experiment, from_) if file is None else _in_file(file, settings)
    kept, outside = _inside(settings, found)
    requests = [AskImport(actor(), one.parameters, one.value) for one in kept]
    try:
        running = ask_all(folder, requests) if requests else True
        if not running:
            write_offline(folder, *requests)
    except Refused as error:
        raise TuneError(str(error)) from error
    say(f"{len(kept)} results imported into experiment {folder.id}")
    if outside:
        note(f"{len(outside)} skipped: outside its search space (the first: {printable(outside[0])})")
    odd = sum(judge(settings, one.value.encode()).value is None for one in kept)
    if odd:
        note(f"{odd} of them have no finite number: they count as failed")
    if not running:
        say(f"No engine runs for experiment {folder.id}; its tuner learns from them with: tune resume {folder.id}")
    return 1 if found and not kept else 0


def _in_file(path: Path, settings: Config) -> Sequence[Result]:
    return import_file.read(path, tuple(settings.objectives) or ("default",), points.space_of(settings))


def _earlier(experiment: Opened, reference: str | None) -> Sequence[Result]:
    """The finals of an earlier experiment that count in this one, and say so of those that don't."""
    settings = experiment.state.settings
    with opened(reference) as earlier:
        if earlier.folder.events.resolve() == experiment.folder.events.resolve():
            raise UsageError(f"experiment {experiment.folder.id} has its own results already")
        finals = import_file.finals(earlier.state)
        theirs = earlier.state.settings
        if not settings.objectives and not theirs.objectives and theirs.optimize_mode != settings.optimize_mode:
            modes = f"has optimize_mode {theirs.optimize_mode}, this one {settings.optimize_mode}"
            note(f"note: {earlier.folder.id} {modes}")
    counted = [one for one in finals if judge(settings, one.value.encode()).value is not None]
    if len(counted) < len(finals):
        keys = f" for {' and '.join(map(printable, settings.objectives))}" if settings.objectives else ""
        note(f"{len(finals) - len(counted)} skipped: no finite number{keys}")
    return counted


def _inside(settings: Config, found: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """The results whose parameters the experiment can take, and why the others are left out."""
    why_not = points.gate(settings)
    kept: list[Result] = []
    outside: list[str] = []
    for one in found:
        parameters: Any = msgspec.json.decode(one.parameters)
        reason = why_not(parameters)
        if reason is None:
            kept.append(one)
        else:
            outside.append(reason)
    return kept, outside
