"""The search space: `{name: {"_type": ..., "_value": ...}}` as in NNI, checked, flattened and mapped to a unit cube.

`parse` reads it and refuses all that is wrong with it in one `SpaceError`. A `Space` is an ordered tree of `Param`s:
the children of a nested choice (all of whose elements are dicts with `_name`) exist only while their branch is chosen.
Every parameter has a map from [0, 1) to its values (`from_unit`: the inverse of its cumulative distribution, so a
uniform u gives the prior that the type names) and back (`to_unit`: the centre of the cell that a value fills).

Exact values, as in NNI 3.0 where x is drawn uniformly, log-uniformly or normally:

* randint `[low, high)`: an int. uniform, loguniform: a float in [low, high]; normal, lognormal: a float, unbounded.
* quniform, qloguniform: `clip(round(x / q) * q, low, high)` with Python's round-half-even, always a float. Both bounds
  can be values without being multiples of q. Binary floats show: `round(0.3 / 0.1) * 0.1` is 0.30000000000000004, and
  that is what a trial gets; `contains` and `cell` take 0.3 for the same value.
* qnormal, qlognormal: `round(x / q) * q`, no clip.
* choice: one element; elements that are equal as JSON count once. layer_choice: `{"_value": name, "_idx": i}`,
  input_choice: `{"_value": [names], "_idx": [indices, ascending]}`; `_idex` is read as `_idx`.

Pure: no clock, no randomness of its own, no I/O, no numpy.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, TypeGuard, cast

import msgspec

from . import constraints as condition
from .constraints import Constraint, ConstraintError

Cell: TypeAlias = int | float

LINEAR = frozenset({"uniform", "quniform"})
LOG = frozenset({"loguniform", "qloguniform"})
NORMAL = frozenset({"normal", "qnormal"})
LOGNORMAL = frozenset({"lognormal", "qlognormal"})
BOUNDED = LINEAR | LOG
UNBOUNDED = NORMAL | LOGNORMAL
CATEGORICAL = frozenset({"choice", "layer_choice", "input_choice"})
KINDS = (
    *("choice", "randint", "uniform", "quniform", "loguniform", "qloguniform"),
    *("normal", "qnormal", "lognormal", "qlognormal", "layer_choice", "input_choice"),
)
MAX_DEPTH = 64  # of the JSON of a search space
MAX_CONSTRAINTS = 100
SAMPLES = 10_000  # draws for one point that meets the constraints
EXACT = 2**53  # up to here floats count integers without a gap


class SpaceError(ValueError):
    """A search space that can't be searched. `errors` holds one sentence for each fault, the parameter's name first."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        super().__init__("\n".join(errors))


