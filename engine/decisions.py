"""Checking decisions: asks the tuner and the assessor again, from the log alone, and compares every answer bit for bit.

An answer is a function of the facts observed up to `seen` and the ask (plugins.py). So the observations are derived
from the log as the engine derived them, fed to a tuner host in this process up to the recorded `seen`, and the ask is
put again. What an assessor said must come out; what it said and nobody needed (the trial had just ended) is in no log.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from . import home
from .errors import TuneError
from .events import EngineStarted, Event, Exhausted, Experiment, Fact, Kill, NotYet, Parameter, decode
from .home import Folder
from .host_wire import Answered, AskNow, Failed, FromHost, Observe, Ready, Setup, Spent, Verdict, Waits
from .log import LogError, Reader
from .plugins import Observation, SpaceChanged
from .reduce import reduce
from .state import State
from .tuner_host import Host


@dataclass
class Decisions:
    """What came out. `divergence` names the first answer that is another one; `note`: why nothing was compared.

    `suggestions`, `others` ("nothing yet", "nothing more") and `verdicts` count what came out the same.
    """

    ok: bool = True
    suggestions: int = 0
    others: int = 0
    verdicts: int = 0
    first_bad_seq: int | None = None
    divergence: str = ""
    note: str = ""


class _Diverged(Exception):
    """This answer is another one."""


def check_decisions(folder: Folder) -> Decisions:
    """Recompute every decision of a log that `verify` found good. `TuneError` when it can't be read.

    A class of the user's own is imported only for an experiment in this $TUNE_HOME: a log from elsewhere can name
    any folder. The caller pins threads first (tuner_host.pin_threads): BLAS gives other bits with more of them.
    """
    found = Decisions()
    try:
        with Reader(folder.events) as reader:
            _Check(folder, found).run([decode(row) for row in reader.rows()])
    except (LogError, ValueError) as error:
        raise TuneError(str(error)) from error
    return found


class _Check:
    """One pass over a log's facts, with a host that follows."""

    def __init__(self, folder: Folder, found: Decisions) -> None:
        self._folder, self._found = folder, found
        self._state = State()
        self._host = Host()
        self._pending: list[Observation] = []
        self._verdicts: dict[tuple[int, int], str] = {}
        self._spaces = 0  # how often the search space was changed, as far as the host has observed
        self._versions: dict[str, str] = {}

    def run(self, facts: list[Fact]) -> None:
        """Check one fact after the other, up to the first divergence."""
        found, state = self._found, self._state
        for fact in facts:
            try:
                self._check(fact)
            except _Diverged as error:
                found.ok, found.first_bad_seq = False, fact.seq
                found.divergence = f"event {fact.seq} ({fact.event.KIND}): {error}{self._made_by()}"
                return
            reduce(state, fact)
            self._pending += state.queues.news
            state.queues.news = []
            if isinstance(fact.event, EngineStarted):
                self._versions = fact.event.versions
            if isinstance(fact.event, Experiment):
                found.note = self._set_up(fact.event)
                if found.note:
                    return

    def _set_up(self, event: Experiment) -> str:
        """Make the host; why that can't be, or ""."""
        settings = self._state.settings
        theirs = settings.tuner.is_users or (settings.assessor is not None and settings.assessor.is_users)
        if theirs and self._folder.path.parent != home.root():
            return "not comparable: the log names code of its own, and is not in your $TUNE_HOME"
        [ready] = self._host.handle(Setup(bytes(event.config)))
        assert isinstance(ready, Ready)
        if ready.error is not None:
            return f"not comparable: the tuner can't be set up: {ready.error}"
        if not ready.deterministic:
            return "not comparable: the tuner or the assessor says that it is not deterministic"
        self._state.tell, self._state.tell_intermediates = True, ready.observes == "intermediates"
        self._state.tell_more = ready.stateful
        return ""

    def _check(self, fact: Fact) -> None:
        event, found = fact.event, self._found
        match event:
            case Parameter() if event.ask:
                self._ask(fact, event, event.ask, event.seen)
                found.suggestions += 1
            case NotYet() | Exhausted():
                self._ask(fact, event, event.ask, event.seen)
                found.others += 1
            case Kill() if event.reason == "assessor" and event.seen is not None and fact.trial is not None:
                self._feed(event.seen)
                said = self._verdicts.get((fact.trial, event.seen))
                if said is None:
                    raise _Diverged(f"the assessor now lets trial {fact.trial} go on")
                if said[:1000] != event.why:
                    raise _Diverged(f"the assessor now says {said!r}, not {event.why!r}")
                found.verdicts += 1
            case _:
                pass

    def _feed(self, seen: int) -> None:
        """Let the host observe everything up to `seen`."""
        ready = 0
        while ready < len(self._pending) and self._pending[ready].seq <= seen:
            ready += 1
        facts, self._pending = self._pending[:ready], self._pending[ready:]
        self._spaces += sum(isinstance(fact, SpaceChanged) for fact in facts)
        for reply in self._host.handle(Observe(facts)) if facts else ():
            if isinstance(reply, Verdict):
                self._verdicts[reply.trial, reply.seen] = reply.why
            elif isinstance(reply, Failed) and reply.fatal:
                raise _Diverged(f"the tuner now fails as it observes: {reply.error}")

    def _ask(self, fact: Fact, event: Event, number: int, seen: int) -> None:
        state = self._state
        self._feed(seen)
        ask = state.asks.get(number)
        if ask is None:
            raise _Diverged(f"there is no open ask {number}")
        identity = state.trial(ask.trial).id if ask.sender else ""
        put = AskNow(number, ask.attempt, ask.trial, identity, ask.phase, self._spaces, len(state.asks) - 1)
        [answer] = self._host.handle(put)
        self._compare(fact, event, answer, seen)

    def _compare(self, fact: Fact, event: Event, answer: FromHost, seen: int) -> None:
        if isinstance(answer, Failed):
            raise _Diverged(f"the tuner now fails: {answer.error}")
        wanted = Answered if isinstance(event, Parameter) else Waits if isinstance(event, NotYet) else Spent
        if not isinstance(answer, wanted):
            raise _Diverged(f"the tuner now answers {type(answer).__name__}")
        assert isinstance(answer, Answered | Waits | Spent)
        if answer.seen != seen:
            raise _Diverged(f"the tuner had observed up to event {seen}, now up to {answer.seen}")
        if not isinstance(event, Parameter) or not isinstance(answer, Answered):
            return
        pairs = {
            "parameters": (bytes(event.parameters).decode(), answer.parameters),
            "continues": (event.continues, answer.continues),
            "budget": (event.budget, answer.budget),
            "parents": (event.parents, answer.parents),
            "decision": (bytes(event.decision).decode(), answer.decision),
        }
        for name, (then, now) in pairs.items():
            if then != now:
                raise _Diverged(f"trial {fact.trial}, {name}: {_short(then)} then, {_short(now)} now")

    def _made_by(self) -> str:
        """The versions that made it, when they can be the reason."""
        here = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
        python = self._versions.get("python", here)
        return "" if python == here else f" (made by Python {python}, this is {here})"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
