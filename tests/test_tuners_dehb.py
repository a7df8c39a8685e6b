"""DEHB: successive halving once, then children of better and better populations, one for each budget."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from promotion_search import SPACE, Search

from tune.engine.space import parse
from tune.tuners._lineages import Run
from tune.tuners.dehb import DEHB, Level


@pytest.mark.parametrize("workers", [1, 6, 30])
def test_the_round_has_hyperbands_sizes_and_only_its_first_bracket_promotes(workers: int) -> None:
    draw = random.Random(workers)
    search = Search(DEHB(max_budget=9))
    search.run(22 + 30, workers, lambda search: search.end(draw.choice(search.open)))
    search.check()
    found = Counter((a.decision["bracket"], a.decision["rung"]) for a in search.answers[: 9 + 3 + 1 + 5 + 1 + 3])
    assert found == {(0, 0): 9, (0, 1): 3, (0, 2): 1, (1, 1): 5, (1, 2): 1, (2, 2): 3}
    for answer in search.answers:
        first = answer.decision["bracket"] == 0 and answer.decision["rung"] > 0
        assert (answer.continues is not None) == first == (answer.decision["rule"] == "promote")
    assert {a.decision["bracket"] for a in search.answers} >= {3}  # the next round


def test_it_finds_better_points_than_chance() -> None:
    search = Search(DEHB(max_budget=9))
    search.run(300, 4)
    late = [a.parameters["x"] for a in search.answers[-60:]]
    assert np.median(np.abs(np.array(late) - 0.3)) < 0.1  # by chance: about 0.24


def test_when_the_whole_first_rung_fails_it_goes_on() -> None:
    search = Search(DEHB(max_budget=9))
    search.run(60, 3, lambda search: search.end(None, "failed"))
    assert len(search.answers) == 60
    assert all(a.continues is None for a in search.answers)


def run(index: int, loss: float) -> Run:
    return Run(index, index, "ours", {}, save=f"checkpoints/{index}", rank=(0.0, loss, index))


def test_a_child_replaces_its_target_if_it_is_no_worse() -> None:
    level = Level(2)
    for index, loss in enumerate((0.5, 0.3)):
        level.start(index)
        assert level.target() is None
        level.end(run(index, loss))
    for index, loss, left in ((2, 0.5, [2, 1]), (3, 0.4, [2, 1]), (4, 0.1, [4, 1])):
        target = level.target()
        assert target is not None and target.index == level.members[index % 2].index
        level.start(index)
        level.end(run(index, loss))
        assert [member.index for member in level.members] == left
    assert [member.index for member in level.best(5)] == [4, 1]
    level.go_on(4)
    assert level.candidate() is level.members[1]


def test_a_latecomer_competes_with_the_worst() -> None:
    level = Level(1)
    level.start(0)
    level.start(1)
    level.end(run(1, 0.5))
    level.end(run(0, 0.2))
    assert level.members[0].index == 0


def test_arguments() -> None:
    for wrong in ({"mutation_factor": 2}, {"crossover_prob": -1}, {"min_budget": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="allowed"):
            DEHB(**wrong)  # type: ignore[arg-type]
    assert DEHB(max_budget=9).sizes == [9, 5, 3]
    assert "DEHB itself" in str(DEHB.refuse(parse({"TRIAL_BUDGET": SPACE.raw["x"]})))
