"""`tune trials`: every trial of an experiment, with its parameters and what came of it."""

from __future__ import annotations

import time

from ..engine import views
from ..engine.state import State, Trial
from .reading import (
    Json,
    Reference,
    infeasible_text,
    json_text,
    opened,
    printable_lines,
    result_text,
    say,
    say_json,
    shortened,
    span,
    table,
)

_FAILED_SHOWN = 10


def trials(id: Reference = None, /, *, json: Json = False) -> None:
    """List the trials: status, result, time, parameters."""
    with opened(id) as experiment:
        if json:
            say_json(views.trials(experiment.state, experiment.folder.path))
        else:
            # a trial runs on while its engine is away, but then nobody knows for how long it did
            running = experiment.pid is not None
            show(experiment.state, time.time_ns() // 1000 if running else experiment.state.wall_us)


def show(state: State, now_us: int) -> None:
    """The trials for people, as of `now_us` on the wall clock."""
    made = state.made
    if not made:
        say("no trials yet")
        return
    columns = ["NO", "ID", "STATUS", "RESULT", "TIME", "PARAMETERS", "REASON"]
    cells = [list(_row(state, one, now_us)) for one in made]
    if any(one.continues is not None for one in made):
        columns.insert(5, "FROM")
        for row, one in zip(cells, made, strict=True):
            row.insert(5, "-" if one.continues is None else str(one.continues))
    table(columns, cells, right=(0, 3, 4))
    failed = [one for one in made if one.status == "FAILED" and one.stderr.strip()]
    for one in failed[-_FAILED_SHOWN:]:
        say()
        say(f"trial {one.number} ({one.id}) ended on stderr with:")
        for line in printable_lines(views.stderr_tail(one)):
            say(shortened(f"    {line}"))


def _row(state: State, one: Trial, now_us: int) -> tuple[str, ...]:
    phase = one.phases[-1] if one.phases else None
    result, counted = "-", None
    if phase is not None:
        # the last result that counts; of a running phase its last intermediate one
        counted = next((each for each in reversed(one.phases) if each.value is not None), None)
        result = result_text(state, counted)
        if counted is None and phase.intermediate:
            result = f"({phase.intermediate[-1]:.6g})"
    ended = one.ended_us if one.over else now_us
    lasted = span(ended - one.started_us) if one.started_us and one.status != "WAITING" else "-"
    reason = next(iter(printable_lines(views.reason(state, one))), "") or infeasible_text(counted)
    return (
        str(one.number),
        one.id,
        one.status,
        result,
        lasted,
        json_text(views.phase_parameters(phase)) if phase is not None else "-",
        reason,
    )
