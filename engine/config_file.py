"""Reading a config or search-space file: TOML, YAML or JSON text to plain data, with the line of every field.

A file can be small and yet cost minutes and gigabytes (a 64 KB TOML of dotted keys takes tomllib 15 s, YAML aliases
multiply, nesting exhausts the stack), so each text is looked through for size, depth and number of values before a
parser sees it. Data are what JSON can hold: dicts with text keys, lists, texts, numbers, booleans, None.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from .errors import UsageError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_DOTS = 32
MAX_WORD = 1024

Place = tuple[str | int, ...]  # where a value stands: the keys and indices that lead to it, as written


class Source:
    """A file that was read: its data, and the line of each of its fields for messages."""

    def __init__(self, path: Path, data: Any, lines: dict[Place, int]) -> None:
        self.path = path
        self.data = data
        self._lines = lines

    def at(self, place: Place) -> str:
        """`file:line` of a field; of its nearest known parent where the field itself has no line; else `file`."""
        while place:
            if place in self._lines:
                return f"{self.path}:{self._lines[place]}"
            place = place[:-1]
        return str(self.path)


def read(path: Path) -> Source:
    """The data of a file, by its suffix: .toml, .yaml, .yml or .json. `UsageError` with file and line otherwise."""
    readers = {".toml": _toml, ".yaml": _yaml, ".yml": _yaml, ".json": _json}
    reader = readers.get(path.suffix.lower())
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; allowed: a file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if reader is None:
        raise UsageError(f"{path} has the suffix {path.suffix!r}; allowed: .toml, .yaml, .yml, .json")
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path} is too large; allowed: {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not text: byte {error.start} is no UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(f"{path}:{line}: not text: it holds a zero byte")
    lines: dict[Place, int] = {}
    data = reader(path, text, lines)
    _plain(path, data, lines)
    return Source(path, data, lines)


def is_table(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a table of fields (its keys are checked by `not_plain`)."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)


def not_plain(data: Any) -> tuple[Place, str] | None:
    """The first place in `data` that JSON can't hold, and what is wrong there; None: it is plain data."""
    todo: list[tuple[Place, Any]] = [((), data)]
    while todo:
        place, value = todo.pop()
        if is_table(value):
            keys: list[Any] = list(value)
            for key in keys:
                if not isinstance(key, str):
                    return (*place, str(key)), f"the key {key!r} is no text"
                todo.append(((*place, key), value[key]))
        elif is_list(value):
            todo += [((*place, index), inner) for index, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            return place, f"{value} is no finite number"
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            return place, "the integer needs more than 64 bits"
        elif isinstance(value, str) and not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            return place, "the text holds half a character (a lone surrogate)"
        elif value is not None and not isinstance(value, str | int | float):
            return place, f"a {type(value).__name__} is no JSON value"
        if len(place) > MAX_DEPTH:
            return place[:4], f"it is nested too deeply; allowed: {MAX_DEPTH} levels"
    return None


def said(place: Place) -> str:
    """A place as people write it: `tuner.class_args`, `search_space.lr._value[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _plain(path: Path, data: Any, lines: dict[Place, int]) -> None:
    found = not_plain(data)
    if found is not None:
        place, wrong = found
        raise UsageError(f"{Source(path, data, lines).at(place)}: {said(place) or 'the file'}: {wrong}")


def _too(path: Path, line: int, what: str, allowed: str) -> UsageError:
    return UsageError(f"{path}:{line}: {what}; allowed: {allowed}")


# -- TOML -------------------------------------------------------------------------------------------------------------
# a run of empty and comment lines is one token, and so is a word: a file of nothing but them must not be dear
_TOKEN = re.compile(r"\"\"\"|'''|[\"'#\[\]{}.,=]|(?:\n[ \t]*+(?:#[^\n]*+)?+)++|[A-Za-z0-9_+-]++")
_ENDS = {  # possessive, so that none of them ever goes back
    '"""': re.compile(r'(?:[^"\\]|\\.|"(?!""))*+"""(?:"(?!"))?+(?:"(?!"))?+', re.DOTALL),
    "'''": re.compile(r"(?:[^']|'(?!''))*+'''"),
    '"': re.compile(r'(?:[^"\\\n]|\\.)*+"'),
    "'": re.compile(r"[^'\n]*+'"),
    "#": re.compile(r"[^\n]*+"),
}


def _toml(path: Path, text: str, lines: dict[Place, int]) -> Any:
    text = text.replace("\r\n", "\n")
    starts = _toml_scan(path, text)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        wrong = str(error)
        at = re.search(r" \(at line (\d+), column (\d+)\)$", wrong)
        if at:
            raise UsageError(f"{path}:{at[1]}: not TOML: {wrong[: at.start()]}") from error
        raise UsageError(f"{path}:{text.count(chr(10)) or 1}: not TOML: {wrong}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}:1: not TOML: {error}") from error
    _toml_lines(text, starts, lines)
    return _without_dates(data)


def _toml_scan(path: Path, text: str) -> list[int]:
    """Refuse what would be dear to parse; gives the start of each line that is not inside a string or an array."""
    depth = dots = nodes = position = 0
    starts, line = [0], 1
    while (token := _TOKEN.search(text, position)) is not None:
        kind, position = token[0], token.end()
        if kind[0] == "\n":
            line, dots = line + kind.count("\n"), 0
            if depth == 0:
                starts.append(position)
        elif position - token.start() > 3:
            if len(kind) > MAX_WORD:
                raise _too(path, line, "a word or number that is too long", f"{MAX_WORD} characters")
        elif kind in _ENDS:
            end = _ENDS[kind].match(text, position)
            if end is None:
                break  # never closed: the parser stops here too
            line += text.count("\n", position, end.end())
            position = end.end()
        elif kind in ("[", "{"):
            depth, nodes = depth + 1, nodes + 1
            if depth > MAX_DEPTH:
                raise _too(path, line, "brackets are nested too deeply", f"{MAX_DEPTH} levels")
        elif kind in ("]", "}"):
            depth, dots = max(0, depth - 1), 0
        elif kind[0] not in ".,=":
            continue  # a short word
        elif kind == ".":
            dots, nodes = dots + 1, nodes + 1
            if dots > MAX_DOTS:
                raise _too(path, line, "a key with too many dots", f"{MAX_DOTS} in a key")
        else:
            dots, nodes = 0, nodes + 1
        if nodes > MAX_NODES // 4:  # tomllib is slow: this many take it half a second
            raise _too(path, line, "too many values", f"{MAX_NODES // 4} in a file")
    return starts


_KEY = re.compile(r"""[ \t]*+(?:"((?:[^"\\\n]|\\.)*+)"|'([^'\n]*+)'|([A-Za-z0-9_-]++))[ \t]*+(\.|=|\])""")


