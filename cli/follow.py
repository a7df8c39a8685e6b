"""Following an experiment while its engine runs: a live view in a terminal, plain lines in a pipe, and the end's code.

What is shown is a fold over the log, like everything; the engine only says how far that is durable. A follower may
die at any moment, and the engine goes on. Its Ctrl-C or TERM is `tune stop`, the second one without grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..engine import views
from ..engine.client import Client, View, engine_pid
from ..engine.errors import TuneError
from ..engine.events import Fact, Metric, TrialEnd
from ..engine.home import Folder
from ..engine.requests import AskStop
from ..engine.state import Phase, State, Trial
from .interrupts import Interrupts
from .reading import (
    emit,
    infeasible_text,
    json_text,
    no_best_text,
    note,
    number_text,
    printable,
    printable_lines,
    result_text,
    say_json,
    span,
)

if TYPE_CHECKING:
    from rich.text import Text

_REFRESH = 0.15  # seconds between two pictures of the live view, at least
_TICK = 1.0  # and at most, for the clock in it
_GONE_STEP = 0.02  # seconds between two looks at the lock of an engine that has said good-bye
_BLOCKS = "▁▂▃▄▅▆▇█"
_KEPT = 400  # results that the spark line may show
_LABEL = 10


Ends: TypeAlias = Collection[tuple[int, int]]  # trials that had ended before, by number and attempt


class Screen(Protocol):
    """Where a follower shows what it sees."""

    def begin(self, state: State, before: Ends) -> None:
        """The log has been read up to here; `before`: the trials that had ended when the engine started."""
        ...

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """The state has come this far; these facts are new."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def ends_of(state: State) -> Ends:
    """The trials that have ended, by number and attempt."""
    return {(one.number, one.attempt) for one in state.made if one.over}


def watch(folder: Folder, interrupts: Interrupts, actor: str, *, json: bool = False, before: Ends = ()) -> State:
    """Follow an engine that was started until it has ended: the last state, which is not `finished` if it died.

    A live view in a terminal, else a line for each trial that ends and is not in `before`; nothing with `json`.
    """
    view = View(folder)
    try:
        screen: Screen = Silent() if json else Plain()
        if not json and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            screen = Live(view.state)
        try:
            screen.begin(view.state, before)
            return asyncio.run(_Follower(folder, view, screen, interrupts, actor).run())
        finally:
            screen.close()
    finally:
        view.close()


