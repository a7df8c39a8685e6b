"""The keeper's desk for devices: what the host has, who gets which of it, and what the engine hears of that (K15, K16).

It looks at the devices only for an engine that wants to know. What is given is on disk, as leases (leases.py), so the
desk has nothing to remember; a claim lives as long as the engine's connection.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from . import channel, devices
from .forwarding import Forwarder
from .leases import Claim, Lease, refusals, yielded
from .machine import Machine
from .peers import log

LOOK = 2.0  # seconds between two looks


class DeviceDesk:
    """One a keeper; `folder` is the experiment's, `task` starts a task of the keeper's."""

    def __init__(
        self,
        folder: Path,
        machine: Machine,
        forward: Forwarder,
        task: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self.seen: devices.Look | None = None
        self._folder, self._mine = folder, os.fspath(folder)
        self._machine, self._forward, self._task = machine, forward, task
        self._looking = False
        self._looked = 0.0
        self._inventory: channel.Inventory | None = None  # as the present engine knows it
        self._refused: list[tuple[channel.Launch, set[str]]] = []  # since then: for want of these devices
        self._claim: tuple[float, int] | None = None  # since when, and the descriptor that holds it

    # -- what there is ------------------------------------------------------------------------------------------------
    def reset(self) -> None:
        """The engine has gone, or another one has come: what was said to it does not count any more."""
        self._inventory, self._refused = None, []
        self.lay(channel.Claim())

    def tick(self) -> None:
        """Look again when it is time."""
        if self._machine.monotonic() - self._looked > LOOK:
            self.look_soon()

    def look_soon(self) -> None:
        """Look now, if the engine wants to know, and tell it what is new."""
        if self._wanted() and not self._looking:
            self._looking = True
            self._task(self._look(), "devices")

    def _wanted(self) -> bool:
        engine = self._forward.engine
        return engine is not None and engine.engine is not None and engine.engine.devices

    async def _look(self) -> None:
        try:
            self.seen = await self._machine.devices()
        finally:
            self._looking, self._looked = False, self._machine.monotonic()
        self._say()

    def _say(self) -> None:
        """Tell the engine of the devices, if that is news."""
        if self.seen is None or not self._wanted():
            return
        held = self._machine.leases().held()
        inventory = channel.Inventory([self._device(one, held) for one in self.seen.devices], self.seen.reason)
        freed = any(wanting - self._refusals(message).keys() for message, wanting in self._refused)
        if inventory == self._inventory and not freed:
            return
        self._inventory, self._refused = inventory, []
        self._forward.say(inventory)

    def _device(self, found: devices.Found, held: list[Lease]) -> channel.Device:
        holders = [lease for lease in held if found.uuid in lease.devices]
        others = [lease for lease in holders if lease.experiment != self._mine]
        leased = len(holders) > len(others)
        busy = any(not self._is_ours(pid, leased=leased) for pid in found.pids)
        return channel.Device(found.index, found.uuid, found.name, found.memory, busy, len(others))

    def _is_ours(self, pid: int, *, leased: bool) -> bool:
        """Whether a process on a device is a trial's of this experiment.

        One that is not to be seen here (it lives in another pid namespace) is taken for one where a trial has a lease.
        """
        launch = self._machine.processes.launch_dir(pid)
        if launch is not None:
            return launch.startswith(os.fsencode(self._folder / "trials") + b"/")
        return leased and self._machine.processes.read(pid) is None

    # -- what is given ------------------------------------------------------------------------------------------------
    def refuses(self, message: channel.Launch, block: contextlib.ExitStack) -> channel.NotLaunched | None:
        """Whether a launch can't have its devices now; with `block` nobody else takes any until that ends."""
        try:
            block.enter_context(self._machine.leases().alone())
        except OSError as error:
            log(f"devices can't be leased, so other experiments may use them too: {error}")
        refused = self._refusals(message)
        if not refused:
            return None
        self._say()
        self._refused.append((message, set(refused)))
        return channel.NotLaunched(message.trial, message.attempt, list(refused), next(iter(refused.values())))

    def _refusals(self, message: channel.Launch) -> dict[str, str]:
        """Which devices of a launch can't be had now, and why."""
        wanted = message.devices or []
        known = [device.uuid for device in self.seen.devices] if self.seen is not None else []
        missing = {uuid: "it is not there just now" for uuid in wanted if uuid not in known}
        leases = self._machine.leases()
        held = leases.held()
        left = yielded(held, leases.claims(), self._mine, wanted) if not message.share else {}
        return missing | left | refusals(held, self._mine, wanted, share=message.share, most=message.most)

    def lease(self, launch: Path, message: channel.Launch) -> None:
        """Write down that the launch in this folder, whose `alive` is held, has its devices."""
        if message.devices:
            try:
                self._machine.leases().add(Lease(self._mine, os.fspath(launch), message.devices))
            except OSError as error:
                log(f"no lease for {launch}: {error}")

    def environment(self, message: channel.Launch) -> dict[str, str]:
        """What tells a trial which devices it has; nothing when it may use what it finds."""
        if message.devices is None:
            return {}
        seen = self.seen or devices.Look()
        chosen = [device for device in seen.devices if device.uuid in message.devices]
        return devices.environment(chosen, seen.variable)

    def lay(self, message: channel.Claim) -> None:
        """Hold this claim in the place of the one before; no devices: none."""
        leases = self._machine.leases()
        before, self._claim = self._claim, None
        since = before[0] if before is not None else self._machine.monotonic()
        try:
            if message.devices:
                claim = Claim(self._mine, since, message.devices, message.wants)
                self._claim = since, leases.lay(claim)
        except (OSError, UnicodeEncodeError) as error:
            log(f"no claim: {error}")
        if before is not None and self._claim is not None:
            os.close(before[1])
        elif before is not None:
            leases.withdraw(self._mine, before[1])
