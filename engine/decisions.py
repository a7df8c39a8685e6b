"""Checking decisions: asks the tuner and the assessor again, from the log alone, and compares every answer bit for bit.

An answer is a function of the facts observed up to `seen` and the ask (plugins.py). So the observations are derived
from the log as the engine derived them, fed to a tuner host in this process up to the recorded `seen`, and the ask is
put again. What an assessor said must come out; what it said and nobody needed (the trial had just ended) is in no log.

Each ask goes to a tuner that was never asked before, built anew from the facts: so an answer that hangs on earlier
asks, and not on what was observed, is another one here. After FRESH facts in all that were observed again for it, one
tuner is kept and asked on, since the cost would grow with the square of the log. A tuner that is `stateful` learns as
it is asked: one such tuner is asked everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import msgspec

from . import home
from .config import Algorithm, encode
from .errors import TuneError
from .events import EngineStarted, Exhausted, Experiment, Fact, Kill, NotYet, Parameter, decode
from .home import Folder
from .host_wire import Answered, AskNow, Differs, Failed, FromHost, Observe, Ready, Setup, Spent, Verdict, Waits
from .log import LogError, Reader
from .plugins import (
    Asked,
    Ended,
    Imported,
    LimitsChanged,
    Observation,
    Reported,
    SpaceChanged,
    Suggested,
    TrialEnded,
)
from .reduce import reduce
from .state import OpenAsk, State
from .tuner_host import Host

FRESH = 200_000
# what folding an event can raise that does not fit what stands before it
ODD = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
Put: TypeAlias = Callable[[Host, AskNow], FromHost]


@dataclass
class Knew:
    """What had been observed at a point of the log: how many facts of each kind, and the best counted result."""

    seen: int = 0  # the last seq
    points: int = 0
    results: int = 0  # counted ones
    others: int = 0  # ends without one
    intermediates: int = 0
    imported: int = 0
    best: float | None = None
    best_trial: int | None = None

    def take(self, fact: Observation, optimize_mode: str) -> None:
        """Count one more fact."""
        self.seen = fact.seq
        match fact:
            case Suggested():
                self.points += 1
            case Reported():
                self.intermediates += 1
            case Ended():
                value = fact.value
                if fact.outcome != "completed" or value is None:
                    self.others += 1
                    return
                self.results += 1
                best = self.best
                if best is None or (value < best if optimize_mode == "minimize" else value > best):
                    self.best, self.best_trial = value, fact.trial
            case Imported():
                self.imported += 1
            case TrialEnded() | SpaceChanged() | LimitsChanged() | Asked():
                pass


@dataclass(frozen=True)
class Said:
    """An answer. `answer`: suggestion, nothing yet, nothing more, stop, go on, or failed; texts are JSON or ""."""

    answer: str
    parameters: str = ""
    continues: int | None = None
    budget: float | None = None
    parents: tuple[int, ...] = ()
    decision: str = ""
    reason: str = ""
    traceback: str = ""
    seen: int = 0


@dataclass(frozen=True)
class Step:
    """One recorded decision, and what comes out now; `difference` is "" when it is the same bit for bit.

    `put` is the ask as it was put; None for an assessor's verdict.
    """

    fact: Fact
    trial: int
    put: AskNow | None
    knew: Knew
    then: Said
    now: Said
    difference: str = ""


class Incomparable(Exception):
    """The log's decisions can't be computed again here, and why."""


class Retelling:
    """One pass over a log's facts, with tuner and assessor beside it that are asked again.

    `tuner`: another one to ask instead of the log's own; then nothing is a difference, and no verdict is looked at.
    `since`: asks with a smaller number are only observed. `put` puts an ask to a host (for a debugger to step in).
    """

    def __init__(
        self, folder: Folder, *, tuner: Algorithm | None = None, since: int = 0, put: Put | None = None
    ) -> None:
        self.state = State()
        self.deterministic = True
        self._folder, self._other, self._since = folder, tuner, since
        self._begun = since <= 1
        self._put = put or put_now
        self._config = b""
        self._host: Host | None = None  # it observes everything, judges, and is asked once FRESH is spent
        self._stateful = False  # the tuner learns as it is asked: one is asked everything, from the first ask on
        self._pending: list[Observation] = []
        self._past: list[Observation] = []
        self._again = 0  # facts that were observed again for a fresh host
        self._verdicts: dict[tuple[int, int], str] = {}
        self._spaces = 0  # how often the search space was changed, as far as the host has observed
        self._knew = Knew()
        self._versions: dict[str, str] = {}

    @property
    def made_by(self) -> str:
        """The Python that made it, when that can be why an answer is another one; else ""."""
        here = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
        python = self._versions.get("python", here)
        return "" if python == here else f" (made by Python {python}, this is {here})"

    def steps(self, facts: Iterable[Fact]) -> Iterator[Step]:
        """Every decision from `since` on. `Incomparable` when there can be none, `TuneError` for a log that is none."""
        for fact in facts:
            try:
                step = self._step(fact)
            except ODD as error:
                raise odd(fact) from error
            if step is not None:
                yield step
            try:
                self._fold(fact)
            except ODD as error:
                raise odd(fact) from error

    def _fold(self, fact: Fact) -> None:
        state = self.state
        reduce(state, fact)
        self._pending += state.queues.news
        state.queues.news = []
        if isinstance(fact.event, EngineStarted):
            self._versions = fact.event.versions
        elif isinstance(fact.event, Experiment):
            self._set_up(fact.event)

    def fresh(self) -> Host:
        """A host that was never asked, and has observed what the last step's tuner had; of a stateful one, the one."""
        if self._stateful and self._host is not None:
            return self._host
        host = Host()
        for _ in host.handle(Setup(self._config)):
            pass
        if self._past:
            for reply in host.handle(Observe(self._past, judge=False)):
                if isinstance(reply, Failed) and reply.fatal:
                    break
        return host

    # -- beginning ------------------------------------------------------------------------------------------------
    def _set_up(self, event: Experiment) -> None:
        settings = self.state.settings
        if self._other is None:
            theirs = settings.tuner.is_users or (settings.assessor is not None and settings.assessor.is_users)
            if theirs and self._folder.path.parent != home.root():
                raise Incomparable("the log names code of its own, and is not in your $TUNE_HOME")
            self._config = bytes(event.config)
        else:
            other = msgspec.structs.replace(settings, tuner=self._other, assessor=None)
            self._config = encode(other)
        self._host = Host()
        [ready] = self._host.handle(Setup(self._config))
        assert isinstance(ready, Ready)
        if ready.error is not None:
            raise Incomparable(f"the tuner can't be set up: {ready.error}")
        if ready.stateful and ready.concurrent:
            raise Incomparable("the tuner learns as it is asked, and was asked several things at once")
        self.deterministic, self._stateful = ready.deterministic, ready.stateful
        self.state.tell, self.state.tell_intermediates = True, ready.observes == "intermediates"
        self.state.tell_more = ready.stateful

    # -- one decision ---------------------------------------------------------------------------------------------
    def _step(self, fact: Fact) -> Step | None:
        event = fact.event
        match event:
            case Parameter() if event.ask:
                parents = tuple(event.parents)
                text, decision = bytes(event.parameters).decode(), bytes(event.decision).decode()
                then = Said("suggestion", text, event.continues, event.budget, parents, decision, seen=event.seen)
                return self._ask(fact, event.ask, then)
            case NotYet():
                return self._ask(fact, event.ask, Said("nothing yet", reason=event.reason, seen=event.seen))
            case Exhausted():
                return self._ask(fact, event.ask, Said("nothing more", reason=event.reason, seen=event.seen))
            case Kill() if event.reason == "assessor" and event.seen is not None and fact.trial is not None:
                return self._verdict(fact, fact.trial, Said("stop", reason=event.why, seen=event.seen))
            case _:
                return None

    def _ask(self, fact: Fact, number: int, then: Said) -> Step | None:
        state = self.state
        failed = self._feed(then.seen)
        ask = state.asks.get(number)
        if number < self._since:
            if self._stateful and ask is not None and not failed:
                put_now(self._asked(), self._ask_of(ask))
            return None
        self._begun = True
        trial = fact.trial if fact.trial is not None else ask.trial if ask is not None else -1
        if ask is None:
            return Step(fact, trial, None, replace(self._knew), then, Said("failed"), f"there is no open ask {number}")
        put = self._ask_of(ask)
        now = failed or said(self._put(self._asked(), put))
        different = "" if self._other is not None else difference(trial, then, now)
        return Step(fact, trial, put, replace(self._knew), then, now, different)

    def _ask_of(self, ask: OpenAsk) -> AskNow:
        state = self.state
        identity = state.trial(ask.trial).id if ask.sender else ""
        return AskNow(ask.number, ask.attempt, ask.trial, identity, ask.phase, self._spaces, len(state.asks) - 1)

    def _asked(self) -> Host:
        assert self._host is not None
        if self._again + len(self._past) > FRESH:
            return self._host
        self._again += len(self._past)
        return self.fresh()

    def _verdict(self, fact: Fact, trial: int, then: Said) -> Step | None:
        failed = self._feed(then.seen)
        if self._other is not None or not self._begun:
            return None
        why = self._verdicts.get((trial, then.seen))
        now = failed or (Said("go on") if why is None else Said("stop", reason=why[:1000]))
        return Step(fact, trial, None, replace(self._knew), then, now, difference(trial, then, now))

    def _feed(self, seen: int) -> Said | None:
        """Let the host observe everything up to `seen`; what it says when it fails over that."""
        assert self._host is not None
        ready = 0
        while ready < len(self._pending) and self._pending[ready].seq <= seen:
            ready += 1
        facts, self._pending = self._pending[:ready], self._pending[ready:]
        self._past += facts
        self._spaces += sum(isinstance(fact, SpaceChanged) for fact in facts)
        mode = self.state.settings.optimize_mode
        for fact in facts:
            self._knew.take(fact, mode)
        for reply in self._host.handle(Observe(facts)) if facts else ():
            if isinstance(reply, Verdict):
                self._verdicts[reply.trial, reply.seen] = reply.why
            elif isinstance(reply, Failed) and reply.fatal:
                return Said("failed", reason=f"as it observes: {reply.error}", traceback=reply.traceback)
        return None


