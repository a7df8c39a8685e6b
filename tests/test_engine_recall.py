"""engine/recall.py: what a rebuilt tuner observes, asks included."""

from collections.abc import Iterator

from msgspec import Raw

from tune.engine import config, recall
from tune.engine.config import Config
from tune.engine.events import (
    EngineStarted,
    Event,
    Exhausted,
    Experiment,
    Fact,
    Launch,
    Launched,
    Metric,
    NewTrial,
    NotYet,
    Parameter,
    RequestParameter,
    TrialEnd,
)
from tune.engine.plugins import Asked, Ended, Observation, Suggested, TrialEnded

SETTINGS = Config(search_space={}, trial_command="true", trial_code_directory="/", multi_phase=True)


def facts() -> Iterator[Fact]:
    """Two trials; the second one's ask was answered with "nothing yet" first; trial 0 asks for a second phase."""
    events: list[tuple[Event, int | None, str]] = [
        (Experiment("abcdefgh", Raw(config.encode(SETTINGS)), 7), None, ""),
        (EngineStarted("here", 1, 0), None, ""),
        (RequestParameter(1), 0, ""),  # 3
        (RequestParameter(2), 1, ""),  # 4
        (NewTrial("t0000"), 0, ""),
        (Parameter(1, Raw(b'{"x":1}'), 0), 0, ""),  # 6
        (NotYet(2, 6, "later"), 1, ""),  # 7
        (Launch(0, "local"), 0, ""),
        (Launched(0, 9, 0, 0), 0, ""),
        (Metric(Raw(b"2"), 0, True), 0, "t0000.0.p"),  # 10
        (NewTrial("t0001"), 1, ""),
        (Parameter(2, Raw(b'{"x":2}'), 10), 1, ""),  # 12
        (RequestParameter(3, 1, number=2), 0, "t0000.0.p"),  # 13
        (Exhausted(3, 12, "done", trial=True), 0, ""),  # 14
        (TrialEnd(0, "SUCCEEDED", 0), 0, ""),  # 15
    ]
    numbers: dict[str, int] = {}
    for seq, (event, trial, sender) in enumerate(events, 1):
        name = sender or "e1"
        numbers[name] = numbers.get(name, 0) + 1
        yield Fact(seq, 1, name, numbers[name], trial, None, 0, event)


def told(observations: list[Observation]) -> list[object]:
    """The observations, short."""
    found: list[object] = []
    for one in observations:
        match one:
            case Asked():
                found.append(("ask", one.number, one.attempt, one.trial_id, one.phase, one.answer))
            case Suggested():
                found.append(("suggested", one.ask))
            case Ended():
                found.append(("ended", one.trial, one.raw))
            case TrialEnded():
                found.append(("over", one.trial, one.status))
            case _:
                found.append(one)
    return found


def test_a_tuner_that_learns_from_facts_alone_gets_no_more() -> None:
    assert told(recall.past(facts(), intermediates=False)) == [("suggested", 1), ("ended", 0, ""), ("suggested", 2)]


def test_a_serial_one_gets_each_ask_where_it_was_answered() -> None:
    assert told(recall.past(facts(), intermediates=False, stateful=True)) == [
        ("ask", 1, 0, "", 0, '{"x":1}'),
        ("suggested", 1),
        ("ask", 2, 0, "", 0, "wait"),
        ("ended", 0, "2"),
        ("ask", 2, 1, "", 0, '{"x":2}'),
        ("suggested", 2),
        ("ask", 3, 0, "t0000", 1, "exhausted"),
        ("over", 0, "SUCCEEDED"),
    ]


def test_a_concurrent_one_gets_each_ask_where_it_was_requested() -> None:
    assert told(recall.past(facts(), intermediates=False, stateful=True, concurrent=True)) == [
        ("ask", 1, 0, "", 0, ""),
        ("ask", 2, 0, "", 0, ""),
        ("suggested", 1),
        ("ended", 0, "2"),
        ("ask", 2, 1, "", 0, ""),
        ("suggested", 2),
        ("ask", 3, 0, "t0000", 1, ""),
        ("over", 0, "SUCCEEDED"),
    ]
