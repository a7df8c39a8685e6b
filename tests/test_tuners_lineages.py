"""Lineages: which runs are the tuner's own, and which one continues which, read from their folders."""

from __future__ import annotations

from typing import Any

import pytest

from tune.engine.plugins import Ask, Ended, Imported, Suggested
from tune.engine.space import Space, parse
from tune.tuners._lineages import Runs, extras, folder, reserved, seed_checked

SPACE = Space({}, ())


def ask(trial: int, phase: int = 0) -> Ask:
    return Ask(trial, 0, trial, "t", phase, SPACE, 0, 7)


def given(trial: int, load: int | None = None, budget: Any = 1, **more: Any) -> Suggested:
    parameters = {"x": 1, **extras(f"checkpoints/{trial}", None if load is None else f"checkpoints/{load}", budget)}
    return Suggested(trial, trial, 0, parameters, **more)


def test_a_child_knows_its_parent_and_both_their_ends() -> None:
    runs = Runs(-1.0)
    for fact in (given(0), Ended(1, 0, 0, "completed", 0.5), given(1, 0, 3), Ended(3, 1, 0, "failed", None)):
        runs.observe(fact)
    parent, child = runs.all
    assert (parent.kind, parent.parent, parent.rank, parent.budget) == ("ours", None, (0.0, -0.5, 0), 1)
    assert (child.parent, child.rank, child.state, child.parameters) == (0, None, "failed", {"x": 1})
    assert runs.events == [0, ~0, 1, ~1]
    assert runs.running == 0


def test_who_is_a_stranger() -> None:
    runs = Runs(1.0)
    runs.observe(given(0, origin="user"))  # by hand, with the parameters of another trial
    runs.observe(given(1, 99))  # continues what nobody knows
    runs.observe(Suggested(2, 2, 0, {"x": 1, "TRIAL_BUDGET": 3}))  # another tuner's
    runs.observe(Suggested(3, 3, 0, {"load_checkpoint_dir": 3, "save_checkpoint_dir": 3}))
    runs.observe(given(4))
    runs.observe(given(4))  # a folder that is somebody's already
    runs.observe(Imported(5, {"x": 2, "TRIAL_BUDGET": 9}, 0.25))
    assert [run.kind for run in runs.all] == ["stranger"] * 4 + ["ours", "stranger", "imported"]
    assert runs.running == 1
    assert (runs.all[-1].rank, runs.all[-1].budget) == ((0.0, 0.25, 6), 9)


@pytest.mark.parametrize(
    ("outcome", "value", "state", "rank"),
    [
        ("completed", 2.0, "completed", (0.5, 2.0, 0)),
        ("completed", None, "failed", None),
        ("stopped", 2.0, "stopped", None),
        ("cancelled", None, "cancelled", None),
    ],
)
def test_only_what_was_completed_has_a_rank(outcome: Any, value: Any, state: str, rank: Any) -> None:
    runs = Runs(1.0)
    runs.observe(given(0, budget=True))
    runs.observe(Ended(1, 0, 0, outcome, value, violation=0.5))
    runs.observe(Ended(2, 0, 0, "failed", None))  # a second end
    runs.observe(Ended(3, 8, 0, "completed", 1.0))  # of one that nobody saw
    [run] = runs.all
    assert (run.state, run.rank, run.budget) == (state, rank, None)
    assert runs.events == [0, ~0] and runs.running == 0


def test_folders_and_names() -> None:
    assert folder(ask(12)) == "checkpoints/12" and folder(ask(12, 3)) == "checkpoints/12.3"
    assert extras("a") == {"load_checkpoint_dir": "a", "save_checkpoint_dir": "a"}
    assert extras("a", "b", 3) == {"TRIAL_BUDGET": 3, "load_checkpoint_dir": "b", "save_checkpoint_dir": "a"}
    space = parse({"TRIAL_BUDGET": {"_type": "choice", "_value": [1]}})
    assert "TRIAL_BUDGET is what ASHA itself tells" in str(reserved(space, "ASHA"))
    assert reserved(SPACE, "ASHA") is None
    assert seed_checked(None) is None and seed_checked(3) == 3
    with pytest.raises(ValueError, match="seed is -1"):
        seed_checked(-1)
