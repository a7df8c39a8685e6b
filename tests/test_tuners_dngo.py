"""DNGO: its regression is the textbook's, its network learns, and both depend on the results alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tune.engine.plugins import Ask, Ended, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners._torch import one_thread, tensor
from tune.tuners.dngo import DNGO, Network, Regression

SPACE = parse({"x": {"_type": "uniform", "_value": [-1, 1]}, "y": {"_type": "uniform", "_value": [-1, 1]}})


def run(tuner: DNGO, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for n in range(count):
        answer = tuner.suggest(Ask(n, 0, n, "t", 0, SPACE, 0, 1))
        assert isinstance(answer, Suggestion)
        found.append({**answer.parameters, "decision": answer.decision})
        tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
        loss = (answer.parameters["x"] - 0.4) ** 2 + (answer.parameters["y"] + 0.6) ** 2
        tuner.observe(Ended(n, n, 0, "completed", loss))
    return found


def test_the_regression_is_that_of_the_textbook() -> None:
    draw = np.random.default_rng(0)
    x, slopes = draw.standard_normal((200, 6)), draw.standard_normal(6)
    regression = Regression(tensor(x), x @ slopes + 0.1 * draw.standard_normal(200))
    inverse = np.linalg.inv(regression.noise * x.T @ x + regression.prior * np.eye(6))
    new = draw.standard_normal((5, 6))
    mean, deviation = regression.predict(tensor(new))
    assert mean == pytest.approx(new @ slopes, abs=0.1)
    assert deviation == pytest.approx(np.sqrt(np.einsum("ij,jk,ik->i", new, inverse, new)), rel=1e-6)
    assert regression.noise == pytest.approx(100, rel=0.35)  # of a standard deviation of 0.1


def test_the_network_learns_the_same_twice() -> None:
    draw = np.random.default_rng(1)
    x = draw.uniform(-1, 1, (300, 2))
    y = np.sin(3 * x[:, 0]) * x[:, 1]
    with one_thread():
        networks = [Network(x[:200], y[:200], 300, np.random.default_rng(5)) for _ in range(2)]
        features = [network.features(x) for network in networks]
        mean, _ = Regression(features[0][:200], y[:200]).predict(features[0][200:])
    assert torch.equal(*features) and features[0].shape == (300, 51)
    assert np.corrcoef(mean, y[200:])[0, 1] > 0.95


def test_it_is_trained_at_counts_of_results_only() -> None:
    tuner = DNGO(optimize_mode="minimize", sample_size=200, trials_per_update=10, num_epochs_per_training=60)
    found = run(tuner, 35)
    rules = [one["decision"]["rule"] for one in found]
    assert rules == ["random start"] * 10 + ["expected improvement"] * 25
    assert [one["decision"]["network_from"] for one in found[10:]] == [10] * 10 + [20] * 10 + [30] * 5
    best = min((one["x"] - 0.4) ** 2 + (one["y"] + 0.6) ** 2 for one in found)
    assert best < 0.03


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_arguments_and_spaces() -> None:
    for name, value in {"sample_size": 3, "trials_per_update": 1, "num_epochs_per_training": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            DNGO(**{name: value})  # type: ignore[arg-type]
    wide = parse({"c": {"_type": "choice", "_value": list(range(201))}})
    assert DNGO.refuse(wide) == "c has more than 200 values without an order, too many for DNGO"
    assert DNGO.refuse(SPACE) is None
