"""The whole program in deterministic simulation: a handful of histories with faults, judged (P1 to P4, P6, P9, P10)."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, changed, hunt
from world import World, settings_of, with_devices


@pytest.mark.parametrize("seed", range(20))
def test_a_history_keeps_the_promises(seed: int) -> None:
    outcome = World(settings_of(seed, hosts=1 + seed % 3, events=200)).run()
    assert not outcome.violations, f"REPRO: just simulate --seed {seed} --hosts {1 + seed % 3} --events 200"
    assert outcome.events > 50


@pytest.mark.parametrize("seed", range(20))
def test_a_history_of_trials_that_want_devices_keeps_the_promises(seed: int) -> None:
    outcome = World(with_devices(settings_of(seed, hosts=1 + seed % 3, events=200))).run()
    assert not outcome.violations, f"REPRO: just simulate --devices --seed {seed} --hosts {1 + seed % 3} --events 200"


def test_a_command_tells_of_nothing_that_is_not_durable() -> None:
    """A launch that was queued for one attempt once went out as the next one, whose LAUNCH was not yet on disk."""
    outcome = World(settings_of(30439, hosts=2, events=300)).run()
    assert not outcome.violations, "REPRO: just simulate --seed 30439 --hosts 2 --events 300"


def test_the_same_seed_is_the_same_history() -> None:
    for seed in (3, 8):
        first, second = (World(settings_of(seed, hosts=2, events=150)).run() for _ in range(2))
        assert (first.trace, first.events, first.steps) == (second.trace, second.events, second.steps)


def test_another_seed_is_another_history() -> None:
    traces = {World(settings_of(seed, events=100, faults=1)).run().trace for seed in range(3)}
    assert len(traces) == 3


@pytest.mark.parametrize("name", ["acknowledged before the commit", "no dedup", "a new attempt keeps its number"])
def test_a_planted_bug_is_caught(name: str) -> None:
    [index] = [index for index, mutant in enumerate(MUTANTS) if mutant.name == name]
    assert hunt(index, 40)[1] is not None


def test_every_mutant_still_fits_the_code() -> None:
    assert len(MUTANTS) >= 50
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        changed(mutant)
