"""engine/tuner_host.py and host_wire.py: a real host process with tuners of a user's own and built-in ones."""

import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tune.engine import host_wire, registry, tuner_host
from tune.engine.config import Algorithm, Config, encode
from tune.engine.host_wire import (
    Answered,
    AskNow,
    Bye,
    Differs,
    Failed,
    FromHost,
    Observe,
    Ready,
    Setup,
    Spent,
    ToHost,
    Verdict,
    Waits,
)
from tune.engine.plugins import (
    Ask,
    Asked,
    Ended,
    Imported,
    Observation,
    Reported,
    SpaceChanged,
    Suggested,
    Suggestion,
    TrialEnded,
)
from tune.engine.tuner_host import Host
from tune.trial_sdk.wire import MAX_FRAME, Framer, WireError

SPACE = {"lr": {"_type": "uniform", "_value": [0.0, 1.0]}}

MINE = """
import os, sys, time
from tune.engine.plugins import Exhausted, Stopped, Suggestion, Wait

class Base:
    def __init__(self, *, optimize_mode="maximize", note=""):
        print("a print of the user's", note, flush=True)
        self.mode, self.facts = optimize_mode, []
    def observe(self, fact):
        if type(fact).__name__ == "Imported" and fact.value is None:
            raise RuntimeError("can't learn from this")
        self.facts.append(fact)

class Mine(Base):
    def suggest(self, ask):
        do = getattr(self, f"do_{ask.number}", None)
        return do(ask) if do else Suggestion({"n": ask.number, "seen": len(self.facts), "mode": self.mode})
    def do_100(self, ask): return Wait("not yet")
    def do_101(self, ask): return Exhausted("all said")
    def do_102(self, ask): raise ValueError("bad\\nday \\ud800")
    def do_103(self, ask): return {"a": 1}
    def do_104(self, ask): return Suggestion([1])
    def do_105(self, ask): return Suggestion({"a": object()})
    def do_106(self, ask): return Suggestion({"a": 2**64})
    def do_107(self, ask): return Suggestion({"a": "x" * (1 << 20)})
    def do_108(self, ask): sys.exit(3)
    def do_109(self, ask): return Suggestion({"a": float("nan")}, budget=2, continues=1, parents=(0, 1),
                                             decision={"why": "so"})
    def do_110(self, ask): return Suggestion({"a": 1}, budget=float("inf"))
    def do_111(self, ask): return Suggestion({"a": 1}, continues=-1)
    def do_112(self, ask): return Suggestion({"a": 1}, decision={"why": "x" * 2000})
    def do_113(self, ask): return Suggestion({"a": 1}, extras={"a": 2})
    def do_114(self, ask): return Suggestion({"env": {k: v for k, v in os.environ.items() if k.endswith("_THREADS")},
                                              "numpy": "numpy" in sys.modules})
    def do_115(self, ask): time.sleep(1000)
    def do_116(self, ask): return Suggestion({"space": ask.space.raw, "version": ask.space_version,
                                              "trial": [ask.trial, ask.trial_id, ask.phase, ask.waiting, ask.attempt],
                                              "u": float(ask.generator().random())})
    def do_117(self, ask): return None
    def do_118(self, ask): return Suggestion({"objectives": [[one.key, one.mode] for one in ask.objectives]})

class Judge(Base):
    def verdict(self, trial):
        last = self.facts[-1]
        if last.value == -1:
            raise RuntimeError("no opinion")
        if last.value == -2:
            return "stop"
        return Stopped(f"{last.value} is little") if last.value < 0 else None

class Both(Mine, Judge):
    pass

class Several(Mine):
    multi_objective = True

class Reads(Mine):
    observes = "intermediates"
    deterministic = False

class Broken:
    def __init__(self): raise OSError("no model file")
    def suggest(self, ask): ...
    def observe(self, fact): ...
"""