def _toml_lines(text: str, starts: list[int], lines: dict[Place, int]) -> None:
    table: Place = ()
    arrays: dict[Place, int] = {}
    line, last = 1, 0
    for start in starts:
        line, last = line + text.count("\n", last, start), start
        position, array = start, False
        header = re.compile(r"[ \t]*(\[\[?)").match(text, start)
        if header is not None:
            array, position = header[1] == "[[", header.end()
        keys: list[str | int] = []
        while (key := _KEY.match(text, position)) is not None:
            keys.append(next(part for part in key.groups()[:3] if part is not None))
            position = key.end()
            if key[4] != ".":
                break
        if not keys:
            continue
        if header is not None:
            table = tuple(keys)
            if array:
                arrays[table] = arrays.get(table, -1) + 1
                table = (*table, arrays[table])
        place = table if header is not None else (*table, *keys)
        for length in range(1, len(place) + 1):
            lines.setdefault(place[:length], line)


def _without_dates(data: Any) -> Any:
    """TOML's dates and times as the text that was written, since JSON has none."""
    if is_table(data):
        return {key: _without_dates(value) for key, value in data.items()}
    if is_list(data):
        return [_without_dates(value) for value in data]
    if isinstance(data, datetime.date | datetime.time):
        return data.isoformat()
    return data


# -- YAML -------------------------------------------------------------------------------------------------------------
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FAST = _BASE is not yaml.SafeLoader
# YAML 1.1, which PyYAML speaks, takes 1e-4 for a text; everybody who writes it in a search space means the number
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+")


