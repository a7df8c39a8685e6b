"""Curve fitting: a trial ends when its learning curve, carried on to the last epoch, stays clearly below the best.

Domhan, Springenberg and Hutter, Speeding up Automatic Hyperparameter Optimization of Deep Neural Networks by
Extrapolation of Learning Curves (IJCAI 2015), as NNI's Curvefitting, in another way. Instead of eleven non-linear fits
and a Markov chain: families `a + b shape(step)` whose shapes (powers, exponentials, sigmoids, the logarithm) have their
rates on a grid, so all of them are one batch of damped least squares in closed form. Each says a value for
the last epoch with an error; they count by how well they fit. Later results have more weight, up to e^2 times.

A trial is stopped when prediction + error is worse than the bar. The bar is the best final result of the completed
trials less (1 - threshold) times a scale: the larger of that result's size and of what it is away from the mean first
result of these. So for an accuracy of 0.9 and a threshold of 0.95 the bar is 0.855, as in NNI; and for a loss, or near
0, it is a share of the way that training goes. Nothing that has reached the bar already is stopped.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ended, Observation, OptimizeMode, Stopped
from ._curves import Curves

Floats: TypeAlias = NDArray[np.float64]

POINTS = 64  # a longer curve is fitted by the means of so many blocks at most
_POWERS = np.array([0.1, 0.25, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0])
_DECAYS = np.geomspace(0.015, 1.2, 14)  # of the last epoch
_MIDDLES = np.repeat(np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.55]), 3)  # where sigmoids are half up, of the last epoch
_WIDTHS = np.tile(np.array([0.03, 0.07, 0.15]), 6)  # and how wide they are
_DAMPING = 1e-4
TRUST = 0.35  # how far the fit decides between families: results next to each other are alike, so they count as fewer
_FLOOR = 1e-10  # of the variance about a fit, the results' range being 1


class Curvefitting:
    """Stops from step `start_step` on (the first report is step 1), at every `gap`-th, what won't get far enough.

    `epoch_num`: how many results a trial reports that goes to its end. `threshold`: see the module.
    """

    observes: ClassVar[Literal["intermediates"]] = "intermediates"

    def __init__(
        self,
        *,
        epoch_num: int,
        optimize_mode: OptimizeMode = "maximize",
        start_step: int = 6,
        threshold: float = 0.95,
        gap: int = 1,
    ) -> None:
        if epoch_num < 2:
            raise ValueError(f"epoch_num is {epoch_num}, an integer >= 2 is allowed")
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, an integer >= 0 is allowed")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}, a number from 0 to 1 is allowed")
        if gap < 1:
            raise ValueError(f"gap is {gap}, an integer >= 1 is allowed")
        self.epoch_num, self.start_step, self.threshold, self.gap = epoch_num, max(start_step, 4), threshold, gap
        self._curves = Curves(optimize_mode)
        self._best = -math.inf  # final result of a completed trial
        self._first, self._firsts = 0.0, 0  # the mean of their first results, and of how many

    def observe(self, fact: Observation) -> None:
        """Follow the curves, and remember the best final result and where curves begin."""
        curve = self._curves.observe(fact)
        if not isinstance(fact, Ended) or curve is None or fact.outcome != "completed" or fact.value is None:
            return
        self._best = max(self._best, self._curves.sign * fact.value)
        if curve.values:
            self._firsts += 1
            self._first += curve.values[0] / self._firsts - self._first / self._firsts

    @property
    def bar(self) -> float:
        """What a trial has to come to, more being better; -inf until a trial has completed."""
        if self._best == -math.inf:
            return self._best
        away = abs(self._best - self._first) if self._firsts else 0.0
        return self._best - min((1.0 - self.threshold) * max(abs(self._best), away), 1e308)

    def verdict(self, trial: int) -> Stopped | None:
        """Whether the trial's curve, carried on, stays below the bar."""
        curve = self._curves.running.get(trial)
        bar = self.bar
        if curve is None or math.isnan(curve.last) or curve.best >= bar or len(curve.values) < 4:
            return None
        step = curve.step + 1
        if not self.start_step <= step < self.epoch_num or (step - self.start_step) % self.gap:
            return None
        expected, error = predict(curve.steps, curve.values, self.epoch_num)
        if expected + error >= bar:
            return None
        sign = self._curves.sign
        return Stopped(
            f"the curve of {step} steps leads to {sign * expected:.6g} (give or take {error:.3g}) at step "
            f"{self.epoch_num}; at least {sign * bar:.6g} is wanted, the best is {sign * self._best:.6g}"
        )


def predict(steps: array[int], values: array[float], last: int) -> tuple[float, float]:
    """The value at step `last` (from 1), and its error (one sigma), by results at `steps` (from 0), both of shape (n,).

    Meant for more results than a family has parameters, so n >= 3.
    """
    t, y = _blocks(np.array(steps, dtype=np.float64) + 1.0), np.array(values, dtype=np.float64)
    low, high = float(y.min()), float(y.max())
    span = high / 2 - low / 2
    if span == 0.0:
        return low, 0.0
    y = _blocks((y / 2 - low / 2) / span)  # in [0, 1]
    n = len(y)
    weight = np.exp(2.0 * np.arange(n) / n)
    weight /= weight.sum()
    shapes = _shapes(np.append(t, float(last)), last)  # (families, n + 1)
    phi, target = shapes[:, :-1], shapes[:, -1]
    middle, mean = phi @ weight, float(y @ weight)
    centred, rest = phi - middle[:, None], y - mean
    spread = (centred * centred) @ weight
    whole = phi.max(axis=1) - phi.min(axis=1) + np.abs(target - phi[:, -1])  # how far the shape goes in all
    damped = spread + _DAMPING * whole * whole  # so that what has hardly begun is not carried on at any size
    slope = (centred @ (rest * weight)) / damped
    off = target - middle
    said = mean + slope * off
    residual = rest - slope[:, None] * centred
    variance = (residual * residual) @ weight * (n / (n - 2)) + _FLOOR
    error = variance * (1.0 + 1.0 / n + off * off / (n * spread + 1e-9))
    fit = np.exp((np.log(variance.min()) - np.log(variance)) * (TRUST * (n - 2) / 2))
    share = fit / fit.sum()
    expected = float(share @ said)
    deviation = math.sqrt(float(share @ (error + (said - expected) ** 2)))
    return _scaled(expected, low, span), min(2.0 * deviation * min(span, 1e307), 1e308)


def _scaled(place: float, low: float, span: float) -> float:
    return min(max(2.0 * (low / 2 + place * span), -1e308), 1e308)


def _shapes(t: Floats, last: int) -> Floats:
    """The shape of each family at steps t, (families x len(t))."""
    part = t / last
    powers = t[None, :] ** -_POWERS[:, None]
    decays = np.exp(-part[None, :] / _DECAYS[:, None])
    sigmoids = 1.0 / (1.0 + np.exp(np.clip((_MIDDLES[:, None] - part[None, :]) / _WIDTHS[:, None], -50, 50)))
    return np.concatenate([powers, decays, sigmoids, np.log(t)[None, :]])


def _blocks(x: Any) -> Floats:
    """The means of at most `POINTS` blocks of equal length; what does not fill a block is left out at the front."""
    size = -(-len(x) // POINTS)
    if size == 1:
        return x
    whole = len(x) // size * size
    return x[len(x) - whole :].reshape(-1, size).mean(axis=1)
