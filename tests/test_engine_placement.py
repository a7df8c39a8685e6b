"""engine/placement.py: every combination of the settings against a small oracle, and what people are told."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tune.engine import config as config_room
from tune.engine.config import Config, Machine, Terms, TrainingService
from tune.engine.decide import Draft, decide, trial_id
from tune.engine.events import EngineStarted, Experiment, Fact, NewTrial, Parameter, SetAside, decode, encode
from tune.engine.placement import fitting
from tune.engine.plan import ClaimDevices, StartTrial, deadline, drain, intents, waits_for
from tune.engine.reduce import reduce
from tune.engine.requests import (
    AskKill,
    AskTrial,
    DevicesFound,
    Due,
    Exited,
    HostDown,
    HostUp,
    NeverStarted,
    NotFree,
    NotStarted,
    Request,
    Started,
)
from tune.engine.state import HostState, State
from tune.trial_sdk.channel import Device

SECOND = 1_000_000


def devices(count: int, **changes: dict[int, Any]) -> list[Device]:
    """So many devices; `busy={3: True}` changes a field of some."""
    return [
        Device(index, f"u{index}", **{name: each[index] for name, each in changes.items() if index in each})
        for index in range(count)
    ]


class Study:
    """decide, reduce and plan with trials that are queued by hand, and hosts that say what a test wants."""

    def __init__(self, hosts: list[str] | None = None, *, terms: dict[str, Any] | None = None, **changes: Any) -> None:
        service = TrainingService(**(terms or {}))
        if hosts is not None:
            rest = dict(terms or {})
            slots = rest.pop("slots", None)
            machines = [Machine(host=name, name=name, slots=slots) for name in hosts]
            service = TrainingService(platform="remote", machine_list=machines, **rest)
        values: dict[str, Any] = {"trial_concurrency": 50, "max_failures": 0, "training_service": service, **changes}
        config = Config(
            search_space={"x": {"_type": "uniform", "_value": [0, 1]}},
            trial_command="true",
            trial_code_directory="/tmp",
            **values,
        )
        self.state = State()
        self.facts: list[Fact] = []
        self.claimed: list[tuple[str, list[str], int]] = []
        self.numbers, self.clock, self.epoch = 0, 0, 0
        self.add(Draft(Experiment("abcdefgh", Raw(config_room.encode(config)), 7)))
        self.start()
        self.plan()

    def start(self) -> None:
        """An engine starts, or starts again."""
        self.epoch, self.numbers = self.epoch + 1, 0
        self.add(Draft(EngineStarted("here", 1, self.clock)))

    def add(self, draft: Draft) -> None:
        self.numbers += 1
        fact = Fact(
            self.state.seq + 1,
            self.epoch,
            draft.sender or f"e{self.epoch}",
            draft.number or self.numbers,
            draft.trial,
            draft.cause,
            self.clock,
            draft.event,
        )
        fact = decode(encode(fact))
        reduce(self.state, fact)
        self.facts.append(fact)

    def submit(self, *requests: Request) -> list[int]:
        """Take requests, plan; the trials that are started by that."""
        for request in requests:
            for draft in decide(self.state, request, self.clock):
                self.add(draft)
        return self.plan()

    def plan(self) -> list[int]:
        for _ in range(200):
            drafts = [draft for draft in intents(self.state, lambda: "c0de") if draft.event.KIND != "REQUEST_PARAMETER"]
            if not drafts:
                break
            for draft in drafts:
                self.add(draft)
        else:
            raise AssertionError("plan does not come to rest")
        if len(self.facts) % 8 == 0:
            replayed = State()
            for fact in self.facts:
                reduce(replayed, fact)
            assert replayed.digest() == self.state.digest()
        commands = drain(self.state)
        self.claimed += [(one.host, one.devices, one.wants) for one in commands if isinstance(one, ClaimDevices)]
        return [command.trial for command in commands if isinstance(command, StartTrial)]

    def queue(self, count: int = 1) -> list[int]:
        return self.submit(*[AskTrial("test", '{"x":0.5}')] * count)

    def up(self, name: str = "local", found: list[Device] | None = None, reason: str = "") -> list[int]:
        started = self.submit(HostUp(name, 1))
        return started + ([] if found is None else self.submit(DevicesFound(name, found, reason)))

    def started(self, *numbers: int) -> None:
        for number in numbers:
            trial = self.state.trial(number)
            self.submit(Started(trial.id, trial.attempt, 1, 1))

    def end(self, number: int, code: int | None = 0) -> list[int]:
        trial = self.state.trial(number)
        return self.submit(Exited(trial.id, trial.attempt, code, 1))

    def given(self, *numbers: int) -> list[list[str]]:
        return [self.state.trial(number).devices for number in numbers]

    def why(self, number: int) -> str:
        return waits_for(self.state, self.state.trial(number))


# -- against an oracle ------------------------------------------------------------------------------------------------
def possible(loads: list[int], allowed: list[bool], most: int, wants: int, slots: int | None) -> int:
    """How many trials fit: T fit if the places that T trials can use at all are as many as they want."""
    room = [max(most - load, 0) for load, may in zip(loads, allowed, strict=True) if may]
    limit = slots if slots is not None else 64
    return max(count for count in range(limit + 1) if sum(min(free, count) for free in room) >= wants * count)


@pytest.mark.parametrize("wants", [1, 2, 3, 8])
@pytest.mark.parametrize("share", [False, True])
def test_every_combination_of_the_settings_on_8_devices(wants: int, share: bool) -> None:
    dice = random.Random(f"{wants} {share}")
    for most, indices, slots in itertools.product(
        [1, 2, 3], [None, [0, 1], [3], [6, 9], [0, 2, 4, 6], list(range(8))], [None, 1, 3]
    ):
        busy = {index: dice.random() < 0.3 for index in range(8)}
        leases = {index: dice.choice([0, 0, 0, 1, 2]) for index in range(8)}
        terms = {"max_trial_number_per_gpu": most, "gpu_indices": indices, "slots": slots, "use_active_gpu": share}
        study = Study(trial_gpu_number=wants, terms=terms)
        study.up(found=devices(8, busy=busy, leases=leases))
        started = study.queue(30)
        allowed = [
            (indices is None or index in indices) and (share or not (busy[index] or leases[index]))
            for index in range(8)
        ]
        loads = [leases[index] for index in range(8)]
        case = f"{terms} busy {busy} leases {leases}"
        assert len(started) == min(possible(loads, allowed, most, wants, slots), 30), case
        for got in study.given(*started):
            assert len(set(got)) == wants, case
            for uuid in got:
                index = int(uuid[1:])
                loads[index] += 1
                assert allowed[index] and loads[index] <= most, case
        if started:  # what ends makes room for as much again
            assert len(study.end(started[0])) == (1 if len(started) < 30 else 0), case


def test_no_number_of_gpus_leaves_devices_alone() -> None:
    study = Study(trial_gpu_number=None)
    assert study.up() == [] and study.queue(3) == [0, 1, 2]
    assert study.given(0, 1, 2) == [[], [], []]


def test_zero_gpus_wait_for_no_inventory() -> None:
    study = Study(trial_gpu_number=0)
    study.up()
    assert study.queue(2) == [0, 1] and study.given(0) == [[]]


def test_nni_5_as_many_gpus_as_there_are_and_more_concurrency_than_gpus() -> None:
    """NNI's manager went round and round, could not be stopped, and started nothing."""
    study = Study(trial_gpu_number=1, trial_concurrency=4)
    study.up(found=devices(1))
    assert study.queue(3) == [0]
    before = len(study.facts)
    assert study.plan() == [] and len(study.facts) == before
    assert study.end(0) == [1]
    everything = Study(trial_gpu_number=4)
    everything.up(found=devices(4))
    assert everything.queue(2) == [0] and everything.given(0) == [["u0", "u1", "u2", "u3"]]


