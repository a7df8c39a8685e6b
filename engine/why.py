"""Why a trial has its parameters, why it was stopped, why it waits or ended: read off the log, or asked again.

A decision record is what the tuner wrote down about an answer. Where the log holds none, the tuner is asked again from
the log alone, and its record is taken if the answer is the recorded one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import registry, views
from .decisions import ODD, Incomparable, Knew, Retelling, odd, read
from .errors import UsageError
from .events import Fact, Kill, Parameter, TrialEnd
from .home import Folder
from .plugins import Observation
from .reduce import reduce
from .replay import knew
from .state import State, Trial


def explain(folder: Folder, number: int, *, again: bool = True) -> dict[str, Any]:
    """Everything that is known about a trial's reasons, for JSON. `TuneError` when the log can't be read.

    `phases`: where each one's parameters come from; `record` is the decision record, `source` "log", "recomputed" or
    "", and `note` says why there is none. `again`: whether the tuner, which may be the user's code, is run for that.
    `stops` are intents to end it, `ends` its attempts' ends.
    """
    told = _Told(number)
    for fact in read(folder):
        try:
            told.take(fact)
        except ODD as error:
            raise odd(fact) from error
    one = told.state.trial(number)
    for phase in told.phases:
        if phase["ask"] and not phase["source"]:
            if again:
                _ask_again(folder, phase)
            else:
                phase["note"] = f"the log holds no record; asks the tuner again: tune why {folder.id} {number}"
    return {
        "trial": number,
        "id": one.id,
        "status": one.status,
        "reason": views.reason(told.state, one),
        "attempt": one.attempt,
        "origin": one.origin,
        "tuner": told.state.settings.tuner.title,
        "assessor": told.state.settings.assessor.title if told.state.settings.assessor is not None else None,
        "phases": told.phases,
        "stops": told.stops,
        "ends": told.ends,
        "results": [_result(phase_number, one) for phase_number in range(len(one.phases))],
    }


class _Told:
    """One pass over the log, with an eye on one trial."""

    def __init__(self, number: int) -> None:
        self.state = State()
        self.state.tell = self.state.tell_intermediates = True
        self.phases: list[dict[str, Any]] = []
        self.stops: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self._number = number
        self._pending: list[Observation] = []
        self._knew = Knew()

    def take(self, fact: Fact) -> None:
        """Fold one fact, and note what it says about the trial."""
        state = self.state
        if fact.trial == self._number:
            match fact.event:
                case Parameter():
                    self._phase(fact, fact.event)
                case Kill():
                    self._stop(fact, fact.event)
                case TrialEnd():
                    event = fact.event
                    self.ends.append(
                        {
                            "event": fact.seq,
                            "attempt": event.attempt,
                            "status": event.status,
                            "reason": event.reason,
                            "exit_code": event.exit_code,
                        }
                    )
                case _:
                    pass
        reduce(state, fact)
        self._pending += state.queues.news
        state.queues.news = []

    def _tuner_reads_all(self) -> bool:
        """Whether the tuner observed intermediates too; of a user's class this is not known without running it."""
        name = self.state.settings.tuner.name
        if not name:
            return False
        try:
            return getattr(registry.find("tuner", name)[1], "observes", "results") == "intermediates"
        except UsageError:  # it is not installed here
            return False

    def _known(self, seen: int, everything: bool) -> dict[str, Any]:
        mode = self.state.settings.optimize_mode
        ready = [fact for fact in self._pending if fact.seq <= seen]
        self._pending = self._pending[len(ready) :]
        for fact in ready:
            self._knew.take(fact, mode)
        known = knew(self._knew)
        return known if everything else {**known, "intermediates": 0}

    def _phase(self, fact: Fact, event: Parameter) -> None:
        record = _record(bytes(event.decision))
        self.phases.append(
            {
                "phase": event.phase,
                "event": fact.seq,
                "ask": event.ask or None,
                "seen": event.seen,
                "knew": self._known(event.seen, self._tuner_reads_all()) if event.ask else None,
                "parameters": event.parameters,
                "continues": event.continues,
                "budget": event.budget,
                "parents": event.parents,
                "record": record,
                "source": "log" if record is not None else "",
                "note": "" if event.ask else "queued by hand: no tuner was asked",
            }
        )

    def _stop(self, fact: Fact, event: Kill) -> None:
        self.stops.append(
            {
                "event": fact.seq,
                "attempt": event.attempt,
                "by": event.reason,
                "actor": event.actor,
                "why": event.why,
                "knew": self._known(event.seen, True) if event.seen is not None else None,
            }
        )


def _ask_again(folder: Folder, phase: dict[str, Any]) -> None:
    """Get the record that the log lacks from the tuner itself, or say why that can't be."""
    ask: int = phase["ask"]
    try:
        for step in Retelling(folder, since=ask).steps(read(folder)):
            if step.put is None or step.put.number != ask or not isinstance(step.fact.event, Parameter):
                continue
            record = _record(step.now.decision.encode())
            if (step.now.answer, step.now.parameters) != (step.then.answer, step.then.parameters):
                phase["note"] = f"the log holds no record, and it can't be computed again: {step.difference}"
            elif record is None:
                phase["note"] = "this tuner leaves no record of its reasons"
            else:
                phase["record"], phase["source"] = record, "recomputed"
            return
    except Incomparable as error:
        phase["note"] = f"the log holds no record, and it can't be computed again: {error}"


def _record(text: bytes) -> msgspec.Raw | None:
    return msgspec.Raw(text) if text else None


def _result(number: int, one: Trial) -> dict[str, Any]:
    phase = one.phases[number]
    return {
        "phase": number,
        "value": None if phase.value is None else views.number(phase.value),
        "intermediates": len(phase.intermediate),
    }
