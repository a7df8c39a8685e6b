"""The examples run as they are shipped, through the real command line, in small: fewer trials, fewer epochs."""

import gzip
import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tune.engine import config_load

EXAMPLES = Path(__file__).parent.parent / "examples"


def copied(tmp_path: Path, config: Path, **changes: Any) -> Path:
    """The resolved config of an example with a few fields changed."""
    settings, _ = config_load.load(config)
    fields = {name: getattr(settings, name) for name in settings.__struct_fields__}
    keep = ("search_space", "trial_command", "trial_code_directory", "trial_concurrency", "max_trial_number")
    given = {name: fields[name] for name in (*keep, "multi_phase", "seed", "optimize_mode")}
    given["tuner"] = {"name": settings.tuner.name, "class_args": settings.tuner.class_args}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**given, **changes}))
    return path


def test_digits(tmp_path: Path, tune: Any) -> None:
    config = copied(
        tmp_path, EXAMPLES / "digits" / "config.toml", max_trial_number=4, trial_command="python trial.py --epochs 4"
    )
    status = tune.json("create", str(config))
    assert status["status"] == "DONE"
    assert status["counts"]["SUCCEEDED"] == 4
    assert status["best"]["value"] > 0.9
    trials = tune.json("trials", status["id"])
    assert all(len(trial["intermediate"]) == 4 and trial["intermediate"][-1] == trial["final"] for trial in trials)
    assert tune.json("view", status["id"])["best"] == status["best"]

    rows = json.loads(tune("export", status["id"], "--format", "json"))
    log = sqlite3.connect(f"file:{status['log']}?mode=ro", uri=True)
    finals = log.execute(
        "SELECT trial, body ->> 'value' FROM event WHERE kind = 'METRIC' AND body ->> 'final'"
    ).fetchall()
    given = dict(log.execute("SELECT trial, body -> 'parameters' FROM event WHERE kind = 'PARAMETER'").fetchall())
    log.close()
    assert sorted((row["trial"], row["value"]) for row in rows) == sorted(finals)
    assert {row["trial"]: row["parameters"] for row in rows} == {
        trial: json.loads(text) for trial, text in given.items()
    }
    assert tune.json("verify", status["id"])["ok"] is True


def test_the_configs_of_digits_are_one() -> None:
    folder = EXAMPLES / "digits"
    found = [config_load.load(folder / name)[0] for name in ("config.toml", "config.yaml", "config_camel_case.yaml")]
    assert found[0] == found[1] == found[2]
    assert found[0].max_trial_number == 10 and found[0].trial_concurrency == 2
    assert found[0].search_space == {
        "features": {"_type": "choice", "_value": [128, 256, 512, 1024]},
        "lr": {"_type": "loguniform", "_value": [0.0001, 0.1]},
        "momentum": {"_type": "uniform", "_value": [0, 1]},
    }


def test_multi_phase(tune: Any) -> None:
    status = tune.json("create", str(EXAMPLES / "multi_phase" / "config.toml"))
    assert status["status"] == "DONE"
    trials = tune.json("trials", status["id"])
    assert [len(trial["phases"]) for trial in trials] == [5] * 4
    results = [final for trial in trials for final in trial["final"]]
    assert len(results) == 20 and status["best"]["value"] == min(results)
    assert len({json.dumps(parameters) for trial in trials for parameters in trial["parameters"]}) == 20


def with_own_tuner(tmp_path: Path, folder: Path, class_args: dict[str, Any], **changes: Any) -> Path:
    """The config of an example that brings a tuner of its own, with a few fields changed."""
    settings = tomllib.loads((folder / "config.toml").read_text())
    settings.update(changes, trial_code_directory=str(folder))
    settings["tuner"].update(code_directory=str(folder))
    settings["tuner"]["class_args"].update(class_args)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    return path


def test_weight_sharing(tmp_path: Path, tune: Any) -> None:
    arguments = {"save_dir_root": str(tmp_path / "weights"), "population": 2}
    folder = EXAMPLES / "weight_sharing"
    config = with_own_tuner(tmp_path, folder, arguments, max_trial_number=6, trial_concurrency=3)
    status = tune.json("create", str(config))
    assert (status["status"], status["counts"]["SUCCEEDED"]) == ("DONE", 6)
    trials = tune.json("trials", status["id"])
    assert [trial["final"]["inherited"] for trial in trials] == [False, False, True, True, True, True]
    saved = [trial["parameters"]["save_path"] for trial in trials]
    parents = [saved.index(trial["parameters"]["restore_path"]) for trial in trials[2:]]
    assert all(parent <= child - 2 for child, parent in enumerate(parents, 2))
    first = min(trials[0]["final"]["default"], trials[1]["final"]["default"])
    assert status["best"]["trial"] >= 2 and status["best"]["value"] > first


