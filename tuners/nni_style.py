"""Makes tuners, assessors and advisors of classes in NNI's style: those of `tune.nni`, or with the same methods.

Such a class learns as it is asked and may do anything, so these are `stateful`: a rebuild asks it everything again, in
the log's order, and what the log holds as the answers counts. `random` and `numpy.random` are seeded before each
request, by the experiment's seed and the request, so that a class that uses them says the same again.

A `parameter_id` is the request's number from 0; trials that somebody queued have -1 - their number.
"""

from __future__ import annotations

import inspect
import json
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, cast

import msgspec

from ..engine.config import Config
from ..engine.plugins import (
    Ask,
    Ended,
    Exhausted,
    Imported,
    Observation,
    Reported,
    SpaceChanged,
    Stopped,
    Suggested,
    Suggestion,
    TrialEnded,
    Wait,
)
from . import _nni, _nni_alias

_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_OURS = {"tune.tuners._nni", "nni.tuner", "nni.multi_phase.multi_phase_tuner", "nni.multi_phase_tuner"}


class NniStyle:
    """The style's entry: which classes are of it."""

    @staticmethod
    def prepare() -> None:
        """A user's `import nni` finds `tune.nni` where no NNI is."""
        _nni_alias.install()

    @staticmethod
    def adapter(kind: str, cls: type[Any]) -> Callable[[Any, Config], Any] | None:
        """By the methods, so that a class needs no base class of ours."""
        if kind == "assessor":
            return NniAssessor if callable(getattr(cls, "assess_trial", None)) else None
        if callable(getattr(cls, "generate_parameters", None)):
            return NniTuner
        return NniAdvisor if callable(getattr(cls, "handle_request_trial_jobs", None)) else None


class _Trials:
    """Whose parameters are whose, as far as has been observed."""

    def __init__(self) -> None:
        self.ids: dict[int, str] = {}
        self.numbers: dict[str, int] = {}
        self.phases: dict[int, dict[int, Any]] = {}  # by trial: phase -> parameter id
        self.parameters: dict[Any, Any] = {}  # by parameter id
        self.pending: dict[tuple[int, int], None] = {}  # phases that have not ended

    def begin(self, fact: Suggested, parameter_id: Any) -> None:
        """A phase has its parameters."""
        self.ids[fact.trial], self.numbers[fact.trial_id] = fact.trial_id, fact.trial
        self.phases.setdefault(fact.trial, {})[fact.phase] = parameter_id
        self.parameters[parameter_id] = fact.parameters
        self.pending[fact.trial, fact.phase] = None

    def end(self, trial: int) -> tuple[str, list[Any]]:
        """The trial is over: its id, and its parameter ids in their order."""
        identity = self.ids.pop(trial, "")
        self.numbers.pop(identity, None)
        phases = self.phases.pop(trial, {})
        for phase, parameter_id in phases.items():
            self.pending.pop((trial, phase), None)
            self.parameters.pop(parameter_id, None)
        return identity, list(phases.values())


