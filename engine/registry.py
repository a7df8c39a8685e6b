"""How plug-ins are found: by their file's name in a room, by an entry point, or by a class in a folder of the user's.

A built-in plug-in is one file: `tuners/grid_search.py` holds the class `GridSearch`, and both spellings (and NNI's,
`gridsearch`, `GridSearchTuner`) find it, since upper case and underscores don't count. Third parties register an
entry point in one of the groups below; a built-in name wins. A class with `suggest` is a tuner, one with `verdict` is
an assessor, and one may be both; one with `adapter` is a style: it makes tuners of classes in another system's manner.

The constructor is the schema of its options: keyword-only arguments with annotations.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from .errors import UsageError
from .plugins import Style

Kind: TypeAlias = Literal["tuner", "assessor", "training_service", "verb", "style"]

GROUPS: dict[Kind, str] = {
    "tuner": "tune.tuners",
    "assessor": "tune.assessors",
    "training_service": "tune.training_services",
    "verb": "tune.verbs",
    "style": "tune.styles",
}
_ROOMS: dict[Kind, str] = {
    "tuner": "tuners",
    "assessor": "tuners",
    "training_service": "training_services",
    "verb": "cli",
    "style": "tuners",
}
_METHODS: dict[Kind, str] = {"tuner": "suggest", "assessor": "verdict", "style": "adapter"}
_SUFFIX = re.compile(r"(?<=.)(tuner|assessor|advisor)$")


class PluginError(UsageError):
    """A plug-in that is there can't be used: its import fails, or it isn't what its name says."""


def fold(name: str) -> str:
    """A name without what doesn't count: case, `_`, `-`."""
    return name.lower().replace("_", "").replace("-", "")


# -- by name ----------------------------------------------------------------------------------------------------------
def names(kind: Kind) -> list[str]:
    """The names of all plug-ins of a kind, as a person would write them, sorted; nothing is imported for it."""
    found = {fold(name): name for name in _registered(kind)}
    for stem, path in _files(kind).items():
        name = _class_in(path, stem, kind)
        if name is not None:
            found[fold(stem)] = name.rstrip("_")
    return sorted(found.values(), key=str.lower)


def find(kind: Kind, name: str) -> tuple[str, Any]:
    """A plug-in by name: how it is written, and the class (for a verb: the function). Imports it.

    `UsageError` with the allowed names for an unknown one, `PluginError` for one whose import fails.
    """
    wanted = fold(name)
    for candidate in dict.fromkeys([wanted, _SUFFIX.sub("", wanted)]):
        for stem, path in _files(kind).items():
            if fold(stem) == candidate and (attribute := _class_in(path, stem, kind)) is not None:
                written = attribute.rstrip("_")
                return written, _load(f"{_package()}.{_ROOMS[kind]}.{stem}", attribute, f"{kind} {written}")
        for registered, entry in _registered(kind).items():
            if fold(registered) == candidate:
                return registered, _checked(kind, registered, _loaded(entry))
    allowed = names(kind)
    raise UsageError(f"unknown {_said(kind)} {name!r}", f"allowed: {', '.join(allowed)}{_nearest(name, allowed)}")


def tuner_class(name: str) -> type[Any]:
    """The class of a built-in or installed tuner; `UsageError` as in `find`."""
    found: type[Any] = find("tuner", name)[1]
    return found


def assessor_class(name: str) -> type[Any]:
    """The class of a built-in or installed assessor; `UsageError` as in `find`."""
    found: type[Any] = find("assessor", name)[1]
    return found


def training_service_class(name: str) -> type[Any]:
    """The class of a built-in or installed training service; `UsageError` as in `find`."""
    found: type[Any] = find("training_service", name)[1]
    return found


def styles() -> list[type[Style]]:
    """All styles, built-in and installed ones."""
    return [find("style", name)[1] for name in names("style")]


def user_class(code_directory: str, class_name: str) -> type[Any]:
    """The class `module.Class` from a folder of the user's. This runs user code: in the tuner host only.

    The folder is put in front of the import path and stays there, so that the class finds its neighbours.
    """
    for style in styles():
        style.prepare()
    module, _, name = class_name.rpartition(".")
    if code_directory and code_directory not in sys.path:
        sys.path.insert(0, code_directory)
    importlib.invalidate_caches()
    found: type[Any] = _load(module, name, f"class {class_name} in {code_directory}")
    return found


def user_class_problem(code_directory: str, class_name: str) -> str | None:
    """What can be said against `module.Class` in a folder without running anything of it; None: nothing."""
    folder = Path(code_directory)
    if not folder.is_dir():
        return f"the folder {code_directory} doesn't exist"
    module, _, name = class_name.rpartition(".")
    if not module or not all(part.isidentifier() for part in class_name.split(".")):
        return f"{class_name!r} is no class in a module; allowed: module.Class, e.g. my_tuner.MyTuner"
    path = folder.joinpath(*module.split("."))
    if not path.with_suffix(".py").is_file() and not path.is_dir():
        return f"there is no module {module.replace('.', '/')}.py in {code_directory} for {name}"
    return None


def _package() -> str:
    return __name__.rsplit(".", 2)[0]


