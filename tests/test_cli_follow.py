"""What a follower shows: the live view's lines, the plain ones, the spark line, the last line and the exit code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tune.cli import follow
from tune.engine import config, progress
from tune.engine.config import Config
from tune.engine.errors import TuneError
from tune.engine.events import (
    EngineStarted,
    Event,
    Exhausted,
    Experiment,
    Fact,
    Host,
    Launch,
    Launched,
    Metric,
    NewTrial,
    NotYet,
    Parameter,
    RequestParameter,
    Status,
    Stop,
    TrialEnd,
    TunerError,
)
from tune.engine.home import Folder
from tune.engine.reduce import reduce
from tune.engine.state import State

NOWHERE = Folder("story", Path("/nonexistent"), Path("/nonexistent"))


class Story:
    """An experiment told fact by fact."""

    def __init__(self, **settings: Any) -> None:
        self.state = State()
        self.facts: list[Fact] = []
        given: dict[str, Any] = {"trial_command": "true", "trial_code_directory": "/tmp", **settings}
        self.say(Experiment("story", Raw(config.encode(Config(search_space={}, **given))), 7))
        self.say(EngineStarted("here", 4711, 0))
        self.say(Status("RUNNING"))
        self.say(Host("here", "connected", 0, 4712))

    def say(self, event: Event, trial: int | None = None, sender: str = "e1") -> None:
        seq = len(self.facts) + 1
        fact = Fact(seq, 1, sender, seq, trial, None, seq * 1_000_000, event)
        self.facts.append(fact)
        reduce(self.state, fact)

    def trial(self, number: int, *reports: str, final: str = "", end: str = "SUCCEEDED") -> None:
        self.say(RequestParameter(number + 1), number)
        self.say(NewTrial(f"t{number:04}"), number)
        self.say(Parameter(number + 1, Raw(b'{"x":%d}' % number), len(self.facts)), number)
        self.say(Launch(0, "here"), number)
        self.say(Launched(0, 5000 + number, 0, 60_000_000), number)
        for value in reports:
            self.say(Metric(Raw(value.encode())), number, f"t{number:04}.0.1")
        if final:
            self.say(Metric(Raw(final.encode()), final=True), number, f"t{number:04}.0.1")
        if end:
            code = int(end == "FAILED")
            self.say(TrialEnd(0, end, code, "exit code 1" if code else "", "Boom\x1b[2J\n" if code else ""), number)

    def lines(self, columns: int = 100) -> dict[str, str]:
        results = [phase.value for one in self.state.made for phase in one.phases if phase.value is not None]
        return dict(progress.frame(self.state, results, "", 61_000_000, columns))


# -- the live view ----------------------------------------------------------------------------------------------------
def test_the_live_view_counts_and_shows_the_best() -> None:
    story = Story(max_trial_number=10, experiment_name="evil\x1b[2J")
    story.trial(0, "0.1", final="0.5")
    story.trial(1, final="0.75")
    story.trial(2, end="FAILED")
    story.trial(3, "0.25", end="")
    lines = story.lines()
    assert lines["tune"] == "story  evil\\x1b[2J  1m 01s"
    assert lines["trials"] == "4 of 10: 2 done, 1 running, 1 failed"
    assert lines["best"] == "0.75  trial 1" and lines[""] == '{"x": 1}'
    assert lines["results"] == "▁█  0.5 to 0.75"
    assert lines["tuner"] == "TPE: waits for results"


def test_the_live_view_before_anything_is_there_and_in_a_narrow_terminal() -> None:
    story = Story()
    assert story.lines()["best"] == "no result yet" and story.lines()["results"] == "-"
    story.trial(0, "1", "2", "3", end="")
    assert story.lines()["reports"] == "▁▅█  3"
    story.say(Host("here", "disconnected", 0, 0, "gone"))
    assert story.lines()["host"] == "here is DISCONNECTED: gone"
    for columns in (1, 12, 30):
        assert all(len(text) <= max(columns - 12, 10) for text in story.lines(columns).values())


def test_what_the_tuner_does() -> None:
    story = Story(trial_concurrency=2)
    assert progress.tuner_does(story.state) == "is not asked"
    story.say(RequestParameter(1), 0)
    story.say(RequestParameter(2), 1)
    assert progress.tuner_does(story.state) == "is choosing the next parameters; 2 wait"
    story.say(NotYet(1, 5, "first results"), 0)
    story.say(NotYet(2, 5, "first results"), 1)
    assert progress.tuner_does(story.state) == "has nothing yet (first results); 2 wait"
    story.say(TunerError("ValueError: no", ask=1))
    assert progress.tuner_does(story.state) == "failed 1 times in a row: ValueError: no"
    story.say(Exhausted(1, 5, "all points are tried"), 0)
    assert progress.tuner_does(story.state) == "has nothing more (all points are tried)"


@given(st.lists(st.floats()))
def test_a_spark_line_has_a_block_for_each_number(values: list[float]) -> None:
    line = progress.spark(values)
    assert len(line) == len(values)
    assert all((block == " ") == (not math.isfinite(value)) for block, value in zip(line, values, strict=True))
    finite = sorted((value, block) for value, block in zip(values, line, strict=True) if math.isfinite(value))
    assert [block for _, block in finite] == sorted(block for _, block in finite)


def test_a_live_screen_takes_results_from_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    story = Story()
    story.trial(0, final="0.5")
    screen = follow.Live(story.state)
    try:
        screen.begin(story.state, ())
        known = len(story.facts)
        story.trial(1, final="0.25")
        story.trial(2, final='"NaN"')
        screen.show(story.state, story.facts[known:])
        assert screen._results == [0.5, 0.25]
        assert screen._last.startswith("trial 2 SUCCEEDED - ")
    finally:
        screen.close()


# -- plain lines ------------------------------------------------------------------------------------------------------
def test_plain_lines_say_each_ended_trial_once(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(max_retries=1)
    story.trial(0, final="0.5")
    before = follow.ends_of(story.state)
    story.trial(1, final="0.25")
    screen = follow.Plain()
    screen.begin(story.state, before)
    known = len(story.facts)
    story.trial(2, end="FAILED")  # gets another attempt, so it has not ended
    story.trial(3, "1", end="")
    screen.show(story.state, story.facts[known:])
    assert capsys.readouterr().out == 'trial 1 SUCCEEDED 0.25 {"x": 1}\n'


def test_a_failed_trial_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    story.trial(0, end="FAILED")
    assert progress.trial_line(story.state, story.state.trial(0)) == 'trial 0 FAILED - {"x": 0}  (exit code 1)'


def test_a_multi_phase_trial_shows_its_best_phase() -> None:
    story = Story(multi_phase=True, optimize_mode="minimize")
    story.trial(0, final="0.5", end="")
    story.say(RequestParameter(9, phase=1), 0)
    story.say(Parameter(9, Raw(b'{"x":7}'), 1, phase=1), 0)
    story.say(Metric(Raw(b"0.25"), phase=1, final=True), 0, "t0000.0.1")
    assert progress.trial_line(story.state, story.state.trial(0)) == 'trial 0 RUNNING 0.25 of 2 phases {"x": 7}'


# -- the end ----------------------------------------------------------------------------------------------------------
def test_the_last_line() -> None:
    story = Story()
    story.say(Status("DONE"))
    assert progress.last_line(story.state) == "DONE no result"
    story = Story()
    story.trial(0, final="0.961")
    story.say(Status("DONE"))
    assert progress.last_line(story.state) == 'DONE best 0.961 trial 0 {"x": 0}'
    story.say(Status("PAUSED", "all failed\nBoom"))
    assert progress.last_line(story.state) == "PAUSED: all failed"


def test_the_last_line_of_several_objectives() -> None:
    story = Story(objectives={"accuracy": "maximize", "latency": "minimize"}, outcome_constraints=["latency < 50"])
    story.trial(0, final='{"accuracy":0.5,"latency":60}')
    story.say(Status("DONE"))
    nearest = "trial 0 comes nearest, it fails the outcome constraints by 10"
    assert progress.last_line(story.state) == f"DONE no feasible result: {nearest}"
    assert story.lines()["best"] == f"no feasible result yet: {nearest}"
    assert progress.trial_line(story.state, story.state.trial(0)) == (
        'trial 0 SUCCEEDED accuracy=0.5,latency=60 {"x": 0}  (fails the outcome constraints by 10)'
    )
    story.trial(1, final='{"accuracy":0.25,"latency":5}')
    story.trial(2, final='{"accuracy":0.75,"latency":20}')
    assert progress.last_line(story.state) == "DONE pareto 2 trials 2 1"
    lines = story.lines()
    assert lines["best"] == "2 results on the Pareto front"
    assert lines[""] == "accuracy 0.25 to 0.75, latency 5 to 20"


def test_the_last_line_without_a_feasible_result() -> None:
    story = Story(outcome_constraints=["latency <= 10"])
    story.trial(0, final="0.5")
    story.trial(1, final='{"default":0.1,"latency":12}')
    story.say(Status("DONE"))
    by = "it fails the outcome constraints by 2"
    assert progress.last_line(story.state) == f"DONE no feasible result: trial 1 comes nearest, {by}"
    lacks = "(fails the outcome constraints: it lacks a number that they ask for)"
    assert progress.trial_line(story.state, story.state.trial(0)) == f'trial 0 SUCCEEDED 0.5 {{"x": 0}}  {lacks}'


def test_a_multi_phase_trial_shows_its_feasible_phase() -> None:
    story = Story(multi_phase=True, outcome_constraints=["latency <= 10"])
    story.trial(0, final='{"default":0.9,"latency":11}', end="")
    story.say(RequestParameter(9, phase=1), 0)
    story.say(Parameter(9, Raw(b'{"x":7}'), 1, phase=1), 0)
    story.say(Metric(Raw(b'{"default":0.25,"latency":1}'), phase=1, final=True), 0, "t0000.0.1")
    assert progress.trial_line(story.state, story.state.trial(0)) == 'trial 0 RUNNING 0.25 of 2 phases {"x": 7}'


def ended(*statuses: str, end: str = "DONE") -> State:
    story = Story()
    for number, status in enumerate(statuses):
        story.trial(number, final="1" if status == "SUCCEEDED" else "", end=status)
    if end == "STOPPED":
        story.say(Stop("me"))
    story.say(Status(end, "why\nmore"))
    return story.state


@pytest.mark.parametrize(
    ("state", "interrupted", "code"),
    [
        (ended("SUCCEEDED", "FAILED"), False, 0),
        (ended("SUCCEEDED"), True, 0),
        (ended("FAILED", "LOST"), False, 1),
        (ended(), False, 0),
        (ended("SUCCEEDED", end="STOPPED"), True, 130),
        (ended("SUCCEEDED", end="STOPPED"), False, 1),
        (ended("SUCCEEDED", end="PAUSED"), False, 1),
        (ended("SUCCEEDED", end="ERROR"), False, 1),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_exit_codes(
    state: State, interrupted: bool, code: int, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow.conclude(state, NOWHERE, interrupted, as_json) == code
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    if as_json:
        assert json.loads(out)["status"] == state.status
    else:
        assert out.startswith(state.status) and out.count("\n") == 1


def test_an_engine_that_died_is_said() -> None:
    story = Story()
    story.trial(0, end="")
    with pytest.raises(TuneError, match="the engine died") as caught:
        follow.conclude(story.state, NOWHERE, False, False)
    assert caught.value.hint == "Go on with: tune resume story"
