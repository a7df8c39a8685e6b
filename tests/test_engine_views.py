"""The shapes that `--json` and `export` promise, from states that are folded by hand."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tune.engine import config, views
from tune.engine.config import Config
from tune.engine.constraints import ABSENT
from tune.engine.events import (
    EngineStarted,
    Event,
    Experiment,
    Fact,
    Host,
    Kill,
    Launch,
    Launched,
    Metric,
    NewTrial,
    Parameter,
    RequestParameter,
    Status,
    TrialEnd,
    encode,
)
from tune.engine.reduce import reduce
from tune.engine.state import TRIAL_STATUSES, State

START = 1_700_000_000_000_000
STATUS_KEYS = [
    *("id", "name", "status", "engine_pid", "reason", "counts", "best", "log", "folder", "optimize_mode"),
    *("max_trial_number", "trial_concurrency", "port", "pareto", "hosts"),
]
TRIAL_KEYS = [
    *("number", "id", "status", "reason", "attempt", "parameters", "final", "intermediate", "pid", "host"),
    *("exit_code", "created", "started", "ended", "stdout", "stderr", "phases", "continues", "devices"),
]
FOLDER = Path("/home/me/tune-experiments/p43ny6ew")


class Story:
    """An experiment told fact by fact."""

    def __init__(self, **settings: Any) -> None:
        self.state = State()
        self.numbers: dict[str, int] = {}
        space = {"lr": {"_type": "uniform", "_value": [0, 1]}}
        given = {"trial_command": "true", "trial_code_directory": "/tmp", "max_trial_number": 10, **settings}
        resolved = Config(search_space=space, **given)
        self.say(Experiment("p43ny6ew", Raw(config.encode(resolved)), 7))
        self.say(EngineStarted("here", 4711, 0))
        self.say(Status("RUNNING"))
        self.say(Host("here", "connected", 0, 4712))

    def say(self, event: Event, trial: int | None = None, sender: str = "e1") -> None:
        number = self.numbers[sender] = self.numbers.get(sender, 0) + 1
        seq = self.state.seq + 1
        reduce(self.state, Fact(seq, 1, sender, number, trial, None, START + seq * 1_000_000, event))

    def suggest(self, number: int, parameters: str, phase: int = 0) -> None:
        ask = self.state.next_ask
        self.say(RequestParameter(ask, phase), number)
        if phase == 0:
            self.say(NewTrial(f"t{number:04}"), number)
        self.say(Parameter(ask, Raw(parameters.encode()), self.state.seq, phase), number)

    def launch(self, number: int, parameters: str = '{"lr":0.5}') -> None:
        self.suggest(number, parameters)
        self.start(number)

    def start(self, number: int) -> None:
        attempt = self.state.trial(number).attempt
        self.say(Launch(attempt, "here"), number)
        self.say(Launched(attempt, 5000 + number, 0, START + 60_000_000), number)

    def report(self, number: int, value: str, *, final: bool = False, phase: int = 0, ignored: str = "") -> None:
        sender = f"t{number:04}.{self.state.trial(number).attempt}.1"
        self.say(Metric(Raw(value.encode()), phase, final, ignored), number, sender)

    def end(
        self, number: int, status: str = "SUCCEEDED", code: int | None = 0, reason: str = "", err: str = ""
    ) -> None:
        attempt = self.state.trial(number).attempt
        self.say(TrialEnd(attempt, status, code, reason, err, START + 90_000_000), number)

    def trials(self) -> list[dict[str, Any]]:
        return json.loads(views.to_json(views.trials(self.state, FOLDER)))


def test_status_has_the_promised_keys_in_their_order() -> None:
    story = Story(experiment_name="digits", optimize_mode="minimize", trial_concurrency=2)
    story.launch(0, '{"lr":0.25}')
    story.report(0, "0.125", final=True)
    seen = views.status(story.state, folder=FOLDER, pid=None)
    assert list(seen) == STATUS_KEYS
    assert list(seen["counts"]) == list(TRIAL_STATUSES)
    assert seen["counts"]["RUNNING"] == 1 and sum(seen["counts"].values()) == 1
    assert seen["best"] == {"trial": 0, "phase": 0, "value": 0.125, "parameters": {"lr": 0.25}}
    assert (seen["id"], seen["name"], seen["status"], seen["engine_pid"]) == ("p43ny6ew", "digits", "RUNNING", None)
    assert (seen["log"], seen["folder"]) == (str(FOLDER / "events.db"), str(FOLDER))
    assert (seen["optimize_mode"], seen["max_trial_number"], seen["trial_concurrency"]) == ("minimize", 10, 2)
    assert views.status(story.state, folder=FOLDER, pid=3, port=80, log=Path("/l"))["log"] == "/l"


def test_a_view_does_not_let_the_state_be_changed() -> None:
    story = Story()
    views.status(story.state, folder=FOLDER, pid=None)["counts"]["WAITING"] = 5
    assert story.state.counts["WAITING"] == 0


def test_a_trial_has_the_promised_keys_in_their_order() -> None:
    story = Story()
    story.launch(0, '{"lr":1e-3,"units":64,"name":"a"}')
    story.report(0, "0.5")
    story.report(0, '{"default":0.75,"loss":2}')
    story.report(0, '{"default":0.875,"loss":1}', final=True)
    story.report(0, "0.9", final=True, ignored="a second final")
    story.end(0)
    [seen] = story.trials()
    assert list(seen) == TRIAL_KEYS
    assert list(seen["phases"][0]) == [
        *("phase", "parameters", "intermediate", "final", "final_ignored", "values", "violation"),
    ]
    assert (seen["phases"][0]["values"], seen["phases"][0]["violation"]) == (None, None)
    assert seen["parameters"] == {"lr": 1e-3, "units": 64, "name": "a"}
    assert seen["intermediate"] == [0.5, 0.75]
    assert seen["final"] == {"default": 0.875, "loss": 1}
    assert seen["phases"][0]["final_ignored"] == [0.9]
    assert (seen["status"], seen["reason"], seen["pid"], seen["host"], seen["exit_code"]) == (
        "SUCCEEDED",
        "",
        None,
        "here",
        0,
    )
    assert seen["created"] == "2023-11-14T22:13:26.000000Z"
    assert seen["started"] == "2023-11-14T22:14:20.000000Z"
    assert seen["ended"] == "2023-11-14T22:14:50.000000Z"
    assert seen["stdout"] == str(FOLDER / "trials" / "t0000" / "stdout")


def test_a_running_trial_has_a_pid_and_no_end() -> None:
    story = Story()
    story.launch(0)
    [seen] = story.trials()
    assert (seen["status"], seen["pid"], seen["exit_code"], seen["ended"], seen["final"]) == (
        "RUNNING",
        5000,
        None,
        None,
        None,
    )
    story.say(Host("here", "disconnected", 5, 0, "no route"))
    assert "here is DISCONNECTED: no route" in story.trials()[0]["reason"]
    story.say(Kill(0, "user"), 0)
    assert story.trials()[0]["reason"].startswith("is being ended (user)")


def test_a_waiting_trial_says_what_for() -> None:
    story = Story()
    story.launch(0)
    story.suggest(1, '{"lr":0.1}')
    seen = story.trials()[1]
    assert seen["status"] == "WAITING" and seen["reason"].startswith("waits for a slot: 1 of 1")
    assert (seen["host"], seen["started"], seen["exit_code"], seen["pid"]) == (None, None, None, None)


def test_multi_phase_gives_one_entry_a_phase() -> None:
    story = Story(multi_phase=True)
    story.launch(0, '{"lr":0.1}')
    story.report(0, "1")
    story.report(0, "2", final=True)
    story.suggest(0, '{"lr":0.2}', phase=1)
    story.report(0, "3", phase=1)
    [seen] = story.trials()
    assert seen["parameters"] == [{"lr": 0.1}, {"lr": 0.2}]
    assert seen["final"] == [2, None]
    assert seen["intermediate"] == [[1.0], [3.0]]
    assert [phase["phase"] for phase in seen["phases"]] == [0, 1]
    story.report(0, "4.5", phase=1, final=True)
    assert views.best(story.state) == {"trial": 0, "phase": 1, "value": 4.5, "parameters": {"lr": 0.2}}
    assert [(row["phase"], row["value"]) for row in views.rows(story.state)] == [(0, 2.0), (1, 4.5)]


def test_numbers_that_are_not_finite_are_texts() -> None:
    story = Story()
    story.launch(0)
    for value in ('"NaN"', '"Infinity"', '"-Infinity"', "0.5", '"a word"'):
        story.report(0, value)
    story.report(0, '"NaN"', final=True)
    story.end(0)
    [seen] = story.trials()
    assert seen["intermediate"] == ["NaN", "Infinity", "-Infinity", 0.5, "NaN"]
    assert seen["final"] == "NaN"
    assert seen["reason"].startswith("warning: its final result is no finite number")
    assert views.best(story.state) is None and views.rows(story.state) == []


@given(st.lists(st.floats()))
def test_a_series_is_standard_json_and_keeps_every_number(values: list[float]) -> None:
    seen = json.loads(views.to_json(views.series(array("d", values))), parse_constant=pytest.fail)
    assert [repr(float(one)) for one in seen] == [repr(float(one)) for one in values]


def test_success_without_a_final_is_a_warning() -> None:
    story = Story()
    story.launch(0)
    story.end(0)
    assert story.trials()[0]["reason"] == "warning: it reported no final result"


def test_a_failed_trial_shows_its_code_and_the_end_of_its_stderr() -> None:
    story = Story()
    story.launch(0)
    story.end(0, "FAILED", -9, "ended by signal 9", "\n".join(f"line {n}" for n in range(100)) + "\nBoom\n")
    [seen] = story.trials()
    assert seen["exit_code"] == -9
    assert seen["reason"].startswith("ended by signal 9\n") and seen["reason"].endswith("line 99\nBoom")
    assert len(seen["reason"].splitlines()) == 21


def test_a_retry_is_a_further_attempt_of_the_same_trial() -> None:
    story = Story(max_retries=1)
    story.launch(0)
    story.report(0, "0.5")
    story.end(0, "FAILED", 1, "exit code 1")
    [seen] = story.trials()
    assert (seen["status"], seen["attempt"], seen["exit_code"], seen["ended"]) == ("WAITING", 1, None, None)
    assert "attempt 0 ended FAILED: exit code 1" in seen["reason"]
    story.start(0)
    assert story.trials()[0]["intermediate"] == []


def test_rows_are_those_with_a_counted_result() -> None:
    story = Story()
    story.launch(0, '{"lr":0.5,"net":{"kind":"a","sizes":[1,2]},"flag":true,"none":null,"empty":{}}')
    story.report(0, "0.25")
    story.report(0, '{"default":1}', final=True)
    story.end(0, "FAILED", 1, "exit code 1")  # counted whatever its end
    story.launch(1)
    story.end(1, "FAILED", 1, "exit code 1")
    [row] = views.rows(story.state)
    assert list(row) == [
        *("trial", "phase", "status", "parameters", "value", "intermediate", "values", "violation", "final"),
    ]
    assert (row["values"], row["violation"], row["final"]) == (None, None, {"default": 1})
    assert (row["trial"], row["phase"], row["status"], row["value"]) == (0, 0, "FAILED", 1.0)
    assert views.flat(row) == {
        "trial": 0,
        "phase": 0,
        "status": "FAILED",
        "parameters.lr": 0.5,
        "parameters.net.kind": "a",
        "parameters.net.sizes": "[1,2]",
        "parameters.flag": "true",
        "parameters.none": "null",
        "parameters.empty": "{}",
        "value": 1.0,
        "intermediate": "[0.25]",
        "values": "null",
        "violation": "null",
        "final.default": 1,
    }


def test_results_that_fail_the_outcome_constraints_are_never_best() -> None:
    story = Story(outcome_constraints=["latency <= 10"])
    story.launch(0)
    story.report(0, '{"default":0.9,"latency":12}', final=True)
    assert views.best(story.state) is None and story.state.trial(0).phases[0].value == 0.9
    number, phase = views.nearest(story.state) or (None, None)
    assert phase is not None and (number, phase.violation) == (0, 2.0)
    story.launch(1)
    story.report(1, '{"default":0.5,"latency":1}', final=True)
    story.launch(2)
    story.report(2, "0.75", final=True)  # lacks what is asked of it
    found = views.best(story.state)
    assert found is not None and (found["trial"], found["value"]) == (1, 0.5)
    assert [row["violation"] for row in views.rows(story.state)] == [2.0, 0.0, ABSENT]
    assert [one["phases"][0]["violation"] for one in story.trials()] == [2.0, 0.0, ABSENT]
    assert views.status(story.state, folder=FOLDER, pid=None)["pareto"] is None
    json.loads(views.to_json(views.rows(story.state)), parse_constant=pytest.fail)


def test_several_objectives_have_a_front_instead_of_a_best() -> None:
    story = Story(objectives={"accuracy": "maximize", "latency": "minimize"}, optimize_mode="maximize")
    for number, final in enumerate(
        ['{"accuracy":0.5,"latency":3}', '{"accuracy":0.75,"latency":9}', '{"accuracy":0.25,"latency":4}', "0.9"]
    ):
        story.launch(number, f'{{"lr":0.{number}}}')
        story.report(number, final, final=True)
        story.end(number)
    seen = views.status(story.state, folder=FOLDER, pid=None)
    assert seen["best"] is None
    assert seen["pareto"] == [
        {
            "trial": 1,
            "phase": 0,
            "values": {"accuracy": 0.75, "latency": 9.0},
            "parameters": {"lr": 0.1},
            "violation": 0.0,
        },
        {
            "trial": 0,
            "phase": 0,
            "values": {"accuracy": 0.5, "latency": 3.0},
            "parameters": {"lr": 0.0},
            "violation": 0.0,
        },
    ]
    rows = views.rows(story.state)
    assert [(row["value"], row["values"], row["violation"]) for row in rows] == [
        (None, {"accuracy": 0.5, "latency": 3.0}, None),
        (None, {"accuracy": 0.75, "latency": 9.0}, None),
        (None, {"accuracy": 0.25, "latency": 4.0}, None),
    ]
    trials = story.trials()
    assert trials[3]["phases"][0]["values"] is None and trials[3]["final"] == 0.9
    assert "lacks a finite number for accuracy or latency" in trials[3]["reason"]


def test_flat_names_stay_apart() -> None:
    seen = views.flat({"parameters": {"a": {"b": 1}, "a.b": 2}})
    assert seen == {"parameters.a.b": 1, "parameters.a\\.b": 2}
    assert views.flat({"parameters": {}}) == {}


def test_a_fact_has_the_columns_of_the_log_but_its_chain() -> None:
    event = Metric(Raw(b'{"default":1.0,"x":[1e-3]}'), final=True)
    row = encode(Fact(5, 1, "t0000.0.1", 3, 0, None, START, event))
    text = views.to_json(views.fact(row))
    seen = json.loads(text)
    assert list(seen) == ["seq", "epoch", "kind", "ver", "sender", "sender_seq", "trial", "cause", "wall_us", "body"]
    assert seen["body"] == {"value": {"default": 1.0, "x": [1e-3]}, "final": True}
    assert row.body.encode() in text


def test_times() -> None:
    assert views.time(0) is None and views.time(-5) is None and views.time(1 << 62) is None
    assert views.time(1) == "1970-01-01T00:00:00.000001Z"


def test_paths_that_are_no_utf8_are_still_json(tmp_path: Path) -> None:
    story = Story()
    seen = views.status(story.state, folder=Path("/tmp/\udcff"), pid=None)
    assert json.loads(views.to_json(seen))["folder"] == "/tmp/\N{REPLACEMENT CHARACTER}"


def test_a_number_that_no_float_holds_stays_text() -> None:
    story = Story()
    story.launch(0)
    story.report(0, '{"default":1e999}', final=True)
    assert story.trials()[0]["final"] == '{"default":1e999}'
    assert views.rows(story.state) == []


def test_many_trials_are_all_there() -> None:
    story = Story(max_trial_number=None, trial_concurrency=100_000)
    for number in range(2000):
        story.launch(number)
        story.report(number, f"{number}")
        story.report(number, f"{number / 2}", final=True)
        story.end(number)
    seen = story.trials()
    assert [one["number"] for one in seen] == list(range(2000))
    assert sum(one["final"] for one in seen) == sum(range(2000)) / 2
    assert views.best(story.state) == {"trial": 1999, "phase": 0, "value": 999.5, "parameters": {"lr": 0.5}}
