"""The keeper: the small process on a host, one per experiment, that starts trials and carries their reports.

`python -m tune.trial_sdk.keeper FOLDER` serves the experiment in FOLDER over one Unix socket, to its trials and to the
engine; the first message on a connection tells which. With `--dial` the engine is met at a TCP address instead
(dial.py); the trials notice nothing of it. It outlives the engine, and it holds nothing that is not on
disk: a keeper that is killed is started again and goes on. Its rules (tests carry their numbers):

K1   One keeper a folder: `keeper.lock` is flocked; a second one leaves at once, quietly, with exit code 0.
K2   A launch is started at most once: the mkdir of its folder is the lock. A second Launch is answered like a Probe;
     one that could not be started leaves `failed` and never will be.
K3   A trial lives as long as its waiter holds the lock on `alive`; what a pid says does not count.
K4   A report is forwarded in order and as it stands in its spool, from the first that the engine has not recorded;
     nothing of a launch is said to an engine before it was told of it (Launch or Probe).
K5   All spool bytes of a launch that stood when it ended go out before its Exited, on the same connection; Exited is
     said once a connection until Forget.
K6   At most 1 MiB of a process and 8 MiB in all are unacknowledged; processes take turns, so that a flooding trial
     does not starve others.
K7   A final's process hears Recorded when the engine has acknowledged it, and of progress on the way; a request's
     process hears the answer; with no engine it hears that. Requests are told again to each new engine.
K8   A stop is StopNotice, TERM to the whole tree, `grace` seconds in which reports still count, KILL until nothing is
     left, setsid children included: all that ever was in the launch's control group, where there can be one
     (control_group.py). A stop that is said again may only shorten the grace.
K9   A waiter that dies without `exit`: its tree is killed, the code is None. After a normal end, what is left of the
     trial's process group is killed.
K10  No pid is signalled that is not surely the trial's: not a recycled one, not the keeper or an ancestor, nothing of
     another host, boot or pid namespace.
K11  A keeper that has had no engine for the lease ends its trials (`reason` says so) and then itself; with no trial
     running it just ends.
K12  Garbage on a connection ends that connection only, and so does a trial that does not read.
K13  One engine, the newest: an older epoch is refused, the same or a newer one replaces the connection that is there.
K14  At its start it takes over every launch whose `alive` is held.
K15  The devices of a launch are leased before anything of it is made, against all experiments of the user (leases.py);
     when they can't be had nothing is made, and NotLaunched is said. An engine that wants to know hears of the devices
     when it has attached, whenever something about them has changed, and when refused ones could be had again.
K16  An experiment's claim on devices is held as long as its engine is there and has not taken it back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from . import channel, control_group, dial, process_tree, proof, wire
from .control_group import Group
from .crash_point import VARIABLE, point
from .device_desk import DeviceDesk
from .forwarding import Forwarder
from .launches import NAME, Owner
from .machine import Machine, Socket
from .peers import Connection, Key, Launch, log
from .socket_dir import is_private, make_private, socket_path

TICK = 1.0
PR_SET_CHILD_SUBREAPER = 36


class Lock(Struct, frozen=True):
    """What `keeper.lock` holds."""

    pid: int
    host: str
    socket: str


class Keeper:
    """The whole state, all of it in one event loop; every method runs to its end without waiting, but for tasks."""

    def __init__(self, folder: Path, lease: float, grace: float, machine: Machine | None = None) -> None:
        self.folder = folder
        self.machine = machine or Machine()
        self.trials = folder / "trials"
        self.lease, self.grace = lease, grace
        self.me = self.machine.me()
        self.path = Path()
        self.launches: dict[Key, Launch] = {}
        self.experiment = ""
        self.forward = Forwarder(self.launches, self._maybe_exited)
        self.groups: control_group.Groups | None = None
        self._group_homes: set[Path] = set()  # where groups of this experiment lie, also those of earlier keepers
        self.waiters: dict[int, Launch] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.done = asyncio.Event()
        self._heard = self.machine.monotonic()
        self._socket: Socket | None = None
        self._epoch_file = folder / "keeper.epoch"
        self.desk = DeviceDesk(folder, self.machine, self.forward, self._task)

    # -- life ---------------------------------------------------------------------------------------------------------
    async def run(self, path: Path, ready: Callable[[], bool], target: dial.Target | None = None) -> None:
        """Serve until the experiment is over, the lease has run out, or somebody sends TERM (trials then go on).

        `ready` is called once it listens, and says whether anybody wanted to know. `target` is dialled all the while.
        """
        self.path = path
        self.machine.settle(self._reap, self.done.set)
        found = self.machine.groups(self.folder)
        if isinstance(found, str):
            log(f"control groups: {control_group.told(found)}")
        else:
            self.groups = found
            self._group_homes.add(found.parent)
        self._adopt()
        self._socket = await self.machine.listen(path, lambda: Connection(self))
        if not ready() and not self.launches:  # who started it has gone: with no trial found there is no use
            self.done.set()
        helpers = [self._task(self._ticks(), "ticks")]
        if target is not None:
            helpers.append(self._task(dial.Dialler(target, self).run(), "dial"))
        try:
            await self.done.wait()
        finally:
            for helper in helpers:
                helper.cancel()
            self._socket.close()
            self._remove_groups()
            if self.forward.engine is not None:
                self.forward.engine.close()
            for _ in range(200):  # what was said last should still be heard
                if self.forward.engine is None:
                    break
                await asyncio.sleep(0.01)

    async def _ticks(self) -> None:
        """What nobody tells: dead waiters without a pidfd, spools that nobody poked for, the lease, the socket."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self._tick()
            except OSError as error:  # a full disk, say; the next tick tries again
                log(f"a tick failed: {error}")

    async def _tick(self) -> None:
        for launch in list(self.launches.values()):
            if launch.over:
                continue
            if launch.watch < 0 or not (launch.started.is_set() or launch.piped):
                self._watch(launch)
                self._check(launch)
            if launch.told and self.forward.engine is not None:
                self.forward.look(launch)
        self.desk.tick()
        if self._socket is not None and not self._socket.bound():
            make_private(self.path.parent)
            self._socket.close()
            self._socket = await self.machine.listen(self.path, lambda: Connection(self))
            log("the socket was swept away and is bound again")
        if self.forward.engine is None and self.machine.monotonic() - self._heard > self.lease:
            await self._lease_over()

    def _adopt(self) -> None:
        """K14: take over what runs."""
        for path in sorted(self.trials.glob("*/*/owner")):
            trial, attempt = path.parent.parent.name, path.parent.name
            if not attempt.isdigit():
                continue
            folder = self.machine.folder(path.parent)
            owner = folder.owner()
            if owner is not None and self._is_mine(owner):
                group = control_group.found(owner.group, self.folder, trial, int(attempt))
                if group is not None:
                    self._group_homes.add(group.path.parent)
            if folder.held():
                self._load((trial, int(attempt)))
        for home in self._group_homes:
            Group(home).let_go(at_once=True)  # a keeper may have died over a Shutdown

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log(f"{task.get_name()} failed: {error!r}")

    # -- connections --------------------------------------------------------------------------------------------------
    def greeted(self, connection: Connection, message: wire.Hello | channel.Attach) -> None:
        """A connection said what it is."""
        match message:
            case wire.Hello():
                trial, _, attempt = message.launch.rpartition("/")
                known = NAME.match(trial) and attempt.isdigit() and NAME.match(message.process)
                launch = self.launches.get((trial, int(attempt))) if known else None
                if message.version != wire.VERSION or launch is None:
                    connection.close()
                    return
                connection.launch, connection.process = launch, message.process
                launch.connections[connection] = None
                connection.send(wire.EngineState(self.forward.engine is not None))
                if launch.ending is not None:
                    connection.send(wire.StopNotice())
            case channel.Attach():
                self._attach(connection, message)

    def _attach(self, connection: Connection, message: channel.Attach) -> None:
        """K13."""
        latest = self._epoch()
        if message.version != wire.VERSION or message.epoch < latest:
            reason = f"epoch {message.epoch} is older than {latest}"
            if message.version != wire.VERSION:
                reason = f"version {message.version} is not {wire.VERSION}"
            connection.send(channel.Refused(reason))
            connection.close()
            return
        if message.epoch > latest:
            try:
                temporary = self._epoch_file.with_suffix(".new")
                temporary.write_text(str(message.epoch))
                temporary.replace(self._epoch_file)
            except OSError as error:  # a full disk must not keep the engine out
                log(f"{self._epoch_file}: {error}")
        old, self.forward.engine = self.forward.engine, connection
        connection.engine = message
        self.experiment = message.experiment
        if old is not None:
            old.abort()
        self._forget_sent()
        connection.send(channel.Attached(self.me.host, self.me.keeper, self.me.boot))
        self._tell_trials(connected=True)
        self.desk.look_soon()

    def _epoch(self) -> int:
        try:
            return int(self._epoch_file.read_text())
        except (OSError, ValueError):
            return 0

    def lost(self, connection: Connection) -> None:
        """A connection ended."""
        if connection.launch is not None:
            connection.launch.connections.pop(connection, None)
        if connection is self.forward.engine:
            self.forward.engine = None
            self._heard = self.machine.monotonic()
            self._forget_sent()
            self._tell_trials(connected=False)

    def _forget_sent(self) -> None:
        """What the last engine was sent and told does not count for the next one (K4)."""
        self.forward.reset()
        self.desk.reset()
        for launch in list(self.launches.values()):
            launch.told = launch.exited_said = False
            if launch.over:
                self._drop(launch)  # its folder has everything, should the next engine ask

    def _tell_trials(self, *, connected: bool) -> None:
        for launch in self.launches.values():
            for connection in list(launch.connections):
                connection.send(wire.EngineState(connected))

    def from_trial(self, connection: Connection, message: wire.FromTrial) -> None:
        """A trial's process said something."""
        launch = connection.launch
        if launch is None:
            return
        match message:
            case wire.Hello():
                connection.abort()
            case wire.Poke():
                self.forward.more(launch, connection.process)
            case wire.Waiting():
                connection.waiting, connection.kind, connection.asked = message.number, "", False
                self.forward.more(launch, connection.process)
                self.forward.serve(launch, connection)

    def from_engine(self, connection: Connection, message: channel.ToKeeper) -> None:
        """The engine said something."""
        if connection is not self.forward.engine:
            return
        match message:
            case channel.Attach():
                raise wire.WireError("a second Attach")
            case channel.Launch():
                self._launch(message)
            case channel.Probe():
                self._probe(_key(message.trial, message.attempt), message.recorded)
            case channel.Stop():
                self._stop(_key(message.trial, message.attempt), message.grace)
            case channel.Ack():
                self.forward.ack(message)
            case channel.Answer():
                self.forward.answer(message)
            case channel.Claim():
                self.desk.lay(message)
            case channel.Forget():
                launch = self.launches.get((message.trial, message.attempt))
                if launch is not None and launch.over:
                    self._drop(launch)
            case channel.Shutdown():
                self._task(self._shutdown(), "shutdown")

    # -- launching ----------------------------------------------------------------------------------------------------
    def _launch(self, message: channel.Launch) -> None:
        """K2, K15."""
        key = _key(message.trial, message.attempt)
        with contextlib.ExitStack() as block:
            if message.devices and not self._path(key).is_dir():
                refused = self.desk.refuses(message, block)
                if refused is not None:
                    self.forward.say(refused)
                    return
            self._make(key, message)

    def _make(self, key: Key, message: channel.Launch) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError:
            launch = self.launches.get(key)
            if launch is not None and launch.told:
                self._tell_launched(launch)  # said twice on one connection: reports are on their way already
            else:
                self._probe(key, {})
            return
        except OSError as error:
            self.forward.say(channel.LaunchFailed(*key, f"{path}: {error.strerror}"))
            return
        launch = Launch(*key, path, self.machine)
        point("keeper.made")
        launch.told = True
        self.launches[key] = launch
        try:
            self._start(launch, message)
        except OSError as error:
            self._failed(launch, f"{error.filename or path}: {error.strerror or error}")

    def _start(self, launch: Launch, message: channel.Launch) -> None:
        folder = launch.folder
        shared = message.env.get("TUNE_OUTPUT_DIR", "")  # of a network file system, whose silence may not stop us
        if not shared and not Path(message.cwd).is_dir():
            raise NotADirectoryError(0, "no such folder", message.cwd)
        launch.tree.group = self._group(launch)
        owner = self.machine.me()
        if launch.tree.group is not None:
            owner = msgspec.structs.replace(owner, group=os.fspath(launch.tree.group.path))
        folder.write("owner", msgspec.json.encode(owner).decode())
        parameters = message.parameters or "{}"
        folder.write("parameters.json", f'{{"phase":{message.phase},"parameters":{parameters}}}')
        for name in ("stdout", "stderr"):
            _link(folder.path.parent / name, f"{launch.attempt}/{name}")
        alive = folder.lock()
        try:
            self.desk.lease(folder.path, message)
            pid = self.machine.spawn(
                folder.path,
                message.command,
                message.cwd,
                self._environment(launch, message),
                alive,
                lambda: self._pid_told(launch),
                os.fspath(launch.tree.group.join) if launch.tree.group is not None else "",
            )
        except ValueError as error:  # a null byte in the command or the environment
            raise OSError(0, str(error), message.command) from None
        finally:
            os.close(alive)
        point("keeper.spawned")
        launch.piped = True
        launch.tree.waiter = self.machine.processes.read(pid)
        self._watch_pid(launch, pid)

    def _group(self, launch: Launch) -> Group | None:
        if self.groups is None:
            return None
        try:
            return self.groups.make(launch.trial, launch.attempt)
        except OSError as error:
            log(f"no control groups any more: {error}")
            self.groups = None
            return None

    def _environment(self, launch: Launch, message: channel.Launch) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name not in message.unset}
        env.pop(VARIABLE, None)  # the keeper's own, and no trial's
        env.update(message.env)
        env.update(self.desk.environment(message))
        if message.path:
            env["PATH"] = message.path + os.pathsep + env.get("PATH", os.defpath)
        output = message.env.get("TUNE_OUTPUT_DIR", os.fspath(launch.folder.path.parent))
        experiment = self.experiment
        env.update(
            PYTHONUNBUFFERED="1",
            TUNE_EXPERIMENT_ID=experiment,
            TUNE_TRIAL_ID=launch.trial,
            TUNE_TRIAL_NUMBER=str(message.number),
            TUNE_ATTEMPT=str(launch.attempt),
            TUNE_OUTPUT_DIR=output,
            TUNE_CHECKPOINT_DIR=message.env.get(
                "TUNE_CHECKPOINT_DIR", os.fspath(launch.folder.path.parents[2] / "checkpoints")
            ),
            TUNE_CODE_DIR=message.cwd,
            TUNE_SOCKET=os.fspath(self.path),
            NNI_PLATFORM=message.env.get("NNI_PLATFORM", "local"),
            NNI_EXP_ID=experiment,
            NNI_TRIAL_JOB_ID=launch.trial,
            NNI_TRIAL_SEQ_ID=str(message.number),
            NNI_OUTPUT_DIR=output,
            NNI_CODE_DIR=message.cwd,
        )
        env.pop("TUNE_MULTI_PHASE", None)
        if message.multi_phase:
            env["TUNE_MULTI_PHASE"] = "1"
        return env

    def _pid_told(self, launch: Launch) -> None:
        """The inner shell told its pid, or ended without having run the command."""
        launch.tree.leader = launch.folder.leader()
        if launch.tree.leader is None:
            self._failed(launch, launch.folder.stderr().strip() or "the shell could not be started")
            return
        self._has_started(launch)
        self._check(launch)

    def _has_started(self, launch: Launch) -> None:
        launch.started.set()
        self._tell_launched(launch)
        self.forward.look(launch)

    def _failed(self, launch: Launch, reason: str) -> None:
        self._note(launch, "failed", reason)  # the folder alone already says that it is never started again
        launch.failed = reason
        launch.over = True
        launch.started.set()
        self._unwatch(launch)
        self._tell_launched(launch)
        self._drop(launch)

    @staticmethod
    def _note(launch: Launch, name: str, text: str) -> None:
        """Write a small file that a full disk may do without."""
        try:
            launch.folder.write(name, text)
        except OSError as error:
            log(f"{launch.folder.path}: {error}")

    def _tell_launched(self, launch: Launch) -> None:
        if launch.failed and launch.told:
            self.forward.say(channel.LaunchFailed(*launch.key, launch.failed))
        elif launch.started.is_set() and launch.told and launch.tree.leader is not None:
            self.forward.say(channel.Launched(*launch.key, launch.tree.leader[0], launch.folder.started()))

    def _probe(self, key: Key, recorded: dict[str, int]) -> None:
        """Say what became of a launch, and send what the engine does not have of it."""
        launch = self.launches.get(key) or self._load(key)
        if launch is None:
            self.forward.say(channel.NeverLaunched(*key))
            return
        launch.told, launch.exited_said = True, False
        self._tell_launched(launch)
        if launch.failed:
            self._drop(launch)
            return
        self.forward.begin(launch, recorded)
        self._maybe_exited(launch)

    def _load(self, key: Key) -> Launch | None:
        """A launch from its folder; None when there is no such folder."""
        path = self._path(key)
        if not path.is_dir():
            return None
        launch = Launch(*key, path, self.machine)
        folder = launch.folder
        owner = folder.owner()
        launch.mine = owner is not None and self._is_mine(owner)
        if owner is not None and launch.mine:
            launch.tree.group = control_group.found(owner.group, self.folder, *key)
            if launch.tree.group is not None:
                launch.tree.group.let_go(at_once=True)  # a keeper may have died over a kill
        launch.failed = folder.text("failed")
        self.launches[key] = launch
        if launch.failed:
            launch.over = True
            return launch
        launch.tree.leader = folder.leader()
        if launch.tree.leader is not None:
            launch.started.set()
        launch.tree.waiter = folder.waiter()
        self._watch(launch)
        self._check(launch)
        return launch

    def _is_mine(self, owner: Owner) -> bool:
        """Whether the pids of a launch mean what they mean to this keeper."""
        return (owner.host, owner.boot, owner.namespace) == (self.me.host, self.me.boot, self.me.namespace)

    def _drop(self, launch: Launch) -> None:
        """Forget a launch; its folder keeps everything."""
        self.launches.pop(launch.key, None)
        self.forward.drop(launch)
        if launch.tree.group is not None and launch.over:
            launch.tree.group.remove()  # as far as no daemon of it lives on
        for connection in list(launch.connections):
            connection.close()

    def _path(self, key: Key) -> Path:
        return self.trials / key[0] / str(key[1])

    # -- the end ------------------------------------------------------------------------------------------------------
    def _watch(self, launch: Launch) -> None:
        """Watch a launch that somebody else started, by its waiter's pid; without one, ticks look at its lock."""
        if launch.tree.leader is None:
            launch.tree.leader = launch.folder.leader()
        if launch.tree.leader is not None and not launch.started.is_set():
            self._has_started(launch)
        process = launch.folder.waiter() if launch.watch < 0 else None
        if process is not None and launch.mine:
            launch.tree.waiter = process
            self._watch_pid(launch, process.pid)

    def _watch_pid(self, launch: Launch, pid: int) -> None:
        self.waiters[pid] = launch
        launch.watch = self.machine.watch(pid, lambda: self._waiter_gone(launch, pid))

    def _waiter_gone(self, launch: Launch, pid: int) -> None:
        self._unwatch(launch)
        self.waiters.pop(pid, None)
        launch.tree.watched = True
        self._check(launch)

    def _unwatch(self, launch: Launch) -> None:
        if launch.watch >= 0:
            self.machine.unwatch(launch.watch)
            launch.watch = -1

    def _reap(self) -> None:
        """Children that ended: waiters, and orphans of trials, whose subreaper this is."""
        for pid in self.machine.reap():
            launch = self.waiters.get(pid)
            if launch is not None and launch.watch < 0:
                del self.waiters[pid]
                self._check(launch)

    def _check(self, launch: Launch) -> None:
        """K3, K9: whether the launch is over."""
        if launch.over or launch.ending is not None or launch.folder.held():
            return
        if not launch.started.is_set():
            if launch.piped:
                return  # the pipe tells whether the command ever ran
            launch.tree.leader = launch.folder.leader()
            if launch.tree.leader is None:
                self._failed(launch, channel.KEEPER_DIED)
                return
            self._has_started(launch)
        launch.tree.waiter = None
        if launch.folder.text("exit") == "" and launch.mine:
            launch.ending = self._task(self._kill(launch), f"kill {launch.trial}/{launch.attempt}")
            return
        if launch.mine and launch.tree.group_lives():
            launch.ending = self._task(self._clear(launch), f"clear {launch.trial}/{launch.attempt}")
            return
        self._is_over(launch)

    def _is_over(self, launch: Launch) -> None:
        launch.over = True
        self._unwatch(launch)
        if launch.folder.text("exit") == "" and not launch.folder.time("lost"):
            self._note(launch, "lost", "")
        self.forward.look(launch)
        for reader in launch.spools.values():
            reader.limit = reader.size()
        self._maybe_exited(launch)

    def _maybe_exited(self, launch: Launch) -> None:
        """K5."""
        if not launch.over or not launch.told or launch.exited_said or self.forward.engine is None or launch.failed:
            return
        if any(reader.limit is None or reader.offset < reader.limit for reader in launch.spools.values()):
            return
        point("keeper.exited")
        launch.exited_said = True
        folder = launch.folder
        ended = folder.time("exit") or folder.time("lost") or self.machine.wall()
        self.forward.say(
            channel.Exited(*launch.key, folder.status(), ended, folder.text("reason").strip(), stderr=folder.stderr())
        )

    def _stop(self, key: Key, grace: float) -> None:
        """K8."""
        launch = self.launches.get(key) or self._load(key)
        if launch is None:
            self.forward.say(channel.NeverLaunched(*key))
            return
        if launch.over:
            if not launch.told:
                self._probe(key, {})
            return
        kill_at = self.machine.monotonic() + max(grace, 0.0)
        if launch.ending is None:
            launch.kill_at = kill_at
            launch.ending = self._task(self._end(launch), f"stop {launch.trial}/{launch.attempt}")
        else:
            launch.kill_at = min(launch.kill_at, kill_at)

    async def _end(self, launch: Launch, reason: str = "") -> None:
        """K8: StopNotice, TERM, grace, KILL."""
        if not launch.mine:
            log(f"{launch.folder.path} runs on another host, boot or pid namespace: it can't be stopped from here")
            launch.ending = None
            return
        if reason:
            self._note(launch, "reason", reason)
        for connection in list(launch.connections):
            connection.send(wire.StopNotice())
        begun = self.machine.monotonic()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(launch.started.wait(), max(0.05, launch.kill_at - self.machine.monotonic()))
        if launch.failed:
            return
        tree = launch.tree
        termed = {(process.pid, process.start) for process in tree.signal(signal.SIGTERM)}
        launch.kill_at += self.machine.monotonic() - begun  # the grace counts from TERM
        point("keeper.termed")
        pause = 0.005
        while self.machine.monotonic() < launch.kill_at:
            if not launch.folder.held() and not tree.group_lives():
                living = tree.members()
                if not living:
                    break
            elif pause >= 0.1:
                tree.signal(signal.SIGTERM, termed)
                termed |= {(process.pid, process.start) for process in tree.members()}
            await asyncio.sleep(min(pause, max(0.0, launch.kill_at - self.machine.monotonic())))
            pause = min(pause * 1.5, 0.25)
        await self._kill(launch)

    async def _kill(self, launch: Launch) -> None:
        """KILL until nothing is left but what can't be killed at once; then the launch is over."""
        pause = 0.002
        while True:
            living = launch.tree.signal(signal.SIGKILL)
            left = launch.folder.held() or launch.tree.group_lives() or launch.tree.grouped()
            if not living and not left:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        self._is_over(launch)

    async def _clear(self, launch: Launch) -> None:
        """KILL what a normal end left of the process group; who has left the group may stay until Shutdown."""
        pause = 0.002
        while launch.tree.group_lives():
            for process in launch.tree.members(group_only=True):
                self.machine.processes.send(process, signal.SIGKILL)
            if not process_tree.PROC and launch.tree.leader is not None:
                with contextlib.suppress(OSError):
                    os.killpg(launch.tree.leader[0], signal.SIGKILL)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        self._is_over(launch)

    async def _end_all(self, grace: float, reason: str) -> None:
        for launch in list(self.launches.values()):
            if launch.over or not launch.mine:
                continue
            launch.kill_at = min(launch.kill_at or 1e18, self.machine.monotonic() + grace)
            if launch.ending is None:
                launch.ending = self._task(self._end(launch, reason), f"end {launch.trial}/{launch.attempt}")
        ending = [launch.ending for launch in self.launches.values() if launch.ending is not None]
        if ending:
            await asyncio.wait(ending)

    async def _lease_over(self) -> None:
        """K11."""
        running = [launch for launch in self.launches.values() if not launch.over]
        log(f"no engine for {self.lease:g} s: {len(running)} trials are ended")
        await self._end_all(self.grace, "lease")
        if self.forward.engine is None:
            self.done.set()

    async def _shutdown(self) -> None:
        """Kill what is left of the experiment on this host, daemons of ended trials included, and end."""
        await self._end_all(0.0, "")
        pause = 0.002
        groups = [Group(home) for home in self._group_homes if home.is_dir()]
        for _ in range(100):  # what can't be killed (in the kernel) may not keep the keeper for ever
            for group in groups:
                group.freeze()
            left = process_tree.below(os.fsencode(self.trials), groups, self.machine.processes)
            for process in left:
                self.machine.processes.send(process, signal.SIGKILL)
            for group in groups:
                group.let_go()
            if not left and not any(group.threads() for group in groups):
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        self.forward.say(channel.Over())
        self.done.set()

    def _remove_groups(self) -> None:
        """Remove the control groups in which nobody is left: of launches that are over, and of those before."""
        for home in self._group_homes:
            Group(home).remove()


