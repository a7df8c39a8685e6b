"""Ask and tell in a program: the rules of trials and values, threads, tuners of every kind, the log as the truth."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tune
from tune.engine import home
from tune.engine.ask_tell import AskTell, NoMoreTrials, NoTrialYet, StudyEnded, Trial, TunerBroke
from tune.engine.client import View, ask, write_offline
from tune.engine.decisions import check_decisions
from tune.engine.errors import TuneError, UsageError
from tune.engine.plugins import Ask, Ended, Exhausted, Stopped, Suggestion, Wait
from tune.engine.requests import AskImport, AskKill, AskStop, AskUpdate
from tune.engine.state import State
from tune.engine.verify import verify

SPACE = {"x": {"_type": "uniform", "_value": [-1, 1]}}


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def replayed(name: str) -> State:
    """What the log alone tells."""
    view = View(home.find(name))
    try:
        return view.state
    finally:
        view.close()


# -- trials and values ------------------------------------------------------------------------------------------------
def test_a_study_finds_a_minimum_and_the_same_seed_finds_the_same() -> None:
    found: list[list[float]] = []
    for _ in range(2):
        study = AskTell(SPACE, optimize_mode="minimize", seed=3)
        for _ in range(40):
            trial = study.ask()
            study.tell(trial, trial.parameters["x"] ** 2)
        best = study.best
        assert best is not None and best.value < 0.01 and best.value == best.parameters["x"] ** 2
        assert study.trials[best.number].value == best.value
        found.append([trial.parameters["x"] for trial in study.trials])
    assert found[0] == found[1] and len(set(found[0])) == 40
    assert "TPE, 40 trials" in repr(study)


def test_the_default_is_to_maximize() -> None:
    study = AskTell(SPACE, "Random", seed=0)
    for value in (1.0, 3.0, 2.0):
        study.tell(study.ask(), value)
    assert study.best is not None and (study.best.number, study.best.value) == (1, 3.0)


@pytest.mark.parametrize("log", [None, "kept"])
def test_what_can_not_be_told_is_a_value_error_and_changes_nothing(log: str | None) -> None:
    study, other = AskTell(SPACE, "Random", seed=0, log=log), AskTell(SPACE, "Random", seed=1)
    trial, stranger = study.ask(), other.ask()
    before = study._state.seq
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: study.tell(1, 1.0), "there is no trial 1"),
        (lambda: study.tell(-1, 1.0), "there is no trial -1"),
        (lambda: study.tell("0", 1.0), "is no trial"),  # type: ignore[arg-type]
        (lambda: study.tell(stranger, 1.0), "of another study"),
        (lambda: study.tell(trial), "needs a value"),
        (lambda: study.tell(trial, 1.0, failed=True), "one of them"),
        (lambda: study.tell(trial, object()), "JSON does not know it"),
        (lambda: study.tell(trial, 2**70), "64 bits"),
        (lambda: study.report(trial, "x" * (1 << 20)), "limit"),
        (lambda: study.report(5, 1.0), "there is no trial 5"),
        (lambda: study.should_stop(5), "there is no trial 5"),
        (lambda: study.enqueue({"x": 2}), "outside the search space"),
        (lambda: study.enqueue({"y": 0.0}), "outside the search space"),
    ]
    for call, said in wrong:
        with pytest.raises(ValueError, match=said):
            call()
    assert study._state.seq == before
    study.tell(trial, 1.0)
    for call in (lambda: study.tell(trial, 2.0), lambda: study.report(trial, 1.0), lambda: study.tell(0, failed=True)):
        with pytest.raises(ValueError, match="has ended already: SUCCEEDED"):
            call()
    assert study.trials[0].value == 1.0
    study.close()


def test_values_follow_the_rules_of_trials() -> None:
    study = AskTell(SPACE, "Random", seed=0)
    told: list[tuple[Any, float | None]] = [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(2.0), 2.0),
        ({"default": np.float64(0.25), "loss": 9}, 0.25),
        ({"loss": 9}, None),
        (math.nan, None),
        (math.inf, None),
        ("good", None),
    ]
    for value, counted in told:
        trial = study.ask()
        study.tell(trial, value)
        seen = study.trials[trial.number]
        assert (seen.status, seen.value) == ("SUCCEEDED", counted)
    assert "no finite number" in study.trials[5].reason
    failed = study.ask()
    study.tell(failed, failed=True, error="out of memory")
    assert study.trials[failed.number].reason == "told as failed\nout of memory"
    assert study.best is not None and study.best.value == 3.0


def test_queued_parameters_come_first_and_the_tuner_learns_from_them() -> None:
    study = AskTell(SPACE, "Random", seed=0)
    assert study.enqueue({"x": 0.5}) == 0
    first, second = study.ask(), study.ask()
    assert (first.number, first.parameters) == (0, {"x": 0.5})
    assert second.number == 1 and second.parameters != {"x": 0.5}


def test_a_limit_and_a_spent_tuner_end_the_study() -> None:
    study = AskTell(SPACE, "Random", seed=0, max_trial_number=2)
    trials = [study.ask(), study.ask()]
    with pytest.raises(NoMoreTrials, match="max_trial_number 2"):
        study.ask()
    assert study.status == "NO_MORE_TRIAL"
    with pytest.raises(ValueError, match="max_trial_number is 2"):
        study.enqueue({"x": 0})
    for trial in trials:
        study.tell(trial, 1.0)
    assert study.status == "DONE"
    grid = AskTell({"a": {"_type": "choice", "_value": [1, 2]}}, "GridSearch", seed=0)
    points = {grid.ask().parameters["a"] for _ in range(2)}
    assert points == {1, 2}
    for _ in range(2):
        with pytest.raises(NoMoreTrials, match="no further trial"):
            grid.ask()
    for number in range(2):
        grid.tell(number, 0.0)
    assert grid.status == "DONE"
    assert grid.enqueue({"a": 1}) == 2  # a person may still want one
    assert (grid.ask().number, grid.status) == (2, "RUNNING")


def test_wrong_arguments_are_named_and_nothing_is_left(at_home: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"search_space": {"x": {"_type": "uniform", "_value": [2, 1]}}}, "x"),
        ({"search_space": {"x": object()}}, "search_space"),
        ({"tuner": "Tpo"}, "unknown tuner"),
        ({"tuner": object()}, "no method suggest"),
        ({"tuner": Late(), "n": 1}, "beside an object"),
        ({"tuner": Late, "m": 1}, "unknown argument"),
        ({"assessor": "Median"}, "unknown assessor"),
        ({"assessor": Late}, "no method verdict"),
        ({"tpe_arg": 1}, "unknown argument"),
        ({"optimize_mode": "min"}, "allowed: maximize, minimize"),
        ({"max_trial_number": 0}, "1 or more"),
        ({"constraints": ["x <"]}, "constraints"),
        ({"log": "no/id"}, "no experiment id"),
    ]
    for arguments, said in wrong:
        with pytest.raises(UsageError, match=said):
            AskTell(**{"search_space": SPACE, **{"log": "never", **arguments}})
    assert not at_home.exists() or not list(at_home.iterdir())


# -- tuners of all kinds ----------------------------------------------------------------------------------------------
class Late:
    """Wants two results before its third answer, and has four answers."""

    def __init__(self, *, optimize_mode: str = "maximize", n: int = 4) -> None:
        self.mode, self.n, self.results = optimize_mode, n, 0

    def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
        if ask.trial >= self.n:
            return Exhausted("four is enough")
        if ask.trial == 2 and self.results < 2:
            return Wait("two results first")
        return Suggestion({"x": ask.trial / 10}, decision={"mode": self.mode})

    def observe(self, fact: object) -> None:
        self.results += isinstance(fact, Ended)


def test_a_tuner_that_waits_is_asked_again_once_it_knows_more() -> None:
    study = AskTell(SPACE, Late, "minimize")
    first, second = study.ask(), study.ask()
    for _ in range(2):
        with pytest.raises(NoTrialYet, match="two results first"):
            study.ask()
    assert sum(ask.attempt for ask in study._state.asks.values()) == 1  # it was not bothered twice for the same
    study.tell(first, 1.0)
    with pytest.raises(NoTrialYet):
        study.ask(timeout=0.01)
    study.tell(second, 1.0)
    assert (study.ask().number, study.ask().number) == (2, 3)
    with pytest.raises(NoMoreTrials, match="four is enough"):
        study.ask()


def test_another_threads_tell_ends_the_wait() -> None:
    study = AskTell(SPACE, Late())
    trials = [study.ask(), study.ask()]
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(study.ask, None)
        for trial in trials:
            study.tell(trial, 1.0)
        assert third.result(60).number == 2


def test_a_tuner_that_waits_while_nothing_runs_ends_it() -> None:
    class Never(Late):
        def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
            return Wait("for Godot")

    study = AskTell(SPACE, Never)
    for _ in range(2):
        with pytest.raises(NoMoreTrials, match="for Godot"):
            study.ask()
    study.enqueue({"x": 0})
    assert study.ask().number == 1  # the open ask keeps its number
    with pytest.raises(NoTrialYet, match="for Godot"):
        study.ask()


class Judge:
    """Stops what reports less than nothing."""

    def __init__(self) -> None:
        self.last: dict[int, float] = {}

    def observe(self, fact: Any) -> None:
        if type(fact).__name__ == "Reported":
            self.last[fact.trial] = fact.value

    def verdict(self, trial: int) -> Stopped | None:
        return Stopped("it is less than nothing") if self.last[trial] < 0 else None


@pytest.mark.parametrize("log", [None, "judged"])
def test_an_assessor_stops_a_trial(log: str | None) -> None:
    with AskTell(SPACE, "Random", seed=0, assessor=Judge, log=log) as study:
        good, bad, odd = study.ask(), study.ask(), study.ask()
        study.report(good, 1.0)
        study.report(bad, -1.0)
        study.report(odd, -1)
        assert (study.should_stop(good), study.should_stop(bad)) == (False, True)
        study.tell(bad)
        study.tell(good, 2.0)
        study.tell(odd, 5.0)  # it had a result nevertheless: that counts
        assert [seen.status for seen in study.trials] == ["SUCCEEDED", "EARLY_STOPPED", "EARLY_STOPPED"]
        assert study.trials[1].reason == "assessor: it is less than nothing" and study.trials[1].intermediate == [-1.0]
        assert study.best is not None and study.best.number == 2
        assert (study.should_stop(good), study.should_stop(bad)) == (False, True)
    if log is not None:
        assert verify(home.find(log).events).ok


def test_medianstop_by_its_name() -> None:
    study = AskTell(SPACE, "Random", "minimize", seed=0, assessor="Medianstop")
    for _ in range(3):
        trial = study.ask()
        study.report(trial, 1.0)
        study.tell(trial, 1.0)
    trial = study.ask()
    study.report(trial, 2.0)
    assert study.should_stop(trial)


class Moody:
    """Raises where it is told to."""

    def __init__(self) -> None:
        self.bad_at: set[str] = set()

    def suggest(self, ask: Ask) -> Any:
        if "suggest" in self.bad_at:
            raise ValueError("a bad day")
        return Suggestion({"x": 0.5}) if "nonsense" not in self.bad_at else 7

    def observe(self, fact: object) -> None:
        if "observe" in self.bad_at:
            raise ValueError("a worse day")


@pytest.mark.parametrize("log", [None, "moody"])
def test_what_a_tuner_raises_is_raised_and_the_study_goes_on_where_that_is_right(log: str | None) -> None:
    moody = Moody()
    study = AskTell(SPACE, moody, log=log)
    moody.bad_at = {"suggest"}
    with pytest.raises(TunerBroke, match="a bad day") as caught:
        study.ask()
    assert "in suggest" in (caught.value.hint or "")
    moody.bad_at = {"nonsense"}
    with pytest.raises(TunerBroke, match="suggest gave 7"):
        study.ask()
    moody.bad_at = set()
    trial = study.ask()
    assert trial.number == 0
    moody.bad_at = {"observe"}
    with pytest.raises(TunerBroke, match="a worse day"):
        study.tell(trial, 1.0)
    moody.bad_at = set()
    with pytest.raises(TunerBroke, match="a worse day"):  # nobody knows what it has learnt
        study.ask()
    assert study.best is not None and study.best.value == 1.0
    study.close()
    if log is not None:
        assert replayed(log).digest() == study._state.digest()


def test_ctrl_c_while_the_tuner_thinks_costs_nothing() -> None:
    class Interrupted(Moody):
        def suggest(self, ask: Ask) -> Any:
            if "ctrl-c" in self.bad_at:
                raise KeyboardInterrupt
            return Suggestion({"x": ask.number / 10})

    moody = Interrupted()
    study = AskTell(SPACE, moody)
    moody.bad_at = {"ctrl-c"}
    with pytest.raises(KeyboardInterrupt):
        study.ask()
    moody.bad_at = set()
    assert study.ask().parameters == {"x": 0.1}


# -- threads, loops, several at once ----------------------------------------------------------------------------------
@pytest.mark.parametrize("log", [None, "threads"])
def test_threads_ask_and_tell_side_by_side(log: str | None) -> None:
    study = AskTell(SPACE, "TPE", "minimize", seed=0, log=log, max_trial_number=60)
    got: list[Trial] = []

    def work() -> None:
        while True:
            try:
                trial = study.ask(None)
            except NoMoreTrials:
                return
            got.append(trial)
            study.report(trial, 1.0)
            study.tell(trial, trial.parameters["x"] ** 2)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result(100)
    assert sorted(trial.number for trial in got) == list(range(60))
    assert (study.status, len({seen.parameters["x"] for seen in study.trials})) == ("DONE", 60)
    study.close()
    if log is not None:
        assert verify(home.find(log).events).ok
        assert replayed(log).digest() == study._state.digest()


def test_it_works_inside_a_running_loop_and_beside_others() -> None:
    async def notebook() -> list[float]:
        with AskTell(SPACE, "Random", seed=1, log="one") as one, AskTell(SPACE, "Random", seed=1, log="two") as two:
            values: list[float] = []
            for study in (one, two) * 3:
                trial = study.ask()
                study.tell(trial, trial.parameters["x"])
                values.append(trial.parameters["x"])
            return values

    values = asyncio.run(notebook())
    assert values[::2] == values[1::2]
    assert [replayed(name).status for name in ("one", "two")] == ["DONE", "DONE"]


def test_a_fork_may_not_ask(tmp_path: Path) -> None:
    code = """
