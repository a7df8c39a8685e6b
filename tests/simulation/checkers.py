"""The judges of a simulated history: what must be true of a log, given what the simulated trials know to be true.

They read the rows' JSON by themselves and share no code with the reducer (but for P5, where the tuner has to be fed).
`Ledger` follows the log as it becomes durable and judges what can be judged at once; `final_judgement` is spoken when
the experiment has ended.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from tune.engine import host_wire, tuner_host
from tune.engine.events import NotYet, Parameter, Row, decode
from tune.engine.plugins import Ended
from tune.engine.reduce import reduce
from tune.engine.state import State

if TYPE_CHECKING:
    from world import Settings, World

RESTING = ("DONE", "STOPPED", "ERROR", "PAUSED")
BY_KILL = {
    "user": "USER_CANCELED",
    "stop": "SYS_CANCELED",
    "assessor": "EARLY_STOPPED",
    "max_trial_duration": "EARLY_STOPPED",
    "max_silence": "FAILED",
}


class Ledger:
    """The log, read by somebody who has never seen the reducer."""

    def __init__(self, complain: Any, settings: Settings) -> None:
        self.complain, self.settings = complain, settings
        self.concurrency = settings.concurrency
        self.forced = False
        self.seq = 0
        self.epoch = 0
        self.status = ""
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.parameters: dict[tuple[int, int], str] = {}
        self.launches: dict[tuple[int, int], dict[str, Any]] = {}
        self.launched: dict[tuple[int, int], dict[str, Any]] = {}
        self.kills: dict[tuple[int, int], str] = {}
        self.ends: dict[tuple[int, int], dict[str, Any]] = {}
        self.order: dict[int, list[int]] = {}  # the attempts of a trial, as they were launched
        self.active: set[int] = set()
        self.last: dict[str, int] = {}  # by sender
        self.records: dict[str, dict[int, tuple[str, str, int]]] = {}  # sender -> number -> kind, value, phase
        self.finals: dict[tuple[int, int], list[float]] = {}  # counted ones
        self.thinned: dict[str, list[tuple[int, int]]] = {}
        self.first_phase: dict[tuple[int, int], int] = {}
        self.now = 0.0
        self.met: dict[str, tuple[float, float]] = {}  # by host: when it was reached and lost, last
        self.silent: dict[str, int] = {}  # by host: the run clock when it was lost
        self.lost_at: dict[tuple[int, int], tuple[str, float]] = {}
        self.refused: set[tuple[int, int]] = set()  # NOT_LAUNCHED, and not asked for again
        self.devices: dict[str, dict[str, dict[str, Any]]] = {}  # by host and uuid

    def add(self, row: Row, now: float) -> None:
        """The next row, durable now."""
        self.now = now
        self.seq += 1
        if row.seq != self.seq:
            self.complain("P2", f"event {row.seq} stands where {self.seq} belongs")
        if row.epoch < self.epoch:
            self.complain("P2", f"event {row.seq} of epoch {row.epoch} after one of epoch {self.epoch}")
        self.epoch = row.epoch
        body = json.loads(row.body)
        trial = row.trial if row.trial is not None else -1
        if row.kind in ("METRIC", "THINNED") or (row.kind == "REQUEST_PARAMETER" and body.get("number")):
            self._report(row, trial, body)
        match row.kind:
            case "ENGINE_STARTED":
                self.status = "RUNNING"
                for name in self.met:
                    self.silent.setdefault(name, body["clock"])
                self.met = {name: (since, min(until, now)) for name, (since, until) in self.met.items()}
            case "STATUS":
                self.status = body["status"]
            case "HOST":
                since, until = self.met.get(body["name"], (0.0, 0.0))
                if body["state"] != "connected":  # said again where the reason is another one
                    self.silent.setdefault(body["name"], body["clock"])
                    self.met[body["name"]] = (since, min(until, now))
                else:
                    self.silent.pop(body["name"], None)
                    self.met[body["name"]] = (now, math.inf)
            case "STOP":
                self.status = self.status if self.status in ("DONE", "STOPPED", "ERROR") else "STOPPING"
                self.forced = self.forced or body.get("force", False)
            case "UPDATE":
                self.concurrency = body.get("trial_concurrency") or self.concurrency
            case "NEW_TRIAL":
                if trial in self.names or body["id"] in self.ids:
                    self.complain("P2", f"trial {trial} is made twice")
                self.ids[body["id"]], self.names[trial] = trial, body["id"]
            case "PARAMETER":
                place = (trial, body.get("phase", 0))
                if place in self.parameters:
                    self.complain("P2", f"phase {place} gets parameters twice")
                if place[1] and (trial, place[1] - 1) not in self.parameters:
                    self.complain("P2", f"phase {place} gets parameters before the one before it")
                if place[1] >= self.settings.phases:
                    self.complain("P2", f"phase {place} is beyond the limit of {self.settings.phases}")
                self.parameters[place] = json.dumps(body["parameters"])
            case "LAUNCH":
                self._launch(trial, body)
            case "NOT_LAUNCHED":
                self.active.discard(trial)
                self.refused.add((trial, body["attempt"]))
            case "DEVICES":
                self.devices[body["host"]] = {device["uuid"]: device for device in body.get("devices", [])}
            case "LAUNCHED":
                key = (trial, body["attempt"])
                if key in self.launched:
                    self.complain("P3", f"launch {key} is LAUNCHED twice")
                self.launched[key] = body
            case "KILL":
                self.kills.setdefault((trial, body["attempt"]), body["reason"])
            case "TRIAL_END":
                key = (trial, body["attempt"])
                if key in self.ends:
                    self.complain("P2", f"launch {key} ends twice")
                self.ends[key] = body
                self.active.discard(trial)
                if body.get("exit_code") is not None and key not in self.launched:
                    self.complain("P3", f"launch {key} has an exit code and was never LAUNCHED")
                if body["status"] == "LOST":
                    host = self.launches[key]["host"]
                    self.lost_at[key] = (host, now)
                    away = (body["clock"] - self.silent.get(host, math.inf)) / 1e6
                    given_up = self.forced and host in self.silent  # by a forced stop, which waits for nobody
                    if away < self.settings.lease + 2 * self.settings.grace - 0.01 and not given_up:
                        self.complain("P4", f"launch {key} is LOST after {away:.3f} s")

    def met_again(self, key: tuple[int, int]) -> bool:
        """Whether engine and host have met, for 5 s at least, since this launch was given up."""
        host, lost = self.lost_at[key]
        since, until = self.met.get(host, (0.0, 0.0))
        return since > lost and min(until, self.now) - since > 5.0

    def _check_devices(self, trial: int, body: dict[str, Any]) -> None:
        """P3: a launch gets devices that its host has, as many as it wants, and none that is full or others'."""
        settings = self.settings
        given, known = body.get("devices", []), self.devices.get(body["host"], {})
        if len(set(given)) != settings.wants:
            self.complain("P3", f"trial {trial} gets the devices {given}, it wants {settings.wants}")
        others = [self.launches[one, self.order[one][-1]] for one in self.active if one != trial]
        again = body.get("devices") == self.launches.get((trial, body["attempt"]), {}).get("devices")
        for uuid in given:
            users = [one for one in others if one["host"] == body["host"] and uuid in one.get("devices", [])]
            device = known.get(uuid)
            if device is None:
                self.complain("P3", f"trial {trial} gets {uuid}, which its host does not have")
            elif len(users) >= settings.most:
                self.complain("P3", f"trial {trial} gets {uuid}, which {len(users)} others have")
            elif not settings.share and not again and (device.get("busy") or device.get("leases")):
                self.complain("P3", f"trial {trial} gets {uuid}, which others use")

    def _launch(self, trial: int, body: dict[str, Any]) -> None:
        key = (trial, body["attempt"])
        self._check_devices(trial, body)
        self.refused.discard(key)
        if key in self.ends:
            self.complain("P3", f"launch {key} is launched after its end")
        if key not in self.launches:  # a launch that never happened may be asked for again
            self.order.setdefault(trial, []).append(body["attempt"])
            if len(self.order[trial]) != body["attempt"] + 1:
                self.complain("P3", f"trial {trial} has the attempts {self.order[trial]}")
        if key in self.launched:
            self.complain("P3", f"launch {key} is asked for again while it runs")
        self.launches[key] = body
        phase = 0
        while self.finals.get((trial, phase)):
            phase += 1
        self.first_phase[key] = phase
        before = len(self.active)
        self.active.add(trial)
        if len(self.active) > before and len(self.active) > self.concurrency:
            self.complain("P3", f"{len(self.active)} trials at once, allowed are {self.concurrency}")

    def _report(self, row: Row, trial: int, body: dict[str, Any]) -> None:
        number = row.sender_seq
        first = body["first"] if row.kind == "THINNED" else number
        if first != self.last.get(row.sender, 0) + 1:
            self.complain("P2", f"{row.sender} says {first} after {self.last.get(row.sender, 0)}")
        self.last[row.sender] = number
        if row.kind == "THINNED":
            self.thinned.setdefault(row.sender, []).append((first, number))
            return
        kind = "R" if row.kind != "METRIC" else "F" if body.get("final") else "I"
        place = (trial, int(row.sender.split(".")[1]))
        if place in self.ends and place not in self.lost_at and "exit_code" in self.ends[place]:
            self.complain("P1", f"{row.sender} {number} is recorded after the end of its launch")
        value = json.dumps(body["value"]) if kind != "R" else ""
        phase = body.get("phase", 0)
        self.records.setdefault(row.sender, {})[number] = (kind, value, phase)
        if kind == "F" and not body.get("ignored"):
            found = _number(body["value"])
            if (trial, int(row.sender.split(".")[1])) in self.ends:
                self.complain("P2", f"a final of {row.sender} counts, whose attempt is over")
            if self.finals.get((trial, phase)):
                self.complain("P2", f"phase {(trial, phase)} has two counted finals")
            if found is not None:
                self.finals.setdefault((trial, phase), []).append(found)


