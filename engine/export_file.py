"""Results as a file: what `tune export` writes, and `tune import` reads again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from . import views

Format: TypeAlias = Literal["csv", "json", "jsonl"]


def render(rows: Sequence[dict[str, Any]], format: Format) -> str:
    """The rows of `views.rows` as a text that ends with a line's end."""
    match format:
        case "json":
            return views.to_json(rows).decode() + "\n"
        case "jsonl":
            return "".join(views.to_json(row).decode() + "\n" for row in rows)
        case "csv":
            return _csv(rows)


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
