"""Annealing: points near one of the best, in neighbourhoods that shrink with the number of results.

The idea of hyperopt's `anneal` (Bergstra, Yamins and Cox, Making a Science of Model Search, ICML 2013), which NNI's
Anneal runs: a good result is picked, the best one half of the time, the second a quarter, and so on; each number is
drawn uniformly about it from a window as wide as 1 / (1 + results / 10) of the range, each category is kept but for
the same chance of a draw from the prior. The neighbours of a value that can be counted stay within reach. Unlike there,
all parameters come from the same good point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._genes import Individual, grain, parents, prior, too_wide
from ._history import History
from .evolution import Ranked

STARTUP = 5  # random points
SHRINK = 0.1  # a result makes the window narrower by this
CHANCE = 0.5  # that the best is picked; else the next one with the same chance


class Anneal:
    """A walk about the best points, in any space.

    `parallel_optimize`: trials that run count as results, as good as `constant_liar_type` says: "min" as the least
    loss so far (the best), "max" as the largest, "mean" as one in the middle.
    """

    dedups: ClassVar[bool] = False

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        parallel_optimize: bool = False,
        constant_liar_type: Literal["min", "max", "mean"] = "min",
    ) -> None:
        if constant_liar_type not in ("min", "max", "mean"):
            raise ValueError(f"constant_liar_type is {constant_liar_type!r}; allowed: min, max, mean")
        self.parallel_optimize, self.constant_liar_type = parallel_optimize, constant_liar_type
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._ranked: Ranked | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        return too_wide(space, "Anneal")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)
        if self._ranked is not None:  # here and not in the ask, which somebody waits for
            self._ranked.sync(self._history)

    def suggest(self, ask: Ask) -> Suggestion:
        """A point in the window about a good one."""
        if self._ranked is None or not self._ranked.results.serves(ask.space):
            self._ranked = Ranked(ask.space, self._sign)
        ranked, generator = self._ranked, ask.generator()
        ranked.sync(self._history)
        results = ranked.results
        if len(results.members) < STARTUP or not ranked.ranking or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random start"})
        place = int(generator.geometric(CHANCE)) - 1
        middle, count = self._picked(ranked, place)
        width = 1.0 / (1.0 + SHRINK * count)
        point = results.breed(lambda: near(middle, width, generator))
        if point is None:
            return Suggestion(results.random(generator), decision={"rule": "no new point near", "width": width})
        return Suggestion(
            point,
            parents=parents(middle),
            decision={"rule": "near", "trial": middle.trial, "place": place + 1, "width": round(width, 4)},
        )

    def _picked(self, ranked: Ranked, place: int) -> tuple[Individual, int]:
        """The individual at a place of the ranking, or the last one; and how many results there are."""
        known = len(ranked.ranking)
        running = ranked.results.running if self.parallel_optimize else []
        first = {"min": 1, "mean": known // 2, "max": known}[self.constant_liar_type]  # after the best that they equal
        if first <= place < first + len(running):
            return running[place - first], known + len(running)
        number = place - len(running) if place >= first else place
        return ranked.results.members[ranked.ranking[min(number, known - 1)][1]], known + len(running)


def near(middle: Individual, width: float, generator: np.random.Generator) -> Callable[[Param], float]:
    """Genes from a window about those of an individual; at a bound the window is cut."""

    def gene(param: Param) -> float:
        x = middle.genes[param.index]
        if x != x:
            return prior(param, generator)
        if param.categorical:
            return prior(param, generator) if generator.random() < width else x
        half = max(width / 2, 1.5 * grain(param))
        low, high = max(x - half, 0.0), min(x + half, 1.0)
        return low + (high - low) * float(generator.random())

    return gene
