"""TPE, the tree-structured Parzen estimator: draw near what was good, take what is most unlike what was bad.

Bergstra, Bardenet, Bengio and Kegl, Algorithms for Hyper-Parameter Optimization (NIPS 2011), in the joint form of
Falkner et al. (BOHB, 2018) and Watanabe (arXiv 2304.11127): the observations are split into the best few, l(x), and the
rest, g(x); candidates are drawn from l, and the one with the largest l(x) / g(x) is asked for. One joint density covers
all branches of a conditional space: what is inactive in an observation has its prior there.

* Branches of nested choices: since the joint density would stay in the first that had luck, three asks of ten look at
  one branch alone, split into its own good and bad: one of the best, or one of those that have few results.
* The good ones weigh as much as they are better than the best of the rest, so that l / g is near expected improvement.
* With outcome constraints, infeasible results stand behind all feasible ones, the less they violate the better.
* Running trials count with a lie about their value (`constant_liar_type`), so that many at once do not pile up.
* Failed trials, and stopped ones without a value, are among the rest: what fails is avoided, and never good.
* An ask looks at 25 + 200 kernels at most, so its cost does not grow with the number of trials.
* A point that somebody has or had is not asked for again as long as another is found.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import EXACT, Space
from ._history import EXTRAS, Cells, History
from ._parzen import Axes, Branch, Density, Floats
from .random import untaken

GOOD = 25  # kernels at most
REST = 200
BRANCHING = 0.3  # of the asks in a space with nested choices

LiarType = Literal["best", "worst", "mean", "none"]


class TpeArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set about the algorithm; names as in NNI, defaults ours (NNI's in brackets)."""

    constant_liar_type: LiarType | None = "worst"  # ["best"] what a running trial's value is taken to be
    n_startup_jobs: Annotated[int, Meta(ge=1)] = 10  # [20] random points before the first fit
    n_ei_candidates: Annotated[int, Meta(ge=1, le=10_000)] = 16  # [24]
    linear_forgetting: Annotated[int, Meta(ge=1)] = 25  # the newest so many of the rest have the full weight
    prior_weight: Annotated[float, Meta(ge=0)] = 1.0
    gamma: Annotated[float, Meta(gt=0, le=1)] = 0.15  # [0.25, of sqrt(n)] the share of good ones, 25 at most


