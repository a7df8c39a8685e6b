"""`Experiment`: an experiment from Python, in a script, in a notebook, from several threads.

    experiment = Experiment("local")
    experiment.config.search_space = {"lr": {"_type": "loguniform", "_value": [1e-4, 1]}}
    experiment.config.trial_command = "python train.py"
    experiment.config.max_trial_number = 20
    experiment.run()

The engine is a process of its own, as with `tune create`: a script that dies does not touch it, unless it ends in
order, which stops what it started (`start(detach=True)` leaves it running). What is read is the log, what is asked goes
over the engine's socket. All waiting is done in one thread of our own, so a notebook's event loop is not in the way.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import msgspec
from msgspec import Struct

from . import client, home, objective, views
from .config import Config, seconds
from .config_load import from_mapping
from .errors import TuneError, UsageError
from .events import Fact
from .experiment_config import ExperimentConfig
from .lock import peek
from .requests import AskImport, AskKill, AskStop, AskTrial, AskUpdate, PersonsRequest, Refused
from .state import State

T = TypeVar("T")
P = ParamSpec("P")
_GONE_STEP = 0.02  # seconds between two looks at the lock of an engine that has said good-bye


class TrialJob(Struct, frozen=True, kw_only=True):
    """One trial, as `tune trials --json` shows it; the names of NNI's TrialJob are there too."""

    number: int
    id: str
    status: str
    reason: str = ""
    attempt: int = 0
    parameters: Any = None
    final: Any = None
    intermediate: list[Any] = []
    pid: int | None = None
    host: str | None = None
    exit_code: int | None = None
    created: str | None = None
    started: str | None = None
    ended: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    phases: list[dict[str, Any]] = []

    @property
    def trialJobId(self) -> str:
        """NNI's name of `id`."""
        return self.id

    @property
    def sequenceId(self) -> int:
        """NNI's name of `number`."""
        return self.number

    @property
    def hyperParameters(self) -> list[Any]:
        """The parameters of each phase."""
        return [phase["parameters"] for phase in self.phases]

    @property
    def finalMetricData(self) -> list[Any]:
        """The final result of each phase that has one."""
        return [phase["final"] for phase in self.phases if phase["final"] is not None]

    @property
    def logPath(self) -> str | None:
        """The trial's folder."""
        return None if self.stdout is None else str(Path(self.stdout).parent)

    @property
    def stderrPath(self) -> str | None:
        """NNI's name of `stderr`."""
        return self.stderr

    @property
    def startTime(self) -> str | None:
        """NNI's name of `started`."""
        return self.started

    @property
    def endTime(self) -> str | None:
        """NNI's name of `ended`."""
        return self.ended

    @property
    def message(self) -> str:
        """NNI's name of `reason`."""
        return self.reason


class Metric(Struct, frozen=True):
    """One result that a trial reported: `kind` is "intermediate" or "final", `step` counts the former from 0."""

    trial: int
    trial_id: str
    phase: int
    kind: str
    step: int
    value: Any


class TrialResult(Struct, frozen=True):
    """A counted result with the parameters that gave it: what `export_data` gives and an import takes."""

    parameter: Any
    value: float
    trial: int
    trial_id: str
    phase: int

    @property
    def trialJobId(self) -> str:
        """NNI's name of `trial_id`."""
        return self.trial_id


class _OnClassToo(Generic[P]):
    """A method of Experiment that can be called on the class: then it is one of a new instance."""

    def __init__(self, function: Callable[Concatenate[Experiment, P], Experiment]) -> None:
        self._function = function
        functools.update_wrapper(cast("Any", self), function)

    def __get__(self, instance: Experiment | None, owner: type[Experiment]) -> Callable[P, Experiment]:
        return functools.partial(self._function, owner() if instance is None else instance)


