"""Evolution: who may be a parent, what a child has of whom, and how wide its steps are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners._genes import Individual
from tune.tuners.evolution import RATIO, SHARE, STARTUP, WIDTH, Brood, Evolution

RAW = {
    "x": {"_type": "uniform", "_value": [0, 1]},
    "y": {"_type": "uniform", "_value": [0, 1]},
    "k": {
        "_type": "choice",
        "_value": [{"_name": "a", "z": {"_type": "uniform", "_value": [0, 1]}}, {"_name": "b"}],
    },
}
SPACE = parse(RAW)


def feed(tuner: Evolution, count: int, violation: float = 0.0) -> list[dict[str, float]]:
    draw = np.random.default_rng(0)
    points = [SPACE.sample(draw.random) for _ in range(count)]
    for trial, point in enumerate(points):
        tuner.observe(Suggested(trial, trial, 0, point))
        bad = violation if trial < count // 2 else 0.0
        tuner.observe(Ended(trial, trial, 0, "completed", float(trial), [], bad))
    return points


def ask(tuner: Evolution, number: int) -> Suggestion:
    answer = tuner.suggest(Ask(number, 0, number, "t", 0, SPACE, 0, 1))
    assert isinstance(answer, Suggestion)
    return answer


def test_the_start_is_random_and_then_the_best_are_parents() -> None:
    tuner = Evolution(optimize_mode="minimize")
    feed(tuner, STARTUP - 1)
    assert ask(tuner, 0).decision["rule"] == "random start"
    tuner = Evolution(optimize_mode="minimize")
    feed(tuner, 8 * SHARE)
    chosen = [parent for n in range(80) for parent in ask(tuner, n).parents]
    assert set(chosen) == set(range(8))
    assert chosen.count(0) > chosen.count(3) > chosen.count(7)
    assert ask(tuner, 0).decision["of_best"] == 8
    small = Evolution(optimize_mode="minimize", population_size=2)
    feed(small, 8 * SHARE)
    assert {parent for n in range(40) for parent in ask(small, n).parents} == {0, 1}


def test_what_fails_the_outcome_constraints_is_no_parent_while_others_are_there() -> None:
    tuner = Evolution(optimize_mode="minimize")
    feed(tuner, 40, violation=3.0)
    assert {parent for n in range(40) for parent in ask(tuner, n).parents} == {20, 21, 22, 23}


def test_a_child_differs_in_one_gene_at_least_and_takes_whole_branches() -> None:
    one = Individual(0, [0.2, 0.3, 0.0, 0.9], order=(0.0, 0.0))
    two = Individual(1, [0.7, 0.6, 1.0, math.nan], order=(0.0, 1.0))
    changed: list[int] = []
    for seed in range(300):
        brood = Brood([one, two], 10, np.random.default_rng(seed))
        gene = brood.child()
        child = [gene(param) for param in SPACE.params if param.parent is None]
        if child[2] == 0.0:
            child.append(gene(SPACE.params[3]))
        first = brood.pair[0].genes
        changed.append(sum(a != b for a, b in zip(child, first[: len(child)], strict=True)))
        assert all(0.0 <= g <= 1.0 for g in child)
    assert np.mean([c > 0 for c in changed]) > 0.85  # a category may mutate into itself
    assert 1.0 < np.mean(changed) < 3.0


@pytest.mark.parametrize("results", [0, 15, 1500])
def test_steps_narrow_with_the_results_but_never_vanish(results: int) -> None:
    one = Individual(0, [0.5, 0.5, 0.0, 0.5], order=(0.0, 0.0))
    widths = []
    for seed in range(50):
        brood = Brood([one], results, np.random.default_rng(seed))
        brood.child()
        widths.append(brood.width)
    base = WIDTH / (1 + results / 15)
    assert base <= min(widths) and max(widths) <= RATIO * base
    assert max(widths) > 2 * min(widths)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="population_size is 1"):
        Evolution(population_size=1)
