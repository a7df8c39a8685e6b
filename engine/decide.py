"""What becomes true of a request: from the state and one request to the facts that follow from it.

Pure, synchronous, total. A request that comes twice, too late, or about something that is not so, makes no fact; a
person's request that can't be done raises `Refused` before anything has changed. `decide` sees the state with all
earlier facts in it, also those that are not yet on disk.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, assert_never

import msgspec
from msgspec import Raw

from ..trial_sdk import channel
from . import config as config_room
from .events import (
    EMPTY,
    Devices,
    Event,
    Host,
    Import,
    Kill,
    Launch,
    Launched,
    Metric,
    NewTrial,
    NotLaunched,
    NotYet,
    Parameter,
    RequestParameter,
    SetAside,
    Status,
    Stop,
    Thinned,
    Tick,
    TrialEnd,
    TunerError,
    Update,
)
from .events import Exhausted as ExhaustedFact
from .reduce import AT_ONCE, SOON, failed_at_once, open_phase, sender_name
from .requests import (
    AskImport,
    AskKill,
    AskStop,
    AskTrial,
    AskUpdate,
    DevicesFound,
    Due,
    Exited,
    Flooded,
    Hopeless,
    HostDown,
    HostUp,
    NeverStarted,
    NotFree,
    NotStarted,
    Refused,
    Reported,
    Request,
    SaysExhausted,
    SaysWait,
    Silent,
    Started,
    Suggests,
    TunerDiffers,
    TunerFailed,
    TunerHangs,
)
from .space import SpaceError, parse
from .state import HostState, State, Trial


class Draft(NamedTuple):
    """A fact that still lacks its place in the log; an empty `sender` is the engine itself."""

    event: Event
    trial: int | None = None
    sender: str = ""
    number: int = 0
    cause: int | None = None


KILLED = {
    "user": "USER_CANCELED",
    "stop": "SYS_CANCELED",
    "assessor": "EARLY_STOPPED",
    "max_trial_duration": "EARLY_STOPPED",
    "max_silence": "FAILED",
}
FIRST_ASIDE = 30_000_000  # us that a host is set aside at first; each time in a row for twice as long
LONGEST_ASIDE = 30 * 60_000_000
_json: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def decide(state: State, request: Request, clock: int) -> list[Draft]:
    """The facts that follow from a request; `clock` is the run clock in us. Raises `Refused` for people only."""
    match request:
        case Reported():
            return report(state, request)
        case Flooded():
            sender = sender_name(request.trial_id, request.attempt, request.process)
            number = state.ids.get(request.trial_id)
            known = state.senders.get(sender)
            first = max(request.first, (known.last if known else 0) + 1)  # it may overlap with what is recorded
            if number is None or first != (known.last if known else 0) + 1 or request.last < first:
                return []
            return [Draft(Thinned(first, request.last), number, sender, request.last)]
        case HostUp():
            return [Draft(Host(request.name, "connected", clock, request.pid))]
        case HostDown():
            host = state.hosts.get(request.name)
            if host is not None and not host.connected and host.reason == request.reason:
                return []
            return [Draft(Host(request.name, "disconnected", clock, 0, request.reason))]
        case Started():
            trial = _launch_of(state, request.trial_id, request.attempt)
            if trial is None or not trial.launching:
                return []
            return [Draft(Launched(request.attempt, request.pid, clock, request.started), trial.number)]
        case NotStarted():
            trial = _launch_of(state, request.trial_id, request.attempt)
            if trial is None:
                return []
            reason = f"could not be started: {request.reason}"
            status = "FAILED"
            if trial.kill:
                status, reason = KILLED.get(trial.kill, "SYS_CANCELED"), trial.kill
            elif request.reason == channel.KEEPER_DIED:
                status = "SYS_CANCELED"  # not the trial's doing: it gets another attempt
            return _ended(state, trial, TrialEnd(request.attempt, status, reason=reason, clock=clock))
        case NeverStarted() | NotFree():
            return _not_started(state, request, clock)
        case DevicesFound():
            host = state.hosts.get(request.host)
            known = host is not None and (host.devices, host.devices_reason) == (request.devices, request.reason)
            if host is None or (known and not host.refused):
                return []
            return [Draft(Devices(request.host, clock, request.devices, request.reason))]
        case Exited():
            return _exited(state, request, clock)
        case Silent():
            trial = state.trials[request.trial] if request.trial < len(state.trials) else None
            if trial is None or trial.attempt != request.attempt or not trial.active or trial.kill:
                return []
            limit = state.settings.max_silence
            return [Draft(Kill(request.attempt, "max_silence", why=f"it reported nothing for {limit}"), trial.number)]
        case Due():
            return _due(state, clock)
        case Suggests():
            return _suggests(state, request)
        case SaysWait():
            if not _asked(state, request.ask, request.attempt):
                return []
            return [Draft(NotYet(request.ask, request.seen, request.reason), state.asks[request.ask].trial)]
        case SaysExhausted():
            if not _asked(state, request.ask, request.attempt):
                return []
            ask = state.asks[request.ask]
            only = request.trial and bool(ask.sender)
            return [Draft(ExhaustedFact(request.ask, request.seen, request.reason, only), ask.trial if only else None)]
        case TunerFailed():
            return [Draft(TunerError(request.error[:2000], request.traceback[-20_000:], request.ask))]
        case TunerDiffers():
            return [Draft(TunerError(request.error[:2000], goes_on=True))]
        case TunerHangs():
            return _hangs(state, request, clock)
        case Hopeless():
            trial = state.trials[request.trial] if request.trial < len(state.trials) else None
            if trial is None or not trial.active or trial.kill:
                return []
            return [Draft(Kill(trial.attempt, "assessor", seen=request.seen, why=request.why[:1000]), trial.number)]
        case AskStop():
            if state.stopping and (state.force or not request.force):
                return []
            return [Draft(Stop(request.actor, request.force))]
        case AskKill():
            return _kill(state, request, clock)
        case AskUpdate():
            return _update(state, request)
        case AskImport():
            _object(request.parameters, "parameters")
            return [Draft(Import(request.actor, _raw(request.parameters), _raw(request.value)))]
        case AskTrial():
            _object(request.parameters, "parameters")
            most = state.settings.max_trial_number
            if most is not None and len(state.trials) >= most:
                raise Refused(f"max_trial_number is {most} and is reached: raise it first (tune update --max-trials)")
            full = phase_limit(state, None)
            if full:
                raise Refused(f"{full}: no trial can be added")
            number = len(state.trials)
            return [
                Draft(NewTrial(trial_id(state, number), "user"), number),
                Draft(Parameter(0, _raw(request.parameters), state.seq), number),
            ]
        case _:
            assert_never(request)


def report(state: State, request: Reported) -> list[Draft]:
    """The fact of one report: recorded exactly once, counted or not as contract.md's rules say."""
    number = state.ids.get(request.trial_id)
    if number is None:
        return []
    sender = sender_name(request.trial_id, request.attempt, request.process)
    known = state.senders.get(sender)
    record = request.report
    if record.number != (known.last if known is not None else 0) + 1:
        return []
    trial = state.trial(number)
    if record.kind == "R":
        return _request_parameter(state, trial, request.attempt, sender, record.number)
    final = record.kind == "F"
    ignored = ""
    phase = record.phase
    current = request.attempt == trial.attempt and trial.active
    if not 0 <= phase < len(trial.phases):
        phase = max(len(trial.phases) - 1, 0)
        ignored = f"the trial has no phase {record.phase}"
    elif not current:
        ignored = "its attempt is over"
    elif final and trial.phases[phase].final is not None:
        ignored = "the phase has a final result already"
    try:
        value = _raw(record.value)
    except Refused:
        value, ignored = Raw(b"null"), "its value is not JSON"
    if record.kind == "X":  # its place in a damaged spool
        ignored = "what it wrote was damaged"
    return [Draft(Metric(value, phase, final, ignored), number, sender, record.number)]


