"""`tune recover`: makes a new experiment of what is good in a damaged log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine import home
from ..engine.recover import Recovered
from ..engine.recover import recover as save
from .reading import Json, Reference, moment, printable, say, say_json


def recover(
    id: Reference = None,
    /,
    *,
    new: Annotated[str | None, Parameter(name="--as", help="Id of the new experiment; left out, one is made.")] = None,
    json: Json = False,
) -> None:
    """Write a new experiment with every event before the first bad one; the damaged log is not touched."""
    source = _folder(id)
    found = save(source, new)
    if json:
        say_json(
            {
                "id": found.folder.id,
                "log": str(found.folder.events),
                "events": found.events,
                "written": found.written,
                "first_bad_seq": found.first_bad_seq,
                "reason": found.reason,
            }
        )
        return
    say(f"Experiment ID: {found.folder.id}")
    for line in _told(source, found):
        say(line)


def _told(source: home.Folder, found: Recovered) -> list[str]:
    state = found.state
    of = "" if found.written is None else f" of {max(found.written, found.events)}"
    lines = [f"{found.events}{of} events of {printable(str(source.events))} are good: {printable(found.reason)}"]
    if found.written is None:
        lines.append("How many events are lost nobody knows: events.head is missing or unreadable.")
    elif found.written > found.events:
        lines.append(f"Lost: {found.written - found.events} events, all after {moment(state.wall_us)}.")
    else:
        lines.append("No event is lost.")
    counts = ", ".join(f"{count} {status}" for status, count in state.counts.items() if count)
    lines.append(f"It then had {len(state.made)} trials" + (f" ({counts})." if counts else "."))
    lines.append(f"Go on with it: tune resume {found.folder.id}")
    return lines


def _folder(reference: str | None) -> home.Folder:
    # a log whose first bytes are damaged is no SQLite file any more, and still what is meant
    if reference is not None and reference.endswith(".db") and (path := Path(reference).expanduser()).is_file():
        whole = path.resolve()
        return home.Folder(whole.parent.name, whole.parent, whole.parent, whole.name)
    return home.find(reference)