class Running:
    """A host process and the engine's end of its socket."""

    def __init__(self, output: Path) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(60)
        with output.open("wb") as out:
            command = [sys.executable, "-P", "-m", "tune.engine.tuner_host", str(theirs.fileno())]
            environment = {**os.environ, "OMP_NUM_THREADS": "7"}
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )
        theirs.close()
        self.framer, self.inbox = Framer(), list[bytes]()

    def send(self, *messages: ToHost) -> None:
        for message in messages:
            self.ours.sendall(host_wire.to_host(message))

    def observe(self, *facts: Observation, judge: bool = True) -> None:
        for frame in host_wire.observe(list(facts), judge=judge):
            self.ours.sendall(frame)

    def hear(self) -> FromHost | None:
        while not self.inbox:
            data = self.ours.recv(1 << 16)
            if not data:
                return None
            self.inbox += self.framer.feed(data)
        return host_wire.read_from_host(self.inbox.pop(0))

    def ask(self, number: int, **fields: Any) -> FromHost | None:
        self.send(AskNow(number, **{"attempt": 0, "trial": number, "trial_id": "abcde", **fields}))
        return self.hear()

    def end(self) -> int:
        self.ours.close()
        return self.process.wait(60)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "mine.py").write_text(MINE)
    running = Running(tmp_path / "output")
    yield running
    running.ours.close()
    running.process.kill()
    running.process.wait()


def setup(folder: Path, name: str = "Mine", assessor: str | None = None, **fields: Any) -> Setup:
    def mine(name: str, **class_args: Any) -> Algorithm:
        return Algorithm(class_name=f"mine.{name}", code_directory=str(folder), class_args=class_args)

    config = Config(
        search_space=fields.pop("search_space", {"any": [1, 100]}),
        trial_command="true",
        trial_code_directory=str(folder),
        seed=5,
        tuner=fields.pop("tuner", None) or mine(name, **fields.pop("class_args", {})),
        assessor=mine(assessor) if assessor else None,
        **fields,
    )
    return Setup(encode(config))


def parameters(answer: FromHost | None) -> Any:
    assert isinstance(answer, Answered), answer
    return msgspec.json.decode(answer.parameters)


def test_a_users_tuner_answers_waits_ends_and_fails_without_hurting_the_host(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, optimize_mode="minimize"))
    assert host.hear() == Ready("results", True)
    assert parameters(host.ask(0)) == {"n": 0, "seen": 0, "mode": "minimize"}
    host.observe(Suggested(9, 0, 0, {"x": 1}, ask=0), Reported(11, 0, 0, 0, 0.5), Ended(12, 0, 0, "completed", 1.0))
    answer = host.ask(1)
    assert parameters(answer)["seen"] == 2  # the intermediate did not reach a tuner that observes results
    assert isinstance(answer, Answered) and answer.seen == 12
    assert host.ask(100, attempt=3) == Waits(100, 3, 12, "not yet")
    assert host.ask(101) == Spent(101, 0, 12, "all said")
    failed = host.ask(102)
    assert isinstance(failed, Failed) and (failed.number, failed.fatal) == (102, False)
    assert failed.error == "ValueError: bad day ?"
    assert "do_102" in failed.traceback and "tuner_host.py" not in failed.traceback
    for number, said in {
        103: "suggest gave {'a': 1}; allowed: Suggestion, Wait, Exhausted",
        104: "the parameters are [1]; allowed: a mapping",
        105: "the parameters are no JSON object",
        106: "the parameters are no JSON object",
        107: "the parameters are no JSON object",
        108: "SystemExit: 3",
        110: "the budget is inf",
        111: "found -1 where a trial's number is due",
        113: "'a' is in the parameters and in the extras",
        117: "suggest gave None",
    }.items():
        failed = host.ask(number)
        assert isinstance(failed, Failed) and said in failed.error and failed.number == number
    rich = host.ask(109)
    assert rich == Answered(109, 0, 12, '{"a":"NaN"}', 1, 2.0, [0, 1], '{"why":"so"}')
    long = host.ask(112)
    assert isinstance(long, Answered) and msgspec.json.decode(long.decision) == {"too_long": 2010}
    host.send(Bye())
    assert host.hear() is None and host.process.wait(60) == 0
    assert b"a print of the user's" in (tmp_path / "output").read_bytes()


