"""Lets `import nni` and `from nni.tuner import Tuner` find what `tune.nni` holds, where no NNI is installed.

A finder at the very end of the import path: any `nni` that is there, installed or the user's own, wins.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

# NNI's modules over its versions, and what of `tune.nni` stands in each; "" is the package itself
MODULES: dict[str, tuple[str, ...]] = {
    "": (),
    "tuner": ("Tuner", "NoMoreTrialError"),
    "assessor": ("Assessor", "AssessResult"),
    "multi_phase": (),
    "multi_phase.multi_phase_tuner": ("MultiPhaseTuner",),
    "multi_phase_tuner": ("MultiPhaseTuner",),
    "msg_dispatcher_base": ("MsgDispatcherBase",),
    "protocol": ("CommandType", "send"),
    "runtime": (),
    "runtime.msg_dispatcher_base": ("MsgDispatcherBase",),
    "runtime.protocol": ("CommandType", "send"),
    "utils": ("OptimizeMode", "extract_scalar_reward", "extract_scalar_history", "merge_parameter"),
    "common": (),
}


class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `nni` and the modules in `MODULES`, and fills them from `tune.nni`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        name, _, rest = fullname.partition(".")
        if name != "nni" or rest not in MODULES:
            return None
        if rest and not isinstance(getattr(sys.modules.get("nni"), "__loader__", None), _Alias):
            return None  # the package is a real NNI: its modules are its own
        package = any(other.startswith(f"{rest}.") for other in MODULES) or not rest
        return importlib.machinery.ModuleSpec(fullname, self, is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        source = importlib.import_module(f"{__name__.rsplit('.', 2)[0]}.nni")
        rest = module.__name__.partition(".")[2]
        for name in MODULES[rest] or (source.__all__ if not rest else ()):
            setattr(module, name, getattr(source, name))
        module.__doc__ = f"{module.__name__}, as far as tune.nni has it."


def install() -> None:
    """Let `import nni` find `tune.nni` from now on; an NNI that is there wins. Harmless when done twice."""
    if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.append(_Alias())
