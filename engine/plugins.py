"""The plug-in protocols: what a tuner, an assessor and a training service are, and the facts that they get.

A tuner is a second reducer over the log. **suggest learns nothing, observe learns everything**: an answer is a
function of (the facts observed so far, the ask), so a tuner rebuilt from the log answers bit for bit the same, and
nothing is ever pickled. All randomness comes from `Ask.generator()`.

The file's name is the plug-in's registration (`tuners/tpe.py` holds `TPE`), its constructor's keyword-only arguments
are its options.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np

    from .config import Config
    from .space import Space

Outcome: TypeAlias = Literal["completed", "stopped", "failed", "cancelled"]
OptimizeMode: TypeAlias = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One of several things to optimise: a key of the dict that a trial reports."""

    key: str
    mode: OptimizeMode


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for parameters. Asking again after `Wait` is the same number with the next attempt.

    `max_trial_number` (None: no limit) and `trial_concurrency` are the experiment's limits as far as the tuner has
    observed them; `objectives` is empty unless the experiment has several.
    """

    number: int
    attempt: int
    trial: int
    trial_id: str
    phase: int
    space: Space
    space_version: int
    seed: int  # the experiment's
    waiting: int = 0  # how many more asks stand behind this one
    objectives: tuple[Objective, ...] = ()
    max_trial_number: int | None = None
    trial_concurrency: int = 1
    results: Callable[[int, int], Awaitable[Ended]] | None = field(default=None, repr=False, compare=False)

    def result_of(self, trial: int, phase: int = 0) -> Awaitable[Ended]:
        """Wait for the end of another trial (or of one of its phases): only in an `async def suggest`.

        It may have ended already, and it may have ended without a value: `Ended` says how.
        """
        if self.results is None:
            raise RuntimeError("result_of needs a tuner with concurrent = True and an async def suggest")
        return self.results(trial, phase)

    def generator(self, seed: int | None = None) -> np.random.Generator:
        """A fresh generator of its own for this ask: Philox keyed by (seed, number, attempt)."""
        import numpy as np

        words = np.random.SeedSequence([self.seed if seed is None else seed, self.number, self.attempt])
        return np.random.Generator(np.random.Philox(words))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A point of the space, and what belongs to it."""

    parameters: Mapping[str, Any]
    extras: Mapping[str, Any] = field(default_factory=dict[str, Any])  # TRIAL_BUDGET, load_/save_checkpoint_dir
    budget: float | None = None
    continues: int | None = None  # the trial whose checkpoint this one goes on with (promotion is a new trial)
    parents: tuple[int, ...] = ()
    decision: Mapping[str, Any] = field(default_factory=dict[str, Any])  # for `tune why`: <= 1 KB as JSON


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing yet: ask again when something new was observed."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing more, ever; with `trial` nothing more for the trial that asks for a further phase: it gets None."""

    reason: str = ""
    trial: bool = False


class Suggested(Struct, frozen=True, tag="Suggested", array_like=True):
    """A phase got its parameters: by this tuner, or by hand (`origin` "user"; a stranger to the tuner)."""

    seq: int
    trial: int
    phase: int
    parameters: dict[str, Any]  # as the trial gets them, extras included
    trial_id: str = ""
    ask: int | None = None
    origin: str = "tuner"
    continues: int | None = None
    budget: float | None = None


class Reported(Struct, frozen=True, tag="Reported", array_like=True, gc=False):
    """An intermediate result; only for plug-ins with `observes = "intermediates"`. `value` may be NaN or infinite.

    `step` counts from 0 within the phase's current attempt; a `step` of 0 starts the curve anew (a retry).
    """

    seq: int
    trial: int
    phase: int
    step: int
    value: float


