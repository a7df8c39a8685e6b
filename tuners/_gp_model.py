"""A Gaussian process: its hyper-parameters from data by maximum a posteriori, and what it then says of other points.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2, 5.4.1 and 5.4.2. The kernel has a
length a parameter (ARD) over the columns of `_gp_columns`; the mean is 0, so targets have mean 0 and deviation 1.
Priors are log-normal. That of the lengths grows with the root of the number of parameters, as distances do (Hvarfner et
al., Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML 2024), else a model of many parameters takes
every two points for unrelated. All gradients are analytic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._gp_columns import Columns
from ._gp_warps import bent, bent_slopes
from ._numerics import LOG_ROOT_2PI, Floats, cholesky, inverse_of_triangle, lapack, minimize

LENGTH = (-1.1, 1.2)  # of log length - log(parameters) / 2: mean and deviation of the prior
SCALE = (0.0, 1.0)  # of the log variance
NOISE = (-7.0, 2.5)  # of the noise's log variance
BEND = (0.0, 0.5)  # of log a and log b of an input's warp
_LIMITS = 4.0  # deviations of a prior that a hyper-parameter may be away
_REFUSED = 1e10


@dataclass(frozen=True, slots=True)
class Theta:
    """Hyper-parameters: logs of the lengths (by parameter), the variance, the noise's variance, and the warp's."""

    log_lengths: Floats
    log_scale: float
    log_noise: float
    log_a: Floats | None = None  # by numeric parameter; None: no warp
    log_b: Floats | None = None

    @property
    def noise(self) -> float:
        """The noise's variance."""
        return math.exp(self.log_noise)