def test_what_an_ask_holds_and_one_thread_for_blas(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path))
    assert isinstance(host.hear(), Ready)
    told = parameters(host.ask(114))
    assert told["numpy"] is False and told["env"]["OMP_NUM_THREADS"] == told["env"]["OPENBLAS_NUM_THREADS"] == "1"
    told = parameters(host.ask(116, trial_id="z9999", phase=2, waiting=4, attempt=1, space_version=0))
    assert told["space"] == {"any": [1, 100]} and told["trial"] == [116, "z9999", 2, 4, 1]
    again = parameters(host.ask(116, attempt=1))
    assert again["u"] == told["u"] != parameters(host.ask(116, attempt=2))["u"]
    host.observe(SpaceChanged(20, 1, {"other": []}))
    changed = host.ask(116, space_version=1)
    assert parameters(changed)["space"] == {"other": []} and isinstance(changed, Answered) and changed.seen == 20


def test_an_assessor_judges_each_intermediate(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, assessor="Judge"))
    assert host.hear() == Ready("intermediates", True)
    host.observe(Reported(1, 0, 0, 0, -5.0), Reported(2, 0, 0, 1, -6.0), judge=False)  # a rebuild asks for no verdict
    host.observe(Reported(3, 0, 0, 2, 1.0), Reported(4, 7, 0, 0, -3.0), Reported(5, 7, 0, 0, -1.0))
    assert host.hear() == Verdict(7, 4, "-3.0 is little")
    failed = host.hear()
    assert isinstance(failed, Failed) and "no opinion" in failed.error and not failed.fatal and failed.number is None
    host.observe(Reported(6, 1, 0, 0, -2.0))
    failed = host.hear()
    assert isinstance(failed, Failed) and "the assessor's verdict is 'stop'" in failed.error
    assert parameters(host.ask(0))["seen"] == 0


def test_one_object_is_both_and_is_fed_once(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, "Both"))
    assert host.hear() == Ready("intermediates", True)
    host.observe(Suggested(1, 0, 0, {}), Reported(2, 0, 0, 0, float("inf")))
    assert parameters(host.ask(0))["seen"] == 2


def test_the_same_class_as_tuner_and_assessor_is_one_object(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, "Both", assessor="Both"))
    assert host.hear() == Ready("intermediates", True)
    host.observe(Reported(2, 0, 0, 0, 0.0))
    assert parameters(host.ask(0))["seen"] == 1
    assert (tmp_path / "output").read_bytes().count(b"a print") == 1


def test_a_tuner_may_observe_intermediates_and_be_no_function_of_the_log(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, "Reads"))
    assert host.hear() == Ready("intermediates", False)
    host.observe(Reported(2, 0, 0, 0, 0.0))
    assert parameters(host.ask(0))["seen"] == 1


def test_a_tuner_that_raises_in_observe_ends_the_host(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path))
    assert isinstance(host.hear(), Ready)
    host.observe(Imported(3, {"a": 1}, None), Imported(4, {"a": 1}, 1.0))
    failed = host.hear()
    assert isinstance(failed, Failed) and failed.fatal and failed.error == "RuntimeError: can't learn from this"
    assert host.hear() is None and host.process.wait(60) == 0


@pytest.mark.parametrize(
    ("name", "class_args", "said"),
    [
        ("Judge", {}, "mine.Judge has no method suggest"),
        ("Broken", {}, "OSError: no model file"),
        ("Nobody", {}, "can't be imported: AttributeError"),
        ("Mine", {"nte": 1}, "nte: unknown argument; allowed: optimize_mode, note; did you mean note?"),
    ],
)
def test_a_tuner_that_can_not_be_made_says_why(
    host: Running, tmp_path: Path, name: str, class_args: dict[str, Any], said: str
) -> None:
    host.send(setup(tmp_path, name, class_args=class_args))
    ready = host.hear()
    assert isinstance(ready, Ready) and ready.error is not None and said in ready.error
    assert host.hear() is None and host.process.wait(60) == 0


def test_built_in_answers_lie_in_the_space(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, tuner=Algorithm(name="random"), search_space=SPACE))
    assert host.hear() == Ready("results", True)
    first = parameters(host.ask(0))
    assert set(first) == {"lr"} and 0 <= first["lr"] <= 1
    host.observe(Suggested(3, 0, 0, first, ask=0), SpaceChanged(4, 1, {"b": {"_type": "choice", "_value": [7]}}))
    assert parameters(host.ask(1, space_version=1)) == {"b": 7}


