"""Conditions that parameters or results have to meet, such as `batch * width <= 65536`: read once, then only evaluated.

The language: names, numbers, texts, `True`, `False`, `None`; `+ - * / // % **`; comparisons (chained too); `in` and
`not in` a list; `and`, `or`, `not`. It is parsed by `ast` with a list of what is allowed and never run as code.

A condition about a parameter that is not there (of another branch of a nested choice) says nothing, so it holds; one
that can't be computed (a division by zero, a text beside a number) does not hold. `violation` also says by how much it
fails: 0.0 when it holds, the distance of the two sides of a comparison, summed over `and`, the least over `or`.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

MAX_LENGTH = 1000  # characters of one condition
MAX_NODES = 200
_MAX_BITS = 4096  # of an integer that is computed
ABSENT = sys.float_info.max  # the violation of a result that lacks what is asked of it

Scope: TypeAlias = Mapping[str, Any]
_Value: TypeAlias = Callable[[Scope], Any]
_Amount: TypeAlias = Callable[[Scope], float]


class ConstraintError(ValueError):
    """A condition that can't be read: what was found, and what is allowed."""


class _Missing(Exception):
    """A name of the condition has no value in this scope."""


class Constraint:
    """One condition. `names`: what it speaks of."""

    def __init__(self, text: str, names: frozenset[str], amount: _Amount) -> None:
        self.text, self.names = text, names
        self._amount = amount

    def __repr__(self) -> str:
        return f"Constraint({self.text!r})"

    def holds(self, scope: Scope) -> bool:
        """Whether it is met; a name that has no value here makes it hold."""
        try:
            return self._amount(scope) == 0.0
        except _Missing:
            return True
        except (ArithmeticError, TypeError, ValueError):
            return False

    def violation(self, scope: Scope) -> float:
        """By how much it fails, finite: 0.0 when it is met; `ABSENT` when a name has no value or it is no number."""
        try:
            found = self._amount(scope)
        except (_Missing, ArithmeticError, TypeError, ValueError):
            return ABSENT
        return min(found, ABSENT) if not math.isnan(found) else ABSENT


def parse(text: str, allowed: Collection[str] | None = None) -> Constraint:
    """The condition that a text says about the names in `allowed`, or (None) about any; else `ConstraintError`."""
    if len(text) > MAX_LENGTH:
        raise ConstraintError(f"it has {len(text)} characters; allowed: {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise ConstraintError(f"{text!r} can't be read: {said}; allowed: a condition such as a * b <= 10") from None
    nodes = list(ast.walk(tree))
    if len(nodes) > MAX_NODES:
        raise ConstraintError(f"{text[:40]!r}... has {len(nodes)} parts; allowed: {MAX_NODES}")
    names = frozenset(node.id for node in nodes if isinstance(node, ast.Name))
    unknown = sorted(names - set(allowed)) if allowed is not None else []
    if allowed is not None and unknown:
        raise ConstraintError(f"{text!r} names {unknown[0]!r}; allowed: {', '.join(sorted(allowed)) or 'no name'}")
    return Constraint(text, names, _amount(tree.body, text, False))


# -- conditions -------------------------------------------------------------------------------------------------------
def _amount(node: ast.expr, text: str, negated: bool) -> _Amount:
    """How far a condition, or its contrary, is from being met."""
    if isinstance(node, ast.BoolOp):
        parts = [_amount(one, text, negated) for one in node.values]
        return _all(parts) if isinstance(node.op, ast.And) != negated else _any(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _amount(node.operand, text, not negated)
    if isinstance(node, ast.Compare):
        sides = [_value(one, text) for one in (node.left, *node.comparators)]
        pairs = [
            _comparison(op, left, right, text, negated)
            for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)
        ]
        return pairs[0] if len(pairs) == 1 else _any(pairs) if negated else _all(pairs)
    value = _value(node, text)
    return lambda scope: 0.0 if bool(value(scope)) != negated else 1.0


def _all(parts: Sequence[_Amount]) -> _Amount:
    def amount(scope: Scope) -> float:
        total = 0.0
        missing = False
        for part in parts:  # one that fails decides, whatever the others speak of
            try:
                total += part(scope)
            except _Missing:
                missing = True
        if missing and total == 0.0:
            raise _Missing
        return total

    return amount


def _any(parts: Sequence[_Amount]) -> _Amount:
    def amount(scope: Scope) -> float:
        least = math.inf
        missing = False
        for part in parts:
            try:
                least = min(least, part(scope))
            except _Missing:
                missing = True
            if least == 0.0:
                return 0.0
        if missing:
            raise _Missing
        return least

    return amount


def _comparison(op: ast.cmpop, left: _Value, right: _Value, text: str, negated: bool) -> _Amount:
    name = type(op).__name__
    if name not in _COMPARISONS:
        raise ConstraintError(f"{text!r} compares by {name}; allowed: < <= > >= == != in, not in")
    test = _COMPARISONS[name]

    def amount(scope: Scope) -> float:
        a, b = left(scope), right(scope)
        if test(a, b) != negated:
            return 0.0
        if _is_number(a) and _is_number(b) and name not in ("In", "NotIn"):
            return abs(float(a) - float(b)) or sys.float_info.min
        return 1.0

    return amount


# -- values -----------------------------------------------------------------------------------------------------------
def _value(node: ast.expr, text: str) -> _Value:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return lambda scope: value
        case ast.Name(id=name):
            return lambda scope: _looked_up(scope, name)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            values = [_value(one, text) for one in items]
            return lambda scope: [one(scope) for one in values]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            inner, minus = _value(operand, text), isinstance(node.op, ast.USub)
            return lambda scope: -_number(inner(scope)) if minus else _number(inner(scope))
        case ast.BinOp(left=first, op=op, right=second) if type(op) in _ARITHMETIC:
            left, right, compute = _value(first, text), _value(second, text), _ARITHMETIC[type(op)]
            return lambda scope: compute(_number(left(scope)), _number(right(scope)))
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            amount = _amount(node, text, False)
            return lambda scope: amount(scope) == 0.0
        case _:
            found = ast.unparse(node)
            raise ConstraintError(
                f"{text!r} holds {found[:60]!r}; allowed: names, numbers, texts, + - * / // % **, comparisons, "
                "in, and, or, not"
            )


def _looked_up(scope: Scope, name: str) -> Any:
    try:
        return scope[name]
    except KeyError:
        raise _Missing from None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _number(value: Any) -> int | float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise OverflowError("an integer that is too long")
    return value


def _power(base: int | float, exponent: int | float) -> int | float:
    if isinstance(base, int) and isinstance(exponent, int) and abs(exponent) * base.bit_length() > _MAX_BITS:
        base = float(base)
    found = base**exponent
    if isinstance(found, complex):
        raise ValueError("a root of a negative number")
    return found


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "In": lambda a, b: a in b,
    "NotIn": lambda a, b: a not in b,
}