def _number(value: Any) -> float | None:
    """The finite number in a metric."""
    if isinstance(value, dict):
        value = value.get("default")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def final_judgement(world: World) -> None:
    """Everything that must be true once the faults have stopped and the experiment is over."""
    ledger, complain = world.ledger, world.complain
    if ledger.status != "DONE":
        complain("P10", f"it ended {ledger.status}")
        return
    settings = world.settings
    if len(ledger.names) != settings.trials:
        complain("P10", f"{len(ledger.names)} trials were made, {settings.trials} were wanted")
    _reports(world)
    _ends(world)
    _attempts(world)
    _lost(world)
    _decisions(world)
    for host in world.hosts:
        # Else nobody could tell its keeper the end.
        reached = ledger.met.get(host.name, (0.0, 0.0))[1] == math.inf and world.loop.time() - host.troubled_at > 40.0
        left = [process for process in host.processes.values() if process.launch is not None]
        if left and reached:
            complain("P3", f"{host.name}: {left[0].role} {left[0].pid} of {left[0].launch!r} is left behind")


def _reports(world: World) -> None:
    """P1 and P2: what was reported is what was recorded."""
    ledger, complain = world.ledger, world.complain
    known = {told.sender for told in world.told}
    for sender in ledger.records:
        if sender not in known:
            complain("P2", f"{sender} never reported anything")
    for told in world.told:
        if told.trial not in ledger.ids:
            complain("P3", f"{told.sender} belongs to no trial")
            continue
        recorded = ledger.records.get(told.sender, {})
        true = {number: (kind, phase, value) for number, kind, phase, value in told.reports}
        for number, (kind, value, _) in recorded.items():
            if number not in true:
                complain("P2", f"{told.sender} never said number {number}")
            elif true[number][0] != kind or (kind != "R" and json.dumps(json.loads(true[number][2])) != value):
                complain("P2", f"{told.sender} {number} is recorded as {kind} {value}, it was {true[number]}")
            elif (
                kind != "R"
                and (ledger.ids[told.trial], true[number][1]) in ledger.parameters
                and recorded[number][2] != true[number][1]
            ):
                complain("P2", f"{told.sender} {number} is recorded for another phase")
        place = (ledger.ids[told.trial], told.attempt)
        end = ledger.ends.get(place, {})
        for number in true:
            if number in recorded:
                continue
            if true[number][0] == "I" and any(a <= number <= b for a, b in ledger.thinned.get(told.sender, [])):
                continue
            if end.get("status") == "LOST" and not ledger.met_again(place):
                continue
            if number in told.acknowledged:
                how = told.acknowledged[number]
                complain("P1", f"the final {number} of {told.sender} was {how}, and is lost ({end.get('status')})")
            elif told.lost_after is None or number <= told.lost_after:
                complain("P1", f"report {number} of {told.sender} is lost, though nothing was cut")