def test_a_users_answers_meet_the_constraints_and_nothing_else_is_asked_of_them(host: Running, tmp_path: Path) -> None:
    space = {"n": {"_type": "randint", "_value": [0, 9]}}
    host.send(setup(tmp_path, search_space=space, constraints=["n < 5"]))
    assert isinstance(host.hear(), Ready)
    assert parameters(host.ask(2))["n"] == 2
    failed = host.ask(7)
    assert isinstance(failed, Failed) and failed.number == 7
    assert "the constraint 'n < 5' is not met" in failed.error


@pytest.mark.parametrize(
    ("name", "error"), [("Mine", "mine.Mine does not say multi_objective = True"), ("Several", None)]
)
def test_several_objectives_are_for_tuners_that_take_them(
    host: Running, tmp_path: Path, name: str, error: str | None
) -> None:
    host.send(setup(tmp_path, name, objectives={"a": "maximize", "b": "minimize"}))
    ready = host.hear()
    assert isinstance(ready, Ready) and (error is None or error in (ready.error or ""))
    if error is None:
        assert ready.error is None
        assert parameters(host.ask(118)) == {"objectives": [["a", "maximize"], ["b", "minimize"]]}


def test_batch_answers_with_its_listed_configurations(host: Running, tmp_path: Path) -> None:
    space = {"combine_params": {"_type": "choice", "_value": [{"a": 1}, {"a": 2}]}}
    host.send(setup(tmp_path, tuner=Algorithm(name="Batch"), search_space=space))
    assert isinstance(host.hear(), Ready)
    answer = host.ask(0)
    assert parameters(answer) == {"a": 1}


def test_a_built_in_space_error_is_said_at_setup(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path, tuner=Algorithm(name="Random")))
    ready = host.hear()
    assert isinstance(ready, Ready) and ready.error and "any" in ready.error


def test_the_host_ends_when_the_socket_closes_even_while_the_tuner_thinks(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path))
    assert isinstance(host.hear(), Ready)
    host.send(AskNow(115, 0, 0, "a"))  # sleeps for 1000 s
    assert host.end() == 0


def test_the_host_ends_at_once_when_nothing_was_said(host: Running) -> None:
    assert host.end() == 0


def test_an_interrupt_is_the_engines_to_answer(host: Running, tmp_path: Path) -> None:
    host.send(setup(tmp_path))
    assert isinstance(host.hear(), Ready)
    host.process.send_signal(signal.SIGINT)
    assert parameters(host.ask(0))["n"] == 0


def test_garbage_ends_the_host(host: Running) -> None:
    host.ours.sendall(b"\x00\x00\x00\x02\xc1\xc1")
    assert host.hear() is None and host.process.wait(60) == 1
    for garbage in (b"", b"\xc1", b"\x93\x01\x02\x03"):
        with pytest.raises(WireError):
            host_wire.read_from_host(garbage)
        with pytest.raises(WireError):
            host_wire.read_to_host(garbage)


def test_many_facts_travel_in_frames_of_bounded_size() -> None:
    facts: list[Observation] = [Suggested(n, n, 0, {"x": "y" * 1000}) for n in range(2000)]
    frames = host_wire.observe(facts)
    assert len(frames) > 1 and all(len(frame) < MAX_FRAME for frame in frames)
    back = [fact for frame in frames for fact in host_wire.read_to_host(frame[4:]).facts]  # type: ignore[union-attr]
    assert back == facts
    assert host_wire.observe([]) == []
    wide = Suggested(1, 1, 0, {"x": [0.5] * 200_000})  # 0.8 MB of JSON, 1.8 MB of msgpack
    assert len(host_wire.observe([wide])) == 1
    with pytest.raises(WireError, match="longer than"):
        host_wire.to_host(Setup(b"x" * (host_wire.MAX_TO_HOST + 1)))


