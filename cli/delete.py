"""`tune delete`: removes an experiment with everything that belongs to it."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from ..engine import home
from ..engine.errors import TuneError, UsageError
from ..engine.lock import Lock, LockHeld, peek
from .reading import emit, say


def delete(
    id: Annotated[str, Parameter(help="Id of the experiment or the beginning of one.")],
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Don't ask.")] = False,
) -> int:
    """Remove an experiment: its log, its trials' output, everything. One that runs is refused."""
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
        home.remove(folder)
    except OSError as error:
        raise TuneError(f"experiment {folder.id} can't be removed: {error}") from error
    finally:
        held.release()
    say(f"deleted {folder.id}")
    return 0


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
