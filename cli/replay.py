"""`tune replay`: feeds a log to its tuner, or to another one, and shows every answer beside the recorded one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any, cast

import msgspec
from cyclopts import Parameter

from ..engine import home
from ..engine.config import Algorithm
from ..engine.decisions import Knew, Said, Step
from ..engine.errors import UsageError
from ..engine.replay import LeftDebugger, Replay, named, plain
from ..engine.tuner_host import pin_threads
from .reading import Json, Reference, aside, emit, json_text, number_text, printable, printable_lines, say, say_json

_INDENT = " " * 4


def replay(
    id: Reference = None,
    /,
    *,
    tuner: Annotated[
        str | None, Parameter(help="Ask this one instead of the log's: a name, or file.py:Class. Its code is run.")
    ] = None,
    class_args: Annotated[str | None, Parameter(help="Its options, a JSON object.")] = None,
    since: Annotated[
        int | None, Parameter(name="--from", help="Begin with this ask; earlier ones are only observed.")
    ] = None,
    until: Annotated[int | None, Parameter(help="End with this ask.")] = None,
    step: Annotated[bool, Parameter(negative=(), help="Wait for Enter after each ask; q ends.")] = False,
    pdb: Annotated[
        bool,
        Parameter(negative=(), help="Stop in a debugger inside suggest: at the ask of --from, else at a difference."),
    ] = False,
    json: Json = False,
) -> int:
    """Put every recorded ask again, from the log alone. Exit code 1 at the first answer that is another one."""
    if class_args is not None and tuner is None:
        raise UsageError("--class-args belongs to --tuner", "Name the tuner: --tuner TPE")
    if json and (pdb or step):
        raise UsageError("--json excludes --step and --pdb", "Leave one of them out.")
    first = 1 if since is None else since
    if first < 1 or (until is not None and until < first):
        raise UsageError(f"--from {first} --until {until}: asks are counted from 1 on")
    folder = home.find(id)
    pin_threads()
    with aside(json):
        other = named(tuner, _arguments(class_args)) if tuner is not None else None
    made = Replay(folder, tuner=other, since=first, until=until, debug=pdb and since is not None)
    try:
        return _Shown(made, other, folder.id, json, step, pdb).run()
    except LeftDebugger:
        return 1


class _Shown:
    """A replay on its way to the screen."""

    def __init__(self, made: Replay, other: Algorithm | None, name: str, json: bool, wait: bool, pdb: bool) -> None:
        self._replay, self._other, self._id = made, other, name
        self._json, self._wait, self._pdb = json, wait, pdb
        self._asks = self._verdicts = self._others = 0

    def run(self) -> int:
        for step in self._next():
            self._say(step)
            if step.difference:
                if self._replay.deterministic:
                    return self._stopped(step)
                self._others += 1
            if self._wait and not self._goes_on():
                return 0
        if not self._json:
            self._summed_up()
        return 0

    def _next(self) -> Iterator[Step]:
        """The steps; what a tuner prints meanwhile goes to stderr, unless somebody debugs it."""
        steps = self._replay.steps()
        while True:
            with aside(not self._pdb):
                step = next(steps, None)
            if step is None:
                return
            if step.put is None:
                self._verdicts += 1
            else:
                self._asks += 1
            yield step

    def _say(self, step: Step) -> None:
        if self._json:
            say_json(plain(step, compared=self._other is None))
            return
        put = step.put
        who = f"verdict on trial {step.trial}" if put is None else f"ask {put.number:<4} trial {step.trial}"
        if put is not None and put.phase:
            who += f" phase {put.phase}"
        if self._other is not None:
            same = (step.now.answer, step.now.parameters) == (step.then.answer, step.then.parameters)
            say(f"{who:<20} {knowing(step.knew)}")
            say(f"{_INDENT}recorded  {_answer(step.then)}")
            say(f"{_INDENT}{self._title():<9} {'the same' if same else _answer(step.now)}")
        elif step.difference:
            say(f"{who:<20} {knowing(step.knew)}  DIFFERENT")
            for label, said in (("then", step.then), ("now", step.now)):
                say(f"{_INDENT}{label:<5} {_answer(said)}")
                if said.decision and step.then.decision != step.now.decision:
                    say(f"{_INDENT}{'':<5} because {_json(said.decision)}")
            for line in printable_lines(step.now.traceback):
                say(_INDENT + line)
        else:
            say(f"{who:<20} {knowing(step.knew)}  same  {_answer(step.then)}")

    def _stopped(self, step: Step) -> int:
        if self._json:
            return 1
        say(f"event {step.fact.seq}: {printable(step.difference)}{self._replay.made_by}")
        if step.put is None:
            return 1
        if not self._pdb:
            say(f"look at it in a debugger: tune replay {self._id} --from {step.put.number} --pdb")
            return 1
        say("the same ask again, to a tuner that knows the same and was never asked before:")
        self._replay.inside(step)
        return 1

    def _summed_up(self) -> None:
        verdicts = f", {self._verdicts} verdict{'s' * (self._verdicts > 1)}" if self._verdicts else ""
        asks = f"{self._asks} ask{'s' * (self._asks != 1)}{verdicts}"
        if self._other is not None:
            say(f"{asks}; it knew what the recorded trials gave: what its own would have given is unknown")
        elif self._replay.deterministic or not self._others:
            say(f"{asks}: every answer came out the same, bit for bit")
        else:
            say(f"{asks}: {self._others} came out different; it says that it is not deterministic")

    def _title(self) -> str:
        return printable(self._other.title.rpartition(".")[2]) if self._other is not None else ""

    def _goes_on(self) -> bool:
        emit("Enter goes on, q ends: ")
        line = sys.stdin.readline()
        if not line:  # nobody is there to wait for
            emit("\n")
            self._wait = False
        return line.strip().lower() not in ("q", "quit")


def knowing(known: Knew) -> str:
    """What was known, for people: "knew 9 points, 7 results, best 0.93 (trial 4)"."""
    counts = {
        ("point", "points"): known.points,
        ("result", "results"): known.results,
        ("end without one", "ends without one"): known.others,
        ("report", "reports"): known.intermediates,
        ("import", "imports"): known.imported,
    }
    parts = [f"{count} {one if count == 1 else many}" for (one, many), count in counts.items() if count]
    if known.best is not None:
        parts.append(f"best {number_text(known.best)} (trial {known.best_trial})")
    return f"knew {', '.join(parts) or 'nothing'}"


def _answer(said: Said) -> str:
    if said.answer == "suggestion":
        text = _json(said.parameters)
        more = {"continues": said.continues, "budget": said.budget, "parents": list(said.parents) or None}
        return text + "".join(f"  {name} {value}" for name, value in more.items() if value is not None)
    return said.answer + (f": {printable(said.reason)}" if said.reason else "")


def _json(text: str) -> str:
    return json_text(msgspec.Raw(text.encode()))


def _arguments(text: str | None) -> dict[str, Any]:
    try:
        found: Any = msgspec.json.decode(text) if text is not None else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"--class-args: this is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--class-args: found {text}, allowed is a JSON object")
    return cast("dict[str, Any]", found)
