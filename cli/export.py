"""`tune export`: writes the results of an experiment as csv, json or jsonl."""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

from ..engine import views
from ..engine.errors import UsageError
from .reading import Reference, emit, note, opened

Format: TypeAlias = Literal["csv", "json", "jsonl"]


def export(
    id: Reference = None,
    /,
    *,
    format: Annotated[Format | None, Parameter(help="Left out: that of the file's suffix, else csv.")] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="File to write; else stdout.")] = None,
) -> None:
    """Write one row for each result: trial, phase, status, parameters, value, intermediate, values, violation, final.

    A table (csv) has the last three only where the experiment has several objectives or outcome constraints.
    """
    chosen = format or _by_suffix(output)
    with opened(id) as experiment:
        rows = views.rows(experiment.state)
        text = render(rows, chosen)
    if output is None:
        emit(text)
        return
    try:
        write(output, text.encode())
    except OSError as error:
        raise UsageError(f"{output} can't be written: {error.strerror}") from error
    note(f"{len(rows)} results written to {output}")


def render(rows: Sequence[dict[str, Any]], format: Format) -> str:
    """The rows of `views.rows` as a text that ends with a line's end."""
    match format:
        case "json":
            return views.to_json(rows).decode() + "\n"
        case "jsonl":
            return "".join(views.to_json(row).decode() + "\n" for row in rows)
        case "csv":
            return _csv(rows)


def write(path: Path, data: bytes) -> None:
    """Put `data` into a file that is there as a whole or not at all; a device or pipe is simply written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    whole = path.resolve()  # a link stays one: what it points to is replaced
    temporary = whole.with_name(f".{whole.name[:100]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(whole)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    shown = ["trial", "phase", "status", "parameters", "value", "intermediate"]
    shown += [name for name in ("values", "violation") if any(row[name] is not None for row in rows)]
    shown += ["final"] if len(shown) > 6 else []
    flat = [views.flat({name: row[name] for name in shown if row[name] is not None}) for row in rows]
    tables = {
        name: list(dict.fromkeys(column for row in flat for column in row if column.split(".")[0] == name))
        for name in ("parameters", "values", "final")
    }
    heads = [column for name in shown for column in tables.get(name, [name])]
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _by_suffix(output: Path | None) -> Format:
    match output.suffix.lower() if output is not None else "":
        case ".json":
            return "json"
        case ".jsonl" | ".ndjson":
            return "jsonl"
        case _:
            return "csv"
