"""Where a trial can run now: which host, which of its devices, or why nowhere.

All trials of an experiment want the same number of devices (`trial_gpu_number`), so they are placed in their order: the
first one that waits gets the first place there is, and nobody who came later can take it away. One that has to go to a
certain host (its checkpoint lies there) does not hold up the others, which go elsewhere meanwhile, or stay behind it on
that host. A host takes a trial when it is connected and not set aside, has a slot, and has as many devices as are
wanted that are allowed (`gpu_indices`), not in others' use (but see `use_active_gpu`) and have fewer than
`max_trial_number_per_gpu` trials; the host with the fewest trials comes first, and there the devices with the fewest.

Pure. A `Room` costs one look at each host that may have room, and placing one trial a look at one host.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from ..trial_sdk.channel import Device
from .config import Terms
from .state import HostState, State, Trial

_ANY = Terms()
_SHOWN = 3  # hosts that a reason names
_NOT_ALLOWED, _FULL = "not in gpu_indices", "full"


class Place(NamedTuple):
    """A host, and the uuids of the devices there."""

    host: str
    devices: list[str]


class Room:
    """What is free, less what this object has given away. Takes hosts without room out of `state.queues.roomy`."""

    def __init__(self, state: State) -> None:
        self._state, self._roomy = state, state.queues.roomy
        self._wants = state.settings.trial_gpu_number or 0
        self._given: dict[str, list[list[str]]] = {}  # by host: the devices of each trial that was placed here
        hosts = [(order, host) for order, name in enumerate(self._roomy) if (host := state.hosts.get(name)) is not None]
        self._heap = [(len(host.trials), order, host) for order, host in hosts]
        heapq.heapify(self._heap)

    def anywhere(self) -> Place | None:
        """A place for a trial on the host that has the fewest; None: no host has room, and `roomy` is empty."""
        heap = self._heap
        while heap:
            load, order, host = heap[0]
            now = len(host.trials) + len(self._given.get(host.name, ()))
            if load != now:  # it got a trial by `on`
                heapq.heapreplace(heap, (now, order, host))
                continue
            place = self.on(host.name)
            if place is not None:
                heapq.heapreplace(heap, (load + 1, order, host))
                return place
            heapq.heappop(heap)
        return None

    def on(self, name: str) -> Place | None:
        """A place for a trial on this host; None: it has no room."""
        host = self._state.hosts.get(name)
        if host is None or name not in self._roomy:
            return None
        given = self._given.get(name, [])
        devices = fitting(host, self._state.terms.get(name, _ANY), self._wants, given)
        if devices is None:
            del self._roomy[name]
            return None
        self._given.setdefault(name, given).append(devices)
        return Place(name, devices)


def fitting(host: HostState, terms: Terms, wants: int, given: list[list[str]] | None = None) -> list[str] | None:
    """The devices for one more trial on this host, once it runs those of `given` too; None: it can't run there now."""
    given = given or []
    if not host.usable or (terms.slots is not None and len(host.trials) + len(given) >= terms.slots):
        return None
    if not wants:
        return []
    more = [uuid for devices in given for uuid in devices]
    free = [
        (load, device.index, device.uuid)
        for device in host.devices or ()
        if (load := _load(host, device) + more.count(device.uuid)) < terms.max_trial_number_per_gpu
        and not _unfit(host, terms, device)
    ]
    return [uuid for _, _, uuid in sorted(free)[:wants]] if len(free) >= wants else None


def _load(host: HostState, device: Device) -> int:
    return len(host.using.get(device.uuid, ())) + device.leases


def _unfit(host: HostState, terms: Terms, device: Device) -> str:
    """Why a device can't be used whatever runs on it of ours, "" when it can."""
    if terms.gpu_indices is not None and device.index not in terms.gpu_indices:
        return _NOT_ALLOWED
    if device.leases and not terms.use_active_gpu:
        return "in use by another experiment"
    if device.busy and not terms.use_active_gpu:
        return "in use by other processes (use_active_gpu = false)"
    if device.uuid in host.refused:
        return f"refused by the host ({host.refused[device.uuid]})"
    return ""


def most(host: HostState, terms: Terms) -> int:
    """How many devices a trial could have on this host, were all of them free."""
    allowed = terms.gpu_indices
    return sum(1 for device in host.devices or () if allowed is None or device.index in allowed)


def claims(state: State) -> dict[str, list[str]]:
    """By host: the devices that other experiments should leave some of, since trials wait and none runs."""
    wants = state.settings.trial_gpu_number or 0
    if not wants or not state.ready or state.active:
        return {}
    found: dict[str, list[str]] = {}
    for host in state.hosts.values():
        terms = state.terms.get(host.name, _ANY)
        if not host.usable or terms.use_active_gpu:
            continue
        allowed = [
            device.uuid
            for device in host.devices or ()
            if not device.busy and (terms.gpu_indices is None or device.index in terms.gpu_indices)
        ]
        leased = any(device.leases for device in host.devices or ())
        if leased and len(allowed) >= wants:
            found[host.name] = allowed
    return found


def home_of(state: State, trial: Trial) -> str:
    """The host to which a trial has to go, since the checkpoint that it continues lies there; "" for any."""
    number = trial.continues
    if number is None or state.settings.shares_files or not 0 <= number < len(state.trials):
        return ""
    parent = state.trials[number]
    return parent.host if parent is not None else ""


