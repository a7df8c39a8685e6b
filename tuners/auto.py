"""Auto: chooses a tuner by the space, the budget and what was found so far, ask by ask.

* A small finite space that the budget covers: the grid. Every finite space ends when all of it was tried.
* A Gaussian process up to 300 results and 20 parameters: it finds most with few trials, and costs their cube.
* Beyond, CMA-ES with a budget that lets it converge: for more than 20 parameters from ten trials each on (measured on
  functions of 20 to 40, some categorical: ahead of TPE from 200 trials), for fewer only where all are numbers.
* TPE for everything else: conditions, categories, budgets that are short or not known.

The choice is a function of the space, the limits and the observed facts, and stands in the decision record. Each tuner
has observed everything, so one goes on where another was; a finite space is never tried twice.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, ClassVar, NamedTuple

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion, Wait
from ..engine.space import Space
from ._history import History, Taken
from .random import untaken

GRID = 64  # points up to which a finite space is gone through in order
PROCESS_RESULTS = 300  # a Gaussian process costs their cube
PROCESS_PARAMETERS = 20
CONVERGES = 10  # trials a parameter that CMA-ES needs when there are many parameters
REFINES = 100  # and when there are few, all of them numbers

MODULES = {"GridSearch": "grid_search", "GP": "gp", "CMAES": "cmaes", "TPE": "tpe"}


class Choice(NamedTuple):
    """A tuner's name, and why it was chosen."""

    tuner: str
    why: str


class Auto:
    """The tuner for who doesn't want to choose one. `seed` None: the experiment's."""

    dedups: ClassVar[bool] = True

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        self.seed = seed
        self._mode: OptimizeMode = optimize_mode
        self._facts: list[Observation] = []
        self._history = History()
        self._taken = Taken(self._history)
        self._results = self._counted = 0
        self._members: dict[str, tuple[Any, int]] = {}  # tuners by name, with how many facts they have observed

    @staticmethod
    def refuse(space: Space) -> str | None:
        """What TPE, which takes most, refuses."""
        return _class("TPE").refuse(space)

    def observe(self, fact: Observation) -> None:
        """Keep it for whoever is chosen."""
        self._history.observe(fact)
        self._facts.append(fact)

    def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
        """What the chosen tuner answers, but nothing that was there before."""
        self._taken.sync(ask.space)
        size = ask.space.size
        if ask.space.params and size is not None and len(self._taken.cells) >= size:
            return Exhausted(f"all {size} points of the space were tried")
        choice = choose(ask.space, self._count(), ask.max_trial_number)
        answer = self._member(choice.tuner).suggest(ask)
        if not isinstance(answer, Suggestion):
            return answer
        parameters, decision = answer.parameters, dict(answer.decision)
        if ask.space.params and parameters in self._taken:
            other = untaken(ask.space, self._taken.cells, ask.generator(self.seed))
            if other is None:
                return Exhausted(f"all points that could be found are taken ({len(self._taken.cells)})")
            parameters, decision = other, {"rule": "random: its answer was tried before"}
        return Suggestion(parameters, decision={"tuner": choice.tuner, "why": choice.why, **decision})

    def _count(self) -> int:
        """Results with a value so far."""
        ended = self._history.ended
        self._results += sum(self._history.points[index].value is not None for index in ended[self._counted :])
        self._counted = len(ended)
        return self._results

    def _member(self, name: str) -> Any:
        """A tuner that has observed everything."""
        if name not in self._members:
            arguments: dict[str, Any] = {} if name == "GridSearch" else {"seed": self.seed}
            self._members[name] = _class(name)(optimize_mode=self._mode, **arguments), 0
        tuner, seen = self._members[name]
        for fact in self._facts[seen:]:
            tuner.observe(fact)
        self._members[name] = tuner, len(self._facts)
        return tuner


def choose(space: Space, results: int, budget: int | None) -> Choice:
    """The tuner for a space after so many results, with so many trials in all (None: no limit)."""
    free = [param for param in space.params if param.size != 1]
    size, count = space.size, len(free)
    if size is not None and size <= GRID and (budget is None or size <= budget):
        return Choice("GridSearch", f"the space has {size} points")
    if results < PROCESS_RESULTS and count <= PROCESS_PARAMETERS and _takes("GP", space):
        return Choice("GP", f"{count} parameters, fewer than {PROCESS_RESULTS} results")
    numbers = results >= PROCESS_RESULTS and not any(param.categorical for param in free)
    needed = CONVERGES * count if count > PROCESS_PARAMETERS else REFINES * count if numbers else None
    if needed and budget is not None and budget >= needed and not space.conditional and _takes("CMAES", space):
        return Choice("CMAES", f"{count} parameters, {budget} trials in all: {needed} or more")
    return Choice("TPE", f"{count} parameters, {results} results")


def _takes(name: str, space: Space) -> bool:
    """Whether a tuner searches such a space."""
    refuse = getattr(_class(name), "refuse", None)
    return refuse is None or refuse(space) is None


@cache
def _class(name: str) -> Any:
    return getattr(importlib.import_module(f".{MODULES[name]}", __package__), name)