import os, sys
from tune import AskTell, StudyEnded
study = AskTell({"x": {"_type": "uniform", "_value": [0, 1]}}, "Random", log="parent")
trial = study.ask()
pid = os.fork()
if pid == 0:
    try:
        study.ask()
    except StudyEnded as error:
        sys.exit(7 if "fork" in str(error) else 1)
_, status = os.waitpid(pid, 0)
study.tell(trial, 1.0)
print(os.waitstatus_to_exitcode(status), study.best.value)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "1.0"]
    assert replayed("parent").status == "DONE"  # closed at the end of the program, by itself, once


def test_import_tune_does_not_pay_for_it() -> None:
    code = "import sys, tune; print('numpy' in sys.modules, 'tune.engine' in sys.modules, tune.AskTell.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "AskTell"]
    assert {"AskTell", "NoMoreTrials", "NoTrialYet", "StudyEnded", "TunerBroke"} <= set(dir(tune))
    assert tune.NoMoreTrials is NoMoreTrials


# -- the log ----------------------------------------------------------------------------------------------------------
def test_what_ask_and_tell_returned_is_in_the_log_and_tells_the_whole_story() -> None:
    study = AskTell(SPACE, "TPE", "minimize", seed=0, log="story")
    for number in range(15):
        trial = study.ask()
        assert replayed("story").trial(number).status == "RUNNING"
        study.report(trial, 0.5)
        study.tell(trial, {"default": trial.parameters["x"] ** 2, "seconds": 1})
        assert replayed("story").trial(number).phases[0].value == trial.parameters["x"] ** 2
    assert study.id == "story" and replayed("story").digest() == study._state.digest()
    study.close()
    state = replayed("story")
    assert (state.status, state.reason, state.counts["SUCCEEDED"]) == ("DONE", "closed by its program", 15)
    assert verify(home.find("story").events).ok
    memory = AskTell(SPACE, "TPE", "minimize", seed=0)
    for seen in study.trials:
        trial = memory.ask()
        assert trial.parameters == seen.parameters  # a log changes no decision
        memory.tell(trial, seen.value)