@dataclass(frozen=True, slots=True)
class Kernel:
    """How alike two points are, from their weighted squared distance r2; `nu` is Matern's smoothness (inf: Gauss).

    `floor`: variance that is added to the noise.
    """

    nu: float = 2.5
    floor: float = 1e-8

    def of(self, r2: Floats) -> tuple[Floats, Floats]:
        """The correlation at r2 >= 0, and its derivative by r2."""
        if self.nu == math.inf:
            value = np.exp(-0.5 * r2)
            return value, -0.5 * value
        r = np.sqrt((2.0 * self.nu) * r2)
        decay = np.exp(-r)
        if self.nu == 2.5:
            rise = 1.0 + r
            return (rise + (5.0 / 3.0) * r2) * decay, (-5.0 / 6.0) * rise * decay
        if self.nu == 1.5:
            return (1.0 + r) * decay, -1.5 * decay
        return decay, -0.5 * decay / np.maximum(r, 1e-6)


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` found: hyper-parameters, and their log posterior density (up to a constant of the data)."""

    theta: Theta
    log_density: float


def prior_start(parameters: int, bent_columns: int | None = None) -> Theta:
    """The middle of the priors."""
    zeros = None if bent_columns is None else np.zeros(bent_columns)
    lengths = np.full(parameters, LENGTH[0] + 0.5 * math.log(max(parameters, 1)))
    return Theta(lengths, SCALE[0], NOISE[0], zeros, zeros)


def fit(columns: Columns, features: Floats, targets: Floats, start: Theta, kernel: Kernel, steps: int) -> Fit:
    """The hyper-parameters of the highest posterior density near `start`; it warps inputs when `start` does.

    features (n x columns) as `Columns.of` gives them, targets (n) of mean 0 and deviation 1.
    """
    means, deviations = _prior(columns, start)
    bounds = list(zip(means - _LIMITS * deviations, means + _LIMITS * deviations, strict=True))

    def objective(vector: Floats) -> tuple[float, Floats]:
        value, gradient = negative_log_likelihood(columns, features, targets, _theta(columns, vector, start), kernel)
        off = (vector - means) / deviations
        return value + 0.5 * float(off @ off), gradient + off / deviations

    found, value = minimize(objective, np.clip(_vector(start), *np.array(bounds).T), bounds, steps)
    return Fit(_theta(columns, found, start), -value)


def negative_log_likelihood(
    columns: Columns, features: Floats, targets: Floats, theta: Theta, kernel: Kernel
) -> tuple[float, Floats]:
    """-log p(targets) without its constant, and the gradient by log lengths, scale, noise, and the warp's logs."""
    n = len(targets)
    numbers = columns.numbers
    places = features[:, :numbers]
    if theta.log_a is not None and theta.log_b is not None:
        features = features.copy()
        features[:, :numbers] = bent(places, theta.log_a, theta.log_b)
    weights = np.exp(-2.0 * theta.log_lengths)
    scaled = features * np.sqrt(weights)[columns.owner]
    distances = _squared_distances(scaled, scaled)
    distances.flat[:: n + 1] = 0.0
    correlation, slope = kernel.of(distances)
    scale = math.exp(theta.log_scale)
    covariance = scale * correlation
    noisy = covariance.copy()
    noisy.flat[:: n + 1] += theta.noise + kernel.floor
    size = len(theta.log_lengths) + 2 + (0 if theta.log_a is None else 2 * numbers)
    lower, info = lapack.dpotrf(noisy.T, lower=1, clean=0)
    if info:
        return _REFUSED, np.zeros(size)
    alpha, _ = lapack.dpotrs(lower, targets, lower=1)
    inverse, _ = lapack.dpotri(lower, lower=1)
    inverse = np.tril(inverse)
    inverse += np.tril(inverse, -1).T
    inner = 0.5 * (inverse - np.outer(alpha, alpha))  # of the value by the covariance
    by_distance = inner * slope
    by_distance *= scale
    sums = by_distance.sum(axis=1)
    products = by_distance @ features
    by_weight = 2.0 * ((features * features).T @ sums - np.einsum("ij,ij->j", features, products))
    gradient = np.empty(size)
    lengths = len(theta.log_lengths)
    gradient[:lengths] = columns.sum_by_parameter(by_weight) * (-2.0 * weights)
    gradient[lengths] = float(np.einsum("ij,ij->", inner, covariance))
    gradient[lengths + 1] = theta.noise * float(np.trace(inner))
    if theta.log_a is not None and theta.log_b is not None:
        by_place = 4.0 * weights[:numbers] * (features * sums[:, None] - products)[:, :numbers]
        _, by_a, by_b = bent_slopes(places, theta.log_a, theta.log_b)
        gradient[lengths + 2 : lengths + 2 + numbers] = (by_place * by_a).sum(axis=0)
        gradient[lengths + 2 + numbers :] = (by_place * by_b).sum(axis=0)
    value = 0.5 * float(targets @ alpha) + float(np.log(np.diagonal(lower)).sum())
    return value, gradient


class Posterior:
    """What a model says of any row, given data and, of points that still run, only where they are.

    A running point counts with the value that the model expects there (kriging believer, Ginsbourger et al., 2010): it
    changes no mean, it only makes the model surer around it.
    """

    def __init__(
        self,
        columns: Columns,
        rows: Floats,
        targets: Floats,
        theta: Theta,
        kernel: Kernel,
        running: Floats | None = None,
    ) -> None:
        self.columns, self.theta, self.kernel = columns, theta, kernel
        self._roots = np.exp(-theta.log_lengths)[columns.owner]
        self.scale = math.exp(theta.log_scale)
        self._data = self._scaled(rows)
        n = len(rows)
        covariance = self._covariance(self._data, self._data)
        covariance.flat[:: n + 1] += theta.noise + kernel.floor
        lower = cholesky(covariance)
        while lower is None:  # rows too alike for so little noise
            covariance.flat[:: n + 1] += 1e-6 * self.scale
            lower = cholesky(covariance)
        self._inverse = inverse_of_triangle(lower)
        self._alpha = self._inverse.T @ (self._inverse @ targets)
        diagonal = np.einsum("ij,ij->j", self._inverse, self._inverse)
        self._left_out = self._alpha / diagonal, 1.0 / diagonal
        self._targets = targets
        self.means = targets - np.diagonal(covariance) * self._alpha + self.scale * self._alpha
        self._all, self._observed = self._data, n
        if running is not None and len(running):
            self._believe(running)

    def left_out(self) -> Floats:
        """log p(target i | all others) by row: leave-one-out cross-validation in closed form."""
        errors, variances = self._left_out
        return -0.5 * errors * errors / variances - 0.5 * np.log(variances) - LOG_ROOT_2PI

    def surprise(self) -> Floats:
        """How far each target is from what all others say of it, in deviations of that (with the noise)."""
        errors, variances = self._left_out
        return errors / np.sqrt(variances)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of the noiseless value at each row."""
        covariance = self._covariance(self._scaled(rows), self._all)
        mean = covariance[:, : self._observed] @ self._alpha
        explained = covariance @ self._inverse.T
        variance = self.scale - np.einsum("ij,ij->i", explained, explained)
        return mean, np.sqrt(np.maximum(variance, 1e-12 * self.scale))

    def apart(self, rows: Floats) -> Floats:
        """How far each row is from the nearest running point, in lengths of the model (inf: none runs)."""
        squares = _squared_distances(self._scaled(rows), self._all[self._observed :])
        return np.sqrt(squares.min(axis=1, initial=np.inf))

    def slopes(self, rows: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, deviation, and their gradients by the numeric parameters (m x numeric), at each row."""
        numbers = self.columns.numbers
        scaled = self._scaled(rows)
        correlation, slope = self.kernel.of(_squared_distances(scaled, self._all))
        covariance = self.scale * correlation
        explained = covariance @ self._inverse.T
        variance = np.maximum(self.scale - np.einsum("ij,ij->i", explained, explained), 1e-12 * self.scale)
        deviation = np.sqrt(variance)
        slope *= 2.0 * self.scale
        here, there = scaled[:, :numbers], self._all[:, :numbers]
        of_mean = slope[:, : self._observed] * self._alpha
        by_mean = here * of_mean.sum(axis=1)[:, None] - of_mean @ there[: self._observed]
        of_variance = slope * (explained @ self._inverse)
        by_variance = -2.0 * (here * of_variance.sum(axis=1)[:, None] - of_variance @ there)
        chain = self._roots[:numbers]
        if self.theta.log_a is not None and self.theta.log_b is not None:
            numeric = rows[:, self.columns.axes.numeric]
            chain = chain * bent_slopes(numeric, self.theta.log_a, self.theta.log_b)[0]
        mean = covariance[:, : self._observed] @ self._alpha
        return mean, deviation, by_mean * chain, by_variance * chain / (2.0 * deviation[:, None])

    def _believe(self, running: Floats) -> None:
        """Append rows whose values are not known to the factor, as a block: what was observed stays bit for bit."""
        added = self._scaled(running)
        between = self._covariance(added, self._data)
        within = self._covariance(added, added)
        solved = between @ self._inverse.T
        within -= solved @ solved.T
        m = len(added)
        within.flat[:: m + 1] += self.theta.noise + self.kernel.floor
        corner = cholesky(within)
        while corner is None:
            within.flat[:: m + 1] += 1e-6 * self.scale
            corner = cholesky(within)
        inner = inverse_of_triangle(corner)
        n = self._observed
        inverse = np.zeros((n + m, n + m))
        inverse[:n, :n] = self._inverse
        inverse[n:, :n] = -(inner @ solved) @ self._inverse
        inverse[n:, n:] = inner
        self._inverse = inverse
        self._all = np.concatenate([self._data, added])

    def _scaled(self, rows: Floats) -> Floats:
        columns = self.columns.of(rows)
        numbers = self.columns.numbers
        if self.theta.log_a is not None and self.theta.log_b is not None:
            columns[:, :numbers] = bent(columns[:, :numbers], self.theta.log_a, self.theta.log_b)
        columns *= self._roots
        return columns

    def _covariance(self, a: Floats, b: Floats) -> Floats:
        correlation, _ = self.kernel.of(_squared_distances(a, b))
        correlation *= self.scale
        return correlation


def _squared_distances(a: Floats, b: Floats) -> Floats:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    squares -= 2.0 * (a @ b.T)
    return np.maximum(squares, 0.0, out=squares)


def _prior(columns: Columns, start: Theta) -> tuple[Floats, Floats]:
    lengths = columns.parameters
    length = LENGTH[0] + 0.5 * math.log(max(lengths, 1))
    bends = 0 if start.log_a is None else 2 * columns.numbers
    means = np.concatenate([np.full(lengths, length), [SCALE[0], NOISE[0]], np.full(bends, BEND[0])])
    deviations = np.concatenate([np.full(lengths, LENGTH[1]), [SCALE[1], NOISE[1]], np.full(bends, BEND[1])])
    return means, deviations


def _vector(theta: Theta) -> Floats:
    bends = [] if theta.log_a is None or theta.log_b is None else [theta.log_a, theta.log_b]
    return np.concatenate([theta.log_lengths, [theta.log_scale, theta.log_noise], *bends])


def _theta(columns: Columns, vector: Floats, like: Theta) -> Theta:
    lengths, numbers = columns.parameters, columns.numbers
    bends: tuple[Floats | None, Floats | None] = (None, None)
    if like.log_a is not None:
        bends = vector[lengths + 2 : lengths + 2 + numbers], vector[lengths + 2 + numbers :]
    return Theta(vector[:lengths], float(vector[lengths]), float(vector[lengths + 1]), *bends)
