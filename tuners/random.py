"""Random search: independent points of the prior, none of them twice.

Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13 (2012). A countable space ends in
`Exhausted` when every point was taken, by whomever.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import Space
from ._history import Cells, History, Taken

TRIES = 1000


class Random:
    """Draws every parameter from its prior. `seed` None: the experiment's; `optimize_mode` changes nothing."""

    dedups: ClassVar[bool] = True
    multi_objective: ClassVar[bool] = True

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        self.seed = seed
        self._history = History()
        self._taken = Taken(self._history)

    def observe(self, fact: Observation) -> None:
        """Remember which points are taken."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """A point that nobody has had yet; of a space without parameters always `{}`."""
        self._taken.sync(ask.space)
        point = untaken(ask.space, self._taken.cells, ask.generator(self.seed))
        if point is None:
            return Exhausted(f"all points that could be found are taken ({len(self._taken.cells)})")
        return Suggestion(point, decision={"rule": "random"})


def untaken(space: Space, taken: Collection[Cells], generator: np.random.Generator) -> dict[str, Any] | None:
    """A point of the prior that is not taken, or None: all are, or a thousand draws found no other.

    It meets the space's constraints.
    """
    size = space.size
    if not space.params:
        return {}
    if size is not None and len(taken) >= size:
        return None
    for _ in range(TRIES if size is None else 30):
        point = space.sample(generator.random)
        if space.cells(point) not in taken:
            return point
    if size is None:
        return None
    start = int(generator.random() * size)  # few are left: the first free one from a random place on
    for number in range(size):
        point = space.point((start + number) % size)
        if space.cells(point) not in taken and space.allows(point):
            return point
    return None
