"""Hosts that share blobs: two SSH servers with folders of their own, and a real Azurite that they know nothing of."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azurite import KEY, Azurite, CutLine
from harness import Bench, Experiment, limits, steps
from sshd import Sshd

from tune.trial_sdk.keeper import read_lock

PROMOTED = """
import json, os, pathlib, sys, time, tune
p = tune.get_next_parameter()
load, save = pathlib.Path(p["load_checkpoint_dir"]), pathlib.Path(p["save_checkpoint_dir"])
epochs = json.loads((load / "epochs").read_text()) if (load / "epochs").exists() else []
if load != save:
    assert epochs, "the checkpoint that this trial continues is not here"
time.sleep(float(sys.argv[1]))
while len(epochs) < p["TRIAL_BUDGET"]:
    epochs.append(tune.get_sequence_id())
(save / "epochs").write_text(json.dumps(epochs))
(pathlib.Path(tune.get_output_dir()) / "out").write_text("written")
print(sorted(os.environ.items()))
tune.report_final_result(-abs(p["x"] - 0.3) - 1 / len(epochs))
"""
ASHA = {"name": "ASHA", "class_args": {"optimize_mode": "maximize", "min_budget": 1, "max_budget": 8, "eta": 2}}


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(tmp_path_factory.mktemp("azurite") / "log")
    yield server
    server.stop()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[[], Sshd]]:
    made: list[Sshd] = []

    def make() -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}"))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        for lock in one.home.glob("experiments/*/keeper.*.lock"):
            if (known := read_lock(lock)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(known.pid, signal.SIGKILL)


class Shelf:
    """A container, and what an experiment has stored in it."""

    def __init__(self, azurite: Azurite, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.azurite, self.name = azurite, name
        self.client = azurite.container(name)
        monkeypatch.setenv("STORAGE", azurite.connection())
        self.fields = {"storage_type": "AzureBlob", "container_name": name, "connection_string": "env:STORAGE"}

    def names(self, experiment: Experiment) -> list[str]:
        before = f"tune/{experiment.id}/"
        return sorted(str(one.name).removeprefix(before) for one in self.client.list_blobs(name_starts_with=before))

    def epochs(self, experiment: Experiment) -> dict[int, list[int]]:
        """What every stored checkpoint holds, by its trial."""
        found: dict[int, list[int]] = {}
        for name in self.names(experiment):
            if name.startswith("checkpoints/"):
                data = self.client.download_blob(f"tune/{experiment.id}/{name}").readall()
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    file = archive.extractfile("./epochs")
                    assert file is not None
                    found[int(name.removeprefix("checkpoints/").removesuffix(".tar.gz"))] = json.load(file)
        return found

    def check(self, experiment: Experiment) -> None:
        """No checkpoint is lost: each is stored, and goes on with the one that its trial continues."""
        made, epochs = experiment.state().made, self.epochs(experiment)
        assert sorted(epochs) == [one.number for one in made]
        for one in made:
            if one.continues is not None:
                before = epochs[one.continues]
                assert epochs[one.number][: len(before)] == before


@pytest.fixture
def shelf(azurite: Azurite, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    made = Shelf(azurite, name, monkeypatch)
    yield made
    made.client.close()


def remote(*machines: dict[str, Any]) -> dict[str, Any]:
    return {"platform": "remote", "machine_list": list(machines)}


def test_checkpoints_follow_and_the_key_stays(
    bench: Bench, shelf: Shelf, host: Callable[[], Sshd], tmp_path: Path
) -> None:
    one, two = host(), host()
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=f"{bench.script(PROMOTED)} 0",
        trial_concurrency=1,  # so that it is always the same ones that are gone on with
        max_trial_number=4,
        debug=True,
        log_level="debug",
        training_service=remote(one.machine(name="one"), two.machine(name="two")),
        shared_storage=shelf.fields,
    )
    two.stop()
    assert experiment.run().counts["SUCCEEDED"] == 4
    one.stop()
    two.start()  # from here on everything that is gone on with comes from the storage
    experiment.start(limits(max_trial_number=8))
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 8, [trial.stderr for trial in state.made]
    crossed = [one for one in state.made if one.continues is not None and state.made[one.continues].host != one.host]
    assert crossed and {trial.host for trial in state.made} == {"one", "two"}
    shelf.check(experiment)
    names = shelf.names(experiment)
    assert len([name for name in names if name.startswith("code/")]) == 1
    assert len([name for name in names if name.startswith("trials/")]) == 8
    for folder in (bench.home, one.home, two.home):
        for path in folder.rglob("*"):
            assert path.is_symlink() or not path.is_file() or KEY.encode() not in path.read_bytes(), path
            assert not path.name.startswith(".carried-")
    assert KEY not in "".join(str(row) for row in experiment.rows())


def test_trials_here_get_no_secret_from_the_environment(bench: Bench, shelf: Shelf) -> None:
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=f"{bench.script(PROMOTED)} 0.2",
        max_trial_number=4,
        shared_storage=shelf.fields,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"])
    keeper = experiment.keeper_pid()
    assert KEY.encode() not in Path(f"/proc/{keeper}/environ").read_bytes()
    for pid in experiment.processes():
        with contextlib.suppress(OSError):
            assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 4, [trial.stderr for trial in state.made]
    shelf.check(experiment)
    outputs = "".join(path.read_text() for path in experiment.folder.path.glob("trials/*/0/stdout"))
    assert "TUNE_TRIAL_ID" in outputs and KEY not in outputs


def test_a_storage_that_can_not_be_used_is_said_at_create(
    bench: Bench, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = bench.tune("create", bench.config_file(shared_storage={**shelf.fields, "container_name": "nowhere"}))
    assert missing.returncode == 1 and "there is no such container" in missing.stderr
    works = bench.tune("doctor", "--config", bench.config_file(shared_storage=shelf.fields))
    assert works.returncode == 0 and f"container {shelf.name}" in works.stdout
    monkeypatch.setenv("STORAGE", shelf.azurite.connection("d3Jvbmc="))
    wrong = bench.tune("create", bench.config_file(shared_storage=shelf.fields))
    assert wrong.returncode == 1 and "does not let us in" in wrong.stderr and "d3Jvbmc" not in wrong.stderr
    monkeypatch.delenv("STORAGE")
    unset = bench.tune("create", bench.config_file(shared_storage=shelf.fields))
    assert unset.returncode == 1 and "the environment has no variable STORAGE" in unset.stderr
    assert not bench.home.exists()


def test_engine_and_storage_go_and_come_and_nothing_is_lost(
    bench: Bench, shelf: Shelf, host: Callable[[], Sshd]
) -> None:
    """The engine is killed -9 while the storage does not answer; its successor stores what that one could not."""
    one, two = host(), host()
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=f"{bench.script(PROMOTED)} 0.1",
        max_trial_number=8,
        training_service=remote(one.machine(name="one"), two.machine(name="two")),
        shared_storage=shelf.fields,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 2)
    shelf.azurite.suspend()
    try:
        experiment.until(lambda state: state.counts["SUCCEEDED"] >= 3)
        experiment.kill_engine()
        experiment.start()
        experiment.until(lambda state: len(state.hosts) == 2 and all(one.connected for one in state.hosts.values()))
    finally:
        threading.Timer(1.0, shelf.azurite.go_on).start()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 8, [trial.stderr for trial in state.made]
    assert {trial.attempt for trial in state.made} == {0}
    shelf.check(experiment)


def test_phases_go_on_with_what_other_trials_have_saved(bench: Bench, shelf: Shelf, host: Callable[[], Sshd]) -> None:
    one, two = host(), host()
    script = f"""
