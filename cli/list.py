"""`tune list`: every experiment in `$TUNE_HOME`, newest first."""

from __future__ import annotations

from typing import Any

from ..engine import home
from ..engine.errors import TuneError
from .reading import Json, best_text, moment, note, opened_at, printable, say, say_json, table


def list(*, json: Json = False) -> None:
    """List all experiments, newest first."""
    objects: Any = []
    lines: Any = []
    for folder in home.experiments():
        try:
            with opened_at(folder) as experiment:
                seen, state = experiment.status(), experiment.state
                word = seen["status"]
                if seen["engine_pid"] is None and not state.finished:
                    word += " (no engine)"
                of = "" if seen["max_trial_number"] is None else f"/{seen['max_trial_number']}"
                lines.append(
                    (
                        folder.id,
                        word,
                        f"{len(state.made)}{of}",
                        best_text(state),
                        moment(state.created_us),
                        printable(seen["name"] or ""),
                    )
                )
                objects.append(seen)
        except TuneError as error:  # one log that can't be read must not hide the others
            lines.append((folder.id, "unreadable", "-", "-", "-", ""))
            objects.append(_unreadable(folder, error))
            note(f"{folder.id}: {printable(error.message)}")
    if json:
        say_json(objects)
    elif lines:
        table(("ID", "STATUS", "TRIALS", "BEST", "CREATED", "NAME"), lines, right=(2, 3))
    else:
        say(f"No experiments in {printable(str(home.root()))} yet. Start one with: tune create CONFIG")


def _unreadable(folder: home.Folder, error: TuneError) -> dict[str, Any]:
    """A status object that says only what is known without the log."""
    unknown = ("counts", "best", "optimize_mode", "max_trial_number", "trial_concurrency", "port", "pareto", "hosts")
    known = {
        "id": folder.id,
        "name": None,
        "status": None,
        "engine_pid": None,
        "reason": error.message,
        "log": str(folder.events),
        "folder": str(folder.path),
    }
    order = ("id", "name", "status", "engine_pid", "reason", "counts", "best", "log", "folder", *unknown[2:])
    return {key: known.get(key) for key in order}
