"""What people and scripts see of an experiment: the state as plain data, in the shapes that `--json` promises.

Pure functions from a `State` to dicts, lists, texts and numbers, ready for JSON: NaN and the infinities are the
strings "NaN", "Infinity" and "-Infinity", times are ISO 8601 in UTC with microseconds, what is not there is None. The
order of the keys is part of the promise. Parameters and finals are decoded; their text in the log stays what it is.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Raw

from . import home
from .config import Terms
from .events import Row
from .plan import waits_for
from .state import HostState, Phase, State, Trial

_encode = msgspec.json.Encoder().encode
_decode: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TAIL_LINES = 20
_TAIL_CHARACTERS = 4096


def to_json(value: Any) -> bytes:
    """A view as JSON on one line; for views only, whose numbers are finite already."""
    return _encode(value)


def status(
    state: State, *, folder: Path, pid: int | None, port: int | None = None, log: Path | None = None
) -> dict[str, Any]:
    """The experiment as a whole. `pid`: who holds its lock; `log`: where events.db is, if not in `folder`."""
    settings = state.settings
    return {
        # the folder's name is what people type; a recovered experiment's log holds the id of the damaged one
        "id": folder.name if folder.parent == home.root() else state.id,
        "name": settings.experiment_name,
        "status": state.status,
        "engine_pid": pid,
        "reason": state.reason,
        "counts": dict(state.counts),
        "best": best(state),
        "log": _path(log or folder / "events.db"),
        "folder": _path(folder),
        "optimize_mode": settings.optimize_mode,
        "max_trial_number": settings.max_trial_number,
        "trial_concurrency": settings.trial_concurrency,
        "port": port,
        "pareto": pareto(state),
        "hosts": hosts(state),
    }


def hosts(state: State) -> list[dict[str, Any]]:
    """The hosts, with what runs where. `devices` is None as long as nobody wants any, or the host has not said."""
    return [_host(state, host) for host in state.hosts.values()]


def _host(state: State, host: HostState) -> dict[str, Any]:
    terms = state.terms.get(host.name, Terms())
    return {
        "name": host.name,
        "connected": host.connected,
        "reason": host.reason,
        "aside": host.aside_reason if host.aside_until else None,
        "slots": terms.slots,
        "trials": list(host.trials),
        "devices": None
        if host.devices is None
        else [
            {
                "index": device.index,
                "uuid": device.uuid,
                "name": device.name,
                "memory": device.memory,
                "busy": device.busy,
                "leases": device.leases,
                "allowed": terms.gpu_indices is None or device.index in terms.gpu_indices,
                "trials": host.using.get(device.uuid, []),
            }
            for device in host.devices
        ],
        "devices_reason": host.devices_reason,
    }


def best(state: State) -> dict[str, Any] | None:
    """The best counted result, with the trial's number; None before there is one that meets the outcome constraints.

    None with several objectives, which have a Pareto front instead.
    """
    found = state.best
    if found is None:
        return None
    return {
        "trial": found.trial,
        "phase": found.phase,
        "value": number(found.value),
        "parameters": _value(state.trial(found.trial).phases[found.phase].parameters),
    }


def pareto(state: State) -> list[dict[str, Any]] | None:
    """The results that no other one beats in every objective, the best in the first objective first.

    None with one objective. Of results that fail the outcome constraints, those that fail by the least, and only while
    there is none that meets them.
    """
    objectives = state.settings.objectives
    if not objectives:
        return None
    sign = -1.0 if state.settings.optimize_mode == "maximize" else 1.0
    return [
        {
            "trial": one.trial,
            "phase": one.phase,
            "values": dict(zip(objectives, one.values, strict=True)),
            "parameters": _value(state.trial(one.trial).phases[one.phase].parameters),
            "violation": one.violation,
        }
        for one in sorted(state.front, key=lambda one: (sign * one.values[0], one.trial, one.phase))
    ]


def nearest(state: State) -> tuple[int, Phase] | None:
    """The counted result that fails the outcome constraints by the least, and its trial's number; None without one."""
    counted = ((one.number, phase) for one in state.made for phase in one.phases if phase.value is not None)
    return min(counted, key=lambda pair: pair[1].violation, default=None)


def trials(state: State, folder: Path) -> list[dict[str, Any]]:
    """All trials, by number. `folder` is the experiment's, in which the trials' output lies."""
    home = _path(folder / "trials")
    return [trial(state, one, home) for one in state.made]


def trial(state: State, one: Trial, home: str) -> dict[str, Any]:
    """One trial; `home` is the path of the folder `trials`."""
    phases = [_phase(state, index, phase) for index, phase in enumerate(one.phases)]
    if state.settings.multi_phase:
        parameters: Any = [phase["parameters"] for phase in phases]
        final: Any = [phase["final"] for phase in phases]
        intermediate = [phase["intermediate"] for phase in phases]
    elif phases:
        parameters, final, intermediate = (phases[0][key] for key in ("parameters", "final", "intermediate"))
    else:
        parameters, final, intermediate = None, None, []
    return {
        "number": one.number,
        "id": one.id,
        "status": one.status,
        "reason": reason(state, one),
        "attempt": one.attempt,
        "parameters": parameters,
        "final": final,
        "intermediate": intermediate,
        "pid": one.pid if one.status == "RUNNING" else None,
        "host": one.host or None,
        "exit_code": one.exit_code if one.over else None,
        "created": time(one.created_us),
        "started": time(one.started_us) if one.status != "WAITING" else None,
        "ended": time(one.ended_us) if one.over else None,
        "stdout": f"{home}/{one.id}/stdout",
        "stderr": f"{home}/{one.id}/stderr",
        "phases": phases,
        "continues": one.continues,
        "devices": one.devices,
    }


