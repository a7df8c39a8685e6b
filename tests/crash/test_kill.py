"""Kills with -9 at any moment, then resume: nothing is lost, doubled, started twice or left over.

TUNE_CRASHES=N runs N points of the first test instead of 15, and of the others in proportion. A failure prints one
line, REPRO, with the seed that repeats it: TUNE_CRASH_SEED=S runs that one point of each.
"""

from __future__ import annotations

import os
import random
import signal
import time

import checker
import pytest
from harness import Bench, Experiment, gone

from tune.engine.verify import verify


def points(default: int) -> list[int]:
    """The seeds to run: `default` of them, or in proportion when TUNE_CRASHES says how many the first test gets."""
    if seed := os.environ.get("TUNE_CRASH_SEED"):
        return [int(seed)]
    count = int(os.environ.get("TUNE_CRASHES", "15"))
    return list(range(max(1, default * count // 15)))


def sleep_seeded(dice: random.Random, longest: float, seed: int, what: str) -> None:
    """Wait for a random moment, and say which."""
    moment = dice.uniform(0, longest)
    print(f"REPRO TUNE_CRASH_SEED={seed} {what} after {moment:.4f} s")
    time.sleep(moment)


def running(experiment: Experiment) -> dict[tuple[int, int], int]:
    """(trial, attempt) -> pid, of the trials that run now as the log says."""
    state = experiment.state()
    return {(trial.number, trial.attempt): trial.pid or 0 for trial in state.made if trial.status == "RUNNING"}


def adopted(experiment: Experiment, before: dict[tuple[int, int], int]) -> None:
    """Those that ran keep pid and attempt to their end: no second attempt, no second LAUNCHED."""
    attempts = {row.trial: row.body["attempt"] for row in experiment.facts("LAUNCH") if row.body.get("attempt")}
    for number, _ in before:
        assert number not in attempts, f"trial {number} ran when the engine died and was started again"


def whole(experiment: Experiment, trials: int) -> None:
    """DONE, and everything holds."""
    state = experiment.finish()
    assert state.status == "DONE", (state.status, state.reason)
    assert state.counts["SUCCEEDED"] == trials, state.counts
    experiment.check(trials)
    result = verify(experiment.folder.events)
    assert result.ok and not result.reason, result
    experiment.assert_nothing_left()


@pytest.mark.parametrize("seed", points(15))
def test_engine_killed_at_a_random_moment(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    experiment = bench.experiment(
        trial_command=bench.fake(steps=6, sleep=0.04), trial_concurrency=4, max_trial_number=10, seed=seed
    )
    experiment.start()
    before: dict[tuple[int, int], int] = {}
    for kill in range(dice.choice([1, 1, 2, 3])):
        sleep_seeded(dice, 1.6, seed, f"kill {kill}")
        if gone(experiment.pid, 0):
            break
        experiment.kill_engine()
        before |= running(experiment)
        time.sleep(dice.choice([0, 0, 0.1, 0.6]))
        experiment.start()
    whole(experiment, 10)
    adopted(experiment, before)


@pytest.mark.parametrize("seed", points(4))
def test_keeper_killed_at_a_random_moment(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    experiment = bench.experiment(
        trial_command=bench.fake(steps=6, sleep=0.04), trial_concurrency=4, max_trial_number=10, seed=seed
    )
    experiment.start()
    for kill in range(3):
        sleep_seeded(dice, 0.6, seed, f"kill keeper {kill}")
        if pid := experiment.keeper_pid():
            os.kill(pid, signal.SIGKILL)
            gone(pid)
    whole(experiment, 10)  # a launch that was being made when the keeper died is made again, as another attempt


@pytest.mark.parametrize("seed", points(3))
def test_engine_and_keeper_killed(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    experiment = bench.experiment(
        trial_command=bench.fake(steps=8, sleep=0.05), trial_concurrency=4, max_trial_number=8, seed=seed
    )
    experiment.start()
    experiment.until(lambda state: state.metrics > 0)
    sleep_seeded(dice, 0.8, seed, "kill both")
    keeper = experiment.keeper_pid()
    first, second = dice.sample([experiment.pid, keeper], 2)
    for pid in (first, second):
        if pid and not gone(experiment.pid, 0):
            os.kill(pid, signal.SIGKILL)
            gone(pid)
    time.sleep(dice.choice([0, 0.5, 1.0]))
    before = running(experiment)
    if experiment.state().status != "DONE":
        experiment.start()
    whole(experiment, 8)
    adopted(experiment, before)


@pytest.mark.parametrize("seed", points(3))
def test_tuner_host_killed(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    experiment = bench.experiment(
        tuner={"name": "TPE", "class_args": {"optimize_mode": "maximize"}},
        trial_command=bench.fake(steps=1, sleep=0.02),
        trial_concurrency=2,
        max_trial_number=8,
        seed=seed,
    )
    experiment.start()
    for kill in range(2):
        sleep_seeded(dice, 0.7, seed, f"kill tuner host {kill}")
        if pid := experiment.tuner_host_pid():
            os.kill(pid, signal.SIGKILL)
            gone(pid)
    whole(experiment, 8)


_undisturbed: dict[str, dict[tuple[int, int], object]] = {}


@pytest.mark.parametrize("seed", points(3))
@pytest.mark.parametrize("tuner", ["TPE", "Random"])
def test_sequential_suggestions_are_those_of_an_undisturbed_run(bench: Bench, tuner: str, seed: int) -> None:
    dice = random.Random(seed)

    def made() -> Experiment:
        return bench.experiment(
            tuner={"name": tuner, "class_args": {"tpe_args": {"n_startup_jobs": 4}} if tuner == "TPE" else {}},
            trial_command=bench.fake(steps=1, sleep=0.01),
            trial_concurrency=1,
            max_trial_number=12,
            seed=3,
        )

    if tuner not in _undisturbed:
        calm = made()
        calm.start()
        whole(calm, 12)
        _undisturbed[tuner] = checker.parameters(calm.rows())
        bench.witness.unlink()
    experiment = made()
    experiment.start()
    for kill in range(2):
        sleep_seeded(dice, 1.2, seed, f"kill {kill}")
        if gone(experiment.pid, 0):
            break
        experiment.kill_engine()
        experiment.start()
    whole(experiment, 12)
    assert checker.parameters(experiment.rows()) == _undisturbed[tuner]


@pytest.mark.parametrize("seed", points(2))
def test_multi_phase_killed_in_the_middle_of_a_phase(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    experiment = bench.experiment(
        multi_phase=True,
        max_phases_per_trial=4,
        trial_command=bench.fake(phases=4, steps=3, sleep=0.03, first_phase=True),
        trial_concurrency=3,
        max_trial_number=3,
        seed=seed,
    )
    experiment.start()
    for kill in range(2):
        sleep_seeded(dice, 0.9, seed, f"kill {kill}")
        if gone(experiment.pid, 0):
            break
        experiment.kill_engine()
        experiment.start()
    whole(experiment, 3)
    assert set(checker.parameters(experiment.rows())) == {(t, p) for t in range(3) for p in range(4)}
