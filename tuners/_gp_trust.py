"""In many dimensions a model is only right near what it has seen: a box around the best point that breathes.

Eriksson et al., Scalable Global Optimization via Local Bayesian Optimization (TuRBO, NeurIPS 2019): the box doubles
after some successes in a row and halves after some failures in a row; too small a one starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._gp_search import Box
from ._numerics import Floats

MANY = 20  # parameters up to which the whole space is searched
FIRST, LARGEST, SMALLEST = 0.8, 1.6, 0.5**7
SUCCESSES = 3


def side(losses: Sequence[float], parameters: int) -> float:
    """The side of the box after these losses, in the order in which they came (NaN: a failure)."""
    patience = max(4, math.ceil(parameters / 4))
    length, best, good, bad = FIRST, math.inf, 0, 0
    for loss in losses:
        if loss < best:
            good, bad, best = good + 1, 0, loss
        else:
            good, bad = 0, bad + 1
        if good == SUCCESSES:
            length, good = min(2.0 * length, LARGEST), 0
        elif bad == patience:
            length, bad = length / 2.0, 0
            if length < SMALLEST:
                length = FIRST
    return length


def box(centre: Floats, lengths: Floats, side: float) -> Box:
    """The box around `centre` (k places), longer where the model's lengths (k) are; its volume is side^k."""
    logs = np.log(lengths)
    half = 0.5 * side * np.exp(logs - logs.mean()) if len(logs) else logs
    return Box(np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0))
