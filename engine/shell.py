"""The engine's shell: takes requests one by one, keeps the log, and lets nothing out before it is durable.

    request --decide--> facts --reduce--> state --intents--> facts ... --drain--> commands
                          |                                                          |
                          '--> the open batch --> log (group commit) --durable--> outputs

`submit` is synchronous: a request's facts are folded at once and join the open batch, so each decision sees all that
came before it. Outputs (commands, acknowledgements, replies, notices to watchers) carry the seq that they wait for. A
batch in which nothing has an output that somebody waits for may linger, so that many intermediates share one commit.
"""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
import structlog
from msgspec import Raw

from ..trial_sdk import channel, values
from ..trial_sdk.crash_point import point
from . import config as config_room
from . import recall
from .carrier import PATIENCE, Carrier
from .code_hash import CodeHash
from .config import Config, Terms
from .decide import Draft, decide, microseconds
from .door import Watcher
from .errors import TuneError
from .events import EngineStarted, Event, Experiment, Fact, Metric, RequestParameter, Thinned, decode, encode
from .home import Folder
from .host_link import HostLink, TrainingService
from .host_wire import Ready
from .plan import (
    AnswerTrial,
    AskTuner,
    ClaimDevices,
    Command,
    EndLost,
    ForgetLaunch,
    ProbeTrial,
    StartTrial,
    StopTrial,
    deadline,
    drain,
    intents,
)
from .plugins import Observation
from .ports import Clock, LogWriter, Ports
from .reduce import open_phase, reduce, sender_name
from .requests import AskTrial, Due, Refused, Request, Silent
from .state import State
from .tuner_link import TunerLink

_logger = structlog.get_logger("engine")
LINGER = 0.05  # seconds that a batch of mere intermediates may wait
BATCH_BYTES = 256 * 1024
STALL = 0.25  # seconds that a wake-up may be late until nobody's silence counts as observed
HASTE = 2.0  # seconds that a forced stop waits for a storage that can't be reached
TUNER_TIMEOUT = 600.0  # seconds for one answer of the tuner
_PATIENT = (Metric, RequestParameter, Thinned)


