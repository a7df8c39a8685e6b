"""Every fact that a log can hold: one closed union of frozen structs, and the row that carries each of them.

A fact is past tense: it happened, it is never changed. Requests become facts in decide.py, facts become state in
reduce.py. The tag of a fact is its `kind` column; its body is canonical JSON with default values left out, so a new
field needs a default and old logs read on. `VER` goes up when a body changes its meaning; upcasters in log.py then
lift old bodies.

Parameters and metric values are JSON text that the tuner or the trial's SDK wrote once (`msgspec.Raw`): the engine
looks into them but does not write them again. NaN and the infinities are the strings "NaN", "Infinity", "-Infinity"
there.

Adding an event: its class here, its name in `Event`, its case in reduce.py; the type checker finds what is missing.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, get_args

import msgspec
from msgspec import Raw, Struct

from ..trial_sdk.channel import Device

EMPTY = Raw(b"")
Index = Annotated[int, msgspec.Meta(ge=0)]  # checked as a body is read: a log may come from anywhere


class Experiment(Struct, frozen=True, omit_defaults=True):
    """The first fact of every log: what is to be searched, resolved and complete."""

    KIND: ClassVar[str] = "EXPERIMENT"
    VER: ClassVar[int] = 1
    id: str
    config: Raw  # the resolved config (engine/config.py), defaults written out
    seed: int
    format: int = 1


class EngineStarted(Struct, frozen=True, omit_defaults=True):
    """An engine took the log: create, or a resume. Everything it may ask anew it asks anew after this."""

    KIND: ClassVar[str] = "ENGINE_STARTED"
    VER: ClassVar[int] = 1
    host: str
    pid: int
    clock: int  # run clock in us: the time in which engines ran before this one
    versions: dict[str, str] = {}  # python, tune, numpy, sqlite, the CPU and its flags
    actor: str = ""


class Status(Struct, frozen=True, omit_defaults=True):
    """The experiment's status changed: RUNNING, NO_MORE_TRIAL, DONE, STOPPING, STOPPED, PAUSED or ERROR."""

    KIND: ClassVar[str] = "STATUS"
    VER: ClassVar[int] = 1
    status: str
    reason: str = ""
    clock: int = 0


class Stop(Struct, frozen=True, omit_defaults=True):
    """Somebody asked for the end: no new trial, the running ones are stopped; `force` spares them the grace."""

    KIND: ClassVar[str] = "STOP"
    VER: ClassVar[int] = 1
    actor: str
    force: bool = False


class Update(Struct, frozen=True, omit_defaults=True):
    """Limits or the search space were changed; None means unchanged."""

    KIND: ClassVar[str] = "UPDATE"
    VER: ClassVar[int] = 1
    actor: str
    trial_concurrency: int | None = None
    max_trial_number: int | None = None
    max_experiment_duration: str | None = None
    search_space: Raw = EMPTY


class Import(Struct, frozen=True, omit_defaults=True):
    """A result from elsewhere, for the tuner to learn from."""

    KIND: ClassVar[str] = "IMPORT"
    VER: ClassVar[int] = 1
    actor: str
    parameters: Raw
    value: Raw


class Tick(Struct, frozen=True, omit_defaults=True):
    """Time that passed while an engine ran, and which deadline it reached."""

    KIND: ClassVar[str] = "TICK"
    VER: ClassVar[int] = 1
    clock: int
    reached: str = ""  # "" or "max_experiment_duration"


class RequestParameter(Struct, frozen=True, omit_defaults=True):
    """The tuner is asked: for a new trial (phase 0, engine's own), or for the next phase of one (a trial's report).

    The row's `trial` is the number that the answer will belong to.
    """

    KIND: ClassVar[str] = "REQUEST_PARAMETER"
    VER: ClassVar[int] = 1
    ask: int
    phase: Index = 0
    attempt: Index = 0  # how often the tuner said "nothing yet" to this ask
    number: int = 0  # the report's number in its sender's spool, 0 for the engine's own
    refused: str = ""  # set when the trial gets None at once, with the limit that says so


