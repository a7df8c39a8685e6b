"""A simulated host: its processes, boots, clocks and the port through which a real keeper sees them.

Launch folders and spools are real files in memory (a tmpfs where there is one), with real locks, so all of the keeper
and the spool run unmodified; file times are virtual. Processes, signals, sockets and clocks are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim_loop import Node

from tune.trial_sdk.devices import Found, Look
from tune.trial_sdk.keeper import Keeper
from tune.trial_sdk.launches import Folder, Owner
from tune.trial_sdk.leases import Claim, Lease, Leases, refusals, yielded
from tune.trial_sdk.machine import Machine
from tune.trial_sdk.process_tree import Process, Processes

if TYPE_CHECKING:
    from world import World

EPOCH = 1_700_000_000_000_000  # us, when the simulated world begins


class SimProcess:
    """One line of the simulated process table."""

    def __init__(self, host: Host, role: str, parent: int, leader: SimProcess | None, launch: bytes | None) -> None:
        host.last_pid += host.dice.randrange(1, 4)
        self.host, self.role, self.parent, self.launch = host, role, parent, launch
        self.pid = host.last_pid
        self.group = leader.group if leader is not None else self.pid
        self.session = leader.session if leader is not None else self.pid
        self.start = int(host.world.loop.time() * 100) + 1
        self.alive = True
        self.patience: float | None = 0.0  # seconds from TERM to its end; None: it ignores TERM
        self.termed = 1e18  # when it got its first TERM
        self.on_end: list[Callable[[int], None]] = []
        host.processes[self.pid] = self

    def line(self) -> Process:
        return Process(self.pid, self.parent, self.group, self.session, self.start, "S")

    def hit(self, number: int) -> None:
        """A signal arrives."""
        if not self.alive:
            return
        self.host.world.signalled(self, number)
        if number == signal.SIGKILL:
            self.end(-9)
        elif number == signal.SIGTERM and self.role != "waiter" and self.patience is not None:
            loop = self.host.world.loop
            loop.call_in(loop.world, self.patience, self.end, -15)

    def end(self, code: int) -> None:
        """It is gone; its children become the keeper's, or init's."""
        if not self.alive:
            return
        self.alive = False
        host = self.host
        host.processes.pop(self.pid, None)
        for child in host.processes.values():
            if child.parent == self.pid:
                child.parent = host.keeper_pid or 1
        host.world.witness("end", f"{host.name}/{self.role}", self.pid)
        for hook in self.on_end:
            hook(code)
        for gone in host.watches.pop(self.pid, []):
            gone()


class SimProcesses(Processes):
    """A host's process table, as the keeper's port."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def read(self, pid: int) -> Process | None:
        process = self.host.processes.get(pid)
        return process.line() if process is not None else None

    def table(self) -> dict[int, Process]:
        return {pid: process.line() for pid, process in self.host.processes.items()}

    def launch_dir(self, pid: int) -> bytes | None:
        process = self.host.processes.get(pid)
        return process.launch if process is not None else None

    def relatives(self) -> set[int]:
        return {self.host.keeper_pid, 0, 1}

    def send(self, process: Process, number: int) -> None:
        found = self.host.processes.get(process.pid)
        if found is not None and found.start == process.start:
            found.hit(number)

    def send_group(self, group: int, number: int) -> None:
        members = [process for process in self.host.processes.values() if process.group == group]
        if not members:
            raise ProcessLookupError
        if number:
            for process in members:
                process.hit(number)

    def me(self) -> int:
        return self.host.keeper_pid


class SimFolder(Folder):
    """A launch folder whose files carry virtual times."""

    host: Host

    def write(self, name: str, text: str) -> None:
        if self.host.full and self.host.dice.random() < 0.5:
            raise OSError(28, "No space left on device", str(self.path / name))
        super().write(name, text)
        self.host.stamp(self.path / name)