def test_answers_of_installed_tuners_are_checked_against_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stray:
        def suggest(self, ask: Ask) -> Suggestion:
            points = [{"lr": 0.5}, {"lr": 2.0}, {"lr": 0.5, "TRIAL_BUDGET": 3}]
            extras: list[dict[str, Any]] = [{"TRIAL_BUDGET": 3}, {}, {}, {"gpu": 1}]
            return Suggestion(points[ask.number % 3], extras=extras[ask.number])

        def observe(self, fact: Observation) -> None: ...

    monkeypatch.setattr(registry, "find", lambda kind, name: (name, Stray))
    config = Config(search_space=SPACE, trial_command="x", trial_code_directory="/", tuner=Algorithm(name="Stray"))
    host = Host()
    assert list(host.handle(Setup(encode(config)))) == [Ready()]
    answers = [next(host.handle(AskNow(number, 0, 0, "a"))) for number in range(4)]
    assert isinstance(answers[0], Answered) and answers[0].parameters == '{"lr":0.5,"TRIAL_BUDGET":3}'
    for answer, said in zip(answers[1:], ("outside the search space: lr", "TRIAL_BUDGET", "'gpu'"), strict=True):
        assert isinstance(answer, Failed) and said in answer.error and not host.over


# -- tuners that learn as they are asked, and concurrent ones ---------------------------------------------------------
LEARNS = """
import threading
from tune.engine.plugins import Exhausted, Suggestion, Wait

class Learns:
    stateful = True
    def __init__(self, *, base=0): self.count, self.base, self.told = 0, base, []
    def observe(self, fact): self.told.append(type(fact).__name__)
    def suggest(self, ask):
        self.count += 1
        if self.count == 2: return Wait("second")
        if ask.number == 9: return Exhausted("ninth")
        return Suggestion({"count": self.count + self.base, "told": len(self.told)})

class Waiting:
    stateful = concurrent = True
    def __init__(self, *, base=0): self.base, self.events, self.order = base, {}, []
    def observe(self, fact):
        if type(fact).__name__ == "Ended": self.events[fact.trial].set()
    def suggest(self, ask):
        self.order.append(ask.number)
        self.events[ask.trial] = threading.Event()
        mine = list(self.order)
        if ask.trial: self.events[0].wait()
        return Suggestion({"order": mine, "base": self.base})
"""


def made(folder: Path, name: str, module: str, send: Any = None, **class_args: Any) -> Host:
    """A host in this process with one of these tuners."""
    (folder / f"{module}.py").write_text(LEARNS)
    algorithm = Algorithm(class_name=f"{module}.{name}", code_directory=str(folder), class_args=class_args)
    host = Host(send)
    [ready] = host.handle(setup(folder, tuner=algorithm))
    assert isinstance(ready, Ready) and ready.error is None and ready.stateful
    return host


def test_a_stateful_tuner_is_asked_again_in_its_places(tmp_path: Path) -> None:
    live = made(tmp_path, "Learns", "learns_a")
    [first] = live.handle(AskNow(1, 0, 0, ""))
    facts: list[Observation] = [Suggested(3, 0, 0, {"count": 1, "told": 0}, ask=1)]
    list(live.handle(Observe(facts)))
    [second] = live.handle(AskNow(2, 0, 1, ""))
    ends: list[Observation] = [Ended(5, 0, 0, "completed", 1.0, raw="1"), TrialEnded(6, 0, "SUCCEEDED")]
    list(live.handle(Observe(ends)))
    [third] = live.handle(AskNow(2, 1, 1, ""))
    assert isinstance(first, Answered) and second == Waits(2, 0, 3, "second")
    assert isinstance(third, Answered) and third.parameters == '{"count":3,"told":3}' and third.seen == 6

    past = [
        Asked(0, 1, 0, 0, "", 0, first.parameters),
        *facts,
        Asked(3, 2, 0, 1, "", 0, "wait"),
        *ends,
        Asked(6, 2, 1, 1, "", 0, third.parameters),
        Suggested(8, 1, 0, {"count": 3, "told": 3}, ask=2),
    ]
    next_one = AskNow(3, 0, 2, "")
    [lived] = [*live.handle(Observe([past[-1]])), *live.handle(next_one)]
    again = made(tmp_path, "Learns", "learns_a")
    assert [*again.handle(Observe(past, judge=False)), *again.handle(next_one)] == [lived]

    other = made(tmp_path, "Learns", "learns_a", base=10)
    [differs] = other.handle(Observe(past, judge=False))  # twice another answer, told once
    assert isinstance(differs, Differs) and differs.error.startswith(
        'asked again for trial 0, the tuner says {"count":11,"told":0}; then {"count":1,"told":0}.'
    )