def test_nni_6_two_gpus_with_two_trials_on_each_are_two() -> None:
    """NNI gave one GPU to a trial that wanted two, as each of them was shared by two trials."""
    study = Study(trial_gpu_number=2, terms={"max_trial_number_per_gpu": 2})
    study.up(found=devices(2))
    assert study.queue(3) == [0, 1]
    assert study.given(0, 1) == [["u0", "u1"], ["u0", "u1"]]


def test_trials_are_spread_over_hosts_and_devices() -> None:
    study = Study(["a", "b"], trial_gpu_number=1, terms={"max_trial_number_per_gpu": 2})
    study.up("a", devices(2))
    study.up("b", devices(2))
    study.queue(8)
    hosts = [study.state.trial(number).host for number in range(8)]
    assert hosts == ["a", "b"] * 4
    assert study.given(0, 2, 4, 6) == [["u0"], ["u1"], ["u0"], ["u1"]]


# -- properties -------------------------------------------------------------------------------------------------------
HOSTS = ["a", "b", "c"]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    wants=st.integers(0, 3),
    most=st.integers(1, 3),
    share=st.booleans(),
    indices=st.sampled_from([None, [0, 1], [1, 2, 3], [0]]),
    slots=st.sampled_from([None, 1, 2, 5]),
    concurrency=st.integers(1, 12),
)
def test_no_device_is_overloaded_and_no_slot_is_lost(
    seed: int, wants: int, most: int, share: bool, indices: list[int] | None, slots: int | None, concurrency: int
) -> None:
    if indices is not None:
        wants = min(wants, len(indices), 2)  # of three devices two have to do
    dice = random.Random(seed)
    terms = {"max_trial_number_per_gpu": most, "gpu_indices": indices, "use_active_gpu": share, "slots": slots}
    study = Study(HOSTS, trial_gpu_number=wants, terms=terms, trial_concurrency=concurrency)
    state = study.state
    order: list[int] = []

    def found() -> list[Device]:
        return devices(
            dice.choice([4, 4, 4, 3]),
            busy={index: dice.random() < 0.2 for index in range(4)},
            leases={index: int(dice.random() < 0.2) for index in range(4)},
        )

    for step in range(60):
        study.clock += SECOND
        active, name = list(state.active), dice.choice(HOSTS)
        host = state.hosts.get(name)
        match dice.randrange(8):
            case 0 | 1:
                order += study.queue(dice.randrange(1, 4))
            case 2:
                order += study.up(name, found())
            case 3 if host is not None and host.connected:
                order += study.submit(DevicesFound(name, found(), ""))
            case 4 if host is not None and dice.random() < 0.3:
                order += study.submit(HostDown(name, "cut"))
            case 5 | 6 if active:
                number = dice.choice(active)
                study.started(number)
                order += study.end(number)
            case _ if active:
                trial = state.trial(dice.choice(active))
                if trial.launching and trial.devices:
                    order += study.submit(NotFree(trial.host, trial.id, trial.attempt, trial.devices[:1], "taken"))
        for each in state.hosts.values():
            its = state.terms[each.name]
            running = [state.trial(number) for number in state.active if state.trial(number).host == each.name]
            assert sorted(each.trials) == sorted(one.number for one in running)
            assert slots is None or len(running) <= slots
            for one in running:
                assert len(set(one.devices)) == wants
            # no slot is lost: with room under the concurrency, whoever could run somewhere does
            if state.ready and len(state.active) < concurrency and each.usable and state.status != "PAUSED":
                assert fitting(each, its, wants) is None, (step, each, its)
        newest = study.facts[-1].event
        if newest.KIND == "LAUNCH":
            trial = state.trial(study.facts[-1].trial or 0)
            each = state.hosts[trial.host]
            for uuid in trial.devices:
                [device] = [one for one in each.devices or [] if one.uuid == uuid]
                assert indices is None or device.index in indices
                assert share or not (device.busy or device.leases)
                assert len(each.using[uuid]) + device.leases <= most
    # nobody starves: once all is in order, all that wait run and end, the first ones first
    for name in HOSTS:
        study.up(name, devices(4))
    for _ in range(400):
        if state.status == "PAUSED" or not (state.active or state.ready):
            break
        if state.active:
            number = next(iter(state.active))
            study.started(number)
            study.end(number)
    assert state.status != "PAUSED" and not state.ready and not state.active