class NewTrial(Struct, frozen=True, omit_defaults=True):
    """A trial exists: its number is the row's `trial`."""

    KIND: ClassVar[str] = "NEW_TRIAL"
    VER: ClassVar[int] = 1
    id: str
    origin: str = "tuner"  # or "user": queued by hand


class Parameter(Struct, frozen=True, omit_defaults=True):
    """The tuner's answer: the parameters of one phase, bound to it before it starts."""

    KIND: ClassVar[str] = "PARAMETER"
    VER: ClassVar[int] = 1
    ask: int
    parameters: Raw
    seen: int  # the last seq that the tuner had observed
    phase: Index = 0
    continues: int | None = None  # the trial whose checkpoint this one goes on with
    budget: float | None = None
    parents: list[int] = []
    decision: Raw = EMPTY  # why: <= 1 KB


class NotYet(Struct, frozen=True, omit_defaults=True):
    """The tuner's answer: nothing before it has seen more results."""

    KIND: ClassVar[str] = "NOT_YET"
    VER: ClassVar[int] = 1
    ask: int
    seen: int
    reason: str = ""


class Exhausted(Struct, frozen=True, omit_defaults=True):
    """The tuner's answer: nothing more, ever; with `trial` only nothing more for the trial that asks."""

    KIND: ClassVar[str] = "EXHAUSTED"
    VER: ClassVar[int] = 1
    ask: int
    seen: int
    reason: str = ""
    trial: bool = False


class TunerError(Struct, frozen=True, omit_defaults=True):
    """A tuner or assessor raised, hung, died or answered nonsense; the ask, if any, is asked again.

    With `goes_on` it is only said: a rebuilt tuner answers otherwise than the log, and goes on with the log's answers.
    """

    KIND: ClassVar[str] = "TUNER_ERROR"
    VER: ClassVar[int] = 1
    error: str  # one line
    traceback: str = ""
    ask: int | None = None
    goes_on: bool = False


class Launch(Struct, frozen=True, omit_defaults=True):
    """Intent: this attempt of the trial is about to be started on a host."""

    KIND: ClassVar[str] = "LAUNCH"
    VER: ClassVar[int] = 1
    attempt: Index
    host: str
    phase: Index = 0  # where a multi-phase trial goes on
    code: str = ""  # hash of the code directory
    devices: list[str] = []  # uuids of the devices of its host that it gets


class NotLaunched(Struct, frozen=True, omit_defaults=True):
    """The host could not give the attempt its devices, and has made nothing of it: it waits again."""

    KIND: ClassVar[str] = "NOT_LAUNCHED"
    VER: ClassVar[int] = 1
    attempt: Index
    devices: list[str]  # uuids of those that could not be had
    reason: str
    clock: int


class Launched(Struct, frozen=True, omit_defaults=True):
    """The attempt runs."""

    KIND: ClassVar[str] = "LAUNCHED"
    VER: ClassVar[int] = 1
    attempt: Index
    pid: int
    clock: int
    started: int  # wall clock of its host, us


class Metric(Struct, frozen=True, omit_defaults=True):
    """A trial's report: an intermediate result or a final one. `ignored` says why a final does not count."""

    KIND: ClassVar[str] = "METRIC"
    VER: ClassVar[int] = 1
    value: Raw
    phase: Index = 0
    final: bool = False
    ignored: str = ""


class Kill(Struct, frozen=True, omit_defaults=True):
    """Intent: the attempt is to be ended. `reason`: user, stop, assessor, max_trial_duration, max_silence."""

    KIND: ClassVar[str] = "KILL"
    VER: ClassVar[int] = 1
    attempt: Index
    reason: str
    actor: str = ""
    seen: int | None = None  # for a verdict: the last seq that the assessor had observed
    why: str = ""


class TrialEnd(Struct, frozen=True, omit_defaults=True):
    """The attempt is over. Every report that it made before stands before this in the log."""

    KIND: ClassVar[str] = "TRIAL_END"
    VER: ClassVar[int] = 1
    attempt: Index
    status: str
    exit_code: int | None = None
    reason: str = ""
    stderr: str = ""  # the end of it, for a FAILED one
    ended: int = 0  # wall clock of its host, us
    clock: int = 0


