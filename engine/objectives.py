"""Judging results: what a reported JSON text counts as, whether it meets the outcome constraints, and what is better.

A result is a number, or a dict of which the numbers count; a plain number is the key `default`. With one objective the
number `default` is the value. With several, each names a key, and a result counts only when all of them are finite.
Outcome constraints speak of the same keys: a result that fails one is *infeasible*, and never better than a feasible
one; of two infeasible ones the one that fails by less is better (Deb, An efficient constraint handling method for
genetic algorithms, Computer Methods in Applied Mechanics and Engineering 186, 2000).

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from ..trial_sdk.values import number, numbers
from .config import Config
from .constraints import ABSENT, Constraint, parse
from .state import Ranked


class Judged(NamedTuple):
    """What a result counts as. `value` None: it does not count. `values`: with several objectives one for each."""

    value: float | None
    values: list[float]
    violation: float  # 0.0 when the outcome constraints are met, else by how much they are not; finite


def judge(config: Config, text: bytes) -> Judged:
    """What the JSON text of a final result counts as."""
    if not config.objectives and not config.outcome_constraints:
        value = number(text)
        return Judged(value if value is not None and math.isfinite(value) else None, [], 0.0)
    found = numbers(text)
    values = [found.get(key, math.nan) for key in config.objectives]
    value = values[0] if values else found.get("default", math.nan)
    if not all(map(math.isfinite, (value, *values))):
        return Judged(None, [], 0.0)
    fails_by = sum(_condition(text).violation(found) for text in config.outcome_constraints)
    return Judged(value, values, min(fails_by, ABSENT))


def step(config: Config, text: bytes) -> float | None:
    """The number of an intermediate result: with several objectives the first one's, or else that of `default`."""
    if not config.objectives:
        return number(text)
    found = numbers(text)
    return found.get(next(iter(config.objectives)), found.get("default"))


def is_better(config: Config, value: float, than: float) -> bool:
    """Whether a value is better than another one; an equal one is not."""
    return value < than if config.optimize_mode == "minimize" else value > than


def with_result(config: Config, front: list[Ranked], new: Ranked) -> list[Ranked]:
    """The Pareto front with one more result. Of equal results the first one stays, so a front can't fill up with them.

    One pass over the front: below 1 us for each result on it.
    """
    least = [mode == "minimize" for mode in config.objectives.values()]
    kept: list[Ranked] = []
    for old in front:
        wins, loses = _compared(new, old, least)
        if not wins:
            return front
        if loses:
            kept.append(old)
    return [*kept, new]


def _compared(one: Ranked, other: Ranked, least: list[bool]) -> tuple[bool, bool]:
    """Whether `one` is better than `other` in something, and whether it is worse in something."""
    if one.violation != other.violation:
        return one.violation < other.violation, one.violation > other.violation
    wins = loses = False
    for a, b, less in zip(one.values, other.values, least, strict=True):
        if a != b:
            if (a < b) is less:
                wins = True
            else:
                loses = True
    return wins, loses


@functools.lru_cache(maxsize=256)
def _condition(text: str) -> Constraint:
    return parse(text)