def test_the_first_that_waits_is_the_first_that_runs() -> None:
    study = Study(trial_gpu_number=2)
    study.up(found=devices(2))
    assert study.queue(4) == [0]
    assert [study.end(0), study.end(1), study.end(2)] == [[1], [2], [3]]


# -- what a host refuses ----------------------------------------------------------------------------------------------
def test_a_refused_device_is_left_until_the_host_speaks_of_it_again() -> None:
    study = Study(trial_gpu_number=1)
    study.up(found=devices(2))
    assert study.queue(3) == [0, 1]
    trial = study.state.trial(0)
    assert study.submit(NotFree("local", trial.id, 0, ["u0"], "a trial of another experiment has it")) == []
    assert list(study.state.ready) == [0, 2] and not trial.active and trial.attempt == 0
    assert study.submit(NotFree("local", trial.id, 0, ["u0"], "said twice")) == []
    assert "0 refused by the host (a trial of another experiment has it)" in study.why(0)
    assert study.end(1) == [0] and study.given(0) == [["u1"]]
    assert study.submit(DevicesFound("local", devices(2), "")) == [2]


def test_what_another_host_says_of_a_launch_does_not_count() -> None:
    study = Study(["a", "b"], trial_gpu_number=1)
    study.up("a", devices(1))
    study.queue()
    trial = study.state.trial(0)
    study.submit(NotFree("a", trial.id, 0, ["u0"], "taken"))
    assert study.up("b", devices(1)) == [0] and trial.host == "b"
    assert study.submit(NotFree("a", trial.id, 0, ["u0"], "taken"), NeverStarted(trial.id, 0, "a")) == []
    assert trial.launching and trial.host == "b"