class _Follower:
    def __init__(self, folder: Folder, view: View, screen: Screen, interrupts: Interrupts, actor: str) -> None:
        self._folder, self._view, self._screen = folder, view, screen
        self._interrupts, self._actor = interrupts, actor
        self._client: Client | None = None
        self._struck = asyncio.Event()
        if interrupts.count:
            self._struck.set()

    async def run(self) -> State:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._interrupts.fd, self._strike)
        watching = asyncio.create_task(self._watch(), name="watch")
        beside = [
            asyncio.create_task(self._stop(watching), name="stop"),
            asyncio.create_task(self._tick(), name="clock"),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the third Ctrl-C: leave it to the engine
                await watching
        finally:
            loop.remove_reader(self._interrupts.fd)
            for task in beside:
                task.cancel()
            for outcome in await asyncio.gather(*beside, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome
        return self._view.state

    async def _watch(self) -> None:
        """Show what comes until no engine is there any more."""
        while True:
            client = await Client.connect(self._folder)
            if client is not None:
                self._client = client
                if self._interrupts.count:
                    self._struck.set()
                try:
                    async for seq in client.watch():
                        self._catch_up(seq)
                finally:
                    self._client = None
                    await client.close()
            self._catch_up()
            if engine_pid(self._folder) is None:
                break
            await asyncio.sleep(_GONE_STEP)  # it is closing its log; or it lives and has hung up
        self._catch_up()

    def _catch_up(self, upto: int | None = None) -> None:
        if upto is None or upto > self._view.state.seq:
            facts = self._view.catch_up(upto)
            if facts:
                self._screen.show(self._view.state, facts)

    def _strike(self) -> None:
        self._interrupts.drain()
        self._struck.set()

    async def _stop(self, watching: asyncio.Task[None]) -> None:
        said = 0
        while True:
            await self._struck.wait()
            self._struck.clear()
            count = self._interrupts.count
            if count > max(said, 2):
                note(f"experiment {self._folder.id} is still being stopped; tune status {self._folder.id} shows it")
                watching.cancel()
                return
            if said < count == 1:
                grace = self._view.state.settings.stop_grace
                note(f"stopping: trials have {grace} to end; Ctrl-C again kills them at once")
            said = count
            if self._client is not None:
                with contextlib.suppress(TuneError):  # it has ended meanwhile: what was asked for is so
                    await self._client.ask(AskStop(self._actor, force=count > 1))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._screen.show(self._view.state, ())


# -- the end ----------------------------------------------------------------------------------------------------------
def conclude(
    state: State, folder: Folder, interrupted: bool, json: bool, more: Mapping[str, object] | None = None
) -> int:
    """Say how it ended, and the exit code for it; `TuneError` when the engine died before the end.

    `more` belongs into the status object of `json`.
    """
    pid = engine_pid(folder)
    if json:
        say_json({**views.status(state, folder=folder.path, pid=pid, log=folder.events), **(more or {})})
    if not state.finished:
        if pid is not None:
            return 130  # left by a third Ctrl-C
        raise TuneError("the engine died", f"Go on with: tune resume {folder.id}")
    failed = bool(state.made) and all(one.status in ("FAILED", "LOST") for one in state.made)
    if not json:
        _, *rest = printable_lines(state.reason) or [""]
        for line in rest:
            note(f"  {line}")
        if failed and state.status == "DONE":
            last = max(state.made, key=lambda one: one.ended_us)
            note(f"all trials failed; trial {last.number}: {printable(last.reason)}")
            for line in printable_lines(views.stderr_tail(last)):
                note(f"  {line}")
        emit(last_line(state) + "\n")
        if state.status in ("PAUSED", "STOPPED"):
            note(f"go on with: tune resume {folder.id}")
    if state.status == "STOPPED" and interrupted:
        return 130
    return 0 if state.status == "DONE" and not failed else 1


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


# -- screens ----------------------------------------------------------------------------------------------------------
class Silent:
    """Shows nothing."""

    def begin(self, state: State, before: Ends) -> None:
        """Nothing."""

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Plain:
    """One line for each trial that has ended, for pipes and files."""

    def begin(self, state: State, before: Ends) -> None:
        """Say which trials ended while the log was being read."""
        for number, _ in sorted(set(ends_of(state)) - set(before)):
            emit(trial_line(state, state.trial(number)) + "\n")

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Say which trials have ended for good."""
        ended: dict[int, None] = {}
        for fact in facts:
            event = fact.event
            if isinstance(event, TrialEnd) and fact.trial is not None:
                one = state.trial(fact.trial)
                if one.over and one.attempt == event.attempt:
                    ended[one.number] = None
        for number in ended:
            emit(trial_line(state, state.trial(number)) + "\n")

    def close(self) -> None:
        """Nothing is open."""


class Live:
    """A picture of the experiment that stays in place in a terminal."""

    def __init__(self, state: State) -> None:
        from rich.console import Console
        from rich.live import Live as Picture

        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._picture = Picture(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._results = [phase.value for one in state.made for phase in one.phases if phase.value is not None][-_KEPT:]
        self._last = ""
        self._state = state
        self._began = time.monotonic() - state.clock / 1_000_000
        self._drawn = 0.0
        self._picture.start()

    def begin(self, state: State, before: Ends) -> None:
        """Draw the first picture."""
        self._draw()

    def show(self, state: State, facts: Iterable[Fact]) -> None:
        """Take in the facts, and draw unless that was just done."""
        for fact in facts:
            event = fact.event
            if isinstance(event, Metric) and event.final and not event.ignored and fact.trial is not None:
                value = state.trial(fact.trial).phases[event.phase].value
                if value is not None:
                    self._results.append(value)
            elif isinstance(event, TrialEnd) and fact.trial is not None and state.trial(fact.trial).over:
                self._last = trial_line(state, state.trial(fact.trial))
        del self._results[:-_KEPT]
        self._state = state
        if time.monotonic() - self._drawn >= _REFRESH:
            self._draw()

    def close(self) -> None:
        """Leave the last picture where it is."""
        self._draw()
        self._picture.stop()

    def _draw(self) -> None:
        lasted = round((time.monotonic() - self._began) * 1_000_000)
        lines = frame(self._state, self._results, self._last, lasted, self._console.width)
        self._picture.update(_styled(lines), refresh=True)
        self._drawn = time.monotonic()


def frame(state: State, results: list[float], last: str, lasted_us: int, columns: int) -> list[tuple[str, str]]:
    """The live view: lines of a label and a text, printable. `results`: counted finals, oldest first."""
    settings = state.settings
    room = max(columns - _LABEL - 2, 10)
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


def _styled(lines: list[tuple[str, str]]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for index, (label, line) in enumerate(lines):
        style = {"best": "bold green", "tune": "bold", "warning": "yellow", "results": "cyan", "reports": "cyan"}
        text.append("\n" if index else "")
        text.append(f"{label:<{_LABEL}}", "dim")
        text.append(line, style.get(label, ""))
    return text
