"""`tune replay` as people type it: planted bugs of a real experiment, other tuners, stepping, the debugger, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
trial_command = "python trial.py"
max_trial_number = 6
seed = 1

[search_space]
x = {{ _type = "uniform", _value = [0, 1000] }}

[tuner]
code_directory = "."
class_name = "bugs.{name}"
"""
TRIAL = "import tune\ntune.report_final_result(tune.get_next_parameter()['x'])\n"
BUGS = """
import random
from tune.engine.plugins import Ended, Suggestion

print("imported")


class Good:
    deterministic = True

    def __init__(self):
        self.results = 0

    def observe(self, fact):
        self.results += isinstance(fact, Ended)

    def suggest(self, ask):
        return Suggestion({"x": ask.number / 10}, decision={"results": self.results})


class Leaks(Good):
    asked = 0

    def suggest(self, ask):
        self.asked += 1
        return Suggestion({"x": self.asked})


class Unseeded(Good):
    def suggest(self, ask):
        return Suggestion({"x": random.random() if self.results >= 3 else 1})


class Dice(Unseeded):
    deterministic = False


class SetOrder(Good):
    def suggest(self, ask):
        texts = [f"trial {number}" for number in range(40)]
        order = sum(place * texts.index(text) for place, text in enumerate(set(texts))) % 997
        return Suggestion({"x": order if self.results else 1})
"""


@pytest.fixture
def ran(tmp_path: Path, tune: Any) -> Any:
    """Runs an experiment with one of these tuners."""
    (tmp_path / "trial.py").write_text(TRIAL)
    (tmp_path / "bugs.py").write_text(BUGS)

    def run(name: str) -> None:
        (tmp_path / "config.toml").write_text(CONFIG.format(name=name))
        tune.environment["PYTHONHASHSEED"] = "1"
        tune("create", "config.toml", "--id", name, cwd=tmp_path)
        tune.environment["PYTHONHASHSEED"] = "2"

    return run


@pytest.mark.parametrize(("bug", "ask"), [("Leaks", 2), ("Unseeded", 4), ("SetOrder", 2)])
def test_a_planted_bug_is_found_at_its_first_wrong_answer(bug: str, ask: int, tune: Any, ran: Any) -> None:
    ran(bug)
    lines = tune("replay", bug, code=1).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("ask ")] == [str(n) for n in range(1, ask + 1)]
    assert [line for line in lines if line.startswith("ask ")][-1].endswith("DIFFERENT")
    assert lines[-1] == f"look at it in a debugger: tune replay {bug} --from {ask} --pdb"
    assert f"trial {ask - 1}, parameters" in lines[-2]
    said = json.loads(tune("verify", bug, "--decisions", "--json", code=1))
    assert said["ok"] and said["decisions"]["suggestions"] == ask - 1
    told = [json.loads(line) for line in tune("replay", bug, "--json", code=1).splitlines()]
    assert [one["same"] for one in told] == [True] * (ask - 1) + [False]
    assert told[-1]["then"]["parameters"] != told[-1]["now"]["parameters"]


def test_a_good_one_a_range_another_tuner_and_one_with_dice(tmp_path: Path, tune: Any, ran: Any) -> None:
    ran("Good")
    lines = tune("replay", "Good").splitlines()
    assert len(lines) == 7 and lines[-1] == "6 asks: every answer came out the same, bit for bit"
    assert lines[3] == 'ask 4    trial 3     knew 3 points, 3 results, best 0.3 (trial 2)  same  {"x": 0.4}'
    assert tune("replay", "Good", "--from", "3", "--until", "4").splitlines() == [
        *lines[2:4],
        "2 asks: every answer came out the same, bit for bit",
    ]
    other = tune("replay", "--tuner", "random", "--class-args", '{"seed": 3}', "--from", "6").splitlines()
    assert other[1].split() == ["recorded", '{"x":', "0.6}"] and other[2].split()[:2] == ["Random", '{"x":']
    assert "is unknown" in other[3]
    mine = tune("replay", "--tuner", f"{tmp_path / 'bugs.py'}:Good", "--from", "6").splitlines()
    assert mine[2].split() == ["Good", "the", "same"]
    [told] = [json.loads(line) for line in tune("replay", "--json", "--tuner", "Random", "--from", "6").splitlines()]
    assert (told["same"], told["knew"]["points"], told["then"]["decision"]) == (None, 5, {"results": 5})
    ran("Dice")
    assert "3 came out different; it says that it is not deterministic" in tune("replay", "Dice")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--class-args", "{}"], "--tuner"),
        (["--json", "--pdb"], "excludes"),
        (["--from", "0"], "from 1 on"),
        (["--from", "3", "--until", "2"], "from 1 on"),
        (["--tuner", "TPE", "--class-args", "[1]"], "JSON object"),
        (["--tuner", "TPE", "--class-args", "{"], "not JSON"),
        (["--tuner", "Tpo"], "unknown tuner"),
        (["--tuner", "gone.py:Class"], "there is no"),
    ],
)
def test_what_can_not_be_asked(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tune import AskTell, cli

    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    AskTell({"x": {"_type": "uniform", "_value": [0, 1]}}, "Random", log="it").close()
    assert cli.main(["replay", "it", *arguments]) == 2
    assert said in capsys.readouterr().err


def typed(tune: Any, keys: str, *arguments: str) -> tuple[int, str]:
    """A command with something typed into it: its exit code and what it printed."""
    program = str(Path(sys.executable).with_name("tune"))
    done = subprocess.run([program, *arguments], input=keys, env=tune.variables, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_stepping_and_the_debugger(tune: Any, ran: Any) -> None:
    ran("Leaks")
    code, out = typed(tune, "\n", "replay", "Leaks", "--step")
    assert (code, out.count("Enter goes on"), "DIFFERENT" in out) == (1, 1, True)
    code, out = typed(tune, "q\n", "replay", "Leaks", "--step")
    assert (code, out.count("ask ")) == (0, 1)
    code, out = typed(tune, "", "replay", "Leaks", "--step", "--until", "1")
    assert (code, "1 ask: every answer" in out) == (0, True)
    code, out = typed(tune, "p self.asked, ask.number\nc\n", "replay", "Leaks", "--pdb")
    assert (code, "(0, 2)" in out, "-> self.asked += 1" in out) == (1, True, True)
    code, out = typed(tune, "p self.results\nq\n", "replay", "Leaks", "--pdb", "--from", "2")
    assert (code, "(Pdb) 1" in out, "DIFFERENT" in out) == (1, True, False)