def _lost(world: World) -> None:
    """A launch that was given up with its host ends soon after that has come back."""
    for trial in world.trials:
        key = (trial.number, trial.attempt)
        if key in world.ledger.lost_at and world.ledger.met_again(key):
            since = world.ledger.met[trial.host.name][0]
            if trial.ended_at is None or trial.ended_at - since > world.settings.grace + 4.0:
                world.complain("P3", f"launch {key} is LOST and goes on")


def _decisions(world: World) -> None:
    """P5: what the tuner said is what it says to the same facts again."""
    state, host = State(), tuner_host.Host()
    [ready] = host.handle(host_wire.Setup(_config_of(world)))
    assert isinstance(ready, host_wire.Ready)
    state.tell, state.tell_intermediates = True, ready.observes == "intermediates"
    waiting: list[Any] = []
    over: set[tuple[int, int]] = set()
    asks: dict[int, int] = {}
    for row in world.disk.rows:
        fact = decode(row)
        event = fact.event
        if isinstance(event, NotYet):
            asks[event.ask] = asks.get(event.ask, 0) + 1
        if isinstance(event, Parameter) and event.ask and fact.trial is not None:
            due = [observation.seq for observation in waiting if observation.seq <= (fact.cause or 0)]
            if due and due[-1] > event.seen:
                world.complain("P5", f"ask {event.ask} was answered without event {due[-1]}, which came before it")
            past = [observation for observation in waiting if observation.seq <= event.seen]
            waiting = waiting[len(past) :]
            if past:
                list(host.handle(host_wire.Observe(past, judge=False)))
            named = world.ledger.names[fact.trial] if event.phase else ""
            ask = host_wire.AskNow(event.ask, asks.get(event.ask, 0), fact.trial, named, event.phase)
            [answer] = host.handle(ask)
            said = answer.parameters if isinstance(answer, host_wire.Answered) else repr(answer)
            if said != bytes(event.parameters).decode():
                world.complain("P5", f"ask {event.ask} was answered {bytes(event.parameters)!r}, again it is {said}")
                return
        reduce(state, fact)
        waiting += state.queues.news
        for ended in state.queues.news:
            if isinstance(ended, Ended):
                if (ended.trial, ended.phase) in over:
                    world.complain("P5", f"the tuner hears twice that phase {(ended.trial, ended.phase)} has ended")
                over.add((ended.trial, ended.phase))
        state.queues.news = []


