"""What a tuner observes when it is rebuilt: a log's observations, for a stateful one with the asks among them.

Pure: facts in, observations out. A serial tuner answered each ask right after the observations up to `seen`, so there
its asks stand. A concurrent one was given an ask as soon as it was requested, and may have answered much later.
"""

from __future__ import annotations

from collections.abc import Iterable

from .events import Exhausted, Fact, NotYet, Parameter, RequestParameter
from .plugins import Asked, Observation
from .reduce import reduce
from .state import State


def past(
    facts: Iterable[Fact], *, intermediates: bool, stateful: bool = False, concurrent: bool = False
) -> list[Observation]:
    """The observations of a log's facts, from its first one on, in the order in which they are observed."""
    state = State()
    state.tell, state.tell_intermediates, state.tell_more = True, intermediates, stateful
    asks: list[Asked] = []
    for fact in facts:
        asked = _asked(state, fact, concurrent) if stateful else None
        if asked is not None:
            asks.append(asked)
        reduce(state, fact)
    return _merged(state.queues.news, asks)


def _asked(state: State, fact: Fact, concurrent: bool) -> Asked | None:
    """The ask whose place this fact tells."""
    event = fact.event
    if isinstance(event, RequestParameter):
        if not concurrent or not event.ask or event.refused or fact.trial is None:
            return None
        name = state.trial(fact.trial).id if event.number else ""
        return Asked(fact.seq, event.ask, 0, fact.trial, name, event.phase)
    if not isinstance(event, Parameter | NotYet | Exhausted):
        return None
    ask = state.asks.get(event.ask)
    if ask is None or (concurrent and not ask.attempt):
        return None
    name = state.trial(ask.trial).id if ask.sender else ""
    answer = "wait" if isinstance(event, NotYet) else "exhausted"
    if isinstance(event, Parameter):
        answer = bytes(event.parameters).decode()
    return Asked(event.seen, ask.number, ask.attempt, ask.trial, name, ask.phase, "" if concurrent else answer)


def _merged(news: list[Observation], asks: list[Asked]) -> list[Observation]:
    """Each ask right after the observations up to its `seq`."""
    if not asks:
        return news
    found: list[Observation] = []
    read = 0
    for ask in sorted(asks, key=lambda ask: ask.seq):
        while read < len(news) and news[read].seq <= ask.seq:
            found.append(news[read])
            read += 1
        found.append(ask)
    return found + news[read:]