class SimMachine(Machine):
    """What one keeper process sees of its host."""

    def __init__(self, host: Host, node: Node) -> None:
        self.host, self.node = host, node
        self.processes = SimProcesses(host)
        self.pid = host.keeper_pid
        self.handles: dict[int, tuple[int, Callable[[], None]]] = {}
        self.made = 0

    def settle(self, reap: Callable[[], None], end: Callable[[], None]) -> None:
        pass

    def me(self) -> Owner:
        return Owner(self.host.name, f"boot{self.host.boots}", "1", self.pid, self.host.wall())

    def monotonic(self) -> float:
        return self.host.world.loop.time() + 1000.0 * self.host.boots

    def wall(self) -> int:
        return self.host.wall()

    def groups(self, folder: Path) -> str:
        return "a simulated host has none"

    async def devices(self) -> Look:
        await asyncio.sleep(self.host.dice.uniform(0.0, 0.3))
        return Look(self.host.look())

    def leases(self) -> Leases:
        return self.host.leases

    def folder(self, path: Path) -> Folder:
        folder = SimFolder(path, self.processes)
        folder.host = self.host
        return folder

    def spawn(
        self,
        folder: Path,
        command: str,
        cwd: str,
        env: dict[str, str],
        alive: int,
        told: Callable[[], None],
        join: str = "",
    ) -> int:
        if self.host.dice.random() < self.host.world.weather.spawn_errors:
            raise OSError(11, "Resource temporarily unavailable", "/bin/sh")
        loop = self.host.world.loop

        def tell() -> None:
            if self.node.alive:
                loop.call_in(self.node, 0.0, told)

        return self.host.start_waiter(folder, env, alive, tell)

    def watch(self, pid: int, gone: Callable[[], None]) -> int:
        process = self.host.processes.get(pid)
        if process is None:
            return -1
        loop = self.host.world.loop
        self.made += 1
        handle = self.made

        def tell() -> None:
            if handle in self.handles:
                loop.call_in(self.node, self.host.dice.uniform(0.0, 0.001), again)

        def again() -> None:
            if handle in self.handles:
                gone()

        self.handles[handle] = (pid, tell)
        self.host.watches.setdefault(pid, []).append(tell)
        return handle

    def unwatch(self, handle: int) -> None:
        pid, tell = self.handles.pop(handle)
        watches = self.host.watches.get(pid)
        if watches is not None and tell in watches:
            watches.remove(tell)

    def reap(self) -> list[int]:
        return []

    async def listen(self, path: Path, connection: Callable[[], asyncio.Protocol]) -> Any:
        return self.host.world.network.listen(str(path), self.node, connection)


