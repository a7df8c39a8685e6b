"""Differential evolution: slots, what replaces whom, and that a child has one gene of its mutant at least."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners._genes import Individual
from tune.tuners.differential_evolution import DifferentialEvolution, Slots, crossed

SPACE = parse({name: {"_type": "uniform", "_value": [0, 1]} for name in "abcde"})


def individual(genes: list[float], number: int = 0) -> Individual:
    return Individual(number, genes, order=(0.0, float(number)))


def test_a_result_takes_its_slot_when_it_is_as_good() -> None:
    tuner = DifferentialEvolution(optimize_mode="minimize", population_size=4)
    draw = np.random.default_rng(0)

    def run(trial: int, value: float | None) -> None:
        tuner.observe(Suggested(trial, trial, 0, SPACE.sample(draw.random)))
        tuner.observe(Ended(trial, trial, 0, "completed" if value is not None else "failed", value))

    for trial, value in enumerate([5.0, 6.0, 7.0, 8.0, 4.0, 6.0, 9.0, None]):
        run(trial, value)
    tuner.suggest(Ask(0, 0, 0, "t", 0, SPACE, 0, 1))
    slots = tuner._slots
    assert isinstance(slots, Slots)
    assert [one and one.number for one in slots.holders] == [4, 5, 2, 3]
    assert [one.number for one in slots.replaced] == [0, 1]


def test_a_free_slot_is_tried_for_by_chance_and_the_next_one_by_a_child() -> None:
    tuner = DifferentialEvolution(population_size=5)
    rules: list[str] = []
    for n in range(12):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 1))
        assert isinstance(answer, Suggestion)
        rules.append(answer.decision["rule"].split(",")[0])
        assert answer.decision["slot"] == n % 5
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
        failed = n == 2
        tuner.observe(Ended(n, n, 0, "failed" if failed else "completed", None if failed else float(n)))
    assert rules == ["random"] * 5 + ["child", "child", "random", *["child"] * 4]


def test_at_least_one_gene_is_the_mutants_and_the_rest_the_targets() -> None:
    target, best = individual([0.5] * 5), individual([0.6] * 5, 1)
    one, two = individual([0.3] * 5, 2), individual([0.3] * 5, 3)
    counts: list[int] = []
    for seed in range(200):
        gene = crossed(target, best, one, two, 0.5, 0.0, np.random.default_rng(seed))
        child = [gene(param) for param in SPACE.params]
        counts.append(sum(value == pytest.approx(0.55) for value in child))
        assert sum(value == 0.5 for value in child) == 4
    assert set(counts) == {1}
    gene = crossed(target, best, one, two, 0.5, 1.0, np.random.default_rng(0))
    assert [gene(param) for param in SPACE.params] == pytest.approx([0.55] * 5)


def test_the_mutant_is_the_formula_and_stays_inside() -> None:
    target, best = individual([0.1, 0.2, 0.9, 0.5, 0.5]), individual([0.3, 0.2, 0.9, 0.5, math.nan], 1)
    one, two = individual([0.5, 0.0, 1.0, 0.5, 0.9], 2), individual([0.1, 0.9, 0.0, 0.5, 0.4], 3)
    gene = crossed(target, best, one, two, 0.5, 1.0, np.random.default_rng(0))
    expected = [
        0.1 + 0.5 * (0.3 - 0.1) + 0.5 * (0.5 - 0.1),
        0.1,  # 0.2 - 0.45 lies below 0: half way
        0.95,  # 0.9 + 0.5 lies above 1
        0.5,
        0.5 + 0.5 * (0.9 - 0.4),  # the best one does not have it
    ]
    assert [gene(param) for param in SPACE.params] == pytest.approx(expected)


def test_categories_come_from_members_or_are_others() -> None:
    space = parse({"c": {"_type": "choice", "_value": list(range(10))}})
    draw = np.random.default_rng(0)
    found = [
        crossed(individual([1.0]), individual([2.0]), individual([3.0]), individual([4.0]), 0.6, 1.0, draw)(
            space.params[0]
        )
        for _ in range(500)
    ]
    assert found.count(2.0) > found.count(3.0) > 100
    assert 0 < sum(value not in (2.0, 3.0) for value in found) < 100


def test_arguments() -> None:
    for name, value in {"population_size": 3, "scale": 0.0, "crossover": 1.5}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            DifferentialEvolution(**{name: value})  # type: ignore[arg-type]