def trial_id(state: State, number: int) -> str:
    """The id of trial `number`: 5 of a-z0-9, first a letter, the same whenever it is asked."""
    for salt in range(1 << 16):
        digest = hashlib.blake2b(f"{state.id}/{state.seed}/{number}/{salt}".encode(), digest_size=8).digest()
        value = int.from_bytes(digest, "big")
        value, first = divmod(value, 26)
        text = "abcdefghijklmnopqrstuvwxyz"[first]
        for _ in range(4):
            value, digit = divmod(value, 36)
            text += "abcdefghijklmnopqrstuvwxyz0123456789"[digit]
        if text not in state.ids:
            return text
    raise AssertionError("no free trial id")


def phase_limit(state: State, trial: Trial | None) -> str:
    """Why no further phase may be opened ("" when it may): for this trial, or for a new one."""
    settings = state.settings
    if settings.max_phase_number is not None:
        pending = len(state.asks)
        if state.phases + pending >= settings.max_phase_number:
            return f"max_phase_number {settings.max_phase_number} is reached"
    limit = settings.max_phases_per_trial
    if trial is not None and limit is not None and len(trial.phases) >= limit:
        return f"max_phases_per_trial {limit} is reached"
    return ""


# -- one function a request -------------------------------------------------------------------------------------------
def _request_parameter(state: State, trial: Trial, attempt: int, sender: str, number: int) -> list[Draft]:
    refused = ""
    if not state.settings.multi_phase:
        refused = "multi_phase is off"
    elif attempt != trial.attempt or not trial.active:
        refused = "its attempt is over"
    elif state.status in ("PAUSED", "STOPPING", "STOPPED"):
        refused = f"the experiment is {state.status}"
    elif state.exhausted:
        refused = state.exhausted
    elif state.time_up:
        refused = "max_experiment_duration is reached"
    else:
        refused = phase_limit(state, trial)
    if refused:
        return [Draft(RequestParameter(0, number=number, refused=refused), trial.number, sender, number)]
    phase = len(trial.phases) + sum(1 for ask in state.asks.values() if ask.trial == trial.number)
    return [Draft(RequestParameter(state.next_ask, phase, number=number), trial.number, sender, number)]


