"""Curvefitting: known curves are carried on right, hopeless trials end, good ones go on, whatever the signs."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
import pytest

from tune.engine.plugins import Ended, OptimizeMode, Reported, Suggested
from tune.tuners.curvefitting import Curvefitting, predict

CURVES: dict[str, Any] = {
    "power": lambda t: 0.9 - 0.5 * t**-0.7,
    "exponential": lambda t: 0.9 - 0.5 * np.exp(-t / 7),
    "loss": lambda t: 0.3 + 2.0 * t**-1.0,
    "logarithm": lambda t: 0.2 + 0.1 * np.log(t),
    "constant": lambda t: 0.5 + 0.0 * t,
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("scale", [1.0, -1e9, 1e-9])
def test_a_known_curve_is_carried_on(name: str, scale: float) -> None:
    t = np.arange(1, 21)
    curve = CURVES[name]
    expected, error = predict(array("q", range(20)), array("d", scale * curve(t)), 50)
    truth = scale * float(curve(np.array([50.0]))[0])
    assert abs(expected - truth) < 0.025 * abs(scale)
    assert error < 0.2 * abs(scale)


def test_what_has_hardly_begun_is_uncertain() -> None:
    t = np.arange(1, 7)
    _, error = predict(array("q", range(6)), array("d", 0.01 / (1 + np.exp(-(t - 20) / 3))), 50)
    done = np.arange(1, 41)
    _, late = predict(array("q", range(40)), array("d", 0.01 / (1 + np.exp(-(done - 20) / 3))), 50)
    assert late < error / 20


def test_extremes() -> None:
    for values in ([1.7e308, -1.7e308, 0.0, 1.0, 5e-324], [0.0, 5e-324, 0.0, 5e-324], [1e-300] * 5):
        expected, error = predict(array("q", range(len(values))), array("d", values), 10)
        assert math.isfinite(expected) and math.isfinite(error)
    long = array("d", np.sqrt(np.arange(1, 10_001)).tolist())
    assert predict(array("q", range(10_000)), long, 20_000)[0] == pytest.approx(math.sqrt(20_000), rel=0.15)


def complete(subject: Curvefitting, trial: int, values: list[float]) -> int | None:
    """Run a trial to its end or its verdict; the step of that, from 1."""
    subject.observe(Suggested(0, trial, 0, {}))
    for step, value in enumerate(values):
        subject.observe(Reported(0, trial, 0, step, value))
        if subject.verdict(trial) is not None:
            subject.observe(Ended(0, trial, 0, "stopped", value))
            return step + 1
    subject.observe(Ended(0, trial, 0, "completed", values[-1]))
    return None


@pytest.mark.parametrize(
    ("mode", "first", "best", "bar"),
    [
        ("maximize", 0.1, 0.9, 0.9 - 0.05 * 0.9),  # as in NNI
        ("minimize", 2.0, 0.1, 0.1 + 0.05 * 1.9),  # a share of the way, since the best is near 0
        ("maximize", -2.0, -0.1, -0.1 - 0.05 * 1.9),
        ("minimize", -1.0, -9.0, -9.0 + 0.05 * 9.0),
        ("maximize", 0.0, 0.0, 0.0),
    ],
)
def test_the_bar(mode: OptimizeMode, first: float, best: float, bar: float) -> None:
    subject = Curvefitting(optimize_mode=mode, epoch_num=2)
    assert subject.bar == -math.inf
    complete(subject, 0, [first, best])
    assert subject.bar == pytest.approx(bar if mode == "maximize" else -bar)


def test_the_hopeless_end_and_the_promising_go_on() -> None:
    t = np.arange(1, 31)
    subject = Curvefitting(epoch_num=30)
    assert complete(subject, 0, (0.9 - 0.6 * t**-0.8).tolist()) is None
    assert complete(subject, 1, (0.5 - 0.3 * np.exp(-t / 3)).tolist()) in range(6, 20)
    assert complete(subject, 2, (0.89 - 0.6 * t**-0.8).tolist()) is None
    assert complete(subject, 3, (0.95 - 0.9 * np.exp(-t / 10)).tolist()) is None  # slow, but it gets there


def test_start_step_gap_and_the_end() -> None:
    flat = [0.1] * 30
    for start, gap, expected in ((6, 1, 6), (9, 1, 9), (0, 1, 4), (6, 5, 6)):
        subject = Curvefitting(epoch_num=30, start_step=start, gap=gap)
        complete(subject, 0, [0.9] * 30)
        assert complete(subject, 1, flat) == expected
    subject = Curvefitting(epoch_num=30, start_step=6, gap=5)
    complete(subject, 0, [0.9] * 30)
    subject.observe(Suggested(0, 1, 0, {}))
    asked = []
    for step in range(40):
        subject.observe(Reported(0, 1, 0, step, 0.1))
        asked += [step + 1] if subject.verdict(1) is not None else []
    assert asked == [6, 11, 16, 21, 26]  # not after the last epoch


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_false_stops_are_rare_and_epochs_are_saved(mode: OptimizeMode) -> None:
    """Noisy curves of three families: the best of the population go on, and a third of the epochs is saved."""
    t, sign = np.arange(1, 31), 1.0 if mode == "maximize" else -1.0
    best_stopped = reaching_stopped = saved = count = 0
    for seed in range(12):
        draw = np.random.default_rng(seed)
        curves: list[Any] = []
        for i in range(50):
            top = draw.uniform(0.5, 0.95)
            shape = (
                t ** -draw.uniform(0.3, 1.5),
                np.exp(-t / draw.uniform(2, 15)),
                1 - 1 / (1 + np.exp(-(t - draw.uniform(2, 12)) / draw.uniform(1, 4))),
            )[i % 3]
            curves.append(top - draw.uniform(0.2, 0.5) * shape + 0.01 * draw.standard_normal(30))
        finals = np.array([one[-1] for one in curves])
        subject = Curvefitting(optimize_mode=mode, epoch_num=30)
        for trial, curve in enumerate(curves):
            step = complete(subject, trial, (sign * curve).tolist())
            if step is not None:
                saved += 30 - step
                best_stopped += bool(finals[trial] >= np.sort(finals)[-3])
                reaching_stopped += bool(finals[trial] > subject.bar)
        count += 50
    assert best_stopped <= 1
    assert reaching_stopped <= 0.01 * count
    assert saved >= 0.33 * 30 * count


def test_arguments() -> None:
    for name, value in {"epoch_num": 1, "start_step": -1, "threshold": 1.5, "gap": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Curvefitting(**{"epoch_num": 20, name: value})  # type: ignore[arg-type]
