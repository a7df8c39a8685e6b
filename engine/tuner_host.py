"""The tuner host: the process that runs an experiment's tuner and assessor, so that neither can hurt the engine.

Started as `python -m tune.engine.tuner_host FD` with one end of a socket pair; it speaks host_wire.py there, one
message after the other, and ends when the socket closes. BLAS and torch are pinned to one thread before anything
imports numpy: the same matrix gives other bits with two. stdout and stderr are the user's code's own.

`Host` is all of it but the socket: messages in, messages out. With a concurrent tuner (tuner_calls.py) the answers to
asks come when the tuner likes, through `Host`'s `send`; without one `handle` waits for each.
"""

from __future__ import annotations

import inspect
import io
import math
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from ..trial_sdk import values
from . import registry
from .config import Algorithm, Config, decode
from .host_wire import (
    MAX_TO_HOST,
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
    from_host,
    read_to_host,
)
from .plugins import (
    Ask,
    Asked,
    Exhausted,
    LimitsChanged,
    Objective,
    Observation,
    Reported,
    SpaceChanged,
    Stopped,
    Suggested,
    Suggestion,
    TrialEnded,
    Wait,
)
from .points import EXTRAS
from .space import Space, SpaceError, parse
from .tuner_calls import Calls, Loop, Threads

MAX_PARAMETERS = 1 << 20
MAX_DECISION = 1 << 10
PATIENCE = 10.0  # seconds for a concurrent tuner that is rebuilt, or asked where nobody can wait for its answer
_MAX_TRACEBACK = 8 << 10
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class _Nonsense(Exception):
    """An answer that is none; says what was found and what is allowed."""


class _Call:
    """An ask that a concurrent tuner has: `put` when the engine waits for its answer."""

    def __init__(self, message: AskNow) -> None:
        self.message = message
        self.put = False
        self.over = threading.Event()
        self.found: Any = None
        self.error: BaseException | None = None