def test_a_study_without_an_id_gets_one_and_a_taken_one_is_refused() -> None:
    study = AskTell(SPACE, "Random", log=True)
    with pytest.raises(UsageError, match="taken"):
        AskTell(SPACE, "Random", log=study.id)
    with pytest.raises(TuneError, match="this very process"):
        AskTell.resume(study.id)
    study.close()
    study.close()
    for call in (study.ask, lambda: study.tell(0, 1.0), lambda: study.enqueue({"x": 0})):
        with pytest.raises(StudyEnded, match="closed"):
            call()


def test_a_stopped_one_goes_on_where_it_was_and_answers_the_same() -> None:
    def whole(log: str, cut: int | None) -> list[dict[str, Any]]:
        study = AskTell(SPACE, "TPE", seed=5, log=log)
        for number in range(24):
            if number == cut:
                out = study.ask()
                study.close()
                assert replayed(log).status == "STOPPED"
                study = AskTell.resume(log)
                again = study.ask()
                assert (again.number, again.parameters, again.attempt) == (out.number, out.parameters, 1)
                with pytest.raises(ValueError, match="of another study"):
                    study.tell(Trial(out.number, {}, "zzzzz"), 1.0)
                study.tell(again, again.parameters["x"])
                continue
            trial = study.ask()
            study.tell(trial, trial.parameters["x"])
        study.close()
        assert verify(home.find(log).events).ok
        return [seen.parameters for seen in study.trials]

    assert whole("whole", None) == whole("cut", 15)


