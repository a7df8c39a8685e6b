"""`tune status`: where an experiment stands."""

from __future__ import annotations

from ..engine.placement import host_line
from ..engine.state import State
from .reading import (
    Json,
    Opened,
    Reference,
    json_text,
    moment,
    no_best_text,
    number_text,
    opened,
    printable,
    printable_lines,
    say,
    say_json,
)


def status(id: Reference = None, /, *, json: Json = False) -> None:
    """Show where an experiment stands: its status, its trials, its best result."""
    with opened(id) as experiment:
        if json:
            say_json(experiment.status())
        else:
            show(experiment)


def show(experiment: Opened) -> None:
    """The status for people."""
    state, seen = experiment.state, experiment.status()
    for label, text in _lines(experiment, seen):
        say(f"{label:<12}{text}".rstrip())
    for warning in state.warnings[-3:]:
        say(f"{'Warning':<12}{printable(warning)}")


def _lines(experiment: Opened, seen: dict[str, object]) -> list[tuple[str, str]]:
    state, pid = experiment.state, experiment.pid
    settings = state.settings
    name = f"  {printable(settings.experiment_name)}" if settings.experiment_name else ""
    lines = [("Experiment", f"{seen['id']}{name}")]
    word = state.status + (f" (engine {pid})" if pid is not None else "")
    first, *rest = printable_lines(state.reason) or [""]
    lines.append(("Status", f"{word}: {first}" if first else word))
    lines += [("", line) for line in rest]
    if pid is None and not state.finished:
        resume = f"AskTell.resume({seen['id']!r}) in Python" if settings.in_process else f"tune resume {seen['id']}"
        lines.append(("", f"no engine runs: go on with {resume}"))
    counted = ", ".join(f"{count} {word}" for word, count in state.counts.items() if count)
    of = "" if settings.max_trial_number is None else f" of {settings.max_trial_number}"
    lines.append(("Trials", f"{len(state.made)}{of}{': ' if counted else ''}{counted}"))
    run = "asked and told by a program" if settings.in_process else f"{settings.trial_concurrency} at a time"
    lines.append(("", f"{run}; tuner {printable(settings.tuner.title)}"))
    best, front = state.best, state.front
    if front and not front[0].violation:
        modes = ", ".join(f"{printable(key)} ({mode})" for key, mode in settings.objectives.items())
        lines.append(("Best", f"{len(front)} results on the Pareto front of {modes}"))
        lines.append(("", f"see them with tune best {seen['id']}"))
    elif best is None:
        lines.append(("Best", no_best_text(state)))
    else:
        phase = f" phase {best.phase}" if settings.multi_phase else ""
        lines.append(("Best", f"{number_text(best.value)} ({settings.optimize_mode}) trial {best.trial}{phase}"))
        found = seen["best"]
        lines.append(("", json_text(found["parameters"] if isinstance(found, dict) else None)))
    lines += _host_lines(state, running=pid is not None)
    lines.append(("Created", moment(state.created_us)))
    lines.append(("Log", printable(str(experiment.folder.events))))
    return lines


def _host_lines(state: State, *, running: bool) -> list[tuple[str, str]]:
    """The hosts that are not there; and when there are several, or one with devices, what runs where."""
    hosts = list(state.hosts.values())
    told = len(hosts) > 1 or any(host.devices is not None for host in hosts)
    lines: list[tuple[str, str]] = []
    for host in hosts:
        if running and not host.connected and host.reason:
            lines.append((f"Host {printable(host.name)}", f"DISCONNECTED: {printable(host.reason)}"))
        elif running and told:
            lines.append((f"Host {printable(host.name)}", printable(host_line(state, host))))
    return lines
