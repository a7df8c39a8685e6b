"""PBT: members go on from their checkpoints, the worst from copies of the best, and nobody is lost."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from promotion_search import SPACE, Search

from tune.engine.plugins import Ask, SpaceChanged, Suggestion, Wait
from tune.engine.space import parse
from tune.tuners.pbt import PBT, moved, perturbed


def members(search: Search) -> list[tuple[int, int]]:
    return [(a.decision["member"], a.decision["step"]) for a in search.answers]


@pytest.mark.parametrize("workers", [1, 4, 10, 30])
def test_steps_of_members(workers: int) -> None:
    search = Search(PBT())
    search.run(80, workers)
    search.check()
    found = members(search)
    assert len(set(found)) == 80
    steps = Counter(member for member, _ in found)
    assert set(steps) == set(range(10)) and max(steps.values()) - min(steps.values()) <= 1
    for (member, step), answer in zip(found, search.answers, strict=True):
        assert answer.extras["save_checkpoint_dir"] == f"checkpoints/{member}-{step}"
        assert (answer.continues is None) == (step == 0)
        if answer.continues is not None:
            of, before = found[answer.continues]
            assert before == step - 1
            assert (of == member) == (answer.decision["rule"] == "go on")
            if of == member:
                assert answer.parameters == search.answers[answer.continues].parameters


def test_the_worst_fifth_copies_the_best_fifth() -> None:
    search = Search(PBT())
    for _ in range(10):
        search.ask()
    for number in range(10):
        search.end(number, "completed", float(number))
    for _ in range(10):
        search.ask()
    rules = [a.decision["rule"] for a in search.answers[10:]]
    assert rules == ["exploit"] * 2 + ["go on"] * 8
    for answer in search.answers[10:12]:
        assert answer.continues in (8, 9)
        assert answer.parameters != search.answers[answer.continues].parameters  # type: ignore[index]


def test_all_members_run_and_then_it_waits() -> None:
    search = Search(PBT(population_size=3))
    for _ in range(3):
        assert isinstance(search.ask(), Suggestion)
    assert isinstance(search.ask(), Wait)
    search.end(1)
    answer = search.ask()
    assert isinstance(answer, Suggestion) and answer.decision["member"] == 1


@pytest.mark.parametrize("outcome", ["failed", "stopped", "cancelled"])
def test_a_member_that_fails_goes_on_from_another_or_starts_anew(outcome: str) -> None:
    search = Search(PBT(population_size=2))
    search.ask()
    search.end(0, outcome, 3.0 if outcome == "stopped" else None)
    search.ask()
    search.end(1, outcome)
    anew = search.ask()
    assert isinstance(anew, Suggestion) and anew.continues is None and anew.decision["rule"] == "start anew"
    search.ask()
    search.end(2)
    search.end(3, outcome)
    search.ask()  # member 0 goes on
    answer = search.ask()
    assert isinstance(answer, Suggestion) and answer.continues == 2 and answer.decision["rule"] == "exploit"
    search.check()


def test_the_order_of_facts_around_an_answer_does_not_matter() -> None:
    search = Search(PBT(population_size=2))
    search.ask()
    search.ask()
    search.end(1)
    answer = search.tuner.suggest(search_ask(search))  # asked while member 0 runs ...
    search.end(0)  # ... which ends before the answer is observed
    assert answer.decision["member"] == 1
    assert isinstance(now := search.ask(), Suggestion) and now.decision["member"] == 0


def search_ask(search: Search) -> Ask:
    return Ask(search.asks, 0, len(search.answers), "t", 0, search.space, 0, 7)


def test_a_population_gets_better_and_longer() -> None:
    search = Search(PBT())

    def end(search: Search) -> None:
        number = search.open[0]
        search.end(number, "completed", -abs(search.answers[number].parameters["x"] - 0.3))

    search.run(300, 5, end)
    last = [a.parameters["x"] for a in search.answers[-10:]]
    first = [a.parameters["x"] for a in search.answers[:10]]
    assert np.median(np.abs(np.array(last) - 0.3)) < np.median(np.abs(np.array(first) - 0.3)) / 2


def test_a_new_space_takes_members_along_that_lie_in_it() -> None:
    search = Search(PBT(population_size=4))
    search.run(8)
    while search.open:
        search.end()
    search.space = parse({**SPACE.raw, "x": {"_type": "uniform", "_value": [2, 3]}})
    search.observe(SpaceChanged(99, 1, search.space.raw))
    for _ in range(4):
        answer = search.ask()
        assert isinstance(answer, Suggestion) and answer.continues is None


def test_perturbation_by_kind() -> None:
    space = parse(
        {
            "lr": {"_type": "loguniform", "_value": [1e-4, 1]},
            "n": {"_type": "randint", "_value": [1, 10]},
            "q": {"_type": "quniform", "_value": [0, 1, 0.25]},
            "b": {"_type": "choice", "_value": [16, 32, 64]},
            "z": {"_type": "normal", "_value": [0, 1]},
            "l": {"_type": "layer_choice", "_value": ["a", "b"]},
        }
    )
    lr, n, q, b, z, layer = (space.by_key[key] for key in ("lr", "n", "q", "b", "z", "l"))
    assert moved(lr, 0.1, True, 0.2) == pytest.approx(0.12) and moved(lr, 0.1, False, 0.2) == pytest.approx(0.08)
    assert moved(lr, 0.9, True, 0.2) == pytest.approx(1.0)  # at most the bound
    assert moved(n, 1, True, 0.2) == 2 and moved(n, 9, True, 0.2) == 9 and moved(n, 8, False, 0.5) == 4
    assert moved(q, 0.0, True, 0.2) == 0.25 and moved(q, 0.0, False, 0.2) == 0.0
    assert [moved(b, v, up, 0.2) for v, up in ((32, True), (32, False), (64, True))] == [64, 16, 64]
    assert moved(z, 2.0, True, 0.2) == pytest.approx(2.4)
    assert moved(layer, {"_value": "a", "_idx": 0}, True, 0.2) == {"_value": "a", "_idx": 0}
    point = space.sample(random.Random(1).random)
    generator = np.random.default_rng(0)
    for _ in range(50):
        assert space.contains(perturbed(space, point, 0.2, 0.25, generator)) is None
    assert perturbed(space, point, 0.0, 0.0, generator)["lr"] == pytest.approx(point["lr"])


def test_constraints_hold_and_the_copy_stays_when_nothing_else_does() -> None:
    space = parse({"a": {"_type": "choice", "_value": list(range(100))}}, ["a == 50"])
    assert perturbed(space, {"a": 50}, 0.2, 0.0, np.random.default_rng(0)) == {"a": 50}


def test_a_folder_of_ones_own() -> None:
    search = Search(PBT(all_checkpoint_dir="/data/run 7/"))
    search.run(25, 2)
    search.check()
    assert search.answers[0].extras["save_checkpoint_dir"] == "/data/run 7/0-0"


def test_arguments() -> None:
    for wrong in (
        {"all_checkpoint_dir": "here"},
        {"population_size": 0},
        {"fraction": 0.6},
        {"factor": -0.1},
        {"resample_probability": 1.5},
        {"seed": -1},
    ):
        with pytest.raises(ValueError, match="allowed"):
            PBT(**wrong)  # type: ignore[arg-type]
    assert "PBT itself" in str(PBT.refuse(parse({"load_checkpoint_dir": SPACE.raw["x"]})))
