"""State machine of the core: people ask for anything, at any time; trials, tuner, host and engine do as they like."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

sys.path.insert(0, str(Path(__file__).parent.parent))

from test_engine_core import Core, make_config

from tune.engine.plan import AskTuner, ProbeTrial, StartTrial
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
    PersonsRequest,
    Refused,
    Reported,
    SaysExhausted,
    SaysWait,
    Started,
    Suggests,
    TunerFailed,
)
from tune.trial_sdk.wire import Report

SENT = st.sampled_from(['{"x": 0.5}', '{"x": 0}', '{"x": 7}', '{"y": 1}', "{}", "[]", "nonsense", '{"x": "NaN"}'])
VALUES = st.sampled_from(["0.5", "-1", '"NaN"', '{"default": 2}', '{"other": 1}', "null", "1e400"])
LIMITS = st.one_of(st.none(), st.integers(-1, 6))
Launch = tuple[str, int]


class CoreMachine(RuleBasedStateMachine):
    """decide, reduce and plan, and what a host would make of their commands."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(make_config())
        self.up = False
        self.asks: list[AskTuner] = []
        self.running: dict[Launch, int] = {}  # reports made
        self.ended: dict[Launch, int] = {}
        self.started: set[Launch] = set()
        self.numbers = 0  # of trials, when that was last looked at

    @initialize(concurrency=st.integers(1, 3), trials=st.integers(1, 6), multi=st.booleans(), retries=st.integers(0, 1))
    def make(self, concurrency: int, trials: int, multi: bool, retries: int) -> None:
        self.core = Core(
            make_config(trial_concurrency=concurrency, max_trial_number=trials, multi_phase=multi, max_retries=retries)
        )
        self.host_up()

    def plan(self) -> None:
        """What the shell does after each request: plan, and carry out what a host and a tuner answer later."""
        before = len(self.core.state.active)
        for command in self.core.plan():
            match command:
                case AskTuner():
                    self.asks.append(command)
                case StartTrial():
                    trial = self.core.state.trial(command.trial)
                    launch = (trial.id, trial.attempt)
                    assert launch not in self.started, "one launch is started twice"
                    self.started.add(launch)
                    self.running[launch] = 0
                case ProbeTrial():
                    trial = self.core.state.trial(command.trial)
                    launch = (trial.id, trial.attempt)
                    if launch in self.ended:
                        self.core.submit(Exited(*launch, self.ended[launch], 1))
                    elif launch in self.running:
                        self.core.submit(Started(*launch, 100, 0))
                    else:
                        self.core.submit(NeverStarted(*launch))
                case _:
                    pass
        state = self.core.state
        assert len(state.active) <= max(before, state.settings.trial_concurrency)

    # -- people -------------------------------------------------------------------------------------------------------
    def ask(self, request: PersonsRequest) -> None:
        """A refused request has changed nothing."""
        digest, seq = self.core.state.digest(), self.core.state.seq
        try:
            self.core.submit(request)
        except Refused as error:
            assert str(error)
            assert (self.core.state.digest(), self.core.state.seq) == (digest, seq)
        self.plan()

    @rule(trial=st.integers(-1, 7))
    def kill(self, trial: int) -> None:
        self.ask(AskKill("machine", trial))

    @rule(
        concurrency=LIMITS,
        trials=LIMITS,
        duration=st.sampled_from([None, "1h", "0s", "nonsense"]),
        space=st.sampled_from([None, None, '{"x": {"_type": "uniform", "_value": [0, 2]}}', "{}", "nonsense"]),
    )
    def update(self, concurrency: int | None, trials: int | None, duration: str | None, space: str | None) -> None:
        self.ask(AskUpdate("machine", concurrency, trials, duration, space))

    @rule(force=st.booleans())
    def stop(self, force: bool) -> None:
        self.ask(AskStop("machine", force))

    @rule(parameters=SENT, value=VALUES)
    def bring_in(self, parameters: str, value: str) -> None:
        self.ask(AskImport("machine", parameters, value))

    @rule(parameters=SENT)
    def add_trial(self, parameters: str) -> None:
        made = len(self.core.state.made)
        self.ask(AskTrial("machine", parameters))
        assert len(self.core.state.made) <= made + 1

    # -- tuner --------------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.asks)
    @rule(which=st.integers(0, 5), twice=st.booleans(), text=st.sampled_from(['{"x": 0.25}', '{"x": 1}']))
    def suggest(self, which: int, twice: bool, text: str) -> None:
        ask = self.asks.pop(which % len(self.asks))
        for _ in range(1 + twice):
            self.core.submit(Suggests(ask.number, ask.attempt, self.core.state.last_told, text))
        self.plan()

    @precondition(lambda self: self.asks)
    @rule(kind=st.sampled_from(["wait", "exhausted", "failed"]))
    def no_suggestion(self, kind: str) -> None:
        ask, seen = self.asks.pop(), self.core.state.last_told
        if kind == "wait":
            self.core.submit(SaysWait(ask.number, ask.attempt, seen, "machine"))
        elif kind == "exhausted":
            self.core.submit(SaysExhausted(ask.number, ask.attempt, seen, ""))
        else:
            self.core.submit(TunerFailed(ask.number, "boom", ""))
        self.plan()

    # -- host and trials ----------------------------------------------------------------------------------------------
    @precondition(lambda self: not self.up)
    @rule()
    def host_up(self) -> None:
        self.up = True
        self.core.submit(HostUp("local", 5))
        self.plan()

    @precondition(lambda self: self.up)
    @rule(dead=st.booleans())
    def host_down(self, dead: bool) -> None:
        """The keeper is lost; or the engine dies, and another one replays its log."""
        self.up = False
        if dead:
            self.asks.clear()
            self.core.start()
        else:
            self.core.submit(HostDown("local", "machine"))
        self.plan()

    @precondition(lambda self: self.up and self.running)
    @rule(which=st.integers(0, 5), twice=st.booleans())
    def says_started(self, which: int, twice: bool) -> None:
        launch = sorted(self.running)[which % len(self.running)]
        for _ in range(1 + twice):
            self.core.submit(Started(*launch, 100, 0))
        self.plan()

    @precondition(lambda self: self.up and self.running)
    @rule(
        which=st.integers(0, 5),
        kind=st.sampled_from("IIFR"),
        phase=st.integers(0, 2),
        value=VALUES.filter(lambda text: text != "1e400"),
        twice=st.booleans(),
    )
    def report(self, which: int, kind: str, phase: int, value: str, twice: bool) -> None:
        launch = sorted(self.running)[which % len(self.running)]
        self.running[launch] += 1
        made = Report(self.running[launch], kind, phase, "" if kind == "R" else value)
        for _ in range(1 + twice):
            self.core.submit(Reported(*launch, "p1", made))
        self.plan()

    @precondition(lambda self: self.up and self.running)
    @rule(which=st.integers(0, 5), code=st.sampled_from([0, 0, 1, -9]), twice=st.booleans())
    def end(self, which: int, code: int, twice: bool) -> None:
        launch = sorted(self.running)[which % len(self.running)]
        self.ended[launch] = code
        del self.running[launch]
        for _ in range(1 + twice):
            self.core.submit(Exited(*launch, code, 1))
        self.plan()

    @precondition(lambda self: self.up and any(not made for made in self.running.values()))
    @rule()
    def cannot_start(self) -> None:
        launch = next(launch for launch, made in sorted(self.running.items()) if not made)
        if self.core.state.trial(self.core.state.ids[launch[0]]).status == "WAITING":
            del self.running[launch]
            self.core.submit(NotStarted(*launch, "no such folder"))
            self.plan()

    @rule(seconds=st.integers(0, 7200))
    def wait(self, seconds: int) -> None:
        self.core.clock += seconds * 1_000_000
        self.core.submit(Due())
        self.plan()

    # -- what holds always, and at the end ----------------------------------------------------------------------------
    @invariant()
    def sound(self) -> None:
        state = self.core.state
        numbers = [trial.number for trial in state.made]  # an ask that is open holds the number of its trial to be
        assert numbers == sorted(set(numbers)) and len(numbers) <= len(state.trials)
        most = state.settings.max_trial_number
        assert most is None or len(state.trials) <= max(self.numbers, most), "a trial beyond the limit"
        self.numbers = len(state.trials)
        assert {trial.id: trial.number for trial in state.made}.items() <= state.ids.items()
        assert sum(state.counts.values()) == len(state.made)
        for status, count in state.counts.items():
            assert count == sum(trial.status == status for trial in state.made), status
        assert {trial.number for trial in state.made if trial.active} == set(state.active)
        assert not set(state.ready) & set(state.active) and len(set(state.ready)) == len(state.ready)
        assert [fact.seq for fact in self.core.facts] == list(range(1, len(self.core.facts) + 1))

    @invariant()
    def replay_is_live(self) -> None:
        assert self.core.replayed().digest() == self.core.state.digest()

    def teardown(self) -> None:
        """After a stop, once the host is back and every trial has ended, it is over."""
        if not self.up:
            self.host_up()
        self.ask(AskStop("machine"))
        for _ in range(20):
            for launch in sorted(self.running):
                self.ended[launch] = -15
                self.core.submit(Exited(*launch, -15, 1))
            self.running.clear()
            self.plan()
        assert self.core.state.finished and not self.core.state.active, self.core.state.status
        self.sound()
        self.replay_is_live()


TestCore = CoreMachine.TestCase
TestCore.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True, database=None)
