"""Other programs' tuners in the benchmark: one class each, whose library is imported when one is made.

A tuner is `Class(space, seed, budget, parallel)` with `ask() -> (token, configuration)` and `tell(token,
configuration, value)`; values are minimised. `REQUIRES` says which package a class needs, so that one virtual
environment can hold one peer: `python run.py --python nni_tpe=/path/to/python`.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import random
import tempfile
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from parameters import Parameter, Parameters, sample

warnings.filterwarnings("ignore")


class Peer(ABC):
    """What they have in common."""

    def __init__(self, space: Parameters, seed: int, budget: int, parallel: int) -> None:
        self.space, self.seed, self.budget, self.parallel = space, seed, budget, parallel
        random.seed(seed)
        np.random.seed(seed)  # some of them draw from it
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Make the tuner."""

    @abstractmethod
    def ask(self) -> tuple[Any, dict[str, Any]]:
        """The next configuration, and what `tell` needs to know it again."""

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:  # noqa: B027  # nothing is learnt
        """A result."""

    def clipped(self, raw: Any) -> dict[str, Any]:
        """The parameters that are there, as values of theirs."""
        return {one.name: one.clip(raw[one.name]) for one in self.space if one.name in raw}


class RandomSearch(Peer):
    """Random points, without any library."""

    def start(self) -> None:
        """A generator."""
        self.generator = np.random.default_rng(self.seed)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A random point."""
        return None, sample(self.space, self.generator)


class Optuna(Peer):
    """Optuna's TPE as it comes (5: multivariate, constant liar)."""

    def sampler(self, optuna: Any) -> Any:
        """The sampler."""
        return optuna.samplers.TPESampler(seed=self.seed)

    def start(self) -> None:
        """A study in memory."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(sampler=self.sampler(optuna))

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Define by run."""
        trial: Any = self.study.ask()
        found: dict[str, Any] = {}
        for one in self.space:
            if not one.active(found):
                continue
            if one.kind == "cat":
                found[one.name] = trial.suggest_categorical(one.name, list(one.choices))
            elif one.kind == "int":
                found[one.name] = trial.suggest_int(one.name, int(one.low), int(one.high), log=one.log)
            else:
                found[one.name] = trial.suggest_float(one.name, one.low, one.high, log=one.log)
        return trial, found

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        self.study.tell(token, value)


class OptunaGroups(Optuna):
    """Optuna's TPE with a joint density for each group of parameters that occur together."""

    def sampler(self, optuna: Any) -> Any:
        """The sampler."""
        return optuna.samplers.TPESampler(seed=self.seed, multivariate=True, group=True)


class OptunaGP(Optuna):
    """Optuna's Gaussian process; needs torch."""

    def sampler(self, optuna: Any) -> Any:
        """The sampler."""
        import torch

        torch.set_num_threads(1)
        return optuna.samplers.GPSampler(seed=self.seed, warn_independent_sampling=False)


class OptunaCMA(Optuna):
    """Optuna's CMA-ES."""

    def sampler(self, optuna: Any) -> Any:
        """The sampler."""
        return optuna.samplers.CmaEsSampler(seed=self.seed, warn_independent_sampling=False)


