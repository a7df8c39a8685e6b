"""Reading a table of results: the csv that `tune export` writes, and NNI's.

`tune export` has a column `parameters.lr` for each parameter, the parts of a nested one joined by dots, and the result
in `final`, `values` or `value`. NNI's table has the parameters' bare names, `trialJobId`, and the result as `reward`,
or one column for each key of a reported dict; only the search space tells those from parameters.

A table holds texts only. One that is a number, a list, true, false or null as JSON is taken for that, unless the search
space has just that text among a parameter's choices. Empty cells are parameters that are not there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from .errors import UsageError
from .space import Space

_NNI = ("trialJobId", "reward", "intermediate")
MAX_CELL = 1 << 20
MAX_DOTS = 64  # in a column's name


def rows(path: Path, text: str, space: Space | None, keys: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
    """The results in a table, each with its place for messages; `UsageError` when it is none of the two.

    `keys`: names in a result that may hold dots.
    """
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        heads = list(reader.fieldnames or ())
        lines = [(f"line {reader.line_num}", _cells(line)) for line in reader]
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: this is no table: {error}") from error
    deep = next((head for head in heads if head.count(".") > MAX_DOTS), None)
    if deep is not None:
        raise UsageError(f"{path}: the column {deep[:60]}... has {deep.count('.')} dots; allowed: {MAX_DOTS}")
    names = {param.name for param in space.params} if space is not None else set[str]()
    if any(head.partition(".")[0] == "parameters" for head in heads) or "phase" in heads:
        made = [(place, _of_tune(cells, names.union(keys))) for place, cells in lines]
    elif "trialJobId" in heads:
        made = [(place, _of_nni(path, place, cells, names)) for place, cells in lines]
    else:
        raise UsageError(
            f"{path} is no table of results: its columns are {', '.join(heads)[:200] or 'none'}",
            "Allowed: what tune export writes, or NNI's export.",
        )
    return [(place, {**item, "parameters": _typed(item["parameters"], _words(space))}) for place, item in made]


def _cells(line: Mapping[Any, Any]) -> dict[str, str]:
    """The cells of a line that are there; those beyond the last column have no name."""
    return {name: cell for name, cell in line.items() if isinstance(name, str) and isinstance(cell, str) and cell}


def _of_tune(cells: Mapping[str, str], names: Collection[str]) -> dict[str, Any]:
    whole = _grown(cells, {"parameters", "values", "final", "value"}, names)
    final, several = whole.get("final"), whole.get("values")
    value = _typed(final if final is not None else several if several is not None else whole.get("value"), {})
    return {"parameters": whole.get("parameters", {}), "value": value}


def _of_nni(path: Path, place: str, cells: Mapping[str, str], names: Collection[str]) -> dict[str, Any]:
    if "reward" not in cells and not names:
        raise UsageError(f"{path}: {place} has no reward, and without a search space nobody knows what is a parameter")
    bare = {name: cell for name, cell in cells.items() if name not in _NNI}
    if "reward" in cells:
        return {"parameters": bare, "value": _typed(cells["reward"], {})}
    metrics = {name: _typed(cell, {}) for name, cell in bare.items() if name not in names}
    return {"parameters": {name: cell for name, cell in bare.items() if name in names}, "value": metrics}


def _grown(cells: Mapping[str, str], known: Collection[str], below: Collection[str]) -> dict[str, Any]:
    """Columns `a.b` and `a.c` as an object `a` with `b` and `c`. A known name may hold dots of its own."""
    groups: dict[str, dict[str, str]] = {}
    for column, cell in cells.items():
        fitting = [name for name in known if column == name or column.startswith(f"{name}.")]
        name = max(fitting, key=len, default=column.partition(".")[0])
        groups.setdefault(name, {})[column[len(name) + 1 :]] = cell
    return {name: inner[""] if "" in inner else _grown(inner, below, below) for name, inner in groups.items()}


def _words(space: Space | None) -> dict[str, set[str]]:
    """The texts that each parameter has among its choices and that JSON would read as something else."""
    words: dict[str, set[str]] = {}
    for param in space.params if space is not None else ():
        texts = {one for one in param.choices if isinstance(one, str)}
        others = {json.dumps(one) for one in param.choices if not isinstance(one, str)}  # True is no 1 there
        words.setdefault(param.name, set()).update(text for text in texts if json.dumps(_read(text)) not in others)
    return words


def _typed(value: Any, words: Mapping[str, set[str]], name: str = "") -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: _typed(inner, words, name if key == "_value" else key) for key, inner in items}
    if not isinstance(value, str) or value in words.get(name, ()):
        return value
    return _read(value)


def _read(cell: str) -> Any:
    """What a cell says as JSON; the text itself when it is none, or a text or an object in JSON."""
    try:
        found = json.loads(cell, parse_constant=str)
    except (ValueError, RecursionError):
        return cell
    return cell if isinstance(found, (str, dict)) else found