def test_a_launch_that_never_happened_is_asked_for_with_the_same_devices() -> None:
    study = Study(trial_gpu_number=1)
    study.up(found=devices(2))
    study.queue(2)
    trial = study.state.trial(0)
    assert study.submit(NeverStarted(trial.id, 0, "local")) == [0]
    assert study.given(0, 1) == [["u0"], ["u1"]]
    assert study.state.hosts["local"].using == {"u1": [1], "u0": [0]}


def test_a_killed_trial_gives_its_devices_back() -> None:
    study = Study(trial_gpu_number=1)
    study.up(found=devices(1))
    study.queue(2)
    study.started(0)
    assert study.submit(AskKill("me", 0)) == []
    assert study.end(0, -15) == [1]
    assert study.state.trial(0).status == "USER_CANCELED"


def test_a_refused_launch_that_is_killed_ends() -> None:
    study = Study(trial_gpu_number=1)
    study.up(found=devices(1))
    study.queue(2)
    trial = study.state.trial(0)
    assert study.submit(AskKill("me", 0), NotFree("local", trial.id, 0, ["u0"], "taken")) == [1]
    assert trial.status == "USER_CANCELED"


def test_a_resumed_engine_knows_who_has_what() -> None:
    study = Study(trial_gpu_number=1)
    study.up(found=devices(2))
    study.queue(3)
    study.started(0, 1)
    study.start()
    assert study.up(found=devices(2)) == []
    assert study.state.hosts["local"].using == {"u0": [0], "u1": [1]}
    assert study.end(0) == [2] and study.given(2) == [["u0"]]


