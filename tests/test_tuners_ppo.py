"""PPO: its advantages are those of the paper, its chances those that it draws with, and it learns what pays."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import Space, parse
from tune.tuners._torch import numbers
from tune.tuners.ppo import PPO, Policy, advantages, ranks

CHOICES = parse({f"c{i}": {"_type": "choice", "_value": list(range(5))} for i in range(5)})
NESTED = parse(
    {
        "k": {
            "_type": "choice",
            "_value": [
                {"_name": "a", "n": {"_type": "randint", "_value": [2, 6]}},
                {"_name": "b", "i": {"_type": "input_choice", "_value": {"candidates": ["u", "v"], "n_chosen": 1}}},
            ],
        },
        "l": {"_type": "layer_choice", "_value": ["conv", "pool"]},
    }
)


def run(tuner: PPO, space: Space, loss: Any, count: int) -> list[Suggestion]:
    found = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, space, 0, 1))
        assert isinstance(answer, Suggestion)
        found.append(answer)
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
        tuner.observe(Ended(n, n, 0, "completed", loss(answer.parameters)))
    return found


def test_advantages() -> None:
    values = np.array([[0.5, 0.2, 0.1], [0.3, 9.0, 0.4]])
    active = np.array([[True, True, True], [True, False, True]])
    found = advantages(values, active, np.array([1.0, -1.0]), gamma=0.9, lam=0.8)
    last = 1.0 - 0.1
    middle = 0.9 * 0.1 - 0.2 + 0.72 * last
    assert found[0] == pytest.approx([0.9 * 0.2 - 0.5 + 0.72 * middle, middle, last])
    end = -1.0 - 0.4
    assert found[1] == pytest.approx([0.9 * 0.4 - 0.3 + 0.72 * end, 0.0, end])  # what is skipped does not count
    cut = advantages(values[:1], np.array([[True, False, False]]), np.array([1.0]), 0.9, 0.8)
    assert cut[0] == pytest.approx([0.5, 0.0, 0.0])  # the reward comes after the last active one


def test_rewards_are_ranks() -> None:
    assert ranks([(0.0, 3.0), (0.0, -1e300), (1.0, -9.0), None]).tolist() == pytest.approx([1 / 3, 1.0, -1 / 3, -1.0])
    assert ranks([(0.0, 1.0)] * 3).tolist() == [0.0, 0.0, 0.0]
    assert ranks([None]).tolist() == [1.0]


def test_the_chances_are_those_it_draws_with() -> None:
    policy = Policy(NESTED, np.random.default_rng(0), 0.01)
    codes, chances = policy.draw(4000, np.random.default_rng(1))
    with torch.no_grad():
        logs, _, _ = policy._evaluated(numbers(codes))
    assert chances == pytest.approx((logs.numpy() * (codes >= 0)).sum(axis=1))
    k, n, i = (NESTED.by_key[key].index for key in ("k", "k/a/n", "k/b/i"))
    assert ((codes[:, n] >= 0) == (codes[:, k] == 0)).all() and ((codes[:, i] >= 0) == (codes[:, k] == 1)).all()
    counted = Counter(map(tuple, codes.tolist()))
    expected = {tuple(row): float(np.exp(chance)) for row, chance in zip(codes.tolist(), chances, strict=True)}
    assert sum(expected.values()) == pytest.approx(1.0)  # 4000 draws have met every point
    assert all(counted[row] / 4000 == pytest.approx(share, abs=0.025) for row, share in expected.items())


def test_it_learns_in_full_batches_what_pays() -> None:
    tuner = PPO(optimize_mode="minimize", trials_per_update=10)
    found = run(tuner, CHOICES, lambda p: float(sum(p[f"c{i}"] != i for i in range(5))), 150)
    assert [answer.decision["updates"] for answer in found] == [n // 10 for n in range(150)]
    right = [sum(answer.parameters[f"c{i}"] == i for i in range(5)) for answer in found]
    assert np.mean(right[:30]) < 2.0 and np.mean(right[-30:]) > 3.0
    assert max(right) == 5


def test_nested_choices() -> None:
    found = run(PPO(trials_per_update=10), NESTED, lambda p: float(p["k"].get("n", 0)), 60)
    assert all(NESTED.contains(answer.parameters) is None for answer in found)
    assert np.mean([answer.parameters["k"].get("n") == 5 for answer in found[-15:]]) > 0.5
    assert found[-1].decision["rule"] == "policy, nothing new among those drawn"  # there are twelve points


def test_arguments_and_spaces() -> None:
    for name, value in {"minibatch_size": 0, "lr": 0.0, "gamma": 1.5, "cliprange": -1.0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            PPO(**{name: value})  # type: ignore[arg-type]
    assert "x (uniform) has values that can't be counted" in str(
        PPO.refuse(parse({"x": {"_type": "uniform", "_value": [0, 1]}}))
    )
    assert "n (randint) has 300 values" in str(PPO.refuse(parse({"n": {"_type": "randint", "_value": [0, 300]}})))
    assert PPO.refuse(NESTED) is None