# -- in words ---------------------------------------------------------------------------------------------------------
def never(state: State) -> str:
    """Why no host can ever run a trial, "" as long as one may: each is there, and has fewer devices than it wants."""
    wants = state.settings.trial_gpu_number or 0
    if not wants:
        return ""
    for name, terms in state.terms.items():
        host = state.hosts.get(name)
        if host is None or not host.connected or host.devices is None or most(host, terms) >= wants:
            return ""
    said = _several([f"{name} has {_has(state.hosts[name], terms)}" for name, terms in state.terms.items()])
    return f"a trial wants {_gpus(wants)} (trial_gpu_number = {wants}), and no host has as many: {said}"


def why_not(state: State, trial: Trial) -> str:
    """Why no host can run this trial now, "" when one can."""
    wants = state.settings.trial_gpu_number or 0
    home = home_of(state, trial)
    hosts = [state.hosts[home]] if home in state.hosts else list(islice(state.hosts.values(), _SHOWN + 1))
    terms = [state.terms.get(host.name, _ANY) for host in hosts]
    if any(fitting(host, its, wants) is not None for host, its in zip(hosts, terms, strict=True)):
        return ""
    said = _several([_says(host, its, wants) for host, its in zip(hosts, terms, strict=True)])
    if home:
        return f"waits for host {home}, where the checkpoint of trial {trial.continues} lies that it continues: {said}"
    return never(state) or (f"waits for {_gpus(wants)}: {said}" if wants else f"waits for a host: {said}")


def host_line(state: State, host: HostState) -> str:
    """What runs on a host, on one line."""
    terms = state.terms.get(host.name, _ANY)
    slots = f", {len(host.trials)} of {terms.slots} slots in use" if terms.slots is not None else ""
    devices = f"; {_has(host, terms)}{_obstacles(host, terms)}" if host.devices is not None else ""
    aside = f"; set aside for a while: {host.aside_reason}" if host.aside_until else ""
    return f"{_trials(host.trials)}{slots}{devices}{aside}"


def _says(host: HostState, terms: Terms, wants: int) -> str:
    """Why a trial can't run on this host now."""
    if not host.connected:
        return f"host {host.name} is DISCONNECTED" + (f" ({host.reason})" if host.reason else "")
    if host.aside_until:
        return f"host {host.name} is set aside for a while ({host.aside_reason})"
    if terms.slots is not None and len(host.trials) >= terms.slots:
        return f"all {terms.slots} slots of host {host.name} are in use by {_trials(host.trials)}"
    if not wants:
        return f"host {host.name} has room"
    if host.devices is None:
        return f"host {host.name} has not said yet which GPUs it has"
    return f"host {host.name} has {_has(host, terms)}{_obstacles(host, terms)}"


def _has(host: HostState, terms: Terms) -> str:
    """How many devices a host has, and what is odd about that."""
    devices = host.devices or []
    parts = [host.devices_reason] if host.devices_reason else []
    missing = missing_indices(host, terms)
    if missing:
        parts.append(f"gpu_indices names {_and(missing)}, which it does not have")
    elif terms.gpu_indices is not None and devices:
        parts.append(f"{len(devices)} GPUs, of which gpu_indices allows {_and(map(str, terms.gpu_indices))}")
    return _gpus(most(host, terms)) + (f" ({'; '.join(parts)})" if parts else "")


def missing_indices(host: HostState, terms: Terms) -> list[str]:
    """The `gpu_indices` that the host does not have."""
    known = {device.index for device in host.devices or ()}
    return [str(index) for index in terms.gpu_indices or () if index not in known]


def _obstacles(host: HostState, terms: Terms) -> str:
    """What keeps each of its devices; those that the same keeps are named together."""
    indices: dict[str, list[str]] = {}
    users: dict[int, None] = {}
    for device in host.devices or ():
        what = _unfit(host, terms, device)
        if not what and _load(host, device) >= terms.max_trial_number_per_gpu:
            users |= dict.fromkeys(host.using.get(device.uuid, ()))
            what = _FULL
        if what != _NOT_ALLOWED:
            indices.setdefault(what or "free", []).append(str(device.index))
    if _FULL in indices:
        indices[f"in use by {_trials(sorted(users))}" if users else "in use by other experiments"] = indices.pop(_FULL)
    parts = [f"{_and(found)} {what}" for what, found in indices.items()]
    return f": {', '.join(parts)}" if parts else ""


def _gpus(count: int) -> str:
    return "no GPU" if not count else "1 GPU" if count == 1 else f"{count} GPUs"


def _trials(numbers: Iterable[int]) -> str:
    found = [str(number) for number in numbers]
    if not found:
        return "no trial"
    shown = found if len(found) <= 8 else [*found[:7], f"{len(found) - 7} more"]
    return f"{'trial' if len(found) == 1 else 'trials'} {_and(shown)}"


def _and(words: Iterable[str]) -> str:
    found = list(words)
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _several(said: Iterable[str]) -> str:
    found = list(said)
    return "; ".join(found if len(found) <= _SHOWN else [*found[:_SHOWN], "and so on"])