class Hyperopt(Peer):
    """Hyperopt's TPE."""

    def start(self) -> None:
        """A domain and its trials."""
        from hyperopt import base, hp, tpe

        def node(one: Parameter, tag: str = "") -> Any:
            name = one.name + tag
            if one.kind == "cat":
                return hp.choice(name, list(one.choices))
            if one.kind == "int" and not one.log:
                return hp.uniformint(name, one.low, one.high)
            if one.kind == "int":
                return hp.qloguniform(name, math.log(one.low - 0.5), math.log(one.high + 0.5), 1)
            if one.log:
                return hp.loguniform(name, math.log(one.low), math.log(one.high))
            return hp.uniform(name, one.low, one.high)

        def root(one: Parameter) -> Any:
            if one.kind != "cat":
                return node(one)
            children = [child for child in self.space if child.parent and child.parent[0] == one.name]
            options = [
                (value, {c.name: node(c, f"@{value}") for c in children if c.parent and value in c.parent[1]})
                for value in one.choices
            ]
            return hp.choice(one.name, options)

        self.tree = {one.name: root(one) for one in self.space if one.parent is None}
        self.domain = base.Domain(lambda _: 0, self.tree)
        self.trials = base.Trials()
        self.suggest = tpe.suggest
        self.generator = np.random.default_rng(self.seed)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """One new trial document."""
        from hyperopt import space_eval

        ids = self.trials.new_trial_ids(1)
        self.trials.refresh()
        documents = self.suggest(ids, self.domain, self.trials, int(self.generator.integers(2**31 - 1)))
        self.trials.insert_trial_docs(documents)
        self.trials.refresh()
        values = {key: value[0] for key, value in documents[0]["misc"]["vals"].items() if value}
        found: dict[str, Any] = {}
        for name, value in space_eval(self.tree, values).items():
            if isinstance(value, tuple):
                found[name] = value[0]
                found.update(value[1])
            else:
                found[name] = value
        return ids[0], self.clipped(found)

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        document = next(one for one in reversed(self.trials._dynamic_trials) if one["tid"] == token)
        document["state"], document["result"] = 2, {"status": "ok", "loss": value}
        self.trials.refresh()


class NniTPE(Peer):
    """NNI 3.0's TPE."""

    def tuner(self) -> Any:
        """The tuner."""
        from nni.algorithms.hpo.tpe_tuner import TpeTuner

        return TpeTuner("minimize", seed=self.seed)

    def start(self) -> None:
        """A nested search space."""
        logging.disable(logging.WARNING)

        def leaf(one: Parameter) -> dict[str, Any]:
            if one.kind == "cat":
                return {"_type": "choice", "_value": list(one.choices)}
            kind = "loguniform" if one.log else "uniform"
            if one.kind == "int":
                return {"_type": f"q{kind}", "_value": [one.low, one.high, 1]}
            return {"_type": kind, "_value": [one.low, one.high]}

        raw: dict[str, Any] = {}
        for one in self.space:
            children = [child for child in self.space if child.parent and child.parent[0] == one.name]
            if one.parent is None:
                raw[one.name] = leaf(one)
            if children:
                raw[one.name]["_value"] = [
                    {"_name": value, **{c.name: leaf(c) for c in children if c.parent and value in c.parent[1]}}
                    for value in one.choices
                ]
        self.made = self.tuner()
        self.made.update_search_space(raw)
        self.count = 0

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Parameters by number."""
        raw = self.made.generate_parameters(self.count)
        token = (self.count, raw)
        self.count += 1
        found: dict[str, Any] = {}
        for name, value in raw.items():
            if isinstance(value, dict):
                found[name] = value["_name"]
                found.update({key: inner for key, inner in value.items() if key != "_name"})
            else:
                found[name] = value
        return token, self.clipped(found)

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        self.made.receive_trial_result(*token, value)


class NniEvolution(NniTPE):
    """NNI 3.0's evolution with 20 individuals."""

    def tuner(self) -> Any:
        """The tuner."""
        from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

        return EvolutionTuner("minimize", population_size=20)


