"""Hyperband: brackets one after the other, exact numbers of runs and promotions, with NNI's options."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from promotion_search import SPACE, Search

from tune.engine.plugins import SpaceChanged, Suggestion, Wait
from tune.engine.space import parse
from tune.tuners.hyperband import Hyperband

ROUND = 27 + 9 + 3 + 1 + 12 + 4 + 1 + 6 + 2 + 4  # runs of all brackets with R = 60, eta = 3


def counts(search: Search) -> Counter[tuple[int, int]]:
    return Counter((a.decision["bracket"], a.decision["rung"]) for a in search.answers)


@pytest.mark.parametrize("workers", [1, 5, 40])
@pytest.mark.parametrize("mode", ["parallelism", "serial"])
def test_a_whole_round_and_the_first_bracket_again(workers: int, mode: str) -> None:
    draw = random.Random(workers)
    search = Search(Hyperband(exec_mode=mode))  # type: ignore[arg-type]
    search.run(2 * ROUND + 600, workers, lambda search: search.end(draw.choice(search.open)))
    search.check()
    found = counts(search)
    for bracket in (0, 4):
        assert [found[bracket, rung] for rung in range(5)] == [27, 9, 3, 1, 0]
        assert [found[bracket + 1, rung] for rung in range(4)] == [12, 4, 1, 0]
        assert [found[bracket + 2, rung] for rung in range(3)] == [6, 2, 0]
        assert [found[bracket + 3, rung] for rung in range(2)] == [4, 0]
    budgets = {(a.decision["bracket"], a.decision["rung"]): a.budget for a in search.answers}
    assert [budgets[0, rung] for rung in range(4)] == [2, 6, 20, 60] and budgets[3, 0] == 60
    # exactly the best of each rung went on
    rung = [n for n, a in enumerate(search.answers) if (a.decision["bracket"], a.decision["rung"]) == (0, 0)]
    best = sorted(rung, key=lambda n: -(search.results[n] or 0.0))[:9]
    assert {n for n in rung if search.children(n)} == set(best)


def test_serial_waits_for_the_bracket_and_parallelism_does_not() -> None:
    for mode, expected in (("serial", Wait), ("parallelism", Suggestion)):
        search = Search(Hyperband(R=3, exec_mode=mode))  # type: ignore[arg-type]
        for _ in range(3):
            search.ask()
        assert isinstance(search.ask(), expected)


def test_failures_do_not_block_a_rung() -> None:
    search, seen = Search(Hyperband(R=9, exec_mode="serial")), 1

    def end(search: Search) -> None:
        nonlocal seen
        seen += 1
        search.end(None, ("failed", "completed", "cancelled", "stopped")[seen % 4])

    search.run(150, 4, end)
    search.check()
    assert counts(search)[0, 1] == 2  # of nine runs two had a result, where three would have gone on
    assert max(bracket for bracket, _ in counts(search)) > 6


def test_everything_fails_and_it_goes_on() -> None:
    search = Search(Hyperband(R=9))
    search.run(100, 3, lambda search: search.end(None, "failed"))
    assert len(search.answers) == 100 and all(a.continues is None for a in search.answers)


def test_a_new_space_begins_anew() -> None:
    search = Search(Hyperband(R=9))
    for _ in range(9):
        search.ask()
    for _ in range(9):
        search.end()
    search.space = parse({**SPACE.raw, "x": {"_type": "uniform", "_value": [2, 3]}})
    search.observe(SpaceChanged(99, 1, search.space.raw))
    answer = search.ask()
    assert isinstance(answer, Suggestion) and answer.continues is None and answer.decision["bracket"] == 0


def test_arguments() -> None:
    assert Hyperband().budgets == [2, 6, 20, 60]
    for wrong in ({"R": 0}, {"eta": 1}, {"exec_mode": "both"}, {"seed": -1}):
        with pytest.raises(ValueError, match="allowed"):
            Hyperband(**wrong)  # type: ignore[arg-type]
    assert "TRIAL_BUDGET" in str(Hyperband.refuse(parse({"TRIAL_BUDGET": SPACE.raw["x"]})))
