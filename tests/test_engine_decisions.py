"""Checking decisions: real logs come out the same; a changed answer, a changed verdict and foreign code are named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent / "e2e"))

import harness

from tune.engine import log as log_module
from tune.engine.decisions import check_decisions
from tune.engine.events import Row
from tune.engine.home import Folder
from tune.engine.log import Reader, chain_of

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Bench]:
    """A place for whole experiments; when the test is over, nothing of them may be left."""
    with harness.bench(tmp_path, monkeypatch.setenv) as made:
        yield made


def golden(name: str, tmp_path: Path, change: Callable[[Row], Row]) -> Folder:
    """A golden log, forged."""
    return forged(GOLDEN / f"{name}.1.db", tmp_path, change)


def forged(log: Path, tmp_path: Path, change: Callable[[Row], Row]) -> Folder:
    """A log with some rows changed and the chain right again."""
    folder = Folder("log", tmp_path, tmp_path)
    with Reader(log) as reader:
        rows = [change(row) for row in reader.rows()]
    connection = sqlite3.connect(folder.events, isolation_level=None)
    connection.execute(log_module._TABLE)
    chain = log_module.ZERO
    for row in rows:
        chain = chain_of(chain, row)
        values = [getattr(row, field) for field in Row.__struct_fields__]
        connection.execute(f"INSERT INTO event VALUES ({', '.join('?' * 11)})", [*values, chain])
    for sql in log_module._TRIGGERS.values():
        connection.execute(sql)
    connection.execute(f"PRAGMA application_id = {log_module.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {log_module.FORMAT}")
    connection.close()
    return folder


def edited(kind: str, trial: int | None, change: Callable[[dict], None]) -> Callable[[Row], Row]:
    """A change of the first body of this kind (and trial)."""
    done = False

    def edit(row: Row) -> Row:
        nonlocal done
        if done or row.kind != kind or (trial is not None and row.trial != trial):
            return row
        done = True
        body = json.loads(row.body)
        change(body)
        return msgspec.structs.replace(row, body=json.dumps(body))

    return edit


def test_a_suggestion_that_was_another_one_is_named(tmp_path: Path) -> None:
    def change(body: dict) -> None:
        body["parameters"]["x"] += 1e-16

    folder = golden("single_phase", tmp_path, edited("PARAMETER", 3, change))
    found = check_decisions(folder)
    assert not found.ok
    assert found.suggestions == 3
    assert "trial 3, parameters" in found.divergence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body.update(why="no reason"), "the assessor now says"),
        (lambda body: body.update(seen=body["seen"] - 1), "go on"),
    ],
)
def test_a_verdict_that_was_another_one_is_named(tmp_path: Path, change: Callable[[dict], None], said: str) -> None:
    found = check_decisions(golden("early_stopped", tmp_path, edited("KILL", None, change)))
    assert not found.ok
    assert said in found.divergence


def test_another_seed_is_found_at_the_first_suggestion(tmp_path: Path) -> None:
    def change(body: dict) -> None:
        body["config"]["seed"] += 1

    found = check_decisions(golden("stopped_and_resumed", tmp_path, edited("EXPERIMENT", None, change)))
    assert (found.ok, found.suggestions) == (False, 0)


TUNER = """
from pathlib import Path
from tune.engine.plugins import Suggestion, Wait

Path(__file__).with_name("imported").touch()

class Mine:
    deterministic = {deterministic}

    def __init__(self):
        self.seen = 0

    def suggest(self, ask):
        if ask.number == 3 and self.seen < 2:
            return Wait("two results first")
        return Suggestion({{"x": {x}, "n": self.seen}})

    def observe(self, fact):
        self.seen += type(fact).__name__ == "Ended"
"""


def mine(
    bench: harness.Bench, name: str, *, x: str = "ask.number / 7", deterministic: bool = True
) -> dict[str, object]:
    bench.script(TUNER.format(x=x, deterministic=deterministic), f"{name}.py")
    return {"code_directory": str(bench.code), "class_name": f"{name}.Mine"}


def test_code_of_the_users_own_runs_only_at_home(bench: harness.Bench, tmp_path: Path) -> None:
    tuner = mine(bench, "mine_at_home")
    experiment = bench.experiment(tuner=tuner, trial_concurrency=2, trial_command=bench.fake(steps=1, sleep=0))
    assert experiment.run().status == "DONE"
    (bench.code / "imported").unlink()
    elsewhere = tmp_path / "from-a-stranger"
    elsewhere.mkdir()
    shutil.copyfile(experiment.folder.events, elsewhere / "events.db")
    found = check_decisions(Folder("from-a-stranger", elsewhere, elsewhere))
    assert found.note.startswith("not comparable") and found.suggestions == 0
    assert not (bench.code / "imported").exists()
    said = bench.tune("verify", "--decisions", experiment.id)
    assert (said.returncode, "4 suggestions" in said.stdout) == (0, True), said.stdout
    assert (bench.code / "imported").exists()


def test_a_tuner_whose_code_was_changed_since_is_found(bench: harness.Bench) -> None:
    experiment = bench.experiment(
        tuner=mine(bench, "mine_changed"), trial_concurrency=1, trial_command=bench.fake(steps=1, sleep=0)
    )
    assert experiment.run().status == "DONE"
    mine(bench, "mine_changed", x="ask.number / 8")
    said = bench.tune("verify", "--decisions", "--json", experiment.id)
    told = json.loads(said.stdout)
    assert said.returncode == 1
    assert told["ok"] is True
    assert told["decisions"]["ok"] is False
    assert "trial 0, parameters" in told["decisions"]["divergence"]


def test_a_tuner_that_says_that_it_is_not_deterministic_is_not_compared(bench: harness.Bench) -> None:
    tuner = mine(bench, "mine_random", deterministic=False)
    experiment = bench.experiment(tuner=tuner, trial_command=bench.fake(steps=1, sleep=0))
    assert experiment.run().status == "DONE"
    said = bench.tune("verify", "--decisions", experiment.id)
    assert said.returncode == 0
    assert "not comparable" in said.stdout


def other_results(row: Row) -> Row:
    if row.kind == "METRIC" and '"final":true' in row.body:
        return msgspec.structs.replace(row, body=row.body.replace('"value":-', '"value":'))
    return row


def test_a_good_run_at_concurrency_8_with_an_update_and_a_kill_comes_out_the_same(bench: harness.Bench) -> None:
    experiment = bench.experiment(
        tuner={"name": "TPE"},
        assessor={"name": "Medianstop", "class_args": {"start_step": 1}},
        trial_command=bench.fake(steps=4, sleep=0.01),
        trial_concurrency=8,
        max_trial_number=24,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 6)
    experiment.kill_engine()
    experiment.start(harness.limits(max_trial_number=28))
    assert experiment.finish().status == "DONE"
    found = check_decisions(experiment.folder)
    assert (found.ok, found.divergence, found.note) == (True, "", "")
    assert found.suggestions == 28


def test_other_results_make_tpe_say_something_else(bench: harness.Bench, tmp_path: Path) -> None:
    """From where it begins to listen to them; one trial at a time, so that the run is the same each time."""
    experiment = bench.experiment(
        tuner={"name": "TPE", "class_args": {"tpe_args": {"n_startup_jobs": 4}}},
        trial_command=bench.fake(steps=1, sleep=0.01),
        trial_concurrency=1,
        max_trial_number=14,
    )
    assert experiment.run().status == "DONE"
    found = check_decisions(forged(experiment.folder.events, tmp_path, other_results))
    assert (found.ok, 4 <= found.suggestions < 14) == (False, True)
