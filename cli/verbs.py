"""Which verbs there are: found by their files' text and by entry points, without importing one of them."""

from __future__ import annotations

import ast
from pathlib import Path

GROUP = "tune.verbs"


def built_in() -> dict[str, tuple[str, str | None]]:
    """The verbs of this folder: by name, where the function is (`module:function`) and its docstring."""
    found: dict[str, tuple[str, str | None]] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        text = path.read_bytes()
        if f"\ndef {path.stem}(".encode() not in text:  # most files here are verbs, but the others cost no parsing
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                name = path.stem.rstrip("_").replace("_", "-")
                found[name] = (f"{__package__}.{path.stem}:{node.name}", ast.get_docstring(node))
    return found


def installed() -> dict[str, tuple[str, str | None]]:
    """The verbs that other packages bring; their docstrings stay unread, since that would run them."""
    import importlib.metadata  # 20 ms that only those need who look for such a verb

    return {
        entry.name: (f"{entry.module}:{entry.attr}", f"From the package {entry.dist.name if entry.dist else '?'}.")
        for entry in importlib.metadata.entry_points(group=GROUP)
    }