class Host:
    """A tuner and an assessor, fed with messages. `over` is true when no further message will be taken.

    One that is given here is taken instead of the one that the config names: a study's own object, or one to compare.
    """

    def __init__(
        self, send: Callable[[FromHost], None] | None = None, *, tuner: Any = None, assessor: Any = None
    ) -> None:
        self.over = False
        self._send = send
        self._given = tuner, assessor
        self._tuner: Any = None
        self._assessor: Any = None
        self._tuner_reads_all = False
        self._users = False  # the tuner is a class of the user's own: any space, any JSON object
        self._seed = 0
        self._space = Space({}, ())
        self._space_version = 0
        self._constraints: list[str] = []
        self._objectives: tuple[Objective, ...] = ()
        self._limits = LimitsChanged(0, 1, None)
        self._seen = 0
        self._calls: Calls | None = None  # of a concurrent tuner
        self._open: dict[int, _Call] = {}
        self._differs = False

    @property
    def tuner(self) -> Any:
        """The tuner, once `Setup` was answered: for a debugger to look at."""
        return self._tuner

    def handle(self, message: ToHost) -> Iterator[FromHost]:
        """The answers to one message, as they come."""
        match message:
            case Setup():
                yield self._setup(message)
            case Observe():
                yield from self._observe(message)
            case AskNow() if self._calls is not None:
                yield from self._put(self._calls, message)
            case AskNow():
                yield self._ask(message)
            case Bye():
                self.over = True

    # -- setup ----------------------------------------------------------------------------------------------------
    def _setup(self, message: Setup) -> Ready:
        try:
            config = decode(message.config)
            self._seed, self._users = config.seed, config.tuner.is_users
            self._constraints = config.constraints
            self._objectives = tuple(Objective(key, mode) for key, mode in config.objectives.items())
            self._limits = LimitsChanged(0, config.trial_concurrency, config.max_trial_number)
            self._space = self._parsed(config.search_space)
            given = self._given[0]
            self._tuner = _made("tuner", "suggest", config.tuner, config) if given is None else given
            self._assessor = self._made_assessor(config)
        except (Exception, SystemExit) as error:
            self.over = True
            return Ready(error=_line(error), traceback=_trace(error))
        self._tuner_reads_all = getattr(self._tuner, "observes", "results") == "intermediates"
        deterministic = all(
            bool(getattr(plugin, "deterministic", True))
            for plugin in (self._tuner, self._assessor)
            if plugin is not None
        )
        wants = self._tuner_reads_all or self._assessor is not None
        suggest = self._tuner.suggest
        if inspect.iscoroutinefunction(suggest):
            self._calls = Loop(suggest)
        elif getattr(self._tuner, "concurrent", False):
            self._calls = Threads(suggest)
        return Ready(
            "intermediates" if wants else "results",
            deterministic,
            stateful=_is_stateful(self._tuner) or _is_stateful(self._assessor),
            concurrent=self._calls is not None,
        )

    def _made_assessor(self, config: Config) -> Any:
        if self._given[1] is not None:
            return self._given[1]
        chosen = config.assessor
        if chosen is None:
            return self._tuner if callable(getattr(self._tuner, "verdict", None)) else None
        same = (chosen.name, chosen.class_name, chosen.code_directory) == (
            config.tuner.name,
            config.tuner.class_name,
            config.tuner.code_directory,
        )
        if same and chosen.class_args in ({}, config.tuner.class_args):
            return self._tuner
        return _made("assessor", "verdict", chosen, config)

    def _parsed(self, raw: Mapping[str, Any]) -> Space:
        try:
            return parse(raw, self._constraints)
        except SpaceError:
            if not self._users or self._constraints:
                raise
            return Space(dict(raw), ())  # a space of the user's own kind: `raw` is all that is known of it

    # -- facts ----------------------------------------------------------------------------------------------------
    def _observe(self, message: Observe) -> Iterator[FromHost]:
        for fact in message.facts:
            if isinstance(fact, Asked):
                yield from self._ask_again(fact)
                continue
            if isinstance(fact, Suggested) and not message.judge:
                yield from self._said_again(fact)
            try:
                if self._calls is None:
                    self._take(fact)
                else:
                    self._calls.run(partial(self._take, fact))
            except (Exception, SystemExit) as error:
                self.over = True
                yield Failed(_line(error), traceback=_trace(error), fatal=True)
                return
            if message.judge and self._assessor is not None and isinstance(fact, Reported):
                yield from self._judged(fact.trial)

    def _take(self, fact: Observation) -> None:
        if isinstance(fact, LimitsChanged):
            self._limits, self._seen = fact, fact.seq
            return
        if isinstance(fact, SpaceChanged):
            self._space, self._space_version = self._parsed(fact.space), fact.version
        for plugin in dict.fromkeys((self._tuner, self._assessor)):  # one that is both observes once
            if plugin is not None and self._wants(plugin, fact):
                plugin.observe(fact)
        self._seen = fact.seq
        if self._calls is not None:
            self._calls.observed(fact)

    def _wants(self, plugin: Any, fact: Observation) -> bool:
        if isinstance(fact, TrialEnded):
            return _is_stateful(plugin)
        return plugin is self._assessor or self._tuner_reads_all or not isinstance(fact, Reported)

    def _judged(self, trial: int) -> list[FromHost]:
        found: list[FromHost | None] = []

        def judge() -> None:
            found.append(self._verdict(trial))

        if self._calls is None:
            judge()
        else:
            self._calls.run(judge)
        return [verdict for verdict in found if verdict is not None]

    def _verdict(self, trial: int) -> FromHost | None:
        try:
            verdict = self._assessor.verdict(trial)
            if verdict is None:
                return None
            if not isinstance(verdict, Stopped):
                raise _Nonsense(f"the assessor's verdict is {_short(verdict)}; allowed: Stopped(why) or None")
            return Verdict(trial, self._seen, _clean(str(verdict.why))[:1000])
        except (Exception, SystemExit) as error:
            return Failed(_line(error), traceback=_trace(error))

    # -- asks -----------------------------------------------------------------------------------------------------
    def _ask(self, message: AskNow) -> FromHost:
        try:
            return self._reply(message, self._tuner.suggest(self._asking(message)), None)
        except (Exception, SystemExit) as error:
            return self._reply(message, None, error)

    def _asking(self, message: AskNow) -> Ask:
        return Ask(
            number=message.number,
            attempt=message.attempt,
            trial=message.trial,
            trial_id=message.trial_id,
            phase=message.phase,
            space=self._space,
            space_version=message.space_version,
            seed=self._seed,
            waiting=message.waiting,
            objectives=self._objectives,
            max_trial_number=self._limits.max_trial_number,
            trial_concurrency=self._limits.trial_concurrency,
            results=self._calls.result_of if isinstance(self._calls, Loop) else None,
        )

    def _reply(self, message: AskNow, answer: Any, error: BaseException | None) -> FromHost:
        number, attempt = message.number, message.attempt
        try:
            if error is not None:
                return Failed(_line(error), number, attempt, _trace(error))
            if isinstance(answer, Wait):
                return Waits(number, attempt, self._seen, _clean(str(answer.reason))[:1000])
            if isinstance(answer, Exhausted):
                return Spent(number, attempt, self._seen, _clean(str(answer.reason))[:1000], bool(answer.trial))
            if not isinstance(answer, Suggestion):
                raise _Nonsense(f"suggest gave {_short(answer)}; allowed: Suggestion, Wait, Exhausted")
            return self._checked(message, answer)
        except (Exception, SystemExit) as wrong:
            return Failed(_line(wrong), number, attempt, _trace(wrong))

    # -- asks of a concurrent tuner -------------------------------------------------------------------------------
    def _put(self, calls: Calls, message: AskNow) -> Iterator[FromHost]:
        """Have an ask answered: now or later. In a rebuild the tuner may be at it already."""
        call = self._open.get(message.number)
        if call is None or call.message.attempt != message.attempt:
            call = self._begin(calls, message)
        if self._send is None:
            del self._open[message.number]
            if call.over.wait(PATIENCE):
                yield self._reply(message, call.found, call.error)
            else:
                yield Failed("the tuner does not answer before it has observed more", message.number, message.attempt)
            return
        calls.run(partial(self._awaited, call, self._send))

    def _begin(self, calls: Calls, message: AskNow) -> _Call:
        call = self._open[message.number] = _Call(message)

        def done(found: Any, error: BaseException | None) -> None:
            call.found, call.error = found, error
            call.over.set()
            if call.put and self._send is not None:
                self._deliver(call, self._send)

        calls.start(self._asking(message), done)
        return call

    def _awaited(self, call: _Call, send: Callable[[FromHost], None]) -> None:
        call.put = True
        if call.over.is_set():
            self._deliver(call, send)

    def _deliver(self, call: _Call, send: Callable[[FromHost], None]) -> None:
        if self._open.get(call.message.number) is call:
            del self._open[call.message.number]
        send(self._reply(call.message, call.found, call.error))

    # -- asks of a rebuild ----------------------------------------------------------------------------------------
    def _ask_again(self, fact: Asked) -> Iterator[FromHost]:
        """Put a recorded ask again, since a stateful tuner learns of it; what was recorded as its answer holds."""
        if not _is_stateful(self._tuner):
            return
        message = AskNow(fact.number, fact.attempt, fact.trial, fact.trial_id, fact.phase, self._space_version)
        if self._calls is None:
            yield from self._compared(fact.trial, fact.answer, self._ask(message))
        else:
            self._begin(self._calls, message)

    def _said_again(self, fact: Suggested) -> Iterator[FromHost]:
        """A concurrent tuner has to have answered by now, as it did then."""
        call = self._open.pop(fact.ask, None) if fact.ask is not None and self._calls is not None else None
        if call is None:
            return
        if not call.over.wait(0.0 if self._differs else PATIENCE):
            yield from self._differing(f"asked again for trial {fact.trial}, the tuner does not answer")
            return
        reply = self._reply(call.message, call.found, call.error)
        yield from self._compared(fact.trial, values.encode(fact.parameters), reply)

    def _compared(self, trial: int, then: str, reply: FromHost) -> Iterator[FromHost]:
        match reply:
            case Answered():
                now = reply.parameters
            case Waits():
                now = "wait"
            case Spent():
                now = "exhausted"
            case _:
                now = reply.error if isinstance(reply, Failed) else ""
        if now != then:
            yield from self._differing(f"asked again for trial {trial}, the tuner says {now[:200]}; then {then[:200]}")

    def _differing(self, what: str) -> Iterator[FromHost]:
        if not self._differs:
            self._differs = True
            yield Differs(_clean(f"{what}. What was said then holds; the tuner may think otherwise"))

    def _checked(self, message: AskNow, answer: Suggestion) -> Answered:
        if not isinstance(answer.parameters, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # user code
            raise _Nonsense(f"the parameters are {_short(answer.parameters)}; allowed: a mapping")
        extras = dict(answer.extras)
        twice = [key for key in extras if key in answer.parameters]
        if twice:
            raise _Nonsense(f"{twice[0]!r} is in the parameters and in the extras; allowed: one of them")
        if not self._users:
            unknown = [key for key in extras if key not in EXTRAS]
            if unknown:
                raise _Nonsense(f"the extras hold {unknown[0]!r}; allowed: {', '.join(sorted(EXTRAS))}")
        try:
            text = values.encode({**answer.parameters, **extras})
        except ValueError as error:
            raise _Nonsense(f"the parameters are no JSON object: {error}") from error
        if len(text.encode()) > MAX_PARAMETERS:
            raise _Nonsense(f"the parameters are {len(text.encode())} bytes of JSON; allowed: {MAX_PARAMETERS}")
        outside = self._outside(msgspec.json.decode(text), extras)
        if outside is not None:
            raise _Nonsense(f"the parameters are outside the search space: {outside}")
        return Answered(
            message.number,
            message.attempt,
            self._seen,
            text,
            None if answer.continues is None else _trial_number(answer.continues),
            _budget(answer.budget),
            [_trial_number(parent) for parent in answer.parents],
            _decision(answer.decision),
        )

    def _outside(self, parameters: dict[str, Any], extras: Mapping[str, Any]) -> str | None:
        """Why this is no point of the space. A tuner that maps points to other ones (Batch) has its own `contains`.

        Of an answer of the user's own tuner only the constraints are asked for.
        """
        if self._users:
            broken = self._space.broken(parameters)
            return f"the constraint {broken.text!r} is not met" if broken is not None else None
        own: Callable[[Space, dict[str, Any]], str | None] | None = getattr(self._tuner, "contains", None)
        if own is not None:
            return own(self._space, {key: value for key, value in parameters.items() if key not in extras})
        return self._space.contains(parameters, tuple(extras))


def _made(kind: registry.Kind, method: str, chosen: Algorithm, config: Config) -> Any:
    adapter: Callable[[Any, Config], Any] | None = None
    if chosen.is_users:
        cls = registry.user_class(chosen.code_directory, chosen.class_name)
        if not callable(getattr(cls, method, None)):
            adapter = next(filter(None, (style.adapter(kind, cls) for style in registry.styles())), None)
            if adapter is None:
                raise TypeError(f"{chosen.class_name} has no method {method}; a {kind} needs one")
        wrong = registry.check_arguments(cls, chosen.class_args)
        if wrong:
            raise TypeError(f"{kind}.class_args: {'; '.join(wrong)}")
        if kind == "tuner" and config.objectives and not getattr(cls, "multi_objective", False):
            raise TypeError(f"{chosen.class_name} does not say multi_objective = True: it takes one objective only")
    else:
        cls = registry.find(kind, chosen.name)[1]
    made = registry.build(cls, chosen.class_args, config.optimize_mode)
    return made if adapter is None else adapter(made, config)


def _is_stateful(plugin: Any) -> bool:
    return bool(getattr(plugin, "stateful", False))


def _trial_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise _Nonsense(f"found {_short(value)} where a trial's number is due; allowed: an integer, 0 or more")
    return value


def _budget(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Nonsense(f"the budget is {_short(value)}; allowed: a finite number or None")
    return float(value)


def _decision(record: Any) -> str:
    """The record as JSON; one that is too long or no JSON says so, since it must not cost the suggestion."""
    if not record:
        return ""
    try:
        text = values.encode(dict(record))
    except (TypeError, ValueError) as error:
        return values.encode({"unreadable": str(error)[:200]})
    size = len(text.encode())
    return text if size <= MAX_DECISION else values.encode({"too_long": size})


# -- what goes wrong, in words ----------------------------------------------------------------------------------------
def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # a repr of the user's that raises is still only an answer that can't be used
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return _clean(text if len(text) <= 100 else text[:97] + "...")


def _line(error: BaseException) -> str:
    if isinstance(error, _Nonsense):
        return _clean(str(error))[:1000]
    text = "".join(traceback.format_exception_only(error))
    return " ".join(_clean(text).split())[:1000]


def _trace(error: BaseException) -> str:
    if isinstance(error, _Nonsense):
        return ""
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without the host's own frame
    text = _clean("".join(traceback.format_exception(type(error), error, frames)))
    return text.encode()[-_MAX_TRACEBACK:].decode("utf-8", "ignore")


# -- the process ------------------------------------------------------------------------------------------------------
def serve(connection: socket.socket) -> None:
    """Take messages and send the answers, until Bye, the end of the socket, or a failure that ends the host."""
    turn = threading.Lock()

    def send(reply: FromHost) -> None:
        with turn:
            connection.sendall(from_host(reply))

    host = Host(send)
    while not host.over:
        body = _read(connection)
        if body is None:
            return
        for reply in host.handle(read_to_host(body)):
            send(reply)


def _read(connection: socket.socket) -> bytes | None:
    head = _exactly(connection, 4)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if length > MAX_TO_HOST:
        raise ValueError(f"a frame claims {length} bytes, the limit is {MAX_TO_HOST}")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    """So many bytes, or None at the end of the stream."""
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = connection.recv_into(view[got:])
        if count == 0:
            return None
        got += count
    return bytes(data)


def _end_with(descriptor: int) -> None:
    """End the process when the other side is gone, however long the tuner still wants to think."""
    poll = select.poll()
    poll.register(descriptor, 0)  # a hang-up is reported unasked
    while not any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll()):
        pass
    os._exit(0)


def pin_threads() -> None:
    """Let BLAS and torch have one thread, in a process that has not imported them yet."""
    for name in _THREADS:
        os.environ[name] = "1"


def main() -> int:
    """The program: `python -m tune.engine.tuner_host FD`."""
    pin_threads()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the engine's to answer
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    connection = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with, args=(descriptor,), name="end with the engine", daemon=True).start()
    try:
        serve(connection)
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
