"""PB2, population based bandits: PBT whose new parameters are chosen by a model of how results improve over time.

Parker-Holder, Nguyen and Roberts, Provably Efficient Online Hyperparameter Optimization with Population-Based Bandits
(NeurIPS 2020). A member that is among the worst continues a copy of one of the best, as in PBT; the copy's numbers are
those where a Gaussian process expects the largest improvement of the next step, with an upper confidence bound. The
process lives over (step, parameters); what was learned long ago counts less, by (1 - omega) ** (|t - t'| / 2). Steps
that still run count with what is expected of them, so that copies made at once differ. Choices are changed as in PBT.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ask, OptimizeMode
from ..engine.space import Param, Space
from ._lineages import Run, reserved
from .pbt import PBT, TRIES, Population, perturbed

Floats = NDArray[np.float64]

NEWEST = 64  # improvements that the model knows
LEAST = 4
CANDIDATES = 200
NEAR = 0.1
GRID = list(itertools.product((0.15, 0.3, 0.6, 1.2), (0.0, 0.05, 0.2), (0.05, 0.3)))  # length, omega, noise


class PB2(PBT):
    """PBT with a model. The options are those of PBT; `factor` and `resample_probability` move choices only."""

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        seed: int | None = None,
        all_checkpoint_dir: str | None = None,
        population_size: int = 10,
        factor: float = 0.2,
        resample_probability: float = 0.25,
        fraction: float = 0.2,
    ) -> None:
        super().__init__(
            optimize_mode=optimize_mode,
            seed=seed,
            all_checkpoint_dir=all_checkpoint_dir,
            population_size=population_size,
            factor=factor,
            resample_probability=resample_probability,
            fraction=fraction,
        )

    @staticmethod
    def refuse(space: Space) -> str | None:
        """A parameter that is called like what a trial is told beside its parameters, or None."""
        return reserved(space, "PB2")

    def _explored(
        self, ask: Ask, population: Population, source: Run, step: int, generator: np.random.Generator
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        space = ask.space
        point = perturbed(space, source.parameters, self.factor, self.resample, generator)
        numeric = [param for param in space.params if not param.categorical]
        known = self._improvements(population, numeric)
        if len(known.gains) < LEAST or not numeric:
            return point, {"model": None}
        model = Bandit(known)
        here = _units(space, point, numeric)
        drawn = generator.random((CANDIDATES, len(numeric)))
        near = generator.random(CANDIDATES) < 0.25  # a quarter of them around the copy
        around = np.clip(here + NEAR * generator.standard_normal(drawn.shape), 0.0, 1.0)
        rows = np.where(near[:, None], around, drawn)
        value = model.bound(rows, step)
        flat = space.flatten(point)
        places = {param.key: place for place, param in enumerate(numeric)}
        for best in np.argsort(-value, kind="stable")[:TRIES].tolist():

            def choose(param: Param, row: Floats = rows[best]) -> Any:
                if param.key in places:
                    return param.from_unit(float(row[places[param.key]]))
                return flat.get(param.key, param.from_unit(0.5))

            chosen = space.draw(choose)
            if space.allows(chosen):
                seen = {"improvements": len(known.gains), "running": len(known.pending)}
                return chosen, {"model": "gp", "bound": round(float(value[best]), 6), **seen}
        return point, {"model": "no candidate meets the constraints"}

    def _improvements(self, population: Population, numeric: list[Param]) -> Known:
        """What the newest steps have gained, and which ones run."""
        runs = self._runs
        inside = population.inside
        gains: list[tuple[float, int, Run]] = []
        for event in reversed(runs.events):
            run = runs.all[~event] if event < 0 else None
            if run is None or run.rank is None or run.parent is None or not {run.index, run.parent} <= inside:
                continue
            before = runs.all[run.parent].rank
            gain = math.nan if before is None else before[1] - run.rank[1]
            if math.isfinite(gain):
                gains.append((gain, _step(run), run))
            if len(gains) == NEWEST:
                break
        gains.reverse()
        going = [runs.all[m.run] for m in population.members if m.running and m.run is not None and m.run in inside]
        space = population.space
        return Known(
            np.array([_units(space, run.parameters, numeric) for _, _, run in gains]).reshape(len(gains), len(numeric)),
            np.array([float(step) for _, step, _ in gains]),
            np.array([gain for gain, _, _ in gains]),
            np.array([_units(space, run.parameters, numeric) for run in going]).reshape(len(going), len(numeric)),
            np.array([float(_step(run)) for run in going]),
        )


class Known(NamedTuple):
    """Improvements (n of them, at points in the d-dimensional unit cube), and the steps that run (m)."""

    points: Floats  # n x d
    steps: Floats  # n
    gains: Floats  # n
    pending: Floats  # m x d
    pending_steps: Floats  # m


class Bandit:
    """A Gaussian process over (step, point) with a time-varying kernel; gains in units of their own spread."""

    def __init__(self, known: Known) -> None:
        gains = known.gains / max(float(np.max(np.abs(known.gains))), 1e-300)  # first: squares must not overflow
        spread = float(np.std(gains))
        y: Floats = (gains - np.mean(gains)) / spread if spread > 1e-12 else np.zeros(len(gains))
        square, apart = _square(known.points, known.points), _apart(known.steps, known.steps)
        fits = [(_evidence(_kernel(square, apart, *one[:2]), one[2], y), one) for one in GRID]
        self.length, self.omega, self.noise = max(fits, key=lambda fit: fit[0])[1]
        self._points, self._steps = known.points, known.steps
        self._weights = np.linalg.solve(self._with_noise(known.points, known.steps), y)
        self._all: Floats = np.vstack([known.points, known.pending])  # those that run make the bound narrower
        self._all_steps: Floats = np.append(known.steps, known.pending_steps)
        self._inverse = np.linalg.inv(self._with_noise(self._all, self._all_steps))

    def _with_noise(self, points: Floats, steps: Floats) -> Floats:
        kernel = _kernel(_square(points, points), _apart(steps, steps), self.length, self.omega)
        return kernel + self.noise * np.eye(len(points))

    def bound(self, rows: Floats, step: int) -> Floats:
        """The upper confidence bound of the gain of that step at each row (c x d), shape (c,)."""
        now = np.full(len(rows), float(step))
        mean = _kernel(_square(rows, self._points), _apart(now, self._steps), self.length, self.omega) @ self._weights
        across = _kernel(_square(rows, self._all), _apart(now, self._all_steps), self.length, self.omega)
        variance = 1.0 - np.sum((across @ self._inverse) * across, axis=1)
        beta = 0.2 + math.log1p(0.4 * max(step, 1))
        return mean + np.sqrt(beta * np.maximum(variance, 0.0))


def _units(space: Space, parameters: dict[str, Any], numeric: list[Param]) -> Floats:
    flat = space.flatten(parameters)
    return np.array([param.to_unit(flat[param.key]) if param.key in flat else 0.5 for param in numeric])


def _step(run: Run) -> int:
    return int(run.save.rpartition("-")[2])


def _square(a: Floats, b: Floats) -> Floats:
    return np.sum((a[:, None, :] - b[None, :, :]) ** 2, axis=2)


def _apart(a: Floats, b: Floats) -> Floats:
    return np.abs(a[:, None] - b[None, :])


def _kernel(square: Floats, apart: Floats, length: float, omega: float) -> Floats:
    return np.exp(-0.5 * square / length**2) * (1.0 - omega) ** (apart / 2)


def _evidence(kernel: Floats, noise: float, y: Floats) -> float:
    """The log marginal likelihood, without its constant."""
    factor = np.linalg.cholesky(kernel + noise * np.eye(len(y)))
    white = np.linalg.solve(factor, y)
    return float(-0.5 * white @ white - np.sum(np.log(np.diag(factor))))