class Host(Struct, frozen=True, omit_defaults=True):
    """A host's keeper was reached ("connected") or lost ("disconnected")."""

    KIND: ClassVar[str] = "HOST"
    VER: ClassVar[int] = 1
    name: str
    state: str
    clock: int
    pid: int = 0
    reason: str = ""


class Devices(Struct, frozen=True, omit_defaults=True):
    """Which devices a host has, and what is wrong with the others, or why it has none."""

    KIND: ClassVar[str] = "DEVICES"
    VER: ClassVar[int] = 1
    host: str
    clock: int
    devices: list[Device] = []
    reason: str = ""


class SetAside(Struct, frozen=True, omit_defaults=True):
    """A host on which trials failed at once, one after the other, gets none for a while; `until` 0: it is back."""

    KIND: ClassVar[str] = "SET_ASIDE"
    VER: ClassVar[int] = 1
    host: str
    clock: int
    until: int = 0  # on the run clock, us
    reason: str = ""


class Thinned(Struct, frozen=True, omit_defaults=True):
    """The flood policy left out intermediates `first` to `last` (numbers in the sender's spool)."""

    KIND: ClassVar[str] = "THINNED"
    VER: ClassVar[int] = 1
    first: int
    last: int


Event = (
    Experiment
    | EngineStarted
    | Status
    | Stop
    | Update
    | Import
    | Tick
    | RequestParameter
    | NewTrial
    | Parameter
    | NotYet
    | Exhausted
    | TunerError
    | Launch
    | NotLaunched
    | Launched
    | Metric
    | Kill
    | TrialEnd
    | Host
    | Devices
    | SetAside
    | Thinned
)

KINDS: dict[str, type[Any]] = {cls.KIND: cls for cls in get_args(Event)}
_decoders: dict[str, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(cls) for kind, cls in KINDS.items()}
_encoder = msgspec.json.Encoder()


class Fact(Struct, frozen=True, gc=False):
    """An event with its place in the log: what reduce sees.

    `sender` and `sender_seq` number what each sender said, so that nothing counts twice: a trial's process is
    `<trial id>.<attempt>.<process>`, an engine `e<epoch>`, a person's client its own random name. `cause` is the seq
    of the fact that this one answers.
    """

    seq: int
    epoch: int
    sender: str
    sender_seq: int
    trial: int | None
    cause: int | None
    wall_us: int
    event: Event


class Row(Struct, frozen=True, array_like=True, gc=False):
    """A fact as it stands in the table `event`, without its chain: the ten columns in their order."""

    seq: int
    epoch: int
    kind: str
    ver: int
    sender: str
    sender_seq: int
    trial: int | None
    cause: int | None
    wall_us: int
    body: str


def encode(fact: Fact) -> Row:
    """The row of a fact."""
    event = fact.event
    return Row(
        fact.seq,
        fact.epoch,
        event.KIND,
        event.VER,
        fact.sender,
        fact.sender_seq,
        fact.trial,
        fact.cause,
        fact.wall_us,
        _encoder.encode(event).decode(),
    )


class UnknownEvent(ValueError):
    """An event of a kind or version that this program doesn't know: the log is from a newer version."""


def decode(row: Row) -> Fact:
    """The fact of a row; `UnknownEvent` for a kind or version of tomorrow, `ValueError` for a broken body."""
    decoder = _decoders.get(row.kind)
    if decoder is None:
        raise UnknownEvent(f"event {row.seq} has the unknown kind {row.kind!r}: the log is from a newer version")
    if row.ver > KINDS[row.kind].VER:
        raise UnknownEvent(f"event {row.seq} ({row.kind}) has version {row.ver}: the log is from a newer version")
    try:
        event = decoder.decode(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"event {row.seq} ({row.kind}) has a body that can't be read: {error}") from error
    if row.trial is not None and not 0 <= row.trial < row.seq:  # no log can have more trials than events
        raise ValueError(f"event {row.seq} ({row.kind}) is of trial {row.trial}, which can't be there")
    return Fact(row.seq, row.epoch, row.sender, row.sender_seq, row.trial, row.cause, row.wall_us, event)
