"""A forest of extremely randomised trees as arrays: every level of all trees is grown, and walked, at once.

Geurts, Ernst and Wehenkel, Extremely Randomized Trees (Machine Learning 63, 2006): a node tries a few features, each
with one random cut between the values that it has, and keeps the cut that leaves the least variance. Every tree sees
all points. A categorical feature is cut into one value, that of a random point of the node, and the others; where a
point lacks a feature it stands at -1, below all that have it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]

DEEPEST = 40


class Forest:
    """Trees fitted to `x` (n x d) and `y` (n); `categorical` (d) says which features have values without an order."""

    def __init__(
        self,
        x: Floats,
        y: Floats,
        categorical: NDArray[np.bool_],
        generator: np.random.Generator,
        trees: int = 10,
        leaf: int = 3,
    ) -> None:
        self.trees = trees
        self._categorical = categorical
        self._feature: list[Places] = []  # by level, of each node; -1: a leaf
        self._cut: list[Floats] = []
        self._left: list[Places] = []  # where the children of a node stand on the next level
        self._mean: list[Floats] = []
        self._variance: list[Floats] = []
        self._grow(np.where(np.isnan(x), -1.0, x), y, generator, leaf)

    def _grow(self, x: Floats, y: Floats, generator: np.random.Generator, leaf: int) -> None:
        n = len(y)
        points: Places = np.tile(np.arange(n), self.trees)  # sorted by node
        node: Places = np.repeat(np.arange(self.trees), n)
        for depth in range(DEEPEST + 1):
            nodes = int(node[-1]) + 1 if depth == 0 else len(starts_of(node))
            starts = starts_of(node)
            sizes = np.diff(np.append(starts, len(node)))
            target = y[points]
            mean = np.add.reduceat(target, starts) / sizes
            square = np.add.reduceat((target - mean[node]) ** 2, starts)
            self._mean.append(mean)
            self._variance.append(square / sizes)
            open_ = (sizes >= 2 * leaf) & (square > 1e-18) & (depth < DEEPEST)
            feature, cut = self._best_cuts(x, target, points, node, starts, sizes, generator, leaf, open_)
            left = np.full(nodes, -1, dtype=np.intp)
            split = feature >= 0
            left[split] = 2 * np.arange(int(split.sum()))
            self._feature.append(feature)
            self._cut.append(cut)
            self._left.append(left)
            if not split.any():
                return
            stays = split[node]
            points, node = points[stays], node[stays]
            went = ~self._goes_left(x[points, feature[node]], feature[node], cut[node])
            child = left[node] + went
            order = np.argsort(child, kind="stable")
            points, node = points[order], child[order]

    def _best_cuts(
        self,
        x: Floats,
        target: Floats,
        points: Places,
        node: Places,
        starts: Places,
        sizes: Places,
        generator: np.random.Generator,
        leaf: int,
        open_: NDArray[np.bool_],
    ) -> tuple[Places, Floats]:
        """The feature (-1: none) and the cut of each node of a level."""
        nodes, d = len(starts), x.shape[1]
        best = np.full(nodes, -np.inf)
        feature = np.full(nodes, -1, dtype=np.intp)
        cut = np.zeros(nodes)
        total = np.add.reduceat(target, starts)
        for _ in range(max(1, (d * 5 + 5) // 6)):
            tried = np.minimum((generator.random(nodes) * d).astype(np.intp), d - 1)
            values = x[points, tried[node]]
            low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
            reference = values[starts + np.minimum((generator.random(nodes) * sizes).astype(np.intp), sizes - 1)]
            u = generator.random(nodes)
            where = np.where(self._categorical[tried], reference, low + u * (high - low))
            goes = self._goes_left(values, tried[node], where[node])
            count = np.add.reduceat(goes.astype(np.float64), starts)
            part = np.add.reduceat(np.where(goes, target, 0.0), starts)
            rest = sizes - count
            allowed = open_ & (count >= leaf) & (rest >= leaf)
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = np.where(allowed, part * part / count + (total - part) ** 2 / rest, -np.inf)
            better = gain > best
            best = np.where(better, gain, best)
            feature = np.where(better, tried, feature)
            cut = np.where(better, where, cut)
        return feature, cut

    def _goes_left(self, values: Floats, feature: Places, cut: Floats) -> NDArray[np.bool_]:
        return np.where(self._categorical[feature], values == cut, values <= cut)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """The mean and the variance at each row of `x` (c x d), both of shape (c,).

        The variance is that between the trees and the mean of those within their leaves.
        """
        x = np.where(np.isnan(x), -1.0, x)
        c = len(x)
        row: Places = np.tile(np.arange(c), self.trees)
        node: Places = np.repeat(np.arange(self.trees), c)
        slot: Places = np.arange(c * self.trees)
        mean, variance = np.empty(c * self.trees), np.empty(c * self.trees)
        for feature, cut, left, means, variances in zip(
            self._feature, self._cut, self._left, self._mean, self._variance, strict=True
        ):
            at = feature[node]
            done = at < 0
            mean[slot[done]], variance[slot[done]] = means[node[done]], variances[node[done]]
            on = ~done
            if not on.any():
                break
            row, node, slot, at = row[on], node[on], slot[on], at[on]
            went = ~self._goes_left(x[row, at], at, cut[node])
            node = left[node] + went
        by_tree = mean.reshape(self.trees, c)
        return by_tree.mean(axis=0), by_tree.var(axis=0) + variance.reshape(self.trees, c).mean(axis=0)


def starts_of(node: Places) -> Places:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.append(True, node[1:] != node[:-1]))
