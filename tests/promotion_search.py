"""A tuner that promotes, and what an engine does with it, in a few lines: for the tests of such tuners."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tune.engine.plugins import Ask, Ended, Exhausted, Suggested, Suggestion, Wait
from tune.engine.space import Space, parse

SPACE = parse({"x": {"_type": "uniform", "_value": [0, 1]}, "n": {"_type": "randint", "_value": [1, 100]}})


def loss(parameters: Any) -> float:
    """Falls with the budget, and is better the closer x is to 0.3."""
    return abs(parameters["x"] - 0.3) + 1.0 / parameters.get("TRIAL_BUDGET", 1)


class Search:
    """A tuner with its trials: `answers` by trial number, `open` the numbers of those that run."""

    def __init__(self, tuner: Any, space: Space = SPACE, sign: float = -1.0) -> None:
        self.tuner, self.space, self.sign = tuner, space, sign
        self.answers: list[Suggestion] = []
        self.open: list[int] = []
        self.results: dict[int, float | None] = {}
        self.facts: list[Any] = []
        self.asks = 0

    def observe(self, fact: Any) -> None:
        """Give the tuner a fact."""
        self.facts.append(fact)
        self.tuner.observe(fact)

    def ask(self) -> Suggestion | Wait | Exhausted:
        """One answer; a suggestion becomes a running trial."""
        number = len(self.answers)
        answer = self.tuner.suggest(Ask(self.asks, 0, number, f"t{number}", 0, self.space, 0, 7))
        self.asks += 1
        if isinstance(answer, Suggestion):
            assert self.space.contains(answer.parameters, answer.extras) is None
            parameters = json.loads(json.dumps({**answer.parameters, **answer.extras}))
            continues, budget = answer.continues, answer.budget
            self.observe(Suggested(len(self.facts), number, 0, parameters, continues=continues, budget=budget))
            self.answers.append(answer)
            self.open.append(number)
        return answer

    def end(self, number: int | None = None, outcome: Any = "completed", value: float | None = None) -> int:
        """A running trial (the oldest one) ends."""
        number = self.open[0] if number is None else number
        self.open.remove(number)
        answer = self.answers[number]
        if outcome == "completed" and value is None:
            value = self.sign * loss({**answer.parameters, **answer.extras})
        self.results[number] = value if outcome == "completed" else None
        self.observe(Ended(len(self.facts), number, 0, outcome, value))
        return number

    def run(self, count: int, workers: int = 1, end: Callable[[Search], object] | None = None) -> None:
        """Ask `count` times with so many trials at a time; `end` ends one instead of `Search.end`."""
        for _ in range(count):
            answer = self.ask()
            while isinstance(answer, Wait):
                assert self.open, f"it waits, and nothing runs: {answer.reason}"
                (end or Search.end)(self)
                answer = self.ask()
            if isinstance(answer, Exhausted):
                break
            if len(self.open) >= workers:
                (end or Search.end)(self)

    def budget(self, number: int) -> float | None:
        """The budget of a trial."""
        return self.answers[number].budget

    def children(self, number: int) -> list[int]:
        """The trials that continue a trial."""
        return [child for child, answer in enumerate(self.answers) if answer.continues == number]

    def check(self) -> None:
        """Whoever goes on had a result, has it from its own folder, with the same point, and does so once."""
        for number, answer in enumerate(self.answers):
            save, load = answer.extras["save_checkpoint_dir"], answer.extras["load_checkpoint_dir"]
            if answer.continues is None:
                assert load == save
                continue
            parent = self.answers[answer.continues]
            assert load == parent.extras["save_checkpoint_dir"] != save
            assert answer.parents == (answer.continues,) and answer.continues < number
            assert self.results.get(answer.continues) is not None
        folders = [answer.extras["save_checkpoint_dir"] for answer in self.answers]
        assert len(set(folders)) == len(folders)
