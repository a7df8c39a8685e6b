"""What code in NNI's style needs, under one name: `import tune.nni as nni`.

A trial's calls, the base classes of tuners, assessors and advisors, and what stands beside them. Only names: the
classes live in tuners/_nni.py, the calls in trial_sdk/. `install()` lets `import nni` find them, where no NNI is.
"""

from .trial_sdk.sdk import (
    get_current_parameter,
    get_experiment_id,
    get_next_parameter,
    get_next_parameters,
    get_sequence_id,
    get_trial_id,
    report_final_result,
    report_intermediate_result,
)
from .tuners._nni import (
    Assessor,
    AssessResult,
    CommandType,
    MsgDispatcherBase,
    MultiPhaseTuner,
    NoMoreTrialError,
    OptimizeMode,
    Tuner,
    extract_scalar_history,
    extract_scalar_reward,
    merge_parameter,
    send,
)
from .tuners._nni_alias import install

__all__ = [
    "AssessResult",
    "Assessor",
    "CommandType",
    "MsgDispatcherBase",
    "MultiPhaseTuner",
    "NoMoreTrialError",
    "OptimizeMode",
    "Tuner",
    "extract_scalar_history",
    "extract_scalar_reward",
    "get_current_parameter",
    "get_experiment_id",
    "get_next_parameter",
    "get_next_parameters",
    "get_sequence_id",
    "get_trial_id",
    "install",
    "merge_parameter",
    "report_final_result",
    "report_intermediate_result",
    "send",
]
