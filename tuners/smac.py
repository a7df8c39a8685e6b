"""SMAC: a random forest says what is promising; it is good where there are many choices and branches.

Hutter, Hoos and Leyton-Brown, Sequential Model-based Optimization for General Algorithm Configuration (LION 2011),
with the forest of _forest.py: ten extremely randomised trees, the variance between and within them. The forest learns
the ranks of the results as quantiles of a normal distribution, so that neither scale nor outliers matter; failed trials
share the last ranks. Asked for is the candidate with the largest expected improvement, of points of the prior and of a
local search about the best ones; near trials that run it counts less. Every eighth point is random.

A new forest is grown when there are a twentieth more results; what it grows from depends on their number alone.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import Space
from ._candidates import Candidates, log_expected_improvement, quantiles
from ._forest import Floats, Forest
from ._genes import Genes, Individual, Results, too_wide
from ._history import History
from .random import untaken

STARTUP = 8  # random points
RANDOM_EVERY = 8
LEARNED = 2000  # results at most: the best quarter of it, and of the rest the newest
FROM_PRIOR, PARENTS, CHILDREN = 300, 10, 12
STEPS = (0.2, 0.08, 0.03)  # of the rounds of local search
LEAST_SD = 0.05  # of a prediction, in units of the results' spread


class SMAC:
    """Model-based search with a forest, for any space.

    `config_dedup`: never ask for a point twice, and end when all of a countable space is taken.
    """

    dedups: ClassVar[bool] = False

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", config_dedup: bool = False) -> None:
        self.config_dedup = config_dedup
        self._sign = 1.0 if optimize_mode == "minimize" else -1.0
        self._history = History()
        self._model: Model | None = None

    @staticmethod
    def refuse(space: Space) -> str | None:
        """Why this space can't be searched, or None."""
        return too_wide(space, "SMAC")

    def observe(self, fact: Observation) -> None:
        """Remember a point or its result."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """The candidate that the forest expects most of."""
        if self._model is None or not self._model.results.serves(ask.space):
            self._model = Model(ask.space, self._sign)
        model, generator = self._model, ask.generator()
        model.sync(self._history)
        results = model.results
        if self.config_dedup and ask.space.params and untaken(ask.space, results.taken, generator) is None:
            return Exhausted(f"all points that could be found are taken ({len(results.taken)})")
        members = len(results.members)
        if len(model.ended) < STARTUP or not any(one.order for one in model.ended) or not ask.space.params:
            return Suggestion(results.random(generator), decision={"rule": "random start", "results": len(model.ended)})
        if members % RANDOM_EVERY == RANDOM_EVERY - 1:
            return Suggestion(results.random(generator), decision={"rule": "random, one in 8", "points": members})
        forest, learned = model.forest(ask.seed)
        rows, worth = model.candidates(forest, generator)
        for place in np.argsort(-worth, kind="stable").tolist():
            genes: Genes = rows[place].tolist()
            point, cells = results.genome.write(lambda param, genes=genes: genes[param.index])
            if cells not in results.taken and ask.space.allows(point):
                mean, variance = forest.predict(rows[place : place + 1])
                return Suggestion(
                    point,
                    decision={
                        "rule": "expected improvement",
                        "log_ei": round(float(worth[place]), 4),
                        "mean": round(float(mean[0]), 4),
                        "sd": round(math.sqrt(float(variance[0])), 4),
                        "learned_from": learned,
                        "candidates": len(rows),
                    },
                )
        return Suggestion(results.random(generator), decision={"rule": "all candidates taken", "learned_from": learned})


class Model:
    """The results in one space, and the forest that was grown from them last."""

    def __init__(self, space: Space, sign: float) -> None:
        self.results = Results(space, sign)
        self.ended: list[Individual] = []  # with a value, or failed; in the order in which they ended
        self._drawn = Candidates(space)
        self._grown: tuple[int, int, Forest] | None = None  # seed, from how many results

    def sync(self, history: History) -> None:
        """Take in what the history has got."""
        new = self.results.sync(history)
        self.ended += [one for one in new if one.order is not None or one.state == "failed"]

    def forest(self, seed: int) -> tuple[Forest, int]:
        """The forest for as many results as there are, and how many of them it knows."""
        count = scheduled(len(self.ended))
        if self._grown is None or self._grown[:2] != (seed, count):
            known = self.ended[:count]
            scores = quantiles(known)
            if count > LEARNED:
                order = np.argsort(scores, kind="stable")[: LEARNED // 4].tolist()
                chosen = sorted({*order, *range(count - LEARNED, count)})
                known, scores = [known[place] for place in chosen], scores[chosen]
            words = np.random.SeedSequence([seed, count])
            generator = np.random.Generator(np.random.Philox(words))
            self._grown = seed, count, Forest(self._drawn.rows(known), scores, self._drawn.categorical, generator)
        return self._grown[2], count

    def candidates(self, forest: Forest, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Points as rows (c x d), and what each is worth trying (c): the logarithm of the expected improvement."""
        known = self.ended[: scheduled(len(self.ended))]
        with_value = [one for one in known if one.order is not None]
        best = sorted(with_value, key=lambda one: (one.order or (math.inf, math.inf), one.number))[:PARENTS]
        threshold = float(quantiles(known).min())
        drawn, running = self._drawn, self._drawn.rows(self.results.running)

        def worth_of(rows: Floats) -> Floats:
            mean, variance = forest.predict(rows)
            expected = log_expected_improvement(mean, np.sqrt(variance + LEAST_SD**2), threshold)
            return expected + drawn.kept_away(rows, running)

        rows = drawn.fresh(FROM_PRIOR, generator)
        worth = worth_of(rows)
        parents = drawn.rows(best)
        for step in STEPS:
            children = drawn.near(np.repeat(parents, CHILDREN, axis=0), step, generator)
            rows = np.concatenate([rows, children])
            worth = np.append(worth, worth_of(children))
            parents = rows[np.argsort(-worth, kind="stable")[:PARENTS]]
        return rows, worth


def scheduled(count: int) -> int:
    """How many of `count` results the forest is grown from: each one at first, then steps of a twentieth."""
    known = min(count, 20)
    while known and known + known // 20 <= count and known < count:
        known += known // 20
    return known
