"""Differential evolution: steps are differences of points, towards one of the best, crossed with what they replace.

Storn and Price, Differential Evolution (1997), in the form of Zhang and Sanderson, JADE (IEEE TEC 13, 2009): the mutant
of a member x is x + F (p - x) + F (a - b), with p one of the best fifth, a another member, and b a member or one that
was replaced. Binomial crossover takes each gene from the mutant with the chance `crossover`, and one in any case.

Asynchronous: point number k in order of suggestion tries for slot k mod `population_size`, and takes it when its result
is at least as good as that of the slot's holder, whenever it comes. A slot without a holder is tried for by a random
point. Outside [0, 1] a gene is put half way between the member's and the bound. A categorical gene of a mutant is p's,
a's or another one; a parameter that the member does not have is taken from p or from the prior.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._genes import Individual, Results, other, parents, prior, too_wide
from ._history import History

BEST = 0.2  # of the population is what steps lead towards
DITHER = 0.3  # F is drawn anew for each child, so far about `scale`
ANEW = 0.1  # of a mutant's categorical genes are another value


class DifferentialEvolution:
    """Differential evolution in the unit cube, for any space; strongest with numbers only."""

    dedups: ClassVar[bool] = False

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        population_size: int = 16,
        scale: float = 0.6,
        crossover: float = 0.7,
    ) -> None:
        if population_size < 4:
            raise ValueError(f"population_size is {population_size}, an integer >= 4 is allowed")
        if not 0 < scale <= 2:
            raise ValueError(f"scale is {scale}; allowed: more than 0, at most 2")
        if not 0 <= crossover <= 1:
            raise ValueError(f"crossover is {crossover}, a number from 0 to 1 is allowed")
        self.population_size, self.scale, self.crossover = population_size, scale, crossover
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._slots: Slots | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        return too_wide(space, "DifferentialEvolution")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)
        if self._slots is not None:  # here and not in the ask, which somebody waits for
            self._slots.sync(self._history)

    def suggest(self, ask: Ask) -> Suggestion:
        """A child that tries for the next slot."""
        if self._slots is None or not self._slots.results.serves(ask.space):
            self._slots = Slots(ask.space, self._sign, self.population_size)
        slots, generator = self._slots, ask.generator()
        slots.sync(self._history)
        results = slots.results
        slot = len(results.members) % self.population_size
        target = slots.holders[slot]
        ranked = sorted((one for one in slots.holders if one is not None), key=_order)
        if target is None or len(ranked) < 4 or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random, the slot is free", "slot": slot})
        others = [one for one in ranked if one is not target]
        best = ranked[int(generator.random() * max(1, round(BEST * len(ranked))))]
        one = others[int(generator.random() * len(others))]
        two = self._second(slots, others, one, generator)

        def child() -> Callable[[Param], float]:
            scale = self.scale + DITHER * (2.0 * float(generator.random()) - 1.0)
            return crossed(target, best, one, two, max(scale, 0.05), self.crossover, generator)

        point = results.breed(child)
        if point is None:
            return Suggestion(results.random(generator), decision={"rule": "no new child", "slot": slot})
        four = parents(target, best, one, two)
        return Suggestion(point, parents=four, decision={"rule": "child", "slot": slot, "parents": four})

    def _second(
        self, slots: Slots, others: list[Individual], one: Individual, generator: np.random.Generator
    ) -> Individual:
        """A member other than the first, or one that was replaced."""
        pool = [other_ for other_ in others if other_ is not one] + list(slots.replaced)
        return pool[int(generator.random() * len(pool))]


class Slots:
    """The population in one space by slot, and those that were replaced last."""

    def __init__(self, space: Space, sign: float, size: int) -> None:
        self.results = Results(space, sign)
        self.holders: list[Individual | None] = [None] * size
        self.replaced: deque[Individual] = deque(maxlen=size)

    def sync(self, history: History) -> None:
        """Take in what the history has got; each result tries for its slot."""
        for one in self.results.sync(history):
            if one.order is None:
                continue
            slot = one.number % len(self.holders)
            holder = self.holders[slot]
            if holder is None:
                self.holders[slot] = one
            elif _order(one)[:2] <= _order(holder)[:2]:
                self.holders[slot] = one
                self.replaced.append(holder)


def crossed(
    target: Individual,
    best: Individual,
    one: Individual,
    two: Individual,
    scale: float,
    rate: float,
    generator: np.random.Generator,
) -> Callable[[Param], float]:
    """The genes of the target crossed with its mutant's."""
    forced = int(generator.random() * sum(1 for gene in target.genes if gene == gene))
    seen = 0

    def gene(param: Param) -> float:
        nonlocal seen
        i = param.index
        x, p, a, b = target.genes[i], best.genes[i], one.genes[i], two.genes[i]
        seen += 1
        if x != x:
            return p if p == p else prior(param, generator)
        if generator.random() >= rate and seen - 1 != forced:
            return x
        if param.categorical:
            if generator.random() < ANEW:
                return other(param, x, generator)
            chosen = p if generator.random() < scale else a
            return chosen if chosen == chosen else x
        y = x
        if p == p:
            y += scale * (p - x)
        if a == a and b == b:
            y += scale * (a - b)
        return x / 2 if y < 0 else (x + 1) / 2 if y > 1 else y

    return gene


def _order(one: Individual) -> tuple[float, float, int]:
    assert one.order is not None
    return *one.order, one.number
