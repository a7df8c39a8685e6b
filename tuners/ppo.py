"""PPO: a policy that makes a point choice by choice, and learns from batches of results which choices pay.

Schulman, Wolski, Dhariwal, Radford and Klimov, Proximal Policy Optimization Algorithms (arXiv 1707.06347), for
architectures as in Zoph and Le (ICLR 2017): a recurrent network goes through the parameters in their order, sees the
choice before, and gives the chance of each value of the next; in a nested space it skips what is not active. A second
head expects the reward. The reward of a point is the rank of its result among all so far, from -1 to 1; it comes after
the last choice.

The policy is updated when `trials_per_update` more results are there, by these alone, whoever suggested them: update
number u depends on the first u batches of results in the order in which they came. The chances that the clipped ratio
is measured against are those of the policy before the update.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.plugins import Ask, Observation, OptimizeMode, Suggestion
from ..engine.space import Param, Space
from ._genes import Individual, Results
from ._history import History
from ._parzen import Floats
from ._torch import learn, numbers, one_thread, tensor, weights

WIDEST = 256  # values of a parameter at most
UNITS = 32
DRAWN = 16  # points of an ask, of which the first new one is taken

Codes: TypeAlias = NDArray[np.intp]  # (n x d): the value's number, -1 where inactive

Steps: TypeAlias = Generator[tuple[Param, torch.Tensor, torch.Tensor], torch.Tensor]


class Hyper(NamedTuple):
    """The constants of an update."""

    epochs: int
    minibatch: int
    entropy: float
    rate: float
    value: float
    norm: float
    gamma: float
    lam: float
    clip: float


class PPO:
    """Policy search in spaces of choices; needs the extra `torch`. Argument names are NNI's."""

    dedups: ClassVar[bool] = False

    def __init__(
        self,
        *,
        optimize_mode: OptimizeMode = "maximize",
        trials_per_update: int = 20,
        epochs_per_update: int = 4,
        minibatch_size: int = 4,
        ent_coef: float = 0.01,
        lr: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        gamma: float = 0.99,
        lam: float = 0.95,
        cliprange: float = 0.2,
    ) -> None:
        for name, count in (
            ("trials_per_update", trials_per_update),
            ("epochs_per_update", epochs_per_update),
            ("minibatch_size", minibatch_size),
        ):
            if count < 1:
                raise ValueError(f"{name} is {count}, an integer >= 1 is allowed")
        for name, amount in (("lr", lr), ("max_grad_norm", max_grad_norm), ("cliprange", cliprange)):
            if not 0 < amount < math.inf:
                raise ValueError(f"{name} is {amount}, a finite number above 0 is allowed")
        for name, share in (("ent_coef", ent_coef), ("vf_coef", vf_coef), ("gamma", gamma), ("lam", lam)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, a number from 0 to 1 is allowed")
        self.trials_per_update = trials_per_update
        self._hyper = Hyper(
            epochs_per_update, minibatch_size, ent_coef, lr, vf_coef, max_grad_norm, gamma, lam, cliprange
        )
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._learner: Learner | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        wide = [param for param in space.params if param.size is None or param.size > WIDEST]
        if not wide:
            return None
        found = "values that can't be counted" if wide[0].size is None else f"{wide[0].size} values"
        return f"{wide[0].key} ({wide[0].kind}) has {found}; PPO takes parameters of up to {WIDEST} values"

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion:
        """A point drawn from the policy, a new one if there is one among a few."""
        if self._learner is None or not self._learner.serves(ask.space, ask.seed):
            self._learner = Learner(ask.space, ask.seed, self._sign, self.trials_per_update, self._hyper)
        learner, generator = self._learner, ask.generator()
        results = learner.results
        with one_thread():
            learner.sync(self._history)
            if not ask.space.params:
                return Suggestion({}, decision={"rule": "nothing to choose"})
            codes, chances = learner.policy.draw(DRAWN, generator)
        allowed: tuple[dict[str, Any], float] | None = None
        for row, chance in zip(codes, chances.tolist(), strict=True):
            point, cells = results.genome.write(lambda param, row=row: _gene(param, int(row[param.index])))
            if not ask.space.allows(point):
                continue
            if cells not in results.taken:
                return _answer("policy", point, chance, learner)
            allowed = allowed or (point, chance)
        if allowed is not None:
            return _answer("policy, nothing new among those drawn", *allowed, learner)
        return _answer("random, the constraints left nothing", results.random(generator), None, learner)


def _answer(rule: str, point: dict[str, Any], chance: float | None, learner: Learner) -> Suggestion:
    decision: dict[str, Any] = {"rule": rule, "updates": learner.updates}
    if chance is not None:
        decision["log_chance"] = round(chance, 4)
    return Suggestion(point, decision=decision)


def _gene(param: Param, code: int) -> float:
    return float(code) if param.categorical else param.to_unit(param.at(code))


class Learner:
    """The results in one space, and the policy that has learned from their full batches."""

    def __init__(self, space: Space, seed: int, sign: float, batch: int, hyper: Hyper) -> None:
        self.results = Results(space, sign)
        self.updates = 0
        self._seed, self._batch, self._hyper = seed, batch, hyper
        self._ended: list[Individual] = []  # with a value, or failed; in the order in which they ended
        self.policy = Policy(space, np.random.Generator(np.random.Philox(np.random.SeedSequence([seed]))), hyper.rate)

    def serves(self, space: Space, seed: int) -> bool:
        """Whether this is the learner for that space and that experiment's seed."""
        return seed == self._seed and self.results.serves(space)

    def sync(self, history: History) -> None:
        """Take in what the history has got, and learn from every batch that is full."""
        new = self.results.sync(history)
        self._ended += [one for one in new if one.order is not None or one.state == "failed"]
        while (self.updates + 1) * self._batch <= len(self._ended):
            start, end = self.updates * self._batch, (self.updates + 1) * self._batch
            self.updates += 1
            if not self.results.space.params:
                continue
            rewards = ranks([one.order for one in self._ended[:end]])[start:]
            words = np.random.SeedSequence([self._seed, self.updates])
            generator = np.random.Generator(np.random.Philox(words))
            self.policy.update(self._codes(self._ended[start:end]), rewards, self._hyper, generator)

    def _codes(self, individuals: list[Individual]) -> Codes:
        params = self.results.space.params

        def code(param: Param, gene: float) -> int:
            if gene != gene:
                return -1
            return int(gene) if param.categorical else int(param.cell(param.from_unit(gene)))

        return np.array([[code(param, one.genes[param.index]) for param in params] for one in individuals])


def ranks(orders: list[tuple[float, float] | None]) -> Floats:
    """The share of the others that each is better than, from -1 to 1; None is worse than all, equal ones share."""
    worst = (math.inf, math.inf)
    known = [order if order is not None else worst for order in orders]
    ascending = sorted(known)
    first = {order: place for place, order in reversed(list(enumerate(ascending)))}
    last = {order: place for place, order in enumerate(ascending)}
    span = max(len(known) - 1, 1)
    return np.array([1.0 - (first[order] + last[order]) / span for order in known])


class Policy:
    """The network: for each parameter a layer that takes in its value and one that gives the chances of its values."""

    def __init__(self, space: Space, generator: np.random.Generator, rate: float) -> None:
        self.params = space.params
        sizes = [param.size or 1 for param in self.params]
        self._begin = weights(1, UNITS, generator)
        self._taken = [weights(size, UNITS, generator) for size in sizes]  # what a value adds
        self._gates = [weights(UNITS, UNITS, generator) for _ in range(4)]  # from the input and the state
        self._bias = [torch.zeros(UNITS, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        self._chances = [weights(UNITS, size, generator, 0.1) for size in sizes]
        self._expects = weights(UNITS, 1, generator, 0.1)
        self._all = [self._begin, *self._taken, *self._gates, *self._bias, *self._chances, self._expects]
        self._optimizer: Any = torch.optim.Adam(self._all, lr=rate, eps=1e-5, foreach=False)

    def _steps(self, count: int) -> Steps:
        """For each parameter the logarithms of its values' chances (count x size) and the reward expected (count);
        the generator is sent the values that were taken (count), -1 where it is not active."""
        state = torch.zeros((count, UNITS), dtype=torch.float64)
        seen = self._begin.expand(count, UNITS)
        for param in self.params:
            keep = torch.sigmoid(seen @ self._gates[0] + state @ self._gates[1] + self._bias[0])
            new = torch.tanh(seen @ self._gates[2] + state @ self._gates[3] + self._bias[1])
            moved = keep * state + (1.0 - keep) * new
            logs = torch.log_softmax(moved @ self._chances[param.index], dim=1)
            taken = yield param, logs, (moved @ self._expects)[:, 0]
            active = (taken >= 0)[:, None]
            state = torch.where(active, moved, state)
            seen = torch.where(active, self._taken[param.index][taken.clamp(min=0)], seen)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Codes, Floats]:
        """Points (count x d), and the logarithm of the chance of each."""
        codes = np.full((count, len(self.params)), -1, dtype=np.intp)
        chance = np.zeros(count)
        with torch.no_grad():
            steps = self._steps(count)
            param, logs, _ = next(steps)
            while True:
                shares: Floats = logs.numpy()
                cumulative = np.cumsum(np.exp(shares), axis=1)
                u = generator.random(count) * cumulative[:, -1]
                drawn = np.minimum((cumulative <= u[:, None]).sum(axis=1), shares.shape[1] - 1)
                active = (
                    np.ones(count, dtype=np.bool_) if param.parent is None else codes[:, param.parent] == param.branch
                )
                codes[:, param.index] = np.where(active, drawn, -1)
                chance += np.where(active, shares[np.arange(count), drawn], 0.0)
                try:
                    param, logs, _ = steps.send(numbers(codes[:, param.index]))
                except StopIteration:
                    return codes, chance

    def _evaluated(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of points (n x d): the logarithms of their choices' chances, the rewards expected, the entropies."""
        logs_of: list[torch.Tensor] = []
        expected: list[torch.Tensor] = []
        entropies: list[torch.Tensor] = []
        steps = self._steps(len(codes))
        param, logs, value = next(steps)
        while True:
            taken = codes[:, param.index]
            logs_of.append(logs.gather(1, taken.clamp(min=0)[:, None])[:, 0])
            expected.append(value)
            entropies.append(-(logs.exp() * logs).sum(dim=1))
            try:
                param, logs, value = steps.send(taken)
            except StopIteration:
                return torch.stack(logs_of, 1), torch.stack(expected, 1), torch.stack(entropies, 1)

    def update(self, codes: Codes, rewards: Floats, hyper: Hyper, generator: np.random.Generator) -> None:
        """Learn from points (n x d) and their rewards (n)."""
        points = numbers(codes)
        active = codes >= 0
        with torch.no_grad():
            old, values, _ = self._evaluated(points)
        gains = advantages(values.numpy(), active, rewards, hyper.gamma, hyper.lam)
        returns = tensor(gains + values.numpy())
        known = gains[active]
        scaled = tensor((gains - known.mean()) / (known.std() + 1e-8))
        mask = tensor(active.astype(np.float64))
        for _ in range(hyper.epochs):
            order = generator.permutation(len(codes))
            for start in range(0, len(codes), hyper.minibatch):
                rows = numbers(order[start : start + hyper.minibatch])
                self._step(points[rows], old[rows], values[rows], scaled[rows], returns[rows], mask[rows], hyper)

    def _step(
        self,
        points: torch.Tensor,
        old: torch.Tensor,
        values: torch.Tensor,
        gains: torch.Tensor,
        returns: torch.Tensor,
        mask: torch.Tensor,
        hyper: Hyper,
    ) -> None:
        logs, expected, entropy = self._evaluated(points)
        count = mask.sum()
        ratio = torch.exp((logs - old).clamp(-20.0, 20.0))
        cut = ratio.clamp(1.0 - hyper.clip, 1.0 + hyper.clip)
        policy_loss = -(torch.minimum(ratio * gains, cut * gains) * mask).sum() / count
        near = values + (expected - values).clamp(-hyper.clip, hyper.clip)
        wrong = torch.maximum((expected - returns) ** 2, (near - returns) ** 2)
        value_loss = 0.5 * (wrong * mask).sum() / count
        loss = policy_loss + hyper.value * value_loss - hyper.entropy * (entropy * mask).sum() / count
        learn(self._optimizer, loss, self._all, hyper.norm)


def advantages(values: Floats, active: NDArray[np.bool_], rewards: Floats, gamma: float, lam: float) -> Floats:
    """How much better than expected each choice (n x d) was: generalised advantage estimation.

    Schulman et al. (arXiv 1506.02438). The reward (n) comes after a point's last active choice; inactive ones have 0.
    """
    found = np.zeros_like(values)
    after_value = np.zeros(len(values))
    after_gain = np.zeros(len(values))
    reward = rewards.copy()
    for i in reversed(range(values.shape[1])):
        here = active[:, i]
        delta = reward + gamma * after_value - values[:, i]
        gain = delta + gamma * lam * after_gain
        found[:, i] = np.where(here, gain, 0.0)
        after_value = np.where(here, values[:, i], after_value)
        after_gain = np.where(here, gain, after_gain)
        reward = np.where(here, 0.0, reward)
    return found