def _key(trial: str, attempt: int) -> Key:
    """A launch's key, checked, since it becomes a path."""
    if not NAME.match(trial) or attempt < 0:
        raise wire.WireError(f"no name of a launch: {trial!r}, {attempt}")
    return trial, attempt


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(path)


def read_lock(path: Path) -> Lock | None:
    """What a `keeper.lock` says; None when there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lock)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _take_lock(path: Path) -> int | None:
    """The file descriptor that holds `keeper.lock`; None when another keeper holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _tell_ready(fd: int) -> bool:
    """Write the byte that whoever started this keeper waits for; False when he has gone."""
    if fd < 0:
        return True
    try:
        os.write(fd, b"\n")
    except BrokenPipeError:
        return False
    finally:
        os.close(fd)
    return True


def _subreaper() -> None:
    """Orphans of trials become children of this process, so that none gets out of sight. Linux only."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            log(f"no subreaper: {os.strerror(ctypes.get_errno())}")


def _target(options: argparse.Namespace) -> dial.Target | None:
    """Whom the options say to dial; `ValueError` when they don't belong together."""
    path: Path | None = options.token_file
    if options.dial is None:
        if options.name or path is not None or options.token_fd is not None or options.fingerprint:
            raise ValueError("--name, --token-file, --token-fd and --fingerprint are for --dial")
        return None
    host, port = options.dial
    seen: str = options.fingerprint or ""
    if not proof.NAME.fullmatch(options.name):
        raise ValueError(f"--dial needs --name; found {options.name!r}; allowed: letters, digits and any of _ . @ : -")
    if (path is None) == (options.token_fd is None):
        raise ValueError("--dial needs one of --token-file and --token-fd")
    if path is not None:
        file = path.resolve().parent / path.name  # this process's working directory is its own to leave
        return dial.Target(host, port, options.name, lambda: dial.kept_token(file), seen)
    held = dial.handed_token(options.token_fd)
    return dial.Target(host, port, options.name, lambda: held, seen)


