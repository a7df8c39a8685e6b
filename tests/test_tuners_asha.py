"""ASHA: promotions of the best 1/eta at any moment, each once; nobody waits for a slow or failed run."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from promotion_search import SPACE, Search

from tune.engine.plugins import Ask, Ended, Exhausted, Imported, SpaceChanged, Suggested, Suggestion, Wait
from tune.engine.space import parse
from tune.tuners.asha import ASHA


def test_of_each_three_results_one_goes_on() -> None:
    search = Search(ASHA(max_budget=9))
    search.run(40)
    search.check()
    budgets = Counter(search.budget(number) for number in range(40))
    assert sum(budgets.values()) == 40 and set(budgets) == {1, 3, 9}
    assert budgets[3] >= budgets[1] // 3 >= 1 and budgets[9] >= budgets[3] // 3 >= 1
    for number, answer in enumerate(search.answers):
        if answer.continues is not None:
            parent = search.answers[answer.continues]
            assert answer.budget == 3 * (parent.budget or 0) == answer.extras["TRIAL_BUDGET"]
            assert answer.parameters == parent.parameters
            assert answer.decision["rule"] == "promote" and answer.decision["value"] == search.results[answer.continues]
            assert len(search.children(answer.continues)) == 1
        else:
            assert answer.budget == 1 and answer.extras["save_checkpoint_dir"] == f"checkpoints/{number}"


@pytest.mark.parametrize("workers", [1, 7, 30])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_with_workers_that_end_in_any_order_only_the_best_go_on(workers: int, sign: float) -> None:
    draw = random.Random(workers)
    search = Search(ASHA(optimize_mode="maximize" if sign < 0 else "minimize"), sign=sign)

    def end(search: Search) -> None:
        search.end(draw.choice(search.open), "failed" if draw.random() < 0.2 else "completed")

    seen = 0
    for _ in range(300):
        search.run(1, workers, end)
        newest = search.answers[-1]
        if newest.continues is not None:
            seen += 1
            rung = [n for n, a in enumerate(search.answers) if a.budget == search.budget(newest.continues)]
            ended = [n for n in rung if n in search.results]
            better = [n for n in ended if search.results[n] is not None]
            better.sort(key=lambda n: sign * (search.results[n] or 0.0))
            # one result may have come between the answer and now
            assert better.index(newest.continues) <= len(ended) // 3
    search.check()
    assert seen > 50
    assert all(len(search.children(number)) <= 1 for number in range(300))


def test_failures_and_stops_count_and_never_go_on() -> None:
    search = Search(ASHA(max_budget=3))
    for outcome in ("failed", "stopped", "completed"):
        search.ask()
        search.end(None, outcome, 5.0 if outcome != "failed" else None)
    child = search.ask()
    assert isinstance(child, Suggestion) and child.continues == 2
    search.end(None, "failed")  # a child that fails blocks nobody, and its parent does not go on again
    for _ in range(2):
        search.ask()
        search.end(None, "cancelled")  # by hand: they say nothing
    assert isinstance(answer := search.ask(), Suggestion) and answer.continues is None


def test_strangers_take_no_part() -> None:
    search = Search(ASHA(max_budget=3))
    for number in range(100, 130):
        search.observe(Suggested(0, number, 0, {"x": 0.3, "n": 1, "TRIAL_BUDGET": 1}, origin="user", budget=1.0))
        search.observe(Ended(0, number, 0, "completed", 1e9))
        search.observe(Imported(0, {"x": 0.3, "n": 2, "TRIAL_BUDGET": 1}, 1e9))
    answer = search.ask()
    assert isinstance(answer, Suggestion) and answer.continues is None


def test_a_small_space_waits_while_something_runs_and_then_ends() -> None:
    search = Search(ASHA(max_budget=9), parse({"x": {"_type": "choice", "_value": [0.1, 0.2, 0.3, 0.4]}}))
    for _ in range(4):
        search.ask()
    assert isinstance(search.ask(), Wait)
    while search.open:
        search.end()
    child = search.ask()
    assert isinstance(child, Suggestion) and child.parameters == {"x": 0.3} and child.budget == 3
    search.end()
    assert isinstance(search.ask(), Exhausted)


def test_brackets_start_on_higher_rungs_by_hyperbands_shares() -> None:
    search = Search(ASHA(max_budget=9, brackets=3))
    search.run(600, 8)
    search.check()
    firsts = Counter(search.budget(n) for n, answer in enumerate(search.answers) if answer.continues is None)
    total = sum(firsts.values())  # Hyperband starts 9, 5 and 3 in its three brackets
    assert [round(firsts[budget] / total * 17) for budget in (1, 3, 9)] == [9, 5, 3]


def test_points_outside_of_a_new_space_do_not_go_on() -> None:
    search = Search(ASHA(max_budget=3))
    for _ in range(6):
        search.ask()
    for _ in range(6):
        search.end()
    search.space = parse({**SPACE.raw, "x": {"_type": "uniform", "_value": [2, 3]}})
    search.observe(SpaceChanged(99, 1, search.space.raw))
    answer = search.ask()
    assert isinstance(answer, Suggestion) and answer.continues is None
    search.space = SPACE  # and back: the former results count again
    answer = search.ask()
    assert isinstance(answer, Suggestion) and answer.continues is not None


def test_phases_of_one_trial_continue_each_other() -> None:
    tuner, space = ASHA(max_budget=3), SPACE
    for phase in range(4):  # a multi-phase trial: all runs are phases of trial 5
        answer = tuner.suggest(Ask(phase, 0, 5, "t5", phase, space, 0, 7))
        assert isinstance(answer, Suggestion)
        name = "checkpoints/5" if not phase else f"checkpoints/5.{phase}"
        assert answer.extras["save_checkpoint_dir"] == name
        tuner.observe(Suggested(phase, 5, phase, {**answer.parameters, **answer.extras}, continues=answer.continues))
        tuner.observe(Ended(phase, 5, phase, "completed", float(phase == 1)))
    assert answer.continues == 5 and answer.extras["load_checkpoint_dir"] == "checkpoints/5.1"


def test_arguments() -> None:
    assert ASHA(min_budget=0.5, max_budget=2.0, eta=2).budgets == [0.5, 1.0, 2.0]
    for wrong in ({"seed": -1}, {"min_budget": 0}, {"max_budget": 0.5}, {"eta": 1}, {"brackets": 6}, {"brackets": 0}):
        with pytest.raises(ValueError, match="allowed"):
            ASHA(**wrong)  # type: ignore[arg-type]
    assert "save_checkpoint_dir" in str(ASHA.refuse(parse({"save_checkpoint_dir": SPACE.raw["x"]})))
