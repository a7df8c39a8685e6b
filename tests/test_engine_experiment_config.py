"""engine/experiment_config.py: fields are checked as they are set, and become the config that a file would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune.engine.errors import UsageError
from tune.engine.experiment_config import AlgorithmConfig, ExperimentConfig, TrainingServiceConfig

SPACE = {"x": {"_type": "uniform", "_value": [0, 1]}}


def small(tmp_path: Path) -> ExperimentConfig:
    config = ExperimentConfig("local")
    config.search_space = SPACE
    config.trial_command = "true"
    config.trial_code_directory = tmp_path
    return config


def test_the_example_of_nni_s_page(tmp_path: Path) -> None:
    config = small(tmp_path)
    config.experiment_name = "MNIST example"
    config.trial_concurrency = 2
    config.max_trial_number = 10
    config.tuner.name = "TPE"
    config.tuner.class_args["optimize_mode"] = "minimize"
    config.training_service.use_active_gpu = True
    resolved, _ = config.resolved()
    assert (resolved.experiment_name, resolved.trial_concurrency, resolved.max_trial_number) == ("MNIST example", 2, 10)
    assert (resolved.tuner.name, resolved.optimize_mode) == ("TPE", "minimize")
    assert resolved.training_service.use_active_gpu is True
    assert resolved.trial_code_directory == str(tmp_path)
    assert resolved.assessor is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("trial_concurrency", 0, "an integer, 1 to 99999"),
        ("trial_concurrency", True, "an integer"),
        ("max_experiment_duration", "soon", "a number and s, m, h or d"),
        ("optimize_mode", "most", "maximize, minimize"),
        ("search_space", [1], "a table"),
        ("search_space", {"x": object()}, "no JSON value"),
        ("tuner", 3, "a mapping of fields"),
    ],
)
def test_a_wrong_value_is_said_at_once(name: str, value: Any, said: str) -> None:
    config = ExperimentConfig()
    with pytest.raises(ValueError, match=said) as raised:
        setattr(config, name, value)
    assert name in str(raised.value)
    assert name not in config.mapping()


def test_a_name_that_is_no_field() -> None:
    config = ExperimentConfig()
    with pytest.raises(AttributeError, match="did you mean trial_concurrency"):
        config.trial_concurency = 2
    with pytest.raises(AttributeError, match="no field 'nme'"):
        config.tuner.nme = "TPE"
    with pytest.raises(AttributeError):
        _ = config.nonsense
    assert not hasattr(config, "__array__")


def test_what_is_missing_is_said_for_the_whole(tmp_path: Path) -> None:
    config = ExperimentConfig()
    with pytest.raises(UsageError, match="search_space"):
        config.resolved(tmp_path)


def test_relative_paths_are_under_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path)
    config = small(tmp_path)
    config.trial_code_directory = "code"
    assert config.resolved()[0].trial_code_directory == str(tmp_path / "code")


def test_sections_can_be_set_whole_and_taken_back(tmp_path: Path) -> None:
    config = small(tmp_path)
    config.tuner = "Random"
    assert config.resolved()[0].tuner.name == "Random"
    config.tuner = {"name": "Random", "class_args": {"seed": 3}}
    assert config.resolved()[0].tuner.class_args == {"seed": 3}
    config.tuner = AlgorithmConfig("GridSearch")
    assert config.resolved()[0].tuner.name == "GridSearch"
    config.tuner = None
    assert config.resolved()[0].tuner.name == "TPE"
    config.training_service = TrainingServiceConfig("local")
    config.max_trial_number = 3
    config.max_trial_number = None
    assert "max_trial_number" not in config.mapping()


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    config = small(tmp_path)
    config.trial_concurrency = np.int64(3)
    config.search_space = {"x": {"_type": "uniform", "_value": (np.float32(0.5), np.int32(2))}}
    resolved, _ = config.resolved()
    assert resolved.trial_concurrency == 3
    assert resolved.search_space["x"]["_value"] == [0.5, 2]


def test_equal_configs_are_equal(tmp_path: Path) -> None:
    assert small(tmp_path) == small(tmp_path)
    other = small(tmp_path)
    other.trial_concurrency = 9
    assert small(tmp_path) != other
    assert "trial_concurrency=9" in repr(other)
