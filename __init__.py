"""tune: hyper-parameter tuning and neural architecture search that never loses a trial.

In a trial: `get_next_parameter`, `report_intermediate_result`, `report_final_result` and what stands beside them.
In a program of your own: `Experiment` and its `visualization`; `AskTell`, and the errors that it raises.
Nothing is imported before it is used, so `import tune` costs a trial next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import visualization
    from .engine.ask_tell import AskTell, NoMoreTrials, NoTrialYet, StudyEnded, TunerBroke
    from .engine.experiment import Experiment
    from .engine.experiment_config import ExperimentConfig, RemoteMachineConfig
    from .trial_sdk import (
        get_attempt,
        get_current_parameter,
        get_experiment_id,
        get_next_parameter,
        get_next_parameters,
        get_output_dir,
        get_sequence_id,
        get_trial_id,
        report_final_result,
        report_intermediate_result,
        should_stop,
    )

__version__ = "0.1.0"
_ENGINE = {  # names, and their modules there
    "Experiment": "experiment",
    **dict.fromkeys(("ExperimentConfig", "RemoteMachineConfig"), "experiment_config"),
    **dict.fromkeys(("AskTell", "NoMoreTrials", "NoTrialYet", "StudyEnded", "TunerBroke"), "ask_tell"),
}
__all__ = [
    "AskTell",
    "Experiment",
    "ExperimentConfig",
    "NoMoreTrials",
    "NoTrialYet",
    "RemoteMachineConfig",
    "StudyEnded",
    "TunerBroke",
    "get_attempt",
    "get_current_parameter",
    "get_experiment_id",
    "get_next_parameter",
    "get_next_parameters",
    "get_output_dir",
    "get_sequence_id",
    "get_trial_id",
    "report_final_result",
    "report_intermediate_result",
    "should_stop",
    "visualization",
]


def __getattr__(name: str) -> Any:
    if name in _ENGINE:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.engine.{_ENGINE[name]}"), name)
    if name == "visualization":
        from importlib import import_module

        return import_module(f"{__name__}.visualization")
    if name in __all__:
        from .trial_sdk import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
