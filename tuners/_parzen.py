"""Parzen estimators over mixed and conditional spaces: the two densities of TPE, as arrays.

A point is a row of d floats: a numeric parameter's place in the unit interval (the centre of its cell where its values
can be counted), a categorical one's number, NaN where it is inactive. A density is a weighted sum of kernels, one a
point, and of the prior; a kernel is a product over the parameters, so what goes well together is drawn together:

* numeric: a normal truncated to [0, 1]; its width is the larger gap to the neighbours among the kernels, from
  1 / min(100, kernels + 1) (the "magic clip"), or half a cell, up to 1. Bergstra et al., Algorithms for Hyper-Parameter
  Optimization (NIPS 2011); Watanabe, arXiv 2304.11127, on the multivariate form.
* categorical of C values: (1[same] + w) / (1 + C w), w = 2 x prior weight / kernels, the prior counted.
* where the kernel's point does not have a parameter that the candidate has (another branch): the prior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engine.space import Cell, Param, Space
from ._history import Cells

Floats: TypeAlias = NDArray[np.float64]
Branch: TypeAlias = tuple[int, ...]  # the choice of each nested parameter, -1 where it is inactive; () without any

BLUR = 2.0  # how easily a category changes; with 1 the first lucky ones stay
SNAPPED = 1024  # values up to which candidates are moved to the centres of cells
_Z: Floats = np.linspace(-8.5, 8.5, 17 * 240 + 1)
_PHI: Floats = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in _Z.tolist()])


def normal_cdf(z: Floats) -> Floats:
    """The standard normal's cumulative distribution, to 1e-6, by a table."""
    return np.interp(z, _Z, _PHI)


