"""The simulated world: one experiment from its first engine to its end, with everything that can go wrong by dice.

A history is a function of its `Settings`, and those of a seed. Faults happen until `faults` of them have; then all is
mended, and the experiment has to come to its end (P10). `World.run` gives the violations and the hash of the trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
from checkers import RESTING, Ledger, final_judgement
from sim_engine import Disk, SimPorts
from sim_loop import Node, SimLoop, Stuck
from sim_machine import EPOCH, Host, SimProcess
from sim_network import Network
from sim_trial import SimTrial, Told

from tune.engine.config import Algorithm, Config, Machine, TrainingService
from tune.engine.events import Fact, Row, decode
from tune.engine.home import Folder
from tune.engine.log import LogFenced, LogIO
from tune.engine.reduce import reduce
from tune.engine.requests import AskKill, AskStop, AskUpdate, Refused
from tune.engine.shell import Engine
from tune.engine.state import State
from tune.trial_sdk import wire

MEMORY = Path("/dev/shm")
CODE = Path(tempfile.gettempdir()) / f"tune-simulation-code-{os.getuid()}"


@dataclass(frozen=True)
class Settings:
    """What a history is made of."""

    seed: int
    hosts: int = 1
    events: int = 300
    faults: int = 8
    trials: int = 5
    concurrency: int = 2
    reports: int = 8
    pause: float = 0.3  # mean seconds between two reports
    phases: int = 1
    multi_phase: bool = False
    retries: int = 0
    lease: float = 60.0
    grace: float = 2.0
    longest: float = 40.0  # max_trial_duration
    tuner: str = "Random"
    assessor: bool = False
    devices: int = 0  # of each host
    wants: int = 0  # trial_gpu_number; 0 here means that it is not set
    most: int = 1
    share: bool = False
    slots: int | None = None


def with_devices(settings: Settings) -> Settings:
    """The same history, but its trials want devices."""
    dice = random.Random(f"devices {settings.seed}")
    devices = dice.choice([1, 2, 4])
    return replace(
        settings,
        devices=devices,
        wants=dice.choice([count for count in (1, 2) if count <= devices]),
        most=dice.choice([1, 1, 2]),
        share=dice.random() < 0.3,
        slots=dice.choice([None, None, 1, 2]),
        concurrency=max(settings.concurrency, dice.randrange(1, 5)),
    )


def settings_of(seed: int, hosts: int = 1, events: int = 300, faults: int | None = None) -> Settings:
    """The settings of a seed, for about so many events."""
    dice = random.Random(f"settings {seed}")
    multi = dice.random() < 0.3
    phases = dice.choice([2, 3]) if multi else 1
    reports = min(max(8, events // (hosts * 10)), 400)
    trials = max(3, events // (14 + reports * phases))
    return Settings(
        seed=seed,
        hosts=hosts,
        events=events,
        faults=dice.randrange(4, 20) * max(1, hosts // 4) if faults is None else faults,
        trials=trials,
        concurrency=min(trials, max(2, hosts)) if dice.random() < 0.8 else 1,
        reports=reports,
        pause=dice.choice([0.05, 0.3, 0.6]),
        phases=phases,
        multi_phase=multi,
        retries=dice.randrange(3),
        lease=dice.choice([8.0, 20.0, 60.0]),
        tuner="TPE" if dice.random() < 0.3 and trials <= 100 else "Random",
        assessor=dice.random() < 0.3,
    )


@dataclass
class Weather:
    """What is wrong just now."""

    spawn_errors: float = 0.0


@dataclass
class Outcome:
    """What came of a history."""

    settings: Settings
    violations: list[str]
    trace: str
    events: int
    steps: int
    seconds: float  # virtual
    step: int  # faults before the first violation
    story: list[str] = field(default_factory=list)


class World:
    """One history."""

    def __init__(self, settings: Settings, *, tell: bool = False) -> None:
        self.settings, self.seed, self.tell = settings, settings.seed, tell
        self.dice = random.Random(f"world {self.seed}")
        self.violations: list[str] = []
        self.story: list[str] = []
        self.step = 0
        self.failed_at = 0
        self.weather = Weather()
        self._trace = hashlib.blake2b(digest_size=16)
        self._unordered = 0
        self.told: list[Told] = []
        self.trials: list[SimTrial] = []
        self.starts: dict[tuple[str, int], int] = {}
        self.digests: dict[tuple[int, int], str] = {}
        self.counted_at_end: dict[tuple[int, int], bool] = {}
        self.engine_lost: dict[str, float] = {}
        self.engines: list[tuple[Node, Engine | None]] = []
        self.finished = False
        self.jump = 0
        self.calm = False
        self.calm_at = self.engine_started = 0.0
        self.ambush: dict[str, tuple[str, Callable[[World], None]]] = {}  # by the kind of event that sets it off

    # -- what the parts of the world call -----------------------------------------------------------------------------
    def complain(self, promise: str, what: str) -> None:
        """A violation."""
        if len(self.violations) < 20:
            self.violations.append(f"{promise}: {what} (at {self.loop.time():.3f} s)")
            self.failed_at = self.failed_at or self.step
            self.note(f"VIOLATION {promise}: {what}")

    def note(self, what: str) -> None:
        """A line of the story."""
        if self.tell:
            self.story.append(f"{self.loop.time():10.4f}  {what}")

    def witness(self, kind: str, name: str, number: int) -> None:
        """Something that the trace holds."""
        line = f"{self.loop.time():.9f} {kind} {name} {number}\n".encode()
        if kind == "lost":  # a task group ends its tasks in no order
            self._unordered += zlib.crc32(line)
        else:
            self._trace.update(line)
        if kind == "lost" and name.endswith(".engine<"):
            self.engine_lost[name.split(".")[0]] = self.loop.time()

    def wall(self) -> int:
        """The wall clock of the engine's host, us."""
        return EPOCH + int(self.loop.time() * 1e6) + self.jump

    def committed(self, rows: Sequence[Row]) -> None:
        """A batch has become durable."""
        for row in rows:
            if row.kind not in ("EXPERIMENT", "ENGINE_STARTED"):
                self._trace.update(f"{row.seq} {row.kind} {row.sender} {row.sender_seq} {row.wall_us} ".encode())
                self._trace.update(row.body.replace(str(self.root), "").encode())
            if self.tell and row.kind != "METRIC":
                self.note(f"log {row.seq} {row.kind} trial {row.trial} {row.body[:150]}")
            self.ledger.add(row, self.loop.time())
            if self.ambush and not self.calm and (row.kind != "METRIC" or '"final":true' in row.body):
                trap = self.ambush.pop(row.kind, None)
                if trap is not None:
                    self.note(f"AMBUSH at {row.kind}: {trap[0]}")
                    self.loop.call_in(
                        self.loop.world, self.dice.uniform(0.0, self.dice.choice([0.003, 0.02])), trap[1], self
                    )
            if row.kind == "TRIAL_END" and row.trial is not None:
                attempt = len(self.ledger.order.get(row.trial, [])) - 1
                self.counted_at_end[row.trial, attempt] = bool(self.ledger.finals.get((row.trial, 0)))

    def counted_before(self, trial: int, attempt: int) -> bool:
        """Whether a single-phase trial had its counted final when this attempt ended."""
        return self.counted_at_end.get((trial, attempt), False)

    def started(self, trial: SimTrial) -> None:
        """P3: a command runs."""
        self.trials.append(trial)
        key = (trial.trial, trial.attempt)
        self.starts[key] = self.starts.get(key, 0) + 1
        self.note(f"{trial.host.name}: {key} runs as {trial.leader.pid}")
        if self.starts[key] > 1:
            self.complain("P3", f"launch {key} runs twice")
        if (trial.number, trial.attempt) not in self.ledger.launches:
            self.complain("P3", f"launch {key} runs, and no LAUNCH is durable")
        if self.ledger.ids.get(trial.trial) != trial.number:
            self.complain("P3", f"launch {key} has number {trial.number}")
        if self.settings.wants:
            self._check_devices(trial)

    def _check_devices(self, trial: SimTrial) -> None:
        """P3: nobody runs on a device that is not given, is full, or is another experiment's."""
        launch = self.ledger.launches.get((trial.number, trial.attempt), {})
        key, host = (trial.trial, trial.attempt), trial.host
        if (trial.number, trial.attempt) in self.ledger.refused or launch.get("host") != host.name:
            self.complain("P3", f"launch {key} runs on {host.name}, and is not meant to")
        given = [f"{host.name}-gpu{index}" for index in trial.devices]
        if sorted(given) != sorted(launch.get("devices", [])):
            self.complain("P3", f"launch {key} runs with {given}, given were {launch.get('devices')}")
        for index in trial.devices:
            users = [one for one in host.trials if one.leader.alive and one is not trial and index in one.devices]
            if len(users) >= self.settings.most:
                self.complain("P3", f"launch {key} runs on device {index} of {host.name} beside {len(users)} others")
            if f"{host.name}-gpu{index}" in host.rivals and not self.settings.share:
                self.complain("P3", f"launch {key} runs on device {index} of {host.name}, which a rival has")

    def check_first(self, trial: SimTrial, phase: int, parameters: Any) -> None:
        """A trial reads its first parameters."""
        import json

        key = (trial.number, trial.attempt)
        if self.settings.multi_phase and (trial.number, phase) not in self.ledger.parameters and phase == -1:
            return
        if self.ledger.parameters.get((trial.number, phase)) != json.dumps(parameters):
            self.complain("P2", f"launch {key} got parameters that are not those of phase {phase}")
        if phase != self.ledger.first_phase.get(key, 0):
            self.complain("P2", f"launch {key} begins with phase {phase}, not {self.ledger.first_phase.get(key)}")

    def check_recorded(self, told: Told, number: int) -> None:
        """P1: a process is told that a report is in the log."""
        if self.ledger.last.get(told.sender, 0) < number:
            self.complain("P1", f"{told.sender} is told that {number} is recorded, and it is not")

    def check_answer(self, told: Told, number: int, answer: wire.Parameters) -> None:
        """P2: a process gets its next parameters."""
        import json

        if answer.parameters is None:
            return
        trial = self.ledger.ids.get(told.trial, -1)
        if self.ledger.parameters.get((trial, answer.phase)) != json.dumps(json.loads(answer.parameters)):
            self.complain("P2", f"{told.sender} is given parameters that the log does not have for {answer.phase}")
        for other in self.told:
            for asked, (phase, text) in other.answers.items():
                same = (other.trial, other.attempt, phase) == (told.trial, told.attempt, answer.phase)
                if same and text is not None and (other.sender, asked) != (told.sender, number):
                    self.complain("P2", f"{told.sender} is given phase {phase} a second time")

    def signalled(self, process: SimProcess, number: int) -> None:
        """P4: nobody is signalled but for a recorded reason."""
        if process.role not in ("trial", "worker") or process.launch is None:
            return
        *_, name, attempt = os.fsdecode(process.launch).split("/")
        trial = next(
            (found for found in reversed(self.trials) if (found.trial, found.attempt) == (name, int(attempt))), None
        )
        if trial is None or not trial.leader.alive or trial.orphaned:
            return
        key = (trial.number, trial.attempt)
        now = self.loop.time()
        if number == 15:
            process.termed = min(process.termed, now)
        elif (
            process.role == "trial"
            and now - process.termed < self.settings.grace - 0.01
            and not self.ledger.forced
            and self.ledger.status not in RESTING
        ):
            self.complain("P4", f"launch {key} is killed {now - process.termed:.3f} s after TERM")
        if key in self.ledger.kills or self.ledger.ends.get(key, {}).get("status") == "LOST":
            return
        host = trial.host
        since = max(self.engine_lost.get(host.name, 0.0), host.keeper_since)
        attached = [pair for pair in self.network.living(f"{host.name}.engine") if pair[0].node.alive]
        if not attached and self.loop.time() - since >= self.settings.lease:
            trial.leased = True
            return
        if trial.leased:
            return
        self.complain("P4", f"launch {key} gets signal {number}, and nobody asked for it")

    def check_wait(self, told: Told, since: float, what: str) -> None:
        """P10: with everything in order nobody waits long."""
        host = next(host for host in self.hosts if host.name == told.host)
        if self.engine() is None or host.absent:
            return
        mended = max(self.calm_at, self.engine_started, host.troubled_at) + 15.0
        waited = self.loop.time() - max(since, mended)
        if self.calm and waited > 4.0 and not self.finished:
            self.complain("P10", f"{told.sender} waited {waited:.1f} s for {what}")

    # -- the experiment -----------------------------------------------------------------------------------------------
    def _config(self) -> Config:
        settings = self.settings
        assessor = Algorithm(name="Medianstop") if settings.assessor else None
        return Config(
            search_space={"x": {"_type": "uniform", "_value": [0, 1]}, "k": {"_type": "choice", "_value": ["a", "b"]}},
            trial_command="true",
            trial_code_directory=str(CODE),
            trial_concurrency=settings.concurrency,
            max_trial_number=settings.trials,
            max_trial_duration=f"{settings.longest}s",
            multi_phase=settings.multi_phase,
            max_phases_per_trial=settings.phases if settings.multi_phase else None,
            max_retries=settings.retries,
            max_failures=0,
            stop_grace=f"{settings.grace}s",
            engine_lease=f"{settings.lease}s",
            seed=settings.seed,
            python="/usr/bin/python3",
            tuner=Algorithm(name=settings.tuner),
            assessor=assessor,
            trial_gpu_number=settings.wants or None,
            training_service=self._service(),
        )

    def _service(self) -> TrainingService:
        """The hosts as the config names them."""
        settings = self.settings
        if not settings.devices:
            return TrainingService()
        return TrainingService(
            platform="remote",
            use_active_gpu=settings.share,
            max_trial_number_per_gpu=settings.most,
            machine_list=[Machine(host=host.name, name=host.name, slots=settings.slots) for host in self.hosts],
        )

    async def _engine(self, node: Node, place: int) -> str:
        ports = SimPorts(self, node)
        folder = Folder("simulate", self.root / "engine", self.root / "engine")

        def full(message: str) -> None:
            self.note(message)

        if not self.disk.rows:
            engine = await Engine.create(folder, self._config(), "simulation", full, ports)
        else:
            engine = await Engine.resume(folder, "simulation", full, ports=ports)
        self.engines[place] = (node, engine)
        engine.on_fact = self._sample
        try:
            await engine.run([Service(self, host, node) for host in self.hosts])
        finally:
            if node.alive:
                await engine.close()
        return engine.state.status

    def _sample(self, state: State, fact: Fact) -> None:
        """P6: the live state's hash, now and then."""
        if fact.seq % self.stride == 0:
            self.digests[fact.epoch, fact.seq] = state.digest()

    def _check_replay(self) -> None:
        state = State()
        for row in self.disk.rows:
            reduce(state, decode(row))
            live = self.digests.get((row.epoch, row.seq))
            if live is not None and live != state.digest():
                self.complain("P6", f"the replayed state differs from the live one at event {row.seq}")
                return

    async def _supervise(self) -> None:
        """Start an engine whenever none runs, until the experiment is done."""
        dice = self.dice
        while True:
            place = len(self.engines)
            node = self.loop.node(f"engine{place}")
            self.engines.append((node, None))
            self.note(f"engine {place} starts")
            self.engine_started = self.loop.time()
            task = self.loop.spawn(node, self._engine(node, place))
            gone = asyncio.Event()
            node.on_kill.append(gone.set)

            def over(task: asyncio.Task[str], gone: asyncio.Event = gone) -> None:
                if not task.cancelled():
                    task.exception()  # a zombie's is nobody's to hear
                gone.set()

            task.add_done_callback(over, context=self.loop.world.context)
            self._replaced = gone
            await gone.wait()
            if task.done():
                self._ended(place, node, task)
                if self.ledger.status == "DONE" and not task.cancelled() and task.exception() is None:
                    return
            self.note(f"engine {place} is gone")
            longest = 1.0 if self.calm else dice.choice([0.5, 5.0, 5.0, 1.5 * self.settings.lease])
            await asyncio.sleep(dice.uniform(0.0, longest))

    def _ended(self, place: int, node: Node, task: asyncio.Task[str]) -> None:
        self.loop.kill(node)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for single in _flat(error):
                expected = (
                    isinstance(single, LogFenced)
                    or (isinstance(single, LogIO) and "EIO" in str(single))
                    or "a newer engine has the keeper" in str(single)
                )
                if not expected:
                    import traceback

                    self.complain("P10", f"engine {place} failed: {single!r}")
                    self.note("".join(traceback.format_exception(single)))
        elif self.ledger.status not in RESTING:
            self.complain("P10", f"engine {place} ended with {self.ledger.status}")

    # -- faults -------------------------------------------------------------------------------------------------------
    async def _faults(self) -> None:
        settings = self.settings
        span = max(
            20.0, settings.trials / settings.concurrency * settings.reports * settings.phases * settings.pause * 2
        )
        for _ in range(settings.faults):
            await asyncio.sleep(self.dice.expovariate(settings.faults / span))
            if self.finished:
                break
            self.step += 1
            name, fault = self.dice.choice([*FAULTS, *DEVICE_FAULTS] if settings.devices else FAULTS)
            self.note(f"FAULT {self.step}: {name}")
            self.witness("fault", name, self.step)
            fault(self)
        await asyncio.sleep(self.dice.uniform(0.0, 5.0))
        self._mend()

    def _mend(self) -> None:
        """No fault from here on."""
        self.note("all is mended")
        self.calm = True
        self.calm_at = self.loop.time()
        self.disk.full, self.disk.slow, self.disk.fail_next = False, 0.0, ""
        self.network.weather.slow = 0.0
        self.weather.spawn_errors = 0.0
        for host in self.hosts:
            host.up, host.full = not host.absent or host.up, False
            host.busy.clear()
            host.rival_claims_no_more()
            for index in range(self.settings.devices):
                host.rival_leaves(index)
        for node in self.loop.nodes:
            self.loop.go_on(node)

    def later(self, longest: float, mend: Callable[..., None], *what: Any) -> None:
        """Undo a fault after a while."""
        self.loop.call_in(self.loop.world, self.dice.uniform(0.0, longest), mend, *what)

    def engine(self) -> tuple[Node, Engine | None] | None:
        """The newest engine, if it lives."""
        if not self.engines or not self.engines[-1][0].alive or self.engines[-1][0].paused:
            return None
        return self.engines[-1]

    # -- the whole ----------------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Live through it."""
        settings = self.settings
        place = MEMORY if MEMORY.is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="tune-simulation-", dir=place))
        CODE.mkdir(exist_ok=True)
        before = structlog.get_config()
        said = io.StringIO()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.loop = loop = SimLoop(random.Random(f"loop {self.seed}"), 30_000 + settings.events * 300)
        try:
            with contextlib.redirect_stderr(said):
                self.network = Network(loop, str(self.seed), self.witness)
                self.disk = Disk(self)
                self.ledger = Ledger(self.complain, settings)
                self.hosts = [Host(self, index) for index in range(settings.hosts)]
                self.stride = max(10, settings.events // 30)
                asyncio.set_event_loop(None)
                try:
                    loop.run_until_complete(loop.spawn(loop.world, self._live()))
                except Stuck as error:
                    self.complain("P10", str(error))
                for failure in loop.failures[:5]:
                    self.complain("P8", failure)
                self._check_replay()
                final_judgement(self)
                end = loop.time()
                steps = loop.steps
                loop.dispose()
        finally:
            structlog.configure(**before)
            shutil.rmtree(self.root, ignore_errors=True)
        self.story += said.getvalue().splitlines() if self.tell else []
        return Outcome(
            settings,
            self.violations,
            f"{self._trace.hexdigest()}{self._unordered % 2**32:08x}",
            len(self.disk.rows),
            steps,
            end,
            self.failed_at,
            self.story,
        )

    async def _live(self) -> None:
        if self.settings.faults and self.dice.random() < 0.15:
            self.loop.call_in(self.loop.world, self.dice.uniform(1.0, 10.0), _absence, self)
        faults = self.loop.spawn(self.loop.world, self._faults())
        main = self.loop.spawn(self.loop.world, self._supervise())
        await asyncio.wait([main, faults], return_when=asyncio.FIRST_COMPLETED)
        if not main.done():
            await faults
            settings = self.settings
            each = settings.longest + 4 * settings.grace + 10.0
            patience = 4 * settings.lease + each * (settings.trials / settings.concurrency + 2) * (settings.retries + 2)
            await asyncio.wait([main], timeout=patience)
        self.finished = True
        if not main.done():
            self.complain("P10", f"{self.ledger.status} so long after the last fault")
        elif main.exception() is not None:
            raise main.exception()  # type: ignore[misc]
        if not faults.done():
            faults.cancel()
            self._mend()
        await asyncio.sleep(2.0)


class Service:
    """The training service of one simulated host: it starts the keeper and reaches it."""

    def __init__(self, world: World, host: Host, node: Node) -> None:
        self.world, self.host, self.node = world, host, node
        self.name = host.name

    async def channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self.host
        if not host.up:
            await asyncio.sleep(0.1)
            raise OSError(113, "no route to host")
        if host.keeper is None:
            await host.start_keeper()
            host.keeper_since = self.world.loop.time()
        return await self.world.network.open(self.node, host.address, f"{host.name}.engine")


def _flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [single for part in error.exceptions for single in _flat(part)]
    return [error]


# -- the faults -------------------------------------------------------------------------------------------------------
def _kill_engine(world: World) -> None:
    found = world.engine()
    if found is not None:
        world.loop.kill(found[0])


def _zombie(world: World) -> None:
    """The engine falls asleep, another one takes over, and then it wakes up."""
    found = world.engine()
    if found is not None:
        world.loop.pause(found[0])
        world._replaced.set()
        world.later(60.0, world.loop.go_on, found[0])


def _pause_engine(world: World) -> None:
    found = world.engine()
    if found is not None:
        world.loop.pause(found[0])
        world.later(10.0, world.loop.go_on, found[0])


def _cut(world: World) -> None:
    host = world.dice.choice(world.hosts)
    longest = world.dice.choice([0.01, 1.0, 10.0])  # of half-open
    for pair in world.network.living(f"{host.name}.engine"):
        world.network.cut(pair, longest)


def _cut_trials(world: World) -> None:
    host = world.dice.choice(world.hosts)
    for pair in world.network.living(f"{host.name}.trial"):
        world.network.cut(pair, 0.01)


def _kill_keeper(world: World) -> None:
    world.dice.choice(world.hosts).kill_keeper()


def _repeat(world: World) -> None:
    """A keeper says everything twice, as the channel allows it to."""
    host = world.dice.choice(world.hosts)
    keeper = host.keeper_object
    if keeper is None or host.keeper is None:
        return

    def again() -> None:
        for launch in list(keeper.launches.values()):
            if launch.told and launch.started.is_set() and not launch.failed:
                keeper._tell_launched(launch)
                launch.exited_said = False
                keeper.forward.begin(launch, {})
                keeper._maybe_exited(launch)

    world.loop.call_in(host.keeper, 0.0, again)


def _pause_keeper(world: World) -> None:
    host = world.dice.choice(world.hosts)
    if host.keeper is not None:
        world.loop.pause(host.keeper)
        world.later(8.0, world.loop.go_on, host.keeper)


def _reachable(host: Host) -> None:
    host.up = not host.absent


def _reboot(world: World) -> None:
    host = world.dice.choice(world.hosts)
    host.reboot()
    host.troubled_at = world.loop.time()
    host.up = False
    world.later(world.dice.choice([5.0, 2.0 * world.settings.lease]), _reachable, host)


def _unreachable(world: World) -> None:
    host = world.dice.choice(world.hosts)
    host.troubled_at = world.loop.time()
    host.up = False
    for pair in world.network.living(f"{host.name}.engine"):
        world.network.cut(pair, 5.0)
    if world.dice.random() < 0.4:
        host.kill_keeper()
    world.later(world.dice.choice([5.0, 4.0 * world.settings.lease]), _reachable, host)


def _absence(world: World) -> None:
    """A host is gone for so long that its trials are given up, and comes back while they may still run."""
    host = world.dice.choice(world.hosts)
    world.note(f"ABSENCE of {host.name}")
    host.troubled_at = world.loop.time()
    host.up, host.absent = False, True
    for pair in world.network.living(f"{host.name}.engine"):
        world.network.cut(pair, 1.0)
    if world.dice.random() < 0.6:
        host.kill_keeper()

    def back() -> None:
        host.up, host.absent = True, False
        host.troubled_at = world.loop.time()

    away = world.settings.lease + 2 * world.settings.grace + world.dice.uniform(1.0, 10.0)
    world.loop.call_in(world.loop.world, away, back)


def _kill_process(world: World) -> None:
    """SIGKILL to a waiter or a trial, from outside."""
    host = world.dice.choice(world.hosts)
    victims = [process for process in host.processes.values() if process.role in ("waiter", "trial")]
    if victims:
        victim = world.dice.choice(victims)
        victim.end(-9)


def _kill_tuner(world: World) -> None:
    found = world.engine()
    for node in world.loop.nodes:
        if found is not None and node.alive and node.name.startswith(f"{found[0].name}.tuner"):
            world.loop.kill(node)


def _eio(world: World) -> None:
    world.disk.fail_next = world.dice.choice(["before", "after"])


def _enospc(world: World) -> None:
    world.disk.full = True
    world.later(20.0, setattr, world.disk, "full", False)


def _host_full(world: World) -> None:
    host = world.dice.choice(world.hosts)
    host.full = True
    world.later(5.0, setattr, host, "full", False)


def _slow_disk(world: World) -> None:
    world.disk.slow = world.dice.uniform(0.05, 2.0)
    world.later(20.0, setattr, world.disk, "slow", 0.0)


def _slow_network(world: World) -> None:
    world.network.weather.slow = world.dice.uniform(0.05, 3.0)
    world.later(20.0, setattr, world.network.weather, "slow", 0.0)


def _slow_disk_and_cut(world: World) -> None:
    """While a commit takes its time, the host is lost and found again."""
    _slow_disk(world)
    for _ in range(5):
        world.later(10.0, _cut, world)


def _clock_jump(world: World) -> None:
    jump = world.dice.choice([-1, 1]) * world.dice.randrange(10**6, 10**12)
    if world.dice.random() < 0.5:
        world.jump += jump
    else:
        world.dice.choice(world.hosts).jump += jump


def _sweep(world: World) -> None:
    listener = world.network.listeners.get(world.dice.choice(world.hosts).address)
    if listener is not None:
        listener.swept = True


def _spawn_errors(world: World) -> None:
    world.weather.spawn_errors = 0.5
    world.later(5.0, setattr, world.weather, "spawn_errors", 0.0)


def _stranger(world: World) -> None:
    """Somebody computes on a device for a while."""
    host, index = world.dice.choice(world.hosts), world.dice.randrange(world.settings.devices)
    host.busy.add(index)
    world.later(15.0, host.busy.discard, index)


def _rival(world: World) -> None:
    """Another experiment has a device for a while."""
    host, index = world.dice.choice(world.hosts), world.dice.randrange(world.settings.devices)
    if host.rival(index):
        world.note(f"a rival takes device {index} of {host.name}")
        world.later(15.0, host.rival_leaves, index)


def _rival_claims(world: World) -> None:
    """Another experiment waits for a device, and has had none."""
    host = world.dice.choice(world.hosts)
    host.rival_claims()
    world.later(15.0, host.rival_claims_no_more)


def _rivals(world: World) -> None:
    """Other experiments come and go."""
    for _ in range(5):
        world.later(20.0, _rival, world)


def _user_kill(world: World) -> None:
    found = world.engine()
    if found is not None and found[1] is not None and not found[1].ended and world.ledger.names:
        _submit(world, found, AskKill("dice", world.dice.choice(sorted(world.ledger.names))))


def _user_stop(world: World) -> None:
    found = world.engine()
    if found is not None and found[1] is not None and not found[1].ended:
        _submit(world, found, AskStop("dice", force=world.dice.random() < 0.3))


def _user_update(world: World) -> None:
    found = world.engine()
    if found is not None and found[1] is not None and not found[1].ended:
        _submit(
            world, found, AskUpdate("dice", trial_concurrency=world.dice.randrange(1, world.settings.concurrency + 2))
        )


def _lie_in_wait(world: World) -> None:
    """Let something happen just when an event of some kind has been committed."""
    kind = world.dice.choice(KINDS)
    world.ambush[kind] = world.dice.choice(AMBUSHES)
    if world.settings.devices and world.dice.random() < 0.5:  # when a device has just been given back
        world.ambush["TRIAL_END"] = ("rival takes a device", _rival)


def _submit(world: World, found: tuple[Node, Engine | None], request: Any) -> None:
    node, engine = found

    def ask() -> None:
        assert engine is not None
        with contextlib.suppress(Refused):
            engine.submit(request)

    world.loop.call_in(node, 0.0, ask)


KINDS = (
    "LAUNCH",
    "LAUNCHED",
    "PARAMETER",
    "REQUEST_PARAMETER",
    "METRIC",
    "TRIAL_END",
    "KILL",
    "HOST",
    "STATUS",
    "LAUNCH",
)
AMBUSHES: list[tuple[str, Callable[[World], None]]] = [
    ("kill engine", _kill_engine),
    ("kill engine", _kill_engine),
    ("zombie engine", _zombie),
    ("cut", _cut),
    ("cut", _cut),
    ("cut trials", _cut_trials),
    ("kill keeper", _kill_keeper),
    ("kill keeper", _kill_keeper),
    ("reboot", _reboot),
    ("keeper repeats itself", _repeat),
    ("kill tuner host", _kill_tuner),
    ("slow disk", _slow_disk),
    ("slow disk and a cut", _slow_disk_and_cut),
    ("slow disk and a cut", _slow_disk_and_cut),
    ("slow network", _slow_network),
    ("user stops", _user_stop),
]
FAULTS: list[tuple[str, Callable[[World], None]]] = [
    ("kill engine", _kill_engine),
    ("kill engine", _kill_engine),
    ("kill engine", _kill_engine),
    ("zombie engine", _zombie),
    ("pause engine", _pause_engine),
    ("cut", _cut),
    ("cut", _cut),
    ("cut trials", _cut_trials),
    ("kill keeper", _kill_keeper),
    ("kill keeper", _kill_keeper),
    ("pause keeper", _pause_keeper),
    ("keeper repeats itself", _repeat),
    ("reboot", _reboot),
    ("unreachable", _unreachable),
    ("unreachable", _unreachable),
    ("kill process", _kill_process),
    ("kill tuner host", _kill_tuner),
    ("EIO", _eio),
    ("disk full", _enospc),
    ("host's disk full", _host_full),
    ("slow disk", _slow_disk),
    ("slow disk and a cut", _slow_disk_and_cut),
    ("slow network", _slow_network),
    ("clock jump", _clock_jump),
    ("socket swept", _sweep),
    ("spawn errors", _spawn_errors),
    ("user kills", _user_kill),
    ("user stops", _user_stop),
    ("user updates", _user_update),
    *[("ambush", _lie_in_wait)] * 12,
]
DEVICE_FAULTS: list[tuple[str, Callable[[World], None]]] = [
    *[("stranger on a device", _stranger)] * 3,
    *[("rival takes a device", _rival)] * 3,
    *[("rivals come and go", _rivals)] * 4,
    *[("rival claims a device", _rival_claims)] * 2,
]
