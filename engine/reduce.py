"""The fold: takes the state from one fact to the next, and tells tuner and assessor what they are to know of it.

Pure, synchronous, total: no clock, no randomness, no I/O. Live run, resume and view are this function over the same
facts. What the plug-ins observe is derived here too, into `state.queues.news`, so a tuner rebuilt from the log sees
exactly what the first one saw.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, assert_never, cast

import msgspec
from msgspec.structs import replace

from . import config as config_room
from .events import (
    Devices,
    EngineStarted,
    Exhausted,
    Experiment,
    Fact,
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
from .objectives import is_better, judge, step, with_result
from .placement import missing_indices
from .plugins import Ended, Imported, LimitsChanged, Outcome, Reported, SpaceChanged, Suggested, TrialEnded
from .state import Best, HostState, OpenAsk, Phase, Ranked, Sender, State, Trial

AT_ONCE = 3  # so many trials in a row that fail at once set their host aside
SOON = 2_000_000  # us from the start to an end that is at once
_json: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def reduce(state: State, fact: Fact) -> None:
    """Fold one fact into the state. Facts come in the order of their `seq`, which is dense."""
    event = fact.event
    state.seq = fact.seq
    state.wall_us = fact.wall_us
    if type(event) is Metric:  # the hot path stands before the match
        _metric(state, fact, event)
        return
    state.epoch = fact.epoch
    queues = state.queues
    queues.dirty = True
    match event:
        case Metric():
            pass  # handled above; named here so that the match stays exhaustive
        case Experiment():
            state.id, state.seed, state.created_us = event.id, event.seed, fact.wall_us
            state.config = config_room.decode(bytes(event.config))
            state.terms = state.config.terms
        case EngineStarted():
            _engine_started(state, event)
        case Status():
            state.status, state.reason = event.status, event.reason
            state.clock = max(state.clock, event.clock)
            if event.status == "PAUSED":
                _release_waiting(state)
            elif event.status in ("DONE", "STOPPED", "ERROR"):
                state.engine_pid = 0
        case Stop():
            state.stopping, state.force = event.actor, state.force or event.force
            if event.force:  # say it again to those that were already asked
                queues.stop += [number for number in state.active if state.trial(number).kill]
            if state.status not in ("DONE", "STOPPED", "ERROR"):
                state.status, state.reason = "STOPPING", f"stopped by {event.actor}"
        case Update():
            _update(state, fact, event)
        case Import():
            state.imported += 1
            found = judge(state.settings, bytes(event.value))
            _tell(state, Imported(fact.seq, _json.decode(event.parameters), *found))
        case Tick():
            state.clock = max(state.clock, event.clock)
            if event.reached == "max_experiment_duration":
                state.time_up = True
        case RequestParameter():
            _request(state, fact, event)
        case NewTrial():
            assert fact.trial is not None
            _new_trial(state, fact, fact.trial, event)
        case Parameter():
            assert fact.trial is not None
            _parameter(state, fact, fact.trial, event)
        case NotYet():
            _answered(state, event.ask)
            ask = state.asks.get(event.ask)
            if ask is not None:
                ask.attempt += 1
                ask.waits_since, ask.reason = event.seen, event.reason
        case Exhausted() if event.trial:
            # what else the trial has asked for would be numbered after this phase, which is not made
            _release_waiting(state, fact.trial)
        case Exhausted():
            queues.asked = []
            state.exhausted = event.reason or "the tuner has nothing more"
            _release_waiting(state)
            for number in [ask.number for ask in state.asks.values() if not ask.sender]:
                del state.asks[number]
            while state.trials and state.trials[-1] is None:
                state.trials.pop()
        case TunerError() if event.goes_on:
            _warn(state, event.error)
        case TunerError():
            queues.asked = []
            state.tuner_errors += 1
            state.last_error = event.error
        case Launch():
            assert fact.trial is not None
            _launch(state, fact, state.trial(fact.trial), event)
        case NotLaunched():
            assert fact.trial is not None
            _not_launched(state, state.trial(fact.trial), event)
        case Launched():
            assert fact.trial is not None
            _launched(state, fact, state.trial(fact.trial), event)
        case Kill():
            assert fact.trial is not None
            trial = state.trial(fact.trial)
            trial.kill = event.reason
            if event.why:
                trial.reason = event.why
            queues.stop.append(trial.number)
        case TrialEnd():
            assert fact.trial is not None
            _trial_end(state, fact, state.trial(fact.trial), event)
        case Host():
            _host(state, event)
        case Devices():
            _devices(state, event)
        case SetAside():
            _set_aside(state, event)
        case Thinned():
            sender = _sender(state, fact)
            if sender is not None:
                state.thinned += event.last - event.first + 1
                sender.last = max(sender.last, event.last)
        case _:
            assert_never(event)


def sender_name(trial_id: str, attempt: int, process: str) -> str:
    """The name under which a trial's process is numbered in the log."""
    return f"{trial_id}.{attempt}.{process}"