def put_now(host: Host, put: AskNow) -> FromHost:
    """A host's answer to an ask."""
    [answer] = host.handle(put)
    return answer


def said(answer: FromHost) -> Said:
    """A host's answer to an ask, as it is compared and shown."""
    match answer:
        case Answered():
            return Said(
                "suggestion",
                answer.parameters,
                answer.continues,
                answer.budget,
                tuple(answer.parents),
                answer.decision,
                seen=answer.seen,
            )
        case Waits():
            return Said("nothing yet", reason=answer.reason, seen=answer.seen)
        case Spent():
            return Said("nothing more", reason=answer.reason, seen=answer.seen)
        case Failed():
            return Said("failed", reason=answer.error, traceback=answer.traceback)
        case Ready() | Verdict() | Differs():
            raise AssertionError("no ask is answered so")


def difference(trial: int, then: Said, now: Said) -> str:
    """What is another in an answer, in words; "" for nothing."""
    if now.answer == "failed":
        return f"the tuner now fails: {now.reason}"
    if then.answer == "stop":
        if now.answer == "go on":
            return f"the assessor now lets trial {trial} go on"
        return f"the assessor now says {now.reason!r}, not {then.reason!r}" if now.reason != then.reason else ""
    if now.answer != then.answer:
        return f"trial {trial}: a {then.answer} then, the tuner now says {now.answer}"
    if now.seen != then.seen:
        return f"the tuner had observed up to event {then.seen}, now up to {now.seen}"
    for name in ("parameters", "continues", "budget", "parents", "decision"):
        was, is_now = getattr(then, name), getattr(now, name)
        if was != is_now:
            return f"trial {trial}, {name}: {_short(was)} then, {_short(is_now)} now"
    return ""


