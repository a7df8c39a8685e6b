"""Another experiment of this home beside the portal's own."""

from __future__ import annotations

from typing import Any

import msgspec

from ..engine import client, home, views
from ..engine.config import encode as encode_config
from ..engine.errors import TuneError
from ..engine.state import State


def compared(folder: home.Folder, state: State, other: str) -> dict[str, Any]:
    """An experiment beside another one of this home. `UsageError` when there is none, `TuneError` when it can't be."""
    second = home.find(other)
    view = client.View(second)
    view.close()
    if view.state.config is None:
        raise TuneError(f"the log of experiment {second.id} is empty")
    pair = (state, view.state)
    configs: list[dict[str, Any]] = [msgspec.json.decode(encode_config(one.settings)) for one in pair]
    return {
        "ids": [folder.id, second.id],
        "best": [views.best(one) for one in pair],
        "curves": [_curve(one) for one in pair],
        "differences": {
            name: [config.get(name) for config in configs]
            for name in sorted({*configs[0], *configs[1]})
            if configs[0].get(name) != configs[1].get(name)
        },
    }


def _curve(state: State) -> list[dict[str, Any]]:
    """Each result by number, and the best until then that meets the outcome constraints; of several objectives the
    first."""
    better = min if state.settings.optimize_mode == "minimize" else max
    found: list[dict[str, Any]] = []
    best: float | None = None
    for row in views.rows(state):
        values: dict[str, float] | None = row["values"]
        value: float = row["value"] if values is None else next(iter(values.values()))
        if not row["violation"]:
            best = value if best is None else better(best, value)
        found.append({"trial": row["trial"], "value": value, "best": best})
    return found
