"""`tune export`: writes the results of an experiment as csv, json or jsonl."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine import views
from ..engine.errors import UsageError
from ..engine.export_file import Format, render
from .reading import Reference, emit, note, opened


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


def _by_suffix(output: Path | None) -> Format:
    match output.suffix.lower() if output is not None else "":
        case ".json":
            return "json"
        case ".jsonl" | ".ndjson":
            return "jsonl"
        case _:
            return "csv"