# -- verify -----------------------------------------------------------------------------------------------------------
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


def check_decisions(folder: Folder) -> Decisions:
    """Recompute every decision of a log that `verify` found good. `TuneError` when it can't be read.

    A class of the user's own is imported only for an experiment in this $TUNE_HOME: a log from elsewhere can name
    any folder. The caller pins threads first (tuner_host.pin_threads): BLAS gives other bits with more of them.
    """
    found = Decisions()
    retelling = Retelling(folder)
    try:
        for step in retelling.steps(read(folder)):
            if not retelling.deterministic:
                raise Incomparable("the tuner or the assessor says that it is not deterministic")
            _count(found, step)
            if not found.ok:
                found.divergence += retelling.made_by
                break
    except Incomparable as error:
        return Decisions(note=f"not comparable: {error}")
    return found


def read(folder: Folder) -> Iterator[Fact]:
    """The facts of a log, read-only. `TuneError` when it can't be read."""
    try:
        with Reader(folder.events) as reader:
            for row in reader.rows():
                yield decode(row)
    except (LogError, ValueError) as error:
        raise TuneError(str(error), f"tune verify {folder.id} says more.") from error


def _count(found: Decisions, step: Step) -> None:
    event = step.fact.event
    if step.difference:
        found.ok, found.first_bad_seq = False, step.fact.seq
        found.divergence = f"event {step.fact.seq} ({event.KIND}): {step.difference}"
    elif isinstance(event, Parameter):
        found.suggestions += 1
    elif isinstance(event, Kill):
        found.verdicts += 1
    else:
        found.others += 1


def odd(fact: Fact) -> TuneError:
    """The error for an event that can't be folded: its chain may be right, but whoever wrote it was no engine."""
    return TuneError(f"event {fact.seq} ({fact.event.KIND}) does not fit what stands before it")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