class Ended(Struct, frozen=True, tag="Ended", array_like=True):
    """A phase is over, and no attempt of it will follow.

    completed: `value` is its finite final result, observed as soon as it was reported. stopped: early, `value` is its
    last finite intermediate or None. failed: no finite result. cancelled: its point counts as taken, without a value.

    `values`: with several objectives, the finite number of each in the config's order (`value` is the first); else
    empty. `violation`: by how much the result fails the outcome constraints; 0.0 when it meets them, and finite.
    `raw`: the final result as JSON text, whatever was reported; "" when there is none, and for tuners that are not
    `stateful`.
    """

    seq: int
    trial: int
    phase: int
    outcome: Outcome
    value: float | None = None
    values: list[float] = []
    violation: float = 0.0
    raw: str = ""


class TrialEnded(Struct, frozen=True, tag="TrialEnded", array_like=True):
    """A trial is over with all its phases, and no attempt will follow; only for plug-ins that are `stateful`."""

    seq: int
    trial: int
    status: str  # SUCCEEDED, FAILED, USER_CANCELED, SYS_CANCELED, EARLY_STOPPED, LOST


class Imported(Struct, frozen=True, tag="Imported", array_like=True):
    """A result from elsewhere. `value` may be None: no finite number. `values`, `violation` as in `Ended`."""

    seq: int
    parameters: dict[str, Any]
    value: float | None
    values: list[float] = []
    violation: float = 0.0


class SpaceChanged(Struct, frozen=True, tag="SpaceChanged", array_like=True):
    """The search space was replaced; asks carry the new one from here on."""

    seq: int
    version: int
    space: dict[str, Any]


class LimitsChanged(Struct, frozen=True, tag="LimitsChanged", array_like=True):
    """The experiment's limits are others now; the tuner sees them in its asks, and gets no fact of its own."""

    seq: int
    trial_concurrency: int
    max_trial_number: int | None


class Asked(Struct, frozen=True, tag="Asked", array_like=True):
    """In a rebuild: an ask stands here in the log. The host puts it again to a `stateful` tuner, which never sees this.

    `seq` is that of the fact before it; `answer` is what the log holds as the answer: JSON text of the parameters,
    "wait", "exhausted", or "" where it comes later (a concurrent tuner) or never came.
    """

    seq: int
    number: int
    attempt: int
    trial: int
    trial_id: str
    phase: int
    answer: str = ""


Observation: TypeAlias = Suggested | Reported | Ended | TrialEnded | Imported | SpaceChanged | LimitsChanged | Asked


class Tuner(Protocol):
    """Proposes parameters. Asks are serial; every answer is observed (as Suggested) before the next ask.

    Class attributes, all with these defaults when missing: `observes = "results"` (or "intermediates"),
    `deterministic = True`, `multi_objective = False` (True: it may be asked with several objectives), and
    `refuse(space) -> str | None`, a static method that says why it can't search a space.

    `concurrent = True`, or an `async def suggest`: every ask is put at once, and may take until another trial has
    ended; facts are observed meanwhile. A plain `suggest` then has a thread of its own for each ask, an `async def
    suggest` shares one thread with `observe`. `stateful = True`: `suggest` learns, so that a rebuild puts all recorded
    asks again, each at its place in the log (what was recorded as the answer holds); such a tuner also observes
    `TrialEnded`, and `Ended.raw`.
    """

    def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
        """Answer one ask. Must not change what later answers are."""
        ...

    def observe(self, fact: Observation) -> None:
        """Take in one fact, in log order."""
        ...


class Stopped(Struct, frozen=True):
    """An assessor's verdict: this trial is hopeless, and why."""

    why: str


class Assessor(Protocol):
    """Says that a trial is hopeless. It observes intermediates; after each one it is asked for a verdict."""

    def observe(self, fact: Observation) -> None:
        """Take in one fact, in log order."""
        ...

    def verdict(self, trial: int) -> Stopped | None:
        """Whether this trial is to be stopped, now. O(log n); must not change later verdicts."""
        ...


class Style(Protocol):
    """Makes tuners and assessors of classes that were written for another program; a file in tuners/."""

    @staticmethod
    def prepare() -> None:
        """Called before a user's class is imported."""
        ...

    @staticmethod
    def adapter(kind: str, cls: type[Any]) -> Callable[[Any, Config], Any] | None:
        """What makes a "tuner" or "assessor" of an instance; None for a class that isn't of this style."""
        ...