def _yaml(path: Path, text: str, lines: dict[Place, int]) -> Any:
    allowed = MAX_NODES // (2 if _FAST else 10)
    loader: Any = None
    try:
        depth = nodes = 0
        events: Any = yaml.parse(text, Loader=_BASE)
        for event in events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise _too(path, line, f"the alias *{event.anchor}", "no aliases: write the value out")
            if isinstance(event, yaml.CollectionStartEvent):
                depth, nodes = depth + 1, nodes + 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.ScalarEvent):
                nodes += 1
            if depth > MAX_DEPTH:
                raise _too(path, line, "it is nested too deeply", f"{MAX_DEPTH} levels")
            if nodes > allowed:
                raise _too(path, line, "too many values", f"{allowed} in a file")
        loader = _BASE(text)
        node = loader.get_single_node()
        return None if node is None else _yaml_value(path, loader, node, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise UsageError(f"{path}:{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}:1: not YAML: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _yaml_value(path: Path, loader: Any, node: Any, place: Place, lines: dict[Place, int]) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        _yaml_tag(path, node, "map", line)
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _too(path, at, "a key that is a list or a mapping", "text keys")
            key = key_node.value
            if key in mapping:
                raise _too(path, at, f"{said((*place, key))}: the key is there twice", "once")
            lines[(*place, key)] = at
            mapping[key] = _yaml_value(path, loader, value_node, (*place, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        _yaml_tag(path, node, "seq", line)
        sequence: list[Any] = []
        for index, value_node in enumerate(node.value):
            lines[(*place, index)] = value_node.start_mark.line + 1
            sequence.append(_yaml_value(path, loader, value_node, (*place, index), lines))
        return sequence
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "str":
        plain = not node.style and _FLOAT.fullmatch(node.value)
        return float(node.value) if plain else node.value
    if kind in ("int", "float", "bool", "null"):
        try:
            return loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{path}:{line}: not YAML: {error}") from error
    if kind in ("timestamp", "value", "merge"):
        return node.value
    raise _too(path, line, f"the tag {node.tag!r}", "plain values without tags")


def _yaml_tag(path: Path, node: Any, kind: str, line: int) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise _too(path, line, f"the tag {node.tag!r}", "plain values without tags")


# -- JSON -------------------------------------------------------------------------------------------------------------
_JSON_TOKEN = re.compile(r'["\[\]{},]')
_JSON_STRING_END = re.compile(r'(?:[^"\\]|\\.)*+"', re.DOTALL)


def _json(path: Path, text: str, lines: dict[Place, int]) -> Any:
    depth = nodes = 0
    position = 0
    while (token := _JSON_TOKEN.search(text, position)) is not None:
        kind, position = token[0], token.end()
        if kind == '"':
            end = _JSON_STRING_END.match(text, position)
            if end is None:
                break  # never closed: the parser stops here too
            position = end.end()
        elif kind in "[{":
            depth, nodes = depth + 1, nodes + 1
        elif kind in "]}":
            depth -= 1
        elif kind == ",":
            nodes += 1
        if depth > MAX_DEPTH:
            raise _too(path, _line(text, token.start()), "it is nested too deeply", f"{MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise _too(path, _line(text, token.start()), "too many values", f"{MAX_NODES} in a file")

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counted = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counted.items() if count > 1)
            raise ValueError(f"the key {twice!r} is there twice")
        return found

    try:
        data = json.loads(text, parse_constant=constant, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}:1: not JSON: {error}") from error
    _json_lines(text, data, lines)
    return data


def _json_lines(text: str, data: Any, lines: dict[Place, int]) -> None:
    """Lines of the keys of the first four levels, found one after the other, as they stand in the text."""
    position = line = 0

    def walk(value: Any, place: Place) -> None:
        nonlocal position, line
        if not is_table(value) or len(place) >= 4 or len(lines) > 2000:
            return
        for key, inner in value.items():
            found = text.find(json.dumps(key, ensure_ascii=False), position)
            if found >= 0:
                line += text.count("\n", position, found)
                position = found + len(key) + 2
            lines[(*place, key)] = line + 1
            walk(inner, (*place, key))

    walk(data, ())


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
