"""Hyperband: brackets of successive halving, from many short trainings to a few long ones, round after round.

Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization (JMLR 18, 2018). The options, the sizes and the budgets (whole numbers) are those of NNI; after the last
bracket the first one comes again, until the experiment's limits end it.

* TRIAL_BUDGET is how far a trial trains in all. A run that goes on is a new trial, which continues the checkpoint.
* A failed or early-stopped run counts as ended, and never goes on. A bracket whose every run failed is over.
* `exec_mode`: in "parallelism" the next bracket begins while the one before still runs; in "serial" it waits for it.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import numpy as np

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion, Wait
from ..engine.space import Space
from ._brackets import Brackets, Next
from ._lineages import Budget, Runs, extras, folder, reserved, seed_checked
from ._rungs import ladder_of
from .random import untaken

ExecMode = Literal["parallelism", "serial"]


class Hyperband:
    """Random configurations in brackets. `R`: the largest budget; `seed` None: the experiment's."""

    dedups: ClassVar[bool] = False  # a promotion is the same point again

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        R: int = 60,
        eta: int = 3,
        exec_mode: ExecMode = "parallelism",
    ) -> None:
        if exec_mode not in ("parallelism", "serial"):
            raise ValueError(f"exec_mode is {exec_mode!r}; allowed: parallelism, serial")
        self._set_up(optimize_mode, seed, ladder_of(1, R, eta), eta, exec_mode == "serial")

    def _set_up(
        self, optimize_mode: OptimizeMode, seed: int | None, budgets: list[Budget], eta: int, serial: bool
    ) -> None:
        self.seed = seed_checked(seed)
        self.budgets, self.eta, self.serial = budgets, eta, serial
        self._runs = Runs(-1.0 if optimize_mode == "maximize" else 1.0)
        self._brackets: Brackets | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told beside its parameters, or None."""
        return reserved(space, "Hyperband")

    def observe(self, fact: Observation) -> None:
        """Remember a run or its result."""
        self._runs.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Wait:
        """A run that goes on, if one may; else a new configuration."""
        brackets = self._brackets
        if brackets is None or not brackets.serves(ask.space):
            brackets = self._brackets = Brackets(ask.space, self.budgets, self.eta, self.serial)
        brackets.sync(self._runs)
        found = brackets.next()
        if found is None:
            return Wait("the bracket's runs have not ended, and exec_mode is serial")
        where = {"bracket": found.bracket.number, "rung": found.rung, "budget": found.budget}
        if found.run is not None:
            run = self._runs.all[found.run]
            return Suggestion(
                copy.deepcopy(run.parameters),
                extras(folder(ask), run.save, found.budget),
                budget=found.budget,
                continues=run.trial,
                parents=(run.trial,),
                decision={"rule": "promote", **where, "value": run.value, "of": found.bracket.wanted},
            )
        point, why = self._fresh(ask, brackets, found)
        decision = {**why, **where, "of": found.bracket.wanted}
        return Suggestion(point, extras(folder(ask), None, found.budget), budget=found.budget, decision=decision)

    def _fresh(self, ask: Ask, brackets: Brackets, found: Next) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new configuration, and why it's this one."""
        return fresh(ask.space, brackets, ask.generator(self.seed)), {"rule": "new"}


def fresh(space: Space, brackets: Brackets, generator: np.random.Generator) -> dict[str, Any]:
    """A point of the prior, a new one if there is one."""
    point = untaken(space, brackets.taken, generator)
    return space.sample(generator.random) if point is None else point
