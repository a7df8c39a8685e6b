"""DEHB: Hyperband's brackets, filled by differential evolution, one population for each budget.

Awad, Mallik and Hutter, DEHB: Evolutionary Hyperband for Scalable, Robust and Efficient Hyperparameter Optimization
(IJCAI 2021). The first bracket is plain successive halving: random configurations, and the best of them go on from
their checkpoints. Every later run is a child: a mutant a + `mutation_factor` * (b - c) of three parents, crossed with
a target of its budget's population, which it replaces if it's no worse. In a bracket's first rung the parents are of
that population; above, they are the best of the budget below, so that what was learned cheaply moves up.

Points are vectors in the unit cube; rounding and choices are applied to copies only. A child has parameters that
nobody had, so it starts afresh. No run ever waits for a slow one.
"""

from __future__ import annotations

import copy
from bisect import insort
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion, Wait
from ..engine.space import Space
from ._brackets import Bracket
from ._history import Cells
from ._lineages import Budget, Rank, Run, Runs, extras, folder, reserved, seed_checked
from ._rungs import ladder_of
from .random import untaken

TRIES = 20
_GOLDEN = 0.6180339887498949

Vector = NDArray[np.float64]


class DEHB:
    """Differential evolution over budgets. `seed` None: the experiment's."""

    dedups: ClassVar[bool] = False  # a promotion is the same point again

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        min_budget: int | float = 1,
        max_budget: int | float = 81,
        eta: int = 3,
        mutation_factor: float = 0.5,
        crossover_prob: float = 0.5,
    ) -> None:
        for name, value in (("mutation_factor", mutation_factor), ("crossover_prob", crossover_prob)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; allowed: 0 to 1")
        self.seed = seed_checked(seed)
        self.budgets = ladder_of(min_budget, max_budget, eta)
        self.mutation_factor, self.crossover_prob = mutation_factor, crossover_prob
        rungs = len(self.budgets)
        brackets = [Bracket(number, self.budgets[number:], rungs - 1, eta).sizes for number in range(rungs)]
        #: the rungs of a round of brackets in their order: bracket, rung (counted from the smallest budget), runs
        self.round = [
            (number, number + place, size) for number, sizes in enumerate(brackets) for place, size in enumerate(sizes)
        ]
        self.sizes = [max(sizes[rung - n] for n, sizes in enumerate(brackets) if n <= rung) for rung in range(rungs)]
        self._runs = Runs(-1.0 if optimize_mode == "maximize" else 1.0)
        self._populations: Populations | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told beside its parameters, or None."""
        return reserved(space, "DEHB")

    def observe(self, fact: Observation) -> None:
        """Remember a run or its result."""
        self._runs.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Wait:
        """The next run of the round: a new configuration, one that goes on, or a child."""
        populations = self._populations
        if populations is None or not populations.serves(ask.space):
            populations = self._populations = Populations(ask.space, self.budgets, self.sizes)
        populations.sync(self._runs)
        bracket, rung, first = self._place(populations.started)
        budget = self.budgets[rung]
        generator = ask.generator(self.seed)
        where: dict[str, Any] = {"bracket": bracket, "rung": rung, "budget": budget}
        if bracket == 0 and rung:
            run = populations.levels[rung - 1].candidate()
            if run is not None:
                return Suggestion(
                    copy.deepcopy(run.parameters),
                    extras(folder(ask), run.save, budget),
                    budget=budget,
                    continues=run.trial,
                    parents=(run.trial,),
                    decision={"rule": "promote", **where, "value": run.value},
                )
            if self._runs.running:
                return Wait("the first bracket's runs have not ended")
        point, how = self._child(ask, populations, rung, first, generator) if bracket else (None, {})
        if point is None:
            how = {"rule": "new"}
            point = untaken(ask.space, populations.taken, generator)
            point = ask.space.sample(generator.random) if point is None else point
        return Suggestion(point, extras(folder(ask), None, budget), budget=budget, decision={**how, **where})

    def _place(self, number: int) -> tuple[int, int, bool]:
        """Bracket (counted over the rounds), rung, and whether it's its bracket's first one, of run `number`."""
        rounds, left = divmod(number, sum(size for _, _, size in self.round))
        for bracket, rung, size in self.round:
            if left < size:
                return rounds * len(self.budgets) + bracket, rung, rung == bracket
            left -= size
        raise AssertionError("a round is the sum of its rungs")

    def _child(
        self, ask: Ask, populations: Populations, rung: int, first: bool, generator: np.random.Generator
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """A child for the next target at this rung (None: no new one was found), and what is to be said of it."""
        level = populations.levels[rung]
        pool = level.members if first or not rung else populations.levels[rung - 1].best(max(self.sizes[rung], 3))
        target = level.target()
        for _ in range(TRIES):
            parents = self._parents(populations, pool, generator)
            a, b, c = parents
            mutant = a + self.mutation_factor * (b - c)
            mutant = np.where((mutant < 0) | (mutant > 1), generator.random(len(mutant)), mutant)
            other = populations.vector(target) if target is not None else generator.random(len(mutant))
            crossed = generator.random(len(mutant)) < self.crossover_prob
            if len(mutant):
                crossed[int(generator.random() * len(mutant))] = True
            child = np.where(crossed, mutant, other)
            point = ask.space.draw(lambda param, child=child: param.from_unit(float(child[param.index])))
            if ask.space.allows(point) and ask.space.cells(point) not in populations.taken:
                seen = {"parents": len(pool), "population": len(level.members)}
                return point, {"rule": "child", "target": None if target is None else target.trial, **seen}
        return None, {}

    @staticmethod
    def _parents(populations: Populations, pool: list[Run], generator: np.random.Generator) -> list[Vector]:
        """Three different members of the pool; where it has fewer, random points make up for them."""
        chosen: list[int] = generator.permutation(len(pool))[:3].tolist()
        found = [populations.vector(pool[place]) for place in chosen]
        return found + [generator.random(len(populations.space.params)) for _ in range(3 - len(found))]


class Level:
    """The population at one budget."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.members: list[Run] = []  # by place
        self.children: dict[int, int] = {}  # by run: the place that it competes for
        self._ranking: list[tuple[Rank, int]] = []  # of the members, with their places
        self._turn = 0
        self._gone: set[int] = set()  # members that have gone on

    def target(self) -> Run | None:
        """The member that the next child competes with; None while the population grows."""
        return self.members[self._turn % self.size] if len(self.members) == self.size else None

    def start(self, index: int) -> None:
        """A run at this budget has started."""
        if len(self.members) == self.size:
            self.children[index] = self._turn % self.size
            self._turn += 1

    def end(self, run: Run) -> None:
        """A run at this budget has a result."""
        assert run.rank is not None
        place = self.children.pop(run.index, None)
        if len(self.members) < self.size:
            self.members.append(run)
            insort(self._ranking, (run.rank, len(self.members) - 1))
            return
        if place is None:
            place = self._ranking[-1][1]  # it started while the population grew: it competes with the worst
        before = self.members[place].rank
        assert before is not None
        if run.rank[:2] <= before[:2]:
            self._ranking.remove((before, place))
            insort(self._ranking, (run.rank, place))
            self.members[place] = run

    def best(self, count: int) -> list[Run]:
        """The best so many members."""
        return [self.members[place] for _, place in self._ranking[:count]]

    def go_on(self, index: int) -> None:
        """This member has gone on to the next budget."""
        self._gone.add(index)

    def candidate(self) -> Run | None:
        """The best member that has not gone on, or None."""
        members = (self.members[place] for _, place in self._ranking)
        return next((run for run in members if run.index not in self._gone and run.save), None)


class Populations:
    """The populations of all budgets in one space, fed with runs in their order."""

    def __init__(self, space: Space, budgets: list[Budget], sizes: list[int]) -> None:
        self.space = space
        self.taken: set[Cells] = set()
        self.levels = [Level(size) for size in sizes]
        self.started = 0  # the tuner's own runs, whatever space they were of
        self._rungs: dict[float, int] = {budget: rung for rung, budget in enumerate(budgets)}
        self._inside: set[int] = set()
        self._read = 0

    def serves(self, space: Space) -> bool:
        """Whether these are populations in that space."""
        return space is self.space or space.raw == self.space.raw

    def sync(self, runs: Runs) -> None:
        """Take in what the runs have got since the last time."""
        for event in runs.events[self._read :]:
            run = runs.all[event if event >= 0 else ~event]
            rung = self._rungs.get(run.budget) if run.budget is not None and run.kind == "ours" else None
            if event >= 0:
                self._start(run, rung)
            elif rung is not None and run.index in self._inside and run.rank is not None:
                self.levels[rung].end(run)
        self._read = len(runs.events)

    def _start(self, run: Run, rung: int | None) -> None:
        self.started += run.kind == "ours"
        cells = self.space.cells(run.parameters)
        if cells is None:  # a point of a former space, or a stranger's
            return
        self.taken.add(cells)
        if rung is None:
            return
        self._inside.add(run.index)
        self.levels[rung].start(run.index)
        if run.parent is not None and rung:
            self.levels[rung - 1].go_on(run.parent)

    def vector(self, run: Run) -> Vector:
        """A run's point in the unit cube; parameters that it does not have are spread evenly over the runs."""
        flat = self.space.flatten(run.parameters)
        return np.array(
            [
                param.to_unit(flat[param.key]) if param.key in flat else (run.index + 1) * _GOLDEN % 1.0
                for param in self.space.params
            ]
        )
