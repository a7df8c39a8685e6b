"""`tune delete`: removes an experiment with everything that belongs to it."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from ..engine import home
from ..engine.client import View
from ..engine.errors import TuneError, UsageError
from ..engine.host_check import clear_hosts_of
from ..engine.lock import Lock, LockHeld, peek
from .reading import emit, printable, say


def delete(
    id: Annotated[str, Parameter(help="Id of the experiment or the beginning of one.")],
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Don't ask.")] = False,
    hosts: Annotated[
        bool, Parameter(negative=(), help="Also what it left on other machines; first, so that nothing is forgotten.")
    ] = False,
) -> int:
    """Remove an experiment: its log, its trials' output, everything here. One that runs is refused."""
    folder = home.find(id)
    if folder.path.parent != home.root().resolve() and folder.path.parent != home.root():
        raise UsageError(
            f"{folder.path} is not in {home.root()}: only experiments there are deleted", "Remove it by hand."
        )
    _refuse_running(folder)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"delete {folder.id} for good?", f"Say so: tune delete {folder.id} --yes")
        emit(f"Delete experiment {folder.id} in {folder.path} for good? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("kept")
            return 1
    try:
        held = Lock.take(folder.lock)  # nobody starts an engine in it meanwhile
    except LockHeld as error:
        raise TuneError(f"experiment {folder.id} runs: {error}", f"Stop it first: tune stop {folder.id}") from error
    try:
        _refuse_running(folder, but_us=True)
        if hosts:
            clear_hosts(folder)
        home.remove(folder)
    except OSError as error:
        raise TuneError(f"experiment {folder.id} can't be removed: {error}") from error
    finally:
        held.release()
    say(f"deleted {folder.id}")
    return 0


def clear_hosts(folder: home.Folder) -> None:
    """Remove what the experiment left on other machines; `TuneError` as soon as one can't be cleared."""
    view = View(folder)
    view.close()
    for text in clear_hosts_of(view.state.settings, folder.id):
        say(f"deleted {printable(text)}")


def _refuse_running(folder: home.Folder, *, but_us: bool = False) -> None:
    engine = None if but_us else peek(folder.lock)
    if engine is not None:
        raise TuneError(
            f"experiment {folder.id} runs: pid {engine.get('pid', 'unknown')}",
            f"Stop it first: tune stop {folder.id}",
        )
    keeper = peek(folder.keeper_lock)
    if keeper is not None:
        raise TuneError(
            f"trials of experiment {folder.id} may still run (keeper: pid {keeper.get('pid', 'unknown')})",
            f"Stop it first: tune stop {folder.id}",
        )
