"""Sobol's sequence: points that fill a space more evenly than random ones, for a start or for a survey.

Sobol, USSR Computational Mathematics and Mathematical Physics 7 (1967), with the direction numbers of Joe and Kuo
(2008) that scipy holds, and a random digital shift (the seed's) that keeps the sequence's balance. Each parameter has a
dimension of its own, also those of a branch; the values are the prior's at that place. Points that are taken or don't
meet the constraints are skipped.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..engine.plugins import Ask, Exhausted, Observation, OptimizeMode, Suggestion
from ..engine.space import Space
from ._history import History, Taken
from .random import untaken

BITS = 30
DIMENSIONS = 21201  # that direction numbers are known for
SKIPPED = 10_000  # points in a row, until a random one is taken


class Sobol:
    """Goes through a shifted Sobol sequence. `seed` None: the experiment's; `optimize_mode` changes nothing."""

    dedups: ClassVar[bool] = True
    multi_objective: ClassVar[bool] = True

    def __init__(self, *, optimize_mode: OptimizeMode = "maximize", seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
        self.seed = seed
        self._history = History()
        self._taken = Taken(self._history)
        self._sequence: Sequence | None = None
        self._number = 0  # the first point that may be free: those before it are taken for ever, or not allowed

    @staticmethod
    def refuse(space: Space) -> str | None:
        """More parameters than there are dimensions, or None."""
        count = len(space.params)
        return f"it has {count} parameters, Sobol takes up to {DIMENSIONS}" if count > DIMENSIONS else None

    def observe(self, fact: Observation) -> None:
        """Remember which points are taken."""
        self._history.observe(fact)

    def suggest(self, ask: Ask) -> Suggestion | Exhausted:
        """The first point of the sequence that is free."""
        seed = ask.seed if self.seed is None else self.seed
        if self._taken.sync(ask.space) or self._sequence is None or self._sequence.seed != seed:
            self._sequence, self._number = Sequence(len(ask.space.params), seed), 0
        space, size = ask.space, ask.space.size
        if not space.params:
            return Suggestion({}, decision={"rule": "sobol"})
        if size is not None and len(self._taken.cells) >= size:
            return Exhausted(f"all {size} points are taken")
        for number in range(self._number, self._number + SKIPPED):
            point = self._sequence.point(space, number)
            if point not in self._taken and space.allows(point):
                self._number = number
                return Suggestion(point, decision={"rule": "sobol", "number": number})
        rest = untaken(space, self._taken.cells, ask.generator(self.seed))
        if rest is None:
            return Exhausted(f"all points that could be found are taken ({len(self._taken.cells)})")
        return Suggestion(rest, decision={"rule": "random", "skipped": SKIPPED})


class Sequence:
    """The points of a shifted Sobol sequence in [0, 1)^d, made in blocks as they are needed."""

    def __init__(self, dimensions: int, seed: int) -> None:
        self.dimensions, self.seed = dimensions, seed
        words = np.random.SeedSequence([seed, dimensions])
        self._shift = np.random.Generator(np.random.Philox(words)).integers(2**BITS, size=dimensions)
        self._places: NDArray[np.float64] = np.empty((0, dimensions))

    def places(self, number: int) -> list[float]:
        """Point `number`, 0 <= number."""
        if number >= len(self._places):
            self._places = self._made(max(6, number.bit_length()))
        return self._places[number].tolist()

    def point(self, space: Space, number: int) -> dict[str, Any]:
        """The same as parameters of a space."""
        places = self.places(number)
        return space.draw(lambda param: param.from_unit(places[param.index]))

    def _made(self, power: int) -> NDArray[np.float64]:
        from scipy.stats import qmc  # pyright: ignore[reportMissingTypeStubs]  # half a second at import

        plain: NDArray[np.float64] = qmc.Sobol(self.dimensions, scramble=False, bits=BITS).random_base2(power)
        whole = (plain * 2.0**BITS).astype(np.int64) ^ self._shift
        return np.asarray((whole + 0.5) / 2.0**BITS, dtype=np.float64)
