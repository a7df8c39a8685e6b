"""Batch: a list of configurations, each tried once in the order in which it stands.

The search space is exactly one `choice` of objects; a trial gets the object itself, without the parameter's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import msgspec

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import Space
from ._history import History


class Batch:
    """Goes through the listed configurations; one that a person queued or imported counts as tried."""

    dedups: ClassVar[bool] = True
    multi_objective: ClassVar[bool] = True

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize") -> None:
        self._history = History()
        self._used: Counter[bytes] = Counter()
        self._read = 0

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space is no list of configurations, or None."""
        raw: list[Any] = list(space.raw.values())
        if len(raw) != 1 or raw[0]["_type"] != "choice":
            return f"Batch takes exactly one parameter, a choice of objects; found {len(raw)}: {', '.join(space.raw)}"
        if len(space.params) > 1:
            return "Batch takes a choice of objects; this is a nested choice, whose branches have parameters"
        if space.constraints:
            return "Batch takes no constraints: it tries exactly what is listed"
        wrong = [item for item in raw[0]["_value"] if not isinstance(item, Mapping)]
        return f"Batch takes a choice of objects; {wrong[0]!r} is none" if wrong else None

    @staticmethod
    def contains(space: Space, parameters: Mapping[str, Any]) -> str | None:
        """None for one of the listed configurations, else why not: what `Space.contains` is for other tuners."""
        if _text(parameters) in {_text(item) for item in _listed(space)}:
            return None
        return f"{dict(parameters)!r} is not one of the listed configurations"

    def observe(self, fact: Observation) -> None:
        """Remember which configurations were tried."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """The first configuration that was not tried; one that is listed twice is tried twice."""
        points = self._history.points
        self._used.update(_text(point.parameters) for point in points[self._read :])
        self._read = len(points)
        left = self._used.copy()
        listed = _listed(ask.space)
        for number, item in enumerate(listed):
            text = _text(item)
            if left[text] <= 0:
                return Suggestion(item, decision={"rule": "batch", "number": number, "of": len(listed)})
            left[text] -= 1
        return Exhausted(f"all {len(listed)} configurations were tried")


def _listed(space: Space) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", next(iter(space.raw.values()))["_value"])


def _text(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")