def _config_of(world: World) -> bytes:
    return json.dumps(json.loads(world.disk.rows[0].body)["config"]).encode()


def _ends(world: World) -> None:
    """P3 and P4: who was started, and how it ended."""
    ledger, complain = world.ledger, world.complain
    ran = {(ledger.ids.get(trial.trial, -1), trial.attempt): trial for trial in world.trials}
    for key, launched in ledger.launched.items():
        if key not in ran:
            complain("P3", f"launch {key} is LAUNCHED and never ran")
        elif launched["pid"] != ran[key].leader.pid:
            complain("P4", f"launch {key} has pid {launched['pid']}, it was {ran[key].leader.pid}")
    for key, end in ledger.ends.items():
        trial, status, code = ran.get(key), end["status"], end.get("exit_code")
        kill = ledger.kills.get(key, "")
        if trial is None:
            if status == "SUCCEEDED" or code is not None:
                complain("P3", f"launch {key} never ran and is {status} {code}")
            continue
        if "could not be started" in end.get("reason", ""):
            complain("P3", f"launch {key} ran, and is said not to have been started")
            continue
        if status == "LOST":
            continue
        if trial.code is None:
            complain("P4", f"launch {key} is {status}, and lives")
        elif code is not None and code != trial.code:
            complain("P4", f"launch {key} ended with {trial.code}, recorded is {code}")
        elif code is None and not trial.orphaned and "reason" in end and end["reason"] != kill:
            complain("P4", f"launch {key} ended with {trial.code}, recorded is that nobody knows")
        if kill:
            expected = BY_KILL[kill]
        elif status == "SYS_CANCELED" and "engine_lease" in end.get("reason", ""):
            expected = "SYS_CANCELED" if trial.leased else "no lease"
        else:
            expected = "SUCCEEDED" if code == 0 else "FAILED"
        if trial.leased and not kill and (trial.folder / "reason").exists():
            expected = "SYS_CANCELED"
        if status != expected:
            complain("P4", f"launch {key} (kill {kill!r}, code {code}) is {status}, not {expected}")


def _attempts(world: World) -> None:
    """Retries: an attempt follows exactly when one is due."""
    ledger, settings = world.ledger, world.settings
    for trial in ledger.names:
        failures = 0
        order = ledger.order.get(trial, [])
        for attempt in order:
            end = ledger.ends.get((trial, attempt))
            if end is None:
                world.complain("P10", f"trial {trial} has no end of its attempt {attempt}")
                break
            status = end["status"]
            failures += status in ("FAILED", "LOST")
            open_phase = settings.multi_phase or not world.counted_before(trial, attempt)
            due = open_phase and (
                status == "SYS_CANCELED" or (status in ("FAILED", "LOST") and failures <= settings.retries)
            )
            killed_waiting = (trial, attempt + 1) in ledger.ends
            if due != (attempt + 1 in order or killed_waiting):
                word = "no attempt follows" if due else "an attempt follows"
                world.complain("P2", f"trial {trial} attempt {attempt} ended {status}, {failures} failures: {word}")