def test_nothing_starts_before_the_host_has_said_what_it_has() -> None:
    study = Study(trial_gpu_number=1)
    study.queue()
    assert study.up() == []
    assert study.why(0) == "waits for 1 GPU: host local has not said yet which GPUs it has"
    assert study.submit(DevicesFound("local", devices(1), "")) == [0]


def test_who_has_nothing_claims_what_others_have() -> None:
    study = Study(["a", "b"], trial_gpu_number=2, terms={"gpu_indices": [0, 1, 2]})
    state = study.state
    study.up("a", devices(4, leases={0: 1, 1: 1}, busy={2: True}))
    study.queue()
    assert study.claimed == [("a", ["u0", "u1"], 2)]
    study.submit(DevicesFound("a", devices(4, leases={0: 1, 1: 1}), ""))
    assert study.claimed[1:] == [("a", ["u0", "u1", "u2"], 2)]
    study.submit(HostDown("a", "cut"))
    study.up("a", devices(4, leases={0: 1, 1: 1}))
    assert len(study.claimed) == 4 and study.claimed[-1] == study.claimed[1]  # withdrawn, and laid anew
    assert study.up("b", devices(2)) == [0] and state.trial(0).host == "b"
    assert study.claimed[-1] == ("a", [], 2)
    study.queue()
    assert len(study.claimed) == 5  # one of its trials runs: the others wait for their turn


def test_who_shares_claims_nothing() -> None:
    study = Study(trial_gpu_number=1, terms={"use_active_gpu": True})
    study.up(found=devices(1, leases={0: 1}))
    study.queue()
    assert study.claimed == [] and not study.state.active


# -- in words ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("terms", "found", "said"),
    [
        ({}, devices(2), "host local has 2 GPUs: 0 and 1 in use by trials 0 and 1"),
        (
            {},
            devices(2, busy={1: True}),
            "host local has 2 GPUs: 1 in use by other processes (use_active_gpu = false), 0 in use by trial 0",
        ),
        ({}, devices(2, leases={0: 1}), "0 in use by another experiment, 1 in use by trial 0"),
        (
            {"use_active_gpu": True},
            devices(1, leases={0: 1}),
            "host local has 1 GPU: 0 in use by other experiments",
        ),
        (
            {"gpu_indices": [1]},
            devices(2),
            "host local has 1 GPU (2 GPUs, of which gpu_indices allows 1): 1 in use by trial 0",
        ),
        ({"gpu_indices": [0, 7]}, devices(2), "1 GPU (gpu_indices names 7, which it does not have)"),
        ({"slots": 1}, devices(2), "all 1 slots of host local are in use by trial 0"),
    ],
)
def test_why_a_trial_waits(terms: dict[str, Any], found: list[Device], said: str) -> None:
    study = Study(trial_gpu_number=1, terms=terms)
    study.up(found=found)
    study.queue(3)
    assert study.why(2).startswith("waits for 1 GPU: ") and said in study.why(2)


def test_an_index_that_the_host_does_not_have_is_warned_of_once() -> None:
    study = Study(trial_gpu_number=1, terms={"gpu_indices": [0, 7]})
    study.up(found=devices(2))
    study.up(found=devices(2))
    assert study.state.warnings == ["host local has no GPU 7, which its gpu_indices names; it has: 0, 1"]


def test_more_gpus_than_any_host_can_have_pause_the_experiment_once_all_hosts_are_known() -> None:
    study = Study(["a", "b"], trial_gpu_number=4)
    study.up("a", devices(2))
    study.queue()
    assert study.state.status == "RUNNING" and "host a has 2 GPUs: 0 and 1 free" in study.why(0)
    study.up("b", [], "no NVIDIA driver: libnvidia-ml.so.1 is not there")
    assert study.state.status == "PAUSED"
    assert study.state.reason == (
        "a trial wants 4 GPUs (trial_gpu_number = 4), and no host has as many: a has 2 GPUs; "
        "b has no GPU (no NVIDIA driver: libnvidia-ml.so.1 is not there)"
    )
    study.start()
    study.up("a", devices(4))
    assert study.state.status == "RUNNING" and study.state.trial(0).host == "a"


