"""`tune check`: says whether a config is right and what it comes to; starts nothing and writes nothing."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from ..engine.config import Config, encode
from ..engine.config_file import is_list, is_table
from ..engine.config_load import load
from ..engine.errors import UsageError
from ..engine.space import SpaceError, parse
from .create import ConfigFile
from .reading import Json, json_text, note, printable, say, say_json

_SAMPLES = 3


def check(
    config: ConfigFile = None,
    *,
    json: Json = False,
) -> None:
    """Check a config, show it with all defaults, and sample 3 points of its search space."""
    if config is None:
        raise UsageError("tune check: which config?", "Name a file: tune check config.toml")
    resolved, notes = load(config)
    content: dict[str, Any] = msgspec.json.decode(encode(resolved))
    points = samples(resolved)
    if json:
        say_json({"config": content, "samples": points, "notes": notes})
        return
    for text in notes:
        note(f"note: {printable(text)}")
    for line in as_toml(content):
        say(line)
    say()
    for point in points:
        say(f"# a point: {json_text(point)}")
    if not points:
        say("# no points: the search space is in the tuner's own words")


def samples(config: Config) -> list[dict[str, Any]]:
    """Three points of the search space that meet its constraints, the same ones each time.

    None of a space that only its tuner can read.
    """
    try:
        space = parse(config.search_space, config.constraints)
    except SpaceError:
        return []
    draw = random.Random(config.seed).random
    return [space.sample(draw) for _ in range(_SAMPLES)]


def as_toml(content: dict[str, Any]) -> list[str]:
    """A config as TOML; what is not given is left out."""
    plain: dict[str, Any] = {
        key: value for key, value in content.items() if value not in (None, [], {}) or key == "search_space"
    }
    if "objectives" in plain:  # they say it for each
        plain.pop("optimize_mode", None)
    tables = ("search_space", "tuner", "assessor", "training_service")
    lines = [f"{key} = {_value(value)}" for key, value in plain.items() if key not in tables]
    for name in tables:
        if name in plain:
            lines += ["", f"[{name}]"]
            fields = plain[name].items()
            lines += [f"{_key(key)} = {_value(value)}" for key, value in fields if value not in (None, "", {})]
    return [printable(line) for line in lines]


def _key(name: str) -> str:
    bare = name and all(one.isascii() and (one.isalnum() or one in "_-") for one in name)
    return name if bare else msgspec.json.encode(name).decode()


def _value(value: Any) -> str:
    if is_table(value):
        inner = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if is_list(value):
        return f"[{', '.join(map(_value, value))}]"
    return msgspec.json.encode(value).decode()
