"""DNGO: Bayesian linear regression on features that a neural network has learned; its cost grows with n, not n^3.

Snoek et al., Scalable Bayesian Optimization Using Deep Neural Networks (ICML 2015): a network with three layers of 50
tanh units learns the results; its last layer's activations are the basis of a linear model whose two precisions are set
by the evidence (MacKay, Bayesian Interpolation, 1992). The candidate with the largest expected improvement is asked
for, of `sample_size` of which three quarters are draws of the prior and the rest lies near the best points; near trials
that run it counts less. The results are learned as quantiles of their ranks; failed trials share the last ones.

The network is trained anew, from the beginning, whenever `trials_per_update` more results are there, so it depends on
their number alone; the linear model has them all.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import torch

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion
from ..engine.space import Space
from ._candidates import Candidates, log_expected_improvement, quantiles
from ._genes import Genes, Individual, Results, too_wide
from ._history import History
from ._parzen import Floats
from ._torch import eigenvectors, learn, numbers, one_thread, tensor, weights

UNITS = 50
LEARNING_RATE = 0.01
DECAY = 1e-4
BATCH = 256  # results of one step; fewer take one step an epoch
ROUNDS = 20  # of the fixed point of the precisions
WIDEST = 200  # values up to which a categorical parameter has an input of its own for each


class DNGO:
    """Model-based search with a neural network, for long searches; needs the extra `torch`."""

    dedups: ClassVar[bool] = False

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        sample_size: int = 1000,
        trials_per_update: int = 20,
        num_epochs_per_training: int = 500,
    ) -> None:
        if sample_size < 4:
            raise ValueError(f"sample_size is {sample_size}, an integer >= 4 is allowed")
        if trials_per_update < 2:
            raise ValueError(f"trials_per_update is {trials_per_update}, an integer >= 2 is allowed")
        if num_epochs_per_training < 1:
            raise ValueError(f"num_epochs_per_training is {num_epochs_per_training}, an integer >= 1 is allowed")
        self.sample_size, self.trials_per_update = sample_size, trials_per_update
        self.num_epochs_per_training = num_epochs_per_training
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._model: Model | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        wide = [param.key for param in space.params if param.categorical and (param.size or 0) > WIDEST]
        if wide:
            return f"{wide[0]} has more than {WIDEST} values without an order, too many for DNGO"
        return too_wide(space, "DNGO")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion:
        """The candidate that the model expects most of."""
        if self._model is None or not self._model.results.serves(ask.space):
            self._model = Model(ask.space, self._sign)
        model, generator = self._model, ask.generator()
        model.sync(self._history)
        results = model.results
        known = len(model.ended)
        if known < self.trials_per_update or not model.best(1) or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random start", "results": known})
        learned = known // self.trials_per_update * self.trials_per_update
        with one_thread():
            network = model.network(ask.seed, learned, self.num_epochs_per_training)
            rows, worth, mean, sd = model.judged(network, self.sample_size, generator)
        for place in np.argsort(-worth, kind="stable").tolist():
            genes: Genes = rows[place].tolist()
            point, cells = results.genome.write(lambda param, genes=genes: genes[param.index])
            if cells not in results.taken and ask.space.allows(point):
                return Suggestion(
                    point,
                    decision={
                        "rule": "expected improvement",
                        "log_ei": round(float(worth[place]), 4),
                        "mean": round(float(mean[place]), 4),
                        "sd": round(float(sd[place]), 4),
                        "network_from": learned,
                        "candidates": len(rows),
                    },
                )
        return Suggestion(results.random(generator), decision={"rule": "all candidates taken", "network_from": learned})


class Model:
    """The results in one space, and the network that was trained on them last."""

    def __init__(self, space: Space, sign: float) -> None:
        self.results = Results(space, sign)
        self.ended: list[Individual] = []  # with a value, or failed; in the order in which they ended
        self._drawn = Candidates(space)
        self._trained: tuple[tuple[int, int], Network] | None = None

    def sync(self, history: History) -> None:
        """Take in what the history has got."""
        new = self.results.sync(history)
        self.ended += [one for one in new if one.order is not None or one.state == "failed"]

    def best(self, count: int) -> list[Individual]:
        """The best so many with a value."""
        with_value = [one for one in self.ended if one.order is not None]
        return sorted(with_value, key=lambda one: (one.order or (math.inf, math.inf), one.number))[:count]

    def network(self, seed: int, count: int, epochs: int) -> Network:
        """The network that the first `count` results train."""
        key = (seed, count)
        if self._trained is None or self._trained[0] != key:
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, count])))
            known = self.ended[:count]
            network = Network(self._inputs(self._drawn.rows(known)), quantiles(known), epochs, generator)
            self._trained = key, network
        return self._trained[1]

    def judged(
        self, network: Network, count: int, generator: np.random.Generator
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Candidates (c x d), what each is worth trying, and the mean and deviation that are expected there."""
        scores = quantiles(self.ended)
        regression = Regression(network.features(self._inputs(self._drawn.rows(self.ended))), scores)
        near = count // 4
        best = self._drawn.rows(self.best(10))
        around = best[np.arange(near) % len(best)]
        rows = np.concatenate(
            [
                self._drawn.fresh(count - near, generator),
                self._drawn.near(around[: near // 2], 0.1, generator),
                self._drawn.near(around[near // 2 :], 0.03, generator),
            ]
        )
        mean, sd = regression.predict(network.features(self._inputs(rows)))
        worth = log_expected_improvement(mean, sd, float(scores.min()))
        return rows, worth + self._drawn.kept_away(rows, self._drawn.rows(self.results.running)), mean, sd

    def _inputs(self, rows: Floats) -> Floats:
        """Rows as the network sees them: numbers from -1 to 1, a column for each category, 0 where inactive."""
        columns: list[Floats] = []
        for i, categorical in enumerate(self._drawn.categorical.tolist()):
            column = rows[:, i]
            if categorical:
                columns += [np.where(column == value, 1.0, 0.0) for value in range(int(self._drawn.sizes[i]))]
            else:
                columns.append(np.nan_to_num(2.0 * column - 1.0, nan=0.0))
        return np.stack(columns, axis=1)


class Network:
    """A trained network of three hidden layers; `features` are the activations of the last."""

    def __init__(self, x: Floats, y: Floats, epochs: int, generator: np.random.Generator) -> None:
        sizes = [x.shape[1], UNITS, UNITS, UNITS, 1]
        self._weights = [weights(a, b, generator) for a, b in itertools.pairwise(sizes)]
        self._biases = [torch.zeros(b, dtype=torch.float64, requires_grad=True) for b in sizes[1:]]
        inputs, targets = tensor(x), tensor(y)
        parameters = self._weights + self._biases
        optimizer: Any = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=DECAY, foreach=False)
        for _ in range(epochs):
            order = torch.arange(len(y)) if len(y) <= BATCH else numbers(generator.permutation(len(y)))
            for start in range(0, len(y), BATCH):
                chosen = order[start : start + BATCH]
                said = self._last(inputs[chosen]) @ self._weights[-1] + self._biases[-1]
                loss = ((said[:, 0] - targets[chosen]) ** 2).mean()
                learn(optimizer, loss, parameters)

    def _last(self, x: torch.Tensor) -> torch.Tensor:
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            x = torch.tanh(x @ weight + bias)
        return x

    def features(self, x: Floats) -> torch.Tensor:
        """The activations of the last hidden layer and a column of ones, (n x 51)."""
        with torch.no_grad():
            last = self._last(tensor(x))
        return torch.cat([last, torch.ones((len(x), 1), dtype=torch.float64)], dim=1)


class Regression:
    """Bayesian linear regression of `y` (n) on `features` (n x m), its precisions by the evidence."""

    def __init__(self, features: torch.Tensor, y: Floats) -> None:
        n, targets = len(y), tensor(y)
        values, vectors = eigenvectors(features.T @ features)
        values = values.clamp(min=0.0)
        right = vectors.T @ (features.T @ targets)
        rotated = features @ vectors
        self.prior, self.noise = 1.0, 10.0  # precisions
        for _ in range(ROUNDS):
            scale = self.noise * values + self.prior
            mean = self.noise * right / scale
            known = float((self.noise * values / scale).sum())
            rest = targets - rotated @ mean
            self.prior = min(max(known / max(float(mean @ mean), 1e-9), 1e-3), 1e4)
            self.noise = min(max((n - known) / max(float(rest @ rest), 1e-9), 1e-1), 1e4)
        scale = self.noise * values + self.prior
        self._mean = vectors @ (self.noise * right / scale)
        self._half = vectors / scale.sqrt()

    def predict(self, features: torch.Tensor) -> tuple[Floats, Floats]:
        """The mean and the deviation, noise left out, at each row (c x m); both of shape (c,)."""
        spread = features @ self._half
        deviation = ((spread * spread).sum(dim=1) + 1e-12).sqrt()
        return (features @ self._mean).numpy(), deviation.numpy()
