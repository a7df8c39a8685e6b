"""`tune resume`: goes on with an experiment that was stopped, paused, died, or got a higher limit."""

from __future__ import annotations

import hashlib
import json as json_room
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from ..engine import home
from ..engine.client import View, engine_pid
from ..engine.config import only_in_process, seconds
from ..engine.errors import TuneError, UsageError
from ..engine.plan import no_more_trials
from ..engine.portal_process import opening
from ..engine.requests import AskUpdate
from ..engine.state import State
from .create import Begun, Certificate, Detach, Foreground, Host, Key, Port, check_flags
from .follow import conclude, ends_of
from .interrupts import Interrupts
from .reading import Json, Reference, actor, note, printable
from .update import check_limits


def resume(
    id: Reference = None,
    /,
    *,
    max_trials: Annotated[int | None, Parameter(help="From now on there may be so many trials.")] = None,
    concurrency: Annotated[int | None, Parameter(help="From now on so many trials run at a time.")] = None,
    duration: Annotated[str | None, Parameter(help='From now on it may run for so long in all, e.g. "90m".')] = None,
    detach: Detach = False,
    foreground: Foreground = False,
    port: Port = None,
    host: Host = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    json: Json = False,
) -> int:
    """Go on with an experiment from its log. Of one that is DONE the result is shown, unless a limit is raised."""
    check_flags(detach, foreground)
    check_limits(concurrency, max_trials, duration)
    folder = home.find(id)
    updates = None
    if (max_trials, concurrency, duration) != (None, None, None):
        updates = AskUpdate(actor(), concurrency, max_trials, duration)
    pid = engine_pid(folder)
    if pid is not None:
        raise TuneError(
            f"an engine already runs experiment {folder.id}: pid {pid}",
            f"tune view {folder.id} shows it, tune stop {folder.id} stops it, tune update {folder.id} raises a limit.",
        )
    view = View(folder)
    view.close()
    if view.state.config is None:
        raise TuneError(f"the log of experiment {folder.id} is empty: it was never started")
    if view.state.config.in_process:
        raise UsageError(*only_in_process(folder.id))
    with Interrupts() as interrupts, opening(port, host, tls_cert, tls_key) as portal:
        begun = Begun(folder, interrupts, json, portal, ends_of(view.state))
        begun.announce()
        if is_over(view.state, updates):
            return conclude(view.state, folder, False, json)
        for path in changed(folder):
            note(f"note: {printable(path)} has changed since create: the config in the log is used, not the file")
        begun.start(foreground, updates)
        return begun.finish(detach)


def is_over(state: State, updates: AskUpdate | None) -> bool:
    """Whether a DONE experiment has nothing left to do under these limits. The state is not to be used afterwards."""
    if state.status != "DONE" or (state.ready and not state.time_up):  # a trial was added since
        return False
    limits: dict[str, Any] = {}
    if updates is not None and updates.max_trial_number is not None:
        limits["max_trial_number"] = updates.max_trial_number
    if updates is not None and updates.max_experiment_duration is not None:
        limits["max_experiment_duration"] = updates.max_experiment_duration
        state.time_up = state.clock >= seconds(updates.max_experiment_duration) * 1_000_000
    state.config = msgspec.structs.replace(state.settings, **limits)
    return bool(no_more_trials(state))


def changed(folder: home.Folder) -> list[str]:
    """The files of the config, as config.json names them, that are not what they were; gone ones don't count."""
    try:
        content = json_room.loads(folder.config.read_text(encoding="utf-8"))
        sources = {str(path): str(digest) for path, digest in content["sources"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # it is for people, who may do with it what they like
    found: list[str] = []
    for path, digest in sources.items():
        try:
            now = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
        except OSError:
            continue
        if now != digest:
            found.append(path)
    return found