@cache
def _files(kind: Kind) -> dict[str, Path]:
    spec = importlib.util.find_spec(f"{_package()}.{_ROOMS[kind]}")
    places = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    found = {path.stem: path for place in places for path in Path(place).glob("*.py") if not path.stem.startswith("_")}
    return dict(sorted(found.items()))


@cache
def _class_in(path: Path, stem: str, kind: Kind) -> str | None:
    """The name of a file's plug-in of this kind, read from its text: a class; for a verb its function."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None
    if kind == "verb":
        functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        return next((name for name in (stem, f"{stem}_") if name in functions), None)
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    name = next((name for name in classes if fold(name) == fold(stem)), None)
    if name is None or kind not in _METHODS or _METHODS[kind] in _methods(classes, name):
        return name
    known_bases = all(isinstance(base, ast.Name) and base.id in classes for base in classes[name].bases)
    if known_bases or kind == "style":
        return None
    # a base from elsewhere may bring the method: only the class itself can tell
    found = getattr(importlib.import_module(f"{_package()}.{_ROOMS[kind]}.{stem}"), name)
    return name if callable(getattr(found, _METHODS[kind], None)) else None


def _methods(classes: Mapping[str, ast.ClassDef], name: str) -> set[str]:
    found: set[str] = set()
    todo, seen = [name], set[str]()
    while todo:
        at = todo.pop()
        if at in seen or at not in classes:
            continue
        seen.add(at)
        for node in classes[at].body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        todo += [base.id for base in classes[at].bases if isinstance(base, ast.Name)]
    return found


def _registered(kind: Kind) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUPS[kind])}


def _loaded(entry: importlib.metadata.EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"the installed plug-in {entry.name} ({entry.value}) can't be imported: {_one(error)}"
        ) from error


def _load(module: str, name: str, said: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        raise PluginError(f"{said} can't be imported: {_one(error)}", _missing(error)) from error


def _checked(kind: Kind, name: str, found: Any) -> Any:
    method = _METHODS.get(kind)
    if method is not None and not callable(getattr(found, method, None)):
        raise PluginError(f"the installed {kind} {name} has no method {method}")
    return found


def _missing(error: Exception) -> str | None:
    extras = {"torch": "torch", "sklearn": "examples"}
    name = error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else ""
    return f"Install it with: pip install 'tune-engine[{extras[name]}]'" if name in extras else None


def _one(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _said(kind: Kind) -> str:
    return kind.replace("_", " ")


def _nearest(name: str, allowed: list[str]) -> str:
    folded = {fold(candidate): candidate for candidate in allowed}
    close = difflib.get_close_matches(fold(name), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]}?" if close else ""


# -- class arguments --------------------------------------------------------------------------------------------------
def check_arguments(cls: Callable[..., Any], class_args: Mapping[str, Any]) -> list[str]:
    """What is wrong with these options of a plug-in, one sentence each, the argument's name first; empty: nothing."""
    parameters, anything = _options(cls)
    hints = _hints(cls)
    wrong: list[str] = []
    for name, value in class_args.items():
        if name not in parameters:
            if anything or name == "optimize_mode":  # an argument of every tuner; build() drops it where unused
                continue
            allowed = ", ".join(parameters) or "none"
            wrong.append(f"{name}: unknown argument; allowed: {allowed}{_nearest(name, list(parameters))}")
        elif name in hints:
            try:
                msgspec.convert(value, hints[name], strict=True)
            except msgspec.ValidationError as error:
                wrong.append(f"{name}: found {value!r}; {_reworded(str(error))}; allowed: {_type_said(hints[name])}")
            except TypeError:
                continue  # an annotation that is no plain data type: the constructor checks by itself
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in class_args and name != "optimize_mode":
            wrong.append(f"{name}: this argument is required")
    return wrong


def build(cls: Callable[..., Any], class_args: Mapping[str, Any], optimize_mode: str = "maximize") -> Any:
    """An instance with these options; `optimize_mode` is added for a constructor that takes it and isn't given it."""
    parameters, anything = _options(cls)
    given = dict(class_args)
    if "optimize_mode" in parameters:
        given.setdefault("optimize_mode", optimize_mode)
    elif not anything:
        given.pop("optimize_mode", None)
    return cls(**given)


def _options(cls: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The arguments of a constructor that can be given by name, and whether it takes any other too."""
    try:
        everything = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return {}, True
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    chosen = {name: parameter for name, parameter in everything.items() if parameter.kind in by_name}
    return chosen, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in everything.values())


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__ if inspect.isclass(cls) else cls)
    except Exception:  # an annotation that names what isn't there: such a class checks its arguments by itself
        return {}


def _reworded(text: str) -> str:
    return text.replace("`", "").partition(" - at ")[0].lower()


def _type_said(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(str(choice) for choice in typing.get_args(hint))
    names_of = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    arguments = typing.get_args(hint)
    if type(hint) in (type(int | str), type(typing.Optional[int])):  # noqa: UP045
        return " or ".join(_type_said(part) for part in arguments)
    return names_of.get(hint, str(hint).replace("typing.", ""))
