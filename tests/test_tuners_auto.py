"""Auto: the choice is a function of space, budget and results, is said, and each tuner goes on where another was."""

from __future__ import annotations

from typing import Any

import pytest

from tune.engine.plugins import Ask, Ended, Exhausted, Imported, Suggested, Suggestion
from tune.engine.space import Space, parse
from tune.tuners import auto
from tune.tuners.auto import Auto, choose


def uniform(count: int) -> dict[str, Any]:
    return {f"x{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(count)}


def choices(*sizes: int) -> dict[str, Any]:
    return {f"c{i}": {"_type": "choice", "_value": list(range(size))} for i, size in enumerate(sizes)}


BRANCHES = {"b": {"_type": "choice", "_value": [{"_name": "u", **uniform(1)}, {"_name": "v"}]}}


def ask(n: int, space: Space, budget: int | None = None) -> Ask:
    return Ask(n, 0, n, "t", 0, space, 0, 3, max_trial_number=budget)


@pytest.mark.parametrize(
    ("raw", "results", "budget", "expected"),
    [
        (choices(4, 4), 0, 16, "GridSearch"),
        (choices(4, 4), 0, None, "GridSearch"),
        (choices(4, 4), 0, 10, "GP"),
        (choices(9, 9), 0, 1000, "GP"),
        (uniform(5), 299, None, "GP"),
        (uniform(5), 300, None, "TPE"),
        (uniform(5), 300, 1000, "CMAES"),
        (uniform(5), 300, 499, "TPE"),
        (uniform(21), 0, 209, "TPE"),
        (uniform(21), 0, 210, "CMAES"),
        ({**uniform(21), **choices(3)}, 0, 5000, "CMAES"),
        ({**uniform(21), **BRANCHES}, 0, 5000, "TPE"),
        ({**uniform(5), **choices(3)}, 300, 5000, "TPE"),
        (BRANCHES, 300, 5000, "TPE"),
    ],
)
def test_the_choice(monkeypatch: pytest.MonkeyPatch, raw: Any, results: int, budget: int | None, expected: str) -> None:
    monkeypatch.setattr(auto, "_takes", lambda name, space: True)
    choice = choose(parse(raw), results, budget)
    assert choice.tuner == expected
    assert choice.why


def test_a_tuner_that_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_takes", lambda name, space: name != "GP")
    assert choose(parse(uniform(5)), 0, 1000).tuner == "TPE"
    assert choose(parse(uniform(5)), 300, 1000).tuner == "CMAES"


def test_what_it_chose_stands_in_the_record() -> None:
    space = parse(uniform(21))
    answer = Auto().suggest(ask(0, space))
    assert isinstance(answer, Suggestion)
    assert answer.decision == {"tuner": "TPE", "why": "21 parameters, 0 results", "rule": "random start"}


def test_a_tuner_goes_on_where_another_was() -> None:
    space = parse(uniform(21))
    best = {f"x{i}": 0.25 for i in range(21)}
    tuner = Auto(optimize_mode="minimize")
    for n in range(40):
        answer = tuner.suggest(ask(n, space))
        assert isinstance(answer, Suggestion) and answer.decision["tuner"] == "TPE"
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters), ask=n))
        tuner.observe(Ended(n, n, 0, "completed", 1.0))
    tuner.observe(Imported(40, best, 0.0))
    late = tuner.suggest(ask(41, space, budget=5000))
    assert isinstance(late, Suggestion) and late.decision["tuner"] == "CMAES"
    assert late.decision["observed"] == 0  # of its own points; it begins at the best of the others'
    assert all(abs(x - 0.25) <= 0.75 for x in late.parameters.values())


@pytest.mark.parametrize("sizes", [(3, 4), (3, 5, 7)])
def test_a_finite_space_ends_when_all_was_tried(sizes: tuple[int, ...]) -> None:
    space = parse(choices(*sizes))
    tuner, seen = Auto(), set[str]()
    for n in range(200):
        answer = tuner.suggest(ask(n, space))
        if isinstance(answer, Exhausted):
            break
        assert isinstance(answer, Suggestion)
        assert repr(answer.parameters) not in seen
        seen.add(repr(answer.parameters))
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters), ask=n))
        tuner.observe(Ended(n, n, 0, "completed", float(n % 5)))
    assert len(seen) == space.size


def test_arguments() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        Auto(seed=-1)
    wide = {"_type": "input_choice", "_value": {"candidates": list(range(60)), "n_chosen": None}}
    assert "i has more" in str(Auto.refuse(parse({"i": wide})))