import pathlib, time, tune
while not pathlib.Path({str(bench.base / "go")!r}).exists():
    time.sleep(0.02)
while (p := tune.get_next_parameter()) is not None:
    load, save = pathlib.Path(p["load_checkpoint_dir"]), pathlib.Path(p["save_checkpoint_dir"])
    assert load == save or (load / "step").exists(), (load, list(load.parent.iterdir()))
    (save / "step").write_text("x")
    tune.report_final_result(p["x"])
"""
    experiment = bench.experiment(
        tuner={"name": "PBT", "class_args": {"optimize_mode": "maximize", "population_size": 4}},
        search_space={"x": {"_type": "uniform", "_value": [0, 1]}},
        trial_command=bench.script(script),
        multi_phase=True,
        max_phases_per_trial=4,
        trial_concurrency=1,
        max_trial_number=4,
        training_service=remote(one.machine(name="one"), two.machine(name="two")),
        shared_storage=shelf.fields,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] and len(state.hosts) == 2)
    experiment.ask(limits(trial_concurrency=4))  # the next ones go to the other host
    experiment.until(lambda state: state.counts["RUNNING"] == 4)
    (bench.base / "go").touch()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 4, [trial.stderr for trial in state.made]
    assert {trial.host for trial in state.made} == {"one", "two"}
    assert len([name for name in shelf.names(experiment) if name.startswith("checkpoints/")]) == state.phases


def test_a_storage_that_stays_away_is_named_in_the_log(
    bench: Bench, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = bench.experiment(
        tuner=ASHA, trial_command=f"{bench.script(PROMOTED)} 0", max_trial_number=2, shared_storage=shelf.fields
    )
    monkeypatch.setenv("STORAGE", shelf.azurite.connection("d3Jvbmc="))  # changed since the create
    experiment.start()
    experiment.until(lambda state: state.counts["SUCCEEDED"] == 2)
    for _ in steps(20):
        if "storage waits" in (text := experiment.folder.engine_log.read_text()):
            assert "does not let us in" in text and "d3Jvbmc" not in text
            break
    experiment.kill_engine()
    monkeypatch.delenv("STORAGE")
    refused = bench.tune("resume", experiment.id, "--max-trials", "3")
    assert refused.returncode == 1 and "the environment has no variable STORAGE" in refused.stderr
    monkeypatch.setenv("STORAGE", shelf.azurite.connection())
    experiment.start(limits(max_trial_number=3))
    assert experiment.finish().counts["SUCCEEDED"] == 3
    shelf.check(experiment)


def test_a_stop_does_not_wait_for_a_storage_that_is_away(bench: Bench, shelf: Shelf, host: Callable[[], Sshd]) -> None:
    one, two = host(), host()
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=f"{bench.script(PROMOTED)} 0",
        trial_concurrency=1,
        max_trial_number=3,
        training_service=remote(one.machine(name="one"), two.machine(name="two")),
        shared_storage=shelf.fields,
    )
    two.stop()
    assert experiment.run().counts["SUCCEEDED"] == 3
    two.start()
    shelf.azurite.suspend()
    try:
        experiment.start(limits(max_trial_number=5))
        waiting = experiment.until(lambda state: any(trial.launching for trial in state.made))
        stopped = bench.tune("stop", experiment.id, "--force")
        assert stopped.returncode == 0, stopped.stderr
        assert not [trial for trial in waiting.made[3:] if trial.pid]
    finally:
        shelf.azurite.go_on()
    state = experiment.finish()
    assert state.status == "STOPPED" and not state.active
    experiment.start(limits(max_trial_number=5))
    assert experiment.finish().counts["SUCCEEDED"] == 5
    shelf.check(experiment)


def test_an_upload_that_is_cut_is_made_again(bench: Bench, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    line = CutLine(shelf.azurite.port, after=6 << 20)
    monkeypatch.setenv("STORAGE", shelf.azurite.connection(port=line.port))
    heavy = PROMOTED.replace("print(sorted", "(save / 'weights').write_bytes(os.urandom(9 << 20))\nprint(sorted")
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=f"{bench.script(heavy)} 0",
        max_trial_number=3,
        shared_storage=shelf.fields,
    )
    try:
        assert experiment.run().counts["SUCCEEDED"] == 3
    finally:
        line.close()
    log = experiment.folder.engine_log.read_text()
    assert line.cuts == 1 and "storage waits" in log and "storage goes on" in log
    shelf.check(experiment)
