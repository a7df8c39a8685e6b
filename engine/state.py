"""What is true of an experiment now: the state that reduce.py folds out of the events.

The structs are mutable inside and owned by `reduce`; everybody else reads. All but `State.queues` is a function of the
log alone and goes into the state's hash; the queues are what `plan` still has to act on in this engine's life.
Times are microseconds: `*_us` on the wall clock, `clock` on the experiment's run clock (time in which engines ran).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from ..trial_sdk.channel import Device
from .config import Config, Terms
from .plugins import Observation

TRIAL_STATUSES = (
    "WAITING",
    "RUNNING",
    "SUCCEEDED",
    "FAILED",
    "USER_CANCELED",
    "SYS_CANCELED",
    "EARLY_STOPPED",
    "LOST",
)
EXPERIMENT_STATUSES = (
    "INITIALIZED",
    "RUNNING",
    "NO_MORE_TRIAL",
    "DONE",
    "STOPPING",
    "STOPPED",
    "PAUSED",
    "ERROR",
)


class Phase(Struct):
    """One configuration inside a trial, with what came of it."""

    parameters: Raw
    ask: int
    intermediate: array[float] = msgspec.field(default_factory=lambda: array("d"))  # of the last attempt
    final: Raw | None = None  # the first final that was reported, as it was
    value: float | None = None  # its number, when it is finite: then it is counted; of several objectives the first
    values: list[float] = []  # with several objectives the number of each
    violation: float = 0.0  # by how much it fails the outcome constraints
    ignored: list[Raw] = []  # later finals
    told: bool = False  # whether the tuner has observed the end of this phase


class Trial(Struct):
    """One process tree running the user's code, over all its attempts."""

    number: int
    id: str
    origin: str
    created_us: int
    status: str = "WAITING"
    reason: str = ""  # of its last end, or why it waits for another attempt
    attempt: int = 0
    phases: list[Phase] = []
    host: str = ""
    launching: bool = False  # between LAUNCH and LAUNCHED
    pid: int | None = None
    kill: str = ""  # the reason of a KILL that is under way
    force: bool = False
    exit_code: int | None = None
    stderr: str = ""
    started_us: int = 0
    ended_us: int = 0
    clock: int = 0  # run clock at LAUNCHED
    failures: int = 0  # attempts that ended FAILED or LOST
    code: str = ""
    continues: int | None = None
    devices: list[str] = []  # uuids of those that its attempt has

    @property
    def active(self) -> bool:
        """It holds a slot: between LAUNCH and TRIAL_END."""
        return self.launching or self.status == "RUNNING"

    @property
    def over(self) -> bool:
        """It has ended; a stopped one may come back with a resume."""
        return self.status not in ("WAITING", "RUNNING")


class Sender(Struct):
    """A process of a trial: how far its reports are recorded, and what it was answered."""

    trial: int
    attempt: int
    process: str
    last: int = 0  # highest number recorded
    request: int = 0  # number of its last request for parameters
    ask: int = 0  # the ask that this request became; 0 when it is answered
    answer_phase: int = -1  # the phase it got; -1 for None


class OpenAsk(Struct):
    """A request to the tuner that has no answer yet."""

    number: int
    trial: int
    phase: int
    sender: str  # "" for a new trial
    seq: int
    attempt: int = 0
    waits_since: int = -1  # `seen` of the last NOT_YET; -1 when it is to be asked
    reason: str = ""