class TPE:
    """Model-based search for any space; the default tuner. `seed` None: the experiment's."""

    dedups: ClassVar[bool] = False  # of a small space that is all taken it asks again: results may be noisy

    def __init__(
        self, *, optimize_mode: OptimizeMode = "maximize", seed: int | None = None, tpe_args: TpeArgs | None = None
    ) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        self.seed = seed
        try:  # a config gives a dict
            self.args = TpeArgs() if tpe_args is None else msgspec.convert(tpe_args, TpeArgs, from_attributes=True)
        except msgspec.ValidationError as error:
            raise TypeError(f"tpe_args: {error}; allowed are {', '.join(TpeArgs.__struct_fields__)}") from None
        self._sign = -1.0 if optimize_mode == "maximize" else 1.0  # losses: less is better
        self._history = History()
        self._table: _Table | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter with more values than floats can count, or None."""
        wide = [param.key for param in space.params if param.categorical and (param.size or 0) > EXACT]
        return f"{wide[0]} has more than 2**53 values, too many for TPE" if wide else None

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """The candidate with the largest ratio of the good ones' density to the others'."""
        if self._table is None or not self._table.serves(ask.space):
            self._table = _Table(ask.space, self._sign)
        table = self._table
        table.sync(self._history)
        generator = ask.generator(self.seed)
        results = len(table.all.ranking)
        if results < self.args.n_startup_jobs or not ask.space.params:
            return Suggestion(self._random(ask.space, table, generator), decision={"rule": "random start"})
        seen: dict[str, Any] = {"observed": results}
        group, fixed = table.all, None
        if table.axes.nested and generator.random() < BRANCHING:
            branch = table.branch(generator)
            if branch is None:
                return Suggestion(self._random(ask.space, table, generator), decision={"rule": "any branch", **seen})
            group, fixed = table.branches[branch], table.axes.fixed(branch)
            seen["branch"], seen["observed in it"] = table.axes.named(branch), len(group.ranking)
        good, rest = group.split(self.args)
        candidates = good.sample(generator, self.args.n_ei_candidates, fixed)
        features = table.axes.features(candidates)
        score = good.log_of(*features) - rest.log_of(*features)
        order = np.argsort(-score, kind="stable")
        seen["candidates"] = len(order)
        for place in order.tolist():
            point, cells = table.axes.point(candidates[place])
            if cells not in table.taken and ask.space.allows(point):
                return Suggestion(point, decision={"rule": "tpe", "score": round(float(score[place]), 6), **seen})
        return Suggestion(self._random(ask.space, table, generator), decision={"rule": "all candidates taken", **seen})

    def _random(self, space: Space, table: _Table, generator: np.random.Generator) -> dict[str, Any]:
        """A point of the prior, a new one if there is one."""
        point = untaken(space, table.taken, generator)
        return space.sample(generator.random) if point is None else point


class _Table:
    """The history as rows in one space, all of them and by branch: what a nested choice has chosen."""

    def __init__(self, space: Space, sign: float) -> None:
        self.axes = Axes(space)
        self.taken: set[Cells] = set()
        self.rows: Floats = np.empty((64, self.axes.count))
        self.all = _Group(self)
        self.branches: dict[Branch, _Group] = {}
        self._sign = sign
        self._count = 0
        self._row_of: dict[int, tuple[int, Branch]] = {}  # points of the history that lie in this space
        self._points_read = self._ends_read = 0

    def serves(self, space: Space) -> bool:
        """Whether this is a table of that space."""
        return space is self.axes.space or space.raw == self.axes.space.raw

    def branch(self, generator: np.random.Generator) -> Branch | None:
        """A branch to look at: of the known ones, ordered by their best result or by how few results they have, the
        first with chance 1/2, the second with 1/4, and so on; None: any, also a new one."""
        known = [(group.ranking[0][:2], branch) for branch, group in self.branches.items() if group.ranking]
        known.sort()
        if generator.random() < 0.5:
            known.sort(key=lambda one: len(self.branches[one[1]].ranking))
        place = int(-math.log2(1.0 - generator.random()))
        return known[place][1] if place < len(known) else None

    def sync(self, history: History) -> None:
        """Take in what the history has got since the last time."""
        space = self.axes.space
        for index in range(self._points_read, len(history.points)):
            parameters = history.points[index].parameters
            try:
                flat = space.flatten(parameters, EXTRAS)
            except ValueError:  # a point of a former space, or a stranger's
                continue
            cells = tuple(param.cell(flat[param.key]) if param.key in flat else None for param in space.params)
            self.taken.add(cells)
            if self._count == len(self.rows):
                grown: Floats = np.empty((2 * self._count, self.axes.count))
                grown[: self._count] = self.rows
                self.rows = grown
            self.rows[self._count] = self.axes.row(flat)
            branch = self.axes.branch(cells)
            self._row_of[index] = self._count, branch
            for group in self._groups(branch):
                group.come(self._count)
            self._count += 1
        self._points_read = len(history.points)
        for index in history.ended[self._ends_read :]:
            if index not in self._row_of:
                continue
            row, branch = self._row_of[index]
            point = history.points[index]
            loss = None if point.value is None else (point.violation, self._sign * point.value)
            for group in self._groups(branch):
                group.end(row, loss, counts=point.state != "cancelled")
        self._ends_read = len(history.ended)

    def _groups(self, branch: Branch) -> tuple[_Group, ...]:
        """Where a point of a branch belongs; without nested choices there is one group."""
        if not branch:
            return (self.all,)
        if branch not in self.branches:
            self.branches[branch] = _Group(self)
        return self.all, self.branches[branch]


class _Group:
    """Some rows of a table: losses in order, who is pending, and the densities of the last split."""

    def __init__(self, table: _Table) -> None:
        self.ranking: list[tuple[float, float, int]] = []  # (violation, loss, place in time), ascending
        self._table = table
        self._pending: dict[int, None] = {}
        self._times: list[int] = []  # rows with a result or a failure, in the order in which those came
        self._densities: tuple[Density, Density] | None = None
        self._good: tuple[list[int], list[float], Density] | None = None  # it changes rarely

    def come(self, row: int) -> None:
        """A point runs."""
        self._pending[row] = None
        self._densities = None

    def end(self, row: int, loss: tuple[float, float] | None, counts: bool) -> None:
        """It has ended; None: without a result, which counts as bad unless it was cancelled."""
        del self._pending[row]
        self._densities = None
        if not counts:
            return
        if loss is not None:
            insort(self.ranking, (*loss, len(self._times)))
        self._times.append(row)

    def split(self, args: TpeArgs) -> tuple[Density, Density]:
        """The densities of the good ones and of the rest."""
        if self._densities is None:
            self._densities = self._fit(args)
        return self._densities

    def _fit(self, args: TpeArgs) -> tuple[Density, Density]:
        ranking, liar = self.ranking, args.constant_liar_type
        pending = [] if liar in (None, "none") else list(self._pending)[-REST // 2 :]
        lie = math.inf, math.inf
        if liar == "best":
            lie = ranking[0][:2]
        elif liar == "mean":
            lie = tuple(math.fsum(one[i] / len(ranking) for one in ranking) for i in range(2))
        observed = len(ranking) + (len(pending) if lie[0] < math.inf else 0)
        wanted = min(math.ceil(args.gamma * observed), GOOD)
        honest = sum(1 for one in ranking[:wanted] if one[:2] <= lie)
        liars = min(wanted - honest, len(pending)) if lie[0] < math.inf else 0
        best = [time for _, _, time in ranking[: wanted - liars]]
        gains = _gains(ranking[: len(best) + 1], len(best))
        good = [self._times[time] for time in best] + pending[:liars]
        pending = pending[liars:]
        rest, weights = self._rest(best, args.linear_forgetting, REST - len(pending))
        rows = np.array([*rest, *pending], dtype=np.intp)
        weights = np.append(weights, np.ones(len(pending)))
        gains += [1.0] * liars
        if self._good is None or self._good[:2] != (good, gains):
            kernels = self._table.rows[np.array(good, dtype=np.intp)]
            self._good = good, gains, Density(self._table.axes, kernels, np.array(gains), args.prior_weight)
        return self._good[2], Density(self._table.axes, self._table.rows[rows], weights, args.prior_weight)

    def _rest(self, good: list[int], forgetting: int, room: int) -> tuple[list[int], Floats]:
        """Rows that are not good, in time, with their weights: the newest half of the room, and of the older ones
        evenly spaced ones that stand for their neighbours too."""
        chosen = np.ones(len(self._times), dtype=np.bool_)
        chosen[good] = False
        times = np.flatnonzero(chosen)
        n = len(times)
        places, mass = np.arange(n), np.ones(n)
        if n > room:
            newest = room // 2
            stride = (n - newest) / max(room - newest, 1)
            spaced = (np.arange(room - newest) * stride).astype(np.intp)
            places = np.append(spaced, np.arange(n - newest, n))
            mass = np.append(np.full(len(spaced), stride), np.ones(newest))
        ramp = n - forgetting
        if ramp > 1:
            mass *= np.minimum(1.0 / n + places * ((1.0 - 1.0 / n) / (ramp - 1)), 1.0)
        return [self._times[time] for time in times[places].tolist()], mass


def _gains(ranking: list[tuple[float, float, int]], count: int) -> list[float]:
    """Weights of the best `count`, 1 on average: by how much each is better than the first that is not among them.

    So the ratio of the densities comes nearer to expected improvement (Watanabe, arXiv 2304.11127, section 3.2). An
    infeasible one has the least weight.
    """
    if not count:
        return []
    feasible = [loss / 2 for violation, loss, _ in ranking if not violation]
    if len(feasible) < 2 or feasible[-1] == feasible[0]:
        return [1.0] * count
    gains = [feasible[-1] - loss for loss in feasible[:count]]  # of halves, which can't overflow
    total = math.fsum(gain / gains[0] for gain in gains)
    return [count * (gain / gains[0]) / total for gain in gains] + [0.0] * (count - len(gains))
