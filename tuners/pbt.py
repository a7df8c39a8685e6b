"""PBT, population based training: a population trains step by step, and the worst go on from copies of the best.

Jaderberg, Dalibard, Osindero, Czarnecki, Donahue, Razavi, Vinyals, Green, Dunning, Simonyan, Fernando and
Kavukcuoglu, Population Based Training of Neural Networks (arXiv 1711.09846). A trial is one step of one member: it
loads the checkpoint in `load_checkpoint_dir`, trains for as long as its code says a step is, and saves. A member whose
result is among the worst `fraction` of its step continues the checkpoint of one of the best `fraction`, with that one's
parameters perturbed; the others go on as they are. The options are NNI's.

* A member goes on as soon as its own step has ended, those that are furthest behind first; it's compared with the
  members that have ended the same step. With fewer workers than members that is the whole population.
* A member whose step failed or was stopped continues one of the best as well, or starts anew when there is none.
* Perturbed: with `resample_probability` a value is drawn anew, else a number is multiplied by 1 + `factor` or
  1 - `factor`, and of a choice the neighbour is taken.
"""

from __future__ import annotations

import copy
import math
import re
from bisect import bisect_left, insort
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion, Wait
from ..engine.space import Param, Space
from ._history import Cells
from ._lineages import FOLDER, Rank, Run, Runs, extras, reserved, seed_checked
from .random import untaken

TRIES = 20
_NAME = re.compile(r"(\d{1,9})-(\d{1,9})\Z")


class PBT:
    """A population of `population_size` members. `all_checkpoint_dir` None: the experiment's own folder."""

    dedups: ClassVar[bool] = False  # a member's next step is the same point again

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        all_checkpoint_dir: str | None = None,
        population_size: int = 10,
        factor: float = 0.2,
        resample_probability: float = 0.25,
        fraction: float = 0.2,
    ) -> None:
        if all_checkpoint_dir is not None and not PurePath(all_checkpoint_dir).is_absolute():
            raise ValueError(f"all_checkpoint_dir is {all_checkpoint_dir!r}; allowed: an absolute path, or none")
        if population_size < 1:
            raise ValueError(f"population_size is {population_size}; allowed: 1 or more")
        for name, value, high in (
            ("factor", factor, 1.0),
            ("resample_probability", resample_probability, 1.0),
            ("fraction", fraction, 0.5),
        ):
            if not 0 <= value <= high:
                raise ValueError(f"{name} is {value}; allowed: 0 to {high:g}")
        self.seed = seed_checked(seed)
        self.folder = FOLDER if all_checkpoint_dir is None else all_checkpoint_dir.rstrip("/") or "/"
        self.size, self.factor, self.resample, self.fraction = population_size, factor, resample_probability, fraction
        self._runs = Runs(-1.0 if optimize_mode == "maximize" else 1.0)
        self._population: Population | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told beside its parameters, or None."""
        return reserved(space, "PBT")

    def observe(self, fact: Observation) -> None:
        """Remember a step or its result."""
        self._runs.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Wait:
        """The next step of the member that is furthest behind."""
        population = self._population
        if population is None or not population.serves(ask.space):
            population = self._population = Population(ask.space, self.size)
        population.sync(self._runs)
        member = population.next()
        if member is None:
            return Wait(f"all {self.size} members of the population run")
        generator = ask.generator(self.seed)
        step = member.step + 1
        save = f"{self.folder.rstrip('/')}/{member.number}-{step}"
        where: dict[str, Any] = {"member": member.number, "step": step}
        source, rule, seen = self._source(population, member, generator)
        if source is None:
            point = untaken(ask.space, population.taken, generator)
            point = ask.space.sample(generator.random) if point is None else point
            return Suggestion(point, extras(save), decision={"rule": rule, **where})
        if rule == "go on":
            point, how = copy.deepcopy(source.parameters), {}
        else:
            point, how = self._explored(ask, population, source, step, generator)
        return Suggestion(
            point,
            extras(save, source.save),
            continues=source.trial,
            parents=(source.trial,),
            decision={"rule": rule, **where, **seen, "from": source.save.rpartition("/")[2], **how},
        )

    def _source(
        self, population: Population, member: Member, generator: np.random.Generator
    ) -> tuple[Run | None, str, dict[str, Any]]:
        """The run whose checkpoint the member continues (None: it starts afresh), the rule, and what was seen."""
        if member.run is None:
            return None, "new", {}
        own = self._runs.all[member.run]
        ranks = population.results(member.step)
        cut = math.floor(self.fraction * len(ranks))
        if own.rank is not None and own.index in population.inside:
            place = bisect_left(ranks, own.rank)
            seen = {"place": place + 1, "of": len(ranks), "value": own.value}
            if place < len(ranks) - cut:
                return own, "go on", seen
            best = ranks[:cut]
        else:
            seen = {"ended": own.state}
            ranks = ranks or population.last_results(member.step)
            best = ranks[: max(math.floor(self.fraction * len(ranks)), 1)]
            if not best:
                return None, "start anew", seen
        chosen = best[int(generator.random() * len(best))]
        return self._runs.all[chosen[2]], "exploit", seen

    def _explored(
        self, ask: Ask, population: Population, source: Run, step: int, generator: np.random.Generator
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters of a run, changed, and what is to be said of it."""
        return perturbed(ask.space, source.parameters, self.factor, self.resample, generator), {}


