"""The base classes of tuners, assessors and advisors in NNI's style, with NNI's method names and defaults.

Users get them as `tune.nni`. They know nothing of this program: nni_style.py takes a class that keeps to them, or only
has the same methods, and makes it speak the engine's protocol. Names and semantics are those of NNI 1.x to 3.x.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, cast


class NoMoreTrialError(Exception):
    """Raised by `generate_parameters`: there are no parameters (now, or ever)."""


class OptimizeMode(enum.Enum):
    """What is better; `OptimizeMode("maximize")`."""

    Minimize = "minimize"
    Maximize = "maximize"


class Tuner:
    """Proposes parameters; `parameter_id` counts the requests from 0.

    Methods may leave out the keywords that they don't use, `**kwargs` included.
    """

    _accept_customized = False

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
        """The parameters of one request, any JSON object; `NoMoreTrialError` when there are none.

        `trial_job_id` is the trial that asks for a further configuration (multi-phase), else None.
        """
        raise TypeError(f"{type(self).__name__} has no generate_parameters of its own")

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[Any]:
        """The parameters of several requests, as many as there are."""
        found: list[Any] = []
        for parameter_id in parameter_id_list:
            try:
                found.append(self.generate_parameters(parameter_id, **kwargs))
            except NoMoreTrialError:
                break
        return found

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """A final result as the trial reported it, a number or a dict; `customized` and `trial_job_id` are keywords."""

    def receive_customized_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """The final result of a trial that somebody queued by hand."""

    def accept_customized_trials(self, accept: bool = True) -> None:
        """Let `receive_trial_result` have the results of trials that were queued by hand, with `customized=True`."""
        self._accept_customized = accept

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """The trial with these parameters has ended, and no attempt of it will follow."""

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """The search space: before the first request, and whenever it is changed."""

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Results from elsewhere: `parameter` and `value` of each."""

    def load_checkpoint(self) -> None:
        """Never called: a tuner is rebuilt from the log."""

    def save_checkpoint(self) -> None:
        """Never called: a tuner is rebuilt from the log."""

    def _on_exit(self) -> None:
        """Never called: the tuner's process may end at any time."""

    def _on_error(self) -> None:
        """Never called: the tuner's process may end at any time."""


class MultiPhaseTuner(Tuner):
    """A tuner that is told which trial asks and which one reports (NNI up to 0.8)."""

    def generate_parameters(self, parameter_id: int, trial_job_id: str | None = None, **kwargs: Any) -> Any:
        """The parameters of one request; `trial_job_id` is None for a new trial."""
        raise TypeError(f"{type(self).__name__} has no generate_parameters of its own")

    def receive_trial_result(
        self, parameter_id: int, parameters: Any, value: Any, trial_job_id: str | None = None, **kwargs: Any
    ) -> None:
        """A final result, and the trial that reported it."""

    def receive_customized_trial_result(
        self, parameter_id: int, parameters: Any, value: Any, trial_job_id: str | None = None, **kwargs: Any
    ) -> None:
        """The final result of a trial that somebody queued by hand."""

    def trial_end(self, parameter_id: int, success: bool, trial_job_id: str | None = None, **kwargs: Any) -> None:
        """The trial with these parameters has ended."""


class AssessResult(enum.Enum):
    """An assessor's opinion: Bad ends the trial."""

    Good = True
    Bad = False


class Assessor:
    """Says after each intermediate result whether a trial is worth going on with."""

    def assess_trial(self, trial_job_id: str, trial_history: list[float]) -> AssessResult | bool:
        """Good (True) or Bad (False); the history holds every intermediate result of the configuration so far."""
        raise TypeError(f"{type(self).__name__} has no assess_trial of its own")

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """The trial has ended."""

    def load_checkpoint(self) -> None:
        """Never called: an assessor is rebuilt from the log."""

    def save_checkpoint(self) -> None:
        """Never called: an assessor is rebuilt from the log."""

    def _on_exit(self) -> None:
        """Never called: the assessor's process may end at any time."""

    def _on_error(self) -> None:
        """Never called: the assessor's process may end at any time."""


