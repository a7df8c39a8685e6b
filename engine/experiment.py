"""`Experiment`: an experiment from Python, in a script, in a notebook, from several threads.

    experiment = Experiment("local")
    experiment.config.search_space = {"lr": {"_type": "loguniform", "_value": [1e-4, 1]}}
    experiment.config.trial_command = "python train.py"
    experiment.config.max_trial_number = 20
    experiment.run()

The engine is a process of its own, as with `tune create`: a script that dies does not touch it, unless it ends in
order, which stops what it started (`start(detach=True)` leaves it running). What is read is the log, what is asked goes
over the engine's socket. That is done in one thread of our own, so a notebook's event loop is not in the way; what is
shown is shown by the thread that waits.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import os
import queue
import subprocess
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import msgspec
from msgspec import Struct

from ..trial_sdk import values
from . import client, config, experiment_screen, home, objective, points, portal_process, views
from .config_load import from_mapping
from .errors import TuneError, UsageError
from .events import Fact
from .experiment_config import ExperimentConfig
from .host_check import check_hosts
from .import_file import result as import_result
from .lock import peek
from .requests import AskImport, AskKill, AskStop, AskTrial, AskUpdate, PersonsRequest, Refused
from .state import State

T = TypeVar("T")
P = ParamSpec("P")
_GONE_STEP = 0.02  # seconds between two looks at the lock of an engine that has said good-bye
_TICK = 1.0  # seconds after which a clock that is shown goes on
_COMMON = ("trial", "phase", "status", "value")  # columns of a frame, before those of parameters and objectives


class HyperParameters(Struct, frozen=True):
    """The parameters of one phase of a trial, under the names of NNI's TrialHyperParameters."""

    parameters: Any
    parameter_index: int
    parameter_id: int  # the trial's number
    parameter_source: str = "algorithm"


class Metric(Struct, frozen=True):
    """One result that a trial reported: `kind` is "intermediate" or "final", `step` counts the former from 0."""

    trial: int
    trial_id: str
    phase: int
    kind: str
    step: int
    value: Any

    @property
    def trialJobId(self) -> str:
        """NNI's name of `trial_id`."""
        return self.trial_id

    @property
    def parameterId(self) -> str:
        """The trial's number, as NNI has it."""
        return str(self.trial)

    @property
    def type(self) -> str:
        """PERIODICAL or FINAL, as NNI has it."""
        return "FINAL" if self.kind == "final" else "PERIODICAL"

    @property
    def sequence(self) -> int:
        """NNI's name of `step`."""
        return self.step

    @property
    def data(self) -> Any:
        """NNI's name of `value`."""
        return self.value


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
    continues: int | None = None
    devices: list[str] = []  # uuids of the GPUs that it has or had

    @property
    def metrics(self) -> list[Metric]:
        """All its results in their order, phase by phase."""
        return [one for phase in self.phases for one in self._of(phase)]

    def _of(self, phase: dict[str, Any]) -> Iterator[Metric]:
        for step, value in enumerate(cast("list[Any]", phase["intermediate"])):
            yield Metric(self.number, self.id, phase["phase"], "intermediate", step, value)
        if phase["final"] is not None:
            yield Metric(self.number, self.id, phase["phase"], "final", 0, phase["final"])

    @property
    def trialJobId(self) -> str:
        """NNI's name of `id`."""
        return self.id

    @property
    def sequenceId(self) -> int:
        """NNI's name of `number`."""
        return self.number

    @property
    def hyperParameters(self) -> list[HyperParameters]:
        """The parameters of each phase."""
        return [HyperParameters(phase["parameters"], phase["phase"], self.number) for phase in self.phases]

    @property
    def finalMetricData(self) -> list[Metric]:
        """The final result of each phase that has one."""
        return [one for one in self.metrics if one.kind == "final"]

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


