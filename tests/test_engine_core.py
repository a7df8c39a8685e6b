"""decide, reduce and plan against a small world of dice: no I/O, a seed is a history.

The world carries commands out late, in any order, twice or not at all, loses the host, kills the engine, and lets
trials and the tuner misbehave. What must hold is checked after every step and at the end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tune.engine import config as config_room
from tune.engine.config import Config
from tune.engine.decide import Draft, decide, trial_id
from tune.engine.events import EngineStarted, Experiment, Fact, Status, TrialEnd, decode, encode
from tune.engine.plan import (
    AnswerTrial,
    AskTuner,
    EndLost,
    ForgetLaunch,
    ProbeTrial,
    StartTrial,
    StopTrial,
    drain,
    intents,
    waits_for,
)
from tune.engine.plugins import Ended, Imported, Suggested, TrialEnded
from tune.engine.reduce import open_phase, reduce
from tune.engine.requests import (
    AskImport,
    AskKill,
    AskStop,
    AskTrial,
    AskUpdate,
    Due,
    Exited,
    HostDown,
    HostUp,
    NeverStarted,
    NotStarted,
    Refused,
    Reported,
    Request,
    SaysExhausted,
    SaysWait,
    Started,
    Suggests,
    TunerDiffers,
    TunerFailed,
    TunerHangs,
)
from tune.engine.state import State
from tune.trial_sdk.channel import KEEPER_DIED
from tune.trial_sdk.wire import Report

SPACE = {"x": {"_type": "uniform", "_value": [0, 1]}}


def make_config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "search_space": SPACE,
        "trial_command": "true",
        "trial_code_directory": "/tmp",
        "max_trial_number": 5,
        **changes,
    }
    return Config(**values)


class Core:
    """decide + reduce + plan, as the shell drives them, without one."""

    def __init__(self, config: Config) -> None:
        self.state = State()
        self.state.tell = True
        self.facts: list[Fact] = []
        self.news: list[Any] = []
        self.numbers = 0
        self.clock = 0
        self.epoch = 0
        self.start(config)

    def start(self, config: Config | None = None) -> None:
        self.epoch += 1
        self.numbers = 0
        if config is not None:
            self.add(Draft(Experiment("abcdefgh", Raw(config_room.encode(config)), 7)))
        self.add(Draft(EngineStarted("here", 1, self.clock)))

    def add(self, draft: Draft) -> None:
        sender, number = draft.sender, draft.number
        if not sender:
            self.numbers += 1
            sender, number = f"e{self.epoch}", self.numbers
        fact = Fact(self.state.seq + 1, self.epoch, sender, number, draft.trial, draft.cause, self.clock, draft.event)
        fact = decode(encode(fact))  # what can't be written can't happen
        reduce(self.state, fact)
        self.facts.append(fact)

    def submit(self, request: Request) -> None:
        for draft in decide(self.state, request, self.clock):
            self.add(draft)

    def plan(self) -> list[Any]:
        for _ in range(100):
            drafts = intents(self.state, lambda: "c0de")
            if not drafts:
                break
            for draft in drafts:
                self.add(draft)
        else:
            raise AssertionError("plan does not come to rest")
        self.news += self.state.queues.news
        self.state.queues.news = []
        return drain(self.state)

    def replayed(self) -> State:
        state = State()
        for fact in self.facts:
            reduce(state, fact)
        return state


class World:
    """Trials, a host and a tuner that do what dice say."""

    def __init__(self, core: Core, dice: random.Random, phases: int) -> None:
        self.core, self.dice, self.phases = core, dice, phases
        self.up = False
        self.todo: list[Callable[[], None]] = []
        self.running: dict[tuple[str, int], int] = {}  # launch -> reports made
        self.ended: dict[tuple[str, int], Exited] = {}
        self.starts: dict[tuple[str, int], int] = {}
        self.asked = 0

    def carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            if isinstance(command, AskTuner):
                self.todo.append(lambda command=command: self.answer(command))
            elif self.up:
                self.todo.append(lambda command=command: self.do(command))
        self.dice.shuffle(self.todo)

    def answer(self, ask: AskTuner) -> None:
        self.asked += 1
        seen = max(self.core.state.last_told, self.core.state.queues.told)
        roll = self.dice.random()
        if roll < 0.05:
            self.core.submit(SaysWait(ask.number, ask.attempt, seen, "dice"))
        elif roll < 0.07:
            self.core.submit(SaysExhausted(ask.number, ask.attempt, seen, "", trial=roll < 0.06))
        elif roll < 0.10:
            self.core.submit(TunerFailed(ask.number, "boom", ""))
        else:
            continues = self.dice.randrange(ask.trial + 2) if self.dice.random() < 0.4 else None
            request = Suggests(ask.number, ask.attempt, seen, json.dumps({"x": self.dice.random()}), continues)
            self.core.submit(request)
            if self.dice.random() < 0.2:
                self.core.submit(request)  # an answer that comes twice

    def do(self, command: Any) -> None:
        state = self.core.state
        if isinstance(command, AnswerTrial | ForgetLaunch | EndLost) or not self.up:
            return
        trial = state.trial(command.trial)
        launch = (trial.id, trial.attempt)
        if not trial.active:
            return
        if isinstance(command, StartTrial):
            if launch not in self.starts:
                self.starts[launch] = 1
                self.running[launch] = 0
            self.say(Started(*launch, 100, 0))
        elif isinstance(command, ProbeTrial):
            if launch in self.ended:
                self.say(self.ended[launch])
            elif launch in self.running:
                self.say(Started(*launch, 100, 0))
            else:
                self.say(NeverStarted(*launch))
        elif isinstance(command, StopTrial):
            if launch in self.running:
                self.end(launch, -15)
            elif launch in self.ended:
                self.say(self.ended[launch])
            else:
                self.say(NeverStarted(*launch))

    def say(self, request: Request) -> None:
        if self.up:
            self.core.submit(request)
            if self.dice.random() < 0.1:
                self.core.submit(request)

    def end(self, launch: tuple[str, int], code: int) -> None:
        self.running.pop(launch)
        self.ended[launch] = Exited(*launch, code, 1)
        self.say(self.ended[launch])

    def live(self) -> None:
        """One of the running trials does something."""
        if not self.running or not self.up:
            return
        launch = self.dice.choice(sorted(self.running))
        number = self.core.state.ids.get(launch[0])
        if number is None:
            return
        trial = self.core.state.trial(number)
        made = self.running[launch] + 1
        kind = self.dice.choice(["I", "I", "F", "R", "end"])
        if kind == "end" or made > 12:
            self.end(launch, self.dice.choice([0, 0, 0, 1, -9]))
            return
        value = self.dice.choice(["0.5", "1.5", '"NaN"', '{"default": 2}', '{"other": 2}', '"text"', "null"])
        phase = self.dice.choice([0, max(len(trial.phases) - 1, 0), 3])
        report = Reported(*launch, "p1", Report(made, kind, phase, "" if kind == "R" else value))
        self.running[launch] = made
        self.core.submit(report)
        if self.dice.random() < 0.2:
            self.core.submit(report)

    def step(self) -> None:
        dice, core = self.dice, self.core
        core.clock += dice.randrange(1, 1_000_000)
        roll = dice.random()
        if not self.up:
            if roll < 0.5:
                self.up = True
                core.submit(HostUp("local", 5))
        elif roll < 0.02:
            self.up = False
            self.todo.clear()
            core.submit(HostDown("local", "dice"))
        elif roll < 0.04:  # the engine dies and is started again
            self.up = False
            self.todo.clear()
            digest = core.replayed().digest()
            assert digest == core.state.digest()
            core.start()
        elif roll < 0.05:
            core.submit(Due())
        elif roll < 0.055:
            core.submit(TunerDiffers("it says another thing"))
        elif self.todo and roll < 0.6:
            self.todo.pop()()
        else:
            self.live()
        self.carry_out(core.plan())
        self.check()

    def check(self) -> None:
        state = self.core.state
        assert len(state.active) <= state.settings.trial_concurrency
        limit = state.settings.max_trial_number
        assert limit is None or len(state.trials) <= limit
        assert sum(state.counts.values()) == len(state.made)
        for status, count in state.counts.items():
            assert count == sum(trial.status == status for trial in state.made)
        assert all(count == 1 for count in self.starts.values())
        for trial in state.made:
            assert trial.active == (trial.number in state.active)
            assert not (trial.active and trial.number in state.ready)
        assert len(set(state.ready)) == len(state.ready)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    concurrency=st.integers(1, 4),
    trials=st.integers(1, 8),
    multi=st.booleans(),
    retries=st.integers(0, 2),
    stop=st.booleans(),
    concurrent=st.booleans(),
)
def test_any_history_ends_and_replays(
    seed: int, concurrency: int, trials: int, multi: bool, retries: int, stop: bool, concurrent: bool
) -> None:
    dice = random.Random(seed)
    config = make_config(
        trial_concurrency=concurrency, max_trial_number=trials, multi_phase=multi, max_retries=retries, max_failures=0
    )
    core = Core(config)
    core.state.concurrent = core.state.tell_more = concurrent
    world = World(core, dice, 3)
    for count in range(4000):
        world.step()
        if stop and count == 60:
            core.submit(AskStop("dice"))
        if core.state.finished and not core.state.active:
            break
    else:
        raise AssertionError(f"it does not end: {core.state.status} {core.state.reason} {core.state.asks}")
    state = core.state
    assert core.replayed().digest() == state.digest()
    check_observations(core)
    check_facts(core)
    if state.status == "DONE" and not state.exhausted:
        assert len(state.made) == trials
        assert not state.counts["WAITING"] and not state.counts["RUNNING"]


def check_observations(core: Core) -> None:
    """Each phase is suggested once and ends at most once, never before it began."""
    suggested: set[tuple[int, int]] = set()
    ended: set[tuple[int, int]] = set()
    for fact in core.news:
        if isinstance(fact, Suggested):
            assert (fact.trial, fact.phase) not in suggested
            suggested.add((fact.trial, fact.phase))
        elif isinstance(fact, Ended):
            assert (fact.trial, fact.phase) in suggested
            assert (fact.trial, fact.phase) not in ended
            ended.add((fact.trial, fact.phase))
    if core.state.status == "DONE":
        assert suggested == ended


def check_facts(core: Core) -> None:
    """Numbers are dense per sender; no attempt ends twice."""
    last: dict[str, int] = {}
    ends: set[tuple[int | None, int]] = set()
    for index, fact in enumerate(core.facts, 1):
        assert fact.seq == index
        assert fact.sender_seq == last.get(fact.sender, 0) + 1
        last[fact.sender] = fact.sender_seq
        if isinstance(fact.event, TrialEnd):
            assert (fact.trial, fact.event.attempt) not in ends
            ends.add((fact.trial, fact.event.attempt))


def test_a_trial_that_continues_another_is_launched_when_that_one_has_ended() -> None:
    core = running(make_config(trial_concurrency=2, max_trial_number=3), 2)
    report(core, 1, "F", "0.5")
    report(core, 1, "F", "0.7", trial=1)
    end(core, 0, 1)
    [ask] = [command for command in core.plan() if isinstance(command, AskTuner)] or [
        core.state.asks[core.state.queues.asked[0]]
    ]
    core.submit(Suggests(ask.number, ask.attempt, core.state.last_told, '{"x": 0.5}', continues=0))
    assert not [command for command in core.plan() if isinstance(command, StartTrial)]
    child = core.state.trial(2)
    assert child.continues == 0 and waits_for(core.state, child).startswith("waits for the end of trial 0, whose")
    assert core.state.status == "RUNNING"
    found = core.state.trial(0)
    core.submit(Exited(found.id, found.attempt, 0, 5, "", ""))
    assert [command.trial for command in core.plan() if isinstance(command, StartTrial)] == [2]


def test_others_do_not_wait_behind_one_that_waits_for_its_parent() -> None:
    core = running(make_config(trial_concurrency=2, max_trial_number=4), 2)
    end(core, 0, 1)
    core.submit(AskTrial("me", '{"x": 1}'))
    ask = core.state.asks[core.state.queues.asked[0]]
    core.submit(Suggests(ask.number, ask.attempt, core.state.last_told, '{"x": 0.5}', continues=0))
    started = [command.trial for command in core.plan() if isinstance(command, StartTrial)]
    assert started == [3] and core.state.trial(3).origin == "user"
    assert list(core.state.ready) == [2]


def test_a_parent_that_is_not_there_is_not_waited_for() -> None:
    for number in (2, 7, 10**9):  # itself, and trials that were not made before it
        core = running(make_config(trial_concurrency=2, max_trial_number=3), 2)
        end(core, 0, 1)
        ask = core.state.asks[core.state.queues.asked[0]]
        core.submit(Suggests(ask.number, ask.attempt, core.state.last_told, '{"x": 0.5}', continues=number))
        assert [command.trial for command in core.plan() if isinstance(command, StartTrial)] == [2]


# -- single rules -----------------------------------------------------------------------------------------------------
def running(config: Config | None = None, count: int = 1) -> Core:
    """An experiment with `count` trials that run."""
    core = Core(config or make_config(trial_concurrency=count))
    core.submit(HostUp("local", 5))
    for _ in range(count * 3):
        for command in core.plan():
            if isinstance(command, AskTuner):
                core.submit(Suggests(command.number, command.attempt, core.state.last_told, '{"x": 0.5}'))
            elif isinstance(command, StartTrial):
                trial = core.state.trial(command.trial)
                core.submit(Started(trial.id, trial.attempt, 100, 0))
    assert len(core.state.active) == count
    return core


def report(core: Core, number: int, kind: str, value: str = "", phase: int = 0, trial: int = 0) -> None:
    found = core.state.trial(trial)
    core.submit(Reported(found.id, found.attempt, "p1", Report(number, kind, phase, value)))


def end(core: Core, code: int | None = 0, trial: int = 0, reason: str = "") -> None:
    found = core.state.trial(trial)
    core.submit(Exited(found.id, found.attempt, code, 5, reason, "last words"))
    core.plan()


def test_a_second_final_is_kept_and_not_counted() -> None:
    core = running()
    report(core, 1, "F", "0.5")
    report(core, 2, "F", "0.9")
    phase = core.state.trial(0).phases[0]
    assert phase.value == 0.5
    assert [bytes(value) for value in phase.ignored] == [b"0.9"]
    assert core.state.best is not None and core.state.best.value == 0.5


@pytest.mark.parametrize("value", ['"NaN"', '"Infinity"', '"text"', '{"loss": 1}', "null", "[1, 2]"])
def test_a_final_without_a_finite_number_is_never_best(value: str) -> None:
    core = running()
    report(core, 1, "F", value)
    end(core)
    assert core.state.best is None
    assert core.state.trial(0).status == "SUCCEEDED"
    assert [fact.outcome for fact in core.news if isinstance(fact, Ended)] == ["failed"]


def test_a_report_that_comes_twice_counts_once() -> None:
    core = running()
    for _ in range(3):
        report(core, 1, "I", "0.5")
    report(core, 3, "I", "0.7")  # a gap: number 2 is not lost, it comes first
    assert list(core.state.trial(0).phases[0].intermediate) == [0.5]


def test_a_failed_trial_with_a_final_stays_counted_and_is_not_run_again() -> None:
    core = running(make_config(max_retries=3))
    report(core, 1, "F", "0.5")
    end(core, 1)
    trial = core.state.trial(0)
    assert (trial.status, trial.attempt, trial.phases[0].value) == ("FAILED", 0, 0.5)


def test_a_failed_trial_is_retried_and_the_tuner_hears_of_its_end_once() -> None:
    core = running(make_config(max_retries=1, max_trial_number=1))
    report(core, 1, "I", "0.5")
    end(core, 1)
    assert core.state.trial(0).attempt == 1
    assert not [fact for fact in core.news if isinstance(fact, Ended)]
    assert list(core.state.trial(0).phases[0].intermediate) == []
    core.submit(Started(core.state.trial(0).id, 1, 101, 0))
    end(core, -9)
    assert core.state.trial(0).status == "FAILED"
    assert [fact.outcome for fact in core.news if isinstance(fact, Ended)] == ["failed"]
    assert core.state.status == "DONE"


def test_stopped_trials_come_back_with_the_same_parameters() -> None:
    core = running(count=2)
    core.submit(AskStop("me"))
    core.plan()
    end(core, -15, 0)
    end(core, -15, 1)
    assert core.state.status == "STOPPED"
    assert core.state.counts["SYS_CANCELED"] == 2
    before = [bytes(trial.phases[0].parameters) for trial in core.state.made]
    core.start()
    core.submit(HostUp("local", 6))
    launches = [command for command in core.plan() if isinstance(command, StartTrial)]
    assert [core.state.trial(command.trial).attempt for command in launches] == [1, 1]
    assert [bytes(trial.phases[0].parameters) for trial in core.state.made[:2]] == before


def test_a_stopped_trial_with_a_final_is_never_run_again() -> None:
    core = running()
    report(core, 1, "F", "0.5")
    core.submit(AskStop("me"))
    core.plan()
    end(core, -15)
    core.start()
    core.plan()
    assert core.state.trial(0).status == "SYS_CANCELED"


def test_running_trials_are_probed_after_a_restart_and_go_on() -> None:
    core = running(count=2)
    core.start()
    assert not [command for command in core.plan() if not isinstance(command, AskTuner)]
    core.submit(HostUp("local", 7))
    assert {command.trial for command in core.plan() if isinstance(command, ProbeTrial)} == {0, 1}
    assert core.state.counts["RUNNING"] == 2


def test_the_brake_needs_silence_and_failure() -> None:
    core = running(make_config(trial_concurrency=3), 3)
    for number in range(3):
        end(core, 1, number)
    assert core.state.status == "PAUSED"
    assert "last words" in core.state.reason
    core = running(make_config(trial_concurrency=3), 3)
    report(core, 1, "I", "0.5")
    for number in range(3):
        end(core, 1, number)
    assert core.state.status == "RUNNING"


def test_lease_requeues_at_once() -> None:
    core = running(make_config(max_trial_number=1))
    end(core, -15, reason="lease")
    trial = core.state.trial(0)
    assert trial.active and trial.attempt == 1


def test_a_launch_that_the_keepers_death_prevented_is_made_again() -> None:
    core = Core(make_config(max_trial_number=1))
    core.submit(HostUp("local", 5))
    (ask,) = [command for command in core.plan() if isinstance(command, AskTuner)]
    core.submit(Suggests(ask.number, ask.attempt, core.state.last_told, '{"x": 0.5}'))
    core.plan()
    trial = core.state.trial(0)
    core.submit(NotStarted(trial.id, 0, KEEPER_DIED))
    assert [command for command in core.plan() if isinstance(command, StartTrial)]
    assert (trial.launching, trial.attempt, trial.failures) == (True, 1, 0)
    core.submit(NotStarted(trial.id, 1, "no such folder"))
    core.plan()
    assert (trial.status, core.state.status) == ("FAILED", "PAUSED")


def test_a_lost_host_costs_its_trials_after_the_lease_only() -> None:
    core = running(make_config(max_trial_number=1, engine_lease="10s", stop_grace="1s"))
    core.submit(HostDown("local", "cut"))
    core.clock += 11_900_000
    core.submit(Due())
    assert core.state.trial(0).status == "RUNNING"
    core.clock += 200_000
    core.submit(Due())
    assert core.state.trial(0).status == "LOST"
    report(core, 1, "F", "0.5")  # late: stored, not counted
    assert core.state.best is None
    assert len(core.state.trial(0).phases[0].ignored) == 1


def test_a_restart_does_not_make_a_long_connected_host_silent() -> None:
    core = running(make_config(max_trial_number=1, engine_lease="10s", stop_grace="1s"))
    core.clock += 100_000_000
    report(core, 1, "F", "0.5")
    core.start()
    core.submit(Due())  # before the host was dialled again
    assert core.state.trial(0).status == "RUNNING"
    core.clock += 12_100_000
    core.submit(Due())
    assert core.state.trial(0).status == "LOST"


def test_a_lost_host_that_comes_back_is_asked_and_its_trials_are_ended() -> None:
    core = running(make_config(max_trial_number=2, engine_lease="10s", stop_grace="1s"))
    trial = core.state.trial(0)
    core.submit(HostDown("local", "cut"))
    core.clock += 12_200_000
    core.submit(Due())
    core.submit(HostUp("local", 6))
    assert EndLost("local", trial.id, 0, 1.0) in core.plan()
    core.start()
    core.submit(HostUp("local", 7))
    assert EndLost("local", trial.id, 0, 1.0) in core.plan()


def test_trials_go_to_the_host_with_the_fewest() -> None:
    core = Core(make_config(trial_concurrency=4))
    core.submit(HostUp("one", 5))
    core.submit(HostUp("two", 6))
    for _ in range(12):
        for command in core.plan():
            if isinstance(command, AskTuner):
                core.submit(Suggests(command.number, command.attempt, core.state.last_told, '{"x": 0.5}'))
    assert sorted(core.state.trial(number).host for number in core.state.active) == ["one", "one", "two", "two"]


def test_multi_phase_goes_on_at_the_first_phase_without_a_final() -> None:
    core = running(make_config(multi_phase=True, max_retries=1))
    report(core, 1, "F", "0.5")
    report(core, 2, "R")
    [ask] = [command for command in core.plan() if isinstance(command, AskTuner)]
    assert (ask.trial, ask.phase) == (0, 1)
    core.submit(Suggests(ask.number, 0, core.state.last_told, '{"x": 0.7}'))
    assert [command for command in core.plan() if isinstance(command, AnswerTrial)]
    end(core, 1)
    assert open_phase(core.state, core.state.trial(0)) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"max_phases_per_trial": 1}, "max_phases_per_trial 1"), ({"max_phase_number": 1}, "max_phase_number 1")],
)
def test_phase_limits_answer_none(changes: dict[str, Any], why: str) -> None:
    core = running(make_config(multi_phase=True, **changes))
    report(core, 1, "R")
    answers = [command for command in core.plan() if isinstance(command, AnswerTrial)]
    assert len(answers) == 1
    assert core.state.senders[answers[0].sender].answer_phase == -1
    assert why in msgspec.structs.asdict(core.facts[-1].event).get("refused", why)


def test_refused_requests_change_nothing() -> None:
    core = running()
    before = core.state.digest()
    for request in (AskKill("me", 99), AskUpdate("me"), AskUpdate("me", trial_concurrency=0)):
        with pytest.raises(Refused):
            core.submit(request)
    assert core.state.digest() == before


def test_trial_ids_are_the_same_whenever_asked_and_never_twice() -> None:
    core = Core(make_config())
    state = core.state
    made = set[str]()
    for number in range(2000):
        identity = trial_id(state, number)
        assert identity == trial_id(state, number)
        assert len(identity) == 5 and identity[0].isalpha() and identity.isalnum() and identity.islower()
        assert identity not in made
        made.add(identity)
        state.ids[identity] = number


def test_a_tuner_that_fails_four_times_in_a_row_pauses_the_experiment() -> None:
    core = Core(make_config())
    core.submit(HostUp("local", 5))
    for _ in range(4):
        [ask] = [command for command in core.plan() if isinstance(command, AskTuner)]
        core.submit(TunerFailed(ask.number, "boom", "trace"))
    core.plan()
    assert core.state.status == "PAUSED" and "boom" in core.state.reason
    core.start()
    assert [command for command in core.plan() if isinstance(command, AskTuner)]


def test_a_tuner_that_waits_with_nothing_running_pauses_with_its_reason() -> None:
    core = Core(make_config())
    core.submit(HostUp("local", 5))
    [ask] = [command for command in core.plan() if isinstance(command, AskTuner)]
    core.submit(SaysWait(ask.number, ask.attempt, 0, "the moon is not full"))
    core.plan()
    assert core.state.status == "PAUSED" and "the moon is not full" in core.state.reason


def test_exhausted_ends_done_when_the_last_trial_ends() -> None:
    core = running(make_config(trial_concurrency=2, max_trial_number=None), 2)
    end(core, 0, 0)
    ask = core.state.asks[core.state.queues.asked[0]]
    core.submit(SaysExhausted(ask.number, ask.attempt, 0, "the grid is done"))
    core.plan()
    assert core.state.status == "NO_MORE_TRIAL"
    end(core, 0, 1)
    assert (core.state.status, core.state.reason) == ("DONE", "the grid is done")


# -- objectives, constraints, trials of people's ----------------------------------------------------------------------
def ends_of(core: Core) -> list[Ended]:
    return [one for one in core.news if isinstance(one, Ended)]


def test_a_result_that_fails_the_outcome_constraints_is_told_and_never_best() -> None:
    core = running(make_config(outcome_constraints=["latency <= 10"], trial_concurrency=2), 2)
    report(core, 1, "F", '{"default":0.9,"latency":12}', trial=0)
    assert core.state.best is None and open_phase(core.state, core.state.trial(0)) is None
    report(core, 1, "F", '{"default":0.1,"latency":2}', trial=1)
    core.plan()
    assert core.state.best is not None and core.state.best.trial == 1
    assert [(one.outcome, one.value, one.values, one.violation) for one in ends_of(core)] == [
        ("completed", 0.9, [], 2.0),
        ("completed", 0.1, [], 0.0),
    ]
    assert core.replayed().digest() == core.state.digest()


def test_with_several_objectives_a_final_counts_when_each_is_finite() -> None:
    two = {"accuracy": "maximize", "latency": "minimize"}
    core = running(make_config(objectives=two, trial_concurrency=3), 3)
    report(core, 1, "I", '{"accuracy":0.25,"latency":7}', trial=0)
    report(core, 2, "F", '{"accuracy":0.5,"latency":3}', trial=0)
    report(core, 1, "F", '{"accuracy":0.75,"latency":"NaN"}', trial=1)
    report(core, 1, "F", '{"accuracy":0.75,"latency":9}', trial=2)
    for trial in range(3):
        end(core, 0, trial)
    core.plan()
    state = core.state
    assert list(state.trial(0).phases[0].intermediate) == [0.25]
    assert state.best is None
    assert [(one.trial, one.values) for one in state.front] == [(0, [0.5, 3.0]), (2, [0.75, 9.0])]
    assert [(one.trial, one.outcome, one.value, one.values) for one in ends_of(core)] == [
        (0, "completed", 0.5, [0.5, 3.0]),
        (2, "completed", 0.75, [0.75, 9.0]),
        (1, "failed", None, []),
    ]
    assert core.replayed().digest() == state.digest()


def test_imported_results_are_judged_like_others() -> None:
    two = {"accuracy": "maximize", "latency": "minimize"}
    core = running(make_config(objectives=two, outcome_constraints=["memory <= 4"]))
    for value in ('{"accuracy":0.5,"latency":3,"memory":9}', '{"accuracy":0.5}'):
        core.submit(AskImport("me", '{"x":0.5}', value))
    core.plan()
    found = [(one.value, one.values, one.violation) for one in core.news if isinstance(one, Imported)]
    assert found == [(0.5, [0.5, 3.0], 5.0), (None, [], 0.0)]
    assert core.state.front == []  # what comes from elsewhere is no result of this experiment


def test_a_trial_of_a_person_runs_and_counts() -> None:
    core = running(make_config(max_trial_number=2))
    core.submit(AskTrial("me", '{"x":0.125}'))
    with pytest.raises(Refused, match="max_trial_number is 2 and is reached"):
        core.submit(AskTrial("me", '{"x":0.25}'))
    end(core, 0, 0)
    core.plan()
    assert core.state.trial(1).launching and len(core.state.made) == 2
    told = [one for one in core.news if isinstance(one, Suggested)][-1]
    assert (told.origin, told.parameters, told.ask) == ("user", {"x": 0.125}, None)


def test_a_trial_of_a_person_needs_a_phase() -> None:
    core = running(make_config(max_phase_number=1))
    with pytest.raises(Refused, match="max_phase_number 1 is reached"):
        core.submit(AskTrial("me", '{"x":0.25}'))


def test_a_search_space_that_the_constraints_do_not_fit_is_refused() -> None:
    core = running(make_config(constraints=["x < 0.5"]))
    before = core.state.digest()
    with pytest.raises(Refused, match=r"'x < 0\.5' names 'x'; allowed: y"):
        core.submit(AskUpdate("me", search_space='{"y":{"_type":"uniform","_value":[0,1]}}'))
    assert core.state.digest() == before
    core.submit(AskUpdate("me", search_space='{"x":{"_type":"uniform","_value":[0,2]}}'))
    assert core.state.space_version == 1


# -- concurrent and stateful tuners -----------------------------------------------------------------------------------
def concurrent(**changes: Any) -> tuple[Core, list[AskTuner]]:
    """An experiment whose tuner takes all asks at once, and the asks that it has."""
    core = Core(make_config(trial_concurrency=3, **changes))
    core.state.concurrent = True
    core.submit(HostUp("local", 5))
    return core, [command for command in core.plan() if isinstance(command, AskTuner)]


def test_a_concurrent_tuner_has_all_asks_and_answers_in_any_order() -> None:
    core, asks = concurrent()
    assert [ask.trial for ask in asks] == [0, 1, 2] and core.state.queues.asked == [ask.number for ask in asks]
    for ask in (asks[2], asks[0]):
        core.submit(Suggests(ask.number, 0, 0, '{"x": 0.5}'))
    core.submit(Suggests(asks[2].number, 0, 0, '{"x": 0.6}'))  # twice: nothing
    started = {command.trial for command in core.plan() if isinstance(command, StartTrial)}
    assert started == {0, 2} and core.state.queues.asked == [asks[1].number]
    assert [trial.number for trial in core.state.made] == [0, 2]
    assert core.replayed().digest() == core.state.digest()


def test_a_serial_tuner_has_one_ask() -> None:
    core = Core(make_config(trial_concurrency=3))
    core.submit(HostUp("local", 5))
    assert len([command for command in core.plan() if isinstance(command, AskTuner)]) == 1
    assert len(core.state.asks) == 3


def test_asks_that_hang_count_only_while_nothing_runs() -> None:
    core, asks = concurrent(max_trial_number=3)
    core.submit(Suggests(asks[0].number, 0, 0, '{"x": 0.5}'))
    core.submit(TunerHangs(600.0))  # trial 0 waits to run
    for command in core.plan():
        if isinstance(command, StartTrial):
            core.submit(Started(core.state.trial(0).id, 0, 100, 0))
    core.submit(TunerHangs(600.0))  # trial 0 runs
    assert core.state.status == "RUNNING" and not core.state.quiet
    end(core)
    core.submit(TunerHangs(600.0))
    assert core.state.status == "PAUSED"
    assert core.state.reason.startswith("the tuner has not answered for 600 s (asked for trial 1, 2), and nothing runs")
    core.submit(TunerHangs(600.0))
    assert sum(isinstance(fact.event, Status) for fact in core.facts) == 1
    core.start()
    assert core.state.status == "RUNNING"
    assert [command.trial for command in core.plan() if isinstance(command, AskTuner)] == [1, 2]


def test_a_trials_own_asks_are_put_one_after_the_other() -> None:
    core = running(make_config(multi_phase=True, max_trial_number=1))
    core.state.concurrent = True
    report(core, 1, "R")
    found = core.state.trial(0)
    core.submit(Reported(found.id, 0, "p2", Report(1, "R", 0, "")))
    [first] = [command for command in core.plan() if isinstance(command, AskTuner)]
    core.submit(Suggests(first.number, 0, core.state.last_told, '{"x": 0.1}'))
    [second] = [command for command in core.plan() if isinstance(command, AskTuner)]
    assert (first.phase, second.phase) == (1, 2)


def test_nothing_more_for_one_trial_leaves_the_others_alone() -> None:
    core = running(make_config(multi_phase=True, trial_concurrency=2, max_trial_number=3), 2)
    report(core, 1, "R", trial=0)
    first = core.state.trial(0)
    core.submit(Reported(first.id, 0, "p2", Report(1, "R", 0, "")))  # its next phase: not without this one
    report(core, 1, "R", trial=1)
    [ask] = [command for command in core.plan() if isinstance(command, AskTuner)]
    core.submit(SaysExhausted(ask.number, ask.attempt, core.state.last_told, "enough", trial=True))
    commands = core.plan()
    names = [f"{first.id}.0.p1", f"{first.id}.0.p2"]
    assert [command.sender for command in commands if isinstance(command, AnswerTrial)] == names
    assert [core.state.senders[name].answer_phase for name in names] == [-1, -1]
    assert not core.state.exhausted and [command.trial for command in commands if isinstance(command, AskTuner)] == [1]


def test_nothing_more_for_one_trial_answers_all_of_its_asks() -> None:
    core = running(make_config(multi_phase=True, max_trial_number=1))
    report(core, 1, "R")
    found = core.state.trial(0)
    core.submit(Reported(found.id, 0, "p2", Report(1, "R", 0, "")))
    [ask] = [command for command in core.plan() if isinstance(command, AskTuner)]
    core.submit(SaysExhausted(ask.number, ask.attempt, core.state.last_told, "enough", trial=True))
    commands = core.plan()
    assert [command.sender[-2:] for command in commands if isinstance(command, AnswerTrial)] == ["p1", "p2"]
    assert not core.state.asks and not any(isinstance(command, AskTuner) for command in commands)


def test_a_tuner_that_differs_is_told_of_and_no_failure() -> None:
    core = running()
    core.submit(TunerDiffers("it says another thing"))
    assert core.state.warnings == ["it says another thing"] and core.state.tuner_errors == 0
    assert core.replayed().digest() == core.state.digest()


def test_raw_finals_and_ends_of_trials_are_for_stateful_tuners() -> None:
    for more in (False, True):
        core = Core(make_config(max_trial_number=1))
        core.state.tell_more = more
        core.submit(HostUp("local", 5))
        for _ in range(3):
            for command in core.plan():
                if isinstance(command, AskTuner):
                    core.submit(Suggests(command.number, command.attempt, 0, '{"x": 0.5}'))
                elif isinstance(command, StartTrial):
                    core.submit(Started(core.state.trial(0).id, 0, 100, 0))
        report(core, 1, "F", '{"default": 2, "loss": []}')
        end(core, 1)
        [ended] = [fact for fact in core.news if isinstance(fact, Ended)]
        assert ended.raw == ('{"default": 2, "loss": []}' if more else "")
        assert [fact.status for fact in core.news if isinstance(fact, TrialEnded)] == (["FAILED"] if more else [])