class CommandType(enum.Enum):
    """What an advisor is told and what it may say, by NNI's two letters."""

    Initialize = b"IN"
    RequestTrialJobs = b"GE"
    ReportMetricData = b"ME"
    UpdateSearchSpace = b"SS"
    ImportData = b"FD"
    AddCustomizedTrialJob = b"AD"
    TrialEnd = b"EN"
    Terminate = b"TE"
    Ping = b"PI"
    Initialized = b"ID"
    NewTrialJob = b"TR"
    SendTrialJobParameter = b"SP"
    NoMoreTrialJobs = b"NO"
    KillTrialJob = b"KI"


class MsgDispatcherBase:
    """An advisor: hears of everything and sends what is to be done, so it is tuner and assessor in one.

    `send(CommandType.NewTrialJob, data)` answers a request with `parameter_id` and `parameters`;
    `SendTrialJobParameter` (with `trial_job_id`) that of a trial for its next configuration; `KillTrialJob` (a trial's
    id) ends a trial at its next intermediate result; `NoMoreTrialJobs` says that nothing comes for now. Data may be a
    dict or its JSON text; what a handler gets under `value` and `hyper_params` is JSON text, as in NNI.
    """

    def send(self, command: CommandType, data: Any = "") -> None:
        """Say what is to be done."""
        send(command, data)

    def handle_initialize(self, data: dict[str, Any]) -> None:
        """The search space, first and once."""
        self.handle_update_search_space(data)

    def handle_request_trial_jobs(self, data: int) -> None:
        """So many new trials are wanted."""
        raise TypeError(f"{type(self).__name__} has no handle_request_trial_jobs of its own")

    def handle_update_search_space(self, data: dict[str, Any]) -> None:
        """The search space is another one."""

    def handle_import_data(self, data: list[dict[str, Any]]) -> None:
        """Results from elsewhere: `parameter` and `value` of each."""

    def handle_add_customized_trial(self, data: dict[str, Any]) -> None:
        """Somebody queued a trial: `parameter_id` and `parameters`."""

    def handle_report_metric_data(self, data: dict[str, Any]) -> None:
        """A result (`type` PERIODICAL or FINAL), or a trial asks for its next configuration (REQUEST_PARAMETER)."""

    def handle_trial_end(self, data: dict[str, Any]) -> None:
        """A trial has ended: `trial_job_id`, `event` (its status) and `hyper_params`."""


class Outbox:
    """Where `send` puts what an advisor says: nni_style.py sets it before each call into the advisor."""

    put: Callable[[CommandType, Any], None] | None = None


def send(command: CommandType, data: Any = "") -> None:
    """Say what is to be done; for an advisor's code only."""
    if Outbox.put is None:
        raise RuntimeError("send() belongs to an advisor, and none is running here")
    Outbox.put(command, data)


def extract_scalar_reward(value: Any, scalar_key: str = "default") -> float:
    """The number of a reported result: itself, or that of its key; `RuntimeError` when there is none."""
    found = cast("dict[str, Any]", value).get(scalar_key) if isinstance(value, dict) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise RuntimeError(f"the result is {value!r}; allowed: a number, or a dict whose key {scalar_key!r} is one")
    return found


def extract_scalar_history(trial_history: Sequence[Any], scalar_key: str = "default") -> list[float]:
    """The numbers of several results."""
    return [extract_scalar_reward(result, scalar_key) for result in trial_history]


def merge_parameter(base: Any, override: dict[str, Any]) -> Any:
    """`base` (a dict, or an object such as argparse's Namespace) with the values of `override` put in.

    A key that `base` lacks is a `ValueError`, another type a `TypeError`; an integer may stand for a float.
    """
    known = cast("dict[str, Any]", base if isinstance(base, dict) else vars(base))
    for key, value in override.items():
        if key not in known:
            raise ValueError(f"the key {key!r} is not among the base's: {', '.join(sorted(known))}")
        old = known[key]
        fits = old is None or type(value) is type(old) or (isinstance(old, float) and isinstance(value, int))
        if not fits:
            raise TypeError(f"{key} is {type(old).__name__} in the base, and {value!r} is none")
        known[key] = value
    return cast("Any", base)
