"""Metis: it learns, exploits and explores as told, and measures again what the other results contradict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ask, Ended, Imported, Suggested, Suggestion
from tune.engine.space import parse
from tune.tuners.metis import Metis

PLANE = parse({name: {"_type": "uniform", "_value": [0, 1]} for name in "xy"})


def bowl(p: Any) -> float:
    return (p["x"] - 0.3) ** 2 + (p["y"] - 0.6) ** 2


def ask(tuner: Any, n: int) -> Suggestion:
    answer = tuner.suggest(Ask(n, 0, n, "t", 0, PLANE, 0, 0))
    assert isinstance(answer, Suggestion)
    tuner.observe(Suggested(n, n, 0, dict(answer.parameters)))
    return answer


def taught(wrong: int | None = None, **arguments: Any) -> tuple[Metis, list[dict[str, Any]]]:
    """One that knows 24 points, one of them with an absurd result."""
    tuner, draw = Metis(optimize_mode="minimize", **arguments), np.random.default_rng(0)
    points = [PLANE.sample(draw.random) for _ in range(24)]
    for n, point in enumerate(points):
        tuner.observe(Imported(n, point, 0.9 if n == wrong else bowl(point)))
    return tuner, points


def test_it_learns() -> None:
    tuner, found = Metis(optimize_mode="minimize"), []
    for n in range(30):
        found.append(bowl(ask(tuner, n).parameters))
        tuner.observe(Ended(n, n, 0, "completed", found[-1]))
    assert min(found[12:]) < min(found[:10]) / 10


def test_exploitation_and_exploration() -> None:
    tame = ask(taught(exploration_probability=0.0)[0], 0)
    bold = ask(taught(exploration_probability=1.0)[0], 0)
    assert tame.decision["rule"] == "exploitation" and bold.decision["rule"] == "exploration"
    assert bowl(tame.parameters) < 0.01
    assert tame.parameters != bold.parameters
    only = ask(taught(exploration_probability=1.0, no_candidates=True)[0], 0)
    assert only.decision["rule"] == "exploitation"


def test_what_is_contradicted_is_measured_again_once() -> None:
    draw = np.random.default_rng(0)
    near = [bowl(PLANE.sample(draw.random)) for _ in range(24)]
    wrong = int(np.argsort(near)[4])
    tuner, points = taught(wrong, no_resampling=False)
    answer = ask(tuner, 0)
    assert answer.decision["rule"] == "resampling" and answer.parameters == points[wrong]
    assert ask(tuner, 1).parameters != points[wrong]
    exact, _ = taught(wrong)
    assert ask(exact, 0).decision["rule"] != "resampling"


def test_arguments() -> None:
    few, many = taught(selection_num_starting_points=5)[0], taught(selection_num_starting_points=900)[0]
    assert any(ask(few, n).parameters != ask(many, n).parameters for n in range(2))
    assert "first" in ask(Metis(cold_start_num=3), 0).decision["rule"]
    later, _ = taught(cold_start_num=40)
    assert ask(later, 0).decision["rule"] == "first design"
    with pytest.raises(ValueError, match="seed"):
        Metis(seed=-1)