def retries_left(state: State, trial: Trial) -> bool:
    """Whether a FAILED or LOST attempt of this trial is followed by another one."""
    return trial.failures <= state.settings.max_retries and open_phase(state, trial) is not None


def open_phase(state: State, trial: Trial) -> int | None:
    """Where a new attempt would go on: the first phase without a counted final; None when there is nothing to do."""
    for index, phase in enumerate(trial.phases):
        if phase.value is None:
            return index
    return len(trial.phases) if state.settings.multi_phase else None


# -- one function a fact ----------------------------------------------------------------------------------------------
def _engine_started(state: State, event: EngineStarted) -> None:
    state.engine_host, state.engine_pid = event.host, event.pid
    state.clock = max(state.clock, event.clock)
    state.status, state.reason = "RUNNING", ""  # plan says at once if nothing is left to do
    state.stopping, state.force, state.time_up = "", False, False
    state.ended = state.silent_failures = state.tuner_errors = 0
    state.heard = False
    for host in state.hosts.values():
        if host.connected:  # its silence counts from here on, not from when it was reached
            host.connected, host.clock = False, state.clock
        host.failures = host.aside = host.aside_until = 0
        host.well, host.aside_reason = False, ""
    queues = state.queues
    queues.roomy, queues.claimed = {}, {}
    queues.probe, queues.launch, queues.stop, queues.answer, queues.forget = [], [], [], [], []
    queues.lost = []
    queues.asked = []
    for ask in state.asks.values():
        ask.waits_since = -1
    for trial in state.made:
        if trial.status == "SYS_CANCELED" and open_phase(state, trial) is not None:
            _requeue(state, trial, "stopped, then resumed")


def _update(state: State, fact: Fact, event: Update) -> None:
    changes: dict[str, Any] = {
        name: value
        for name in ("trial_concurrency", "max_trial_number", "max_experiment_duration")
        if (value := getattr(event, name)) is not None
    }
    if event.search_space:
        changes["search_space"] = _json.decode(event.search_space)
        state.space_version += 1
        state.exhausted = ""
    state.config = replace(state.settings, **changes)
    if "max_experiment_duration" in changes:
        state.time_up = False
    if state.tell and ("trial_concurrency" in changes or "max_trial_number" in changes):
        limits = state.settings
        state.queues.news.append(LimitsChanged(fact.seq, limits.trial_concurrency, limits.max_trial_number))
    if state.status == "NO_MORE_TRIAL" or (state.status == "DONE" and state.engine_pid):
        state.status, state.reason = "RUNNING", ""
    if event.search_space:
        for ask in state.asks.values():
            ask.waits_since = -1
        _tell(state, SpaceChanged(fact.seq, state.space_version, changes["search_space"]))


def _request(state: State, fact: Fact, event: RequestParameter) -> None:
    sender = _sender(state, fact) if fact.sender_seq == event.number and event.number else None
    if sender is not None:
        sender.last = fact.sender_seq
        sender.request = event.number
        sender.ask = 0
        state.heard = True
        if event.refused:
            sender.answer_phase = -1
            state.queues.answer.append(fact.sender)
            return
        sender.ask = event.ask
    assert fact.trial is not None
    state.next_ask = event.ask + 1
    state.asks[event.ask] = OpenAsk(
        event.ask, fact.trial, event.phase, fact.sender if sender is not None else "", fact.seq
    )
    if sender is None:
        while len(state.trials) <= fact.trial:
            state.trials.append(None)


def _new_trial(state: State, fact: Fact, number: int, event: NewTrial) -> None:
    while len(state.trials) <= number:
        state.trials.append(None)
    assert state.trials[number] is None
    state.trials[number] = Trial(number, event.id, event.origin, fact.wall_us)
    state.ids[event.id] = number
    state.counts["WAITING"] += 1


