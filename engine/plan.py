"""What to do next, as a function of the state: intents that become facts first, and commands that carry facts out.

Level-triggered, so resume has no code path of its own: replay, then plan. `intents` looks at what is true and says
which facts the engine itself adds (a launch, an ask, a kill, a status); the shell folds them and asks again until there
are none (all that it changes is `queues.roomy`, from which hosts go that turn out to have no room). `drain` then
takes the commands out of the queues that `reduce` keeps. Pure and synchronous; the cost is the number of intents and
commands, and one look at each active trial for the next deadline.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from .decide import Draft, lost_after, microseconds, phase_limit
from .events import Kill, Launch, RequestParameter, Status, TrialEnd
from .placement import Room, claims, home_of, never, why_not
from .reduce import open_phase
from .state import OpenAsk, State, Trial

# -- commands: each is answered by exactly one request, which decide checks again -------------------------------------


class AskTuner(Struct, frozen=True):
    """Put an ask to the tuner."""

    number: int
    attempt: int
    trial: int
    trial_id: str
    phase: int
    space: int  # the space's version
    waiting: int


class StartTrial(Struct, frozen=True):
    """Start the trial's current attempt on its host."""

    trial: int


class ProbeTrial(Struct, frozen=True):
    """Ask the trial's host what became of its current attempt."""

    trial: int


class StopTrial(Struct, frozen=True):
    """End the trial's current attempt."""

    trial: int
    grace: float  # seconds


class AnswerTrial(Struct, frozen=True):
    """Give a trial's process the answer to its request for parameters."""

    sender: str


class EndLost(Struct, frozen=True):
    """A host is back: what it has of a launch that was given up is taken in, and the launch is ended."""

    host: str
    trial_id: str
    attempt: int
    grace: float  # seconds


class ClaimDevices(Struct, frozen=True):
    """Ask other experiments on a host to leave devices; none: no more."""

    host: str
    devices: list[str]
    wants: int


class ForgetLaunch(Struct, frozen=True):
    """Tell the host that the end of a launch is recorded."""

    host: str
    trial_id: str
    attempt: int


Command = AskTuner | StartTrial | ProbeTrial | StopTrial | AnswerTrial | ForgetLaunch | EndLost | ClaimDevices


def intents(state: State, code: Callable[[], str]) -> list[Draft]:
    """The facts that the engine adds now; empty when there is nothing to add. `code` gives the code's hash."""
    if state.config is None or state.finished or not state.engine_pid:
        return []
    if state.stopping:
        drafts = [
            Draft(Kill(state.trial(number).attempt, "stop", state.stopping), number)
            for number in state.active
            if not state.trial(number).kill
        ] or _given_up(state)
        if not drafts and not state.active:
            drafts = [Draft(Status("STOPPED", f"stopped by {state.stopping}", state.clock))]
        return drafts
    if state.status == "PAUSED":
        return []
    pause = _brake(state) or (never(state) if state.ready and not state.active else "")
    if pause:
        return [Draft(Status("PAUSED", pause, state.clock))]
    drafts = _launches(state, code)
    if drafts:
        return drafts
    drafts = _asks(state)
    return drafts or status_due(state)


def _given_up(state: State) -> list[Draft]:
    """When a stop is forced: the trials on hosts that can't be reached. They are ended when their host is back, or by
    its keeper, after the lease."""
    if not state.force:
        return []
    drafts: list[Draft] = []
    for trial in map(state.trial, state.active):
        host = state.hosts.get(trial.host)
        if host is not None and not host.connected and host.reason:
            reason = f"given up by a forced stop: host {host.name} is away ({host.reason})"
            drafts.append(Draft(TrialEnd(trial.attempt, "LOST", reason=reason, clock=state.clock), trial.number))
    return drafts


def no_more_trials(state: State) -> str:
    """Why no new trial will be made ("" while some may be)."""
    settings = state.settings
    if state.exhausted:
        return state.exhausted
    if state.time_up:
        return f"max_experiment_duration {settings.max_experiment_duration} is reached"
    if settings.max_trial_number is not None and len(state.trials) >= settings.max_trial_number:
        return f"max_trial_number {settings.max_trial_number} is reached"
    return phase_limit(state, None)


