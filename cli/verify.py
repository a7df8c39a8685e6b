"""`tune verify`: reads a whole log and checks every bit of it that can be checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine import home
from ..engine.decisions import Decisions, check_decisions
from ..engine.errors import TuneError
from ..engine.log import LogError
from ..engine.tuner_host import pin_threads
from ..engine.verify import CHECKED, HEAD
from ..engine.verify import verify as check
from .reading import Json, aside, printable, say, say_json


def verify(
    id: Annotated[str | None, Parameter(help="Id of the experiment, or the path of its log or folder.")] = None,
    /,
    *,
    decisions: Annotated[
        bool, Parameter(negative=(), help="Also compute every suggestion and verdict again, and compare each bit.")
    ] = False,
    json: Json = False,
) -> int:
    """Check a log: every event against its chain, the end against events.head. Exit code 1 when it is damaged."""
    folder = _folder(id)
    path = folder.events
    try:
        found = check(path)
    except LogError as error:
        raise TuneError(f"{path}: {error}") from error
    checked = None
    if decisions and found.ok:
        pin_threads()
        with aside(True):
            checked = check_decisions(folder)
    if json:
        more = {} if checked is None else {"decisions": dataclasses.asdict(checked)}
        say_json({**dataclasses.asdict(found), **more})
    elif found.ok:
        say(f"ok: {found.events} events" + (f" ({found.reason})" if found.reason else ""))
        say(f"checked: {CHECKED}" + ("" if found.reason else f"; {HEAD}"))
    else:
        where = "" if found.first_bad_seq is None else f", first bad event {found.first_bad_seq}"
        say(f"damaged: {printable(found.reason)} ({found.events} good events{where})")
    if checked is not None and not json:
        say(_told(checked))
    return 0 if found.ok and (checked is None or checked.ok) else 1


def _told(checked: Decisions) -> str:
    same = f"{checked.suggestions} suggestions, {checked.others} other answers, {checked.verdicts} verdicts"
    if checked.note:
        return f"decisions: {printable(checked.note)}"
    if checked.ok:
        return f"decisions: {same} came out the same, bit for bit"
    return f"decisions: {printable(checked.divergence)} ({same} before it came out the same)"


def _folder(reference: str | None) -> home.Folder:
    # a log whose first bytes are damaged is no SQLite file any more, and still what is to be checked
    if reference is not None and reference.endswith(".db") and (path := Path(reference).expanduser()).is_file():
        whole = path.resolve()
        return home.Folder(whole.parent.name, whole.parent, whole.parent, whole.name)
    return home.find(reference)
