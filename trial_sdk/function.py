"""Runs a Python function as a trial: `python -m tune.trial_sdk.function`, in the folder that holds its objective.json.

The function gets the parameters; what it returns is the final result, unless that is None (it may report by itself). In
multi-phase mode it is called again and again until there are no more parameters. engine/objective.py writes the file.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DESCRIPTION = "objective.json"
SOURCE = "objective.py"  # of a function that no module holds: what it needs of its script or notebook


def load(folder: Path) -> Callable[[dict[str, Any]], Any]:
    """The function that objective.json names, out of its module or out of objective.py."""
    said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    sys.path[:0] = [entry for entry in said["path"] if entry not in sys.path]
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # another machine has no such folder
        os.chdir(said["folder"])
    if said["module"]:
        found: Any = importlib.import_module(said["module"])
    else:
        spec = importlib.util.spec_from_file_location("tune_objective", folder / SOURCE)
        assert spec is not None and spec.loader is not None
        found = sys.modules["tune_objective"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    for name in said["name"].split("."):
        found = getattr(found, name)
    return found


def main() -> int:
    """The trial."""
    from . import sdk

    function = load(Path.cwd())
    multi_phase = os.environ.get("TUNE_MULTI_PHASE") == "1"
    while True:
        parameters = sdk.get_next_parameter()
        if parameters is None:
            return 0
        result = function(parameters)
        if result is not None:
            sdk.report_final_result(result)
        if not multi_phase:
            return 0


if __name__ == "__main__":
    sys.exit(main())
