"""Reading a file of results from elsewhere, which `tune import` gives to a tuner.

A JSON list of objects, or one object a line, each with "parameter" (or "parameters") and "value": what NNI exports
and imports, and what `tune export` writes as json and jsonl; the "final" of the latter, the result as it was reported,
goes before its "value". Further fields are left alone. A file with the suffix .csv is a table (import_table.py).
Results also come straight from the log of an earlier experiment (`finals`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..trial_sdk import values
from . import import_table
from .errors import UsageError
from .space import Space
from .state import State

MAX_BYTES = 256 << 20


class Result(NamedTuple):
    """One result from elsewhere, both as JSON text."""

    parameters: str
    value: str


def read(path: Path, keys: Collection[str] = ("default",), space: Space | None = None) -> list[Result]:
    """The results in a file; `UsageError` with the place of the first that is none.

    A result is one that has a number for each of `keys`; `space` tells in a table what a column holds.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start} is no UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path} is too large; allowed: {MAX_BYTES} bytes")
    if path.suffix.lower() == ".csv":
        items = import_table.rows(path, text, space, keys)
    elif text.lstrip().startswith("["):
        items = [(f"result {index}", item) for index, item in enumerate(_loaded(path, text, 1))]
    else:
        lines = enumerate(text.splitlines(), 1)
        items = [(f"line {number}", _loaded(path, line, number)) for number, line in lines if line.strip()]
    return [_result(path, place, item, keys) for place, item in items]


def finals(state: State) -> list[Result]:
    """The final results in the log of an experiment, each with its parameters, by trial and phase."""
    return [
        Result(bytes(phase.parameters).decode(), bytes(phase.final).decode())
        for one in state.made
        for phase in one.phases
        if phase.final is not None
    ]


def _loaded(path: Path, text: str, line: int) -> Any:
    try:
        # Python's own writer puts NaN and Infinity into JSON: taken as the texts that stand for them here
        return json.loads(text, parse_constant=str)
    except json.JSONDecodeError as error:
        at = f"{path}:{line + error.lineno - 1}:{error.colno}"
        hint = "Allowed: a list of results, or one a line; a table has the suffix .csv."
        raise UsageError(f"{at}: this is not JSON: {error.msg}", hint) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
        raise UsageError(f"{path}:{line}: this can't be read: {error}") from error


def _result(path: Path, place: str, item: Any, keys: Collection[str]) -> Result:
    where = f"{path}: {place}"
    if not isinstance(item, dict):
        raise UsageError(
            f"{where} is no object", 'Allowed: {"parameter": {...}, "value": a number or {"default": ...}}'
        )
    fields = cast("dict[str, Any]", item)
    parameters = fields.get("parameter", fields.get("parameters"))
    if isinstance(parameters, str):  # some versions of NNI export the parameters as a text of JSON
        parameters = _loaded(path, parameters, 1)
    if not isinstance(parameters, dict):
        raise UsageError(f'{where} has no object "parameter"')
    given = fields.get("final")
    if given is None:
        if "value" not in fields:
            raise UsageError(f'{where} has no "value"')
        given = _written(fields["value"])
    return result(where, cast("dict[str, Any]", parameters), given, keys)


def result(where: str, parameters: Mapping[str, Any], given: Any, keys: Collection[str] = ("default",)) -> Result:
    """Parameters and a value as one result; `UsageError`, with `where` they come from, when they can't be one."""
    try:
        said = values.encode(_finite(dict(parameters)))
        value = values.encode(_finite(given))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    if not set(keys) <= set(values.numbers(value)):
        wanted = " and ".join(f'"{key}"' for key in keys)
        plain = "a number, or " if "default" in keys else ""
        raise UsageError(f"{where}: the value is {value[:60]}", f"Allowed: {plain}an object with a number {wanted}")
    return Result(said, value)


def _written(value: Any) -> Any:
    """NNI's export holds a value as the JSON text that the trial reported: what that text says."""
    try:
        found = json.loads(value, parse_constant=str) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
    return cast("Any", found) if isinstance(found, (int, float, dict)) else value


def _finite(value: Any) -> Any:
    """The value, unless it is a number too large for a float (1e999)."""
    if isinstance(value, float) and not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
