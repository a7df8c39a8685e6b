"""`tune import`: gives a running experiment's tuner results from elsewhere to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine import home, import_file
from ..engine.client import ask
from ..engine.errors import TuneError
from ..engine.requests import AskImport, Refused
from .reading import Reference, actor, say


def import_(
    file: Annotated[
        Path, Parameter(help='A JSON list of {"parameter": {...}, "value": ...}, or one such object a line.')
    ],
    id: Reference = None,
    /,
) -> None:
    """Give the tuner results from elsewhere: NNI's export, or one of `tune export --format json` or jsonl."""
    found = import_file.read(file)
    folder, who = home.find(id), actor()
    try:
        running = ask(folder, *(AskImport(who, one.parameters, one.value) for one in found))
    except Refused as error:
        raise TuneError(str(error)) from error
    if not running:
        raise TuneError(
            f"no engine runs for experiment {folder.id}, and only a running one can take results in",
            f"Start it first: tune resume {folder.id}",
        )
    say(f"{len(found)} results imported into experiment {folder.id}")