def main(arguments: list[str] | None = None) -> int:
    """Run a keeper; the exit code."""
    parser = argparse.ArgumentParser(prog="tune-keeper")
    parser.add_argument("folder", type=Path, help="the experiment's folder")
    parser.add_argument("--lease", type=float, default=2400.0, help="seconds without an engine (2400)")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds between TERM and KILL then (10)")
    parser.add_argument("--ready-fd", type=int, default=-1, help="gets one byte when the socket listens")
    parser.add_argument("--lock", type=Path, help="keeper.lock, if it lies elsewhere than in the folder")
    parser.add_argument("--dial", type=dial.address, metavar="HOST:PORT", help="where the engine listens")
    parser.add_argument("--name", default="", help="the name under which the engine expects it there")
    parser.add_argument("--token-file", type=Path, help="a file of mode 600 with the token of this launch")
    parser.add_argument("--token-fd", type=int, help="an inherited descriptor that gives the token, instead")
    parser.add_argument("--fingerprint", type=dial.fingerprint, help="of the certificate there: TLS")
    options = parser.parse_args(arguments)
    try:
        target = _target(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    folder: Path = options.folder.resolve()
    lock_path: Path = options.lock or folder / "keeper.lock"
    fd = _take_lock(lock_path)
    if fd is None:
        return 0
    before = read_lock(lock_path)
    path = Path(before.socket) if before is not None else Path()
    if before is None or not is_private(path.parent):  # the same path again, so that old trials find it (K14)
        path = socket_path(folder, ".k")
    keeper = Keeper(folder, options.lease, options.grace)
    text = msgspec.json.encode(Lock(os.getpid(), keeper.me.host, os.fspath(path)))
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))
    _subreaper()
    keeper.trials.mkdir(mode=0o700, exist_ok=True)
    asyncio.run(keeper.run(path, lambda: _tell_ready(options.ready_fd), target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