class _Outside(Exception):
    """Why parameters are no point of a space; never leaves this module."""


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a space, at its place in the tree.

    `key` names it in the whole space: its name, or for a child `parent/branch/name` (a `/` in a name is written `~1`, a
    `~` `~0`). `size`: how many values it has, None when they can't be counted. The fields that its kind doesn't use
    have their defaults.
    """

    key: str
    name: str
    kind: str
    index: int  # its place in Space.params
    parent: int | None = None  # the nested choice that it hangs on
    branch: int | None = None  # and the branch of that in which it exists
    low: float = 0.0  # for randint the ints as they are
    high: float = 0.0
    q: float = 0.0
    mu: float = 0.0
    sigma: float = 0.0
    choices: tuple[Any, ...] = ()  # of choice, layer_choice, input_choice; the names of a nested choice's branches
    counts: tuple[int, ...] = ()  # of input_choice: how many may be chosen
    children: tuple[tuple[int, ...], ...] = ()  # of a nested choice, by branch
    size: int | None = None
    first: int = 0  # of a quantised kind: the multiple of q in cell 0
    places: Mapping[bytes, int] = field(default_factory=dict[bytes, int], repr=False, compare=False)

    @property
    def nested(self) -> bool:
        """Whether this is a choice between branches."""
        return bool(self.children)

    @property
    def categorical(self) -> bool:
        """Whether its values have no order: choice, layer_choice, input_choice."""
        return self.kind in CATEGORICAL

    def from_unit(self, u: float) -> Any:
        """The value at u in [0, 1); of a nested choice the branch's name."""
        if self.kind in CATEGORICAL or self.kind == "randint":
            size = cast("int", self.size)
            return self.at(min(max(int(u * size), 0), size - 1))
        return self._quantised(self._unwarp(min(max(u, 0.0), 1.0)))

    def to_unit(self, value: Any) -> float:
        """The centre of a value's cell in [0, 1]; the value must be one that `check` takes."""
        cell = self.cell(value)
        if self.kind in CATEGORICAL or self.kind == "randint":
            return (cell + 0.5) / cast("int", self.size)
        if (not self.q and self.size != 1) or isinstance(cell, float):
            return self._warp(float(value))
        low, high = self.edges(cell)
        return (low + high) / 2

    def edges(self, cell: int) -> tuple[float, float]:
        """Where a cell of a counted or quantised parameter begins and ends in the unit interval."""
        if self.kind in CATEGORICAL or self.kind == "randint":
            size = cast("int", self.size)
            return cell / size, (cell + 1) / size
        if self.size == 1:
            return 0.0, 1.0
        middle = self.first + cell
        return self._warp((middle - 0.5) * self.q), self._warp((middle + 0.5) * self.q)

    def at(self, cell: int) -> Any:
        """The value of a cell of a counted parameter, 0 <= cell < size."""
        match self.kind:
            case "choice":
                return self.choices[cell]
            case "randint":
                return int(self.low) + cell
            case "layer_choice":
                return {"_value": self.choices[cell], "_idx": cell}
            case "input_choice":
                chosen = _subset(cell, len(self.choices), self.counts)
                return {"_value": [self.choices[i] for i in chosen], "_idx": chosen}
            case _:
                if not self.q or self.size == 1:
                    return self._quantised(self._unwarp(0.5))
                return self._clipped((self.first + cell) * self.q)

    def cell(self, value: Any) -> Cell:
        """What tells a value from the others: an int where values can be told apart by counting, else the value."""
        match self.kind:
            case "choice":
                place = self._place(value)
                if place is None:
                    raise ValueError(f"{self.key}: {value!r} is not one of the choices")
                return place
            case "randint":
                return int(value - self.low)
            case "layer_choice":
                return int(_idx(value))
            case "input_choice":
                return _rank([int(i) for i in _idx(value)], len(self.choices), self.counts)
            case _:
                if self.size == 1:
                    return 0
                if not self.q or (self.kind in BOUNDED and self.size is None) or abs(value / self.q) >= EXACT:
                    return float(value)
                return round(float(value) / self.q) - self.first

    def check(self, value: Any) -> str | None:
        """Why a value is none of this parameter's, or None: types are as strict as JSON's, a bool is no number."""
        match self.kind:
            case "choice":
                if self._place(value) is not None:
                    return None
                return f"{_short(value)} is not one of {_short(list(self.choices))}"
            case "layer_choice" | "input_choice":
                return self._check_chosen(value)
            case "randint":
                if type(value) is not int:
                    return f"{_short(value)} is no integer"
                if not self.low <= value < self.high:
                    return f"{value} is not in {self.low} <= x < {self.high}"
                return None
            case _:
                return self._check_number(value)

    def _check_number(self, value: Any) -> str | None:
        if type(value) not in (int, float) or not -sys.float_info.max <= value <= sys.float_info.max:
            return f"{_short(value)} is no finite number"
        number = float(value)
        if self.kind in BOUNDED and not self.low <= number <= self.high:
            return f"{number} is not in {self.low} <= x <= {self.high}"
        if self.kind in LOGNORMAL and (number < 0 or (number == 0 and not self.q)):
            return f"{number} is not above 0"
        if self.size == 1:
            if not math.isclose(number, self.at(0), rel_tol=1e-12, abs_tol=1e-9 * self.q):
                return f"{number} is not {self.at(0)}, its only value"
        elif self.q:
            cell = self.cell(number)
            if isinstance(cell, int):
                exact = self._clipped((self.first + cell) * self.q)
                if not math.isclose(number, exact, rel_tol=1e-12, abs_tol=1e-9 * self.q):
                    return f"{number} is no multiple of q = {self.q} (the nearest is {exact})"
        return None

    def _check_chosen(self, value: Any) -> str | None:
        if not _is_object(value):
            return f"{_short(value)} is no object with _value and _idx"
        idx = _idx(value)
        if set(value) - {"_idex"} | {"_idx"} != {"_value", "_idx"}:
            return f"{_short(value)} is no object with _value and _idx"
        indices: list[Any] = list(idx) if _is_list(idx) else [idx]
        if _is_list(idx) is not (self.kind == "input_choice"):
            return f"_idx is {_short(idx)}: a list of them for input_choice, one integer for layer_choice"
        if any(type(i) is not int or not 0 <= i < len(self.choices) for i in indices):
            return f"_idx is {_short(idx)}: integers from 0 to {len(self.choices) - 1} are allowed"
        if any(a >= b for a, b in itertools.pairwise(indices)):
            return f"_idx is {_short(idx)}: each index once, ascending"
        if self.kind == "input_choice" and len(indices) not in self.counts:
            return f"{len(indices)} are chosen, allowed is {_short(list(self.counts))}"
        expected: Any = [self.choices[i] for i in indices] if self.kind == "input_choice" else self.choices[indices[0]]
        if _canonical(value["_value"]) != _canonical(expected):
            return f"_value is {_short(value['_value'])}, but _idx {_short(idx)} means {_short(expected)}"
        return None

    def _place(self, value: Any) -> int | None:
        place = self.places.get(_canonical(value))
        if place is None and type(value) in (int, float):  # 1 and 1.0 are one number to most writers of JSON
            same = [i for i, one in enumerate(self.choices) if type(one) in (int, float) and one == value]
            place = same[0] if same else None
        return place

    def _warp(self, x: float) -> float:
        """The cumulative probability of x before rounding."""
        if self.kind in UNBOUNDED:
            if self.kind in LOGNORMAL:
                if x <= 0:
                    return 0.0
                x = math.log(x)
            if not self.sigma:
                return 0.5
            return 0.5 * math.erfc((self.mu - x) / self.sigma / math.sqrt(2.0))
        low, high, x = self.low, self.high, min(max(x, self.low), self.high)
        if self.kind in LOG:
            low, high, x = math.log(low), math.log(high), math.log(x)
        if low == high:
            return 0.5
        if math.isinf(high - low):
            low, high, x = low / 2, high / 2, x / 2
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def _unwarp(self, u: float) -> float:
        if self.kind in UNBOUNDED:
            x = self.mu
            if self.sigma:
                x += self.sigma * _normal_quantile(u)
            if self.kind in NORMAL:
                return min(max(x, -sys.float_info.max), sys.float_info.max)
            return math.exp(min(max(x, math.log(sys.float_info.min)), math.log(sys.float_info.max)))
        if self.kind in LINEAR:
            x = self.low + u * (self.high - self.low)
            if not math.isfinite(x):  # the bounds are further apart than the largest float
                x = self.low * (1 - u) + self.high * u
        elif u in (0.0, 1.0):  # exp(log(x)) is not always x
            x = self.high if u else self.low
        else:
            log_low = math.log(self.low)
            x = math.exp(log_low + u * (math.log(self.high) - log_low))
        return self._clipped(x)

    def _quantised(self, x: float) -> float:
        if not self.q or abs(x / self.q) >= EXACT:
            return x
        return self._clipped(round(x / self.q) * self.q)

    def _clipped(self, x: float) -> float:
        return min(max(x, self.low), self.high) if self.kind in BOUNDED else x