def _exited(state: State, request: Exited, clock: int) -> list[Draft]:
    trial = _launch_of(state, request.trial_id, request.attempt)
    if trial is None:
        return []
    code, reason = request.code, ""
    if trial.kill:
        status, reason = KILLED.get(trial.kill, "SYS_CANCELED"), trial.kill
    elif request.reason == "lease":
        status, reason = "SYS_CANCELED", "no engine was heard for engine_lease"
    elif request.reason == "gone":
        status, reason = "SYS_CANCELED", "the program that had it has ended"
    elif request.reason == "told":
        status, reason = "FAILED", "told as failed"
    elif code == 0:
        status = "SUCCEEDED"
    else:
        status = "FAILED"
        if code is None:
            reason = "its waiter died: nobody knows the exit code"
        elif code < 0:
            reason = f"ended by signal {-code}"
        else:
            reason = f"exit code {code}"
    stderr = request.stderr if status == "FAILED" else ""
    return _ended(state, trial, TrialEnd(request.attempt, status, code, reason, stderr, request.ended, clock))


def _not_started(state: State, request: NeverStarted | NotFree, clock: int) -> list[Draft]:
    """Nothing was made of a launch: it is asked for again, with other devices if it could not have its own."""
    trial = _launch_of(state, request.trial_id, request.attempt)
    if trial is None or not trial.launching or request.host not in ("", trial.host):
        return []
    if trial.kill:
        status = KILLED.get(trial.kill, "SYS_CANCELED")
        return [Draft(TrialEnd(request.attempt, status, reason=trial.kill, clock=clock), trial.number)]
    if isinstance(request, NotFree):
        return [Draft(NotLaunched(request.attempt, request.devices, request.reason, clock), trial.number)]
    phase = open_phase(state, trial)
    return [Draft(Launch(request.attempt, trial.host, phase or 0, trial.code, trial.devices), trial.number)]


def _ended(state: State, trial: Trial, end: TrialEnd) -> list[Draft]:
    """The end of an attempt, and that its host is set aside, when it is one too many that failed there at once."""
    drafts = [Draft(end, trial.number)]
    host = state.hosts.get(trial.host)
    if host is None or host.aside_until or host.failures + 1 < AT_ONCE or not failed_at_once(trial, end):
        return drafts
    if not any(_does_well(state, other, end.clock) for other in state.hosts.values() if other is not host):
        return drafts  # what fails everywhere is no host's fault
    reason = (
        f"{host.failures + 1} trials in a row failed within {SOON // 1_000_000} s there and not elsewhere, "
        f"the last one was trial {trial.number} ({end.reason})"
    )
    until = end.clock + min(FIRST_ASIDE << min(host.aside, 20), LONGEST_ASIDE)
    return [*drafts, Draft(SetAside(host.name, end.clock, until, reason))]


def _does_well(state: State, host: HostState, clock: int) -> bool:
    """Whether trials end well on this host, or one has been running there for a while."""
    if not host.usable:
        return False
    running = (state.trial(number) for number in host.trials)
    return host.well or any(one.status == "RUNNING" and clock - one.clock > 5 * SOON for one in running)


def _due(state: State, clock: int) -> list[Draft]:
    drafts: list[Draft] = []
    settings = state.settings
    limit = settings.max_experiment_duration
    if limit is not None and not state.time_up and clock >= microseconds(limit):
        drafts.append(Draft(Tick(clock, "max_experiment_duration")))
    longest = settings.max_trial_duration
    for number in state.active:
        trial = state.trial(number)
        if trial.kill:
            continue
        if longest is not None and trial.status == "RUNNING" and clock - trial.clock >= microseconds(longest):
            drafts.append(Draft(Kill(trial.attempt, "max_trial_duration", why=f"it ran for {longest}"), number))
    lost = lost_after(state)
    for host in state.hosts.values():
        if host.aside_until and clock >= host.aside_until:
            drafts.append(Draft(SetAside(host.name, clock)))
        if host.connected or clock - host.clock < lost:
            continue
        for number in state.active:
            trial = state.trial(number)
            if trial.host == host.name:
                reason = f"no answer from host {host.name} for {lost // 1_000_000} s"
                drafts.append(Draft(TrialEnd(trial.attempt, "LOST", reason=reason, clock=clock), number))
    return drafts