class Member:
    """One member of the population: its last step, and the run of that."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.step = -1
        self.run: int | None = None
        self.running = False


class Population:
    """The members in one space, fed with runs in their order."""

    def __init__(self, space: Space, size: int) -> None:
        self.space = space
        self.taken: set[Cells] = set()
        self.inside: set[int] = set()  # runs whose point lies in this space
        self.members = [Member(number) for number in range(size)]
        self._ranks: dict[int, list[Rank]] = {}  # by step, the best one first
        self._read = 0

    def serves(self, space: Space) -> bool:
        """Whether this is a population in that space."""
        return space is self.space or space.raw == self.space.raw

    def sync(self, runs: Runs) -> None:
        """Take in what the runs have got since the last time."""
        for event in runs.events[self._read :]:
            run = runs.all[event if event >= 0 else ~event]
            if event >= 0:
                cells = self.space.cells(run.parameters)
                if cells is not None:
                    self.taken.add(cells)
                    self.inside.add(run.index)
            name = _NAME.search(run.save) if run.kind == "ours" else None
            if name is None or int(name[1]) >= len(self.members):
                continue
            member, step = self.members[int(name[1])], int(name[2])
            if event >= 0:
                member.step, member.run, member.running = step, run.index, True
            elif member.run == run.index:
                member.running = False
                if run.rank is not None and run.index in self.inside:
                    insort(self._ranks.setdefault(step, []), run.rank)
        self._read = len(runs.events)

    def next(self) -> Member | None:
        """The member that is furthest behind and does not run."""
        free = [member for member in self.members if not member.running]
        return min(free, key=lambda member: member.step, default=None)

    def results(self, step: int) -> list[Rank]:
        """The results of a step, the best one first."""
        return self._ranks.get(step, [])

    def last_results(self, step: int) -> list[Rank]:
        """The results of the last step before this one that has any, the best one first."""
        return self.results(max((one for one in self._ranks if one < step), default=-1))


def perturbed(
    space: Space, parameters: Mapping[str, Any], factor: float, resample: float, generator: np.random.Generator
) -> dict[str, Any]:
    """A point near another one of the space that meets the constraints; the other one itself when none was found."""
    flat = space.flatten(parameters)

    def near(param: Param) -> Any:
        if param.key not in flat or generator.random() < resample:
            return param.from_unit(generator.random())
        return moved(param, flat[param.key], generator.random() < 0.5, factor)

    for _ in range(TRIES):
        point = space.draw(near)
        if space.allows(point):
            return point
    return copy.deepcopy(dict(parameters))


def moved(param: Param, value: Any, up: bool, factor: float) -> Any:
    """A value one step up or down: a number times 1 + or - `factor`, or its neighbour; a choice's neighbour."""
    if param.nested or param.kind in ("layer_choice", "input_choice"):
        return value
    cell = param.cell(value)
    if not param.categorical:
        wanted = float(value) * (1 + factor if up else 1 - factor)
        if not math.isfinite(wanted):
            return value
        found = param.from_unit(param.to_unit(_bounded(param, wanted)))
        if param.cell(found) != cell or not isinstance(cell, int) or not factor:
            return found
    if param.size is None or not isinstance(cell, int):
        return value
    return param.at(min(max(cell + (1 if up else -1), 0), param.size - 1))


def _bounded(param: Param, value: float) -> float:
    """The same within the bounds of a parameter that has some."""
    if param.low == param.high == 0.0:  # normal and lognormal ones
        return value
    high = param.high - 1 if param.kind == "randint" else param.high
    return min(max(value, param.low), high)
