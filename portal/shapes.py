"""What goes over the portal's wire: the bodies that it takes, and the shape of everything that it answers.

The bodies are what requests are read into. The answers are made as plain data (engine/views.py, portal/source.py);
their shapes stand here for the description at /openapi.json, and the tests hold real answers against them.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

MAX_NOTES = 1 << 16  # characters
MAX_IMPORT = 10_000  # results in one request
_MANY = 2**53  # what every JSON reader holds exactly


# -- bodies -----------------------------------------------------------------------------------------------------------
class Stop(Struct, forbid_unknown_fields=True):
    """End the experiment; `force` without grace."""

    force: bool = False


class Kill(Struct, forbid_unknown_fields=True):
    """End one trial: an empty object, which no form of another site can send."""


class NewTrial(Struct, forbid_unknown_fields=True):
    """A trial to be run with these parameters."""

    parameters: dict[str, Any]


class Update(Struct, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays."""

    concurrency: Annotated[int, Meta(ge=1, le=99_999)] | None = None
    max_trials: Annotated[int, Meta(ge=1, le=_MANY)] | None = None
    duration: Annotated[str, Meta(max_length=100, examples=["90m"])] | None = None
    search_space: dict[str, Any] | None = None


class Result(Struct, forbid_unknown_fields=True):
    """A result from elsewhere."""

    parameter: dict[str, Any]
    value: Any


class Notes(Struct, forbid_unknown_fields=True):
    """What people write down about the experiment."""

    text: Annotated[str, Meta(max_length=MAX_NOTES)]


# -- what was done ----------------------------------------------------------------------------------------------------
class Fault(Struct):
    """Why not, and what to do."""

    error: str
    hint: str = ""


class Done(Struct):
    """It is in the log."""

    ok: bool = True
    seq: int = 0


class Imported(Done):
    """How many results are in the log, how many lie outside the search space, how many have no finite number."""

    imported: int = 0
    outside: int = 0
    without_number: int = 0


# -- the experiment ---------------------------------------------------------------------------------------------------
Number = float | str  # NaN and the infinities are texts


class Best(Struct):
    """The best counted result."""

    trial: int
    phase: int
    value: Number
    parameters: Any


class InFront(Struct):
    """A result on the Pareto front; `violation`: by how much it fails the outcome constraints."""

    trial: int
    phase: int
    values: dict[str, float]
    parameters: Any
    violation: float


class Device(Struct):
    """A GPU of a host, and the trials that have it. `busy`: with other processes; `leases`: with other experiments."""

    index: int
    uuid: str
    name: str
    memory: int
    busy: bool
    leases: int
    allowed: bool
    trials: list[int]


class Host(Struct):
    """A machine on which trials run, and which there are now. `aside`: why it gets none for a while.

    `devices`: null as long as nobody wants any, or the host has not said which it has.
    """

    name: str
    connected: bool
    reason: str
    aside: str | None
    slots: int | None
    trials: list[int]
    devices: list[Device] | None
    devices_reason: str


class Status(Struct):
    """An experiment as a whole, as `tune status --json` has it."""

    id: str
    name: str | None
    status: str
    engine_pid: int | None
    reason: str
    counts: dict[str, int]
    best: Best | None
    log: str
    folder: str
    optimize_mode: str
    max_trial_number: int | None
    trial_concurrency: int
    port: int | None
    pareto: list[InFront] | None
    hosts: list[Host]


class Asking(Struct):
    """A request to the tuner that is open, and why it waits."""

    trial: int
    reason: str


class Now(Status):
    """The same with what a page needs: the event it is as of, times in seconds."""

    seq: int
    readonly: bool
    clock: float
    trials_per_hour: float | None
    eta: float | None
    warnings: list[str]
    tuner: str
    asking: list[Asking]
    multi_phase: bool


