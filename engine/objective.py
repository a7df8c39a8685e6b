"""A Python function as what trials run: writes down how a trial's process gets it, without a pickle.

A function of a module is named by module and name. One of a script or a notebook (`__main__`) is cut out of its source:
the definition and, of the other top-level statements, those that bind a name it needs, and those that they need. The
file can be read by people, and only trials run it (trial_sdk/function.py).
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from ..trial_sdk.function import DESCRIPTION, SOURCE

COMMAND = "exec python -m tune.trial_sdk.function"  # in the folder that `write` filled
_AT_TOP = "allowed: a function that is defined at the top level of a module, a script or a notebook"
_GIVEN = frozenset({*dir(builtins), "__name__", "__file__", "__doc__"})


def write(function: Callable[..., Any], folder: Path) -> None:
    """Fill a folder with what a trial needs to call this function; `ValueError` when it can't be had elsewhere."""
    module: str = getattr(function, "__module__", "") or ""
    name: str = getattr(function, "__qualname__", "") or ""
    if not name or "<" in name:
        raise ValueError(f"the objective is {function!r}; {_AT_TOP}, under a name")
    if module == "__main__":
        text = sliced(_source_of_main(function), name.split(".")[0])
        (folder / SOURCE).write_text(text, encoding="utf-8")
        module = ""
    else:
        _look_up(module, name, function)
    said = {"module": module, "name": name, "path": [entry for entry in sys.path if entry], "folder": str(Path.cwd())}
    (folder / DESCRIPTION).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _look_up(module: str, name: str, function: object) -> None:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise ValueError(f"the objective is {module}.{name}, and that name stands for something else there; {_AT_TOP}")


def _source_of_main(function: Callable[..., Any]) -> str:
    """The text of the script, or of all cells that the notebook has run, in their order."""
    cells: Any = sys.modules["__main__"].__dict__.get("In")
    if isinstance(cells, list) and "get_ipython" in dir(sys.modules["__main__"]):
        return "\n".join(_plain_cell(str(cell)) for cell in cast("list[Any]", cells))
    path = inspect.getsourcefile(function)
    if path is None or not os.path.isfile(path):  # noqa: PTH113
        raise ValueError(f"the source of the objective {function.__qualname__} can't be found; {_AT_TOP}")
    return Path(path).read_text(encoding="utf-8")


def _plain_cell(cell: str) -> str:
    """A notebook's cell without what only notebooks understand; "" for one that is no Python at all."""
    lines = [line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!", "?"))]
    text = "\n".join(lines)
    try:
        ast.parse(text)
    except SyntaxError:
        return ""
    return text


# -- cutting out ------------------------------------------------------------------------------------------------------
def sliced(source: str, name: str) -> str:
    """The top-level statements of a source that define `name` and all that it needs, in their order.

    Of a name that is bound several times each binding is kept. `ValueError` when a needed name is bound nowhere.
    """
    statements = [one for one in ast.parse(source).body if not _is_main_guard(one)]
    binds = [_bound(one) for one in statements]
    if not any(name in bound for bound in binds):
        raise ValueError(f"the objective {name} is not defined at the top level of its source; {_AT_TOP}")
    wanted, kept = {name}, set[int]()
    todo = [name]
    while todo:
        current = todo.pop()
        for index, statement in enumerate(statements):
            if current not in binds[index] or index in kept:
                continue
            kept.add(index)
            for needed in sorted(_needed(statement) - wanted):
                wanted.add(needed)
                todo.append(needed)
    everywhere = set[str]().union(*(binds[index] for index in kept))
    by_functions = {
        name
        for index in kept
        for node in ast.walk(statements[index])
        if isinstance(node, ast.Global)
        for name in node.names
    }
    missing = sorted(wanted - everywhere - by_functions - _GIVEN)
    if missing:
        raise ValueError(
            f"the objective {name} uses {missing[0]!r}, which no top-level statement of its source binds; "
            "allowed: names that are imported, defined or assigned there"
        )
    parts = [ast.unparse(statements[index]) for index in sorted(kept)]
    return f"# What {name} needs of the script or notebook that defines it.\n" + "\n".join(parts) + "\n"


def _is_main_guard(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Compare)
        and any(isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(statement.test))
    )


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds in the module."""
    found: set[str] = set()
    for node in _own(statement):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(one.asname or one.name).split(".")[0] for one in names}
            case _:
                pass
    return found


def _own(statement: ast.AST) -> list[ast.AST]:
    """A statement's nodes without the bodies of functions and classes, which bind names of their own."""
    found: list[ast.AST] = [statement]
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return found
    for child in ast.iter_child_nodes(statement):
        found += _own(child)
    return found


def _needed(statement: ast.stmt) -> set[str]:
    """The names that a statement, inner functions included, may look up in the module."""
    used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return {name for name in used if name not in _local_only(statement)}


def _local_only(statement: ast.stmt) -> set[str]:
    """Names that are bound inside the functions of a statement: taken for theirs."""
    found: set[str] = set()
    for node in ast.walk(statement):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                found |= {
                    one.id for part in node.generators for one in ast.walk(part.target) if isinstance(one, ast.Name)
                }
            continue
        if not isinstance(node, ast.ClassDef):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            found |= {one.arg for one in (*every, arguments.vararg, arguments.kwarg) if one is not None}
        if not isinstance(node, ast.Lambda):
            shared = {name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}
            for inner in node.body:
                found |= _bound(inner) - shared
            found |= {
                handler.name for handler in ast.walk(node) if isinstance(handler, ast.ExceptHandler) and handler.name
            }
    return found


def as_config(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The fields of a config whose trials call the function in `folder`; its own command and folder would clash."""
    for name in ("trial_command", "trial_code_directory"):
        if name in fields:
            raise ValueError(f"{name}: found beside an objective function; allowed: one of them")
    return {**fields, "trial_command": COMMAND, "trial_code_directory": str(folder), "python": sys.executable}
