"""`tune verify`: reads a whole log and checks every bit of it that can be checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine import home
from ..engine.errors import TuneError
from ..engine.log import LogError
from ..engine.verify import verify as check
from .reading import Json, printable, say, say_json


def verify(
    id: Annotated[str | None, Parameter(help="Id of the experiment, or the path of its log or folder.")] = None,
    /,
    *,
    json: Json = False,
) -> int:
    """Check a log: every event against its chain, the end against events.head. Exit code 1 when it is damaged."""
    path = _log(id)
    try:
        found = check(path)
    except LogError as error:
        raise TuneError(f"{path}: {error}") from error
    if json:
        say_json(dataclasses.asdict(found))
    elif found.ok:
        say(f"ok: {found.events} events" + (f" ({found.reason})" if found.reason else ""))
    else:
        where = "" if found.first_bad_seq is None else f", first bad event {found.first_bad_seq}"
        say(f"damaged: {printable(found.reason)} ({found.events} good events{where})")
    return 0 if found.ok else 1


def _log(reference: str | None) -> Path:
    # a log whose first bytes are damaged is no SQLite file any more, and still what is to be checked
    if reference is not None and reference.endswith(".db") and (path := Path(reference).expanduser()).is_file():
        return path.resolve()
    return home.find(reference).events
