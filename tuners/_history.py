"""What a tuner has observed: every point with what became of it, and which points of a space are taken.

Facts come before the first ask tells the space (a rebuild observes the whole log at once), so points are kept as they
came and mapped into a space when one is asked about; a changed space maps them anew, and those outside drop out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..engine.plugins import Ended, Imported, Observation, Suggested
from ..engine.space import Cell, Space

Cells: TypeAlias = tuple[Cell | None, ...]
State: TypeAlias = Literal["pending", "completed", "stopped", "failed", "cancelled"]
EXTRAS = frozenset({"TRIAL_BUDGET", "load_checkpoint_dir", "save_checkpoint_dir"})


@dataclass(slots=True)
class Point:
    """Parameters as a trial got them, and what became of them; `value` is finite or None.

    `values`: with several objectives the number of each. `violation`: by how much it fails the outcome constraints.
    """

    parameters: Mapping[str, Any]
    state: State = "pending"
    value: float | None = None
    values: list[float] = field(default_factory=list[float])
    violation: float = 0.0
    trial: int | None = None  # whose point it is; None: imported


class History:
    """All points in the order in which they were suggested or imported."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.ended: list[int] = []  # indices of points in the order in which they ended
        self._open: dict[tuple[int, int], int] = {}

    def observe(self, fact: Observation) -> None:
        """Take in one fact; ends of phases that were never seen, and second ends, say nothing."""
        match fact:
            case Suggested():
                self._open[fact.trial, fact.phase] = len(self.points)
                self.points.append(Point(fact.parameters, trial=fact.trial))
            case Ended():
                index = self._open.pop((fact.trial, fact.phase), None)
                if index is not None:
                    self._end(index, fact.outcome, fact)
            case Imported():
                self.points.append(Point(fact.parameters))
                self._end(len(self.points) - 1, "completed", fact)
            case _:
                pass

    def _end(self, index: int, state: State, result: Ended | Imported) -> None:
        point, value = self.points[index], result.value
        point.value = None if value is None or state == "cancelled" or not math.isfinite(value) else float(value)
        point.state = "failed" if point.value is None and state == "completed" else state
        if point.value is not None:
            point.values, point.violation = result.values, result.violation
        self.ended.append(index)


class Taken:
    """The points of a space that somebody has or had: the cells of every suggested and imported one."""

    def __init__(self, history: History) -> None:
        self.cells: set[Cells] = set()
        self.space: Space | None = None
        self._history = history
        self._read = 0

    def sync(self, space: Space) -> bool:
        """Bring `cells` up to date for this space; True when it's another space than the last time."""
        changed = self.space is None or (self.space is not space and self.space.raw != space.raw)
        if changed:
            self.cells, self._read = set(), 0
            self.space = space
        points = self._history.points
        for point in points[self._read :]:
            cells = space.cells(point.parameters, EXTRAS)
            if cells is not None:
                self.cells.add(cells)
        self._read = len(points)
        return changed

    def __contains__(self, parameters: Mapping[str, Any]) -> bool:
        assert self.space is not None
        return self.space.cells(parameters) in self.cells