class TrialResult(Struct, frozen=True):
    """A counted result with the parameters that gave it: what `export_data` gives and an import takes.

    `value` is None with several objectives: then `values` has the number of each. `violation`: by how much it fails
    the outcome constraints, 0.0 when it meets them, None without any. `final` is the result as it was reported.
    """

    parameter: Any
    value: float | None
    trial: int
    trial_id: str
    phase: int
    values: dict[str, float] | None = None
    violation: float | None = None
    final: Any = None

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
        config_or_platform: ExperimentConfig | str | list[str] | None = None,
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
        self._told = 0  # the last fact that a `wait` has shown
        self._portal: _Portal | None = None  # of a `view`
        self._url: str | None = None

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
        if self._portal is not None:
            return self._portal.port
        return client.portal_port(self._opened())

    @property
    def url(self) -> str | None:
        """The link that opens the portal in a browser; None when this object has not opened one."""
        return self._url

    def __repr__(self) -> str:
        lines = dict(self._picture())
        return f"Experiment({self.id!r}{', ' if lines else ''}{lines.get('status', '').partition(':')[0]})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows of it."""
        lines = self._picture()
        return experiment_screen.bundle(lines) if lines else {"text/plain": repr(self)}

    def _picture(self) -> list[tuple[str, str]]:
        if self._folder is None:
            return []
        try:
            return self.read(lambda state: experiment_screen.picture(state, "", state.clock))
        except TuneError:
            return []  # a damaged log is said by those who ask for what is in it

    # -- starting and ending --------------------------------------------------------------------------------------
    def start(self, port: int | None = None, debug: bool = False, *, detach: bool = False) -> None:
        """Start the engine, and return when it runs. `stop` ends it, and so does the end of this program (`detach`:
        not so). With `port` its web portal is opened (0: any free port) and its link printed.

        `UsageError` for a port that is taken and for a config that can't be; then nothing is started.
        """
        with self._guard, portal_process.opening(port) as portal:
            self._unstarted()
            if debug:
                self._config.debug = True
            folder, _ = home.create(self._given_id)
            try:
                resolved = self._resolved(folder)
                for text in check_hosts(resolved):
                    warnings.warn(text, RuntimeWarning, stacklevel=2)
                client.write_config(folder, resolved)
                client.start(folder, actor=_actor(), portal=portal)
            except BaseException:
                if not folder.events.exists():
                    home.remove(folder)
                raise
            self._take(folder)
            if not detach:
                self._own()
            self._say_portal(portal)

    def run(self, port: int | None = None, wait_completion: bool = True, debug: bool = False) -> bool:
        """Start it and follow it until it has ended: True when it is DONE or was STOPPED in order, False otherwise.

        A line is printed for each trial that ends, in a notebook one summary that updates. Ctrl-C stops the experiment.
        With `wait_completion` False this is `start`, and True.
        """
        self.start(port, debug)
        if not wait_completion:
            return True
        self._say_id()
        return self.wait()

    def run_or_resume(self, port: int | None = None, wait_completion: bool = True, debug: bool = False) -> bool:
        """`run`, or `resume` when there is an experiment with the id that this one was given; the same answer."""
        if not self.has_checkpoint():
            return self.run(port, wait_completion, debug)
        self.resume(None, port, wait_completion, debug)
        return not wait_completion or self.get_status() in ("DONE", "STOPPED")

    def has_checkpoint(self) -> bool:
        """Whether there is an experiment with the id that this one was given: every experiment can be resumed."""
        return any(folder.id == self._given_id for folder in home.experiments())

    def wait(self, on_fact: Callable[[State, Fact], None] | None = None) -> bool:
        """Follow a running experiment until it has ended, as `run` does.

        `on_fact` gets each fact instead of what is shown, with the state in which it and those that came with it are.
        """
        folder = self._opened()
        view = client.View(folder, upto=self._told)
        screen = experiment_screen.choose()
        try:
            for facts in _followed(folder, view):
                if on_fact is None:
                    screen.show(view.state, facts)
                else:
                    for fact in facts:
                        on_fact(view.state, fact)
                self._told = view.state.seq
            if on_fact is None:
                screen.close(view.state)
        except KeyboardInterrupt:
            self.stop()
            raise
        finally:
            view.close()
        if not view.state.finished:
            raise TuneError(f"the engine of experiment {folder.id} died", f"Experiment.resume({folder.id!r})")
        return view.state.status in ("DONE", "STOPPED")

    def stop(self, force: bool = False) -> None:
        """Stop it, and return when engine and trials are gone; of one that has ended this does nothing.

        Of one that is only viewed this closes the portal.
        """
        folder = self._opened()
        if self._portal is not None:
            self._portal.close()
            self._portal = self._url = None
            return
        if self._read_only:
            raise UsageError(f"experiment {folder.id} is only viewed", "Experiment.connect(id) can stop it.")
        _call(client.stop(folder, AskStop(_actor(), force)))
        if not self.read(lambda state: state.finished):  # its engine had died
            client.stop_orphans(folder, actor=_actor())

    # -- experiments that are there already: each also on an instance that was not started, which it then becomes -----
    @_OnClassToo
    def connect(self, port_or_id: int | str) -> Experiment:
        """The running (or ended) experiment with this id, a unique beginning of it, or this portal port."""
        self._take(_by_port(port_or_id) if isinstance(port_or_id, int) else home.find(port_or_id), told=True)
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

        Of one that is DONE nothing is left to do unless a limit was raised before (`update_*`). `port` as in `start`.
        """
        del debug  # the log's config decides
        folder = home.find(experiment_id or self._given_id)
        with portal_process.opening(port) as portal:
            if client.engine_pid(folder) is not None:
                raise TuneError(f"an engine already runs experiment {folder.id}", "Experiment.connect(id) reaches it.")
            self._take(folder, told=True)
            if self.read(lambda state: state.settings.in_process):
                raise UsageError(*config.only_in_process(folder.id))
            client.start(folder, actor=_actor(), portal=portal)
            self._own()
            self._say_portal(portal)
        if wait_completion:
            self._say_id()
            self.wait()
        return self

    @_OnClassToo
    def view(self, experiment_id: str | None = None, port: int | None = None, non_blocking: bool = False) -> Experiment:
        """An experiment read from its log; nothing can be changed through it.

        With `port` its portal is served: until Ctrl-C, or with `non_blocking` until `stop` or the end of this program.
        """
        with portal_process.opening(port) as portal:
            self._take(home.find(experiment_id or self._given_id))
            self._read_only = True
            if portal is None:
                return self
            process, held = portal_process.start(self._opened(), portal, commands=False)
            self._portal = _Portal(portal.port, process, held)
            _portals.append(self._portal)
            self._say_portal(portal)
        if not non_blocking:
            try:
                process.wait()
                raise TuneError("the portal has ended", f"See {self.folder / 'portal.log'}.")
            except KeyboardInterrupt:
                self.stop()
        return self

    # -- what is known of it --------------------------------------------------------------------------------------
    def read(self, look: Callable[[State], T]) -> T:
        """What `look` makes of the state that the log tells now, which is not to be kept or changed."""
        folder = self._opened()
        assert self._view is not None
        with self._guard:
            self._view.catch_up()
            if self._view.state.config is None:
                raise TuneError(f"the log of experiment {folder.id} is empty: it was never started")
            return look(self._view.state)

    def get_status(self) -> str:
        """INITIALIZED, RUNNING, NO_MORE_TRIAL, DONE, STOPPING, STOPPED, PAUSED or ERROR."""
        return self.read(lambda state: state.status)

    def get_experiment_profile(self) -> dict[str, Any]:
        """The status object of `tune status --json`, with the resolved config under `config`."""
        return self.read(lambda state: {**self._status(state), "config": _plain_config(state)})

    def get_trial_job(self, trial: int | str) -> TrialJob:
        """The trial with this number or id; `KeyError` when there is none."""
        return self.read(lambda state: self._job(state, trial))

    def list_trial_jobs(self) -> list[TrialJob]:
        """All trials, by number."""
        return [TrialJob(**one) for one in self.read(lambda state: views.trials(state, self._opened().path))]

    def get_job_statistics(self) -> dict[str, int]:
        """How many trials are in each status."""
        return self.read(lambda state: dict(state.counts))

    def get_job_metrics(self, trial: int | str | None = None) -> dict[str, list[Metric]]:
        """The results that trials reported, by trial id; of one trial (number or id) or of all."""
        jobs = self.list_trial_jobs() if trial is None else [self.get_trial_job(trial)]
        return {job.id: job.metrics for job in jobs}

    def export_data(self) -> list[TrialResult]:
        """Every counted result with its parameters."""
        rows, ids = self.read(lambda state: (views.rows(state), {one.number: one.id for one in state.made}))
        return [
            TrialResult(
                *(row["parameters"], row["value"], row["trial"], ids[row["trial"]], row["phase"]),
                *(row["values"], row["violation"], row["final"]),
            )
            for row in rows
        ]

    def best(self) -> dict[str, Any] | list[dict[str, Any]] | None:
        """The best result: trial, phase, value and parameters; None before there is one.

        With several objectives the Pareto front, a list: trial, phase, values, parameters and violation.
        """
        return self.read(lambda state: views.pareto(state) if state.settings.objectives else views.best(state))

    def dataframe(self) -> Any:
        """A pandas DataFrame, one row a counted result: trial, phase, status, value, and a column a parameter.

        With several objectives a column `values.NAME` for each, with outcome constraints `violation`.
        """
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError:
            raise TuneError("pandas is not installed", "pip install pandas") from None
        found: list[dict[str, Any]] = []
        for row in self.read(views.rows):
            line = {name: row[name] for name in _COMMON}
            for name in ("parameters", "values", "violation"):
                line.update(_columns(name, row[name]))
            found.append({name: one for name, one in line.items() if one is not None or name not in _COMMON})
        return pandas.DataFrame(found, columns=None if found else list(_COMMON))

    @staticmethod
    def get_all_experiments_metadata() -> list[dict[str, Any]]:
        """The status objects of all experiments in $TUNE_HOME, newest first; unreadable ones are left out."""
        return client.statuses()

    def get_experiment_metadata(self, experiment_id: str) -> dict[str, Any]:
        """The status object of one experiment in $TUNE_HOME."""
        other = Experiment.view(experiment_id)
        return other.read(lambda state: client.status(other._opened(), state))

    # -- what can be changed --------------------------------------------------------------------------------------
    # Each also of an experiment that does not run: then it is so with its next resume.
    def update_trial_concurrency(self, value: int) -> None:
        """From now on so many trials run at a time."""
        self._ask(AskUpdate(_actor(), trial_concurrency=value))

    def update_max_trial_number(self, value: int) -> None:
        """From now on there may be so many trials."""
        self._ask(AskUpdate(_actor(), max_trial_number=value))

    def update_max_experiment_duration(self, value: str | float) -> None:
        """From now on it may run for so long in all ("90m", or seconds)."""
        config.seconds(value)
        self._ask(AskUpdate(_actor(), max_experiment_duration=value if isinstance(value, str) else f"{value}s"))

    def update_search_space(self, value: Mapping[str, Any]) -> None:
        """From the next suggestion on this space is searched; `UsageError` with every fault of one that can't be."""
        text = _text("search_space", value)
        raw: dict[str, Any] = msgspec.json.decode(text)
        wrong = self.read(lambda state: points.faults(raw, state.settings))
        if wrong:
            raise UsageError("\n".join(wrong))
        self._ask(AskUpdate(_actor(), search_space=text))

    def add_trial(self, parameters: Mapping[str, Any]) -> None:
        """Run a trial with these parameters, before those that the tuner proposes; `UsageError` outside the space."""
        text = _text("parameters", parameters)
        reason = self.read(lambda state: points.gate(state.settings))(msgspec.json.decode(text))
        if reason is not None:
            raise UsageError(f"{text[:200]} is outside the search space: {reason}")
        self._ask(AskTrial(_actor(), text))

    def import_data(self, results: Iterable[tuple[Mapping[str, Any], Any] | TrialResult]) -> int:
        """Give the tuner results from elsewhere: pairs of parameters and value, or what `export_data` gives.

        How many it got. Those outside the search space are left out with a warning. `UsageError`, and nothing is
        imported, for one that is no result.
        """
        why_not, keys = self.read(
            lambda state: (points.gate(state.settings), tuple(state.settings.objectives) or ("default",))
        )
        kept: list[PersonsRequest] = []
        outside: list[str] = []
        for number, one in enumerate(results):
            parameters, value = (one.parameter, one.final) if isinstance(one, TrialResult) else one
            found = import_result(f"result {number}", parameters, value, keys)
            reason = why_not(msgspec.json.decode(found.parameters))
            if reason is None:
                kept.append(AskImport(_actor(), found.parameters, found.value))
            else:
                outside.append(reason)
        if kept:
            self._ask(*kept)
        if outside:
            said = f"{len(outside)} results are left out: outside the search space (the first: {outside[0]})"
            warnings.warn(said, stacklevel=2)
        return len(kept)

    # It needs a running engine.
    def kill_trial_job(self, trial: int | str) -> None:
        """End one trial (number or id): USER_CANCELED."""
        self._ask(AskKill(_actor(), self.get_trial_job(trial).number))

    # -- inside ---------------------------------------------------------------------------------------------------
    def _take(self, folder: home.Folder, *, told: bool = False) -> None:
        """Be this experiment; `told`: what its log says already is no news."""
        self._unstarted()
        with self._guard:
            self._view = client.View(folder)
            self._folder = folder
            if told:
                self._told = self._view.state.seq

    def _unstarted(self) -> None:
        if self._folder is not None:
            raise UsageError(f"this is experiment {self.id} already", "Make another Experiment for another one.")

    def _own(self) -> None:
        _owned[str(self._opened().path)] = self._opened()

    def _opened(self) -> home.Folder:
        if self._folder is None:
            raise UsageError("the experiment was not started yet", "experiment.run() or experiment.start() does.")
        return self._folder

    def _say_id(self) -> None:
        experiment_screen.Lines().say(f"Experiment ID: {self.id}")

    def _say_portal(self, portal: client.Opening | None) -> None:
        if portal is not None:
            self._url = portal.url
            experiment_screen.Lines().say(f"Web portal: {portal.url}")

    def _ask(self, *requests: PersonsRequest) -> None:
        folder = self._opened()
        if self._read_only:
            raise UsageError(f"experiment {folder.id} is only viewed", "Experiment.connect(id) can change it.")
        try:
            if _call(client.asked(folder, *requests)):
                return
            if any(isinstance(one, AskKill) for one in requests):
                raise TuneError(f"no engine runs for experiment {folder.id}", f"Experiment.resume({folder.id!r})")
            _call(asyncio.to_thread(client.write_offline, folder, *requests))
        except Refused as error:
            raise TuneError(str(error)) from error

    def _resolved(self, folder: home.Folder) -> config.Config:
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

    def _status(self, state: State) -> dict[str, Any]:
        return client.status(self._opened(), state)

    def _job(self, state: State, trial: int | str) -> TrialJob:
        number = state.ids.get(trial) if isinstance(trial, str) else trial
        if number is None:
            raise KeyError(trial)
        return TrialJob(**views.trial(state, state.trial(number), str(self._opened().path / "trials")))