class HostState(Struct):
    """A machine on which trials run."""

    name: str
    connected: bool = False
    clock: int = 0  # since when
    pid: int = 0
    reason: str = ""
    trials: dict[int, None] = {}  # the numbers of those that are active here
    devices: list[Device] | None = None  # None: not known, or not asked
    devices_reason: str = ""
    using: dict[str, list[int]] = {}  # by a device's uuid: which of these trials have it
    refused: dict[str, str] = {}  # by uuid: why the host could not give it; until it speaks of its devices again
    failures: int = 0  # trials that failed at once, one after the other
    well: bool = False  # a trial has ended otherwise, since the last of these
    aside: int = 0  # how often it was set aside in a row
    aside_until: int = 0  # run clock in us; 0: it is not aside
    aside_reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether it may get trials at all."""
        return self.connected and not self.aside_until


class Best(Struct):
    """The best counted result so far that meets the outcome constraints."""

    trial: int
    phase: int
    value: float


class Ranked(Struct, frozen=True):
    """A result on the Pareto front: no other one is at least as good in everything."""

    trial: int
    phase: int
    values: list[float]  # one for each objective
    violation: float


class Queues(Struct):
    """What plan has to do, kept by reduce; empty after replay but for what an open intent asks for."""

    probe: list[int] = []
    launch: list[int] = []
    stop: list[int] = []
    answer: list[str] = []  # senders
    forget: list[tuple[str, int]] = []  # trial id, attempt
    lost: list[tuple[str, int]] = []  # trial id, attempt: LOST ones whose host has come back
    asked: list[int] = []  # the asks that are with the tuner: one, or with a concurrent one many
    news: list[Observation] = []
    told: int = 0  # seq of the last TrialEnded; `last_told` holds that of what every tuner observes
    roomy: dict[str, None] = {}  # the hosts that may have room; plan takes those out that have none
    claimed: dict[str, list[str]] = {}  # by host: the devices on which it holds a claim
    dirty: bool = True


class State(Struct):
    """The experiment."""

    id: str = ""
    seed: int = 0
    config: Config | None = None
    space_version: int = 0
    status: str = "INITIALIZED"
    reason: str = ""
    seq: int = 0
    epoch: int = 0
    created_us: int = 0
    wall_us: int = 0  # of the last fact
    clock: int = 0  # run clock, as far as facts tell it
    engine_pid: int = 0
    engine_host: str = ""
    stopping: str = ""  # who asked for the end
    force: bool = False
    time_up: bool = False
    exhausted: str = ""  # the reason, "-" when none was given
    trials: list[Trial | None] = []  # by number; None: a number that an ask holds
    ids: dict[str, int] = {}
    active: dict[int, None] = {}
    ready: deque[int] = msgspec.field(default_factory=deque[int])
    asks: dict[int, OpenAsk] = {}
    next_ask: int = 1
    phases: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(TRIAL_STATUSES, 0))
    best: Best | None = None  # None with several objectives
    front: list[Ranked] = []  # with several objectives: the Pareto front, of infeasible ones while there are no others
    last_told: int = 0  # seq of the last fact that the tuner observes
    senders: dict[str, Sender] = {}
    terms: dict[str, Terms] = {}  # by host, as the config has them
    hosts: dict[str, HostState] = {}
    lost: dict[str, list[tuple[str, int]]] = {}  # by host: the launches that were given up with it
    metrics: int = 0
    thinned: int = 0
    imported: int = 0
    warnings: list[str] = []
    # failure brake and tuner errors, since the last engine start
    ended: int = 0
    silent_failures: int = 0
    heard: bool = False
    tuner_errors: int = 0
    last_error: str = ""
    queues: Queues = msgspec.field(default_factory=Queues)
    tell: bool = False  # whether anybody wants the observations (a viewer doesn't)
    tell_intermediates: bool = False
    tell_more: bool = False  # raw finals and the ends of trials, for a tuner that is stateful
    concurrent: bool = False  # the tuner takes all asks at once

    @property
    def settings(self) -> Config:
        """The config; the first fact of a log sets it."""
        assert self.config is not None
        return self.config

    def trial(self, number: int) -> Trial:
        """The trial with this number; `KeyError` when there is none."""
        trial = self.trials[number] if 0 <= number < len(self.trials) else None
        if trial is None:
            raise KeyError(number)
        return trial

    @property
    def made(self) -> list[Trial]:
        """All trials, by number."""
        return [trial for trial in self.trials if trial is not None]

    @property
    def finished(self) -> bool:
        """Nothing is left for an engine to do."""
        return self.status in ("DONE", "STOPPED", "ERROR") or (self.status == "PAUSED" and not self.active)

    @property
    def quiet(self) -> bool:
        """Nothing runs, or waits to run, that could bring a result: trials that wait for parameters don't count."""
        waiting = {ask.trial for ask in self.asks.values() if ask.sender}
        return not self.ready and all(number in waiting for number in self.active)

    def digest(self) -> str:
        """The hash of everything that the log determines: equal for live, resume and view."""
        values = [
            getattr(self, name)
            for name in self.__struct_fields__
            if name not in ("queues", "terms", "tell", "tell_intermediates", "tell_more", "concurrent")
        ]
        return hashlib.blake2b(msgspec.msgpack.encode(values, enc_hook=_plain), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, array):
        return value.tobytes()
    if isinstance(value, deque):
        return list(cast("deque[Any]", value))
    if isinstance(value, Raw):
        return bytes(value)
    raise TypeError(type(value).__name__)