class Host:
    """A host with its folder. `keeper` is the node of its keeper, None while none runs."""

    def __init__(self, world: World, index: int) -> None:
        self.world, self.index, self.name = world, index, f"host{index}"
        self.dice = random.Random(f"{world.seed}/{self.name}")
        self.folder = world.root / self.name
        (self.folder / "trials").mkdir(parents=True)
        self.address = str(self.folder / "socket")
        self.up = True
        self.absent = False  # for long
        self.full = False
        self.boots = 0
        self.jump = 0  # us that its wall clock is off
        self.last_pid = 100
        self.processes: dict[int, SimProcess] = {}
        self.watches: dict[int, list[Callable[[], None]]] = {}
        self.keeper: Node | None = None
        self.keeper_pid = 0
        self.keeper_since = 0.0
        self.keeper_object: Keeper | None = None
        self.troubled_at = -1e9  # when it was last out of reach
        self.trials: list[Any] = []
        self.leases = Leases(self.folder / "leases")
        self.busy: set[int] = set()  # indices of the devices on which a stranger computes
        self.stranger: SimProcess | None = None
        self.rivals: dict[str, int] = {}  # by device: the descriptor that holds another experiment's lease
        self.claim = -1  # the descriptor of that one's claim

    # -- devices ------------------------------------------------------------------------------------------------------
    def look(self) -> list[Found]:
        """Its devices, and who computes on them."""
        if self.busy and (self.stranger is None or not self.stranger.alive):
            self.stranger = SimProcess(self, "stranger", 1, None, None)
        found: list[Found] = []
        for index in range(self.world.settings.devices):
            pids = [one.leader.pid for one in self.trials if one.leader.alive and str(index) in one.devices]
            if index in self.busy and self.stranger is not None:
                pids.append(self.stranger.pid)
            found.append(Found(index, f"{self.name}-gpu{index}", "simulated", 1 << 34, str(index), pids))
        return found

    def rival(self, index: int) -> bool:
        """Another experiment takes a device, if it can have it."""
        uuid = f"{self.name}-gpu{index}"
        with self.leases.alone():
            held = self.leases.held()
            if uuid in self.rivals or refusals(held, "rival", [uuid], share=False, most=1):
                return False
            if yielded(held, self.leases.claims(), "rival", [uuid]):
                return False
            folder = self.folder / "rival" / f"{index}.{self.last_pid}.{len(list(self.folder.glob('rival/*')))}"
            folder.mkdir(parents=True)
            self.rivals[uuid] = Folder(folder).lock()
            self.leases.add(Lease("rival", os.fspath(folder), [uuid]))
        users = [one for one in self.trials if one.leader.alive and str(index) in one.devices]
        if users and self.keeper is not None and self.up and not users[0].orphaned:
            self.world.complain("P3", f"a rival can have {uuid}, on which {users[0].trial} runs")
        return True

    def rival_claims(self) -> None:
        """Another experiment waits for one of the devices, if it does not already."""
        if self.claim < 0:
            uuids = [f"{self.name}-gpu{index}" for index in range(self.world.settings.devices)]
            since = self.world.loop.time() + 1000.0 * self.boots
            self.claim = self.leases.lay(Claim("rival", since, uuids, 1))

    def rival_claims_no_more(self) -> None:
        """It has got one, or has gone."""
        if self.claim >= 0:
            self.leases.withdraw("rival", self.claim)
            self.claim = -1

    def rival_leaves(self, index: int) -> None:
        """It gives the device back."""
        held = self.rivals.pop(f"{self.name}-gpu{index}", None)
        if held is not None:
            os.close(held)

    def wall(self) -> int:
        """Its wall clock, us."""
        return EPOCH + int(self.world.loop.time() * 1e6) + self.jump

    def stamp(self, path: Path) -> None:
        """Give a file the present virtual time."""
        with contextlib.suppress(OSError):
            os.utime(path, ns=(self.wall() * 1000, self.wall() * 1000))

    # -- the keeper ---------------------------------------------------------------------------------------------------
    async def start_keeper(self) -> None:
        """Have a keeper, and wait until it listens; `OSError` when that can't be."""
        await asyncio.sleep(self.world.loop.dice.uniform(0.01, 0.2))
        if not self.up:
            raise OSError(113, "no route to host")
        if self.keeper is not None:
            return
        loop = self.world.loop
        node = self.keeper = loop.node(f"{self.name}.keeper")
        self.last_pid += 1
        self.keeper_pid = self.last_pid
        ready = loop.create_future()
        node.on_kill.append(lambda: ready.done() or ready.set_result(False))
        settings = self.world.settings
        keeper = Keeper(self.folder, settings.lease, settings.grace, SimMachine(self, node))
        self.keeper_object = keeper

        def told() -> bool:
            if not ready.done():
                ready.set_result(True)
            return True

        async def life() -> None:
            try:
                await keeper.run(Path(self.address), told)
            finally:
                if self.keeper is node and node.alive:
                    self.keeper_gone()
                    loop.call_in(loop.world, 0.0, loop.kill, node)

        loop.spawn(node, life())
        self.world.witness("keeper", self.name, self.keeper_pid)
        if not await ready:
            raise OSError(111, "the keeper died as it started")

    def keeper_gone(self) -> None:
        """No keeper runs any more."""
        for process in self.processes.values():
            if process.parent == self.keeper_pid:
                process.parent = 1
        self.keeper, self.keeper_pid, self.keeper_object = None, 0, None

    def kill_keeper(self) -> None:
        """SIGKILL."""
        if self.keeper is not None:
            node = self.keeper
            self.keeper_gone()
            self.world.loop.kill(node)

    def reboot(self) -> None:
        """Everything dies at once; what was not synced of the spools may be lost."""
        self.kill_keeper()
        self.watches.clear()
        for process in list(self.processes.values()):
            process.on_end = [hook for hook in process.on_end if getattr(hook, "at_power_cut", False)]
            process.end(-9)
        for trial in self.trials:
            trial.power_cut()
        self.boots += 1
        self.watches.clear()

    # -- trials -------------------------------------------------------------------------------------------------------
    def start_waiter(self, folder: Path, env: dict[str, str], alive: int, told: Callable[[], None]) -> int:
        """The waiter and, a moment later, the trial's own process."""
        from sim_trial import SimTrial

        lock = os.dup(alive)
        os.set_inheritable(lock, False)
        mark = os.fsencode(folder)
        waiter = SimProcess(self, "waiter", self.keeper_pid, None, None)
        loop = self.world.loop

        trials: list[SimTrial] = []

        def released(code: int) -> None:
            os.close(lock)
            if trials and not (folder / "exit").exists():
                trials[0].orphaned = True

        released.at_power_cut = True  # type: ignore[attr-defined]
        waiter.on_end.append(released)

        def begin() -> None:
            if not waiter.alive:
                told()  # its end of the pipe closes with it
                return
            (folder / "waiter").write_text(f"{waiter.pid}\n")
            loop.call_in(loop.world, self.dice.uniform(0.0, 0.005), exec_trial)

        def exec_trial() -> None:
            if not waiter.alive:
                told()
                return
            leader = SimProcess(self, "trial", waiter.pid, None, mark)
            (folder / "pid").write_text(f"{leader.pid} {leader.start}\n")
            self.stamp(folder / "pid")
            trial = SimTrial(self, folder, env, leader)
            self.trials.append(trial)
            trials.append(trial)

            def ended(code: int) -> None:
                loop.call_in(loop.world, self.dice.uniform(0.0, 0.01), write_exit, code)

            leader.on_end.append(ended)
            trial.begin()
            told()

        def write_exit(code: int) -> None:
            if not waiter.alive:
                return
            (folder / "exit").write_text(f"{code if code >= 0 else 128 - code}\n")
            self.stamp(folder / "exit")
            loop.call_in(loop.world, self.dice.uniform(0.0, 0.003), waiter.end, 0)

        loop.call_in(loop.world, self.dice.uniform(0.0, 0.01), begin)
        return waiter.pid
