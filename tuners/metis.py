"""Metis: a Gaussian process, asked in turn for where it is best, where it could be best, and what to measure again.

Li et al., Metis: Robustly Optimizing Tail Latencies of Cloud Systems (USENIX ATC 2018): exploitation is the point of
the lowest expected loss, exploration that of the lowest end of the 95 % interval, and a result that the others
contradict is measured again. The model is that of `GP`, so any space will do.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import EXACT, Space
from ._gp_model import Kernel
from ._gp_surrogate import Surrogate, View
from ._history import History

INTERVAL = 1.96  # deviations to the ends of the 95 % interval
OUTLIER = 3.0  # deviations from what the others say that make a result doubtful
STARTS = 5  # candidates that are improved along the gradient


class Metis:
    """Exploration, exploitation and resampling by a Gaussian process. `seed` None: the experiment's.

    NNI's names and defaults: `no_resampling`: results count as exact, nothing is measured again. `no_candidates`: only
    ever the point that the model holds for the best. `exploration_probability`: of exploration instead of exploitation.
    `selection_num_starting_points`: random candidates. `cold_start_num`: results before the first model.
    """

    dedups: ClassVar[bool] = False  # it measures again what is doubtful

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        no_resampling: bool = True,
        no_candidates: bool = False,
        selection_num_starting_points: Annotated[int, Meta(ge=1)] = 600,
        cold_start_num: Annotated[int, Meta(ge=1)] = 10,
        exploration_probability: Annotated[float, Meta(ge=0, le=1)] = 0.9,
    ) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        self.seed = seed
        self.no_resampling, self.no_candidates = no_resampling, no_candidates
        self.warm_up = selection_num_starting_points
        self.cold_start_num = cold_start_num
        self.exploration_probability = exploration_probability
        self._sign = -1.0 if optimize_mode == "maximize" else 1.0
        self._history = History()
        self._surrogate: Surrogate | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter with more values than floats can count, or None."""
        wide = [param.key for param in space.params if param.categorical and (param.size or 0) > EXACT]
        return f"{wide[0]} has more than 2**53 values, too many for Metis" if wide else None

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """A doubtful point again, else the best point by the mean, or by the interval's end."""
        if self._surrogate is None or not self._surrogate.trials.serves(ask.space):
            self._surrogate = Surrogate(ask.space, self._sign, self.cold_start_num, Kernel())
        surrogate = self._surrogate
        surrogate.trials.sync(self._history)
        if not surrogate.ready:
            return surrogate.start(ask, self.seed)
        view, generator = surrogate.view(), ask.generator(self.seed)
        if not self.no_resampling:
            again = _doubtful(view)
            if again is not None:
                return again
        explores = not self.no_candidates and generator.random() < self.exploration_probability
        found, values = view.search(
            "ucb", generator, xi=0.0, kappa=INTERVAL if explores else 0.0, warm_up=self.warm_up, starts=STARTS
        )
        point, value = view.pick(found, values, generator)
        decision: dict[str, Any] = {"rule": "exploration" if explores else "exploitation", **view.seen()}
        if value is None:
            decision["rule"] += ", but all candidates are taken"
        else:
            decision["value"] = round(value, 6)
        return Suggestion(point, decision={**decision, "candidates": len(found)})


def _doubtful(view: View) -> Suggestion | None:
    """The result that the others contradict most, unless it was measured twice already or none is contradicted."""
    surprise = np.abs(view.posterior.surprise())
    for place in np.argsort(-surprise, kind="stable").tolist():
        if surprise[place] <= OUTLIER:
            return None
        row, placed = view.rows[place], view.trials.placed()
        times = int(((placed == row) | (np.isnan(placed) & np.isnan(row))).all(axis=1).sum())
        point, _ = view.axes.point(row)
        if times == 1 and view.surrogate.space.allows(point):
            decision = {"rule": "resampling", "surprise": round(float(surprise[place]), 3), **view.seen()}
            return Suggestion(point, decision=decision)
    return None