def test_many_hosts_are_not_all_named() -> None:
    study = Study([f"h{index}" for index in range(9)], trial_gpu_number=1)
    for index in range(9):
        study.up(f"h{index}", devices(1))
    study.queue(10)
    assert study.why(9).endswith("host h2 has 1 GPU: 0 in use by trial 2; and so on")


def test_slots_limit_trials_without_gpus_too() -> None:
    machines = [Machine(host="a", name="a", slots=1), Machine(host="b", name="b")]
    study = Study(training_service=TrainingService(platform="remote", machine_list=machines))
    study.up("a")
    study.up("b")
    study.queue(6)
    assert [study.state.trial(number).host for number in range(6)] == ["a", "b", "b", "b", "b", "b"]
    alone = Study(terms={"slots": 2})
    alone.up()
    assert alone.queue(3) == [0, 1]
    assert alone.why(2) == "waits for a host: all 2 slots of host local are in use by trials 0 and 1"


def test_a_machine_s_own_words_count_more_than_its_service_s() -> None:
    machines = [
        Machine(host="a", name="a", use_active_gpu=True, gpu_indices=[1]),
        Machine(host="b", name="b", max_trial_number_per_gpu=3, slots=4),
    ]
    service = TrainingService(platform="remote", machine_list=machines, max_trial_number_per_gpu=2, gpu_indices=[0])
    config = Config(search_space={}, trial_command="true", trial_code_directory="/", training_service=[service])
    assert config.terms == {
        "a": Terms(use_active_gpu=True, max_trial_number_per_gpu=2, gpu_indices=[1]),
        "b": Terms(slots=4, max_trial_number_per_gpu=3, gpu_indices=[0]),
    }


# -- a checkpoint on another host -------------------------------------------------------------------------------------
def test_a_trial_goes_where_the_checkpoint_lies_that_it_continues() -> None:
    study = Study(["a", "b"], terms={"slots": 1})
    study.up("a")
    study.up("b")
    study.queue(2)
    study.end(1)
    study.queue(1)  # b is full again
    study.add(Draft(NewTrial(trial_id(study.state, 3)), 3))
    study.add(Draft(Parameter(0, Raw(b"{}"), 0, continues=1), 3))
    study.plan()
    assert study.state.trial(1).host == "b"
    study.submit(AskTrial("test", "{}"))
    assert study.end(0) == [4]  # a has room, and trial 3 can't use it
    assert study.why(3).startswith("waits for host b, where the checkpoint of trial 1 lies that it continues: all 1 sl")
    study.end(4)
    study.submit(HostDown("b", "no route to host"))
    assert study.why(3).endswith("host b is DISCONNECTED (no route to host)")
    assert study.state.status in ("RUNNING", "NO_MORE_TRIAL")
    study.submit(HostUp("b", 1))
    assert study.end(2) == [3] and study.state.trial(3).host == "b"


# -- hosts that are set aside -----------------------------------------------------------------------------------------
def failing(study: Study, name: str, count: int) -> None:
    """So many trials fail at once on this host; those elsewhere succeed."""
    left = count
    for _ in range(200):
        if not left:
            return
        study.queue()
        study.started(*[number for number in study.state.active if study.state.trial(number).launching])
        for number in list(study.state.active):
            if study.state.trial(number).host != name:
                study.end(number)
            elif left:
                left -= 1
                study.end(number, 1)
    raise AssertionError("it gets no trials")


