"""Regularised evolution: the oldest dies, whatever it is worth; a mutant of the best of a sample takes its place.

Real, Aggarwal, Huang and Le, Regularized Evolution for Image Classifier Architecture Search (AAAI 2019). Asynchronous:
the population is the last `population_size` results in the order in which they came. A mutant differs from its parent
in one parameter: a categorical one has another value, a numeric one takes a step whose width is drawn between 1 % and
30 % of its range, and in a branch that is new everything comes from the prior. Evolution begins after `sample_size`
random points, while the population still grows (in the paper, and in NNI, after a whole random population).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._genes import Genes, Individual, Results, grain, other, parents, prior, reflected, too_wide
from ._history import History

NARROW, WIDE = 0.01, 0.3


class RegularizedEvolution:
    """Tournaments with ageing, in any space; made for large spaces of choices."""

    dedups: ClassVar[bool] = False

    def __init__(
        self, *, optimize_mode: OptimizeMode = "maximize", population_size: int = 100, sample_size: int = 25
    ) -> None:
        if population_size < 1:
            raise ValueError(f"population_size is {population_size}, an integer >= 1 is allowed")
        if not 1 <= sample_size <= population_size:
            raise ValueError(f"sample_size is {sample_size}, an integer from 1 to population_size is allowed")
        self.population_size, self.sample_size = population_size, sample_size
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._ageing: Ageing | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        return too_wide(space, "RegularizedEvolution")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)
        if self._ageing is not None:  # here and not in the ask, which somebody waits for
            self._ageing.sync(self._history)

    def suggest(self, ask: Ask) -> Suggestion:
        """A mutant of the best of a sample."""
        if self._ageing is None or not self._ageing.results.serves(ask.space):
            self._ageing = Ageing(ask.space, self._sign, self.population_size)
        ageing, generator = self._ageing, ask.generator()
        ageing.sync(self._history)
        results, population = ageing.results, ageing.population
        if len(results.members) < self.sample_size or not population or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random start", "alive": len(population)})
        size = min(self.sample_size, len(population))
        drawn = generator.permutation(len(population))[:size].tolist()
        parent = min((population[place] for place in drawn), key=_order)
        point = results.breed(lambda: mutant(ask.space, parent.genes, generator))
        if point is None:
            return Suggestion(results.random(generator), decision={"rule": "no new mutant", "alive": len(population)})
        return Suggestion(
            point,
            parents=parents(parent),
            decision={"rule": "mutant", "parent": parent.trial, "best_of": size, "alive": len(population)},
        )


class Ageing:
    """The population in one space: the last so many results, the oldest first."""

    def __init__(self, space: Space, sign: float, size: int) -> None:
        self.results = Results(space, sign)
        self.population: deque[Individual] = deque(maxlen=size)

    def sync(self, history: History) -> None:
        """Take in what the history has got."""
        self.population.extend(one for one in self.results.sync(history) if one.order is not None)


def mutant(space: Space, genes: Genes, generator: np.random.Generator) -> Callable[[Param], float]:
    """The same genes but for one parameter that could have another value."""
    free = [param.index for param in space.params if genes[param.index] == genes[param.index] and param.size != 1]
    chosen = free[int(generator.random() * len(free))] if free else -1

    def gene(param: Param) -> float:
        x = genes[param.index]
        if x != x:
            return prior(param, generator)
        if param.index != chosen:
            return x
        if param.categorical:
            return other(param, x, generator)
        width = NARROW * (WIDE / NARROW) ** float(generator.random())
        return reflected(x + max(width, 0.7 * grain(param)) * float(generator.standard_normal()))

    return gene


def _order(one: Individual) -> tuple[float, float, int]:
    assert one.order is not None
    return *one.order, -one.number  # of equals the younger