def _parameter(state: State, fact: Fact, number: int, event: Parameter) -> None:
    trial = state.trial(number)
    ask = state.asks.pop(event.ask, None)
    _answered(state, event.ask)
    state.tuner_errors = 0
    trial.phases.append(Phase(event.parameters, event.ask))
    state.phases += 1
    if event.continues is not None:
        trial.continues = event.continues
    if ask is not None and ask.sender:
        sender = state.senders[ask.sender]
        if sender.ask == event.ask:
            sender.ask, sender.answer_phase = 0, event.phase
            state.queues.answer.append(ask.sender)
    elif event.phase == 0:
        state.ready.append(number)
    parameters = _json.decode(event.parameters)
    _tell(
        state,
        Suggested(
            fact.seq,
            number,
            event.phase,
            cast("dict[str, Any]", parameters) if isinstance(parameters, dict) else {"": parameters},
            trial.id,
            event.ask or None,
            trial.origin,
            event.continues,
            event.budget,
        ),
    )


def _launch(state: State, fact: Fact, trial: Trial, event: Launch) -> None:
    if state.ready and state.ready[0] == trial.number:
        state.ready.popleft()
    elif trial.number in state.ready:
        state.ready.remove(trial.number)
    if (event.code and trial.code and event.code != trial.code) or _code_changed(state, trial, event):
        _warn(state, f"the code directory changed before trial {trial.number} (attempt {event.attempt})")
    _leave(state, trial)
    trial.attempt, trial.host, trial.code, trial.devices = event.attempt, event.host, event.code, event.devices
    _enter(state, trial)
    trial.launching, trial.kill, trial.force, trial.reason = True, "", False, ""
    trial.pid = trial.exit_code = None
    trial.stderr, trial.started_us, trial.ended_us = "", 0, 0
    for phase in trial.phases[event.phase :]:
        if phase.value is None:
            phase.intermediate = array("d")
            phase.final = None
    state.active[trial.number] = None
    state.queues.launch.append(trial.number)


def _not_launched(state: State, trial: Trial, event: NotLaunched) -> None:
    if event.attempt != trial.attempt or not trial.launching:
        return
    host = state.hosts.get(trial.host)
    if host is not None:
        host.refused |= dict.fromkeys(event.devices, event.reason)
    _leave(state, trial)
    trial.launching, trial.host, trial.devices = False, "", []
    state.active.pop(trial.number, None)
    state.ready.appendleft(trial.number)
    state.clock = max(state.clock, event.clock)


def _code_changed(state: State, trial: Trial, event: Launch) -> bool:
    """Whether this launch runs other code than the last launch of the trial before it."""
    before = state.trials[trial.number - 1] if trial.number else None
    return (
        trial.attempt == 0
        and before is not None
        and bool(before.code)
        and bool(event.code)
        and before.code != event.code
    )


def _launched(state: State, fact: Fact, trial: Trial, event: Launched) -> None:
    if event.attempt != trial.attempt or not trial.launching:
        return
    trial.launching = False
    trial.pid, trial.started_us, trial.clock = event.pid, event.started, event.clock
    _set_status(state, trial, "RUNNING")
    if trial.kill:
        state.queues.stop.append(trial.number)


def _metric(state: State, fact: Fact, event: Metric) -> None:
    sender = _sender(state, fact)
    if sender is None:
        return
    sender.last = fact.sender_seq
    state.metrics += 1
    state.heard = True
    trial = state.trials[sender.trial]
    if trial is None or not trial.phases:
        return
    if event.ignored:
        if event.final:
            phase = trial.phases[min(event.phase, len(trial.phases) - 1)]
            phase.ignored = [*phase.ignored, event.value]
        return
    phase = trial.phases[event.phase]
    if not event.final:
        value = step(state.settings, bytes(event.value))
        series = phase.intermediate
        series.append(math.nan if value is None else value)
        if state.tell_intermediates:
            state.queues.news.append(Reported(fact.seq, trial.number, event.phase, len(series) - 1, series[-1]))
        return
    state.queues.dirty = True
    phase.final = event.value
    value, values, violation = judge(state.settings, bytes(event.value))
    if value is None:
        return
    phase.value, phase.values, phase.violation = value, values, violation
    if values:
        state.front = with_result(state.settings, state.front, Ranked(trial.number, event.phase, values, violation))
    elif not violation and (state.best is None or is_better(state.settings, value, state.best.value)):
        state.best = Best(trial.number, event.phase, value)
    phase.told = True
    _tell(state, Ended(fact.seq, trial.number, event.phase, "completed", value, values, violation, _raw(state, phase)))