def test_genetic_nas(tmp_path: Path, tune: Any) -> None:
    folder = EXAMPLES / "genetic_nas"
    config = with_own_tuner(tmp_path, folder, {"population": 2}, max_trial_number=7, trial_concurrency=3)
    status = tune.json("create", str(config))
    assert (status["status"], status["counts"]["SUCCEEDED"]) == ("DONE", 7)
    trials = tune.json("trials", status["id"])
    ids = [trial["id"] for trial in trials]
    heirs = [ids.index(trial["parameters"]["inherit"]) for trial in trials[2:]]
    assert all(parent < child for child, parent in enumerate(heirs, 2))
    result = json.loads(tune("verify", status["id"], "--decisions", "--json"))
    assert result["ok"] and result["decisions"]["suggestions"] == 7


def test_promotion(tmp_path: Path, tune: Any) -> None:
    arguments = {"optimize_mode": "maximize", "min_budget": 1, "max_budget": 4, "eta": 2}
    tuner = {"name": "ASHA", "class_args": arguments}
    small = copied(tmp_path, EXAMPLES / "promotion" / "config.toml", max_trial_number=9, tuner=tuner)
    status = tune.json("create", str(small))
    assert status["status"] == "DONE" and status["counts"]["SUCCEEDED"] == 9
    trials = tune.json("trials", status["id"])
    promoted = [trial for trial in trials if trial["continues"] is not None]
    assert {trial["parameters"]["TRIAL_BUDGET"] for trial in promoted} == {2, 4}
    for trial in trials:
        parameters = trial["parameters"]
        assert parameters["save_checkpoint_dir"] == f"checkpoints/{trial['number']}"
        assert Path(status["folder"], parameters["save_checkpoint_dir"], "checkpoint.joblib").is_file()
        before = 0
        if trial["continues"] is not None:
            parent = trials[trial["continues"]]
            before = parent["parameters"]["TRIAL_BUDGET"]
            assert parameters["load_checkpoint_dir"] == parent["parameters"]["save_checkpoint_dir"]
            assert parent["ended"] <= trial["started"]
        assert len(trial["intermediate"]) == parameters["TRIAL_BUDGET"] - before
        assert Path(trial["stdout"]).read_text() == f"begins after epoch {before}\n"
    assert "FROM" in tune("trials", status["id"]).splitlines()[0].split()
    assert status["best"]["value"] > 0.5

    # three trials give the same as one that trains to the end
    last = next(trial for trial in promoted if trial["parameters"]["TRIAL_BUDGET"] == 4)
    spec = importlib.util.spec_from_file_location("promotion_trial", EXAMPLES / "promotion" / "trial.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = {key: last["parameters"][key] for key in ("features", "lr", "momentum", "TRIAL_BUDGET")}
    reported: list[float] = []
    module.tune = type(
        "Reports",
        (),
        {
            "get_next_parameter": staticmethod(lambda: given),
            "report_intermediate_result": staticmethod(reported.append),
            "report_final_result": staticmethod(reported.append),
        },
    )
    module.main()
    assert reported[-1] == last["final"] and reported[-len(last["intermediate"]) - 1 : -1] == last["intermediate"]


def test_pytorch_quickstart(tmp_path: Path, tune: Any) -> None:
    config = EXAMPLES / "pytorch_quickstart" / "config_fake_data.toml"
    small = copied(
        tmp_path,
        config,
        max_trial_number=1,
        trial_command="python model.py --fake-data --epochs 2",
        search_space={
            "features": {"_type": "choice", "_value": [128]},
            "lr": {"_type": "uniform", "_value": [0.1, 0.1]},
            "momentum": {"_type": "uniform", "_value": [0.9, 0.9]},
        },
    )
    status = tune.json("create", str(small))
    assert status["status"] == "DONE"
    assert status["best"]["value"] > 0.5


@pytest.fixture(scope="module")
def model() -> ModuleType:
    """The PyTorch quickstart's trial as a module."""
    spec = importlib.util.spec_from_file_location("pytorch_quickstart", EXAMPLES / "pytorch_quickstart" / "model.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_fashion_mnist_is_read_from_its_own_files(tmp_path: Path, model: ModuleType) -> None:
    draw = np.random.default_rng(0)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    made = {}
    for part, count in (("train", 50), ("t10k", 20)):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = draw.integers(0, 10, count, dtype=np.uint8)
        made[part] = images, labels
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    for dataset, (images, labels) in zip(model.fashion_mnist(tmp_path), made.values(), strict=True):
        read_images, read_labels = dataset.tensors
        assert np.array_equal(read_images.numpy(), (images / 255).astype(np.float32))
        assert np.array_equal(read_labels.numpy(), labels)

    command = [sys.executable, str(EXAMPLES / "pytorch_quickstart" / "model.py"), "--epochs", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNE_")}
    done = subprocess.run(
        [*command, "--data", str(tmp_path)], capture_output=True, text=True, env=environment, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Final result: ")


def test_a_file_that_is_no_idx_is_refused(tmp_path: Path, model: ModuleType) -> None:
    (tmp_path / "x").write_bytes(b"\0\0\x0d\x01\0\0\0\x01abcd")
    with pytest.raises(ValueError, match="no idx file"):
        model.read_idx(tmp_path / "x")