def _brake(state: State) -> str:
    settings = state.settings
    if state.tuner_errors > 3:
        return f"the tuner failed {state.tuner_errors} times in a row: {state.last_error}"
    limit = settings.max_failures
    if limit and settings.max_trial_number is not None:
        limit = min(limit, settings.max_trial_number)
    if limit and not state.heard and state.ended == state.silent_failures >= limit:
        last = max((trial for trial in state.made if trial.status == "FAILED"), key=lambda trial: trial.ended_us)
        tail = last.stderr.strip()
        return (
            f"the first {state.ended} trials all failed and none reported anything; trial {last.number}: {last.reason}"
            + (f"\n{tail}" if tail else "")
        )
    quiet = not state.queues.asked and state.quiet
    if state.asks and quiet and _next_ask(state) is None:
        why = next((ask.reason for ask in state.asks.values() if ask.reason), "no reason given")
        return f"the tuner says that it has nothing yet, and nothing runs that could change it ({why})"
    return ""


def _launches(state: State, code: Callable[[], str]) -> list[Draft]:
    free, roomy = state.settings.trial_concurrency - len(state.active), state.queues.roomy
    if not state.ready or state.time_up or free <= 0 or not roomy:
        return []
    room = Room(state)
    drafts: list[Draft] = []
    for trial in map(state.trial, state.ready):
        if len(drafts) == free or not roomy:
            break
        if unfinished_parent(state, trial) is not None:
            continue
        home = home_of(state, trial)
        place = room.on(home) if home else room.anywhere()
        if place is not None:
            phase = open_phase(state, trial)
            drafts.append(Draft(Launch(trial.attempt, place.host, phase or 0, code(), place.devices), trial.number))
    return drafts


def unfinished_parent(state: State, trial: Trial) -> int | None:
    """The trial that still runs and whose checkpoint this one continues: it may still write, so this one waits.

    A multi-phase trial runs on after the phase that is continued, so nobody waits for it.
    """
    number = trial.continues
    if number is None or state.settings.multi_phase or not 0 <= number < trial.number:
        return None
    parent = state.trials[number]
    return number if parent is not None and parent.active else None


def _asks(state: State) -> list[Draft]:
    if no_more_trials(state):
        return []
    settings = state.settings
    open_new = sum(1 for ask in state.asks.values() if not ask.sender)
    wanted = settings.trial_concurrency - len(state.active) - len(state.ready) - open_new
    if settings.max_trial_number is not None:
        wanted = min(wanted, settings.max_trial_number - len(state.trials))
    if settings.max_phase_number is not None:
        wanted = min(wanted, settings.max_phase_number - state.phases - len(state.asks))
    first_trial, first_ask = len(state.trials), state.next_ask
    return [Draft(RequestParameter(first_ask + index), first_trial + index) for index in range(max(wanted, 0))]


def status_due(state: State) -> list[Draft]:
    """The change of status that is due: to NO_MORE_TRIAL, from there to DONE, or back to RUNNING."""
    why = no_more_trials(state)
    pending = any(not ask.sender for ask in state.asks.values()) or bool(state.ready)
    if not why or (pending and not state.time_up):
        if state.status == "NO_MORE_TRIAL":
            return [Draft(Status("RUNNING", "", state.clock))]
        return []
    if not state.active:
        return [Draft(Status("DONE", why, state.clock))]
    if state.status != "NO_MORE_TRIAL":
        return [Draft(Status("NO_MORE_TRIAL", why, state.clock))]
    return []


def drain(state: State) -> list[Command]:
    """Take out what is to be done. All but `AskTuner` must wait until the log is durable up to `state.seq`."""
    queues = state.queues
    commands: list[Command] = []
    for number in dict.fromkeys(queues.launch):
        trial = state.trial(number)
        if trial.launching and not trial.kill:
            commands.append(StartTrial(number))
    queues.launch = []
    commands += [ProbeTrial(number) for number in dict.fromkeys(queues.probe) if state.trial(number).active]
    queues.probe = []
    for number in dict.fromkeys(queues.stop):
        trial = state.trial(number)
        if trial.active and trial.kill:
            grace = 0.0 if state.force else microseconds(state.settings.stop_grace) / 1_000_000
            commands.append(StopTrial(number, grace))
    queues.stop = []
    commands += [AnswerTrial(sender) for sender in queues.answer]
    queues.answer = []
    for identity, attempt in queues.forget:
        commands.append(ForgetLaunch(state.trial(state.ids[identity]).host, identity, attempt))
    queues.forget = []
    grace = microseconds(state.settings.stop_grace) / 1_000_000 if queues.lost else 0.0
    for host, launches in state.lost.items():
        commands += [EndLost(host, *launch, grace) for launch in launches if launch in queues.lost]
    queues.lost = []
    commands += _claims(state, queues.claimed)
    if state.status not in ("PAUSED", "STOPPING", "STOPPED", "DONE", "ERROR"):
        commands += _asks_to_put(state, queues.asked)
    return commands


