"""CMA-ES: a normal distribution that moves and stretches towards what was good, for many evaluations of numbers.

Hansen and Ostermeier, Evolutionary Computation 9 (2001); mixed spaces by CatCMA with margin (Hamano, Uchida, Shirakawa,
Nomura and Shirakawa, arXiv 2504.07884) from the library `cmaes`: counted numbers keep a margin of probability, so that
none freezes, and categories have a distribution of their own. Restarts with twice the population at another place
(IPOP: Auger and Hansen, CEC 2005).

* A generation is so many results as the population has members, in the order in which they came, whoever else still
  runs: nobody waits. Failed ones are its worst; with outcome constraints, the less a result violates the better.
* The distribution is a fold over the facts. How a point was drawn (where before rounding and clipping, and what its
  inactive parameters were) isn't in the log: it is drawn again from the ask's number, and has to come out the same.
* Points of others (by hand, imported) say where the search begins, and where it begins anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..engine.plugins import Ask, Exhausted, Imported, Observation, OptimizeMode, Suggested, Suggestion
from ..engine.space import Cell, Param, Space
from ._history import EXTRAS, Cells, History, Point
from .random import untaken

if TYPE_CHECKING:
    from cmaes import CatCMAwM  # pyright: ignore[reportMissingTypeStubs]  # it has annotations, no stubs

COUNTED = 128  # ordered values up to which a parameter keeps a margin; beyond, it counts as continuous
CATEGORIES = 1000
DIMENSIONS = 1000  # a generation costs their cube
REDRAWN = 30  # draws for a point that is new and allowed
STALLED = 12  # generations without a better result, and more in many dimensions, until a restart

Order = tuple[float, float]  # violation, loss: less is better


class CMAES:
    """For numbers, and what else is in the space; 100 evaluations a parameter and more. `seed` None: the experiment's.

    `population_size` None: 4 + 3 ln(parameters), more when many trials run at once. `sigma`: the first distribution's
    standard deviation, as a share of each parameter's range.
    """

    dedups: ClassVar[bool] = False

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        population_size: Annotated[int, Meta(ge=4)] | None = None,
        sigma: Annotated[float, Meta(gt=0, le=1)] = 0.25,
    ) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        if population_size is not None and population_size < 4:
            raise ValueError(f"population_size is {population_size}, an integer >= 4 is allowed")
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma is {sigma}, 0 < sigma <= 1 is allowed")
        self.seed, self.population_size, self.sigma = seed, population_size, sigma
        self._sign = -1.0 if optimize_mode == "maximize" else 1.0
        self._history = History()
        self._facts: list[_Fact] = []
        self._search: _Search | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why the distribution can't be had: too many parameters, or too many categories of one."""
        wide = [param for param in space.params if param.categorical and (param.size or 0) > CATEGORIES]
        if wide:
            return f"{wide[0].key} has {wide[0].size} categories, CMAES takes up to {CATEGORIES}"
        if len(space.params) > DIMENSIONS:
            return f"it has {len(space.params)} parameters, CMAES takes up to {DIMENSIONS}"
        return None

    def observe(self, fact: Observation) -> None:
        """Remember a point or a result, and their order."""
        history = self._history
        points, ends = len(history.points), len(history.ended)
        history.observe(fact)
        if len(history.points) > points:
            ask = fact.ask if isinstance(fact, Suggested) else None
            self._facts.append(_Fact(points, False, ask))
        if len(history.ended) > ends:
            self._facts.append(_Fact(history.ended[-1], True, None, isinstance(fact, Imported)))

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """A draw from the distribution, new where there is a new one."""
        seed = ask.seed if self.seed is None else self.seed
        if self._search is None or not self._search.serves(ask.space, seed):
            self._search = _Search(ask.space, seed, self._sign, self.sigma, self.population_size)
        search = self._search
        search.fold(self._history.points, self._facts)
        if search.cma is not None:
            draw = search.draw(ask.number)
            if draw is not None:
                return Suggestion(draw.parameters, decision={"rule": "cma-es", **search.seen()})
        generator = ask.generator(self.seed)
        point = untaken(ask.space, search.taken, generator)
        if point is None:
            point = ask.space.sample(generator.random)
        return Suggestion(point, decision={"rule": "random: the distribution has nothing new", **search.seen()})