def lost_after(state: State) -> int:
    """After how many us without an answer a host's trials are LOST: engine_lease + 2 x stop_grace."""
    return microseconds(state.settings.engine_lease) + 2 * microseconds(state.settings.stop_grace)


def microseconds(duration: str | float) -> int:
    """A duration of the config, in us."""
    return round(config_room.seconds(duration) * 1_000_000)


def _suggests(state: State, request: Suggests) -> list[Draft]:
    if not _asked(state, request.ask, request.attempt):
        return []
    ask = state.asks[request.ask]
    fact = Parameter(
        request.ask,
        _raw(request.parameters),
        request.seen,
        ask.phase,
        request.continues,
        request.budget,
        request.parents,
        _raw(request.decision) if request.decision else EMPTY,
    )
    drafts = [Draft(fact, ask.trial, cause=ask.seq)]
    if not ask.sender:
        drafts.insert(0, Draft(NewTrial(trial_id(state, ask.trial)), ask.trial, cause=ask.seq))
    return drafts


def _hangs(state: State, request: TunerHangs, clock: int) -> list[Draft]:
    asked = state.queues.asked
    if not asked or not state.quiet or state.status == "PAUSED" or state.stopping or state.finished:
        return []
    trials = ", ".join(str(state.asks[number].trial) for number in asked[:5])
    reason = (
        f"the tuner has not answered for {request.seconds:g} s (asked for trial {trials}), and nothing runs or waits "
        "to run whose result it could be waiting for"
    )
    return [Draft(Status("PAUSED", reason, clock))]


def _kill(state: State, request: AskKill, clock: int) -> list[Draft]:
    trial = state.trials[request.trial] if 0 <= request.trial < len(state.trials) else None
    if trial is None:
        raise Refused(f"there is no trial {request.trial}: numbers go from 0 to {len(state.trials) - 1}")
    if trial.over:
        raise Refused(f"trial {trial.number} has ended already: {trial.status}")
    if trial.active:
        if trial.kill:
            return []
        return [Draft(Kill(trial.attempt, "user", request.actor), trial.number)]
    # it waits: it never starts
    return [Draft(TrialEnd(trial.attempt, "USER_CANCELED", reason="user", clock=clock), trial.number)]


def _update(state: State, request: AskUpdate) -> list[Draft]:
    if request.trial_concurrency is not None and request.trial_concurrency < 1:
        raise Refused(f"concurrency: {request.trial_concurrency} was given, allowed is 1 or more")
    if request.max_trial_number is not None and request.max_trial_number < 1:
        raise Refused(f"max-trials: {request.max_trial_number} was given, allowed is 1 or more")
    if request.max_experiment_duration is not None:
        try:
            config_room.seconds(request.max_experiment_duration)
        except ValueError as error:
            raise Refused(f"duration: {error}") from None
    space = EMPTY
    if request.search_space is not None:
        _object(request.search_space, "search space")
        space = _raw(request.search_space)
        _constrained(state, request.search_space)
    if (
        request.trial_concurrency is None
        and request.max_trial_number is None
        and request.max_experiment_duration is None
        and request.search_space is None
    ):
        raise Refused("nothing to change: give --concurrency, --max-trials, --duration or --search-space")
    return [
        Draft(
            Update(
                request.actor,
                request.trial_concurrency,
                request.max_trial_number,
                request.max_experiment_duration,
                space,
            )
        )
    ]


def _constrained(state: State, raw: str) -> None:
    """Refuse a new search space of which the experiment's constraints can't speak."""
    texts = state.settings.constraints
    if not texts:
        return
    try:
        parse(_json.decode(raw), texts)
    except SpaceError as error:
        raise Refused(f"the search space: {error.errors[0]}") from None


def _asked(state: State, number: int, attempt: int) -> bool:
    """Whether this is the answer to an ask that is open and was put just so."""
    ask = state.asks.get(number)
    return ask is not None and ask.attempt == attempt and number in state.queues.asked


def _launch_of(state: State, identity: str, attempt: int) -> Trial | None:
    """The trial whose current, active attempt this is."""
    number = state.ids.get(identity)
    if number is None:
        return None
    trial = state.trial(number)
    return trial if trial.attempt == attempt and trial.active else None


def _raw(text: str) -> Raw:
    """JSON text as it was written, once it was seen to be JSON."""
    raw = text.encode()
    try:
        _json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"this is not JSON: {error}") from None
    return Raw(raw)


def _object(text: str, what: str) -> None:
    try:
        value = _json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the {what} are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"the {what} have to be a JSON object, found {text[:60]}")