class Smac(Peer):
    """SMAC3's facade for hyper-parameters: a random forest and the logarithm of expected improvement."""

    def start(self) -> None:
        """A scenario in a temporary folder."""
        logging.disable(logging.WARNING)
        import smac
        from ConfigSpace import Categorical, ConfigurationSpace, Float, InCondition, Integer
        from smac.runhistory.dataclasses import TrialValue

        self.value = TrialValue
        space = ConfigurationSpace(seed=self.seed)
        made: dict[str, Any] = {}
        for one in self.space:
            if one.kind == "cat":
                made[one.name] = Categorical(one.name, list(one.choices))
            elif one.kind == "int":
                made[one.name] = Integer(one.name, (int(one.low), int(one.high)), log=one.log)
            else:
                made[one.name] = Float(one.name, (one.low, one.high), log=one.log)
        space.add(list(made.values()))
        space.add([InCondition(made[c.name], made[c.parent[0]], list(c.parent[1])) for c in self.space if c.parent])
        self.folder = tempfile.TemporaryDirectory()
        scenario = smac.Scenario(
            space, n_trials=self.budget, deterministic=True, seed=self.seed, output_directory=self.folder.name
        )
        facade = smac.HyperparameterOptimizationFacade
        self.made = facade(scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=False)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A configuration with numpy's scalars made plain."""
        info = self.made.ask()
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in dict(info.config).items()}
        return info, self.clipped(plain)

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        self.made.tell(token, self.value(cost=value, time=0.0))


class Nevergrad(Peer):
    """Nevergrad's NGOpt; a space without conditions."""

    def start(self) -> None:
        """A parametrisation."""
        import nevergrad as ng

        made: dict[str, Any] = {}
        for one in self.space:
            if one.kind == "cat":
                made[one.name] = ng.p.Choice(list(one.choices))
                continue
            kind = ng.p.Log if one.log else ng.p.Scalar
            made[one.name] = kind(lower=one.low, upper=one.high)
            if one.kind == "int":
                made[one.name].set_integer_casting()
        parametrisation = ng.p.Dict(**made)
        parametrisation.random_state = np.random.RandomState(self.seed)
        self.made = ng.optimizers.NGOpt(parametrisation, budget=self.budget, num_workers=self.parallel)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A candidate."""
        candidate = self.made.ask()
        return candidate, self.clipped(candidate.value)

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        self.made.tell(token, value)


class Hebo(Peer):
    """HEBO."""

    def start(self) -> None:
        """A flat design space."""
        import torch
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        torch.set_num_threads(1)
        torch.manual_seed(self.seed)
        listed: list[dict[str, Any]] = []
        for one in self.space:
            if one.kind == "cat":
                listed.append({"name": one.name, "type": "cat", "categories": list(one.choices)})
                continue
            kind = {("int", False): "int", ("int", True): "pow_int", ("float", False): "num", ("float", True): "pow"}
            bounds = {"lb": one.low, "ub": one.high} | ({"base": 10} if one.log else {})
            listed.append({"name": one.name, "type": kind[one.kind, one.log], **bounds})
        self.made = HEBO(DesignSpace().parse(listed), scramble_seed=self.seed)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """One row of a table."""
        table = self.made.suggest(n_suggestions=1)
        return table, self.clipped(table.iloc[0].to_dict())

    def tell(self, token: Any, configuration: dict[str, Any], value: float) -> None:
        """A result."""
        self.made.observe(token, np.array([[value]]))


PEERS: dict[str, tuple[type[Peer], str]] = {  # the class, and the package that it needs
    "random": (RandomSearch, "numpy"),
    "optuna_tpe": (Optuna, "optuna"),
    "optuna_tpe_mvgroup": (OptunaGroups, "optuna"),
    "optuna_gp": (OptunaGP, "optuna"),
    "optuna_cma": (OptunaCMA, "optuna"),
    "hyperopt_tpe": (Hyperopt, "hyperopt"),
    "nni_tpe": (NniTPE, "nni"),
    "nni_evolution": (NniEvolution, "nni"),
    "smac_hpo": (Smac, "smac"),
    "ng_ngopt": (Nevergrad, "nevergrad"),
    "hebo": (Hebo, "hebo"),
}
SLOW = ("optuna_gp", "smac_hpo", "hebo", "optuna_tpe_mvgroup")  # run when they are asked for by name


def installed() -> list[str]:
    """The peers that this interpreter has and that take less than a minute for a suite and a seed."""
    return [
        name
        for name, (_, package) in PEERS.items()
        if name not in SLOW and importlib.util.find_spec(package) is not None
    ]
