"""Ask and tell: a study inside your own program, which asks for parameters and tells what came of them.

    study = AskTell({"x": {"_type": "uniform", "_value": [-1, 1]}}, optimize_mode="minimize", seed=0)
    for _ in range(50):
        trial = study.ask()
        study.tell(trial, trial.parameters["x"] ** 2)
    print(study.best)

It is the engine's own core (decide, reduce, the tuner host) without its processes: what would be a request becomes
facts at once, and the facts become the state. Without a log they are folded and forgotten. With `log=` they are an
experiment like any other, in $TUNE_HOME, and every `ask` and `tell` is durable when it returns (recorder.py).

Any number of threads may ask and tell. What a thread waits for is the tuner (asks are serial) and, with a log, the
disk.

Errors:
    ValueError       a trial that is unknown or has ended, a value that is none; nothing was changed
    TuneError
      UsageError     a wrong search space, tuner or option; an id that is taken
      NoMoreTrials   the tuner or a limit says that there will be no further trial
      NoTrialYet     the tuner waits for results of trials that are out
      StudyEnded     the study was closed, or stopped by somebody else
      TunerBroke     the tuner or assessor raised, or answered nonsense
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import logging
import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from ..trial_sdk import values
from ..trial_sdk.wire import Report
from . import config as config_room
from . import home, plan, views
from .config import IN_PROCESS, Config
from .config_file import not_plain, said
from .decide import Draft, decide
from .errors import TuneError, UsageError
from .events import EngineStarted, Experiment, Fact, Launch, RequestParameter, Status, decode
from .host_wire import Answered, AskNow, Differs, Failed, FromHost, Observe, Ready, Setup, Spent, Verdict, Waits
from .in_process import checked, made, named, resumable
from .log import LogError, Reader
from .ports import Clock
from .recall import past
from .recorder import Recorder, hold
from .reduce import open_phase, reduce
from .requests import (
    AskStop,
    AskTrial,
    Exited,
    Hopeless,
    PersonsRequest,
    Refused,
    Reported,
    Request,
    SaysExhausted,
    SaysWait,
    Started,
    Suggests,
    TunerDiffers,
    TunerFailed,
)
from .space import Space, SpaceError, parse
from .state import State
from .state import Trial as TrialState
from .tuner_host import Host

_logger = logging.getLogger(__name__)
HOST = "in-process"  # where such trials run, as LAUNCH says it
_MISSING: Any = object()


class NoMoreTrials(TuneError):
    """There will be no further trial: the tuner has nothing more, a limit is reached, or it waits and nothing runs."""


class NoTrialYet(TuneError):
    """The tuner waits for results of trials that are out: tell one of them, then ask again."""


class StudyEnded(TuneError):
    """The study was closed, or stopped by somebody else."""


class TunerBroke(TuneError):
    """The tuner or the assessor raised or answered nonsense; the hint holds its traceback."""


class Trial(Struct, frozen=True):
    """What `ask` gives: parameters to try, and the number to tell the result by. `attempt` > 0: given once before."""

    number: int
    parameters: dict[str, Any]
    id: str
    attempt: int = 0


class Best(Struct, frozen=True):
    """The best counted result so far, and the trial that gave it."""

    number: int
    value: float
    parameters: dict[str, Any]


class Efficient(Struct, frozen=True):
    """A result on the Pareto front, and the trial that gave it; `violation` is 0.0 where it meets the constraints."""

    number: int
    values: dict[str, float]
    parameters: dict[str, Any]
    violation: float


class Seen(Struct, frozen=True):
    """A trial as the study sees it. `value`: its counted result, or None; `status` as in `tune trials`."""

    number: int
    id: str
    status: str
    parameters: dict[str, Any]
    value: float | None
    intermediate: list[float]
    reason: str


class AskTell:
    """A study in this process. A context manager; `close` ends it (at the program's end that happens by itself).

    `tuner` and `assessor`: a name as in a config, a class, or an object that has the methods (plugins.py). Options of
    the tuner are given by name (`class_args`). `constraints`, `objectives` and `outcome_constraints` are those of a
    config. `max_trial_number` ends the study; `trial_concurrency` says how many trials you mean to have out at a time,
    for tuners that plan ahead. `seed` None: drawn. `log`: an id, or True for a made one.
    """

    def __init__(
        self,
        search_space: Mapping[str, Any],
        tuner: str | type[Any] | object = "TPE",
        optimize_mode: Literal["maximize", "minimize"] = "maximize",
        *,
        seed: int | None = None,
        assessor: str | type[Any] | object | None = None,
        constraints: Sequence[str] = (),
        objectives: Mapping[str, Literal["maximize", "minimize"]] | None = None,
        outcome_constraints: Sequence[str] = (),
        max_trial_number: int | None = None,
        trial_concurrency: int = 1,
        log: str | bool | None = None,
        **class_args: Any,
    ) -> None:
        if optimize_mode not in ("maximize", "minimize"):
            raise UsageError(f"optimize_mode: found {optimize_mode!r}; allowed: maximize, minimize")
        wrong = not_plain(dict(search_space))
        if wrong is not None:
            raise UsageError(f"search_space: {said(wrong[0])}: {wrong[1]}")
        chosen, given = named("tuner", tuner, class_args, optimize_mode)
        judge, given_judge = (None, None) if assessor is None else named("assessor", assessor, {}, optimize_mode)
        config = checked(
            Config(
                search_space=dict(search_space),
                trial_command=IN_PROCESS,
                trial_code_directory=str(Path.cwd()),
                trial_concurrency=trial_concurrency,
                max_trial_number=max_trial_number,
                max_failures=0,  # whoever tells a failure sees it himself
                seed=secrets.randbits(32) if seed is None else seed,
                optimize_mode=optimize_mode,
                objectives=dict(objectives or {}),
                constraints=list(constraints),
                outcome_constraints=list(outcome_constraints),
                tuner=chosen,
                assessor=judge,
            )
        )
        self._prepare()
        self._host = Host(tuner=given, assessor=given_judge)
        self._set_up(config)
        raw = config_room.encode(config)
        self.id = "memory"
        if log is not None and log is not False:
            self._create(None if log is True else str(log), raw)
        self._add(Draft(Experiment(self.id, Raw(raw), config.seed)))
        self._started()

    @classmethod
    def resume(
        cls,
        log: str,
        *,
        tuner: type[Any] | object | None = None,
        assessor: type[Any] | object | None = None,
    ) -> AskTell:
        """Go on with a study from its log: an id, the beginning of one, or a path.

        Trials that were out come back: `ask` gives them again (same number and parameters, next attempt) before any new
        one, and they can be told by their number. `tuner` and `assessor` are needed where the study was made with an
        object (then a new one that has observed nothing), or a class that can't be found by its name. Raises
        `TuneError`.
        """
        study = cls.__new__(cls)
        study._prepare()
        study._resume(home.find(log), tuner, assessor)
        return study

    # -- asking and telling ---------------------------------------------------------------------------------------
    def ask(self, timeout: float | None = 0.0) -> Trial:
        """The next trial to run. Queued ones and those of an interrupted run come first.

        While the tuner waits for results of trials that are out, other threads' `tell` can end that: `timeout` is how
        many seconds to wait for it (None: as long as it takes) before `NoTrialYet`. `NoMoreTrials` when there is none.
        """
        self._ours()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while (number := self._next_within(deadline)) is None:
                self._told.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
            one = self._state.trial(number)
            text = one.phases[-1].parameters
            found = Trial(number, _parameters(text), one.id, one.attempt)
            seq = self._state.seq
        try:
            self._wait(seq)
        except BaseException:  # an interrupt: nobody has got this trial, so the next ask() gives it again
            self._give_back(found)
            raise
        return found

    def report(self, trial: Trial | int, value: Any) -> None:
        """An intermediate result, for the assessor and for the record. With a log it is on disk 50 ms later."""
        self._ours()
        text = values.encode(value)
        with self._lock:
            one = self._out(trial)
            self._report(one, "I", text)
            self._feed()
            self._flush(urgent=bool(one.kill))
            self._check()

    def should_stop(self, trial: Trial | int) -> bool:
        """Whether the assessor has given the trial up, or somebody has ended it or the study: tell it without a value.

        A trial that ended by itself: False.
        """
        with self._lock:
            one = self._known(trial)
            stop = bool(one.kill) or one.status in ("EARLY_STOPPED", "USER_CANCELED", "SYS_CANCELED")
            seq = self._state.seq
        if stop:
            self._wait(seq)
        return stop

    def tell(self, trial: Trial | int, value: Any = _MISSING, *, failed: bool = False, error: str = "") -> None:
        """The end of a trial: its result, or `failed=True` (with `error`, a text for the record).

        A value is what `report_final_result` takes: a number (numpy's too), or a dict with `default`. NaN and infinite
        ones are recorded and never count. After `should_stop` it may be left out. `ValueError` when the trial was told
        already or is unknown, or the value is none.
        """
        self._ours()
        text = None if value is _MISSING or value is None else values.encode(value)
        if failed and text is not None:
            raise ValueError("tell: both a value and failed=True were given; allowed: one of them")
        with self._lock:
            one = self._out(trial)
            if text is None and not failed and not one.kill:
                raise ValueError(f"tell: trial {one.number} needs a value, or failed=True")
            if text is not None:
                self._report(one, "F", text)
            code, reason = (None, "told") if failed else (0, "")
            self._submit(Exited(one.id, one.attempt, code, Clock.wall(), reason, error[-20_000:]))
            self._feed()
            self._settle()
            self._flush()
            self._told.notify_all()
            seq = self._state.seq
            self._check()
        self._wait(seq)

    def enqueue(self, parameters: Mapping[str, Any]) -> int:
        """Have these parameters tried next; the number of their trial. `ValueError` when they are outside the space."""
        self._ours()
        text = values.encode(dict(parameters))
        with self._lock:
            self._usable()
            space = self._space()
            outside = space.contains(msgspec.json.decode(text)) if space is not None else None
            if outside is not None:
                raise ValueError(f"the parameters are outside the search space: {outside}")
            self._go_on(enqueued=True)
            number = len(self._state.trials)
            try:
                self._submit(AskTrial(_actor(), text))
            except Refused as error:
                raise ValueError(str(error)) from error
            self._feed()
            self._flush()
            self._told.notify_all()
            seq = self._state.seq
        self._wait(seq)
        return number

    # -- looking --------------------------------------------------------------------------------------------------
    @property
    def best(self) -> Best | None:
        """The best counted result so far that meets the outcome constraints; None without one or with objectives."""
        with self._lock:
            found = self._state.best
            if found is None:
                return None
            phase = self._state.trial(found.trial).phases[found.phase]
            return Best(found.trial, found.value, _parameters(phase.parameters))

    @property
    def pareto(self) -> list[Efficient]:
        """With several objectives, the results that no other one beats in each; the best in the first one first."""
        with self._lock:
            return [
                Efficient(one["trial"], one["values"], one["parameters"], one["violation"])
                for one in views.pareto(self._state) or []
            ]

    @property
    def trials(self) -> list[Seen]:
        """All trials, by number."""
        with self._lock:
            return [_seen(self._state, one) for one in self._state.made]

    @property
    def status(self) -> str:
        """RUNNING, NO_MORE_TRIAL (some are still out), DONE or STOPPED."""
        with self._lock:
            return self._state.status

    def __repr__(self) -> str:
        where = f"log {self.id}" if self._folder is not None else "no log"
        return f"<AskTell {self._state.settings.tuner.title}, {len(self._state.made)} trials, {where}>"

    # -- the end --------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """End the study: STOPPED when trials are out (a resume gives them again), else DONE. Twice is fine."""
        if self._pid != os.getpid():  # a fork of the process that has it
            return
        atexit.unregister(self.close)
        with self._lock:
            if not self._ended:
                if self._state.active or self._state.ready:
                    self._stop(AskStop(_actor()))
                elif self._state.status not in ("DONE", "STOPPED"):
                    self._add(Draft(Status("DONE", "closed by its program", self._clock.now())))
                self._end("the study was closed")
        if self._recorder is not None:
            self._recorder.close()

    def __enter__(self) -> AskTell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- beginning ------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        self._lock = threading.RLock()
        self._told = threading.Condition(self._lock)
        self._state = State()
        self._clock = Clock()
        self._epoch = 1
        self._number = 0
        self._batch: list[Fact] = []
        self._folder: home.Folder | None = None
        self._recorder: Recorder | None = None
        self._ended = ""
        self._error: TunerBroke | None = None
        self._pid = os.getpid()
        self._parsed: tuple[int, Space | None] = (-1, None)

    def _set_up(self, config: Config) -> None:
        """Make tuner and assessor; `UsageError` when they can't be."""
        [ready] = self._host.handle(Setup(config_room.encode(config)))
        assert isinstance(ready, Ready)
        if ready.error is not None:
            raise UsageError(f"the tuner can't be made: {ready.error}", ready.traceback or None)
        self._state.tell, self._state.tell_intermediates = True, ready.observes == "intermediates"
        self._state.tell_more = ready.stateful

    def _create(self, given: str | None, raw: bytes) -> None:
        try:
            folder, notes = home.create(given)
        except UsageError as error:
            if given is None or not os.path.lexists(home.root() / given):
                raise
            raise UsageError(
                error.message, f"Choose another id, or go on with it: AskTell.resume({given!r})"
            ) from error
        for text in notes:
            _logger.warning("%s", text)
        try:
            folder.config.write_bytes(msgspec.json.format(raw, indent=2) + b"\n")
            folder.config.chmod(0o600)
            recorder = Recorder(folder, hold(folder), self._person)
            recorder.start(1, None)
        except BaseException:
            home.remove(folder)
            raise
        self.id = folder.id
        self._begin_to_record(folder, recorder)

    def _begin_to_record(self, folder: home.Folder, recorder: Recorder) -> None:
        self._folder, self._recorder = folder, recorder
        line = {"event": "asked and told by a program", "pid": os.getpid(), "level": "info"}
        with folder.engine_log.open("ab") as file:
            file.write(msgspec.json.encode({**line, "timestamp": views.time(Clock.wall())}) + b"\n")
        atexit.register(self.close)

    def _started(self) -> None:
        versions = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
        }
        self._add(Draft(EngineStarted(socket.gethostname(), os.getpid(), self._clock.now(), versions, _actor())))
        self._flush()
        self._wait(self._state.seq)

    def _resume(self, folder: home.Folder, tuner: Any, assessor: Any) -> None:
        lock = hold(folder)
        try:
            last = self._replay(folder, tuner, assessor)
            recorder = Recorder(folder, lock, self._person)
        except BaseException:
            lock.release()
            raise
        self._epoch, self._clock = self._state.epoch + 1, Clock(self._state.clock)
        recorder.start(self._epoch, last)
        self.id = folder.id
        self._begin_to_record(folder, recorder)
        self._started()
        for number in list(self._state.active):
            one = self._state.trial(number)
            self._submit(Exited(one.id, one.attempt, None, Clock.wall(), "gone"))
        self._feed()
        self._settle()
        self._flush()
        self._wait(self._state.seq)
        self._check()

    def _replay(self, folder: home.Folder, tuner: Any, assessor: Any) -> tuple[int, bytes]:
        """Fold the log, with tuner and assessor beside it; the reader's `last`."""
        state = self._state
        try:
            with Reader(folder.events) as reader:
                for row in reader.rows():
                    fact = decode(row)
                    reduce(state, fact)
                    if isinstance(fact.event, Experiment):
                        config = resumable(folder, state.settings, tuner is not None, assessor is not None)
                        self._host = Host(
                            tuner=made(tuner, config.tuner, config), assessor=made(assessor, config.assessor, config)
                        )
                        self._set_up(config)
                last = reader.last
        except (LogError, ValueError) as error:
            raise TuneError(str(error), f"tune verify {folder.id} says more.") from error
        if state.config is None:
            raise TuneError(f"the log of experiment {folder.id} is empty: it was never started")
        news, state.queues.news = state.queues.news, []
        if state.tell_more:  # a stateful tuner is told what it was asked, too
            with Reader(folder.events) as reader:
                news = past(map(decode, reader.rows()), intermediates=state.tell_intermediates, stateful=True)
        self._hear(self._host.handle(Observe(news, judge=False)))
        self._check()
        return last

    # -- one step -------------------------------------------------------------------------------------------------
    def _next(self) -> int:
        """Launch the next trial: its number."""
        self._usable()
        self._check()
        state = self._state
        if not state.ready:
            why = plan.no_more_trials(state)
            if why:
                self._settle()
                raise NoMoreTrials(f"there is no further trial: {why}")
            self._go_on()
            self._ask_tuner()
        number = state.ready[0]
        self._launch(state.trial(number))
        return number

    def _next_within(self, deadline: float | None) -> int | None:
        """The same; None when the tuner waits for results and there is time left to wait too."""
        try:
            return self._next()
        except NoTrialYet:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            return None
        finally:
            self._flush()

    def _ask_tuner(self) -> None:
        """Put the open ask, or a new one, to the tuner; returns with a trial that is ready."""
        state = self._state
        ask = next((ask for ask in state.asks.values() if not ask.sender), None)
        if ask is None:
            self._add(Draft(RequestParameter(state.next_ask), len(state.trials)))
            ask = state.asks[state.next_ask - 1]
        command = next((one for one in plan.drain(state) if isinstance(one, plan.AskTuner)), None)
        if command is None:
            raise self._waits(ask.reason)
        put = AskNow(command.number, command.attempt, command.trial, "", 0, command.space, command.waiting)
        try:
            self._hear(self._host.handle(put))
        finally:
            state.queues.asked = []  # also when Ctrl-C came while it thought: the ask stays open
        self._check()
        if state.exhausted:
            self._settle()
            raise NoMoreTrials(f"there is no further trial: {state.exhausted}")
        if not state.ready:
            raise self._waits(ask.reason)
        self._feed()

    def _waits(self, reason: str) -> TuneError:
        said = f": {reason}" if reason else ""
        if not self._state.active:
            return NoMoreTrials(f"the tuner waits, and no trial is out that could change it{said}")
        return NoTrialYet(f"the tuner waits for results{said}", "Tell one of the trials that are out, then ask again.")

    def _launch(self, one: TrialState) -> None:
        self._add(Draft(Launch(one.attempt, HOST, open_phase(self._state, one) or 0), one.number))
        self._submit(Started(one.id, one.attempt, os.getpid(), Clock.wall()))
        _drop_commands(self._state)

    def _give_back(self, trial: Trial) -> None:
        with self._lock:
            one = self._state.trial(trial.number)
            if not self._ended and one.active and one.attempt == trial.attempt:
                self._submit(Exited(one.id, one.attempt, None, Clock.wall(), "gone"))
                _drop_commands(self._state)
                with contextlib.suppress(TuneError):  # the log is what failed
                    self._flush()

    def _report(self, one: TrialState, kind: str, text: str) -> None:
        sender = self._state.senders.get(f"{one.id}.{one.attempt}.{HOST}")
        number = 1 if sender is None else sender.last + 1
        self._submit(Reported(one.id, one.attempt, HOST, Report(number, kind, 0, text)))

    def _settle(self) -> None:
        """The changes of status that are due."""
        state = self._state
        _drop_commands(state)
        while not state.finished and (drafts := plan.status_due(state)):
            for draft in drafts:
                self._add(draft)

    def _go_on(self, *, enqueued: bool = False) -> None:
        """A study that was DONE goes on: a limit was raised, or something was queued."""
        if self._state.status == "DONE" and (enqueued or not plan.no_more_trials(self._state)):
            self._add(Draft(Status("RUNNING", "", self._clock.now())))

    # -- the fold -------------------------------------------------------------------------------------------------
    def _submit(self, request: Request) -> None:
        for draft in decide(self._state, request, self._clock.now()):
            self._add(draft)

    def _add(self, draft: Draft) -> None:
        state = self._state
        sender, number = draft.sender, draft.number
        if not sender:
            self._number += 1
            sender, number = f"e{self._epoch}", self._number
        fact = Fact(state.seq + 1, self._epoch, sender, number, draft.trial, draft.cause, Clock.wall(), draft.event)
        reduce(state, fact)
        if self._recorder is not None:
            self._batch.append(fact)

    def _feed(self) -> None:
        """Let tuner and assessor observe what is new; a verdict is a fact at once."""
        queues = self._state.queues
        while queues.news and not self._host.over:
            news, queues.news = queues.news, []
            try:
                self._hear(self._host.handle(Observe(news)))
            except BaseException:
                self._host.over = True  # Ctrl-C: nobody knows how much of it was learnt
                self._error = TunerBroke("the tuner was interrupted while it learnt", "Go on with a new study.")
                raise

    def _hear(self, replies: Iterable[FromHost]) -> None:
        for reply in replies:
            match reply:
                case Answered():
                    request: Request = Suggests(
                        reply.number,
                        reply.attempt,
                        reply.seen,
                        reply.parameters,
                        reply.continues,
                        reply.budget,
                        reply.parents,
                        reply.decision,
                    )
                case Waits():
                    request = SaysWait(reply.number, reply.attempt, reply.seen, reply.reason)
                case Spent():
                    request = SaysExhausted(reply.number, reply.attempt, reply.seen, reply.reason)
                case Verdict():
                    request = Hopeless(reply.trial, reply.seen, reply.why)
                case Failed():
                    request = TunerFailed(reply.number, reply.error, reply.traceback)
                    self._error = TunerBroke(f"the tuner failed: {reply.error}", reply.traceback or None)
                case Differs():
                    request = TunerDiffers(reply.error)
                case Ready():
                    raise AssertionError("only Setup is answered by Ready")
            self._submit(request)

    def _check(self) -> None:
        """Raise what tuner or assessor raised; when it was as they observed, for good."""
        error = self._error
        if error is not None:
            if not self._host.over:
                self._error = None
            raise TunerBroke(error.message, error.hint)

    # -- the log --------------------------------------------------------------------------------------------------
    def _flush(self, *, urgent: bool = True) -> None:
        if self._batch and self._recorder is not None:
            batch, self._batch = self._batch, []
            self._recorder.put(batch, urgent=urgent)

    def _wait(self, seq: int) -> None:
        if self._recorder is not None:
            self._recorder.wait(seq)

    def _person(self, request: PersonsRequest) -> int:
        """Somebody else's request, through the door. A stop ends the study: its trials are given again by a resume."""
        with self._lock:
            self._refuse_ended()
            if isinstance(request, AskStop):
                self._stop(request)
                self._end(f"the study was stopped by {request.actor}")
            else:
                self._submit(request)
                self._feed()
                self._go_on(enqueued=isinstance(request, AskTrial))
                self._settle()
                self._flush()
            self._told.notify_all()
            return self._state.seq

    def _refuse_ended(self) -> None:
        if self._ended:
            raise Refused(self._ended)

    def _stop(self, request: AskStop) -> None:
        """What is out is SYS_CANCELED, then STOPPED: there is no process that would have to be ended."""
        self._submit(request)
        for number in list(self._state.active):
            one = self._state.trial(number)
            self._submit(Exited(one.id, one.attempt, None, Clock.wall(), "gone"))
        self._add(Draft(Status("STOPPED", f"stopped by {request.actor}", self._clock.now())))

    def _end(self, why: str) -> None:
        self._ended = why
        self._flush()
        self._told.notify_all()
        if self._recorder is not None:
            self._recorder.finish()

    # -- checks ---------------------------------------------------------------------------------------------------
    def _ours(self) -> None:
        """Refuse a fork, before it takes a lock that nobody there will ever give back."""
        if self._pid != os.getpid():
            raise StudyEnded(
                f"this study belongs to process {self._pid}, this is a fork of it", "Ask and tell there, or in threads."
            )

    def _usable(self) -> None:
        if self._ended:
            again = f"Go on with: AskTell.resume({self.id!r})" if self._folder is not None else None
            raise StudyEnded(self._ended, again)

    def _known(self, trial: Trial | int) -> TrialState:
        number = trial.number if isinstance(trial, Trial) else trial
        if isinstance(number, bool) or not isinstance(number, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # user code
            raise ValueError(f"{number!r} is no trial; allowed: what ask() gave, or its number")
        try:
            one = self._state.trial(number)
        except KeyError:
            raise ValueError(f"there is no trial {number}: {len(self._state.made)} were made so far") from None
        if isinstance(trial, Trial) and trial.id != one.id:
            raise ValueError(f"trial {number} ({trial.id}) is of another study")
        return one

    def _out(self, trial: Trial | int) -> TrialState:
        """A trial that is out; one that a resume has queued again counts as given."""
        self._usable()
        one = self._known(trial)
        if one.over:
            raise ValueError(f"trial {one.number} has ended already: {one.status}")
        if not one.active:
            self._launch(one)
        return one

    def _space(self) -> Space | None:
        """The space for checks; None where the tuner takes any object."""
        state = self._state
        if self._parsed[0] != state.space_version:
            settings = state.settings
            try:
                self._parsed = state.space_version, parse(settings.search_space, settings.constraints)
            except SpaceError:
                self._parsed = state.space_version, None
        return self._parsed[1]


def _drop_commands(state: State) -> None:
    """Take away what the state's queues hold for hosts: nobody here needs it."""
    queues = state.queues
    queues.launch, queues.probe, queues.stop, queues.lost = [], [], [], []
    queues.answer, queues.forget = [], []


# -- small ------------------------------------------------------------------------------------------------------------
def _parameters(text: Raw) -> dict[str, Any]:
    found: Any = msgspec.json.decode(text)
    return found


def _seen(state: State, one: TrialState) -> Seen:
    phase = one.phases[-1]
    return Seen(
        one.number,
        one.id,
        one.status,
        _parameters(phase.parameters),
        phase.value,
        list(phase.intermediate),
        views.reason(state, one),
    )


def _actor() -> str:
    try:
        return f"{getpass.getuser()} (pid {os.getpid()})"
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()} (pid {os.getpid()})"