def _trial_end(state: State, fact: Fact, trial: Trial, event: TrialEnd) -> None:
    if event.attempt != trial.attempt or trial.over:
        return
    queues = state.queues
    if trial.active:
        _leave(state, trial)
        _judge_host(state, trial, event)
        if event.status == "LOST":
            state.lost.setdefault(trial.host, []).append((trial.id, trial.attempt))
        else:
            queues.forget.append((trial.id, trial.attempt))
    elif trial.number in state.ready:
        state.ready.remove(trial.number)
    state.clock = max(state.clock, event.clock)
    state.active.pop(trial.number, None)
    trial.launching, trial.pid = False, None
    trial.exit_code, trial.stderr, trial.ended_us = event.exit_code, event.stderr, event.ended or fact.wall_us
    reason = event.reason if not trial.reason else f"{event.reason}: {trial.reason}"
    trial.kill = ""
    for name in [ask.number for ask in state.asks.values() if ask.sender and ask.trial == trial.number]:
        ask = state.asks.pop(name)
        state.senders[ask.sender].ask = 0
        _answered(state, name)
    failed = event.status in ("FAILED", "LOST")
    if failed:
        trial.failures += 1
        if retries_left(state, trial):
            _requeue(state, trial, f"attempt {event.attempt} ended {event.status}: {reason}")
            return
    if event.status == "SYS_CANCELED" and not state.stopping and open_phase(state, trial) is not None:
        _requeue(state, trial, reason)
        return
    trial.reason = reason
    _set_status(state, trial, event.status)
    if event.status == "SYS_CANCELED" and open_phase(state, trial) is not None:
        return  # a resume brings it back: nothing has ended for the tuner
    state.ended += 1
    if event.status == "FAILED" and not state.heard:
        state.silent_failures += 1
    _tell_end(state, fact, trial, event.status)


def _tell_end(state: State, fact: Fact, trial: Trial, status: str) -> None:
    outcome: Outcome = "failed"
    if status == "EARLY_STOPPED":
        outcome = "stopped"
    elif status in ("USER_CANCELED", "SYS_CANCELED"):
        outcome = "cancelled"
    for index, phase in enumerate(trial.phases):
        if phase.told:
            continue
        phase.told = True
        value = None
        if outcome == "stopped":
            value = next((number for number in reversed(phase.intermediate) if math.isfinite(number)), None)
        _tell(state, Ended(fact.seq, trial.number, index, outcome, value, raw=_raw(state, phase)))
    if state.tell_more:
        state.queues.news.append(TrialEnded(fact.seq, trial.number, status))
        state.queues.told = fact.seq


def _host(state: State, event: Host) -> None:
    known, host = event.name in state.hosts, state.hosts.setdefault(event.name, HostState(event.name))
    was, host.connected = host.connected, event.state == "connected"
    if host.connected or was or not known:  # else there is another reason for the same absence
        host.clock = event.clock
    host.pid, host.reason = event.pid, event.reason
    state.clock = max(state.clock, event.clock)
    if not host.connected:
        return
    queues = state.queues
    host.devices, host.devices_reason, host.refused = None, "", {}  # what it says next counts
    queues.roomy[event.name] = None
    queues.claimed.pop(event.name, None)  # it ended with the connection
    queues.lost += state.lost.get(event.name, [])
    for number in state.active:
        trial = state.trial(number)
        if trial.host != event.name:
            continue
        if number in queues.launch:
            continue
        queues.probe.append(number)
        if trial.kill:
            queues.stop.append(number)


def _devices(state: State, event: Devices) -> None:
    host = state.hosts.setdefault(event.host, HostState(event.host))
    host.devices, host.devices_reason, host.refused = event.devices, event.reason, {}
    state.clock = max(state.clock, event.clock)
    state.queues.roomy[event.host] = None
    terms = state.terms.get(event.host)
    missing = missing_indices(host, terms) if terms is not None else []
    if missing:
        there = ", ".join(str(device.index) for device in event.devices) or "none"
        warning = f"host {event.host} has no GPU {', '.join(missing)}, which its gpu_indices names; it has: {there}"
        if warning not in state.warnings:
            _warn(state, warning)