def test_a_host_that_fails_at_once_again_and_again_is_set_aside_for_a_growing_while() -> None:
    study = Study(["a", "b"])
    study.up("a")
    study.up("b")
    study.queue(2)
    study.started(0, 1)
    study.end(1)
    failing(study, "a", 3)
    host = study.state.hosts["a"]
    assert host.aside_until == study.clock + 30 * SECOND and not host.usable
    assert "host a is set aside for 30 s: 3 trials in a row failed within 2 s there" in study.state.warnings[-1]
    study.queue(4)
    assert {study.state.trial(number).host for number in study.state.active} == {"b"}
    assert deadline(study.state) == host.aside_until
    study.submit(Due())
    assert host.aside_until
    study.clock += 30 * SECOND
    study.submit(Due())
    assert host.usable
    study.queue(8)
    assert host.trials
    failing(study, "a", 1)  # one is enough now
    assert host.aside_until == study.clock + 60 * SECOND
    study.clock += 60 * SECOND
    study.submit(Due())
    study.queue(1)
    study.started(*host.trials)
    for number in list(host.trials):
        study.end(number)
    assert host.well and host.aside == host.failures == 0
    assert any(isinstance(fact.event, SetAside) for fact in study.facts)


def test_what_fails_everywhere_is_no_host_s_fault() -> None:
    study = Study(["a", "b"])
    study.up("a")
    study.up("b")
    for _ in range(10):
        study.queue(2)
        for number in list(study.state.active):
            study.started(number)
            study.end(number, 1)
    assert not any(isinstance(fact.event, SetAside) for fact in study.facts)
    alone = Study()
    alone.up()
    for _ in range(10):
        [number] = alone.queue()
        trial = alone.state.trial(number)
        alone.submit(NotStarted(trial.id, 0, "no such folder"))
    assert not any(isinstance(fact.event, SetAside) for fact in alone.facts)


def test_the_failure_brake_works_as_before() -> None:
    study = Study(["a", "b"], max_failures=3)
    study.up("a")
    study.up("b")
    study.queue(6)
    for number in range(3):
        study.started(number)
        study.end(number, 1)
    assert study.state.status == "PAUSED" and "the first 3 trials all failed" in study.state.reason
    assert not any(isinstance(fact.event, SetAside) for fact in study.facts)


def test_with_all_others_aside_a_trial_says_so() -> None:
    study = Study(["a"])
    study.up("a")
    study.add(Draft(SetAside("a", 0, 30 * SECOND, "3 trials in a row failed")))
    assert study.queue() == []
    assert study.why(0) == "waits for a host: host a is set aside for a while (3 trials in a row failed)"
    study.start()
    assert study.up("a") == [0]  # a resume tries anew


# -- cost -------------------------------------------------------------------------------------------------------------
def test_a_full_host_is_not_looked_at_again_until_something_has_changed() -> None:
    study = Study(HOSTS, trial_gpu_number=1)
    for name in HOSTS:
        study.up(name, devices(2))
    study.queue(10)
    assert study.state.queues.roomy == {} and len(study.state.active) == 6
    assert study.end(1) == [6] and study.state.queues.roomy == {}


def test_a_host_that_was_not_asked_fits_all_but_trials_that_want_devices() -> None:
    assert fitting(HostState("x", connected=True), Terms(), 0) == []
    assert fitting(HostState("x", connected=True), Terms(), 1) is None
    assert fitting(HostState("x"), Terms(), 0) is None


@pytest.mark.parametrize("storage", [None, "NFS", "AzureBlob"])
def test_a_trial_that_is_carried_to_says_what_its_start_waits_for(storage: Any) -> None:
    shared = None if storage is None else config_room.SharedStorage(storage_type=storage)
    study = Study(["a"], shared_storage=shared)
    study.up("a")
    [number] = study.queue()
    waits = ", once the shared storage has given what it needs" if storage == "AzureBlob" else ""
    assert study.why(number) == f"is being started on a{waits}"
    study.started(number)
    assert study.state.trial(number).status == "RUNNING"
