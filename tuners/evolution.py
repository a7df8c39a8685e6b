"""Evolution: children of the best points so far, with steps as wide as the best ones are apart.

Steady-state and asynchronous: each ask breeds one child, from whatever has ended. The parents are the best tenth of
all results, from four up to `population_size`, the better ones more often. A child has the genes of one parent, some of
another's (uniform crossover), and about two of them mutate:

* a numeric one steps by a normal distribution that adapts in two ways: half of it is the distance of two other parents
  in that gene, as in differential evolution (Storn and Price, 1997), which shrinks as the population agrees; the rest
  is a width drawn anew for each child that shrinks with the number of results and is never 0. One in twenty is drawn
  from the prior instead, so that no basin is for ever;
* a categorical one takes another value half of the time;
* where the branch of a nested choice is new, its parameters come from the other parent if it has them, or the prior.

The first ten points are random. A result that fails the outcome constraints is worse than any that meets them.
Measured against NNI's Evolution, which mutates one gene of the better of two and starts with a whole random population.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._genes import Individual, Order, Results, grain, other, parents, prior, reflected, too_wide
from ._history import History

STARTUP = 10  # random points
SHARE = 10
PRESSURE = 3.0  # 1: each parent as often as the others; more: the better ones more often
CROSSED = 0.3  # of the genes come from the other parent
MUTATED = 2.0  # genes of a child, on average
APART = 0.5  # of the distance of two parents goes into a step
WIDTH, AGE, RATIO = 0.15, 15.0, 4.0  # WIDTH to RATIO * WIDTH at first, half of it after AGE results
ANEW = 0.02


class Evolution:
    """Breeds points in any space, conditional ones too; many trials at once do not matter."""

    dedups: ClassVar[bool] = False  # of a small space that is all taken it asks again: results may be noisy

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", population_size: int = 32) -> None:
        if population_size < 2:
            raise ValueError(f"population_size is {population_size}, an integer >= 2 is allowed")
        self.population_size = population_size
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._ranked: Ranked | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        return too_wide(space, "Evolution")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)
        if self._ranked is not None:  # here and not in the ask, which somebody waits for
            self._ranked.sync(self._history)

    def suggest(self, ask: Ask) -> Suggestion:
        """A child of good points."""
        if self._ranked is None or not self._ranked.results.serves(ask.space):
            self._ranked = Ranked(ask.space, self._sign)
        ranked, generator = self._ranked, ask.generator()
        ranked.sync(self._history)
        results, count = ranked.results, len(ranked.ranking)
        if len(results.members) < STARTUP or count < 4 or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random start", "results": count})
        size = min(self.population_size, max(4, -(-count // SHARE)))
        brood = Brood(ranked.best(size), count, generator)
        point = results.breed(brood.child)
        if point is None:
            return Suggestion(results.random(generator), decision={"rule": "no new child", "results": count})
        first, second = brood.pair
        return Suggestion(
            point,
            parents=parents(first, second),
            decision={
                "rule": "child",
                "parents": parents(first, second),
                "of_best": size,
                "width": round(brood.width, 4),
                "results": count,
            },
        )


class Ranked:
    """The results in one space, the best first."""

    def __init__(self, space: Space, sign: float) -> None:
        self.results = Results(space, sign)
        self.ranking: list[tuple[Order, int]] = []  # ascending: (order, number)

    def sync(self, history: History) -> None:
        """Take in what the history has got."""
        for one in self.results.sync(history):
            if one.order is not None:
                insort(self.ranking, (one.order, one.number))

    def best(self, size: int) -> list[Individual]:
        """The best so many, the best one first."""
        return [self.results.members[number] for _, number in self.ranking[:size]]


class Brood:
    """Children of one ask. `pair` and `width`: of the last one."""

    def __init__(self, population: list[Individual], results: int, generator: np.random.Generator) -> None:
        self.population = population
        self._base = WIDTH / (1.0 + results / AGE)
        self._generator = generator
        self._random: Callable[[], float] = generator.random
        self.pair = population[0], population[0]
        self.width = self._base

    def _pick(self) -> Individual:
        count = len(self.population)
        return self.population[min(int(count * self._random() ** PRESSURE), count - 1)]

    def child(self) -> Callable[[Param], float]:
        """The genes of one child, to be asked parents first."""
        random, generator = self._random, self._generator
        self.pair = first, second = self._pick(), self._pick()
        one, two = self._pick().genes, self._pick().genes
        self.width = width = self._base * RATIO ** random()
        mine, others = first.genes, second.genes
        count = sum(1 for gene in mine if gene == gene)
        rate = max(MUTATED / count, 0.25)
        forced = int(random() * count)  # so that one at least mutates
        seen = 0

        def gene(param: Param) -> float:
            nonlocal seen
            i = param.index
            x, y = mine[i], others[i]
            seen += 1
            if y == y and (x != x or random() < CROSSED):
                x = y
            if x != x:
                return prior(param, generator)
            if random() >= rate and seen - 1 != forced:
                return x
            if param.categorical:
                return other(param, x, generator) if random() < 0.5 else x
            if random() < ANEW:
                return random()
            apart = abs(one[i] - two[i])
            step = width + (0.4 * width if math.isnan(apart) else APART * apart)
            return reflected(x + max(step, 0.7 * grain(param)) * float(generator.standard_normal()))

        return gene
