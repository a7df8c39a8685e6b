"""What every tuner must do, whoever wrote it: each one that is found or installed runs through all of this unasked."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune.engine import registry
from tune.engine.plugins import (
    Ask,
    Ended,
    Exhausted,
    Imported,
    Reported,
    SpaceChanged,
    Suggested,
    Suggestion,
    Wait,
)
from tune.engine.space import Space, parse

TUNERS = registry.names("tuner")


def number(kind: str, *values: float) -> dict[str, Any]:
    return {"_type": kind, "_value": list(values)}


def choice(*values: Any) -> dict[str, Any]:
    return {"_type": "choice", "_value": list(values)}


MIXED = {
    "features": choice(128, 256, 512, 1024),
    "lr": number("loguniform", 1e-5, 1),
    "momentum": number("uniform", 0, 1),
    "layers": number("randint", 1, 9),
    "dropout": number("quniform", 0.1, 0.7, 0.1),
    "width": number("qloguniform", 8, 1024, 1),
    "shift": number("normal", 0, 2),
    "step": number("qnormal", 1, 3, 0.5),
    "scale": number("lognormal", 0, 1),
    "count": number("qlognormal", 1, 1, 1),
}
NESTED = {
    "optimizer": choice(
        {"_name": "sgd", "lr": number("loguniform", 1e-4, 1), "nesterov": choice(True, False)},
        {
            "_name": "adam",
            "lr": number("loguniform", 1e-5, 1e-1),
            "warm": choice({"_name": "no"}, {"_name": "yes", "n": number("randint", 1, 9)}),
        },
        {"_name": "none"},
    ),
    "layer": {"_type": "layer_choice", "_value": ["conv", "pool"]},
    "inputs": {"_type": "input_choice", "_value": {"candidates": ["a", "b", "c"], "n_chosen": None}},
}
SPACES: dict[str, dict[str, Any]] = {
    "mixed": MIXED,
    "nested": NESTED,
    "constants": {
        "a": number("uniform", 2, 2),
        "b": choice("only"),
        "c": number("normal", 3, 0),
        "x": number("uniform", 0, 1),
    },
    "wide": {"id": choice(*range(1000)), "x": number("uniform", -1, 1)},
    "many": {f"p{i}": number("uniform", 0, 1) if i % 2 else choice("a", "b", "c") for i in range(100)},
    "extreme": {
        "a": number("uniform", -1.7e308, 1.7e308),
        "b": number("loguniform", 5e-324, 1.7e308),
        "c": number("randint", -(2**62), 2**62),
        "d": number("quniform", 0, 1e300, 1e-300),
        "e": number("lognormal", 0, 1e6),
    },
    "empty": {},
    "list": {
        "combination": choice({"lr": 0.1, "n": 1}, {"lr": 0.2, "n": 1}, {"lr": 0.2, "n": 2}, {"lr": 0.3, "n": [None]})
    },
}
FINITE: dict[str, dict[str, Any]] = {
    "list": SPACES["list"],
    "small": {"a": choice(1, True, "1", None), "b": number("quniform", -5.5, -0.5, 6), "c": number("randint", 0, 3)},
    "tree": {
        "k": choice({"_name": "x", "n": number("randint", 0, 5)}, {"_name": "y"}, {"_name": "z", "c": choice(1, 2)})
    },
    "rare": {
        "q": number("qloguniform", 0.5, 5, 1),
        "in": {"_type": "input_choice", "_value": {"candidates": ["a", "b"], "n_chosen": [0, 1]}},
    },
}

CONSTRAINED: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"batch": choice(16, 32, 64), "width": number("randint", 8, 4096), "lr": number("loguniform", 1e-4, 1)},
        ["batch * width <= 16384", "not (batch == 16 and lr > 0.1)"],
    ),
    (
        {
            "opt": choice({"_name": "sgd", "lr": number("uniform", 0, 1)}, {"_name": "adam", "b": choice(1, 2, 3)}),
            "x": number("uniform", -1, 1),
            "n": number("quniform", 0, 1, 0.25),
        },
        ["lr + x >= 0.5", "b != 2", "n in [0.25, 0.5]"],
    ),
    ({"x": number("uniform", 0, 1), "y": number("uniform", 0, 1)}, ["x + y <= 0.5"]),
]

CHANGES = [
    (MIXED, {**MIXED, "features": choice(128, 64), "lr": number("loguniform", 1e-3, 1)}),
    ({"x": number("uniform", 0, 1)}, {"x": number("uniform", 0.5, 2), "y": number("uniform", 0, 1)}),
    (SPACES["list"], {"combination": choice({"lr": 9.0}, {"lr": 0.1, "n": 1})}),
]


def tuner(name: str, **arguments: Any) -> Any:
    return registry.build(registry.tuner_class(name), arguments)


def accepts(name: str, space: Space) -> bool:
    refuse = getattr(registry.tuner_class(name), "refuse", None)
    return refuse is None or refuse(space) is None


def cases(raws: dict[str, dict[str, Any]], *only: str, dedups: bool = False) -> list[tuple[str, str]]:
    """Every tuner with every space that it takes."""
    found = [(name, which) for name in TUNERS for which in only or raws if accepts(name, parse(raws[which]))]
    return [one for one in found if not dedups or getattr(registry.tuner_class(one[0]), "dedups", False)]


def plain_space(name: str) -> Space:
    """One space that this tuner takes."""
    return next(space for space in map(parse, SPACES.values()) if accepts(name, space))


def outside(name: str, space: Space, answer: Suggestion) -> str | None:
    own = getattr(registry.tuner_class(name), "contains", None)
    return own(space, answer.parameters) if own else space.contains(answer.parameters, answer.extras)


def objective(parameters: Any) -> float:
    return zlib.crc32(msgspec.json.encode(parameters, order="sorted")) / 2**32 - 0.5


class Run:
    """A tuner, the facts it has seen, and the asks it was asked; what an engine does, in a few lines."""

    def __init__(self, tuner: Any, space: Space, seed: int = 7) -> None:
        self.tuner, self.space, self.seed = tuner, space, seed
        self.facts: list[Any] = []
        self.running: list[tuple[int, Any]] = []
        self.asked: list[tuple[Ask, int, Any]] = []  # the ask, how many facts were seen, the answer
        self.trials = self.asks = 0

    def observe(self, fact: Any) -> None:
        if isinstance(fact, Reported) and getattr(self.tuner, "observes", "results") != "intermediates":
            return
        self.facts.append(fact)
        self.tuner.observe(fact)

    def ask(self) -> Any:
        """One answer, observed; after `Wait` a running trial ends first. None: nothing runs and it still waits."""
        attempt = 0
        while True:
            ask = Ask(self.asks, attempt, self.trials, f"t{self.trials}", 0, self.space, 0, self.seed)
            answer = self.tuner.suggest(ask)
            self.asked.append((ask, len(self.facts), answer))
            if not isinstance(answer, Wait):
                break
            if not self.running:
                return None
            self.end()
            attempt += 1
        self.asks += 1
        if isinstance(answer, Suggestion):
            parameters = plain({**answer.parameters, **answer.extras})
            self.observe(Suggested(len(self.facts), self.trials, 0, parameters, ask=ask.number))
            self.running.append((self.trials, parameters))
            self.trials += 1
        return answer

    def end(self, outcome: str = "completed", value: float | None = None, scale: float = 1.0) -> None:
        trial, parameters = self.running.pop(0)
        if outcome == "completed" and value is None:
            value = scale * objective(parameters)
            for step in range(3):
                self.observe(Reported(len(self.facts), trial, 0, step, value * (step + 1) / 3))
        self.observe(Ended(len(self.facts), trial, 0, outcome, value))  # type: ignore[arg-type]

    def mixed(self, count: int, concurrency: int = 1, scale: float = 1.0) -> None:
        """Ask `count` times with so many running at a time and every kind of end."""
        for i in range(count):
            if isinstance(self.ask(), (Exhausted, type(None))):
                break
            if len(self.running) >= concurrency:
                if i % 9 == 4:
                    self.end("failed")
                elif i % 9 == 6:
                    self.end("stopped", -0.3 * scale if i % 2 else None)
                elif i % 9 == 8:
                    self.end("cancelled")
                else:
                    self.end(scale=scale)


def plain(value: Any) -> Any:
    """As it comes out of the log."""
    return json.loads(json.dumps(value, allow_nan=False))


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (not isinstance(a, Suggestion) or text(a) == text(b))


def text(answer: Suggestion) -> str:
    return repr((plain(answer.parameters), plain(answer.extras), answer.budget, answer.continues, answer.parents))


spaces = st.recursive(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.one_of(
            st.lists(
                st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)), min_size=1, max_size=5
            ).map(lambda v: choice(*v)),
            st.tuples(st.integers(-100, 100), st.integers(1, 200)).map(lambda v: number("randint", v[0], v[0] + v[1])),
            st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6)).map(lambda v: number("uniform", v[0], v[0] + v[1])),
            st.tuples(st.floats(-100, 100), st.floats(0, 100), st.floats(1e-3, 50)).map(
                lambda v: number("quniform", v[0], v[0] + v[1], v[2])
            ),
            st.tuples(st.floats(1e-9, 10), st.floats(1, 1e9)).map(lambda v: number("loguniform", v[0], v[0] * v[1])),
            st.tuples(st.floats(1e-3, 10), st.floats(1, 1e3), st.floats(1e-2, 5)).map(
                lambda v: number("qloguniform", v[0], v[0] * v[1], v[2])
            ),
            st.tuples(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 5)).map(lambda v: number("qnormal", *v)),
            st.tuples(st.floats(-5, 5), st.floats(0, 5)).map(lambda v: number("lognormal", *v)),
        ),
        max_size=4,
    ),
    lambda inner: st.builds(
        lambda own, left, right: {**own, "tree": choice({"_name": "left", **left}, {"_name": "right", **right})},
        inner,
        inner,
        inner,
    ),
    max_leaves=3,
)


class TestTuner:
    """The contract, one tuner at a time."""

    @pytest.mark.parametrize("name", TUNERS)
    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(raw=spaces, seed=st.integers(0, 1000))
    def test_answers_lie_in_any_space(self, name: str, raw: dict[str, Any], seed: int) -> None:
        space = parse(raw)
        if not accepts(name, space):
            return
        run = Run(tuner(name), space, seed)
        run.mixed(14, concurrency=2)
        for _, _, answer in run.asked:
            if isinstance(answer, Suggestion):
                assert outside(name, space, answer) is None
                assert len(json.dumps(answer.decision, allow_nan=False)) <= 1024

    @pytest.mark.parametrize(("name", "which"), cases(SPACES))
    @pytest.mark.parametrize("concurrency", [1, 8, 64])
    def test_concurrency(self, name: str, which: str, concurrency: int) -> None:
        space = parse(SPACES[which])
        run = Run(tuner(name), space)
        run.mixed(concurrency + 15, concurrency)
        answers = [answer for _, _, answer in run.asked if isinstance(answer, Suggestion)]
        assert answers
        for answer in answers:
            assert outside(name, space, answer) is None
            assert {type(v) for v in answer.parameters.values()} <= {int, float, str, bool, dict, list, type(None)}

    @pytest.mark.parametrize(("name", "which"), cases(SPACES, "mixed", "nested", "list"))
    def test_rebuilt_from_facts_alone_it_answers_the_same(self, name: str, which: str) -> None:
        space = parse(SPACES[which])
        run = Run(tuner(name), space)
        run.mixed(26, concurrency=3)
        for ask, seen, answer in run.asked:
            again = tuner(name)
            for fact in run.facts[:seen]:
                again.observe(msgspec.json.decode(msgspec.json.encode(fact), type=type(fact)))
            other = Ask(ask.number, ask.attempt, ask.trial, ask.trial_id, 0, parse(space.raw), 0, ask.seed)
            assert same(again.suggest(other), answer)

    @pytest.mark.parametrize(("name", "which"), cases(SPACES, "mixed", "nested", "list"))
    def test_suggest_learns_nothing(self, name: str, which: str) -> None:
        space = parse(SPACES[which])
        quiet, pestered = Run(tuner(name), space), Run(tuner(name), space)
        for i in range(22):
            for number_ in (99, 5, i):  # answers that nobody takes
                pestered.tuner.suggest(Ask(number_, 3, 0, "x", 0, space, 0, 7))
            expected, found = quiet.ask(), pestered.ask()
            assert same(expected, found)
            for run in (quiet, pestered):
                if run.running:
                    run.end("failed" if i % 5 == 4 else "completed")

    @pytest.mark.parametrize(("name", "which"), cases(SPACES, "mixed", "nested", "list"))
    def test_strangers_are_welcome(self, name: str, which: str) -> None:
        space = parse(SPACES[which])
        run = Run(tuner(name), space)
        draw = random.Random(3)
        for i in range(20):
            point = plain(space.sample(draw.random))
            run.observe(Ended(i, 1000 + i, 0, "completed", 1.0))  # of a phase that nobody saw
            run.observe(Reported(i, 1000 + i, 0, 0, math.nan))
            run.observe(Suggested(i, 2000 + i, i % 3, point, origin="user"))
            run.observe(Suggested(i, 3000 + i, 0, {"other": [1, {"deep": None}]}, origin="user"))
            run.observe(Suggested(i, 4000 + i, 0, {**point, "TRIAL_BUDGET": 3}, budget=3.0))
            run.observe(Ended(i, 2000 + i, i % 3, "completed", objective(point)))
            run.observe(Ended(i, 2000 + i, i % 3, "failed", None))  # a second end
            run.observe(Ended(i, 3000 + i, 0, "completed", 5.0))
            run.observe(Imported(i, point, None if i % 3 else 0.25))
            run.observe(Imported(i, {}, 9.0))
            answer = run.ask()
            if isinstance(answer, Suggestion):
                assert outside(name, space, answer) is None
                run.end()

    @pytest.mark.parametrize("name", TUNERS)
    def test_every_answer_meets_the_constraints(self, name: str) -> None:
        for raw, texts in CONSTRAINED:
            space = parse(raw, texts)
            if not accepts(name, space):
                continue
            run = Run(tuner(name), space)
            run.mixed(40, concurrency=4)
            answers = [answer for _, _, answer in run.asked if isinstance(answer, Suggestion)]
            assert answers
            for answer in answers:
                assert outside(name, space, answer) is None

    @pytest.mark.parametrize(("name", "which"), cases(FINITE, dedups=True))
    def test_a_finite_space_ends_and_nothing_comes_twice(self, name: str, which: str) -> None:
        space = parse(FINITE[which])
        cls = registry.tuner_class(name)
        run = Run(tuner(name), space)
        size = space.size
        assert size is not None
        run.observe(
            Imported(
                0,
                plain(space.point(0) if not hasattr(cls, "contains") else next(iter(space.raw.values()))["_value"][0]),
                1.0,
            )
        )
        run.mixed(size + 5, concurrency=2)
        answers = [text(answer) for _, _, answer in run.asked if isinstance(answer, Suggestion)]
        assert len(set(answers)) == len(answers) == size - 1
        assert isinstance(run.asked[-1][2], Exhausted)
        assert isinstance(run.ask(), Exhausted)

    @pytest.mark.parametrize("outcome", ["failed", "stopped", "cancelled"])
    @pytest.mark.parametrize("name", TUNERS)
    def test_trials_without_a_value_do_not_poison(self, name: str, outcome: str) -> None:
        space = plain_space(name)
        run = Run(tuner(name), space)
        for i in range(40):
            answer = run.ask()
            if not isinstance(answer, Suggestion):
                break
            assert outside(name, space, answer) is None
            if run.running:
                run.end("completed" if i > 25 else outcome)

    @pytest.mark.parametrize("name", TUNERS)
    def test_values_of_any_size_do_not_poison(self, name: str) -> None:
        space = plain_space(name)
        run = Run(tuner(name), space)
        for i in range(30):
            answer = run.ask()
            if not isinstance(answer, Suggestion):
                break
            assert outside(name, space, answer) is None
            run.end("completed", [1.7e308, -1.7e308, 0.0, 5e-324, 3.0][i % 5])

    @pytest.mark.parametrize(("name", "which"), cases(SPACES, "mixed", "nested", "list"))
    def test_minimize_is_maximize_of_the_negative(self, name: str, which: str) -> None:
        space = parse(SPACES[which])
        up = Run(tuner(name, optimize_mode="maximize"), space)
        down = Run(tuner(name, optimize_mode="minimize"), space)
        up.mixed(25, concurrency=2)
        down.mixed(25, concurrency=2, scale=-1.0)
        assert [repr(a) if not isinstance(a, Suggestion) else text(a) for _, _, a in up.asked] == [
            repr(a) if not isinstance(a, Suggestion) else text(a) for _, _, a in down.asked
        ]

    @pytest.mark.parametrize("name", TUNERS)
    def test_a_new_space_holds_from_the_next_ask(self, name: str) -> None:
        pairs = [(parse(first), parse(second)) for first, second in CHANGES]
        first, second = next(pair for pair in pairs if all(accepts(name, space) for space in pair))
        run = Run(tuner(name), first)
        run.mixed(15, concurrency=2)
        run.observe(SpaceChanged(0, 1, second.raw))
        run.space = second
        seen = len(run.asked)
        run.mixed(15, concurrency=2)
        answers = [answer for _, _, answer in run.asked[seen:] if isinstance(answer, Suggestion)]
        assert answers
        assert all(outside(name, second, answer) is None for answer in answers)

    @pytest.mark.parametrize("name", TUNERS)
    def test_it_does_not_change_what_it_was_given(self, name: str) -> None:
        space = plain_space(name)
        before = json.dumps(space.raw)
        run = Run(tuner(name), space)
        for _ in range(20):
            answer = run.ask()
            if not isinstance(answer, Suggestion):
                break
            dict(answer.parameters).clear()
            for value in answer.parameters.values():
                if isinstance(value, dict):
                    value.clear()  # whoever gets an answer may do with it what he likes
            run.end()
        assert json.dumps(space.raw) == before

    @pytest.mark.parametrize("name", TUNERS)
    def test_arguments(self, name: str) -> None:
        cls = registry.tuner_class(name)
        with pytest.raises(TypeError):
            cls(optimise_mode="maximize")
        with pytest.raises(TypeError):
            cls("maximize")
        assert cls(optimize_mode="minimize") is not None
        assert registry.check_arguments(cls, {"optimize_mode": "minimize"}) == []
        assert registry.check_arguments(cls, {"optimize_mode": "most"})
        assert registry.check_arguments(cls, {"no_such_argument": 1})


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_tuners import *
digest = hashlib.sha256()
for name in TUNERS:
    for which in ("nested", "mixed", "list"):
        space = parse(SPACES[which])
        if not accepts(name, space):
            continue
        run = Run(tuner(name), space)
        run.mixed(16, 2)
        digest.update(repr([text(a) for _, _, a in run.asked if isinstance(a, Suggestion)]).encode())
print(digest.hexdigest())
"""


def test_answers_do_not_depend_on_the_process() -> None:
    found = set()
    for hash_seed, zone, locale in (("0", "UTC", "C"), ("4711", "Asia/Tokyo", "C.UTF-8")):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone, "LC_ALL": locale}
        command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__)]  # noqa: PTH120
        found.add(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1
