"""Planted bugs: each changes one piece of one production function, and the simulation has to notice.

A mutant names the function, the text in it, and what stands there instead. The function is compiled anew from its
changed source and put in the place of the old one wherever that is known; a text that is not there exactly once is an
error, so the list can't rot. Bugs that a second layer makes harmless (say, no mkdir lock, with every double launch
refused before) are in the list when the layer itself is a promise; those that can't be seen from outside are not.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from world import World, settings_of, with_devices


class Mutant(NamedTuple):
    """One planted bug: `place` is "module:function" or "module:Class.method"."""

    name: str
    place: str
    old: str
    new: str
    devices: bool = False  # whether it takes trials that want devices to see it


_DECIDE, _REDUCE, _PLAN = "tune.engine.decide", "tune.engine.reduce", "tune.engine.plan"
_SHELL, _LINK, _TUNER = "tune.engine.shell:Engine", "tune.engine.host_link:HostLink", "tune.engine.tuner_link:TunerLink"
_KEEPER, _FORWARD = "tune.trial_sdk.keeper:Keeper", "tune.trial_sdk.forwarding:Forwarder"
_DESK = "tune.trial_sdk.device_desk:DeviceDesk"
_PLACE = "tune.engine.placement"
_READER, _FOLDER = "tune.trial_sdk.launches:SpoolReader", "tune.trial_sdk.launches:Folder"

MUTANTS = [
    # -- the shell ----------------------------------------------------------------------------------------------------
    Mutant("outputs before the commit", f"{_SHELL}._release", "outputs[ready][0] <= durable", "True"),
    Mutant("acknowledged before the commit", f"{_SHELL}._release", "if seq <= durable]", "if True]"),
    Mutant(
        "facts made during a commit are forgotten",
        f"{_SHELL}._commit",
        "await self.log.append([encode(fact) for fact in batch])",
        "await self.log.append([encode(fact) for fact in batch]); self._batch = []",
    ),
    Mutant("one report too many acknowledged", f"{_SHELL}._acknowledge", "min(number, sender.last)", "sender.last + 1"),
    Mutant("no acknowledgement", f"{_SHELL}._acknowledge", "if sender is not None:", "if False:"),
    Mutant(
        "Probe skips a report", f"{_SHELL}._recorded", "sender.process: sender.last", "sender.process: sender.last + 1"
    ),
    Mutant(
        "a waiting process is not answered again", f"{_SHELL}._trial_waits", "if sender is not None and", "if False and"
    ),
    Mutant(
        "a command tells what is not durable yet",
        f"{_SHELL}._carry_out",
        "functools.partial(self._say, host, messages)",
        "lambda: self._say(*self._said(command))",
    ),
    Mutant("every launch is attempt 0", f"{_SHELL}._launch", "trial.attempt,", "0,"),
    Mutant("every launch begins with phase 0", f"{_SHELL}._launch", "open_phase(state, trial) or 0", "0"),
    Mutant("answers are the first phase's", f"{_SHELL}._said", "trial.phases[phase]", "trial.phases[0]"),
    Mutant("nothing is planned at the start", f"{_SHELL}.run", "self._plan()\n", "pass\n"),
    Mutant("no deadline is armed", f"{_SHELL}._arm", "if due is not None:", "if False:"),
    Mutant("a resume keeps the epoch", f"{_SHELL}._replayed", "state.epoch + 1", "max(state.epoch, 1)"),
    Mutant("the tuner is rebuilt from nothing", f"{_SHELL}._history", "return past", "return []"),
    Mutant(
        "the rebuilt tuner misses the last fact",
        f"{_SHELL}._history",
        "return past",
        "return past[:-1]",
    ),
    Mutant("the tuner hears of nothing new", f"{_SHELL}._feed", "if news and", "if False and"),
    Mutant("a lost launch is not asked for", f"{_SHELL}._said", "channel.Probe(*launch, self._recorded(command)),", ""),
    Mutant("a lost launch is not ended", f"{_SHELL}._said", "channel.Stop(*launch, command.grace),", ""),
    # -- decide -------------------------------------------------------------------------------------------------------
    Mutant(
        "no dedup",
        f"{_DECIDE}:report",
        "if record.number != (known.last if known is not None else 0) + 1:",
        "if record.number < 1:",
    ),
    Mutant(
        "reports of an ended attempt count",
        f"{_DECIDE}:report",
        "request.attempt == trial.attempt and trial.active",
        "True",
    ),
    Mutant(
        "a second final counts",
        f"{_DECIDE}:report",
        "elif final and trial.phases[phase].final is not None:",
        "elif False:",
    ),
    Mutant("any attempt's news is the current one's", f"{_DECIDE}:_launch_of", "trial.attempt == attempt and", ""),
    Mutant(
        "LAUNCHED twice",
        f"{_DECIDE}:decide",
        "if trial is None or not trial.launching:\n                return []\n            return [Draft(Launched",
        "if trial is None:\n                return []\n            return [Draft(Launched",
    ),
    Mutant(
        "a launch that never happened is not repeated",
        f"{_DECIDE}:_not_started",
        "phase = open_phase(state, trial)\n    return [Draft(Launch(",
        "phase = open_phase(state, trial)\n    return [] and [Draft(Launch(",
    ),
    Mutant("a kill's reason is forgotten", f"{_DECIDE}:_exited", "if trial.kill:", "if False:"),
    Mutant("the lease's end is a failure", f"{_DECIDE}:_exited", 'elif request.reason == "lease":', "elif False:"),
    Mutant("every exit code is a success", f"{_DECIDE}:_exited", "elif code == 0:", "elif code is not None:"),
    Mutant(
        "exit codes change their sign",
        f"{_DECIDE}:_exited",
        "status, code, reason, stderr",
        "status, -(code or 0), reason, stderr",
    ),
    Mutant("LOST too early", f"{_DECIDE}:lost_after", "+ 2 * microseconds(state.settings.stop_grace)", ""),
    Mutant("LOST at once", f"{_DECIDE}:lost_after", "return microseconds(state.settings.engine_lease)", "return 0"),
    Mutant(
        "no limit of phases", f"{_DECIDE}:_request_parameter", "refused = phase_limit(state, trial)", 'refused = ""'
    ),
    Mutant(
        "every further phase is phase 1",
        f"{_DECIDE}:_request_parameter",
        "phase = len(trial.phases) + sum(1 for ask in state.asks.values() if ask.trial == trial.number)",
        "phase = 1",
    ),
    Mutant("max_trial_duration is not kept", f"{_DECIDE}:_due", 'trial.status == "RUNNING" and', "False and"),
    # -- reduce -------------------------------------------------------------------------------------------------------
    Mutant("a new attempt keeps its number", f"{_REDUCE}:_requeue", "trial.attempt += 1", "pass"),
    Mutant("one retry too few", f"{_REDUCE}:retries_left", "trial.failures <= ", "trial.failures < "),
    Mutant(
        "a trial with its final is run again", f"{_REDUCE}:retries_left", "and open_phase(state, trial) is not None", ""
    ),
    Mutant(
        "a trial that the lease ended is not run again",
        f"{_REDUCE}:_trial_end",
        'if event.status == "SYS_CANCELED" and not state.stopping and',
        "if False and",
    ),
    Mutant(
        "a stopped trial does not come back",
        f"{_REDUCE}:_engine_started",
        'if trial.status == "SYS_CANCELED" and',
        "if False and",
    ),
    Mutant(
        "silence counts from when a host was reached",
        f"{_REDUCE}:_engine_started",
        "False, state.clock",
        "False, host.clock",
    ),
    Mutant("no Probe after a reconnect", f"{_REDUCE}:_host", "queues.probe.append(number)", "pass"),
    Mutant("no Stop after a reconnect", f"{_REDUCE}:_host", "queues.stop.append(number)", "pass"),
    Mutant("the slot is not freed", f"{_REDUCE}:_trial_end", "state.active.pop(trial.number, None)", "pass"),
    Mutant("an answer is not passed on", f"{_REDUCE}:_parameter", "state.queues.answer.append(ask.sender)", "pass"),
    Mutant("a sender's number stands still", f"{_REDUCE}:_metric", "sender.last = fact.sender_seq", "pass"),
    Mutant("a finished phase is begun again", f"{_REDUCE}:open_phase", "if phase.value is None:", "if True:"),
    Mutant(
        "the tuner hears of ends that are none",
        f"{_REDUCE}:_trial_end",
        "if retries_left(state, trial):",
        "_tell_end(state, fact, trial, event.status)\n        if retries_left(state, trial):",
    ),
    # -- plan ---------------------------------------------------------------------------------------------------------
    Mutant(
        "more trials at once than allowed",
        f"{_PLAN}:_launches",
        "settings.trial_concurrency - len(state.active)",
        "settings.trial_concurrency",
    ),
    Mutant(
        "a trial too many",
        f"{_PLAN}:no_more_trials",
        "len(state.trials) >= settings.max_trial_number",
        "len(state.trials) > settings.max_trial_number",
    ),
    Mutant("no stop is carried out", f"{_PLAN}:drain", "if trial.active and trial.kill:", "if False:"),
    Mutant("done while trials run", f"{_PLAN}:status_due", "if not state.active:", "if True:"),
    Mutant("no probe is carried out", f"{_PLAN}:drain", "commands += [ProbeTrial(number)", "_ = [ProbeTrial(number)"),
    # -- the channel --------------------------------------------------------------------------------------------------
    Mutant("what was read is not acknowledged", f"{_LINK}._hear", "if reports:", "if False:"),
    Mutant(
        "the last report of a chunk is dropped",
        f"{_LINK}._hear",
        "reports = self._read(message)",
        "reports = self._read(message)[:-1]",
    ),
    Mutant("a lost host is never dialled again", f"{_LINK}.run", "failures += 1", "return"),
    Mutant(
        "nobody hears that a host is reached", f"{_LINK}._serve", "self._submit(HostUp(self.name, message.pid))", "pass"
    ),
    Mutant("the end is not said", f"{_LINK}.shutdown", "self.send(channel.Shutdown())", "self._over.set()"),
    Mutant(
        "an end that no keeper confirmed counts as the end",
        f"{_LINK}.run",
        "(self._cleared or not self._reached)",
        "True",
    ),
    Mutant("a tuner host that ended is not reported", f"{_TUNER}.run", "self._submit(TunerFailed(", "str(("),
    # -- the keeper ---------------------------------------------------------------------------------------------------
    Mutant("no mkdir lock", f"{_KEEPER}._make", "path.mkdir(mode=0o700)\n", "path.mkdir(mode=0o700, exist_ok=True)\n"),
    Mutant(
        "Exited overtakes reports",
        f"{_KEEPER}._maybe_exited",
        "reader.limit is None or reader.offset < reader.limit for",
        "False for",
    ),
    Mutant("Exited is not told to a new engine", f"{_KEEPER}._probe", "self._maybe_exited(launch)", "pass"),
    Mutant("Launched is not told to a new engine", f"{_KEEPER}._probe", "self._tell_launched(launch)", "pass"),
    Mutant("the lease is a quarter of itself", f"{_KEEPER}._tick", "> self.lease:", "> self.lease / 4:"),
    Mutant("the lease counts from the start", f"{_KEEPER}.lost", "self._heard = self.machine.monotonic()", "pass"),
    Mutant("no grace", f"{_KEEPER}._stop", "+ max(grace, 0.0)", ""),
    Mutant(
        "KILL once, and not until nothing is left",
        f"{_KEEPER}._kill",
        "living = launch.tree.signal(signal.SIGKILL)",
        "living = []",
    ),
    Mutant("daemons are left behind", f"{_KEEPER}._shutdown", "range(100)", "range(0)"),
    Mutant("who runs is taken for ended", f"{_KEEPER}._check", "or launch.folder.held()", ""),
    Mutant("no greeting", f"{_KEEPER}._attach", "connection.send(channel.Attached(", "str(("),
    Mutant("an old keeper's launches are unknown", f"{_KEEPER}._load", "if not path.is_dir():", "if True:"),
    Mutant("Recorded before it is", f"{_FORWARD}.serve", "elif reader.recorded >= number:", "elif True:"),
    Mutant("a request is not told again", f"{_FORWARD}.serve", "if not connection.asked:", "if False:"),
    Mutant("answers go nowhere", f"{_FORWARD}.answer", "connection.waiting == message.number", "False"),
    Mutant(
        "a spool is read on from too far",
        f"{_READER}.rewind",
        "self.offset, self.number = end, self.number + count",
        "self.offset, self.number = end, self.number + count; recorded += (count == 3)",
    ),
    Mutant(
        "what was sent counts as recorded",
        f"{_READER}.ack",
        "max(self.recorded, number)",
        "max(self.recorded, self.number)",
    ),
    Mutant("signals are exit codes", f"{_FOLDER}.status", "waiter.code(int(text))", "int(text)"),
    Mutant("nobody holds a lock", f"{_FOLDER}.held", "return True", "return False"),
    Mutant("numbers of reports stand still", "tune.trial_sdk.spool:Spool.append", "self.number = number", "pass"),
    # -- devices ------------------------------------------------------------------------------------------------------
    Mutant(
        "one trial too many on a device",
        f"{_PLACE}:fitting",
        "< terms.max_trial_number_per_gpu",
        "<= terms.max_trial_number_per_gpu",
        True,
    ),
    Mutant("a batch gives a device twice", f"{_PLACE}:fitting", "+ more.count(device.uuid)", "", True),
    Mutant("who computes there does not count", f"{_PLACE}:_unfit", "if device.busy and", "if False and", True),
    Mutant("half of the devices do", f"{_PLACE}:fitting", "if len(free) >= wants", "if len(free) >= wants / 2", True),
    Mutant(
        "a device stays given",
        f"{_REDUCE}:_leave",
        "del host.using[uuid]",
        "host.using[uuid] = [trial.number]",
        True,
    ),
    Mutant(
        "nobody sees that there is room again", f"{_REDUCE}:_leave", "state.queues.roomy[trial.host] = None", "", True
    ),
    Mutant("new devices make no room", f"{_REDUCE}:_devices", "state.queues.roomy[event.host] = None", "", True),
    Mutant(
        "refused once, refused for ever", f"{_REDUCE}:_devices", "event.reason, {}", "event.reason, host.refused", True
    ),
    Mutant(
        "what was refused is forgotten", f"{_REDUCE}:_not_launched", "state.ready.appendleft(trial.number)", "", True
    ),
    Mutant(
        "a launch that was refused goes elsewhere as it was", f"{_SHELL}._launch", "trial.devices if", "[] if", True
    ),
    Mutant(
        "no leases",
        f"{_DESK}.lease",
        "self._machine.leases().add(Lease(self._mine, os.fspath(launch), message.devices))",
        "pass",
        True,
    ),
    Mutant("leases don't count", "tune.trial_sdk.leases:refusals", "for device in devices:", "for device in []:", True),
    Mutant(
        "freed devices are not told",
        f"{_DESK}._say",
        "if inventory == self._inventory and not freed:",
        "if self._inventory is not None:",
        True,
    ),
    Mutant(
        "claims of others are ours",
        "tune.trial_sdk.leases:yielded",
        "claim.experiment == experiment or",
        "False or",
        True,
    ),
]


def _find(place: str) -> tuple[Any, str, Any]:
    """Owner, name and function of a place."""
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, inspect.getattr_static(owner, name)


def changed(mutant: Mutant) -> Any:
    """The function of a mutant; `ValueError` when its text is not there exactly once."""
    owner, name, found = _find(mutant.place)
    function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    source = textwrap.dedent(inspect.getsource(function))
    old = textwrap.dedent(mutant.old) if mutant.old.startswith("\n") else mutant.old
    if inspect.isclass(owner):
        old = old.replace("\n    ", "\n")
        source = source if source.count(old) == 1 else textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {source.count(old)} times in {mutant.place}")
    code = compile(source.replace(old, mutant.new), f"<{mutant.name}>", "exec", __future__.annotations.compiler_flag)
    made: dict[str, Any] = {}
    exec(code, function.__globals__, made)  # the mutant lives among the same names as what it replaces
    return made[name]


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The bug, for a while, wherever the function is known."""
    owner, name, found = _find(mutant.place)
    new = changed(mutant)
    owners = [owner]
    if not inspect.isclass(owner):
        owners += [
            module
            for key, module in list(sys.modules.items())
            if key.startswith("tune.") and module is not owner and getattr(module, name, None) is found
        ]
    for place in owners:
        setattr(place, name, new)
    try:
        yield
    finally:
        for place in owners:
            setattr(place, name, found)