def _set_aside(state: State, event: SetAside) -> None:
    host = state.hosts.setdefault(event.host, HostState(event.host))
    host.aside_until, host.aside_reason = event.until, event.reason
    state.clock = max(state.clock, event.clock)
    if event.until:
        host.aside += 1
        host.failures = AT_ONCE - 1  # when it is back, one more is enough
        _warn(state, f"host {event.host} is set aside for {(event.until - event.clock) / 1e6:g} s: {event.reason}")
    else:
        state.queues.roomy[event.host] = None


def _judge_host(state: State, trial: Trial, event: TrialEnd) -> None:
    """What the end of an attempt says of its host."""
    host = state.hosts.get(trial.host)
    if host is None or event.status not in ("SUCCEEDED", "EARLY_STOPPED", "FAILED"):
        return
    if failed_at_once(trial, event):
        host.failures, host.well = host.failures + 1, False
    else:
        host.failures = 0
        if event.status != "FAILED":
            host.well, host.aside = True, 0


def failed_at_once(trial: Trial, event: TrialEnd) -> bool:
    """Whether an attempt could not be started, or failed within `SOON` and had reported nothing."""
    if event.status != "FAILED" or trial.kill:
        return False
    reported = any(phase.intermediate or phase.final is not None for phase in trial.phases)
    return trial.launching or (not reported and event.clock - trial.clock < SOON)


# -- what several facts share -----------------------------------------------------------------------------------------
def _sender(state: State, fact: Fact) -> Sender | None:
    """The sender of a trial's report, made when it is first heard; None when its trial is unknown."""
    sender = state.senders.get(fact.sender)
    if sender is None and fact.trial is not None:
        _, attempt, process = fact.sender.split(".", 2)
        sender = state.senders[fact.sender] = Sender(fact.trial, int(attempt), process)
    return sender


def _enter(state: State, trial: Trial) -> None:
    """It takes its place on its host."""
    host = state.hosts.get(trial.host)
    if host is not None:
        host.trials[trial.number] = None
        for uuid in trial.devices:
            host.using.setdefault(uuid, []).append(trial.number)


def _leave(state: State, trial: Trial) -> None:
    """Its place on its host, if it has one, is free."""
    host = state.hosts.get(trial.host)
    if host is None or trial.number not in host.trials:
        return
    del host.trials[trial.number]
    for uuid in trial.devices:
        users = [number for number in host.using.get(uuid, ()) if number != trial.number]
        host.using[uuid] = users
        if not users:
            del host.using[uuid]
    state.queues.roomy[trial.host] = None


def _set_status(state: State, trial: Trial, status: str) -> None:
    state.counts[trial.status] -= 1
    trial.status = status
    state.counts[status] += 1


def _requeue(state: State, trial: Trial, reason: str) -> None:
    _set_status(state, trial, "WAITING")
    trial.attempt += 1
    trial.reason, trial.pid, trial.launching = reason, None, False
    state.ready.append(trial.number)


def _release_waiting(state: State, trial: int | None = None) -> None:
    """Trials that wait for their next parameters (all, or this one) get None: nothing more will come."""
    for number in [ask.number for ask in state.asks.values() if ask.sender and trial in (None, ask.trial)]:
        ask = state.asks.pop(number)
        _answered(state, number)
        sender = state.senders[ask.sender]
        sender.ask, sender.answer_phase = 0, -1
        state.queues.answer.append(ask.sender)


def _answered(state: State, number: int) -> None:
    """The ask is no longer with the tuner."""
    if number in state.queues.asked:
        state.queues.asked.remove(number)


def _warn(state: State, warning: str) -> None:
    state.warnings.append(warning)
    del state.warnings[:-100]


def _raw(state: State, phase: Phase) -> str:
    return bytes(phase.final).decode() if state.tell_more and phase.final is not None else ""


def _tell(state: State, observation: Suggested | Ended | Imported | SpaceChanged) -> None:
    state.last_told = observation.seq
    if state.tell:
        state.queues.news.append(observation)
