"""Replaying a tuner over a log: three planted bugs are found at the first wrong answer; others, ranges, debugger."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tune.engine import decisions, home
from tune.engine.ask_tell import AskTell
from tune.engine.config import Algorithm
from tune.engine.decisions import Knew, check_decisions
from tune.engine.errors import TuneError, UsageError
from tune.engine.plugins import Ended, Imported, Reported, Suggested
from tune.engine.replay import LeftDebugger, Replay, named, plain
from tune.engine.views import to_json

SPACE = {"x": {"_type": "uniform", "_value": [0, 1000]}}

BUGS = '''
import random
from tune.engine.plugins import Ended, Suggestion


class Good:
    def __init__(self):
        self.ended = []

    def observe(self, fact):
        if isinstance(fact, Ended):
            self.ended.append(fact.trial)

    def suggest(self, ask):
        return Suggestion({"x": self.x(ask)}, decision={"ended": len(self.ended)})

    def x(self, ask):
        return ask.generator().random()


class Leaks(Good):
    """suggest learns: from the third ask on it goes by what it has said itself."""

    given = ()

    def x(self, ask):
        self.given = (*self.given, ask.number)
        return len(self.given) if len(self.ended) >= 2 else ask.number / 10


class Unseeded(Good):
    """From the third result on it throws dice of its own."""

    def x(self, ask):
        return random.random() if len(self.ended) >= 3 else ask.number / 10


class SetOrder(Good):
    """From the second result on it takes the points in the order of a set of texts."""

    def x(self, ask):
        texts = [f"trial {number}" for number in range(40)]
        if len(self.ended) < 2:
            return ask.number / 10
        return sum(place * texts.index(text) for place, text in enumerate(set(texts))) % 997
'''
FIRST_WRONG = {"Leaks": 3, "Unseeded": 4, "SetOrder": 3}  # the ask


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    (tmp_path / "bugs.py").write_text(BUGS)
    monkeypatch.delitem(sys.modules, "bugs", raising=False)
    return tmp_path / "home"


def ran(name: str, tuner: str, tmp_path: Path, hash_seed: str = "1") -> home.Folder:
    """A log of eight trials, made by another process."""
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import bugs
from tune import AskTell
study = AskTell({SPACE!r}, getattr(bugs, {tuner!r}, {tuner!r}), "minimize", seed=1, log={name!r})
for _ in range(8):
    trial = study.ask()
    study.tell(trial, trial.parameters["x"])
"""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return home.find(name)


@pytest.mark.parametrize("bug", FIRST_WRONG)
def test_a_planted_bug_is_found_at_the_first_wrong_answer(bug: str, tmp_path: Path) -> None:
    folder = ran("wrong", bug, tmp_path)
    steps = list(Replay(folder).steps())
    wrong = [step.put.number for step in steps if step.difference and step.put is not None]
    assert wrong[0] == FIRST_WRONG[bug] and len(steps) == 8
    found = check_decisions(folder)
    assert (found.ok, found.suggestions) == (False, FIRST_WRONG[bug] - 1)
    assert f"trial {FIRST_WRONG[bug] - 1}, parameters" in found.divergence


def test_a_good_one_comes_out_the_same_from_any_ask_on(tmp_path: Path) -> None:
    folder = ran("good", "Good", tmp_path)
    for since, until, count in ((1, None, 8), (5, None, 4), (3, 6, 4), (9, None, 0)):
        steps = list(Replay(folder, since=since, until=until).steps())
        assert [step.put and step.put.number for step in steps] == list(range(since, since + count))
        assert not any(step.difference for step in steps)
        assert all(step.knew.results == step.trial == step.knew.points for step in steps)


def test_beyond_the_budget_one_tuner_is_asked_on_and_a_leak_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "FRESH", 0)
    assert not any(step.difference for step in Replay(ran("good", "Good", tmp_path)).steps())
    folder = ran("leaks", "Leaks", tmp_path)
    assert any(step.difference for step in Replay(folder, since=4).steps())


def test_another_tuner_is_asked_at_the_same_points_and_knows_the_same(tmp_path: Path) -> None:
    folder = ran("tpe", "TPE", tmp_path)
    other = list(Replay(folder, tuner=Algorithm(name="Random", class_args={"seed": 7})).steps())
    assert len(other) == 8 and not any(step.difference for step in other)
    assert all(step.now.parameters != step.then.parameters for step in other)
    best = min(plain(step)["knew"]["best"] for step in other[1:])
    assert other[7].knew.best == best
    mine = named(f"{tmp_path}/bugs.py:Good", {})
    assert [step.now.answer for step in Replay(folder, tuner=mine).steps()] == ["suggestion"] * 8