@dataclass(frozen=True, slots=True)
class _Fact:
    """That a point came, or that it ended; `ask` where it was drawn by this tuner."""

    index: int
    ended: bool
    ask: int | None = None
    imported: bool = False


@dataclass(frozen=True, slots=True)
class _Draw:
    """A point as it was drawn: parameters, and the library's solution behind them."""

    parameters: dict[str, Any]
    cells: Cells
    solution: Any


class _Axes:
    """Which parameters the library sees as what, in its order: continuous, counted, categorical."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.continuous: list[Param] = []
        self.counted: list[Param] = []
        self.categorical: list[Param] = []
        self.centres: list[list[float]] = []
        for param in space.params:
            if param.size == 1:
                continue
            if param.categorical or param.size == 2:
                self.categorical.append(param)
                continue
            centres = _centres(param)
            if centres is None:
                self.continuous.append(param)
            else:
                self.counted.append(param)
                self.centres.append(centres)
        self.numbers = [*self.continuous, *self.counted]
        self.count = len(self.numbers) + len(self.categorical)
        self._number = {param.index: i for i, param in enumerate(self.numbers)}
        self._counted = {param.index: i for i, param in enumerate(self.counted)}
        self._category = {param.index: i for i, param in enumerate(self.categorical)}

    def point(self, solution: Any) -> tuple[dict[str, Any], Cells]:
        """The parameters of a solution, and their cells."""
        x, z = _floats(solution.x), _floats(solution.z)
        codes: list[int] = [] if solution.c is None else np.argmax(solution.c, axis=1).tolist()
        cells: list[Cell | None] = [None] * len(self.space.params)

        def choose(param: Param) -> Any:
            index = param.index
            if index in self._category:
                value = param.at(codes[self._category[index]])
            elif index in self._counted:
                value = param.from_unit(z[self._counted[index]])
            else:
                value = param.from_unit(x[self._number[index]] if index in self._number else 0.5)
            cells[index] = param.cell(value)
            return value

        return self.space.draw(choose), tuple(cells)

    def start(self, parameters: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Where a search begins at a point: the mean, and the categories' chances, half of them for its own."""
        flat = self.space.flatten(parameters, EXTRAS)
        mean = np.array([p.to_unit(flat[p.key]) if p.key in flat else 0.5 for p in self.numbers])
        if not self.categorical:
            return mean, None
        sizes = [int(p.size or 1) for p in self.categorical]
        chances = np.zeros((len(sizes), max(sizes)))
        for i, (param, size) in enumerate(zip(self.categorical, sizes, strict=True)):
            chances[i, :size] = 1.0 / size
            if param.key in flat:
                chances[i, :size] *= 0.5
                chances[i, int(param.cell(flat[param.key]))] += 0.5
        return mean, chances


