"""`tune why`: why a trial has its parameters, why it was stopped, why it waits or how it ended."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from cyclopts import Parameter

from ..engine.decisions import Knew
from ..engine.tuner_host import pin_threads
from ..engine.why import explain
from .reading import Json, aside, find_trial, json_text, number_text, opened, printable, printable_lines, say, say_json
from .replay import knowing

_BY = {
    "assessor": "the assessor",
    "user": "somebody",
    "stop": "the end of the experiment",
    "max_trial_duration": "max_trial_duration",
    "max_silence": "max_silence",
}


def why(
    id: Annotated[str, Parameter(help="Id of the experiment, or the path of its log. May be left out.")],
    trial: Annotated[str | None, Parameter(help="Number or id of the trial.")] = None,
    /,
    *,
    json: Json = False,
) -> None:
    """Say why a trial is what it is: what its tuner knew and went by, who stopped it and why, what it waits for."""
    reference, text = (id, trial) if trial is not None else (None, id)
    with opened(reference) as experiment:
        number = find_trial(experiment.state, text).number
        folder = experiment.folder
    pin_threads()
    with aside(True):
        found = explain(folder, number)
    if json:
        say_json(found)
        return
    say(f"trial {number} ({found['id']})")
    for phase in found["phases"]:
        _phase(phase, found)
    for stop in found["stops"]:
        _stop(stop, found)
    _ended(found)


def _phase(phase: dict[str, Any], found: dict[str, Any]) -> None:
    of = f"phase {phase['phase']} " if len(found["phases"]) > 1 else ""
    say(f"{of}parameters {json_text(phase['parameters'])}")
    if phase["ask"] is None:
        say(f"    {phase['note']}")
        return
    say(f"    proposed by {printable(found['tuner'])}, ask {phase['ask']}; it {_knew(phase['knew'])}")
    if phase["record"] is not None:
        said = "went by" if phase["source"] == "log" else "goes by (asked again: the log holds no record)"
        record: Any = msgspec.json.decode(phase["record"])
        say(f"    it {said}")
        for name, value in (cast("dict[str, Any]", record) if isinstance(record, dict) else {"record": record}).items():
            say(f"        {printable(str(name)):<12} {number_text(value)}")
    else:
        say(f"    {printable(phase['note'])}")
    if phase["continues"] is not None:
        say(f"    it goes on with the checkpoint of trial {phase['continues']}")
    if phase["parents"]:
        say(f"    made from trials {', '.join(map(str, phase['parents']))}")
    if phase["budget"] is not None:
        say(f"    budget {number_text(phase['budget'])}")


def _stop(stop: dict[str, Any], found: dict[str, Any]) -> None:
    by = _BY.get(stop["by"], str(stop["by"]))
    if stop["by"] == "assessor" and found["assessor"] is not None:
        by = f"the assessor {found['assessor']}"
    who = f" ({stop['actor']})" if stop["actor"] else ""
    say(f"stopped by {printable(by)}{printable(who)} in attempt {stop['attempt']}, event {stop['event']}")
    if stop["why"]:
        say(f"    {printable(stop['why'])}")
    if stop["knew"] is not None:
        say(f"    it {_knew(stop['knew'])}")


def _ended(found: dict[str, Any]) -> None:
    for end in found["ends"][:-1]:
        say(f"attempt {end['attempt']} ended {end['status']}: {printable(end['reason'])}")
    results = [result for result in found["results"] if result["value"] is not None]
    for result in results:
        of = f" of phase {result['phase']}" if len(found["results"]) > 1 else ""
        say(f"result{of} {number_text(result['value'])}")
    first, *rest = printable_lines(found["reason"]) or [""]
    say(f"{found['status']}{': ' if first else ''}{first}")
    for line in rest:
        say(f"    {line}")


def _knew(plain: dict[str, Any]) -> str:
    return knowing(Knew(**plain))
