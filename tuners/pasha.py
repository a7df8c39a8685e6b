"""PASHA, progressive ASHA: the largest budget is raised only while the ranking of the best still changes with it.

Bohdal, Balles, Wistuba, Ermis, Archambeau and Zappella, PASHA: Efficient HPO and NAS with Progressive Resource
Allocation (ICLR 2023). It begins as an ASHA of two rungs. Whenever the runs of the top rung are not ranked as they
were one rung below, there is a further rung, up to `max_budget`. Two results that differ by no more than the noise
count as equal: the noise is the 90th percentile of the differences, one rung below the top, of those pairs of runs
whose order has changed twice on their way up.
"""

from __future__ import annotations

from bisect import insort

import numpy as np

from ..engine.plugins import OptimizeMode
from ..engine.space import Space
from ._lineages import Budget, Rank, Run, Runs, reserved
from ._parzen import Floats
from ._rungs import Ladder
from .asha import ASHA

COMPARED = 32  # the best runs of the top rung whose ranking is looked at


class PASHA(ASHA):
    """ASHA with a largest budget that grows as it is needed; the options are ASHA's."""

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        min_budget: int | float = 1,
        max_budget: int | float = 81,
        eta: int = 3,
    ) -> None:
        super().__init__(optimize_mode=optimize_mode, seed=seed, min_budget=min_budget, max_budget=max_budget, eta=eta)

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told beside its parameters, or None."""
        return reserved(space, "PASHA")

    def _new_ladder(self, space: Space) -> Ladder:
        return GrowingLadder(space, self.budgets, self.eta)


class GrowingLadder(Ladder):
    """A ladder of one bracket whose top rises."""

    def __init__(self, space: Space, budgets: list[Budget], eta: int) -> None:
        super().__init__(space, budgets, eta, 1)
        self.top = min(1, len(budgets) - 1)
        self._best: list[tuple[Rank, list[float]]] = []  # of the top rung: rank, and the losses on the way up

    def end(self, runs: Runs, run: Run) -> None:
        """Take in the end of a run; one at the top may raise it."""
        super().end(runs, run)
        if self.places[run.index][1] != self.top or run.rank is None or self.top == len(self.budgets) - 1:
            return
        insort(self._best, (run.rank, self._way(runs, run)))
        dropped = self._best.pop()[0] if len(self._best) > COMPARED else None
        if dropped != run.rank and len(self._best) > 1 and not agree([way for _, way in self._best]):
            self.top += 1
            self._best = []

    @staticmethod
    def _way(runs: Runs, run: Run) -> list[float]:
        """The losses of a run and of those that it continues, from the lowest rung up."""
        losses: list[float] = []
        at: int | None = run.index
        while at is not None:
            one = runs.all[at]
            losses.append(one.rank[1] if one.rank is not None else 0.0)
            at = one.parent
        return losses[::-1]


def agree(ways: list[list[float]]) -> bool:
    """Whether losses on the last rung are ranked as on the one below, where those within the noise may swap."""
    table: Floats = np.array(ways)
    below, top = table[:, -2], table[:, -1]
    ranked = below[np.argsort(top, kind="stable")]
    with np.errstate(over="ignore", invalid="ignore"):  # losses may be as large as floats go
        return bool(np.all(np.abs(ranked - np.sort(below)) <= noise_of(table)))


def noise_of(table: Floats) -> float:
    """The noise of losses, by run and rung (n x r): see the module. 0.0 when no pair has changed its order twice."""
    order = (table[:, None] > table).astype(np.int8) - (table[:, None] < table)
    turned = np.count_nonzero(order[:, :, 1:] * order[:, :, :-1] < 0, axis=2)
    gaps = np.abs(table[:, None, -2] - table[:, -2])[np.triu(turned >= 2)]
    return float(np.percentile(gaps, 90)) if len(gaps) else 0.0