class NniTuner:
    """A tuner with `generate_parameters` and `receive_trial_result`; with `multi_thread` its requests may block."""

    stateful: ClassVar[bool] = True

    def __init__(self, theirs: Any, config: Config) -> None:
        self.concurrent = config.multi_thread or bool(getattr(theirs, "concurrent", False))
        self.deterministic = bool(getattr(theirs, "deterministic", False))
        self._theirs = theirs
        self._trials = _Trials()
        self._customized: dict[int, None] = {}
        self._thinking: dict[int, None] = {}
        self._sent: dict[int, Any] = {}  # by parameter id: what came through st_callback
        _told(theirs, "update_search_space", config.search_space)

    def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
        """Have it generate the parameters of one request."""
        parameter_id = ask.number - 1
        if parameter_id in self._sent:
            return _suggestion(self._sent.pop(parameter_id))
        _seed(ask)
        self._thinking[parameter_id] = None
        try:
            return _suggestion(self._generated(parameter_id, ask))
        except Exception as error:
            if not _says_no_more(error):
                raise
            return self._nothing(ask, str(error) or "NoMoreTrialError")
        finally:
            del self._thinking[parameter_id]

    def observe(self, fact: Observation) -> None:
        """Hand on what happened, in NNI's words."""
        match fact:
            case Suggested():
                parameter_id = -1 - fact.trial if fact.ask is None else fact.ask - 1
                if fact.ask is None:
                    self._customized[parameter_id] = None
                self._trials.begin(fact, parameter_id)
            case Ended():
                self._ended(fact)
            case TrialEnded():
                identity, parameter_ids = self._trials.end(fact.trial)
                for parameter_id in parameter_ids:
                    if parameter_id not in self._customized or self._wants_customized():
                        success = fact.status == "SUCCEEDED"
                        _told(self._theirs, "trial_end", parameter_id, success, trial_job_id=identity)
                    self._customized.pop(parameter_id, None)
            case Imported():
                _told(self._theirs, "import_data", [{"parameter": fact.parameters, "value": fact.value}])
            case SpaceChanged():
                _told(self._theirs, "update_search_space", fact.space)
            case _:
                pass

    def _generated(self, parameter_id: int, ask: Ask) -> Any:
        theirs, more = self._theirs, {"trial_job_id": ask.trial_id or None}
        if ask.phase or not _overrides(theirs, "generate_multiple_parameters"):
            return _told(theirs, "generate_parameters", parameter_id, **more)
        found = _told(theirs, "generate_multiple_parameters", [parameter_id], st_callback=self._send, **more)
        if not found:
            raise _nni.NoMoreTrialError("generate_multiple_parameters gave none")
        return found[0]

    def _send(self, parameter_id: int, parameters: Any) -> None:
        self._sent[parameter_id] = parameters

    def _nothing(self, ask: Ask, reason: str) -> Wait | Exhausted:
        """NNI has one word for "not yet" and "never": while something runs that could change it, it is "not yet".

        A trial that asks for a further configuration gets None, and the others go on.
        """
        if ask.phase:
            return Exhausted(reason, trial=True)
        others = self._trials.pending or len(self._thinking) > 1
        return Wait(reason) if others else Exhausted(reason)

    def _ended(self, fact: Ended) -> None:
        trials = self._trials
        trials.pending.pop((fact.trial, fact.phase), None)
        parameter_id = trials.phases.get(fact.trial, {}).get(fact.phase)
        value = _value(fact)
        if parameter_id is None or value is None:
            return
        arguments = (parameter_id, trials.parameters[parameter_id], value)
        identity = trials.ids[fact.trial]
        if parameter_id not in self._customized:
            _told(self._theirs, "receive_trial_result", *arguments, customized=False, trial_job_id=identity)
        elif _overrides(self._theirs, "receive_customized_trial_result"):
            _told(self._theirs, "receive_customized_trial_result", *arguments, trial_job_id=identity)
        elif self._wants_customized():
            _told(self._theirs, "receive_trial_result", *arguments, customized=True, trial_job_id=identity)

    def _wants_customized(self) -> bool:
        return bool(getattr(self._theirs, "_accept_customized", False)) or _overrides(
            self._theirs, "receive_customized_trial_result"
        )


class NniAssessor:
    """An assessor with `assess_trial`: asked as each result is observed, so that a rebuild asks it again."""

    observes: ClassVar[Literal["intermediates"]] = "intermediates"
    stateful: ClassVar[bool] = True

    def __init__(self, theirs: Any, config: Config) -> None:
        self.deterministic = bool(getattr(theirs, "deterministic", False))
        self._theirs = theirs
        self._ids: dict[int, str] = {}
        self._history: dict[int, tuple[int, list[float]]] = {}  # by trial: its phase and that phase's results
        self._opinions: dict[int, Any] = {}  # by trial: the last one, or what was raised instead

    def observe(self, fact: Observation) -> None:
        """Follow the curves; each new result is assessed."""
        match fact:
            case Suggested():
                self._ids[fact.trial] = fact.trial_id
            case Reported():
                self._assess(fact)
            case TrialEnded():
                identity = self._ids.pop(fact.trial, "")
                self._history.pop(fact.trial, None)
                self._opinions.pop(fact.trial, None)
                _told(self._theirs, "trial_end", identity, fact.status == "SUCCEEDED")
            case _:
                pass

    def verdict(self, trial: int) -> Stopped | None:
        """What was said about the trial's last result."""
        if trial not in self._opinions:
            return None
        opinion = self._opinions[trial]
        if isinstance(opinion, Exception):
            raise opinion
        good = getattr(opinion, "value", opinion)
        if good not in (True, False):
            raise TypeError(f"assess_trial gave {opinion!r}; allowed: AssessResult.Good, AssessResult.Bad, a bool")
        return None if good else Stopped(f"assessed as bad after {len(self._history[trial][1])} results")

    def _assess(self, fact: Reported) -> None:
        phase, history = self._history.get(fact.trial, (-1, []))
        if phase != fact.phase or fact.step == 0:
            history = []
        self._history[fact.trial] = (fact.phase, history)
        history.append(fact.value)
        identity = self._ids.get(fact.trial, "")
        try:
            self._opinions[fact.trial] = _told(self._theirs, "assess_trial", identity, list(history))
        except Exception as error:  # said when the verdict is asked for: a rebuild must not die of it
            self._opinions[fact.trial] = error