def hunt(index: int, seeds: int) -> tuple[int, int | None, str]:
    """Run histories with a mutant: its index, and the first seed that caught it with the violation."""
    with planted(MUTANTS[index]):
        for seed in range(seeds):
            settings = settings_of(seed, hosts=1 + seed % 3)
            outcome = World(with_devices(settings) if MUTANTS[index].devices else settings).run()
            if outcome.violations:
                return index, seed, outcome.violations[0]
    return index, None, ""


def report(seeds: int, only: str, jobs: int) -> int:
    """Hunt them all, and say who got away: 0 when at least 95 % were caught."""
    chosen = [index for index, mutant in enumerate(MUTANTS) if any(word in mutant.name for word in only.split(","))]
    started, caught = time.time(), 0
    survivors: list[str] = []
    with ProcessPoolExecutor(jobs) as pool:
        for index, seed, violation in pool.map(hunt, chosen, [seeds] * len(chosen)):
            mutant = MUTANTS[index]
            if seed is None:
                survivors.append(mutant.name)
                print(f"SURVIVES  {mutant.name}  ({mutant.place})", flush=True)
            else:
                caught += 1
                print(f"caught by seed {seed:3}  {mutant.name}: {violation[:100]}", flush=True)
    print(
        f"{caught} of {len(chosen)} mutants caught in {time.time() - started:.0f} s; survivors: {survivors or 'none'}"
    )
    return 0 if chosen and caught >= 0.95 * len(chosen) else 1
