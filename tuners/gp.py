"""GP: a Gaussian process learns what the results say of every point, and the point most worth trying is asked for.

Jones, Schonlau and Welch, Efficient Global Optimization (1998), in a form that holds for any space: Matern kernel with
a length a parameter, Hamming distances for choices, log expected improvement in turn with an upper confidence bound,
running trials believed to come out as the model expects. Failed trials are as bad as the worst result.

* Outcome constraints: a second model says how probable it is that they are met, the improvement counts times that.
* More than 20 parameters: only a box around the best point is searched (`_gp_trust`).
* More than 300 results: a model of the best, the nearest and the newest (`_gp_chain`).
* `_gp_surrogate` holds it all together; `_gp_columns`, `_gp_warps` and `_gp_model` are the model, `_gp_search` finds
  the best point, `_acquisition` says what best means.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import EXACT, Space
from ._acquisition import Rule
from ._gp_model import Kernel
from ._gp_surrogate import Surrogate, View
from ._history import History

LOW_KAPPA, HIGH_KAPPA = 1.0, 4.0
RULES = {"ei": "log expected improvement", "ucb": "confidence bound", "poi": "log probability of improvement"}

Utility: TypeAlias = Literal["auto", "ei", "ucb", "poi"]


class GP:
    """Model-based search, the best at up to some hundred trials. `seed` None: the experiment's.

    NNI's names with our defaults (NNI's in brackets):

    * `utility` ["ei"]: "auto" is the expected improvement and, every third time, the confidence bound.
    * `kappa` [5]: deviations of that bound; None: drawn anew each time, from 1 to 4.
    * `xi` [0]: how much less than the best counts as an improvement, in standard deviations of the results.
    * `nu` [2.5]: the kernel's smoothness, 0.5, 1.5, 2.5 or inf. `alpha` [1e-6]: variance that is added to the noise.
    * `cold_start_num` [10]: results before the first model; None: 2 + the number of parameters, from 5 to 10.
    * `selection_num_warm_up` [100000]: random candidates; `selection_num_starting_points` [250]: how many candidates
      are improved along the gradient.
    """

    dedups: ClassVar[bool] = False  # of a small space that is all taken it asks again: results may be noisy

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        utility: Utility = "auto",
        kappa: Annotated[float, Meta(ge=0)] | None = None,
        xi: Annotated[float, Meta(ge=0)] = 0.0,
        nu: float = 2.5,
        alpha: Annotated[float, Meta(ge=0)] = 1e-8,
        cold_start_num: Annotated[int, Meta(ge=1)] | None = None,
        selection_num_warm_up: Annotated[int, Meta(ge=1)] = 300,
        selection_num_starting_points: Annotated[int, Meta(ge=0)] = 5,
    ) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        if nu not in (0.5, 1.5, 2.5, math.inf):
            raise ValueError(f"nu is {nu}; allowed: 0.5, 1.5, 2.5, inf")
        self.seed = seed
        self.utility: Utility = utility
        self.kappa, self.xi = kappa, xi
        self.kernel = Kernel(nu, alpha)
        self.cold_start_num = cold_start_num
        self.warm_up, self.starts = selection_num_warm_up, selection_num_starting_points
        self._sign = -1.0 if optimize_mode == "maximize" else 1.0
        self._history = History()
        self._surrogate: Surrogate | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter with more values than floats can count, or None."""
        wide = [param.key for param in space.params if param.categorical and (param.size or 0) > EXACT]
        return f"{wide[0]} has more than 2**53 values, too many for GP" if wide else None

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """The point whose result promises most."""
        if self._surrogate is None or not self._surrogate.trials.serves(ask.space):
            self._surrogate = Surrogate(ask.space, self._sign, self.cold_start_num, self.kernel)
        surrogate = self._surrogate
        surrogate.trials.sync(self._history)
        if not surrogate.ready:
            return surrogate.start(ask, self.seed)
        view, generator = surrogate.view(), ask.generator(self.seed)
        rule = self._rule(view)
        kappa = self.kappa if self.kappa is not None else LOW_KAPPA * (HIGH_KAPPA / LOW_KAPPA) ** generator.random()
        found, values = view.search(rule, generator, xi=self.xi, kappa=kappa, warm_up=self.warm_up, starts=self.starts)
        point, value = view.pick(found, values, generator)
        decision: dict[str, Any] = {"rule": RULES[rule], **view.seen(), "candidates": len(found)}
        if value is None:
            decision["rule"] += ", but all candidates are taken"
        else:
            decision["value"] = round(value, 6)
        return Suggestion(point, decision=decision)

    def _rule(self, view: View) -> Rule:
        if self.utility != "auto":
            return self.utility
        return "ucb" if (view.observed + view.running) % 3 == 2 else "ei"
