"""Lets an ask/tell benchmark with spaces of float, int and categorical parameters run a tuner of ours.

`bench.py run --peer tunerbench_adapter:OurTPE`, with this folder in PYTHONPATH. A space is a list of objects with
name, kind ("float", "int", "cat"), lo, hi (inclusive), log, choices and cond (parent, values); it is minimised.
"""

from __future__ import annotations

from typing import Any

from tune.engine.plugins import Ask, Ended, Suggested
from tune.engine.space import parse
from tune.tuners.random import Random
from tune.tuners.tpe import TPE


def leaf(p: Any) -> dict[str, Any]:
    """One parameter without children as our search space writes it."""
    if p.kind == "cat":
        return {"_type": "choice", "_value": list(p.choices)}
    if p.kind == "int":
        if p.log:
            return {"_type": "qloguniform", "_value": [p.lo - 0.499, p.hi + 0.499, 1]}
        return {"_type": "randint", "_value": [int(p.lo), int(p.hi) + 1]}
    return {"_type": "loguniform" if p.log else "uniform", "_value": [p.lo, p.hi]}


class OurTPE:
    """TPE, asked and told in turn."""

    def make(self, seed: int) -> Any:
        """The tuner."""
        return TPE(optimize_mode="minimize", seed=seed)

    def __init__(self, space: Any, seed: int, budget: int) -> None:
        self.by_name = {p.name: p for p in space}
        raw: dict[str, Any] = {}
        for p in space:
            if p.cond is not None:
                continue
            kids = [k for k in space if k.cond and k.cond[0] == p.name]
            if kids:
                raw[p.name] = {
                    "_type": "choice",
                    "_value": [
                        {"_name": str(v), **{k.name: leaf(k) for k in kids if v in k.cond[1]}} for v in p.choices
                    ],
                }
            else:
                raw[p.name] = leaf(p)
        self.space = parse(raw)
        self.tuner = self.make(seed)
        self.seed, self.number, self.seq = seed, 0, 0

    def ask(self) -> dict[str, Any]:
        """The next configuration, active parameters only."""
        ask = Ask(self.number, 0, self.number, "t", 0, self.space, 0, self.seed)
        parameters = dict(self.tuner.suggest(ask).parameters)
        self.tuner.observe(Suggested(self.seq, self.number, 0, parameters, ask=self.number))
        config: dict[str, Any] = {}
        for name, value in parameters.items():
            if isinstance(value, dict):
                config[name] = next(c for c in self.by_name[name].choices if str(c) == value["_name"])
                config.update({k: v for k, v in value.items() if k != "_name"})
            else:
                config[name] = value
        for name, value in config.items():
            if self.by_name[name].kind == "int":
                config[name] = int(min(max(round(value), self.by_name[name].lo), self.by_name[name].hi))
        return config

    def tell(self, config: dict[str, Any], value: float) -> None:
        """The result of the last configuration."""
        self.tuner.observe(Ended(self.seq, self.number, 0, "completed", float(value)))
        self.number += 1
        self.seq += 1


class OurRandom(OurTPE):
    """Random search, as a check of the benchmark itself."""

    def make(self, seed: int) -> Any:
        """The tuner."""
        return Random(seed=seed)
