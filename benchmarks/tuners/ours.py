"""Our tuners in the benchmark: driven in this process through the plug-in protocol, as the tuner host drives them."""

from __future__ import annotations

from typing import Any

from parameters import Parameter, Parameters

from tune.engine import registry
from tune.engine.plugins import Ask, Ended, Suggested, Suggestion, Wait
from tune.engine.space import Space, parse


def names() -> list[str]:
    """Every tuner that is found or installed, and searches for something."""
    return [name for name in registry.names("tuner") if name not in ("GridSearch", "Batch")]


def leaf(parameter: Parameter) -> dict[str, Any]:
    """A parameter without children as our search space writes it."""
    low, high = parameter.low, parameter.high
    if parameter.kind == "cat":
        return {"_type": "choice", "_value": list(parameter.choices)}
    if parameter.kind == "float":
        return {"_type": "loguniform" if parameter.log else "uniform", "_value": [low, high]}
    if parameter.log:
        return {"_type": "qloguniform", "_value": [low - 0.499, high + 0.499, 1]}
    return {"_type": "randint", "_value": [int(low), int(high) + 1]}


def space_of(parameters: Parameters) -> Space:
    """Our space; parameters that have a parent become its branches' children."""
    raw: dict[str, Any] = {}
    for parameter in parameters:
        children = [one for one in parameters if one.parent and one.parent[0] == parameter.name]
        if parameter.parent is not None:
            continue
        raw[parameter.name] = leaf(parameter)
        if children:
            raw[parameter.name]["_value"] = [
                {
                    "_name": str(value),
                    **{one.name: leaf(one) for one in children if one.parent and value in one.parent[1]},
                }
                for value in parameter.choices
            ]
    return parse(raw)


class Ours:
    """One of our tuners, by name."""

    def __init__(self, name: str, parameters: Parameters, seed: int, budget: int, parallel: int) -> None:
        cls = registry.tuner_class(name)
        self.by_name = {parameter.name: parameter for parameter in parameters}
        self.space = space_of(parameters)
        refuse = getattr(cls, "refuse", None)
        reason = refuse(self.space) if refuse else None
        if reason:
            raise ValueError(f"{name} refuses: {reason}")
        self.tuner: Any = registry.build(cls, {"optimize_mode": "minimize"})
        self.seed, self.budget, self.parallel = seed, budget, parallel
        self.number = self.attempt = self.seq = 0

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        """The next trial's number and its configuration; None: not before another result."""
        ask = Ask(
            *(self.number, self.attempt, self.number, f"t{self.number}", 0, self.space, 0, self.seed),
            max_trial_number=self.budget,
            trial_concurrency=self.parallel,
        )
        answer = self.tuner.suggest(ask)
        if isinstance(answer, Wait):
            self.attempt += 1
            return None
        if not isinstance(answer, Suggestion):
            raise StopIteration(answer.reason)
        self._observe(Suggested(self.seq, self.number, 0, dict(answer.parameters), ask=self.number))
        self.number, self.attempt = self.number + 1, 0
        return self.number - 1, self._configuration(answer.parameters)

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        del configuration
        self._observe(Ended(self.seq, token, 0, "completed", value))

    def _observe(self, fact: Any) -> None:
        self.tuner.observe(fact)
        self.seq += 1

    def _configuration(self, parameters: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in parameters.items():
            if isinstance(value, dict):
                found[name] = next(one for one in self.by_name[name].choices if str(one) == value["_name"])
                found.update({key: one for key, one in value.items() if key != "_name"})
            else:
                found[name] = value
        return {name: self.by_name[name].clip(value) for name, value in found.items()}