class Engine:
    """One experiment, running. Made by `open`, run by `run`, fed by `submit`."""

    def __init__(
        self, folder: Folder, log: LogWriter, state: State, first_config: bytes, clock: Clock, ports: Ports
    ) -> None:
        self.folder, self.log, self.state, self.clock = folder, log, state, clock
        self._ports = ports
        self.on_fact: Callable[[State, Fact], None] | None = None
        self.carrier: Carrier | None = None  # where hosts share blobs
        self.watchers: set[Watcher] = set()
        self.ended = False
        self._first_config = first_config
        self._epoch = log.epoch
        self._number = 0
        self._batch: list[Fact] = []
        self._bytes = 0
        self._urgent = False
        self._wake = asyncio.Event()
        self._durable_changed = asyncio.Condition()
        self._outputs: list[tuple[int, Callable[[], None]]] = []
        self._acks: dict[tuple[str, int, str], tuple[int, int]] = {}
        self._planned = True  # until `run`: before it nothing can be carried out
        self._timer: asyncio.TimerHandle | None = None
        self._links: dict[str, HostLink] = {}
        self._tuner: TunerLink | None = None
        self._heard: dict[int, float] = {}
        self._silence: float | None = None
        self._code: CodeHash | None = None

    # -- opening --------------------------------------------------------------------------------------------------
    @classmethod
    async def create(
        cls, folder: Folder, config: Config, actor: str, on_full: Callable[[str], None], ports: Ports | None = None
    ) -> Engine:
        """A new experiment's engine: its log holds EXPERIMENT and ENGINE_STARTED when this returns."""
        point("engine.locked")
        ports = ports or Ports()
        log = await ports.create_log(folder.events, on_full)
        log.take(1)
        engine = cls(folder, log, State(), b"", ports.clock(), ports)
        engine._begin(config, actor)
        await engine._commit()
        point("engine.started")
        return engine

    @classmethod
    async def resume(
        cls,
        folder: Folder,
        actor: str,
        on_full: Callable[[str], None],
        *updates: Request,
        ports: Ports | None = None,
    ) -> Engine:
        """The engine of an experiment that has a log: replayed, taken with the next epoch, `updates` applied."""
        point("engine.locked")
        engine = await cls._replayed(folder, on_full, ports or Ports())
        if not engine.state.seq:  # its first engine died before the first commit
            engine._begin(config_room.decode(folder.config.read_bytes()), actor)
        elif engine.state.settings.in_process:
            await engine.close()
            raise TuneError(*config_room.only_in_process(folder.id))
        else:
            engine._started(actor)
        engine._apply(updates)
        await engine._commit()
        point("engine.started")
        return engine

    @classmethod
    async def offline(cls, folder: Folder, *requests: Request, last: Draft | None = None) -> None:
        """Write what follows from `requests` into a log that has no engine, and after it `last`."""
        engine = await cls._replayed(folder, None, Ports())
        try:
            engine._apply(requests)
            if last is not None:
                engine._add(last)
            if engine._batch:
                await engine._commit()
        finally:
            await engine.close()

    @classmethod
    async def _replayed(cls, folder: Folder, on_full: Callable[[str], None] | None, ports: Ports) -> Engine:
        state = State()
        raw = b""
        with ports.read_log(folder.events) as reader:
            for row in reader.rows():
                fact = decode(row)
                if isinstance(fact.event, Experiment):
                    raw = bytes(fact.event.config)
                reduce(state, fact)
            last = reader.last
        point("resume.replayed")
        log = await ports.open_log(folder.events, last, on_full)
        log.take(state.epoch + 1)
        return cls(folder, log, state, raw, ports.clock(state.clock), ports)

    def _apply(self, requests: Iterable[Request]) -> None:
        for request in requests:
            for draft in decide(self.state, request, self.clock.now()):
                self._add(draft)

    def _begin(self, config: Config, actor: str) -> None:
        self._first_config = config_room.encode(config)
        self._add(Draft(Experiment(self.folder.id, Raw(self._first_config), config.seed)))
        self._started(actor)
        self._apply(AskTrial(actor, values.encode(parameters)) for parameters in config.initial_parameters)

    def _started(self, actor: str) -> None:
        versions = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
        }
        event = EngineStarted(socket.gethostname(), os.getpid(), self.clock.now(), versions, actor)
        self._add(Draft(event))

    @property
    def last_seq(self) -> int:
        """How far the log is durable."""
        return self.log.last_seq

    # -- the inbox ------------------------------------------------------------------------------------------------
    def submit(self, request: Request) -> None:
        """Take one request from a machine; a person's goes through `ask`."""
        try:
            drafts = decide(self.state, request, self.clock.now())
        except Refused as error:
            _logger.warning("refused", request=type(request).__name__, reason=str(error))
            return
        for draft in drafts:
            self._add(draft)

    async def ask(self, request: Request) -> None:
        """Take a person's request: returns when its facts are durable, raises `Refused` when there are none."""
        for draft in decide(self.state, request, self.clock.now()):
            self._add(draft)
        await self.until_durable(self.state.seq)

    async def until_durable(self, seq: int) -> None:
        """Wait until the log holds everything up to `seq`."""
        async with self._durable_changed:
            await self._durable_changed.wait_for(lambda: self.log.last_seq >= seq)

    def _add(self, draft: Draft) -> None:
        state = self.state
        sender, number = draft.sender, draft.number
        if not sender:
            self._number += 1
            sender, number = f"e{self._epoch}", self._number
        fact = Fact(
            state.seq + 1, self._epoch, sender, number, draft.trial, draft.cause, self.clock.wall(), draft.event
        )
        reduce(state, fact)
        self._batch.append(fact)
        event: Event = draft.event
        if type(event) is Metric:
            self._bytes += 200 + len(bytes(event.value))
            if event.final:
                self._urgent = True
            if self._silence is not None and draft.trial is not None:
                self._heard[draft.trial] = self.clock.monotonic()
        elif not isinstance(event, _PATIENT):
            self._urgent = True
        if state.queues.dirty and not self._planned:
            self._plan_soon()
        elif state.queues.news and self._tuner is not None:
            self._feed()
        if self.carrier is not None:
            self.carrier.hear(state, fact)
        if self.on_fact is not None:
            self.on_fact(state, fact)
        self._wake.set()

    def _feed(self) -> None:
        news, self.state.queues.news = self.state.queues.news, []
        if news and self._tuner is not None:
            self._tuner.observe(news)

    def _plan_soon(self) -> None:
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._plan)

    def _plan(self) -> None:
        """Add the intents, hand out the commands. Runs once after each burst of requests."""
        state = self.state
        while True:
            state.queues.dirty = False
            drafts = intents(state, self._code_hash)
            if not drafts:
                break
            for draft in drafts:
                self._add(draft)
        self._feed()
        for command in drain(state):
            if isinstance(command, AskTuner):
                if self._tuner is not None:
                    self._tuner.ask(command)
            else:
                self._carry_out(command)
        if self._tuner is not None:
            self._tuner.paused = state.status in ("PAUSED", "STOPPED", "DONE", "ERROR")
            if state.concurrent:
                self._tuner.look(quiet=state.quiet)
        self._planned = False
        self._arm()
        self._wake.set()

    def _code_hash(self) -> str:
        return self._code.now() if self._code is not None else ""

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = deadline(self.state)
        if due is not None:
            wait = max(due - self.clock.now(), 0) / 1_000_000
            self._timer = asyncio.get_running_loop().call_later(wait, self._due)

    def _due(self) -> None:
        self._timer = None
        self.submit(Due())
        if self._timer is None and not self._planned:
            self._arm()

    # -- the log --------------------------------------------------------------------------------------------------
    async def _write(self) -> None:
        """Commit batch after batch, and let out what waited for it, until the experiment has ended."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._planned:  # the intents of this burst belong into its batch
                await asyncio.sleep(0)
                self._wake.set()
                continue
            if self._batch and not self._urgent and self._bytes < BATCH_BYTES:
                await self._linger()
            if self._batch:
                await self._commit()
            self._release()
            if self.state.finished and not self._batch and not self._planned and not self._outputs:
                return

    async def _linger(self) -> None:
        end = self.clock.monotonic() + LINGER
        while not self._urgent and self._bytes < BATCH_BYTES:
            left = end - self.clock.monotonic()
            if left <= 0:
                return
            self._wake.clear()
            with anyio.move_on_after(left):
                await self._wake.wait()

    async def _commit(self) -> None:
        batch, self._batch = self._batch, []
        self._bytes, self._urgent = 0, False
        point("engine.decided")
        await self.log.append([encode(fact) for fact in batch])
        point("engine.committed")
        async with self._durable_changed:
            self._durable_changed.notify_all()

    def _release(self) -> None:
        durable = self.log.last_seq
        outputs = self._outputs
        ready = 0
        while ready < len(outputs) and outputs[ready][0] <= durable:
            ready += 1
        self._outputs = outputs[ready:]
        for _, output in outputs[:ready]:
            output()
            point("engine.output")
        for key in [key for key, (_, seq) in self._acks.items() if seq <= durable]:
            number, _ = self._acks.pop(key)
            trial, attempt, process = key
            link = self._link_of(trial, attempt)
            if link is not None:
                link.send(channel.Ack(trial, attempt, process, number))
        for watcher in list(self.watchers):
            watcher.durable(durable)

    # -- hosts ----------------------------------------------------------------------------------------------------
    def _link_of(self, trial_id: str, attempt: int) -> HostLink | None:
        """The link to the host of a launch, which may be an earlier attempt that was given up with its host."""
        for host, launches in self.state.lost.items():
            if (trial_id, attempt) in launches:
                return self._links.get(host)
        number = self.state.ids.get(trial_id)
        return self._links.get(self.state.trial(number).host) if number is not None else None

    def _recorded(self, command: Command) -> dict[str, int]:
        """How far the reports of the launch that is to be probed are recorded, by process.

        Taken when the command is made: what is folded until it goes out may not be durable then.
        """
        match command:
            case ProbeTrial():
                number, attempt = command.trial, self.state.trial(command.trial).attempt
            case EndLost():
                number, attempt = self.state.ids[command.trial_id], command.attempt
            case _:
                return {}
        return {
            sender.process: sender.last
            for sender in self.state.senders.values()
            if sender.trial == number and sender.attempt == attempt
        }

    def _acknowledge(self, trial: str, attempt: int, process: str, number: int) -> None:
        sender = self.state.senders.get(sender_name(trial, attempt, process))
        if sender is not None:
            self._acks[trial, attempt, process] = (min(number, sender.last), self.state.seq)
            self._wake.set()

    def _trial_waits(self, trial: str, attempt: int, process: str, number: int) -> None:
        name = sender_name(trial, attempt, process)
        sender = self.state.senders.get(name)
        if sender is not None and sender.request == number and not sender.ask:
            self._carry_out(AnswerTrial(name))
            self._wake.set()

    def _carry_out(self, command: Command) -> None:
        """Make what a command says out of the state of now, and let it out when that is durable.

        Made later it would tell of facts that came since, and those may not be on disk.
        """
        host, messages = self._said(command)
        if messages:
            self._outputs.append((self.state.seq, functools.partial(self._say, host, messages)))

    def _said(self, command: Command) -> tuple[str, list[channel.ToKeeper]]:
        """A command's host, and what is to be said there."""
        state = self.state
        match command:
            case AskTuner():
                raise AssertionError("asks don't wait for the log")
            case ForgetLaunch():
                return command.host, [channel.Forget(command.trial_id, command.attempt)]
            case EndLost():
                launch = (command.trial_id, command.attempt)
                return command.host, [
                    channel.Probe(*launch, self._recorded(command)),
                    channel.Stop(*launch, command.grace),
                ]
            case ClaimDevices():
                return command.host, [channel.Claim(command.devices, command.wants)]
            case AnswerTrial():
                sender = state.senders[command.sender]
                trial = state.trial(sender.trial)
                if sender.ask:
                    return trial.host, []
                phase = sender.answer_phase
                text = bytes(trial.phases[phase].parameters).decode() if phase >= 0 else None
                return trial.host, [
                    channel.Answer(trial.id, sender.attempt, sender.process, sender.request, phase, text)
                ]
            case StartTrial():
                return state.trial(command.trial).host, [self._launch(command.trial)]
            case ProbeTrial():
                trial = state.trial(command.trial)
                return trial.host, [channel.Probe(trial.id, trial.attempt, self._recorded(command))]
            case StopTrial():
                trial = state.trial(command.trial)
                return trial.host, [channel.Stop(trial.id, trial.attempt, command.grace)]

    def _say(self, host: str, messages: list[channel.ToKeeper]) -> None:
        link = self._links.get(host)
        if link is None:
            return
        for message in messages:
            say = functools.partial(self._say_now, host, link, message)
            if self.carrier is not None and isinstance(message, channel.Launch | channel.Answer):
                self.carrier.deliver(host, message, say)
            else:
                say()

    def _say_now(self, host: str, link: HostLink, message: channel.ToKeeper) -> None:
        if isinstance(message, channel.Launch):
            trial = self.state.trial(message.number)
            if not trial.active or trial.attempt != message.attempt or trial.host != host:
                return  # it was given up meanwhile, or goes elsewhere
            self._heard[trial.number] = self.clock.monotonic()
        link.send(message)

    def _launch(self, number: int) -> channel.Launch:
        state = self.state
        trial, settings = state.trial(number), state.settings
        phase = open_phase(state, trial) or 0
        known = phase < len(trial.phases)
        terms = state.terms.get(trial.host, Terms())
        return channel.Launch(
            trial.id,
            trial.attempt,
            number,
            phase if known else -1,
            bytes(trial.phases[phase].parameters).decode() if known else "",
            settings.trial_command,
            settings.trial_code_directory,
            {"TUNE_EXPERIMENT_ID": state.id, "NNI_EXP_ID": state.id},
            settings.secret_variables,
            python_folder(settings.python),
            settings.multi_phase,
            trial.devices if settings.trial_gpu_number is not None else None,
            terms.use_active_gpu,
            terms.max_trial_number_per_gpu,
        )

    # -- the tuner ------------------------------------------------------------------------------------------------
    async def _history(self, ready: Ready) -> list[Observation]:
        state, intermediates = self.state, ready.observes == "intermediates"
        state.tell, state.tell_intermediates, state.tell_more = True, intermediates, ready.stateful
        state.queues.news = []
        upto = state.seq
        if ready.concurrent:  # the asks that stood behind the first one may be put too
            state.concurrent = True
            self._plan_soon()
        await self.until_durable(upto)
        path = self.folder.events

        def fold() -> list[Observation]:
            with self._ports.read_log(path) as reader:
                facts = (decode(row) for row in reader.rows(upto=upto))
                return recall.past(
                    facts, intermediates=intermediates, stateful=ready.stateful, concurrent=ready.concurrent
                )

        past = await asyncio.to_thread(fold)
        point("resume.history")
        return past

    # -- running --------------------------------------------------------------------------------------------------
    async def run(self, services: list[TrainingService]) -> None:
        """Run until the experiment has ended; then everything is durable, and the keepers have gone."""
        state = self.state
        settings = state.settings
        self._code = CodeHash(Path(settings.trial_code_directory))
        if settings.max_silence is not None:
            self._silence = microseconds(settings.max_silence) / 1_000_000
        self._tuner = TunerLink(
            self._first_config,
            self.folder.path / "tuner.log",
            TUNER_TIMEOUT,
            self.submit,
            self._history,
            functools.partial(self._ports.start_tuner, gpus=settings.tuner_gpu_indices),
        )
        for service in services:
            self._links[service.name] = HostLink(
                service,
                state.id,
                self._epoch,
                self.submit,
                self._acknowledge,
                self._trial_waits,
                devices=bool(settings.trial_gpu_number),
            )
        if self.carrier is not None:
            self.carrier.begin(state, services)
        state.queues.dirty = True
        self._plan()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tuner.run, name="tuner")
            for link in self._links.values():
                tasks.start_soon(self._serve_host, link, name=f"host {link.name}")
            if self._silence is not None:
                tasks.start_soon(self._watch_silence, self._silence, name="silence")
            await self._write()
            point("engine.shutdown")
            self._tuner.shutdown()
            if self.carrier is not None:
                await self.carrier.flush(HASTE if state.force else PATIENCE, forced=state.force)
                await self.carrier.close()
            grace = microseconds(settings.stop_grace) / 1_000_000
            for link in self._links.values():
                await link.shutdown(patience=grace + 20.0)
            tasks.cancel_scope.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.ended = True

    async def _serve_host(self, link: HostLink) -> None:
        await link.run()
        if link.fenced:
            raise RuntimeError(f"a newer engine has the keeper of {link.name}: {link.fenced}")

    async def _watch_silence(self, limit: float) -> None:
        while True:
            now = self.clock.monotonic()
            running = [
                trial
                for trial in map(self.state.trial, self.state.active)
                if trial.status == "RUNNING" and not trial.kill
            ]
            wait = limit
            for trial in running:
                left = self._heard.setdefault(trial.number, now) + limit - now
                if left <= 0:
                    self.submit(Silent(trial.number, trial.attempt))
                else:
                    wait = min(wait, left)
            await anyio.sleep(max(wait, 0.01))
            if self.clock.monotonic() - now > wait + STALL:
                # This engine was suspended, or too busy to listen: what was said meanwhile is still to be read.
                self._heard.clear()

    async def close(self) -> None:
        """Close the log: in an orderly end, one file."""
        await self.log.close()


def python_folder(chosen: str | None) -> str:
    """The folder that comes first in a trial's PATH: of the config's python, the active environment's, or our own."""
    if chosen:
        return str(Path(chosen).parent)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        environment = os.environ.get(name)
        if environment and (Path(environment) / "bin" / "python").exists():
            return str(Path(environment) / "bin")
    return str(Path(sys.executable).parent)