def test_a_concurrent_host_answers_by_send_and_is_rebuilt_with_its_waits(tmp_path: Path) -> None:
    said: queue.Queue[FromHost] = queue.Queue()
    host = made(tmp_path, "Waiting", "waiting_a", said.put)
    assert [reply for number in (1, 2, 3) for reply in host.handle(AskNow(number, 0, number - 1, ""))] == []
    assert said.get(timeout=30) == Answered(1, 0, 0, '{"order":[1],"base":0}') and said.empty()
    list(host.handle(Observe([Suggested(4, 0, 0, {"order": [1], "base": 0}, ask=1)])))
    ended = Ended(6, 0, 0, "completed", 1.0)
    list(host.handle(Observe([ended])))
    answers = sorted((said.get(timeout=30) for _ in range(2)), key=lambda reply: reply.number)  # type: ignore[union-attr]
    assert answers == [
        Answered(2, 0, 6, '{"order":[1,2],"base":0}'),
        Answered(3, 0, 6, '{"order":[1,2,3],"base":0}'),
    ]

    past = [
        *(Asked(number, number, 0, number - 1, "", 0) for number in (1, 2, 3)),
        Suggested(4, 0, 0, {"order": [1], "base": 0}, ask=1),
        ended,
        Suggested(8, 1, 0, {"order": [1, 2], "base": 0}, ask=2),
    ]
    again = made(tmp_path, "Waiting", "waiting_a", said.put)
    assert not list(again.handle(Observe(past, judge=False))) and said.empty()
    list(again.handle(AskNow(3, 0, 2, "")))  # it is at it, or has its answer, already
    assert said.get(timeout=30) == Answered(3, 0, 8, '{"order":[1,2,3],"base":0}')
    other = made(tmp_path, "Waiting", "waiting_a", said.put, base=1)
    [differs] = other.handle(Observe(past, judge=False))
    assert isinstance(differs, Differs) and "for trial 0" in differs.error


def test_without_a_send_a_concurrent_host_answers_at_once(tmp_path: Path) -> None:
    host = made(tmp_path, "Waiting", "waiting_b")
    assert list(host.handle(AskNow(1, 0, 0, ""))) == [Answered(1, 0, 0, '{"order":[1],"base":0}')]
    list(host.handle(Observe([Ended(6, 0, 0, "completed", 1.0)])))
    assert list(host.handle(AskNow(2, 0, 1, ""))) == [Answered(2, 0, 6, '{"order":[1,2],"base":0}')]


def test_without_a_send_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner_host, "PATIENCE", 0.05)
    host = made(tmp_path, "Waiting", "waiting_d")
    [_, failed] = [reply for number in (1, 2) for reply in host.handle(AskNow(number, 0, number - 1, ""))]
    assert failed == Failed("the tuner does not answer before it has observed more", 2)


def test_a_rebuilt_concurrent_tuner_that_does_not_answer_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner_host, "PATIENCE", 0.05)
    host = made(tmp_path, "Waiting", "waiting_c", lambda reply: None)
    past = [*(Asked(number, number, 0, number - 1, "", 0) for number in (1, 2)), Suggested(8, 1, 0, {}, ask=2)]
    [differs] = host.handle(Observe(past, judge=False))
    assert isinstance(differs, Differs) and "trial 1, the tuner does not answer" in differs.error


def test_a_class_in_nnis_style_runs_in_the_host(host: Running, tmp_path: Path) -> None:
    source = "import nni\nfrom nni.tuner import Tuner\n\nclass Theirs(Tuner):\n"
    source += "    def __init__(self, optimize_mode, start=1): self.mode, self.start = optimize_mode, start\n"
    source += "    def generate_parameters(self, parameter_id, **kwargs): return {'n': parameter_id + self.start}\n"
    (tmp_path / "theirs.py").write_text(source)
    theirs = Algorithm(class_name="theirs.Theirs", code_directory=str(tmp_path), class_args={"start": 5})
    host.send(setup(tmp_path, tuner=theirs))
    assert host.hear() == Ready("results", False, stateful=True)
    assert parameters(host.ask(1)) == {"n": 5} and parameters(host.ask(2)) == {"n": 6}
