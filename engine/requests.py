"""Everything that somebody can ask of, or tell, a running experiment: the engine's one inbox.

A request is *please*, or *it seems so*: nothing of it is true before `decide` has looked at the state and made facts
of it, and a request that is refused has changed nothing.
"""

from __future__ import annotations

from msgspec import Struct

from ..trial_sdk.channel import Device
from ..trial_sdk.wire import Report


class Refused(Exception):
    """A person's request that can't be done, with the reason; nothing was changed."""


# -- trials and hosts -------------------------------------------------------------------------------------------------
class Reported(Struct, frozen=True, gc=False):
    """One record of a trial process's spool."""

    trial_id: str
    attempt: int
    process: str
    report: Report


class Flooded(Struct, frozen=True):
    """The keeper left out the intermediates `first` to `last` of this process."""

    trial_id: str
    attempt: int
    process: str
    first: int
    last: int


class HostUp(Struct, frozen=True):
    """A host's keeper was reached."""

    name: str
    pid: int


class HostDown(Struct, frozen=True):
    """A host's keeper was lost."""

    name: str
    reason: str


class Started(Struct, frozen=True):
    """A launch runs."""

    trial_id: str
    attempt: int
    pid: int
    started: int


class NotStarted(Struct, frozen=True):
    """A launch could not be started, and never will be."""

    trial_id: str
    attempt: int
    reason: str


class NeverStarted(Struct, frozen=True):
    """A launch was asked for and did not happen: it may be done now."""

    trial_id: str
    attempt: int
    host: str = ""  # that says so, "" when it can be only one


class NotFree(Struct, frozen=True):
    """A launch did not happen, since these of its devices can't be had: it may be done later, or elsewhere."""

    host: str
    trial_id: str
    attempt: int
    devices: list[str]
    reason: str


class DevicesFound(Struct, frozen=True):
    """What devices a host has, and what is wrong with the others."""

    host: str
    devices: list[Device]
    reason: str


class Exited(Struct, frozen=True):
    """A launch is over.

    `reason`: "lease" (no engine was heard), "gone" (the program that had it has ended), "told" (as failed); else "".
    """

    trial_id: str
    attempt: int
    code: int | None
    ended: int
    reason: str = ""
    stderr: str = ""


class Silent(Struct, frozen=True):
    """A trial has reported nothing for `max_silence`, as observed by this engine."""

    trial: int
    attempt: int


class Due(Struct, frozen=True):
    """A deadline may have been reached."""


# -- tuner and assessor -----------------------------------------------------------------------------------------------
class Suggests(Struct, frozen=True):
    """The tuner's answer to an ask. `parameters` is JSON text, checked by the tuner host."""

    ask: int
    attempt: int
    seen: int
    parameters: str
    continues: int | None = None
    budget: float | None = None
    parents: list[int] = []
    decision: str = ""


class SaysWait(Struct, frozen=True):
    """The tuner's answer: nothing yet."""

    ask: int
    attempt: int
    seen: int
    reason: str


class SaysExhausted(Struct, frozen=True):
    """The tuner's answer: nothing more (`trial`: for the trial that asks)."""

    ask: int
    attempt: int
    seen: int
    reason: str
    trial: bool = False


class TunerFailed(Struct, frozen=True):
    """The tuner or assessor raised, hung, died or answered nonsense."""

    ask: int | None
    error: str
    traceback: str


class TunerDiffers(Struct, frozen=True):
    """A rebuilt tuner that learns as it is asked says another thing than the log; it goes on with the log's."""

    error: str


class TunerHangs(Struct, frozen=True):
    """A concurrent tuner has answered nothing for so long, while nothing ran that could let it."""

    seconds: float


class Hopeless(Struct, frozen=True):
    """The assessor's verdict on a trial."""

    trial: int
    seen: int
    why: str


# -- people -----------------------------------------------------------------------------------------------------------
class AskStop(Struct, frozen=True, tag=True):
    """End the experiment; `force` without grace."""

    actor: str
    force: bool = False


class AskKill(Struct, frozen=True, tag=True):
    """End one trial (by its number)."""

    actor: str
    trial: int


class AskUpdate(Struct, frozen=True, tag=True):
    """Change limits or the search space (JSON text); None leaves as it is."""

    actor: str
    trial_concurrency: int | None = None
    max_trial_number: int | None = None
    max_experiment_duration: str | None = None
    search_space: str | None = None


class AskImport(Struct, frozen=True, tag=True):
    """Give the tuner one result from elsewhere; both are JSON text."""

    actor: str
    parameters: str
    value: str


class AskTrial(Struct, frozen=True, tag=True):
    """Run a trial with these parameters (JSON text)."""

    actor: str
    parameters: str


PersonsRequest = AskStop | AskKill | AskUpdate | AskImport | AskTrial
Request = (
    Reported
    | Flooded
    | HostUp
    | HostDown
    | Started
    | NotStarted
    | NeverStarted
    | NotFree
    | DevicesFound
    | Exited
    | Silent
    | Due
    | Suggests
    | SaysWait
    | SaysExhausted
    | TunerFailed
    | TunerDiffers
    | TunerHangs
    | Hopeless
    | AskStop
    | AskKill
    | AskUpdate
    | AskImport
    | AskTrial
)