class _Search:
    """The distribution in one space, folded over the facts."""

    def __init__(self, space: Space, seed: int, sign: float, sigma: float, population: int | None) -> None:
        self.axes = _Axes(space)
        self.taken: set[Cells] = set()
        self.cma: CatCMAwM | None = None
        self._seed, self._sign, self._sigma, self._wanted = seed, sign, sigma, population
        self._read = 0
        self._drawn: dict[int, Any] = {}  # solutions of the points that run
        self._generation: list[tuple[Order, Any]] = []
        self._best: Order | None = None
        self._best_other: tuple[Order, dict[str, Any]] | None = None
        self._stalled = self._restarts = self._results = 0
        if self.axes.count:
            self._begin(self._population(), None)

    def serves(self, space: Space, seed: int) -> bool:
        """Whether this is a search in that space."""
        own = self.axes.space
        same = space is own or (space.raw == own.raw and _texts(space) == _texts(own))
        return same and seed == self._seed

    def seen(self) -> dict[str, Any]:
        """For decision records."""
        if self.cma is None:
            return {}
        return {
            "observed": self._results,
            "generation": self.cma.generation,
            "population": self.cma.population_size,
            "restarts": self._restarts,
        }

    def draw(self, number: int) -> _Draw | None:
        """The point of an ask: of some draws the first that is new and allowed; None: none was."""
        assert self.cma is not None
        self.cma.reseed_rng(int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]))
        for _ in range(REDRAWN):
            solution = self.cma.ask()
            parameters, cells = self.axes.point(solution)
            if cells not in self.taken and self.axes.space.allows(parameters):
                return _Draw(parameters, cells, solution)
        return None

    def fold(self, points: list[Point], facts: list[_Fact]) -> None:
        """Take in the facts that are new."""
        for fact in facts[self._read :]:
            point = points[fact.index]
            if fact.ended:
                self._end(fact, point)
            else:
                self._come(fact, point)
        self._read = len(facts)

    def _come(self, fact: _Fact, point: Point) -> None:
        cells = self.axes.space.cells(point.parameters, EXTRAS)
        if cells is None:
            return
        if fact.ask is not None and self.cma is not None:
            draw = self.draw(fact.ask)
            if draw is not None and draw.cells == cells:
                self._drawn[fact.index] = draw.solution
        self.taken.add(cells)

    def _end(self, fact: _Fact, point: Point) -> None:
        solution = self._drawn.pop(fact.index, None)
        if point.state == "cancelled" or self.cma is None:
            return
        order = (math.inf, math.inf) if point.value is None else (point.violation, self._sign * point.value)
        if solution is None:
            self._other(order, point)
            return
        if not self._results and self._wanted is None and self._more_at_once() > self.cma.population_size:
            self._begin(self._more_at_once(), self._start())
        self._results += 1
        self._generation.append((order, solution))
        if len(self._generation) == self.cma.population_size:
            self._advance()

    def _other(self, order: Order, point: Point) -> None:
        """A result of somebody else's point: the search begins at the best of them."""
        if math.isinf(order[0]) or self.axes.space.cells(point.parameters, EXTRAS) is None:
            return
        if self._best_other is None or order < self._best_other[0]:
            self._best_other = order, dict(point.parameters)
            if not self._results and self.cma is not None:
                self._begin(self.cma.population_size, self._start())

    def _more_at_once(self) -> int:
        return min((len(self._drawn) + 1) // 2, 4 * self._population())

    def _population(self) -> int:
        return self._wanted or 4 + math.floor(3 * math.log(self.axes.count))

    def _advance(self) -> None:
        """The next generation, from the ranks of the results of this one."""
        assert self.cma is not None
        ranked = sorted(range(len(self._generation)), key=lambda i: (self._generation[i][0], i))
        best = self._generation[ranked[0]][0]
        self._stalled = 0 if self._best is None or best < self._best else self._stalled + 1
        self._best = best if self._best is None else min(best, self._best)
        with np.errstate(all="ignore"):
            self.cma.tell([(self._generation[i][1], float(rank)) for rank, i in enumerate(ranked)])
        self._generation = []
        patience = STALLED + 30 * self.axes.count // self.cma.population_size
        if self._stalled >= patience or (self.axes.numbers and self.cma.should_stop()):
            self._restarts += 1
            self._stalled, self._best = 0, None
            self._begin(2 * self.cma.population_size, self._start())

    def _start(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None] | None:
        """Where to begin: at another's best point, later anywhere."""
        if not self._restarts:
            return None if self._best_other is None else self.axes.start(self._best_other[1])
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, 0, self._restarts])))
        return generator.random(len(self.axes.numbers)), None

    def _begin(self, population: int, start: tuple[NDArray[np.float64], NDArray[np.float64] | None] | None) -> None:
        from cmaes import CatCMAwM  # pyright: ignore[reportMissingTypeStubs]  # scipy comes with it: half a second

        axes, count = self.axes, len(self.axes.numbers)
        mean, chances = (np.full(count, 0.5), None) if start is None else start
        self.cma = CatCMAwM(
            x_space=[[0.0, 1.0]] * len(axes.continuous) or None,
            z_space=axes.centres or None,
            c_space=[int(param.size or 1) for param in axes.categorical] or None,
            population_size=population,
            mean=mean.copy() if count else None,
            sigma=self._sigma,
            cov=np.eye(count) if count else None,
            cat_param=chances,
            seed=0,
        )
        self._generation = []


def _centres(param: Param) -> list[float] | None:
    """The places of a counted parameter's values; None: it counts as continuous."""
    if param.size is None or param.size > COUNTED:
        return None
    centres = [param.to_unit(param.at(cell)) for cell in range(param.size)]
    apart = all(param.cell(param.from_unit(centre)) == cell for cell, centre in enumerate(centres))
    return centres if apart and sorted(set(centres)) == centres else None


def _floats(places: Any) -> list[float]:
    return [] if places is None else places.tolist()


def _texts(space: Space) -> list[str]:
    return [one.text for one in space.constraints]
