"""NSGA-II: a population that spreads along the front of the best compromises between several objectives.

Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II (IEEE TEC 6, 2002):
points are sorted into fronts of which none dominates another, and within a front by how lonely they are; parents win
binary tournaments; children come by simulated binary crossover and polynomial mutation, categorical genes by swapping
and resetting. Domination minds the outcome constraints: less violation dominates more, only equals are compared by
their objectives.

Asynchronous: there are no generations. Results join a pool, and each time a tenth of `population_size` has come, the
best `population_size` of the pool are selected anew. Without objectives in the config it is a genetic algorithm for
the one result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ask, Objective, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._genes import Individual, Results, other, parents, prior, reflected, too_wide
from ._history import History

Floats: TypeAlias = NDArray[np.float64]

STARTUP = 16  # random points at most
SMALLEST = 6  # members at first; the population grows with the results:
SHARE_ONE, SHARE_SEVERAL = 6, 2  # one of so many is a member, with one objective or several
CROSSED = 0.9  # of the children have two parents
MUTATED = 2.0  # genes of a child, on average
ETA_CROSSOVER, ETA_MUTATION = 5.0, 8.0  # distribution indices: more is nearer to the parents


class NSGAII:
    """A genetic algorithm for one objective or several, in any space."""

    dedups: ClassVar[bool] = False
    multi_objective: ClassVar[bool] = True

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", population_size: int = 50) -> None:
        if population_size < 4:
            raise ValueError(f"population_size is {population_size}, an integer >= 4 is allowed")
        self.population_size = population_size
        self._mode: OptimizeMode = optimize_mode
        self._history = History()
        self._pool: Pool | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        return too_wide(space, "NSGAII")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)
        if self._pool is not None:  # here and not in the ask, which somebody waits for
            self._pool.sync(self._history)

    def suggest(self, ask: Ask) -> Suggestion:
        """A child of two that won their tournaments."""
        if self._pool is None or not self._pool.serves(ask.space, ask.objectives):
            self._pool = Pool(ask.space, ask.objectives, self._mode, self.population_size)
        pool, generator = self._pool, ask.generator()
        pool.sync(self._history)
        results, ranked = pool.results, pool.population
        if len(results.members) < min(STARTUP, self.population_size) or len(ranked) < 2 or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random start", "population": len(ranked)})

        def winner() -> int:
            return min(int(generator.random() * len(ranked)), int(generator.random() * len(ranked)))

        first, second = winner(), winner()
        one, two = ranked[first], ranked[second]
        point = results.breed(lambda: bred(one, two, generator))
        if point is None:
            return Suggestion(results.random(generator), decision={"rule": "no new child", "population": len(ranked)})
        return Suggestion(
            point,
            parents=parents(one, two),
            decision={
                "rule": "child",
                "parents": parents(one, two),
                "fronts": [pool.fronts[first], pool.fronts[second]],
                "population": len(ranked),
            },
        )


class Pool:
    """The results in one space, and the population selected from them: the best first, `fronts` beside it."""

    def __init__(self, space: Space, objectives: tuple[Objective, ...], mode: OptimizeMode, size: int) -> None:
        self.results = Results(space, 1.0 if mode == "minimize" else -1.0)
        self.population: list[Individual] = []
        self.fronts: list[int] = []
        self._new: list[Individual] = []
        self._count = 0  # of results that were selected from
        self._objectives = objectives
        self._signs = [1.0 if objective.mode == "minimize" else -1.0 for objective in objectives]
        self._size, self._step = size, max(1, size // 10)

    def serves(self, space: Space, objectives: tuple[Objective, ...]) -> bool:
        """Whether this is the pool of that space and these objectives."""
        return objectives == self._objectives and self.results.serves(space)

    def sync(self, history: History) -> None:
        """Take in what the history has got; select as often as enough of it has come."""
        for one in self.results.sync(history):
            if one.order is None or (self._signs and len(one.values) != len(self._signs)):
                continue
            self._new.append(one)
            if len(self._new) >= self._step:
                self._select()

    def _select(self) -> None:
        pool = self.population + self._new
        count, self._new = len(self._new), []
        violations = np.array([one.order[0] for one in pool if one.order is not None])
        losses = np.array([self._losses(one) for one in pool])
        self._count += count
        front = fronts(losses, violations)
        crowding = np.empty(len(pool))
        for number in range(int(front.max()) + 1):
            members = np.flatnonzero(front == number)
            crowding[members] = distances(losses[members])
        share = SHARE_SEVERAL if len(self._signs) > 1 else SHARE_ONE
        size = min(self._size, max(SMALLEST, self._count // share))
        order = np.lexsort((np.array([one.number for one in pool]), -crowding, front))[:size].tolist()
        self.population = [pool[place] for place in order]
        self.fronts = [int(front[place]) for place in order]

    def _losses(self, one: Individual) -> list[float]:
        if not self._signs:
            return [one.order[1] if one.order is not None else math.inf]
        return [sign * value for sign, value in zip(self._signs, one.values, strict=True)]


def fronts(losses: Floats, violations: Floats) -> NDArray[np.intp]:
    """The front of each point, 0 the best, by its losses (n x objectives) and its violation (n)."""
    if losses.shape[1] == 1:
        order = np.lexsort((losses[:, 0], violations))
        ranked = np.stack([violations[order], losses[order, 0]])
        found = np.empty(len(losses), dtype=np.intp)
        found[order] = np.cumsum(np.append(False, (np.diff(ranked, axis=1) != 0).any(axis=0)))
        return found
    no_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    less = violations[:, None] < violations[None, :]
    same = violations[:, None] == violations[None, :]
    dominates = less | (same & no_worse & ~no_worse.T)
    front = np.full(len(losses), -1, dtype=np.intp)
    above = dominates.sum(axis=0)
    number = 0
    while (front < 0).any():
        members = (above == 0) & (front < 0)
        front[members] = number
        above = above - dominates[members].sum(axis=0)
        number += 1
    return front


def distances(losses: Floats) -> Floats:
    """How lonely each point of a front is, by its losses (n x objectives): inf at the ends of an objective."""
    n, count = losses.shape
    found = np.zeros(n)
    for objective in range(count):
        column = losses[:, objective] / 2  # so that no difference is infinite
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        span = ranked[-1] - ranked[0]
        found[order[[0, -1]]] = np.inf
        if span > 0:
            found[order[1:-1]] += (ranked[2:] - ranked[:-2]) / span
    return found


def bred(one: Individual, two: Individual, generator: np.random.Generator) -> Callable[[Param], float]:
    """The genes of a child of these two."""
    mine, others = (one.genes, two.genes) if generator.random() < 0.5 else (two.genes, one.genes)
    count = sum(1 for gene in mine if gene == gene)
    forced = int(generator.random() * count)
    rate = MUTATED / count
    crossing = generator.random() < CROSSED
    seen = 0

    def gene(param: Param) -> float:
        nonlocal seen
        x, y = mine[param.index], others[param.index]
        seen += 1
        if x != x:
            x = y
        if x != x:
            return prior(param, generator)
        if crossing and y == y and generator.random() < 0.5:
            x = y if param.categorical else reflected(simulated_binary(x, y, float(generator.random())))
        if generator.random() < rate or (seen - 1 == forced and (not crossing or mine is others)):
            return other(param, x, generator) if param.categorical else polynomial(x, float(generator.random()))
        return x

    return gene


def simulated_binary(x: float, y: float, u: float) -> float:
    """A number that is to x and y as one bit string is to its two parents; u in [0, 1) decides how far from them."""
    power = 1.0 / (ETA_CROSSOVER + 1.0)
    beta = (2.0 * u) ** power if u <= 0.5 else (0.5 / (1.0 - u)) ** power
    return 0.5 * ((1.0 + beta) * x + (1.0 - beta) * y)


def polynomial(x: float, u: float) -> float:
    """A place near x in [0, 1], from a distribution that ends at both bounds; u in [0, 1) is its quantile."""
    power = ETA_MUTATION + 1.0
    if u < 0.5:
        low = (2.0 * u + (1.0 - 2.0 * u) * (1.0 - x) ** power) ** (1.0 / power) - 1.0
        return min(max(x + low, 0.0), 1.0)
    high = 1.0 - (2.0 * (1.0 - u) + (2.0 * u - 1.0) * x**power) ** (1.0 / power)
    return min(max(x + high, 0.0), 1.0)