def test_after_a_kill_what_was_out_is_given_again_or_told_by_number(at_home: Path) -> None:
    code = """
import os, signal
from tune import AskTell
study = AskTell({"x": {"_type": "uniform", "_value": [0, 1]}}, "Random", seed=0, log="killed")
trials = [study.ask() for _ in range(4)]
study.tell(trials[0], 1.0)
print(*(trial.parameters["x"] for trial in trials), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    xs = [float(text) for text in done.stdout.split()]
    assert done.returncode == -9 and replayed("killed").counts["RUNNING"] == 3
    with AskTell.resume("killed") as study:
        study.tell(2, 5.0)  # whoever ran it has the result, wherever it is told
        assert [study.ask().number, study.ask().number, study.ask().number] == [1, 3, 4]
        assert [seen.parameters["x"] for seen in study.trials[:4]] == xs
        assert study.best is not None and study.best.number == 2
    assert verify(home.find("killed").events).ok


LOOP = """
import sys
from tune import AskTell
study = AskTell.resume("told") if sys.argv[1:] else AskTell({"x": {"_type": "uniform", "_value": [0, 1]}}, log="told")
while True:
    trial = study.ask()
    study.tell(trial, trial.number + trial.parameters["x"])
    print(trial.number, trial.number + trial.parameters["x"], flush=True)