def _plain_config(state: State) -> Any:
    return msgspec.json.decode(config.encode(state.settings))


def _columns(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value as columns of a table: those of a dict are NAME.KEY."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _columns(f"{name}.{key}", inner)
    elif value is not None or "." in name:
        yield name, value


def _text(name: str, value: Mapping[str, Any]) -> str:
    """A mapping of a person's as JSON text; `UsageError` when it can't be one."""
    try:
        return values.encode(dict(value))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {error}") from None


def _actor() -> str:
    return f"Experiment (pid {os.getpid()})"


def _by_port(port: int) -> home.Folder:
    for folder in home.experiments():
        content = peek(folder.lock) or {}
        if content.get("port") == port:
            return home.find(folder.id)
    raise UsageError(f"no running experiment in {home.root()} has a portal at port {port}", "Name its id.")


# -- following --------------------------------------------------------------------------------------------------------
def _followed(folder: home.Folder, view: client.View) -> Iterator[list[Fact]]:
    """What is new in the log, whenever there is something, and nothing each second, until no engine is there any more.

    Our thread listens to the engine, the calling one reads the log: so it is the calling one that shows it.
    """
    news: queue.SimpleQueue[bool] = queue.SimpleQueue()
    listening = _submit(_listen(folder, news))
    listening.add_done_callback(lambda _: news.put(True))
    try:
        while not listening.done():
            try:
                news.get(timeout=_TICK)
            except queue.Empty:
                yield []
                continue
            while not news.empty():
                news.get()
            yield view.catch_up()
        listening.result()
        yield view.catch_up()
    finally:
        listening.cancel()


async def _listen(folder: home.Folder, news: queue.SimpleQueue[bool]) -> None:
    while True:
        reached = await client.Client.connect(folder)
        if reached is not None:
            try:
                async for _ in reached.watch():
                    news.put(True)
            finally:
                await reached.close()
        if client.engine_pid(folder) is None:
            return
        await asyncio.sleep(_GONE_STEP)  # it closes its log; or it lives, and has hung up


# -- one thread that waits --------------------------------------------------------------------------------------------
_thread_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_loop_pid = 0


def _call(work: Coroutine[Any, Any, T]) -> T:
    """Run this in our thread's loop and wait for it; an interrupt of the caller cancels it."""
    future = _submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Let this run in our thread's loop."""
    global _loop, _loop_pid
    with _thread_guard:
        if _loop is None or _loop_pid != os.getpid():
            _loop, _loop_pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="tune experiments", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _loop)


# -- the end of the program -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Portal:
    """The portal of an experiment that is only viewed: its process, and the descriptor whose closing ends it."""

    port: int
    process: subprocess.Popen[bytes]
    held: int

    def close(self) -> None:
        """End it, and wait until it has."""
        _portals.remove(self)
        os.close(self.held)
        self.process.wait()


_portals: list[_Portal] = []
_owned: dict[str, home.Folder] = {}  # what this program started and did not leave running
_owner = os.getpid()


@atexit.register
def _stop_owned() -> None:
    if os.getpid() != _owner:
        return  # a child that was forked off
    for portal in _portals:
        portal.close()
    for folder in _owned.values():
        if client.engine_pid(folder) is not None:
            _call(client.stop(folder, AskStop(_actor())))
