"""Values: the one JSON text of a metric or of parameters, made once where they are born, and read as a number.

Standard JSON only: NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity". Numpy and torch scalars
count as numbers, by their `.item()` and without an import of either.
"""

from __future__ import annotations

from typing import SupportsFloat, cast

import msgspec

MAX_TEXT = 1 << 20
MAX_DEPTH = 100
_LOW, _HIGH = -(1 << 63), (1 << 64) - 1
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encode(value: object) -> str:
    """The JSON text of a value.

    `ValueError` says what is wrong: an integer beyond 64 bits, a type that JSON does not know, nesting deeper than
    100, a text over 1 MiB.
    """
    data = _encode(_plain(value, 0))
    if len(data) > MAX_TEXT:
        raise ValueError(f"the value is {len(data)} bytes long as JSON, the limit is {MAX_TEXT}")
    return data.decode()


def number(text: bytes | str) -> float | None:
    """What a metric's JSON text counts as: its number, or that of its key "default"; None when it has none.

    The strings "NaN", "Infinity" and "-Infinity" are numbers that are not finite. True and False are no numbers.
    """
    value = _decoded(text)
    return _number(cast("dict[str, object]", value).get("default") if isinstance(value, dict) else value)


def numbers(text: bytes | str) -> dict[str, float]:
    """All numbers of a metric's JSON text, by key; a plain number is "default". What is no number is left out."""
    value = _decoded(text)
    items = cast("dict[str, object]", value) if isinstance(value, dict) else {"default": value}
    return {key: found for key, item in items.items() if (found := _number(item)) is not None}


def _decoded(text: bytes | str) -> object:
    """The value of a JSON text; None when it is none."""
    try:
        return cast("object", _decode(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _plain(value: object, depth: int) -> object:
    """The same value in exact built-in types that JSON can hold."""
    if isinstance(value, float):  # numpy.float64 is one
        plain = float(value)
        return plain if plain - plain == 0 else _name(plain)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not _LOW <= value <= _HIGH:
            raise ValueError(f"an integer of {value.bit_length()} bits: JSON values hold 64 bits at most")
        return int(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a text that is no valid Unicode: {error}") from None
        return str.__str__(value)
    if depth >= MAX_DEPTH:
        raise ValueError(f"a value nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {_key(key): _plain(item, depth + 1) for key, item in pairs}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in cast("list[object]", value)]
    return _scalar(value)


def _name(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(int(key))
    raise ValueError(f"a key of type {type(key).__name__}: JSON keys are texts")


def _scalar(value: object) -> object:
    """A number of numpy, torch or their like; such objects give it by `item()`."""
    item = getattr(value, "item", None)
    if item is None:
        raise ValueError(f"a value of type {type(value).__name__}: JSON does not know it")
    try:
        plain = item()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"a {type(value).__name__} that is not one number: {error}") from None
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return _plain(plain, MAX_DEPTH)
    if type(plain) is type(value) and isinstance(plain, SupportsFloat):  # numpy.longdouble gives itself
        return _plain(float(plain), MAX_DEPTH)
    raise ValueError(f"a {type(value).__name__} whose item is a {type(plain).__name__}: JSON does not know it")