def test_which_tuner_is_meant(tmp_path: Path) -> None:
    assert named("tpe", {"seed": 1}) == Algorithm(name="TPE", class_args={"seed": 1})
    mine = named(f"{tmp_path}/bugs.py:Good", {})
    assert (mine.class_name, mine.code_directory, mine.is_users) == ("bugs.Good", str(tmp_path), True)
    for text, arguments, said in (
        ("tpo", {}, "unknown tuner"),
        ("TPE", {"sed": 1}, "sed: unknown argument"),
        ("nothere.py:Good", {}, "there is no nothere.py:Good"),
        (f"{tmp_path}/bugs.py:not-a-name", {}, "there is no"),
    ):
        with pytest.raises(UsageError, match=said):
            named(text, arguments)


def test_a_class_that_is_not_there_or_fails_is_said(tmp_path: Path) -> None:
    folder = ran("good", "Good", tmp_path)
    with pytest.raises(TuneError, match="no attribute 'Gone'"):
        list(Replay(folder, tuner=named(f"{tmp_path}/bugs.py:Gone", {})).steps())
    (tmp_path / "bugs.py").write_text(BUGS.replace("return ask.generator().random()", "raise KeyError('x')"))
    del sys.modules["bugs"]
    [first, *_] = Replay(folder).steps()
    assert first.now.answer == "failed" and "KeyError" in first.difference and "in x" in first.now.traceback


def test_code_of_a_foreign_log_is_not_run_unless_it_is_named(tmp_path: Path, at_home: Path) -> None:
    folder = ran("mine", "Good", tmp_path)
    elsewhere = tmp_path / "elsewhere"
    folder.path.rename(elsewhere)
    (tmp_path / "bugs.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n" + BUGS)
    foreign = home.find(str(elsewhere))
    before = [(elsewhere / name).read_bytes() for name in ("events.db", "events.head")]
    with pytest.raises(TuneError, match=r"not in your \$TUNE_HOME"):
        list(Replay(foreign).steps())
    assert check_decisions(foreign).note.startswith("not comparable")
    assert not (tmp_path / "ran").exists()
    assert len(list(Replay(foreign, tuner=named("Random", {})).steps())) == 8
    assert not (tmp_path / "ran").exists()
    assert len(list(Replay(foreign, tuner=named(f"{tmp_path}/bugs.py:Good", {})).steps())) == 8
    assert (tmp_path / "ran").exists()
    assert [(elsewhere / name).read_bytes() for name in ("events.db", "events.head")] == before


def test_a_log_that_is_still_written_is_replayed_as_far_as_it_goes(tmp_path: Path) -> None:
    with AskTell(SPACE, "Random", seed=0, log="live") as study:
        for count in range(1, 4):
            study.ask()
            assert len(list(Replay(home.find("live")).steps())) == count


def debugged(replay: Callable[[], object], commands: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a debugger said that was fed with these commands."""
    output = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(commands))
        patch.setattr(sys, "stdout", output)
        replay()
    return output.getvalue()


def test_the_debugger_stops_inside_suggest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ran("good", "Good", tmp_path)
    made = Replay(folder, since=3, until=4, debug=True)
    numbers: list[int] = []
    said = debugged(
        lambda: numbers.extend(step.put.number for step in made.steps() if step.put),
        "p ask.number, self.ended\nc\n",
        monkeypatch,
    )
    assert "bugs.py" in said and "(3, [0, 1])" in said and numbers == [3, 4]
    steps = Replay(folder)
    last = list(steps.steps())[-1]
    said = debugged(lambda: steps.inside(last), "p self.ended\nc\n", monkeypatch)
    assert "[0, 1, 2, 3, 4, 5, 6]" in said
    with pytest.raises(LeftDebugger):
        debugged(lambda: steps.inside(last), "q\n", monkeypatch)


def test_what_was_known_is_counted_by_kind() -> None:
    known = Knew()
    for fact in (
        Suggested(3, 0, 0, {}),
        Reported(4, 0, 0, 0, 9.0),
        Ended(5, 0, 0, "completed", 2.0),
        Suggested(6, 1, 0, {}),
        Ended(7, 1, 0, "completed", 1.0),
        Suggested(8, 2, 0, {}),
        Ended(9, 2, 0, "stopped", 0.5),
        Imported(10, {}, 0.1),
    ):
        known.take(fact, "minimize")
    assert known == Knew(10, 3, 2, 1, 1, 1, 1.0, 1)
    assert b"best_trial" in to_json({"best_trial": known.best_trial})