class NniAdvisor:
    """An advisor (`MsgDispatcherBase`): tuner and assessor in one, that says what is to be done by `send`."""

    observes: ClassVar[Literal["intermediates"]] = "intermediates"
    stateful: ClassVar[bool] = True

    def __init__(self, theirs: Any, config: Config) -> None:
        self.deterministic = bool(getattr(theirs, "deterministic", False))
        self._theirs = theirs
        self._trials = _Trials()
        self._new: deque[tuple[Any, Any]] = deque()  # trials that it sent and nobody has yet
        self._further: dict[str, tuple[Any, Any]] = {}  # by trial id: its next configuration
        self._given: dict[int, Any] = {}  # by ask: the parameter id that it was answered with
        self._requested: dict[int, None] = {}  # asks that it was told of
        self._killed: dict[str, None] = {}
        self._no_more = False
        self._tell("handle_initialize", config.search_space)

    def suggest(self, ask: Ask) -> Suggestion | Wait | Exhausted:
        """A trial that it sent, or the configuration that it sent for this trial."""
        if ask.number not in self._requested:
            self._requested[ask.number] = None
            _seed(ask)
            self._no_more = False
            if ask.phase:
                request = {"type": "REQUEST_PARAMETER", "trial_job_id": ask.trial_id, "parameter_index": ask.phase}
                self._tell("handle_report_metric_data", request)
            else:
                self._tell("handle_request_trial_jobs", 1)
        if ask.phase and ask.trial_id in self._further:
            self._given[ask.number], parameters = self._further.pop(ask.trial_id)
            if not isinstance(parameters, Mapping):  # NNI's advisors send an empty text then
                return Exhausted("the advisor has no more for this trial", trial=True)
        elif not ask.phase and self._new:
            self._given[ask.number], parameters = self._new.popleft()
        elif self._no_more and not self._trials.pending:
            return Exhausted("the advisor says that there is no more")
        else:
            return Wait("the advisor has sent nothing yet")
        return _suggestion(parameters)

    def observe(self, fact: Observation) -> None:
        """Hand on what happened, as NNI's messages."""
        trials = self._trials
        match fact:
            case Suggested():
                parameter_id = -1 - fact.trial if fact.ask is None else self._given.pop(fact.ask, fact.ask - 1)
                trials.begin(fact, parameter_id)
                if fact.ask is None:
                    customized = {"parameter_id": parameter_id, "parameters": fact.parameters}
                    self._tell("handle_add_customized_trial", customized)
                else:
                    self._requested.pop(fact.ask, None)
            case Reported():
                self._metric(fact.trial, fact.phase, "PERIODICAL", fact.step, fact.value)
            case Ended():
                trials.pending.pop((fact.trial, fact.phase), None)
                value = _value(fact)
                if value is not None:
                    self._metric(fact.trial, fact.phase, "FINAL", 0, value)
            case TrialEnded():
                self._ended(fact)
            case Imported():
                self._tell("handle_import_data", [{"parameter": fact.parameters, "value": fact.value}])
            case SpaceChanged():
                self._tell("handle_update_search_space", fact.space)
            case _:
                pass

    def verdict(self, trial: int) -> Stopped | None:
        """Whether it has sent KillTrialJob for this trial."""
        return Stopped("the advisor ended it") if self._trials.ids.get(trial) in self._killed else None

    def _metric(self, trial: int, phase: int, kind: str, sequence: int, value: Any) -> None:
        trials = self._trials
        parameter_id = trials.phases.get(trial, {}).get(phase)
        if parameter_id is None:
            return
        message = {"parameter_id": parameter_id, "trial_job_id": trials.ids[trial], "type": kind}
        self._tell("handle_report_metric_data", {**message, "sequence": sequence, "value": json.dumps(value)})

    def _ended(self, fact: TrialEnded) -> None:
        phases = self._trials.phases.get(fact.trial, {})
        last = phases[max(phases)] if phases else None
        parameters = {"parameter_id": last, "parameter_source": "algorithm", "parameter_index": max(phases, default=0)}
        parameters["parameters"] = self._trials.parameters.get(last)
        identity, _ = self._trials.end(fact.trial)
        self._killed.pop(identity, None)
        event = {"trial_job_id": identity, "event": fact.status, "hyper_params": json.dumps(parameters)}
        self._tell("handle_trial_end", event)

    def _tell(self, method: str, data: Any) -> None:
        before, _nni.Outbox.put = _nni.Outbox.put, self._hear
        try:
            _told(self._theirs, method, data)
        finally:
            _nni.Outbox.put = before

    def _hear(self, command: Any, data: Any) -> None:
        said = _decoded(data)
        match getattr(command, "name", command):
            case "NewTrialJob":
                self._new.append((said["parameter_id"], said["parameters"]))
            case "SendTrialJobParameter":
                self._further[said["trial_job_id"]] = (said["parameter_id"], said["parameters"])
            case "NoMoreTrialJobs":
                self._no_more = True
            case "KillTrialJob":
                self._killed[said] = None
            case "Initialized":
                pass
            case other:
                allowed = "NewTrialJob, SendTrialJobParameter, NoMoreTrialJobs, KillTrialJob, Initialized"
                raise ValueError(f"send was called with {other!r}; allowed: {allowed}")


