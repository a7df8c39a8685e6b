"""What a trial's code imports, and the small programs around it: spool, wire, waiter, keeper.

The functions are those of sdk.py, loaded when the first one is used: the keeper and the engine need none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sdk import (
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

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
