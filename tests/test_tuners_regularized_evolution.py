"""Regularised evolution: the oldest die however good, the best of a sample is the parent, one parameter mutates."""

from __future__ import annotations

import numpy as np
import pytest

from tune.engine import registry
from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners._genes import Genome
from tune.tuners.regularized_evolution import RegularizedEvolution, mutant

SPACE = parse({f"c{i}": {"_type": "choice", "_value": list(range(9))} for i in range(6)})


def feed(tuner: RegularizedEvolution, values: list[float], outcome: str = "completed") -> None:
    draw = np.random.default_rng(0)
    for trial in range(len(values)):
        tuner.observe(Suggested(trial, trial, 0, SPACE.sample(draw.random)))
    for trial, value in enumerate(values):
        tuner.observe(Ended(trial, trial, 0, outcome, value))  # type: ignore[arg-type]


def ask(tuner: RegularizedEvolution, number: int) -> Suggestion:
    answer = tuner.suggest(Ask(number, 0, number, "t", 0, SPACE, 0, 1))
    assert isinstance(answer, Suggestion)
    return answer


def test_the_oldest_die_whatever_they_are_worth() -> None:
    tuner = RegularizedEvolution(population_size=10, sample_size=10)
    feed(tuner, [100.0, *[float(i) for i in range(19)]])
    assert {ask(tuner, n).parents for n in range(30)} == {(19,)}  # the best of the last ten; the 100 is gone
    decision = ask(tuner, 0).decision
    assert (decision["rule"], decision["best_of"], decision["alive"]) == ("mutant", 10, 10)


def test_the_parent_is_the_best_of_a_sample() -> None:
    tuner = RegularizedEvolution(population_size=20, sample_size=2)
    feed(tuner, [float(i) for i in range(20)])
    chosen = [ask(tuner, n).parents[0] for n in range(600)]
    assert np.mean(chosen) == pytest.approx(19 * 2 / 3, abs=0.7)  # the larger of two of 0 to 19
    assert 0 not in chosen


def test_random_points_first_and_without_results() -> None:
    tuner = RegularizedEvolution(sample_size=5)
    feed(tuner, [1.0] * 4)
    assert ask(tuner, 0).decision["rule"] == "random start"
    tuner = RegularizedEvolution(sample_size=5)
    feed(tuner, [1.0] * 40, outcome="cancelled")
    assert ask(tuner, 0).decision["rule"] == "random start"


def test_one_parameter_mutates() -> None:
    draw, genome = np.random.default_rng(0), Genome(SPACE)
    genes, _ = genome.read(SPACE.sample(draw.random))
    for _ in range(50):
        gene = mutant(SPACE, genes, draw)
        assert sum(gene(param) != genes[param.index] for param in SPACE.params) == 1


def test_the_new_branch_comes_from_the_prior() -> None:
    inner = {"_type": "uniform", "_value": [0, 1]}
    space = parse({"k": {"_type": "choice", "_value": [{"_name": "a", "x": inner}, {"_name": "b", "y": inner}]}})
    draw, genome = np.random.default_rng(0), Genome(space)
    genes, _ = genome.read(space.flatten({"k": {"_name": "a", "x": 0.5}}))
    points = [genome.write(mutant(space, genes, draw))[0]["k"] for _ in range(200)]
    new = [point["y"] for point in points if point["_name"] == "b"]
    assert len(new) > 50 and np.std(new) > 0.2


def test_names_and_arguments() -> None:
    assert registry.tuner_class("RegularizedEvolutionTuner") is RegularizedEvolution
    for wrong in ({"population_size": 0}, {"sample_size": 0}, {"population_size": 5, "sample_size": 6}):
        with pytest.raises(ValueError, match="allowed"):
            RegularizedEvolution(**wrong)