def _claims(state: State, claimed: dict[str, list[str]]) -> list[Command]:
    """What has changed about the claims on devices."""
    due = claims(state) if state.status == "RUNNING" else {}
    if claimed == due:
        return []
    state.queues.claimed = due
    wants = state.settings.trial_gpu_number or 0
    hosts = [name for name in {**claimed, **due} if claimed.get(name) != due.get(name)]
    return [ClaimDevices(name, due.get(name, []), wants) for name in hosts]


def _asks_to_put(state: State, asked: list[int]) -> list[AskTuner]:
    """One ask after the other; a concurrent tuner gets all of them at once."""
    commands: list[AskTuner] = []
    while state.concurrent or not asked:
        ask = _next_ask(state)
        if ask is None:
            break
        asked.append(ask.number)
        asking = state.trials[ask.trial]
        name = asking.id if asking is not None else ""
        commands.append(
            AskTuner(ask.number, ask.attempt, ask.trial, name, ask.phase, state.space_version, len(state.asks) - 1)
        )
    return commands


def _next_ask(state: State) -> OpenAsk | None:
    """The first ask that is to be put now; a trial's own asks keep their order, since a phase is numbered by it."""
    before: set[int] = set()
    told = max(state.last_told, state.queues.told)
    for ask in state.asks.values():
        if ask.trial not in before and ask.waits_since < told and ask.number not in state.queues.asked:
            return ask
        before.add(ask.trial)
    return None


def deadline(state: State) -> int | None:
    """The run clock in us at which `Due` is to be asked next; None when no deadline is set."""
    if state.config is None or state.finished:
        return None
    settings = state.settings
    due: list[int] = []
    if settings.max_experiment_duration is not None and not state.time_up:
        due.append(microseconds(settings.max_experiment_duration))
    if settings.max_trial_duration is not None:
        limit = microseconds(settings.max_trial_duration)
        due += [
            trial.clock + limit
            for trial in map(state.trial, state.active)
            if trial.status == "RUNNING" and not trial.kill
        ]
    due += [host.aside_until for host in state.hosts.values() if host.aside_until]
    away = [host for host in state.hosts.values() if not host.connected]
    if away and state.active:
        lost = lost_after(state)
        names = {state.trial(number).host for number in state.active}
        due += [host.clock + lost for host in away if host.name in names]
    return min(due, default=None)


def waits_for(state: State, trial: Trial) -> str:
    """Why this trial is WAITING, for people."""
    if trial.launching:
        storage = state.settings.shared_storage
        carried = storage is not None and not storage.is_mounted
        needs = ", once the shared storage has given what it needs" if carried else ""
        return f"is being started on {trial.host}{needs}"
    before = f"; {trial.reason}" if trial.reason else ""
    if state.status in ("STOPPING", "STOPPED", "PAUSED", "DONE", "ERROR"):
        return f"the experiment is {state.status}{before}"
    if state.hosts and not any(host.connected for host in state.hosts.values()):
        reasons = "; ".join(host.reason for host in state.hosts.values() if host.reason)
        return f"no host is reached{f' ({reasons})' if reasons else ''}{before}"
    if state.settings.in_process:
        return f"the next ask() gets it{before}"
    parent = unfinished_parent(state, trial)
    if parent is not None:
        return f"waits for the end of trial {parent}, whose checkpoint it continues{before}"
    used = len(state.active)
    if used < state.settings.trial_concurrency and (why := why_not(state, trial)):
        return f"{why}{before}"
    return f"waits for a slot: {used} of {state.settings.trial_concurrency} are in use{before}"