def reason(state: State, one: Trial) -> str:
    """Why the trial is where it is, "" when there is nothing to say; for a failed one the end of its stderr too."""
    match one.status:
        case "WAITING":
            return waits_for(state, one)
        case "RUNNING":
            parts = [f"is being ended ({one.kill})"] if one.kill else []
            host = state.hosts.get(one.host)
            if host is not None and not host.connected:
                parts.append(f"host {one.host} is DISCONNECTED" + (f": {host.reason}" if host.reason else ""))
            return "; ".join(parts)
        case "SUCCEEDED":
            return one.reason or _warning(state, one)
        case _:
            tail = stderr_tail(one)
            return f"{one.reason}\n{tail}" if tail else one.reason


def stderr_tail(one: Trial) -> str:
    """The end of what a failed trial wrote to stderr: at most 20 lines and 4,096 characters."""
    lines = one.stderr.strip()[-_TAIL_CHARACTERS:].splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def phase_parameters(phase: Phase) -> Any:
    """The parameters of a phase, decoded."""
    return _value(phase.parameters)


def rows(state: State) -> list[dict[str, Any]]:
    """What `tune export` writes: one row for each phase with a counted result, by trial and phase.

    `value` is None with several objectives, whose numbers are in `values`; `final` is the result as it was reported.
    """
    return [
        {
            "trial": one.number,
            "phase": index,
            "status": one.status,
            "parameters": _value(phase.parameters),
            "value": None if phase.values else phase.value,
            "intermediate": series(phase.intermediate),
            **_judged(state, phase),
            "final": None if phase.final is None else _value(phase.final),
        }
        for one in state.made
        for index, phase in enumerate(one.phases)
        if phase.value is not None
    ]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `rows` for a table: `parameters.lr` instead of a dict, JSON text instead of a list."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        _flatten(found, key, value)
    return found


def fact(row: Row) -> dict[str, Any]:
    """An event of the log as `tune tail` shows it: the columns but the chain, the body as an object."""
    found: dict[str, Any] = {name: getattr(row, name) for name in row.__struct_fields__}
    found["body"] = Raw(row.body.encode())
    return found


def number(value: float) -> float | str:
    """A number as JSON can hold it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def series(values: array[float] | Iterable[float]) -> list[float | str]:
    """Numbers as JSON can hold them."""
    found = list(values)
    # one sum instead of a test for each: it is finite only if all are (an overflow merely costs the longer way)
    return cast("list[float | str]", found) if math.isfinite(sum(found)) else [number(value) for value in found]


def time(wall_us: int) -> str | None:
    """Microseconds on the wall clock as ISO 8601 in UTC; None for 0 and for what no calendar holds."""
    if wall_us <= 0:
        return None
    try:
        moment = _EPOCH + timedelta(microseconds=wall_us)
    except OverflowError:
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _phase(state: State, index: int, phase: Phase) -> dict[str, Any]:
    return {
        "phase": index,
        "parameters": _value(phase.parameters),
        "intermediate": series(phase.intermediate),
        "final": None if phase.final is None else _value(phase.final),
        "final_ignored": [_value(value) for value in phase.ignored],
        **_judged(state, phase),
    }


def _judged(state: State, phase: Phase) -> dict[str, Any]:
    """A counted result's number for each of several objectives, and by how much it fails the outcome constraints."""
    settings = state.settings
    limited = bool(settings.outcome_constraints) and phase.value is not None
    return {
        "values": dict(zip(settings.objectives, phase.values, strict=True)) if phase.values else None,
        "violation": phase.violation if limited else None,
    }


def _warning(state: State, one: Trial) -> str:
    if any(phase.value is not None for phase in one.phases):
        return ""
    if any(phase.final is not None for phase in one.phases):
        keys = state.settings.objectives
        lacks = f"lacks a finite number for {' or '.join(keys)}" if keys else "is no finite number"
        return f"warning: its final result {lacks}, so it does not count"
    return "warning: it reported no final result"


def _value(raw: Raw) -> Any:
    """The value of a JSON text; the text itself where it holds a number that no float holds."""
    try:
        return _decode.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return bytes(raw).decode(errors="replace")


def _path(path: Path) -> str:
    """A path as text that JSON can hold, also when its bytes are no UTF-8."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace")


def _flatten(found: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, dict) and value:
        for key, inner in cast("dict[str, Any]", value).items():
            plain = f"{name}.{key}"
            _flatten(found, plain if plain not in found else f"{name}.{key.replace('.', chr(92) + '.')}", inner)
    elif isinstance(value, dict):
        if name != "parameters":
            found[name] = "{}"
    elif isinstance(value, list | bool) or value is None:
        found[name] = _encode(value).decode()
    else:
        found[name] = value
