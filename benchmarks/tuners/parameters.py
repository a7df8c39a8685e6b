"""The spaces of the benchmark: parameters that every tuner's adapter can put into its own words.

A configuration is a dict of the active parameters, parents first. Only numpy is needed, so that a peer can run in a
virtual environment of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Parameter:
    """One parameter; `low` and `high` are inclusive. `parent`: it exists only where that one has one of the values."""

    name: str
    kind: str  # "float", "int" or "cat"
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    parent: tuple[str, tuple[Any, ...]] | None = None

    def active(self, configuration: dict[str, Any]) -> bool:
        """Whether it exists beside these values."""
        return self.parent is None or configuration.get(self.parent[0]) in self.parent[1]

    def from_unit(self, u: float) -> Any:
        """The value at u in [0, 1]; an int's values have equal shares (of the logarithm with `log`)."""
        half = 0.5 if self.kind == "int" else 0.0
        low, high = self.low - half, self.high + half
        if self.log:
            value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        else:
            value = low + u * (high - low)
        return self.clip(value)

    def clip(self, value: Any) -> Any:
        """A number as one of its values; a categorical's value as it is."""
        if self.kind == "int":
            return int(min(max(round(value), self.low), self.high))
        if self.kind == "float":
            return float(min(max(value, self.low), self.high))
        return value

    def sample(self, generator: np.random.Generator) -> Any:
        """A random value."""
        if self.kind == "cat":
            return self.choices[int(generator.integers(len(self.choices)))]
        return self.from_unit(generator.random())


Parameters = list[Parameter]


def sample(space: Parameters, generator: np.random.Generator) -> dict[str, Any]:
    """A random configuration."""
    found: dict[str, Any] = {}
    for parameter in space:
        if parameter.active(found):
            found[parameter.name] = parameter.sample(generator)
    return found


def pruned(space: Parameters, configuration: dict[str, Any]) -> dict[str, Any]:
    """The active part of a configuration."""
    found: dict[str, Any] = {}
    for parameter in space:
        if parameter.active(found):
            found[parameter.name] = configuration[parameter.name]
    return found


def floats(count: int, low: float, high: float) -> Parameters:
    """x0, x1, ... in [low, high]."""
    return [Parameter(f"x{i}", "float", low, high) for i in range(count)]


def cat(name: str, *choices: Any, parent: tuple[str, tuple[Any, ...]] | None = None) -> Parameter:
    """A categorical parameter."""
    return Parameter(name, "cat", choices=choices, parent=parent)
