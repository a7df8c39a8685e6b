"""A study in a program of its own, and the verbs on it: while it runs, when it was killed, when it has ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checker
import pytest

PROGRAM = """
import sys
from tune import AskTell, StudyEnded
study = AskTell.resume("lab") if "again" in sys.argv else AskTell(
    {"x": {"_type": "uniform", "_value": [-1, 1]}}, "TPE", "minimize", seed=4, log="lab", max_trial_number=20
)
out = []
print("ready", flush=True)
for line in sys.stdin:
    try:
        word, *rest = line.split()
        if word == "ask":
            out.append(study.ask())
            print(out[-1].number, out[-1].attempt, flush=True)
        elif word == "tell":
            trial = out.pop(0)
            study.report(trial, 9.0)
            study.tell(trial, trial.parameters["x"] ** 2)
            print("told", flush=True)
        elif word == "stop?":
            print(study.should_stop(int(rest[0])), flush=True)
    except StudyEnded as error:
        print("ended:", error.message, flush=True)
"""


class Program:
    """The program, which does what it is told."""

    def __init__(self, tune: Any, *arguments: str) -> None:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        self.process = subprocess.Popen(
            command, env=tune.variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.hear() == "ready"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, *words: str) -> list[str]:
        assert self.process.stdin is not None
        said: list[str] = []
        for word in words:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
            said.append(self.hear())
        return said

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def program(tune: Any) -> Iterator[Callable[..., Program]]:
    """Starts the program; at the end none is left."""
    started: list[Program] = []

    def start(*arguments: str) -> Program:
        started.append(Program(tune, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        for stream in (one.process.stdin, one.process.stdout):
            assert stream is not None
            stream.close()


def test_every_verb_shows_a_study_that_runs_and_has_ended(program: Any, tune: Any) -> None:
    study = program()
    assert study.do(*("ask", "tell") * 12, "ask") == [
        *(word for number in range(12) for word in (f"{number} 0", "told")),
        "12 0",
    ]
    status = tune.json("status", "lab")
    assert (status["status"], status["engine_pid"]) == ("RUNNING", study.process.pid)
    assert (status["counts"]["SUCCEEDED"], status["counts"]["RUNNING"]) == (12, 1)
    assert "asked and told by a program; tuner TPE" in tune("view", "lab")
    trials = tune.json("trials", "lab")
    assert [trial["host"] for trial in trials] == ["in-process"] * 13
    assert (trials[12]["status"], trials[12]["pid"]) == ("RUNNING", study.process.pid)
    best = tune.json("best", "lab")
    assert best == status["best"] and best["value"] == min(trial["final"] for trial in trials[:12])
    assert len(json.loads(tune("export", "lab", "--format", "json"))) == 12
    assert tune.json("verify", "lab", "--decisions")["decisions"]["suggestions"] == 13
    assert "RUNNING" in tune("list") and "ENGINE_STARTED" in tune("tail", "lab", "-n", "200")
    assert "asked and told by a program" in tune("logs", "lab")
    assert "proposed by TPE, ask 13; it knew 12 points, 12 results" in tune("why", "lab", "12")
    assert "13 asks: every answer came out the same" in tune("replay", "lab")
    for verb in ("resume", "delete"):
        tune(verb, "lab", *["--yes"] * (verb == "delete"), code=1)
    study.end()
    state = tune.json("status", "lab")
    assert (state["status"], state["engine_pid"], state["counts"]["SYS_CANCELED"]) == ("STOPPED", None, 1)
    tune("resume", "lab", code=2)
    tune("delete", "lab", "--yes")


def test_others_update_kill_import_and_stop_it(program: Any, tune: Any, tmp_path: Path) -> None:
    study = program()
    study.do("ask", "ask")
    following = subprocess.Popen(
        [str(Path(sys.executable).with_name("tune")), "tail", "-f", "lab"], env=tune.variables, stdout=subprocess.PIPE
    )
    tune("update", "lab", "--max-trials", "3")
    results = tmp_path / "results.json"
    results.write_text('[{"parameter": {"x": 0.5}, "value": 0.25}]')
    tune("import", str(results), "lab")
    tune("trial", "kill", "1", "--id", "lab")
    assert study.do("stop? 0", "stop? 1") == ["False", "True"]
    assert "STOPPED" in tune("stop", "lab")
    assert study.do("stop? 0", "tell")[0] == "True"
    assert study.do("ask")[0].startswith("ended: the study was stopped by")
    said = following.communicate(timeout=60)[0].decode()
    assert all(kind in said for kind in ("UPDATE", "IMPORT", "KILL", "STOP", "STATUS"))
    assert [trial["status"] for trial in tune.json("trials", "lab")] == ["SYS_CANCELED", "USER_CANCELED"]
    again = program("again")
    assert again.do("ask", "tell", "ask", "tell") == ["0 1", "told", "2 0", "told"]
    again.end()
    state = tune.json("status", "lab")
    assert (state["status"], state["max_trial_number"]) == ("DONE", 3)


def test_a_killed_one_is_stopped_or_resumed_and_its_log_is_whole(program: Any, tune: Any) -> None:
    study = program()
    study.do("ask", "tell", "ask", "ask")
    study.kill()
    status = tune.json("status", "lab")
    assert (status["status"], status["engine_pid"], status["counts"]["RUNNING"]) == ("RUNNING", None, 2)
    assert "AskTell.resume('lab')" in tune("status", "lab")
    assert "STOPPED" in tune("stop", "lab")
    assert "already ended" in tune("stop", "lab")
    again = program("again")
    assert again.do("ask", "tell", "ask") == ["1 1", "told", "2 1"]
    again.kill()
    third = program("again")
    assert third.do("ask", "tell", "ask") == ["2 2", "told", "3 0"]
    third.end()
    assert tune.json("verify", "lab", "--decisions")["decisions"] == {
        **{"ok": True, "suggestions": 4, "others": 0, "verdicts": 0},
        **{"first_bad_seq": None, "divergence": "", "note": ""},
    }
    rows = checker.read(Path(status["log"]))
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert [row.body["attempt"] for row in rows if row.kind == "LAUNCH" and row.trial == 2] == [0, 1, 2]
