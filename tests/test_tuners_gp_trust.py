"""The trust region: it breathes with successes and failures, and is a box around the best point."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune.tuners._gp_trust import FIRST, LARGEST, SMALLEST, box, side


def test_successes_widen_and_failures_narrow() -> None:
    assert side([], 40) == FIRST
    assert side([3.0, 2.0, 1.0], 40) == min(2 * FIRST, LARGEST)
    assert side([1.0] + [2.0] * 9, 40) == FIRST
    assert side([1.0] + [2.0] * 10, 40) == FIRST / 2
    assert side([1.0] + [math.nan] * 10, 40) == FIRST / 2
    assert side([float(-n) for n in range(30)], 40) == LARGEST
    sides = [side([0.0] + [1.0] * n, 8) for n in range(100)]
    assert min(sides) >= SMALLEST and sides[-1] != sides[20]  # too small a box starts anew
    assert side([0.0] + [1.0] * 28, 8) == FIRST


def test_the_box_follows_the_lengths() -> None:
    found = box(np.array([0.5, 0.5, 0.95]), np.array([0.1, 0.4, 0.2]), 0.2)
    size = found.high - found.low
    assert size[1] == pytest.approx(4 * size[0])
    assert found.high[2] == 1.0
    assert size[0] * size[1] * (2 * (0.95 - found.low[2])) == pytest.approx(0.2**3)