# -- calls into a class of the user's ---------------------------------------------------------------------------------
def _told(theirs: Any, method: str, *arguments: Any, **more: Any) -> Any:
    """Call a method with as many of the keywords as it takes; one that isn't there is none to call."""
    function = getattr(theirs, method, None)
    if function is None:
        return None
    names = _keywords(getattr(function, "__func__", function), len(arguments))
    return function(*arguments, **(more if names is None else {key: more[key] for key in more if key in names}))


@cache
def _keywords(function: Callable[..., Any], given: int) -> frozenset[str] | None:
    """The keywords that a function takes beside `given` positional arguments; None: any."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    skip = given + (1 if inspect.isfunction(function) and parameters and parameters[0].name == "self" else 0)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(parameter.name for parameter in parameters[skip:] if parameter.kind in by_name)


def _overrides(theirs: Any, method: str) -> bool:
    """Whether a class has a method of its own, and not that of NNI's base class or of ours."""
    function = getattr(theirs.__class__, method, None)
    return function is not None and getattr(function, "__module__", "") not in _OURS


def _says_no_more(error: Exception) -> bool:
    """NoMoreTrialError, that of a real NNI included."""
    return any(cls.__name__ == "NoMoreTrialError" for cls in type(error).__mro__)


def _decoded(data: Any) -> Any:
    """What was sent: JSON text, as NNI's advisors do, or the thing itself."""
    if not isinstance(data, str):
        return data
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data


def _suggestion(parameters: Any) -> Suggestion:
    if not isinstance(parameters, Mapping):
        raise TypeError(f"the parameters are {parameters!r}; allowed: a dict")
    return Suggestion(cast("Mapping[str, Any]", parameters))


def _seed(ask: Ask) -> None:
    """The global generators, as this request finds them; numpy's only where the class has imported it."""
    words = f"{ask.seed}/{ask.number}/{ask.attempt}"
    random.seed(words)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(random.Random(words).getrandbits(32))


def _value(fact: Ended) -> Any:
    """The result as the trial reported it; of an early-stopped one without a final, its last; else None."""
    if fact.raw:
        value: Any = msgspec.json.decode(fact.raw)
        return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
    return fact.value if fact.outcome == "stopped" else None
