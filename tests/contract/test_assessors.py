"""What every assessor must do: each one that is found or installed runs through all of this unasked."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import pytest

from tune.engine import registry
from tune.engine.plugins import Ended, Imported, Reported, SpaceChanged, Stopped, Suggested

ASSESSORS = registry.names("assessor")
NEEDED: dict[str, dict[str, Any]] = {  # what an assessor can't be built without
    "Curvefitting": {"epoch_num": 13},
    "Threshold": {"lower": 0.1, "upper": 1.1},
}


def assessor(name: str, **arguments: Any) -> Any:
    return registry.build(registry.assessor_class(name), {**NEEDED.get(name, {}), **arguments})


def history(seed: int, sign: float = 1.0) -> list[Any]:
    """Forty trials, eight at a time, that climb at different speeds; some fail, some are stopped, some start again."""
    draw = random.Random(seed)
    facts: list[Any] = []
    running: dict[int, list[float]] = {}  # trial -> [speed, next step]
    trial = 0
    while trial < 40 or running:
        if trial < 40 and len(running) < 8:
            facts.append(Suggested(len(facts), trial, 0, {"x": draw.random()}))
            running[trial] = [draw.random(), 0]
            trial += 1
            continue
        one = draw.choice(sorted(running))
        speed, step = running[one]
        if step >= 12 or draw.random() < 0.02:
            outcome = draw.choice(["completed"] * 6 + ["failed", "stopped", "cancelled"])
            value = sign * speed if outcome in ("completed", "stopped") else None
            facts.append(Ended(len(facts), one, 0, outcome, value))  # type: ignore[arg-type]
            del running[one]
            continue
        value = sign * speed * (1 - math.exp(-step / 4)) + draw.gauss(0, 0.02)
        if draw.random() < 0.05:
            value = draw.choice([math.nan, math.inf, -math.inf])
        facts.append(Reported(len(facts), one, 0, int(step), value))
        running[one][1] = 0 if draw.random() < 0.01 else step + 1
    return facts


def verdicts(subject: Any, facts: list[Any], also: bool = False) -> list[bool]:
    found: list[bool] = []
    for fact in facts:
        subject.observe(fact)
        if isinstance(fact, Reported):
            if also:
                for other in range(45):
                    subject.verdict(other)
            verdict = subject.verdict(fact.trial)
            assert verdict is None or (isinstance(verdict, Stopped) and verdict.why)
            found.append(verdict is not None)
    return found


@pytest.mark.parametrize("name", ASSESSORS)
class TestAssessor:
    """The contract, one assessor at a time."""

    def test_it_asks_for_intermediates(self, name: str) -> None:
        assert registry.assessor_class(name).observes == "intermediates"

    def test_rebuilt_from_facts_alone_it_judges_the_same(self, name: str) -> None:
        facts = history(1)
        subject = assessor(name)
        for seen, fact in enumerate(facts, 1):
            subject.observe(fact)
            if isinstance(fact, Reported) and seen % 11 == 0:
                again = assessor(name)
                for one in facts[:seen]:
                    again.observe(msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=type(one)))
                assert again.verdict(fact.trial) == subject.verdict(fact.trial)

    def test_verdict_learns_nothing(self, name: str) -> None:
        assert verdicts(assessor(name), history(2)) == verdicts(assessor(name), history(2), also=True)

    def test_of_an_unknown_or_ended_trial_there_is_no_verdict(self, name: str) -> None:
        subject = assessor(name)
        assert subject.verdict(0) is None
        for fact in history(3):
            subject.observe(fact)
        assert [subject.verdict(trial) for trial in range(60)] == [None] * 60

    def test_strangers_are_welcome(self, name: str) -> None:
        subject = assessor(name)
        for fact in [
            Reported(0, 7, 0, 0, 1.0),
            Ended(1, 8, 3, "completed", 1.0),
            Imported(2, {"x": 1}, None),
            SpaceChanged(3, 1, {}),
            Suggested(4, 9, 0, {"x": [None]}, origin="user"),
            Reported(5, 9, 4, 0, 1.0),  # a phase that it doesn't have
            Reported(6, 9, 0, 5, 1.0),  # steps were left out
        ]:
            subject.observe(fact)
        assert subject.verdict(7) is None
        assert verdicts(subject, history(4))

    def test_only_numbers_that_are_none(self, name: str) -> None:
        subject = assessor(name)
        for trial in range(12):
            subject.observe(Suggested(0, trial, 0, {}))
            for step in range(8):
                subject.observe(Reported(0, trial, 0, step, (math.nan, math.inf, -math.inf)[trial % 3]))
                subject.verdict(trial)
            subject.observe(Ended(0, trial, 0, "failed"))
        assert verdicts(subject, history(5))

    def test_a_retry_begins_anew(self, name: str) -> None:
        facts = history(6)
        once, twice = assessor(name), assessor(name)
        for subject in (once, twice):
            for fact in facts:
                subject.observe(fact)
            subject.observe(Suggested(0, 50, 0, {}))
        for step in range(6):
            twice.observe(Reported(0, 50, 0, step, -99.0))
        for step in range(9):
            for subject in (once, twice):
                subject.observe(Reported(0, 50, 0, step, 0.5))
            assert once.verdict(50) == twice.verdict(50)

    def test_arguments(self, name: str) -> None:
        cls = registry.assessor_class(name)
        with pytest.raises(TypeError):
            cls(optimise_mode="maximize")
        assert registry.check_arguments(cls, {"no_such_argument": 1})
        assert registry.check_arguments(cls, {"optimize_mode": "minimize", **NEEDED.get(name, {})}) == []
