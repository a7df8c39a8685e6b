"""How much each parameter matters, from the results of a search.

PED-ANOVA (Watanabe, Bansal, Hutter, IJCAI 2023, arXiv 2304.10255): the Pearson divergence between where the best tenth
of the results lies and where all of them lie, one parameter at a time. fANOVA (Hutter, Hoos, Leyton-Brown, ICML 2014):
a forest is fitted to the results, and the share of its variance that each parameter explains alone is taken exactly
from the boxes of its trees. Both on the unit cube of the space, where the prior is uniform.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engine.space import Param, Space

Floats: TypeAlias = NDArray[np.float64]
Pairs: TypeAlias = Sequence[tuple[Mapping[str, Any], float]]
BINS = 32
TREES = 32
DEPTH = 14
INACTIVE = -1.0
_NEWEST = 5000


def ped_anova(space: Space, pairs: Pairs, *, minimize: bool, share: float = 0.1) -> dict[str, float]:
    """The importance of each parameter, summing to 1 (all 0 when none matters)."""
    losses = _losses(pairs, minimize)
    best = np.argsort(losses, kind="stable")[: max(math.ceil(share * len(losses)), 2)]
    found: dict[str, float] = {}
    for param in space.params:
        column = _column(param, pairs)
        bins = _bin_count(param)
        everywhere = _histogram(column, bins)
        there = _histogram(column[best], bins)
        found[param.key] = float(np.sum(everywhere * (there / everywhere - 1.0) ** 2))
    return _shares(found)


def _histogram(column: Floats, bins: int) -> Floats:
    """The shares of the bins, and of the inactive ones, each with a small prior mass so that none is empty."""
    places = np.where(column < 0, bins, np.minimum((column * bins).astype(int), bins - 1))
    counts = np.bincount(places, minlength=bins + 1).astype(float)
    if bins > 8:  # smooth what has an order and many bins
        kernel = np.exp(-0.5 * (np.arange(-3, 4) / 1.2) ** 2)
        counts[:bins] = np.convolve(counts[:bins], kernel / kernel.sum(), mode="same")
    counts += 1.0 / (bins + 1)
    return counts / counts.sum()


def fanova(space: Space, pairs: Pairs, *, minimize: bool, seed: int = 0) -> dict[str, float]:
    """The share of the variance that each parameter explains alone, averaged over a forest; at most 1 in all."""
    values = -_losses(pairs, minimize)
    columns = np.stack([_column(param, pairs) for param in space.params], axis=1)
    low = np.where((columns < 0).any(axis=0), -1.0 / 3.0, 0.0)  # inactive ones get a box of their own beside [0, 1]
    columns = np.where(columns < 0, -1.0 / 6.0, columns)
    shares: list[Floats] = []
    for number in range(TREES):
        dice = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
        rows = dice.integers(0, len(values), len(values))
        leaves: list[_Leaf] = []
        box = np.stack([low, np.ones(len(low))], axis=1)
        _grow(columns[rows], values[rows], box, 0, dice, leaves)
        shares.append(_explained(leaves, low))
    mean = np.mean(shares, axis=0)
    return {param.key: float(mean[param.index]) for param in space.params}


@dataclass(slots=True)
class _Leaf:
    box: Floats  # parameters x (low, high)
    mean: float


def _grow(
    columns: Floats, values: Floats, box: Floats, depth: int, dice: np.random.Generator, leaves: list[_Leaf]
) -> None:
    """One tree: each split is the best of one random cut a parameter."""
    spread = columns.max(axis=0) - columns.min(axis=0)
    if len(values) < 4 or depth >= DEPTH or not (spread > 1e-12).any() or np.ptp(values) == 0.0:
        leaves.append(_Leaf(box, float(values.mean())))
        return
    best: tuple[float, int, float] | None = None
    for index in np.flatnonzero(spread > 1e-12).tolist():
        cut = float(columns[:, index].min() + dice.uniform(0.02, 0.98) * spread[index])
        left = columns[:, index] <= cut
        count = int(left.sum())
        if not 0 < count < len(values):
            continue
        error = float(values[left].var() * count + values[~left].var() * (len(values) - count))
        if best is None or error < best[0]:
            best = (error, index, cut)
    if best is None:
        leaves.append(_Leaf(box, float(values.mean())))
        return
    _, index, cut = best
    left = columns[:, index] <= cut
    for side, edge in ((left, 1), (~left, 0)):
        inner = box.copy()
        inner[index, edge] = cut
        _grow(columns[side], values[side], inner, depth + 1, dice, leaves)


def _explained(leaves: list[_Leaf], low: Floats) -> Floats:
    """The variance of each parameter's marginal over the tree's variance."""
    boxes = np.stack([leaf.box for leaf in leaves])
    means = np.array([leaf.mean for leaf in leaves])
    lengths = (boxes[:, :, 1] - boxes[:, :, 0]) / (1.0 - low)
    mass = lengths.prod(axis=1)
    mean = float(mass @ means)
    total = float(mass @ (means - mean) ** 2)
    found = np.zeros(boxes.shape[1])
    if total <= 1e-300:
        return found
    for index in range(boxes.shape[1]):
        edges = np.unique(boxes[:, index, :])
        middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / (1.0 - low[index])
        inside = (boxes[:, index, 0:1] <= middles) & (middles < boxes[:, index, 1:2])
        marginal = ((mass / lengths[:, index]) * means) @ inside
        found[index] = float(widths @ (marginal - mean) ** 2) / total
    return found


def _losses(pairs: Pairs, minimize: bool) -> Floats:
    values = np.array([value for _, value in pairs[-_NEWEST:]])
    return values if minimize else -values


def _column(param: Param, pairs: Pairs) -> Floats:
    """A parameter's places in the unit interval; `INACTIVE` where it is not active."""
    found: list[float] = []
    for flat, _ in pairs[-_NEWEST:]:
        value = flat.get(param.key)
        found.append(param.to_unit(value) if value is not None and _known(param, value) else INACTIVE)
    return np.array(found)


def _known(param: Param, value: Any) -> bool:
    """Whether this is a value of the parameter: results by hand, or of a former space, may have others."""
    return value in param.choices if param.nested else param.check(value) is None


def _bin_count(param: Param) -> int:
    return max(min(param.size or BINS, BINS), 1)


def _shares(found: dict[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {name: value / total if total > 0 else 0.0 for name, value in found.items()}
