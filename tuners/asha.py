"""ASHA, asynchronous successive halving: many short trainings, and the best third of them go on, and of those again.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, A System for Massively Parallel
Hyperparameter Tuning (MLSys 2020). A new configuration trains up to the smallest budget; as soon as a run is among the
best 1 / `eta` of its rung, it may go on to the next budget, as a new trial that continues its checkpoint. Nothing ever
waits for a slow run.

* TRIAL_BUDGET is how far a trial trains in all, not how much further: a trial whose code ignores checkpoints trains
  from the beginning and has the same result, later.
* A failed or early-stopped run counts as worse than all of its rung; it never goes on, and nobody waits for it.
* With `brackets` above 1, a part of the configurations starts at a higher rung, as in Hyperband, for results that mean
  little at a small budget.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion, Wait
from ..engine.space import Space
from ._lineages import Budget, Runs, extras, folder, reserved, seed_checked
from ._rungs import Ladder, bracket_size, ladder_of
from .random import untaken


class ASHA:
    """Random configurations, promoted at any moment. `seed` None: the experiment's."""

    dedups: ClassVar[bool] = False  # a promotion is the same point again

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        min_budget: int | float = 1,
        max_budget: int | float = 81,
        eta: int = 3,
        brackets: int = 1,
    ) -> None:
        self.seed = seed_checked(seed)
        self.budgets = ladder_of(min_budget, max_budget, eta)
        if not 1 <= brackets <= len(self.budgets):
            raise ValueError(f"brackets is {brackets}; allowed: 1 to {len(self.budgets)}, one a budget")
        self.eta, self.brackets = eta, brackets
        top = len(self.budgets) - 1
        sizes = np.array([bracket_size(top, top - first, eta) for first in range(brackets)], dtype=float)
        self._shares = np.cumsum(sizes / sizes.sum())
        self._runs = Runs(-1.0 if optimize_mode == "maximize" else 1.0)
        self._ladder: Ladder | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told beside its parameters, or None."""
        return reserved(space, "ASHA")

    def observe(self, fact: Observation) -> None:
        """Remember a run or its result."""
        self._runs.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
        """A run that goes on, if one may; else a new configuration."""
        if self._ladder is None or not self._ladder.serves(ask.space):
            self._ladder = self._new_ladder(ask.space)
        ladder = self._ladder
        ladder.sync(self._runs)
        found = ladder.promotion()
        if found is not None:
            run = self._runs.all[found.run]
            seen: dict[str, Any] = {"budget": found.budget, "value": run.value, "results": found.results}
            return Suggestion(
                copy.deepcopy(run.parameters),
                extras(folder(ask), run.save, found.budget),
                budget=found.budget,
                continues=run.trial,
                parents=(run.trial,),
                decision={"rule": "promote", "bracket": found.bracket, "rung": found.rung + 1, **seen},
            )
        generator = ask.generator(self.seed)
        point = untaken(ask.space, ladder.taken, generator)
        if point is None:
            if self._runs.running:
                return Wait("every point is taken, and no run may go on before another has ended")
            return Exhausted(f"all points that could be found are taken ({len(ladder.taken)})")
        bracket = int(np.searchsorted(self._shares, generator.random(), side="right")) if self.brackets > 1 else 0
        bracket = min(bracket, self.brackets - 1)
        return self._fresh(ask, point, bracket, self.budgets[bracket])

    def _new_ladder(self, space: Space) -> Ladder:
        return Ladder(space, self.budgets, self.eta, self.brackets)

    def _fresh(self, ask: Ask, point: dict[str, Any], bracket: int, budget: Budget) -> Suggestion:
        decision = {"rule": "new", "bracket": bracket, "rung": bracket, "budget": budget}
        return Suggestion(point, extras(folder(ask), None, budget), budget=budget, decision=decision)