def _quick_cdf(z: Floats) -> Floats:
    """The same to 5e-4, from the nearest entry of the table: enough for how much of a kernel lies in [0, 1]."""
    step = len(_Z) // 17
    return _PHI[np.clip(z * step + (len(_Z) // 2 + 0.5), 0, len(_Z) - 1).astype(np.intp)]


class Axes:
    """The parameters of a space as columns, and the way from parameters to rows and back."""

    def __init__(self, space: Space) -> None:
        self.space = space
        params = space.params
        self.count = len(params)
        self.numeric = np.array([p.index for p in params if not p.categorical], dtype=np.intp)
        self.categorical = np.array([p.index for p in params if p.categorical], dtype=np.intp)
        self.sizes: Floats = np.array([float(p.size or 1) for p in params if p.categorical])
        self.nested = [p for p in params if p.nested]
        self.children = [(p.index, p.parent, p.branch) for p in params if p.parent is not None]
        self._cells = {p.index: _cells(p) for p in params if not p.categorical}
        self.narrow: Floats = np.array([self._narrowest(p) for p in params if not p.categorical])

    def _narrowest(self, param: Param) -> float:
        cells = self._cells[param.index]
        return 0.0 if cells is None else float(np.median(np.diff(cells[0], prepend=0.0, append=1.0))) / 2

    def row(self, flat: Mapping[str, Any]) -> list[float]:
        """The row of a point that `Space.flatten` took apart."""
        row = [math.nan] * self.count
        for param in self.space.params:
            if param.key in flat:
                value = flat[param.key]
                row[param.index] = float(param.cell(value)) if param.categorical else param.to_unit(value)
        return row

    def point(self, row: Floats) -> tuple[dict[str, Any], Cells]:
        """The parameters of a row, and its cells."""
        places = row.tolist()
        cells: list[Cell | None] = [None] * self.count

        def choose(param: Param) -> Any:
            place = places[param.index]
            if param.categorical:
                cells[param.index] = int(place)
                return param.at(int(place))
            value = param.from_unit(place)
            cells[param.index] = param.cell(value)
            return value

        return self.space.draw(choose), tuple(cells)

    def branch(self, cells: Cells) -> Branch:
        """The branch that a point lies in."""
        return tuple(-1 if (cell := cells[param.index]) is None else int(cell) for param in self.nested)

    def fixed(self, branch: Branch) -> dict[int, int]:
        """The columns that make a branch, with their values."""
        return {param.index: cell for param, cell in zip(self.nested, branch, strict=True) if cell >= 0}

    def named(self, branch: Branch) -> str:
        """A branch for people."""
        pairs = zip(self.nested, branch, strict=True)
        return ", ".join(f"{param.key}={param.choices[cell]}" for param, cell in pairs if cell >= 0)[:100]

    def features(self, rows: Floats) -> tuple[Floats, Floats]:
        """What the kernels' logarithms are linear in (c x (2 numeric + d)), and the categorical codes."""
        active = ~np.isnan(rows)
        x = np.where(active, rows, 0.0)[:, self.numeric]
        return np.concatenate([x * x, x, active], axis=1), rows[:, self.categorical]

    def settle(self, rows: Floats) -> Floats:
        """Move places of countable parameters to the centres of their cells, and take out what is not active."""
        for index, cells in self._cells.items():
            if cells is not None:
                edges, centres = cells
                rows[:, index] = centres[np.searchsorted(edges, rows[:, index], side="right")]
        for index, parent, branch in self.children:
            rows[rows[:, parent] != branch, index] = np.nan
        return rows


class Density:
    """A mixture of one kernel for each row of `points` (k x d) with its weight, and of the prior with its own."""

    def __init__(self, axes: Axes, points: Floats, weights: Floats, prior_weight: float) -> None:
        self.axes = axes
        kernels = len(points) + 1  # the last one is the prior: as a point that has no parameter at all
        points = np.vstack([points, np.full((1, axes.count), np.nan)])
        weights = np.append(weights, prior_weight)
        self._cumulative = np.cumsum(weights / weights.sum())
        self._log_weights = np.log(np.maximum(weights / weights.sum(), 1e-300))
        self._mu: Floats = points[:, axes.numeric]
        self._mu_or_half = np.where(np.isnan(self._mu), 0.5, self._mu)
        self._sigma = _widths(self._mu, axes.narrow)
        self._codes: Floats = points[:, axes.categorical]
        self._blur = BLUR * prior_weight / kernels
        absent = np.isnan(self._mu)
        precision = 1.0 / self._sigma
        mass = _quick_cdf((1.0 - self._mu_or_half) * precision) - _quick_cdf(-self._mu_or_half * precision)
        heights = np.log(precision / (mass * math.sqrt(2 * math.pi)))
        precision *= precision
        precision[absent] = 0.0
        centred = self._mu_or_half * precision
        const = np.zeros((kernels, axes.count))
        heights -= 0.5 * centred * self._mu_or_half
        heights[absent] = 0.0
        const[:, axes.numeric] = heights
        other = self._blur / (1.0 + axes.sizes * self._blur) if self._blur else np.full(len(axes.sizes), 1e-12)
        const[:, axes.categorical] = np.where(np.isnan(self._codes), -np.log(axes.sizes), np.log(other))
        self._same = math.log1p(1.0 / self._blur) if self._blur else math.log(1e12)
        self._features = np.concatenate([-0.5 * precision, centred, const], axis=1).T

    def log(self, rows: Floats) -> Floats:
        """The log density at each row of `rows` (c x d), shape (c,)."""
        return self.log_of(*self.axes.features(rows))

    def log_of(self, features: Floats, codes: Floats) -> Floats:
        """The same, of rows that `Axes.features` took apart."""
        logs: Floats = features @ self._features
        if codes.shape[1]:
            same = codes.T[:, :, None] == self._codes.T[:, None, :]  # NaN is equal to nothing
            logs += self._same * same.sum(axis=0)
        logs += self._log_weights
        top = logs.max(axis=1)
        result: Floats = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        return result

    def sample(
        self,
        generator: np.random.Generator,
        count: int,
        fixed: Mapping[int, int] | None = None,
        *,
        wider: float = 1.0,
        narrowest: float = 0.0,
    ) -> Floats:
        """`count` rows drawn from the mixture, (count x d), with the columns of `fixed` at these values.

        Its numeric kernels are `wider` times as wide, and at least `narrowest` before that.
        """
        axes = self.axes
        picked = np.searchsorted(self._cumulative, generator.random(count), side="right")
        picked = np.minimum(picked, len(self._cumulative) - 1)
        rows = np.empty((count, axes.count))
        mu, sigma = self._mu[picked], np.maximum(self._sigma[picked], narrowest) * wider
        u = generator.random(mu.shape)
        low, high = normal_cdf(-mu / sigma), normal_cdf((1.0 - mu) / sigma)
        drawn = mu + sigma * np.interp(low + u * (high - low), _PHI, _Z)
        rows[:, axes.numeric] = np.clip(np.where(np.isnan(mu), u, drawn), 0.0, 1.0)
        codes = self._codes[picked]
        keep = generator.random(codes.shape) < 1.0 / (1.0 + axes.sizes * self._blur)
        other = np.minimum(np.floor(generator.random(codes.shape) * axes.sizes), axes.sizes - 1)
        rows[:, axes.categorical] = np.where(keep & ~np.isnan(codes), codes, other)
        for column, code in (fixed or {}).items():
            rows[:, column] = code
        return axes.settle(rows)


def _widths(mu: Floats, narrow: Floats) -> Floats:
    """The kernels' widths, as `mu` (k x d, NaN where a kernel has no such parameter)."""
    kernels, count = mu.shape
    known = np.where(np.isnan(mu), np.inf, mu)
    known[-1] = 0.5  # the prior's place counts as a neighbour
    columns: NDArray[np.intp] = np.arange(count, dtype=np.intp)
    order = known.argsort(axis=0, kind="stable")
    ranked = known[order, columns]
    larger = np.full((kernels + 1, count), -1.0)  # gaps, with none before the first and after the last
    np.subtract(ranked[1:], ranked[:-1], out=larger[1:-1], where=ranked[1:] < np.inf)
    widths = np.empty_like(mu)
    widths[order, columns] = np.maximum(larger[:-1], larger[1:])
    return np.clip(widths, np.maximum(1.0 / min(100, kernels), narrow), 1.0)


def _cells(param: Param) -> tuple[Floats, Floats] | None:
    """The inner edges and the centres of a countable parameter's cells; None for a continuous one."""
    if param.size is None or param.size > SNAPPED:
        return None
    edges = np.array([param.edges(cell)[1] for cell in range(param.size - 1)])
    return edges, np.array([param.to_unit(param.at(cell)) for cell in range(param.size)])
