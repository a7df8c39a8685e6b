"""Runs that go on with each other's checkpoints: what a tuner that promotes has observed of them, and how they find
their folders.

A promotion is a new trial: it gets the parameters of the trial that it continues, a larger budget, and two folders.
`save_checkpoint_dir` is its own, `load_checkpoint_dir` that of the trial which it continues; of one that starts afresh
it's its own too, where it finds what an earlier attempt of it has saved, or nothing. The log names the folders
`checkpoints/<trial>`, so that it means the same on every machine; the trial's SDK makes absolute paths of them.

A run is what one phase of one trial does. The tuner's own are told from others by their folders: which run continues
which is in the parameters themselves, and a tuner that is rebuilt reads it there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..engine.plugins import Ask, Ended, Imported, Observation, Suggested
from ..engine.space import Space
from ._history import EXTRAS, State

BUDGET, LOAD, SAVE = "TRIAL_BUDGET", "load_checkpoint_dir", "save_checkpoint_dir"
FOLDER = "checkpoints"

Budget: TypeAlias = int | float
Rank: TypeAlias = tuple[float, float, int]  # by how much it fails the constraints, loss, number: less is better
Kind: TypeAlias = Literal["ours", "stranger", "imported"]


@dataclass(slots=True)
class Run:
    """One training: its point, how far it trains, whose checkpoint it continues, and what became of it."""

    index: int
    trial: int  # -1 for an imported one
    kind: Kind
    parameters: dict[str, Any]  # without the extras
    budget: float | None = None
    save: str = ""  # its folder, as the log names it
    parent: int | None = None  # the index of the run whose checkpoint it continues
    state: State = "pending"
    value: float | None = None  # finite
    rank: Rank | None = None  # of a completed one


class Runs:
    """All runs in the order in which they were suggested or imported, and their starts and ends in order of time."""

    def __init__(self, sign: float) -> None:
        self.all: list[Run] = []
        self.events: list[int] = []  # i: run i has got its parameters; ~i: it has ended
        self.running = 0  # how many of the tuner's own have not ended
        self._sign = sign  # of a loss: 1 when less is better
        self._open: dict[tuple[int, int], int] = {}
        self._by_folder: dict[str, int] = {}

    def observe(self, fact: Observation) -> None:
        """Take in one fact; ends of phases that were never seen, and second ends, say nothing."""
        match fact:
            case Suggested():
                run = self._add(fact.trial, fact.parameters)
                save, load = fact.parameters.get(SAVE), fact.parameters.get(LOAD)
                self._open[fact.trial, fact.phase] = run.index
                parent = self._by_folder.get(load) if isinstance(load, str) and load != save else None
                known = load == save or parent is not None
                if fact.origin == "tuner" and isinstance(save, str) and save not in self._by_folder and known:
                    run.kind, run.save, run.parent = "ours", save, parent
                    self._by_folder[save] = run.index
                    self.running += 1
            case Ended():
                index = self._open.pop((fact.trial, fact.phase), None)
                if index is not None:
                    self.running -= self.all[index].kind == "ours"
                    self._end(self.all[index], fact.outcome, fact.value, fact.violation)
            case Imported():
                run = self._add(-1, fact.parameters)
                run.kind = "imported"
                self._end(run, "completed", fact.value)
            case _:
                pass

    def _add(self, trial: int, parameters: Mapping[str, Any]) -> Run:
        budget = parameters.get(BUDGET)
        if isinstance(budget, bool) or not isinstance(budget, int | float):
            budget = None
        own = {key: value for key, value in parameters.items() if key not in EXTRAS}
        run = Run(len(self.all), trial, "stranger", own, budget)
        self.all.append(run)
        self.events.append(run.index)
        return run

    def _end(self, run: Run, state: State, value: float | None, violation: float = 0.0) -> None:
        run.state = state
        if value is not None and math.isfinite(value) and state in ("completed", "stopped"):
            run.value = float(value)
        if state == "completed":
            if run.value is None:
                run.state = "failed"
            else:
                run.rank = (violation, self._sign * run.value, run.index)
        self.events.append(~run.index)


def folder(ask: Ask) -> str:
    """The checkpoint folder of the run that this ask becomes."""
    return f"{FOLDER}/{ask.trial}" if not ask.phase else f"{FOLDER}/{ask.trial}.{ask.phase}"


def extras(save: str, load: str | None = None, budget: Budget | None = None) -> dict[str, Any]:
    """What a run gets beside its point; `load` None: it starts afresh."""
    given: dict[str, Any] = {} if budget is None else {BUDGET: budget}
    return {**given, LOAD: save if load is None else load, SAVE: save}


def reserved(space: Space, tuner: str) -> str | None:
    """Why a tuner that gives extras can't search this space: it has a parameter of such a name. None when it can."""
    taken = [name for name in space.raw if name in EXTRAS]
    return f"{taken[0]} is what {tuner} itself tells a trial; give the parameter another name" if taken else None


def seed_checked(seed: int | None) -> int | None:
    """The seed, or a `ValueError`."""
    if seed is not None and seed < 0:
        raise ValueError(f"seed is {seed}, an integer >= 0 is allowed")
    return seed
