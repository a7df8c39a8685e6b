"""What tuners with a model share: results as scores, candidates as rows of genes, and what a prediction is worth."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from ..engine.space import Space
from ._genes import Individual
from ._parzen import Axes, Floats, normal_cdf

NEAR = 0.1  # how far a running trial keeps others away, in each numeric parameter


class Candidates:
    """Points of a space as rows of genes (c x d), drawn from the prior or near others."""

    def __init__(self, space: Space) -> None:
        self.categorical = np.array([param.categorical for param in space.params], dtype=np.bool_)
        self.sizes: Floats = np.array([float(param.size or 1) for param in space.params])
        self._grain = np.where(self.sizes > 1, 0.7 / self.sizes, 0.0)
        self._axes = Axes(space)

    def rows(self, individuals: list[Individual]) -> Floats:
        """The genes of these."""
        return np.array([one.genes for one in individuals]).reshape(-1, len(self.sizes))

    def fresh(self, count: int, generator: np.random.Generator) -> Floats:
        """Draws of the prior."""
        return self._axes.settle(self._drawn(count, generator))

    def near(self, rows: Floats, step: float, generator: np.random.Generator) -> Floats:
        """Mutants of rows, in about one gene each: numbers by steps of this deviation, categories by a draw."""
        count, d = rows.shape
        drawn = self._drawn(count, generator)
        active = ~np.isnan(rows)
        chosen = generator.random((count, d)) < 1.0 / np.maximum(active.sum(axis=1), 1)[:, None]
        forced = np.argmax(np.where(active, generator.random((count, d)), -1.0), axis=1)
        chosen[np.arange(count), forced] = True
        moved = np.clip(rows + np.maximum(step, self._grain) * generator.standard_normal((count, d)), 0.0, 1.0)
        mutated = np.where(chosen, np.where(self.categorical, drawn, moved), rows)
        return self._axes.settle(np.where(np.isnan(mutated), drawn, mutated))  # a branch that is new is drawn

    def _drawn(self, count: int, generator: np.random.Generator) -> Floats:
        u = generator.random((count, len(self.sizes)))
        return np.where(self.categorical, np.minimum(np.floor(u * self.sizes), self.sizes - 1), u)

    def kept_away(self, rows: Floats, running: Floats) -> Floats:
        """The logarithm of how far the nearest running point leaves each row its worth, shape (c,): 0 when far."""
        if not len(running):
            return np.zeros(len(rows))
        apart = np.zeros((len(rows), len(running)))
        for i, categorical in enumerate(self.categorical.tolist()):
            mine, theirs = rows[:, i, None], running[None, :, i]
            lacking = np.isnan(mine).astype(np.intp) + np.isnan(theirs)
            off = np.where(mine == theirs, 0.0, 1.0) if categorical else ((mine - theirs) / NEAR) ** 2
            apart += np.where(lacking == 0, off, lacking == 1)
        return np.log(-np.expm1(-0.5 * apart.min(axis=1) - 1e-9))


def quantiles(known: list[Individual]) -> Floats:
    """The quantile of a normal distribution at the rank of each result; equal ones, and failed ones, share theirs."""
    orders = [one.order if one.order is not None else (math.inf, math.inf) for one in known]
    places = {order: [0, 0] for order in orders}
    for place, order in enumerate(sorted(orders)):
        places[order][0] += place
        places[order][1] += 1
    normal = NormalDist()
    score = {order: normal.inv_cdf((total / many + 0.5) / len(orders)) for order, (total, many) in places.items()}
    return np.array([score[order] for order in orders])


def log_expected_improvement(mean: Floats, sd: Floats, threshold: float) -> Floats:
    """log E[max(threshold - f, 0)] for f normal with these means and deviations, each of shape (c,).

    Below z = -4 by the asymptotic series of Mills' ratio; Ament et al., Unexpected Improvements to Expected Improvement
    (NeurIPS 2023), on why the logarithm.
    """
    z = (threshold - mean) / sd
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    near = np.maximum(density + z * normal_cdf(z), 1e-300)
    far = np.minimum(z, -4.0) ** -2
    tail = -0.5 * z * z - 0.5 * math.log(2.0 * math.pi) + np.log(far * (1.0 - 3.0 * far + 15.0 * far * far))
    return np.log(sd) + np.where(z > -4.0, np.log(near), tail)
