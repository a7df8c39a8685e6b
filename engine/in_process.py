"""Which tuner and assessor a study in a program runs: a name, a class or an object, and how its config says so.

A class is named by its module and folder, so that a resume, `tune verify --decisions` and `tune replay` find it again;
one that can't be found so, and an object, have to be given again.
"""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any, cast

import msgspec

from ..trial_sdk import values
from . import config_load, home, registry
from .config import Algorithm, Config
from .errors import UsageError


def named(kind: registry.Kind, chosen: Any, class_args: dict[str, Any], mode: str) -> tuple[Algorithm, Any]:
    """How the config names a plug-in, and the object itself where it is not one of the house."""
    if isinstance(chosen, str):
        return Algorithm(name=chosen, class_args=class_args), None
    cls = cast("type[Any]", chosen if inspect.isclass(chosen) else type(chosen))
    method = "suggest" if kind == "tuner" else "verdict"
    for needed in (method, "observe"):
        if not callable(getattr(cls, needed, None)):
            raise UsageError(f"{cls.__name__} has no method {needed}; a {kind} needs one")
    if not inspect.isclass(chosen):
        if class_args:
            raise UsageError(f"{kind}: found the options {', '.join(class_args)} beside an object; allowed: a class")
        return _place(cls, {}), chosen
    if registry.fold(cls.__name__) in map(registry.fold, registry.names(kind)):
        name, known = registry.find(kind, cls.__name__)
        if known is cls:
            return Algorithm(name=name, class_args=class_args), None
    wrong = registry.check_arguments(cls, class_args)
    if wrong:
        raise UsageError(f"{kind} {cls.__name__}: {'; '.join(wrong)}")
    return _place(cls, class_args), registry.build(cls, class_args, mode)


def _place(cls: type[Any], class_args: dict[str, Any]) -> Algorithm:
    """Where a class of the user's lives; a program's own module has no folder from which another could import it."""
    folder = ""
    if cls.__module__ != "__main__":
        with contextlib.suppress(TypeError, OSError):
            file = Path(inspect.getfile(cls)).absolute()
            folder = str(file.parents[cls.__module__.count(".")])
    plain = msgspec.json.decode(values.encode(class_args))
    return Algorithm(class_name=f"{cls.__module__}.{cls.__qualname__}", code_directory=folder, class_args=plain)


def made(given: Any, chosen: Algorithm | None, config: Config) -> Any:
    """The object for one that is given anew: of a class with the options that the log has."""
    if not inspect.isclass(given):
        return given
    return registry.build(given, chosen.class_args if chosen is not None else {}, config.optimize_mode)


def checked(config: Config) -> Config:
    """The config with names as they are written; `UsageError` with every fault."""
    limits = {"max_trial_number": config.max_trial_number, "trial_concurrency": config.trial_concurrency}
    for name, number in limits.items():
        if number is not None and (isinstance(number, bool) or number < 1):
            raise UsageError(f"{name}: found {number!r}; allowed: 1 or more")
    return config if config.tuner.is_users else config_load.resolve(config)


def resumable(folder: home.Folder, config: Config, own_tuner: bool, own_assessor: bool) -> Config:
    """The config of a log that a program asks and tells; `UsageError` where it can't go on with it."""
    if not config.in_process:
        raise UsageError(
            f"experiment {folder.id} has a trial_command, which an engine runs", f"Go on with: tune resume {folder.id}"
        )
    for kind, own, chosen in (("tuner", own_tuner, config.tuner), ("assessor", own_assessor, config.assessor)):
        if own or chosen is None or not chosen.is_users:
            continue
        if folder.path.parent != home.root():
            raise UsageError(
                f"the {kind} {chosen.class_name} is named by a log that is not in your $TUNE_HOME: it is not imported",
                f"Give it: AskTell.resume({folder.id!r}, {kind}=...)",
            )
        if "<locals>" in chosen.class_name:
            raise UsageError(
                f"the {kind} {chosen.class_name} can't be imported by its name",
                f"Give it: AskTell.resume({folder.id!r}, {kind}=...)",
            )
    return config