class Trials(Struct):
    """All trials: a row each, in the order of `columns`."""

    seq: int
    columns: list[str]
    rows: list[list[Any]]


class Phase(Struct):
    """One configuration inside a trial, with what came of it."""

    phase: int
    parameters: Any
    intermediate: list[Number]
    final: Any
    final_ignored: list[Any]
    values: dict[str, float] | None
    violation: float | None


class Decision(Struct):
    """What the log holds on why a phase has its parameters: the tuner's record, and the last event that it had seen."""

    phase: int
    seen: int
    parents: list[int]
    decision: Any


class Trial(Struct):
    """One trial, as `tune trials --json` has it, with its descent and the tuner's reasons."""

    number: int
    id: str
    status: str
    reason: str
    attempt: int
    parameters: Any
    final: Any
    intermediate: list[Any]
    pid: int | None
    host: str | None
    exit_code: int | None
    created: str | None
    started: str | None
    ended: str | None
    stdout: str
    stderr: str
    phases: list[Phase]
    continues: int | None
    devices: list[str]
    children: list[int]
    why: list[Decision]


class WhyPhase(Struct):
    """Where a phase's parameters come from; `source` of the record is "log" or "", `note` says why there is none."""

    phase: int
    event: int
    ask: int | None
    seen: int
    knew: dict[str, Any] | None
    parameters: Any
    continues: int | None
    budget: float | None
    parents: list[int]
    record: Any
    source: str
    note: str


class WhyStop(Struct):
    """An intent to end the trial: by whom, and what was known."""

    event: int
    attempt: int
    by: str
    actor: str
    why: str
    knew: dict[str, Any] | None


class WhyEnd(Struct):
    """How an attempt ended."""

    event: int
    attempt: int
    status: str
    reason: str
    exit_code: int | None


class WhyResult(Struct):
    """What came of a phase."""

    phase: int
    value: Number | None
    intermediates: int


class Why(Struct):
    """Everything that the log says about a trial's reasons, as `tune why --json` has it."""

    trial: int
    id: str
    status: str
    reason: str
    attempt: int
    origin: str
    tuner: str
    assessor: str | None
    phases: list[WhyPhase]
    stops: list[WhyStop]
    ends: list[WhyEnd]
    results: list[WhyResult]


class Output(Struct):
    """A piece of a trial's output: from byte `offset` on; `next` is where the one after it begins.

    `note`: why the newest may be missing, for a trial on another host that gives no file now; else "".
    """

    offset: int
    size: int
    next: int
    text: str
    note: str = ""


class Event(Struct):
    """One event of the log, as `tune tail --json` has it."""

    seq: int
    epoch: int
    kind: str
    ver: int
    sender: str
    sender_seq: int
    trial: int | None
    cause: int | None
    wall_us: int
    body: dict[str, Any]


class Verified(Struct):
    """What came out of a check of the log: `events` are those that are good; `reason` also holds remarks."""

    ok: bool
    events: int
    first_bad_seq: int | None
    reason: str


class Exported(Struct):
    """One counted result, as `tune export` has it; `value` is null with several objectives, which are in `values`."""

    trial: int
    phase: int
    status: str
    parameters: Any
    value: Number | None
    intermediate: list[Number]
    values: dict[str, float] | None
    violation: float | None
    final: Any


class FigureOption(Struct):
    """A choice that a figure leaves to whoever looks."""

    name: str
    title: str
    values: list[str]


class FigureName(Struct):
    """A figure that there is."""

    name: str
    title: str
    options: list[FigureOption]


class Figure(Struct):
    """What Plotly draws."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    note: str = ""


class CurvePoint(Struct):
    """A trial's result, and the best until then."""

    trial: int
    value: float
    best: float | None


class Compared(Struct):
    """Two experiments: their best results, their curves, and where their configs differ."""

    ids: list[str]
    best: list[Best | None]
    curves: list[list[CurvePoint]]
    differences: dict[str, list[Any]]