"""


def test_what_was_told_survives_a_kill_at_any_moment() -> None:
    told: dict[int, float] = {}
    for life in range(4):
        command = [sys.executable, "-c", LOOP, *["again"] * (life > 0)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(3 + 5 * life):
                number, value = process.stdout.readline().split()
                assert int(number) not in told
                told[int(number)] = float(value)
            process.kill()
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):  # it was told and said before it died
                    number, value = line.split()
                    told[int(number)] = float(value)
        state = replayed("told")
        assert all(state.trial(number).phases[0].value == value for number, value in told.items())
    assert verify(home.find("told").events).ok and check_decisions(home.find("told")).ok


def test_an_import_and_a_raised_limit_while_nobody_has_it_count_at_resume() -> None:
    study = AskTell(SPACE, "TPE", seed=0, log="limit", max_trial_number=1)
    study.tell(study.ask(), 1.0)
    study.close()
    assert replayed("limit").status == "DONE"
    folder = home.find("limit")
    write_offline(folder, AskUpdate("me", max_trial_number=2), AskImport("me", '{"x": 0.5}', "2.0"))
    with AskTell.resume("lim") as study:
        assert study.ask().number == 1
        assert study._state.imported == 1


def test_an_object_has_to_be_given_again_and_a_class_is_found() -> None:
    local = type("Local", (Late,), {"__qualname__": "here.<locals>.Local"})
    for given, needed in ((Late, False), (local, True)):
        name = "needed" if needed else "found"
        with AskTell(SPACE, given, "minimize", log=name, n=3) as study:
            study.tell(study.ask(), 1.0)
        if needed:
            with pytest.raises(UsageError, match=r"tuner=\.\.\."):
                AskTell.resume(name)
        with AskTell.resume(name, tuner=local) if needed else AskTell.resume(name) as study:
            assert study.ask().number == 1
            tuner = study._host.tuner
            assert (tuner.results, tuner.n, tuner.mode) == (1, 3, "minimize")


def test_a_log_elsewhere_runs_no_code_of_its_own(at_home: Path, tmp_path: Path) -> None:
    AskTell(SPACE, Late, log="mine").close()
    elsewhere = tmp_path / "elsewhere"
    (at_home / "mine").rename(elsewhere)
    with pytest.raises(UsageError, match="not imported"):
        AskTell.resume(str(elsewhere))
    with AskTell.resume(str(elsewhere), tuner=Late) as study:
        assert study.ask().number == 0


def test_an_experiment_with_a_command_is_not_for_ask_tell(tmp_path: Path) -> None:
    from tune.engine.log import Reader

    AskTell(SPACE, "Random", log="asked").close()
    folder = home.find("asked")
    with Reader(folder.events) as reader:
        first = next(reader.rows())
    assert json.loads(first.body)["config"]["trial_command"] == "(AskTell)"
    golden = Path(__file__).parent / "golden" / "single_phase.1.db"
    with pytest.raises(TuneError, match="tune resume"):
        copied = tmp_path / "copy"
        copied.mkdir()
        (copied / "events.db").write_bytes(golden.read_bytes())
        AskTell.resume(str(copied))


# -- others ask it through its door -----------------------------------------------------------------------------------
def test_others_can_change_and_stop_a_study_that_runs() -> None:
    study = AskTell(SPACE, "Random", seed=0, log="open", max_trial_number=1)
    folder = home.find("open")
    first = study.ask()
    assert ask(folder, AskUpdate("me", max_trial_number=4))
    second, third = study.ask(), study.ask()
    study.tell(first, 1.0)
    assert ask(folder, AskKill("me", second.number))
    assert study.should_stop(second) and not study.should_stop(third)
    study.tell(second)
    assert ask(folder, AskStop("somebody"))
    assert study.should_stop(third)
    with pytest.raises(StudyEnded, match="stopped by somebody"):
        study.tell(third, 1.0)
    study.close()
    state = replayed("open")
    assert [one.status for one in state.made] == ["SUCCEEDED", "USER_CANCELED", "SYS_CANCELED"]
    assert (state.status, state.reason) == ("STOPPED", "stopped by somebody")
    with AskTell.resume("open") as again:
        assert again.ask().number == third.number


def test_a_thread_that_waits_hears_of_a_stop() -> None:
    study = AskTell(SPACE, Late, log="waits")
    study.ask(), study.ask()
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(study.ask, None)
        ask(home.find("waits"), AskStop("somebody"))
        with pytest.raises(StudyEnded, match="stopped by somebody"):
            third.result(60)
    study.close()


def test_an_interrupt_while_ask_waits_for_the_disk_gives_the_trial_again(monkeypatch: pytest.MonkeyPatch) -> None:
    study = AskTell(SPACE, "Random", seed=0, log="struck")
    recorder = study._recorder
    assert recorder is not None

    def struck(seq: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "wait", struck)
        with pytest.raises(KeyboardInterrupt):
            study.ask()
    trial = study.ask()
    assert (trial.number, trial.attempt) == (0, 1)
    study.tell(trial, 1.0)
    study.close()
    assert verify(home.find("struck").events).ok


def test_a_log_that_can_not_be_written_ends_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    from tune.engine import log as log_room

    study = AskTell(SPACE, "Random", seed=0, log="broken")
    trial = study.ask()

    async def broken(self: log_room.Log, rows: object) -> None:
        raise log_room.LogIO("no such disk")

    monkeypatch.setattr(log_room.Log, "append", broken)
    with pytest.raises(TuneError, match="no such disk"):
        study.tell(trial, 1.0)
    with pytest.raises(TuneError, match="no such disk"):
        study.ask()
    with pytest.raises(TuneError, match="no such disk"):
        study.close()
    assert replayed("broken").trial(0).status == "RUNNING"


def test_several_objectives_and_outcome_constraints() -> None:
    objectives = {"default": "maximize", "latency": "minimize"}
    study = AskTell(SPACE, tuner="NSGAII", seed=1, objectives=objectives, outcome_constraints=["latency <= 0.8"])
    for _ in range(40):
        trial = study.ask()
        x = trial.parameters["x"]
        study.tell(trial, {"default": x, "latency": abs(x)})
    assert study.best is None
    front = study.pareto
    assert front and all(one.violation == 0.0 and one.values["latency"] <= 0.8 for one in front)
    values = [one.values["default"] for one in front]
    assert values == sorted(values, reverse=True)
    for one in front:
        assert not any(
            other.values["default"] >= one.values["default"] and other.values["latency"] < one.values["latency"]
            for other in front
        )
    single = AskTell(SPACE, tuner="Random", seed=1, outcome_constraints=["size <= 1"])
    trial = single.ask()
    single.tell(trial, {"default": 5.0, "size": 2})
    assert single.best is None and single.pareto == []
    trial = single.ask()
    single.tell(trial, {"default": 1.0, "size": 1})
    assert single.best is not None and single.best.value == 1.0