class Experiment:
    """One experiment: new (configure `config`, then `run` or `start`), connected, resumed or viewed.

    `objective`: a function of the parameters that each trial calls in a process of its own; what it returns is the
    final result. It needs no `trial_command`.
    """

    def __init__(
        self,
        config_or_platform: ExperimentConfig | str | None = None,
        id: str | None = None,
        *,
        objective: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        if isinstance(config_or_platform, ExperimentConfig):
            self._config = config_or_platform
        else:
            self._config = ExperimentConfig(config_or_platform or "local")
        if id is not None:
            home.check_id(id)
        self._given_id = id
        self._objective = objective
        self._folder: home.Folder | None = None
        self._view: client.View | None = None
        self._guard = threading.RLock()
        self._read_only = False

    # -- what it is -----------------------------------------------------------------------------------------------
    @property
    def config(self) -> ExperimentConfig:
        """The config; of an experiment that has a log, that of the log."""
        return self._config

    @config.setter
    def config(self, value: ExperimentConfig) -> None:
        self._config = value

    @property
    def id(self) -> str:
        """The experiment's id; "" before it was started."""
        return self._folder.id if self._folder is not None else self._given_id or ""

    @property
    def folder(self) -> Path:
        """Where it lies; `UsageError` before it was started."""
        return self._opened().path

    @property
    def port(self) -> int | None:
        """The portal's port; None when none is open."""
        content = peek(self._opened().lock) or {}
        port = content.get("port")
        return port if isinstance(port, int) else None

    def __repr__(self) -> str:
        return f"Experiment({self.id!r})"

    # -- starting and ending --------------------------------------------------------------------------------------
    def start(self, port: int | None = None, debug: bool = False, *, detach: bool = False) -> None:
        """Start the engine, and return when it runs. `stop` ends it, and so does the end of this program (`detach`:
        not so). `UsageError` for a config that can't be; then nothing is started."""
        with self._guard:
            self._unstarted()
            if debug:
                self._config.debug = True
            _check_port(port)
            folder, _ = home.create(self._given_id)
            try:
                client.write_config(folder, self._resolved(folder))
                client.start(folder, actor=_actor())
            except BaseException:
                if not folder.events.exists():
                    home.remove(folder)
                raise
            self._take(folder)
            if not detach:
                self._own()

    def run(self, port: int | None = None, wait_completion: bool = True, debug: bool = False) -> bool:
        """Start it and follow it until it has ended: True when it is DONE or was STOPPED in order, False otherwise.

        A line is printed for each trial that ends. Ctrl-C stops the experiment. With `wait_completion` False this is
        `start`, and True.
        """
        self.start(port, debug)
        return self.wait() if wait_completion else True

    def wait(self, on_fact: Callable[[State, Fact], None] | None = None) -> bool:
        """Follow a running experiment until it has ended, as `run` does; `on_fact` sees each fact instead of lines."""
        folder = self._opened()
        try:
            state = _call(self._follow(on_fact))
        except KeyboardInterrupt:
            self.stop()
            raise
        if not state.finished:
            raise TuneError(f"the engine of experiment {folder.id} died", f"Experiment.resume({folder.id!r})")
        return state.status in ("DONE", "STOPPED")

    def stop(self, force: bool = False) -> None:
        """Stop it, and return when engine and trials are gone; of one that has ended this does nothing."""
        folder = self._opened()
        if self._read_only:
            raise UsageError(f"experiment {folder.id} is only viewed", "Experiment.resume(id) goes on with it.")
        _call(client.stop(folder, AskStop(_actor(), force)))
        if not self._now().finished:  # its engine had died
            client.stop_orphans(folder, actor=_actor())

    # -- experiments that are there already: each also on an instance that was not started, which it then becomes -----
    @_OnClassToo
    def connect(self, port_or_id: int | str) -> Experiment:
        """The running (or ended) experiment with this id, a unique beginning of it, or this portal port."""
        self._take(_by_port(port_or_id) if isinstance(port_or_id, int) else home.find(port_or_id))
        return self

    @_OnClassToo
    def resume(
        self,
        experiment_id: str | None = None,
        port: int | None = None,
        wait_completion: bool = True,
        debug: bool = False,
    ) -> Experiment:
        """Go on with an experiment from its log; with `wait_completion` this returns when it has ended.

        Of one that is DONE nothing is left to do unless a limit was raised before (`update_*`).
        """
        del debug  # the log's config decides
        _check_port(port)
        folder = home.find(experiment_id or self._given_id)
        if client.engine_pid(folder) is not None:
            raise TuneError(f"an engine already runs experiment {folder.id}", "Experiment.connect(id) reaches it.")
        self._take(folder)
        client.start(folder, actor=_actor())
        self._own()
        if wait_completion:
            self.wait()
        return self

    @_OnClassToo
    def view(self, experiment_id: str | None = None, port: int | None = None, non_blocking: bool = True) -> Experiment:
        """An experiment read from its log; nothing can be changed through it."""
        del non_blocking  # there is nothing to wait for without a portal
        _check_port(port)
        self._take(home.find(experiment_id or self._given_id))
        self._read_only = True
        return self

    # -- what is known of it --------------------------------------------------------------------------------------
    def get_status(self) -> str:
        """INITIALIZED, RUNNING, NO_MORE_TRIAL, DONE, STOPPING, STOPPED, PAUSED or ERROR."""
        return self._now().status

    def get_experiment_profile(self) -> dict[str, Any]:
        """The status object of `tune status --json`, with the resolved config under `config`."""
        from .config import encode

        state, folder = self._now(), self._opened()
        found = views.status(state, folder=folder.path, pid=client.engine_pid(folder), log=folder.events)
        return {**found, "config": msgspec.json.decode(encode(state.settings))}

    def get_trial_job(self, trial: int | str) -> TrialJob:
        """The trial with this number or id; `KeyError` when there is none."""
        state = self._now()
        number = state.ids.get(trial) if isinstance(trial, str) else trial
        if number is None:
            raise KeyError(trial)
        return self._job(views.trial(state, state.trial(number), str(self._opened().path / "trials")))

    def list_trial_jobs(self) -> list[TrialJob]:
        """All trials, by number."""
        return [self._job(one) for one in views.trials(self._now(), self._opened().path)]

    def get_job_statistics(self) -> dict[str, int]:
        """How many trials are in each status."""
        return dict(self._now().counts)

    def get_job_metrics(self, trial: int | str | None = None) -> dict[str, list[Metric]]:
        """The results that trials reported, by trial id; of one trial (number or id) or of all."""
        jobs = self.list_trial_jobs() if trial is None else [self.get_trial_job(trial)]
        return {job.id: list(_metrics(job)) for job in jobs}

    def export_data(self) -> list[TrialResult]:
        """Every counted result with its parameters."""
        state = self._now()
        return [
            TrialResult(row["parameters"], row["value"], row["trial"], state.trial(row["trial"]).id, row["phase"])
            for row in views.rows(state)
        ]

    def best(self) -> dict[str, Any] | None:
        """The best result: trial, phase, value and parameters; None before there is one."""
        return views.best(self._now())

    def dataframe(self) -> Any:
        """A pandas DataFrame, one row a phase with a result: trial, phase, status, value and a column a parameter."""
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError:
            raise TuneError("pandas is not installed", "pip install pandas") from None
        rows = [{key: one for key, one in row.items() if key != "intermediate"} for row in views.rows(self._now())]
        return pandas.DataFrame([views.flat(row) for row in rows])

    @staticmethod
    def get_all_experiments_metadata() -> list[dict[str, Any]]:
        """The status objects of all experiments in $TUNE_HOME, newest first; unreadable ones are left out."""
        found: list[dict[str, Any]] = []
        for folder in home.experiments():
            try:
                view = client.View(folder)
            except TuneError:
                continue
            view.close()
            if view.state.config is not None:
                pid = client.engine_pid(folder)
                found.append(views.status(view.state, folder=folder.path, pid=pid, log=folder.events))
        return found

    def get_experiment_metadata(self, experiment_id: str) -> dict[str, Any]:
        """The status object of one experiment in $TUNE_HOME."""
        other = Experiment.view(experiment_id)
        state, folder = other._now(), other._opened()
        return views.status(state, folder=folder.path, pid=client.engine_pid(folder), log=folder.events)

    # -- what can be changed --------------------------------------------------------------------------------------
    def update_trial_concurrency(self, value: int) -> None:
        """From now on so many trials run at a time."""
        self._ask(AskUpdate(_actor(), trial_concurrency=value))

    def update_max_trial_number(self, value: int) -> None:
        """From now on there may be so many trials."""
        self._ask(AskUpdate(_actor(), max_trial_number=value))

    def update_max_experiment_duration(self, value: str | float) -> None:
        """From now on it may run for so long in all ("90m", or seconds)."""
        seconds(value)
        self._ask(AskUpdate(_actor(), max_experiment_duration=value if isinstance(value, str) else f"{value}s"))

    def update_search_space(self, value: Mapping[str, Any]) -> None:
        """From the next suggestion on this space is searched."""
        self._ask(AskUpdate(_actor(), search_space=msgspec.json.encode(dict(value)).decode()))

    def kill_trial_job(self, trial: int | str) -> None:
        """End one trial (number or id): USER_CANCELED."""
        self._ask(AskKill(_actor(), self.get_trial_job(trial).number))

    def add_trial(self, parameters: Mapping[str, Any]) -> None:
        """Run a trial with these parameters."""
        self._ask(AskTrial(_actor(), msgspec.json.encode(dict(parameters)).decode()))

    def import_data(self, results: Iterable[tuple[Mapping[str, Any], Any]]) -> None:
        """Give the tuner results from elsewhere: pairs of parameters and value."""
        from ..trial_sdk import values

        self._ask(*(AskImport(_actor(), values.encode(dict(one)), values.encode(value)) for one, value in results))

    # -- inside ---------------------------------------------------------------------------------------------------
    def _take(self, folder: home.Folder) -> None:
        self._unstarted()
        self._view = client.View(folder)
        self._folder = folder

    def _unstarted(self) -> None:
        if self._folder is not None:
            raise UsageError(f"this is experiment {self.id} already", "Make another Experiment for another one.")

    def _own(self) -> None:
        _owned[str(self._opened().path)] = self._opened()

    def _opened(self) -> home.Folder:
        if self._folder is None:
            raise UsageError("the experiment was not started yet", "experiment.run() or experiment.start() does.")
        return self._folder

    def _now(self) -> State:
        """The state that the log tells now."""
        self._opened()
        assert self._view is not None
        with self._guard:
            self._view.catch_up()
            return self._view.state

    async def _follow(self, on_fact: Callable[[State, Fact], None] | None) -> State:
        """Read on until no engine is there any more: the last state, which is not `finished` if it died."""
        folder = self._opened()
        while True:
            reached = await client.Client.connect(folder)
            if reached is not None:
                try:
                    async for _ in reached.watch():
                        self._look(on_fact)
                finally:
                    await reached.close()
            self._look(on_fact)
            if client.engine_pid(folder) is None:
                return self._look(on_fact)
            await asyncio.sleep(_GONE_STEP)  # it closes its log; or it lives, and has hung up

    def _look(self, on_fact: Callable[[State, Fact], None] | None) -> State:
        assert self._view is not None
        with self._guard:
            facts, state = self._view.catch_up(), self._view.state
        for fact in facts:
            if on_fact is not None:
                on_fact(state, fact)
        return state

    def _ask(self, *requests: PersonsRequest) -> None:
        folder = self._opened()
        if self._read_only:
            raise UsageError(f"experiment {folder.id} is only viewed", "Experiment.connect(id) can change it.")
        try:
            running = _call(client.asked(folder, *requests))
        except Refused as error:
            raise TuneError(str(error)) from error
        if not running:
            raise TuneError(f"no engine runs for experiment {folder.id}", f"Experiment.resume({folder.id!r})")

    def _resolved(self, folder: home.Folder) -> Config:
        fields = self._config.mapping()
        if self._objective is not None:
            place = folder.path / "objective"
            place.mkdir(mode=0o700)
            try:
                objective.write(self._objective, place)
                fields = objective.as_config(fields, place)
            except ValueError as error:
                raise UsageError(str(error)) from None
        return from_mapping(fields, Path.cwd())[0]

    def _job(self, shown: dict[str, Any]) -> TrialJob:
        known = {name: shown[name] for name in TrialJob.__struct_fields__ if name in shown}
        return TrialJob(**known)


def _metrics(job: TrialJob) -> Iterable[Metric]:
    for phase in job.phases:
        for step, value in enumerate(cast("list[Any]", phase["intermediate"])):
            yield Metric(job.number, job.id, phase["phase"], "intermediate", step, value)
        if phase["final"] is not None:
            yield Metric(job.number, job.id, phase["phase"], "final", 0, phase["final"])


def _actor() -> str:
    return f"Experiment (pid {os.getpid()})"


def _check_port(port: int | None) -> None:
    if port is not None:
        raise UsageError(f"port: found {port}: not yet: the web portal comes in a later version", "Leave it out.")


def _by_port(port: int) -> home.Folder:
    for folder in home.experiments():
        content = peek(folder.lock) or {}
        if content.get("port") == port:
            return home.find(folder.id)
    raise UsageError(f"no running experiment in {home.root()} has a portal at port {port}", "Name its id.")


# -- one thread that waits --------------------------------------------------------------------------------------------
_thread_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_loop_pid = 0


def _call(work: Coroutine[Any, Any, T]) -> T:
    """Run this in our thread's loop and wait for it; an interrupt of the caller cancels it."""
    global _loop, _loop_pid
    with _thread_guard:
        if _loop is None or _loop_pid != os.getpid():
            _loop, _loop_pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="tune experiments", daemon=True).start()
    future = asyncio.run_coroutine_threadsafe(work, _loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


_owned: dict[str, home.Folder] = {}  # what this program started and did not leave running
_owner = os.getpid()


@atexit.register
def _stop_owned() -> None:
    for folder in _owned.values() if os.getpid() == _owner else ():
        if client.engine_pid(folder) is not None:
            _call(client.stop(folder, AskStop(_actor())))
