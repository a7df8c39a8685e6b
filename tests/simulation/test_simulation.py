"""The whole program in deterministic simulation: a handful of histories with faults, judged (P1 to P4, P6, P9, P10)."""

from __future__ import annotations

import pytest
from world import World, settings_of


@pytest.mark.parametrize("seed", range(20))
def test_a_history_keeps_the_promises(seed: int) -> None:
    outcome = World(settings_of(seed, hosts=1 + seed % 3, events=200)).run()
    assert not outcome.violations, f"REPRO: just simulate --seed {seed} --hosts {1 + seed % 3} --events 200"
    assert outcome.events > 50


def test_the_same_seed_is_the_same_history() -> None:
    for seed in (3, 8):
        first, second = (World(settings_of(seed, hosts=2, events=150)).run() for _ in range(2))
        assert (first.trace, first.events, first.steps) == (second.trace, second.events, second.steps)


def test_another_seed_is_another_history() -> None:
    traces = {World(settings_of(seed, events=100, faults=1)).run().trace for seed in range(3)}
    assert len(traces) == 3
