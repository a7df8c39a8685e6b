"""Storage that hosts mount: SSH servers with mounts of their own, whose `mount` binds one exported folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Experiment, limits
from sshd import Sshd

from tune.trial_sdk.keeper import read_lock

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMOTED = """
import json, os, pathlib, tune
p = tune.get_next_parameter()
load, save = pathlib.Path(p["load_checkpoint_dir"]), pathlib.Path(p["save_checkpoint_dir"])
epochs = json.loads((load / "epochs").read_text()) if (load / "epochs").exists() else []
if load != save:
    assert epochs, "the checkpoint that this trial continues is not here"
while len(epochs) < p["TRIAL_BUDGET"]:
    epochs.append(tune.get_sequence_id())
(save / "epochs").write_text(json.dumps(epochs))
(pathlib.Path(tune.get_output_dir()) / "out").write_text(os.environ["NNI_OUTPUT_DIR"])
tune.report_final_result(-abs(p["x"] - 0.3) - 1 / len(epochs))
"""
ASHA = {"name": "ASHA", "class_args": {"optimize_mode": "maximize", "min_budget": 1, "max_budget": 8, "eta": 2}}


class Storage:
    """An exported folder, and a `mount` that binds it where it is told to, as a kernel with NFS would mount it."""

    def __init__(self, base: Path) -> None:
        if os.getuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("needs root and unshare (Debian's util-linux): each host has mounts of its own")
        self.base, self.point = base, base / "mnt"
        self.point.mkdir()
        self.export("export")

    def export(self, name: str) -> Path:
        (self.base / name).mkdir(exist_ok=True)
        return self.base / name

    def bin(self, host: str, export: str = "export", options: str = "bind") -> Path:
        """A folder with a host's `mount`, which says nothing, keeps what it was called with, and binds."""
        folder = self.base / f"bin-{host}"
        folder.mkdir(exist_ok=True)
        real = shutil.which("mount")
        (folder / "mount").write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{folder}/calls"\nfor point; do :; done\n'
            f'exec {real} --bind -o "{options}" "{self.export(export)}" "$point"\n'
        )
        (folder / "mount").chmod(0o755)
        return folder

    def host(self, name: str, export: str = "export", options: str = "bind") -> Sshd:
        path = f"{self.bin(name, export, options)}:{os.environ['PATH']}"
        namespace = ["unshare", "--mount", "--propagation", "private"]
        return Sshd(self.base / name, f"SetEnv PATH={path}", before=namespace)

    def calls(self, host: str) -> list[str]:
        path = self.base / f"bin-{host}" / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def fields(self, **fields: Any) -> dict[str, Any]:
        return {
            "storage_type": "NFS",
            "nfs_server": "server.example",
            "exported_directory": "/export",
            "local_mounted": "nomount",
            "remote_mount_point": str(self.point),
            **fields,
        }


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(tmp_path)
    yield made
    for one in Path("/proc/self/mountinfo").read_text().splitlines():
        if one.split()[4] == str(made.point):
            subprocess.run(["umount", str(made.point)], check=True, timeout=20)


@pytest.fixture
def hosts(storage: Storage) -> Iterator[list[Sshd]]:
    made: list[Sshd] = []
    yield made
    for one in made:
        one.stop()
        for lock in one.home.glob("experiments/*/keeper.*.lock"):
            if (known := read_lock(lock)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(known.pid, signal.SIGKILL)


def remote(*machines: dict[str, Any]) -> dict[str, Any]:
    return {"platform": "remote", "machine_list": list(machines)}


def crossed(experiment: Experiment) -> int:
    """How many trials went on with the checkpoint of another host."""
    made = experiment.state().made
    return sum(one.continues is not None and made[one.continues].host != one.host for one in made)


def test_checkpoints_outputs_and_code_are_everywhere(bench: Bench, storage: Storage, hosts: list[Sshd]) -> None:
    hosts += [storage.host("one"), storage.host("two")]
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=bench.script(PROMOTED),
        trial_concurrency=1,  # so that it is always the same ones that are gone on with
        max_trial_number=4,
        training_service=remote(hosts[0].machine(name="one"), hosts[1].machine(name="two")),
        shared_storage=storage.fields(),
    )
    hosts[1].stop()
    assert experiment.run().counts["SUCCEEDED"] == 4
    hosts[1].start()
    hosts[0].stop()  # what comes now is on the other host, and some of it goes on with what lies on this one
    experiment.start(limits(max_trial_number=8))
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 8, [one.stderr for one in state.made]
    assert {one.host for one in state.made} == {"one", "two"} and crossed(experiment) > 0
    shared = storage.base / "export/tune" / experiment.id
    assert [path.name for path in shared.glob("code/*/*")] == ["trial.py"]
    for one in state.made:
        assert (shared / "trials" / one.id / "out").read_text() == str(
            storage.point / "tune" / experiment.id / "trials" / one.id
        )
    assert len(list(shared.glob("checkpoints/*/epochs"))) == 8
    for name, host in zip(("one", "two"), hosts, strict=True):
        options = "rw,nosuid,nodev,lookupcache=positive"
        assert storage.calls(name) == [f"-t nfs -o {options} server.example:/export {storage.point}"]
        own = host.home / "experiments" / experiment.id
        assert not (own / "code").exists() and not (own / "checkpoints").exists()
        assert list(own.glob("trials/*/0/exit")) and list(own.glob("trials/*/0/*.spool"))
    assert not list(shared.rglob("*.spool")) and not list(storage.point.iterdir())
    last = state.made[-1]
    fetched = bench.tune("trial", "fetch", last.id, "--id", experiment.id)
    assert fetched.returncode == 0, fetched.stderr
    folder = experiment.folder.trials / last.id
    assert (folder / "out").is_file() and (folder / "0" / "exit").is_file()