class Space:
    """A parsed search space; immutable. `raw` is what it was read from, `params` the tree, parents before children.

    `constraints` are conditions on its points: `contains` and `allows` know them, `sample` meets them; `size`, `point`,
    `draw` and `assemble` speak of the space without them.
    """

    def __init__(
        self, raw: dict[str, Any], params: tuple[Param, ...], constraints: tuple[Constraint, ...] = ()
    ) -> None:
        self.raw = raw
        self.params = params
        self.constraints = constraints
        self.roots = tuple(p.index for p in params if p.parent is None)
        self.by_key: Mapping[str, Param] = {p.key: p for p in params}

    @cached_property
    def size(self) -> int | None:
        """How many different points there are; None when they can't be counted."""
        return self._count(self.roots)

    @property
    def conditional(self) -> bool:
        """Whether some parameters exist only in a branch of others."""
        return len(self.roots) < len(self.params)

    def contains(self, parameters: Mapping[str, Any], extras: Collection[str] = ()) -> str | None:
        """None when `parameters` is a point of the space, else why it's not, naming the parameter.

        `extras`: further top-level keys that are allowed (TRIAL_BUDGET and the like).
        """
        try:
            for _ in self._walk(self.roots, parameters, "", extras):
                pass
        except _Outside as outside:
            return str(outside)
        broken = self.broken(parameters)
        return f"the constraint {broken.text!r} is not met" if broken is not None else None

    def broken(self, parameters: Mapping[str, Any]) -> Constraint | None:
        """The first constraint that a point of the space does not meet; None when it meets all."""
        if not self.constraints:
            return None
        scope = scope_of(parameters)
        return next((one for one in self.constraints if not one.holds(scope)), None)

    def allows(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a point of the space meets every constraint."""
        return self.broken(parameters) is None

    def flatten(self, parameters: Mapping[str, Any], extras: Collection[str] = ()) -> dict[str, Any]:
        """The active parameters' values by key; of a nested choice the branch's name. `ValueError` when outside."""
        try:
            return {param.key: value for param, value in self._walk(self.roots, parameters, "", extras)}
        except _Outside as outside:
            raise ValueError(str(outside)) from None

    def assemble(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters as a trial gets them, from the active ones' values by key; `KeyError` when one is missing."""
        return self._assemble(self.roots, flat)

    def cells(self, parameters: Mapping[str, Any], extras: Collection[str] = ()) -> tuple[Cell | None, ...] | None:
        """The point as one cell a parameter (None where inactive): equal for equal points. None when outside."""
        cells: list[Cell | None] = [None] * len(self.params)
        try:
            for param, value in self._walk(self.roots, parameters, "", extras):
                cells[param.index] = param.cell(value)
        except _Outside:
            return None
        return tuple(cells)

    def draw(self, choose: Callable[[Param], Any]) -> dict[str, Any]:
        """Parameters whose every active value is `choose(param)`, asked in order, parents first."""
        return self._draw(self.roots, choose)

    def sample(self, random: Callable[[], float]) -> dict[str, Any]:
        """A point of the prior: each active parameter takes one u in [0, 1) from `random`, in order.

        With constraints, the first of up to `SAMPLES` such points that meets them; `SpaceError` when none does.
        """
        for _ in range(SAMPLES):
            point = self.draw(lambda param: param.from_unit(random()))
            if not self.constraints or self.allows(point):
                return point
        raise SpaceError(
            [f"none of {SAMPLES} random points meets the constraints {[c.text for c in self.constraints]}"]
        )

    def point(self, number: int) -> dict[str, Any]:
        """Point `number` of a countable space, 0 <= number < size; the last parameter changes fastest."""
        if self.size is None or not 0 <= number < self.size:
            raise IndexError(f"the space has no point {number}, its size is {self.size}")
        flat: dict[str, Any] = {}
        self._unrank(self.roots, number, flat)
        return self.assemble(flat)

    def _unrank(self, indices: tuple[int, ...], number: int, flat: dict[str, Any]) -> None:
        for index in reversed(indices):
            param = self.params[index]
            number, rest = divmod(number, cast("int", self._count((index,))))
            if not param.nested:
                flat[param.key] = param.at(rest)
                continue
            for name, children in zip(param.choices, param.children, strict=True):
                size = cast("int", self._count(children))
                if rest < size:
                    flat[param.key] = name
                    self._unrank(children, rest, flat)
                    break
                rest -= size

    def _count(self, indices: tuple[int, ...]) -> int | None:
        total = 1
        for index in indices:
            param = self.params[index]
            size = param.size
            if param.nested:
                sizes = [self._count(children) for children in param.children]
                size = None if None in sizes else sum(cast("list[int]", sizes))
            if size is None:
                return None
            total *= size
        return total

    def _draw(self, indices: tuple[int, ...], choose: Callable[[Param], Any]) -> dict[str, Any]:
        parameters: dict[str, Any] = {}
        for index in indices:
            param = self.params[index]
            value = choose(param)
            if param.nested:
                value = {"_name": value, **self._draw(param.children[param.choices.index(value)], choose)}
            elif isinstance(value, (list, dict)):
                value = copy.deepcopy(cast("Any", value))  # whoever gets it may change it, the space stays as it is
            parameters[param.name] = value
        return parameters

    def _assemble(self, indices: tuple[int, ...], flat: Mapping[str, Any]) -> dict[str, Any]:
        return self._draw(indices, lambda param: flat[param.key])

    def _walk(
        self, indices: tuple[int, ...], parameters: Mapping[str, Any], prefix: str, extras: Collection[str] = ()
    ) -> Iterator[tuple[Param, Any]]:
        """The active parameters with their values, checked, parents first; raises `_Outside`."""
        if not _is_object(parameters):  # a tuner may answer anything
            raise _Outside(f"found {_short(parameters)}, an object of parameters is allowed")
        names: set[str] = set()
        for index in indices:
            param = self.params[index]
            names.add(param.name)
            if param.name not in parameters:
                raise _Outside(f"{param.key}: missing")
            value: Any = parameters[param.name]
            if not param.nested:
                reason = param.check(value)
                if reason is not None:
                    raise _Outside(f"{param.key}: {reason}")
                yield param, value
                continue
            name: Any = value.get("_name") if _is_object(value) else None
            if name not in param.choices:
                raise _Outside(f"{param.key}: {_short(value)} is no object whose _name is one of {list(param.choices)}")
            yield param, name
            inner = {key: one for key, one in value.items() if key != "_name"}
            branch = param.choices.index(name)
            yield from self._walk(param.children[branch], inner, f"{param.key}/{_escape(name)}/")
        for name in parameters:
            if name not in names and name not in extras:
                raise _Outside(f"{prefix}{name}: not in the search space, which has {_short(sorted(names))}")


def scope_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a constraint sees of a point: its active parameters by name, of a nested choice the branch's name.

    A child is seen by its own name too; where a name stands on several levels, the outer one is meant.
    """
    scope: dict[str, Any] = {}
    levels = [parameters]
    while levels:
        below: list[Mapping[str, Any]] = []
        for level in levels:
            for name, value in level.items():
                if _is_object(value) and "_name" in value:
                    below.append({key: one for key, one in value.items() if key != "_name"})
                    value = value["_name"]
                elif _is_object(value) and "_idx" in value and "_value" in value:
                    value = value["_value"]
                scope.setdefault(name, value)
        levels = below
    return scope


def parse(raw: Mapping[str, Any], constraints: Sequence[str] = ()) -> Space:
    """The space that a JSON object describes, under these conditions; `SpaceError` with every fault in them.

    A fault of a condition begins with `constraints:`.
    """
    if not isinstance(raw, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from a file
        raise SpaceError([f"the search space is {_kind_of(raw)}, an object of parameters is allowed"])
    if _too_deep(raw):
        raise SpaceError([f"the search space is nested more than {MAX_DEPTH} levels deep"])
    reader = _Reader()
    reader.group(raw, "", None, None)
    if reader.errors:
        raise SpaceError(reader.errors)
    params = tuple(cast("Param", param) for param in reader.params)
    return Space(cast("dict[str, Any]", _plain(raw)), params, _conditions(constraints, params))


def _conditions(texts: Sequence[str], params: tuple[Param, ...]) -> tuple[Constraint, ...]:
    names = {param.name for param in params}
    errors: list[str] = []
    found: list[Constraint] = []
    if len(texts) > MAX_CONSTRAINTS:
        raise SpaceError([f"constraints: there are {len(texts)}; allowed: {MAX_CONSTRAINTS}"])
    for text in texts:
        try:
            found.append(condition.parse(text, names))
        except ConstraintError as error:
            errors.append(f"constraints: {error}")
    if errors:
        raise SpaceError(errors)
    return tuple(found)


class _Reader:
    """Collects parameters and faults on one walk over a raw space."""

    def __init__(self) -> None:
        self.params: list[Param | None] = []
        self.errors: list[str] = []

    def group(self, raw: Mapping[Any, Any], prefix: str, parent: int | None, branch: int | None) -> tuple[int, ...]:
        indices: list[int] = []
        for name, spec in raw.items():
            if not isinstance(name, str):
                self.errors.append(f"{prefix}{name}: the name is {_kind_of(name)}, a text is allowed")
                continue
            if parent is not None and name == "_name":
                continue
            index = len(self.params)
            self.params.append(None)
            key = prefix + _escape(name)
            try:
                self.params[index] = self.param(key, name, spec, index, parent, branch)
            except _Outside as fault:
                self.errors.append(f"{key}: {fault}")
            indices.append(index)
        return tuple(indices)

    def param(self, key: str, name: str, raw: Any, index: int, parent: int | None, branch: int | None) -> Param:
        if not _is_object(raw):
            raise _Outside(f"found {_short(raw)}, an object with _type and _value is allowed")
        spec = raw
        missing = [one for one in ("_type", "_value") if one not in spec]
        if missing:
            raise _Outside(f"{' and '.join(missing)} missing, found {_short(list(spec))}")
        kind, value = spec["_type"], spec["_value"]
        if not isinstance(kind, str) or kind not in KINDS:
            near = difflib.get_close_matches(str(kind), KINDS, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise _Outside(f"unknown _type {_short(kind)}{hint}, allowed are {', '.join(KINDS)}")
        base = Param(key, name, kind, index, parent, branch)
        if kind == "input_choice":
            return _input_choice(base, value)
        if not _is_list(value):
            raise _Outside(f"_value is {_kind_of(value)}, a list is allowed")
        items = list(value)
        if kind in CATEGORICAL:
            return self.choice(base, items)
        return _number(base, items)

    def choice(self, base: Param, items: list[Any]) -> Param:
        if not items:
            raise _Outside(f"an empty {base.kind}, at least one element is needed")
        if base.kind == "choice" and all(isinstance(item, Mapping) and "_name" in item for item in items):
            return self.nested(base, items)
        for item in items:
            _json_only(item)
        if base.kind == "layer_choice":
            return _replace(base, choices=tuple(_plain(item) for item in items), size=len(items))
        places: dict[bytes, int] = {}
        distinct: list[Any] = []
        for item in items:
            if places.setdefault(_canonical(item), len(distinct)) == len(distinct):
                distinct.append(_plain(item))
        return _replace(base, choices=tuple(distinct), size=len(distinct), places=places)

    def nested(self, base: Param, items: list[Mapping[Any, Any]]) -> Param:
        names = [item["_name"] for item in items]
        for name in names:
            if not isinstance(name, str):
                raise _Outside(f"_name is {_short(name)}, a text is allowed")
            if names.count(name) > 1:
                raise _Outside(f"_name {name!r} stands more than once, each branch needs its own")
        children = tuple(
            self.group(item, f"{base.key}/{_escape(name)}/", base.index, branch)
            for branch, (name, item) in enumerate(zip(names, items, strict=True))
        )
        places = {_canonical(name): i for i, name in enumerate(names)}
        return _replace(base, choices=tuple(names), children=children, size=len(names), places=places)


def _number(base: Param, items: list[Any]) -> Param:
    kind = base.kind
    names = ["mu", "sigma"] if kind in UNBOUNDED else ["low", "high"]
    if kind.startswith("q"):
        names.append("q")
    if len(items) != len(names):
        raise _Outside(f"_value has {len(items)} elements, [{', '.join(names)}] is allowed")
    numbers: dict[str, Any] = {}
    for name, item in zip(names, items, strict=True):
        if type(item) not in (int, float):
            raise _Outside(f"{name} is {_short(item)}, a number is allowed")
        if not -sys.float_info.max <= item <= sys.float_info.max:
            raise _Outside(f"{name} is {_short(item)}, a finite number is allowed")
        numbers[name] = float(item)
        if kind == "randint":
            if item != int(item):
                raise _Outside(f"{name} is {item}, an integer is allowed")
            if not -(2**63) <= item < 2**63:
                raise _Outside(f"{name} is {item}, an integer of 64 bits is allowed")
            numbers[name] = int(item)
    if "q" in numbers and numbers["q"] <= 0:
        raise _Outside(f"q is {numbers['q']}, q > 0 is allowed")
    if kind in UNBOUNDED:
        if numbers["sigma"] < 0:
            raise _Outside(f"sigma is {numbers['sigma']}, sigma >= 0 is allowed")
        return _replace(base, size=None if numbers["sigma"] else 1, **numbers)
    low, high = numbers["low"], numbers["high"]
    if kind in LOG and min(low, high) <= 0:
        raise _Outside(f"{'low' if low <= 0 else 'high'} is {min(low, high)}, bounds of {kind} are > 0")
    if kind == "randint":
        if low >= high:
            raise _Outside(f"low {low} >= high {high}, low < high is allowed (high itself is no value)")
        return _replace(base, size=high - low, **numbers)
    if low > high:
        raise _Outside(f"low {low} > high {high}, low <= high is allowed")
    if low == high:
        return _replace(base, size=1, **numbers)
    if not kind.startswith("q") or max(abs(low / numbers["q"]), abs(high / numbers["q"])) >= EXACT:
        return _replace(base, **numbers)
    first = round(low / numbers["q"])
    return _replace(base, size=round(high / numbers["q"]) - first + 1, first=first, **numbers)


def _input_choice(base: Param, value: Any) -> Param:
    spec: Mapping[Any, Any] = value if _is_object(value) else {}
    candidates: Any = spec.get("candidates")
    if not _is_list(candidates):
        raise _Outside(f"_value is {_short(value)}, an object with a list of candidates and n_chosen is allowed")
    names = tuple(candidates)
    if not names:
        raise _Outside("an empty input_choice, at least one candidate is needed")
    for item in names:
        _json_only(item)
    chosen: Any = spec.get("n_chosen")
    listed: list[Any] = list(chosen) if _is_list(chosen) else [chosen]
    counts = list(range(len(names) + 1)) if chosen is None else listed
    if not counts or any(type(one) is not int or not 0 <= one <= len(names) for one in counts):
        raise _Outside(
            f"n_chosen is {_short(chosen)}, an integer from 0 to {len(names)}, a list of such or null is allowed"
        )
    distinct = tuple(sorted(set(counts)))
    return _replace(
        base,
        choices=tuple(_plain(one) for one in names),
        counts=distinct,
        size=sum(math.comb(len(names), k) for k in distinct),
    )


def _replace(base: Param, **changes: Any) -> Param:
    return Param(base.key, base.name, base.kind, base.index, base.parent, base.branch, **changes)


def _subset(rank: int, n: int, counts: tuple[int, ...]) -> list[int]:
    """Subset number `rank` of range(n): fewer elements first, then in lexicographic order."""
    for count in counts:
        size = math.comb(n, count)
        if rank < size:
            break
        rank -= size
    else:
        raise IndexError(f"no such subset of {n}")
    chosen: list[int] = []
    for i in range(n):
        left = count - len(chosen)
        with_i = math.comb(n - i - 1, left - 1) if left else 0
        if rank < with_i:
            chosen.append(i)
        else:
            rank -= with_i
    return chosen


def _rank(chosen: list[int], n: int, counts: tuple[int, ...]) -> int:
    rank = sum(math.comb(n, count) for count in counts if count < len(chosen))
    left, members = len(chosen), set(chosen)
    for i in range(n):
        if not left:
            break
        if i in members:
            left -= 1
        else:
            rank += math.comb(n - i - 1, left - 1)
    return rank


def _is_object(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, (list, tuple))


def _idx(value: Mapping[str, Any]) -> Any:
    return value.get("_idx", value.get("_idex"))


def _normal_quantile(u: float) -> float:
    from statistics import NormalDist  # costs 10 ms at import, and few spaces have a normal parameter

    return NormalDist().inv_cdf(min(max(u, 2.0**-54), 1 - 2.0**-53))


def _canonical(value: Any) -> bytes:
    """JSON text that is equal for equal JSON values: 1, 1.0 and true are three."""
    try:
        return msgspec.json.encode(value, order="sorted")
    except (TypeError, ValueError, RecursionError, OverflowError):
        return b""  # no JSON value: equal to none


def _too_deep(raw: Any) -> bool:
    level: list[Any] = [raw]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for one in level:
            inside: Any = one.values() if _is_object(one) else one
            deeper += [item for item in inside if _is_object(item) or _is_list(item)]
        if not deeper:
            return False
        level = deeper
    return True


def _json_only(value: Any) -> None:
    """Raises when JSON can't write a value so that it reads back the same."""
    if _is_object(value):
        for key, one in value.items():
            if not isinstance(key, str):
                raise _Outside(f"a key is {_short(key)}, JSON has texts only")
            _json_only(one)
    elif _is_list(value):
        for one in value:
            _json_only(one)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Outside(f"{value} stands among its values, JSON has finite numbers only")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise _Outside(f"{_short(value)} stands among its values, integers have 64 bits")
    elif value is not None and not isinstance(value, str):
        raise _Outside(f"{_short(value)} stands among its values, which JSON does not have")


def _plain(value: Any) -> Any:
    """A copy made of dicts and lists only."""
    if _is_object(value):
        return {key: _plain(one) for key, one in value.items()}
    if _is_list(value):
        return [_plain(one) for one in value]
    return value


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _kind_of(value: Any) -> str:
    names: dict[type[Any], str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    kind = cast("type[object]", type(value))
    return "null" if value is None else names.get(kind, f"a {kind.__name__}")


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4,300 digits
        return f"{_kind_of(value)} too long to show"
    return text if len(text) <= 120 else text[:117] + "..."
