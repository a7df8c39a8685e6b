"""Parameters that people bring along, to run or with results from elsewhere: whether an experiment can take them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from ..trial_sdk import values
from . import registry
from .config import Config
from .errors import UsageError
from .space import SAMPLES, Space, SpaceError, parse, scope_of

EXTRAS = frozenset({"TRIAL_BUDGET", "load_checkpoint_dir", "save_checkpoint_dir"})  # beside those of the space
_PROBES = 1000

Gate: TypeAlias = Callable[[Mapping[str, Any]], str | None]


def gate(settings: Config) -> Gate:
    """Says of parameters why they are no point of the experiment's search space; None when they are one.

    With a tuner of the user's own any JSON object is one that meets the constraints. A tuner that maps points to other
    ones (Batch) has its own `contains`. `UsageError` when the tuner is not installed any more.
    """
    space = space_of(settings)
    if space is None:
        return lambda parameters: None
    if settings.tuner.is_users:
        return lambda parameters: _broken(space, parameters)
    tuner = settings.tuner
    made = registry.build(registry.tuner_class(tuner.name), tuner.class_args, settings.optimize_mode)
    own: Callable[[Space, Mapping[str, Any]], str | None] | None = getattr(made, "contains", None)
    if own is None:
        return lambda parameters: space.contains(parameters, EXTRAS)
    return lambda parameters: own(space, {key: value for key, value in parameters.items() if key not in EXTRAS})


def space_of(settings: Config) -> Space | None:
    """The search space of an experiment; None when it is in the words of a tuner of the user's own. `UsageError`."""
    try:
        return parse(settings.search_space, settings.constraints)
    except SpaceError as error:
        if settings.tuner.is_users and not settings.constraints:
            return None
        raise UsageError("\n".join(f"search_space: {text}" for text in error.errors)) from error


def faults(raw: Mapping[str, Any], settings: Config) -> list[str]:
    """What is wrong with a new search space for an experiment; empty when it can be searched."""
    tuner = settings.tuner
    if tuner.is_users and not settings.constraints:
        return []  # it may be in words of the tuner's own
    try:
        space = parse(raw, settings.constraints)
    except SpaceError as error:
        return [f"search_space: {text}" for text in error.errors]
    why = unmet(space) if space.constraints else None
    if why is not None:
        return [f"{why}: {', '.join(settings.constraints)}"]
    refuse = None if tuner.is_users else getattr(registry.tuner_class(tuner.name), "refuse", None)
    reason = refuse(space) if callable(refuse) else None
    return [f"{tuner.name} can't search this space: {reason}"] if reason else []


def read(text: str) -> list[str]:
    """Parameters in a JSON text, one object or a list of them: each as JSON text. `ValueError` when it is neither."""
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("this is nested too deeply") from None
    items = cast("list[Any]", found if isinstance(found, list) else [found])
    wrong = [one for one in items if not isinstance(one, dict)]
    if wrong or not items:
        raise ValueError(f"found {str(wrong[0])[:60] if wrong else 'an empty list'}; allowed: an object of parameters")
    return [values.encode(one) for one in items]


def text_of(value: object) -> str:
    """The JSON text of parameters or of a result, as it rests in the log. `ValueError` for what can't rest there."""
    return values.encode(value)


def unmet(space: Space) -> str | None:
    """What to say when none of many random points meets the constraints; None when one does. The same each time."""
    draw = random.Random(0).random
    try:
        space.sample(draw)
    except SpaceError:
        pass
    else:
        return None
    free = Space(space.raw, space.params)
    scopes = [scope_of(free.sample(draw)) for _ in range(_PROBES)]
    never = [one.text for one in space.constraints if not any(map(one.holds, scopes))]
    alone = f"; {never[0]!r} is met by none of them even alone" if never else ""
    return f"none of {SAMPLES} random points of the search space meets the constraints{alone}"


def _broken(space: Space, parameters: Mapping[str, Any]) -> str | None:
    broken = space.broken(parameters)
    return f"the constraint {broken.text!r} is not met" if broken is not None else None