def test_the_weight_sharing_example_over_two_hosts(bench: Bench, storage: Storage, hosts: list[Sshd]) -> None:
    hosts += [storage.host("one"), storage.host("two")]
    folder = EXAMPLES / "weight_sharing"
    experiment = bench.experiment(
        search_space={
            "lr": {"_type": "loguniform", "_value": [0.003, 0.3]},
            "momentum": {"_type": "uniform", "_value": [0.0, 0.95]},
        },
        trial_command="python trial.py --epochs 1",
        trial_code_directory=str(folder),
        max_trial_number=4,
        multi_thread=True,
        tuner={
            "code_directory": str(folder),
            "class_name": "sharing_tuner.SharingTuner",
            "class_args": {"save_dir_root": "data/weights", "population": 2},
        },
        training_service=remote(hosts[0].machine(name="one"), hosts[1].machine(name="two")),
        shared_storage=storage.fields(),
    )
    state = experiment.run()
    assert state.counts["SUCCEEDED"] == 4, [one.stderr for one in state.made]
    assert {one.host for one in state.made} == {"one", "two"}
    assert len(list((storage.base / "export").rglob("data/weights/*.npz"))) == 4


def test_this_host_takes_part(
    bench: Bench, storage: Storage, hosts: list[Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.append(storage.host("one"))
    monkeypatch.setenv("PATH", f"{storage.bin('here')}:{os.environ['PATH']}")
    both = {"platform": ["local", "remote"], "machine_list": [hosts[0].machine(name="one")]}
    fields = storage.fields(local_mounted="nnimount", local_mount_point=str(storage.point))
    experiment = bench.experiment(
        tuner=ASHA,
        trial_command=f"while [ ! -e {bench.base / 'go'} ]; do sleep 0.02; done; {bench.script(PROMOTED)}",
        trial_concurrency=1,
        max_trial_number=5,
        training_service=both,
        shared_storage=fields,
    )
    experiment.start()
    experiment.until(lambda state: state.counts["RUNNING"] and len(state.hosts) == 2)
    experiment.ask(limits(trial_concurrency=2))  # the next one goes to the other host
    experiment.until(lambda state: state.counts["RUNNING"] == 2)
    (bench.base / "go").touch()
    state = experiment.finish()
    assert state.counts["SUCCEEDED"] == 5, [one.stderr for one in state.made]
    assert {one.host for one in state.made} == {"one", "local"}
    shared = storage.point / "tune" / experiment.id
    assert len(list(shared.glob("checkpoints/*/epochs"))) == 5 and len(list(shared.glob("code/*"))) == 1
    assert [path.name for path in shared.glob(".marks/*")] == ["owner"] and len(storage.calls("here")) == 1
    again = bench.tune("create", bench.config_file(trial_command="true", training_service=both, shared_storage=fields))
    assert "shared storage" not in again.stderr
    looked = bench.tune("doctor", "--config", bench.config_file(training_service=both, shared_storage=fields))
    assert looked.returncode == 0 and "shared storage" in looked.stdout and "can be used" in looked.stdout
    assert not list((storage.base / "export/tune").glob(".try-*"))


def test_what_is_no_mount_or_another_one_is_refused(bench: Bench, storage: Storage, hosts: list[Sshd]) -> None:
    hosts += [storage.host("one"), storage.host("two", export="other"), storage.host("three", options="bind,ro")]
    one, two, three = (host.machine(name=name) for host, name in zip(hosts, ("one", "two", "three"), strict=True))
    users = storage.fields(remote_mounted="usermount")
    plain = bench.tune("create", bench.config_file(training_service=remote(one), shared_storage=users))
    assert plain.returncode == 1 and f"host one: shared storage there: {storage.point} is a folder of" in plain.stderr
    assert "no mount: mount the storage there" in plain.stderr and not bench.home.exists()
    own = {"local_mounted": "usermount", "local_mount_point": str(storage.point)}
    here = bench.tune("doctor", "--config", bench.config_file(shared_storage=storage.fields(**own)))
    assert here.returncode == 1 and f"{storage.point} is a folder of" in here.stdout.replace("\n", " ")
    full = bench.tune("create", bench.config_file(training_service=remote(three), shared_storage=storage.fields()))
    assert full.returncode == 1 and "can't be written by uid 0 (Read-only file system)" in full.stderr
    experiment = bench.experiment(training_service=remote(one, two), shared_storage=storage.fields())
    state = experiment.run()
    assert state.counts["SUCCEEDED"] == 4
    assert len({trial.host for trial in state.made}) == 1
    refused = next(host for host in state.hosts.values() if not host.connected)
    assert "is not what host" in refused.reason and str(storage.point) in refused.reason
