"""How far an experiment is, in words: the line of a trial that has ended, the last line, the picture of a running one.

Pure functions from a `State` to printable text; the command line, scripts and notebooks show the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import views
from .events import Fact, TrialEnd
from .state import Phase, State, Trial
from .texts import infeasible_text, json_text, no_best_text, number_text, printable, printable_lines, result_text, span

LABEL = 10  # columns that the label of a line of `frame` takes
_BLOCKS = "▁▂▃▄▅▆▇█"


def last_line(state: State) -> str:
    """`DONE best 0.961 trial 7 {...}`; an experiment that paused or failed says why instead.

    With several objectives `DONE pareto 3 trials 7 2 11`, the best in the first objective first.
    """
    if state.status in ("PAUSED", "ERROR"):
        return f"{state.status}: {next(iter(printable_lines(state.reason)), '') or 'no reason given'}"
    front = views.pareto(state) or []
    if front and not front[0]["violation"]:
        several = state.settings.multi_phase
        trials = [f"{one['trial']}/{one['phase']}" if several else str(one["trial"]) for one in front]
        return f"{state.status} pareto {len(front)} trials {' '.join(trials)}"
    best = views.best(state)
    if best is None:
        return f"{state.status} {no_best_text(state).replace(' yet', '', 1)}"
    phase = f" phase {best['phase']}" if state.settings.multi_phase else ""
    value = views.to_json(best["value"]).decode()
    return f"{state.status} best {value} trial {best['trial']}{phase} {json_text(best['parameters'])}"


def trial_line(state: State, one: Trial) -> str:
    """An ended trial on one line: number, status, result, parameters, and why when there is something to say."""
    best = _best_phase(state, one)
    several = best is not None and best.values
    result = result_text(state, best) if best is None or several else views.to_json(best.value).decode()
    of = f" of {len(one.phases)} phases" if state.settings.multi_phase else ""
    phase = best or (one.phases[-1] if one.phases else None)
    parameters = "" if phase is None else f" {json_text(views.phase_parameters(phase))}"
    reason = next(iter(printable_lines(views.reason(state, one))), "") or infeasible_text(best)
    return f"trial {one.number} {one.status} {result}{of}{parameters}" + (f"  ({reason})" if reason else "")


def _best_phase(state: State, one: Trial) -> Phase | None:
    """Of a trial's phases the first with its best result; None without one."""
    sign = 1.0 if state.settings.optimize_mode == "minimize" else -1.0
    counted = [(phase.violation, sign * phase.value, phase) for phase in one.phases if phase.value is not None]
    return min(counted, key=lambda each: each[:2], default=(0.0, 0.0, None))[2]


def frame(state: State, results: list[float], last: str, lasted_us: int, columns: int) -> list[tuple[str, str]]:
    """The live view: lines of a label and a text, printable. `results`: counted finals, oldest first."""
    settings = state.settings
    room = max(columns - LABEL - 2, 10)
    of = "" if settings.max_trial_number is None else f" of {settings.max_trial_number}"
    name = f"  {printable(settings.experiment_name)}" if settings.experiment_name else ""
    why = f": {next(iter(printable_lines(state.reason)), '')}" if state.reason else ""
    counts = state.counts
    done = counts["SUCCEEDED"] + counts["EARLY_STOPPED"]
    failed = counts["FAILED"] + counts["LOST"]
    others = counts["USER_CANCELED"] + counts["SYS_CANCELED"]
    parts = [f"{done} done", f"{counts['RUNNING']} running", f"{failed} failed"]
    parts += [f"{others} canceled"] if others else []
    lines = [
        ("tune", f"{state.id}{name}  {span(lasted_us)}"),
        ("status", f"{state.status}{why}"),
        ("trials", f"{len(state.made)}{of}: {', '.join(parts)}"),
    ]
    best = views.best(state)
    if state.front and not state.front[0].violation:
        lines.append(("best", f"{len(state.front)} results on the Pareto front"))
        lines.append(("", ", ".join(_spread(state))))
    elif best is None:
        lines.append(("best", no_best_text(state)))
    else:
        lines.append(("best", f"{number_text(best['value'])}  trial {best['trial']}"))
        lines.append(("", json_text(best["parameters"])))
    lines.append(_spark_line(state, results, room))
    lines.append(("tuner", f"{printable(settings.tuner.title)}: {tuner_does(state)}"))
    if last:
        lines.append(("last", last))
    lines += [
        ("host", f"{printable(host.name)} is DISCONNECTED: {printable(host.reason)}")
        for host in state.hosts.values()
        if not host.connected and host.reason
    ]
    lines += [
        ("host", f"{printable(host.name)} is set aside for a while: {printable(host.aside_reason)}")
        for host in state.hosts.values()
        if host.connected and host.aside_until
    ]
    lines += [("warning", printable(text)) for text in state.warnings[-2:]]
    return [(label, text if len(text) <= room else text[: room - 1] + "…") for label, text in lines]


def _spread(state: State) -> list[str]:
    """From where to where the Pareto front goes in each objective."""
    columns = zip(*(one.values for one in state.front), strict=True)
    return [
        f"{printable(key)} {number_text(min(column))} to {number_text(max(column))}"
        for key, column in zip(state.settings.objectives, columns, strict=True)
    ]


def _spark_line(state: State, results: list[float], room: int) -> tuple[str, str]:
    if len(results) >= 2:
        shown = results[-min(60, room - 30 if room > 40 else 10) :]
        return "results", f"{spark(shown)}  {number_text(min(results))} to {number_text(max(results))}"
    running = [one.phases[-1] for one in map(state.trial, state.active) if one.phases and one.phases[-1].intermediate]
    if running:
        series = list(running[-1].intermediate[-40:])
        return "reports", f"{spark(series)}  {number_text(series[-1])}"
    return "results", "-" if not results else number_text(results[-1])


def spark(values: list[float]) -> str:
    """Numbers as a line of blocks, the lowest lowest; what is no finite number is a gap."""
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return " " * len(values)
    low, high = min(finite), max(finite)
    steep = high / 2 - low / 2  # half of it: the whole of it may be beyond what a float holds
    line = ""
    for value in values:
        if not abs(value) < float("inf"):
            line += " "
        elif steep <= 0:
            line += _BLOCKS[3]
        else:
            line += _BLOCKS[min(int((value / 2 - low / 2) / steep * 8), 7)]
    return line


def tuner_does(state: State) -> str:
    """What the tuner is at, in a few words."""
    if state.exhausted:
        return f"has nothing more ({printable(state.exhausted)})"
    if state.tuner_errors:
        return f"failed {state.tuner_errors} times in a row: {next(iter(printable_lines(state.last_error)), '')}"
    if not state.asks:
        return "waits for results" if state.active else "is not asked"
    waiting = [ask for ask in state.asks.values() if ask.waits_since >= 0]
    if len(waiting) == len(state.asks):
        why = next((ask.reason for ask in waiting if ask.reason), "it needs more results")
        return f"has nothing yet ({printable(why)}); {len(waiting)} wait"
    return f"is choosing the next parameters; {len(state.asks)} wait"


def ended(state: State, facts: Iterable[Fact]) -> list[Trial]:
    """The trials that have ended for good by these facts, of which `state` holds all."""
    found: dict[int, None] = {}
    for fact in facts:
        event = fact.event
        if isinstance(event, TrialEnd) and fact.trial is not None:
            one = state.trial(fact.trial)
            if one.over and one.attempt == event.attempt:
                found[one.number] = None
    return [state.trial(number) for number in found]
