"""Why a trial is what it is: stored and recomputed records, verdicts, retries, queued trials, foreign code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tune.engine import home
from tune.engine.ask_tell import AskTell
from tune.engine.plugins import Ask, Ended, Stopped, Suggestion
from tune.engine.requests import AskKill
from tune.engine.why import explain

SPACE = {"x": {"_type": "uniform", "_value": [-1, 1]}}


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def why(log: str, trial: int) -> dict[str, Any]:
    """What is said, as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(explain(home.find(log), trial)))


def test_a_suggestion_with_what_was_known_then() -> None:
    with AskTell(SPACE, "TPE", "minimize", seed=1, log="it") as study:
        for _ in range(13):
            trial = study.ask()
            study.tell(trial, trial.parameters["x"] ** 2)
    first, last = why("it", 0), why("it", 12)
    assert (first["phases"][0]["record"], first["phases"][0]["source"]) == ({"rule": "random start"}, "log")
    assert first["phases"][0]["knew"]["points"] == 0
    [phase] = last["phases"]
    assert phase["record"]["rule"] == "tpe" and phase["record"]["observed"] == phase["knew"]["results"] == 12
    assert phase["knew"]["best"] == min(seen.value for seen in study.trials[:12] if seen.value is not None)
    assert (last["status"], last["tuner"], last["stops"], last["results"][0]["phase"]) == ("SUCCEEDED", "TPE", [], 0)


class Judge:
    """Stops at once."""

    def observe(self, fact: object) -> None:
        """It needs to know nothing."""

    def verdict(self, trial: int) -> Stopped | None:
        return Stopped("none is good enough")


def test_an_early_stop_a_kill_a_failure_and_one_that_waits() -> None:
    with AskTell(SPACE, "Random", seed=1, assessor=Judge, log="it") as study:
        stopped, killed, failed = study.ask(), study.ask(), study.ask()
        study.report(stopped, 1.0)
        study.tell(stopped)
        study._person(AskKill("somebody", killed.number))
        study.tell(killed)
        study.tell(failed, failed=True, error="no memory")
        out = study.ask()
        assert why("it", out.number)["status"] == "RUNNING"
        study.enqueue({"x": 0})
        assert "the next ask() gets it" in why("it", 4)["reason"]
    found = why("it", 0)
    [stop] = found["stops"]
    assert (stop["by"], stop["why"], stop["knew"]["intermediates"]) == ("assessor", "none is good enough", 1)
    assert (found["status"], found["ends"][0]["status"]) == ("EARLY_STOPPED", "EARLY_STOPPED")
    assert (why("it", 1)["stops"][0]["by"], why("it", 1)["stops"][0]["actor"]) == ("user", "somebody")
    assert why("it", 2)["reason"] == "told as failed\nno memory"
    queued = why("it", 4)["phases"][0]
    assert (queued["ask"], queued["record"], queued["source"]) == (None, None, "")
    assert "queued by hand" in queued["note"]
    with AskTell.resume("it", assessor=Judge) as study:
        assert [study.ask().attempt for _ in range(2)] == [0, 1]
    assert [end["attempt"] for end in why("it", 3)["ends"]] == [0, 1]


LATER = """
from tune.engine.plugins import Ended, Suggestion

class Mine:
    def __init__(self):
        self.results = 0

    def observe(self, fact):
        self.results += isinstance(fact, Ended)

    def suggest(self, ask):
        return Suggestion({{"x": {x}}}, decision={decision})
"""


def test_a_record_that_the_log_lacks_is_computed_again_or_it_says_why_not(
    tmp_path: Path, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    import sys

    def written(**parts: str) -> type[Any]:
        (tmp_path / "mine_later.py").write_text(LATER.format(**parts) + "#" * len(str(parts)))
        sys.modules.pop("mine_later", None)
        import importlib

        importlib.invalidate_caches()
        return importlib.import_module("mine_later").Mine

    with AskTell(SPACE, written(x="0.5", decision="{}"), log="it") as study:
        for _ in range(3):
            study.tell(study.ask(), 1.0)
    assert why("it", 2)["phases"][0]["note"] == "this tuner leaves no record of its reasons"
    written(x="0.5", decision='{"results": self.results}')
    phase = why("it", 2)["phases"][0]
    assert (phase["record"], phase["source"]) == ({"results": 2}, "recomputed")
    written(x="0.25", decision='{"results": self.results}')
    phase = why("it", 2)["phases"][0]
    assert phase["source"] == "" and "trial 2, parameters" in phase["note"]
    (at_home / "it").rename(tmp_path / "elsewhere")
    phase = why(str(tmp_path / "elsewhere"), 2)["phases"][0]
    assert phase["source"] == "" and "not in your $TUNE_HOME" in phase["note"]


def test_the_names_of_a_plug_in_that_is_not_here_do_not_matter() -> None:
    class Odd:
        observes = "intermediates"

        def observe(self, fact: object) -> None:
            self.last = fact if isinstance(fact, Ended) else None

        def suggest(self, ask: Ask) -> Suggestion:
            return Suggestion({"x": 0.0})

    with AskTell(SPACE, Odd, log="it") as study:
        study.tell(study.ask(), 1.0)
    phase = why("it", 0)["phases"][0]
    assert phase["note"].startswith("the log holds no record, and it can't be computed again")
