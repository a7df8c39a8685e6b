"""The figures: from an experiment's state to what Plotly draws, as plain data (`{"data": [...], "layout": {...}}`).

Pure functions, one a figure; the page, `tune.visualization` and `tune plot` show the same. Names of parameters and
other texts that users chose are escaped, since Plotly reads some of its texts as HTML.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..engine import views
from ..engine.space import Param, Space, SpaceError, parse
from ..engine.state import State, Trial

Figure = dict[str, Any]
MOST_POINTS = 20_000  # in one trace: the newest so many
MOST_CURVES = 500
STATUS_COLORS = {
    "SUCCEEDED": "#2da44e",
    "EARLY_STOPPED": "#d4a72c",
    "FAILED": "#cf222e",
    "LOST": "#cf222e",
    "USER_CANCELED": "#8b949e",
    "SYS_CANCELED": "#8b949e",
    "RUNNING": "#1f6feb",
}


class FigureError(ValueError):
    """This figure can't be drawn of this experiment; says why."""


@dataclass(frozen=True, slots=True)
class Option:
    """A choice that a figure leaves to whoever looks: its name, what it is called, and the values."""

    name: str
    title: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A counted result: where it stands, its parameters by key of the space, its value."""

    trial: int
    phase: int
    flat: Mapping[str, Any]
    value: float
    feasible: bool = True  # it meets the outcome constraints
    values: Mapping[str, float] | None = None  # with several objectives the number of each


class Results:
    """What most figures are drawn from: the counted results of one experiment, in the order of their trials.

    With several objectives their value is that of one of them, by default the first.
    """

    def __init__(self, state: State, objective: str = "") -> None:
        self.state = state
        objectives = state.settings.objectives
        if objective and objective not in objectives:
            allowed = ", ".join(objectives) or "none: the experiment has one objective"
            raise FigureError(f"there is no objective {objective!r}; allowed: {allowed}")
        self.objective = objective or next(iter(objectives), "")
        self.minimize = objectives.get(self.objective, state.settings.optimize_mode) == "minimize"
        try:
            self.space: Space | None = parse(state.settings.search_space)
        except SpaceError:
            self.space = None  # of a tuner of the user's own
        self.points = [self._point(row) for row in views.rows(state)]

    def _point(self, row: Mapping[str, Any]) -> Point:
        values: Mapping[str, float] | None = row["values"]
        return Point(
            row["trial"],
            row["phase"],
            self._flat(row["parameters"]),
            row["value"] if values is None else values[self.objective],
            not row["violation"],
            values,
        )

    def _flat(self, parameters: Any) -> dict[str, Any]:
        if not isinstance(parameters, dict):
            return {}
        known = cast("dict[str, Any]", parameters)
        if self.space is not None:
            try:
                return self.space.flatten(known, _EXTRAS)
            except ValueError:
                pass  # by hand, or of a former space
        return {name: value for name, value in known.items() if name not in _EXTRAS}

    @property
    def names(self) -> list[str]:
        """The parameters, in the order of the space."""
        if self.space is not None:
            return [param.key for param in self.space.params]
        return list(dict.fromkeys(name for point in self.points for name in point.flat))

    def param(self, name: str) -> Param | None:
        """The parameter of the space with this key."""
        return None if self.space is None else self.space.by_key.get(name)

    def need(self, least: int) -> list[Point]:
        """The points, at least so many of them; `FigureError`."""
        if len(self.points) < least:
            raise FigureError(f"there are {len(self.points)} results; this figure needs {least}")
        return self.points[-MOST_POINTS:]

    def axis(self, name: str) -> dict[str, Any]:
        """The layout of an axis that shows a parameter."""
        param = self.param(name)
        kind = "log" if param is not None and "log" in param.kind else "category" if _texts(self, name) else "linear"
        return {"title": {"text": text(name)}, "type": kind}

    def values(self, name: str) -> list[Any]:
        """A parameter's value in each point; None where it is inactive."""
        shown = [point.flat.get(name) for point in self.points[-MOST_POINTS:]]
        return [_label(value) for value in shown] if _texts(self, name) else shown


_EXTRAS = ("TRIAL_BUDGET", "load_checkpoint_dir", "save_checkpoint_dir")


def text(value: object) -> str:
    """A text of somebody's that Plotly may show."""
    return html.escape(str(value), quote=False)


def _label(value: Any) -> str | None:
    return None if value is None else text(value if isinstance(value, str) else views.to_json(value).decode())


def _texts(results: Results, name: str) -> bool:
    param = results.param(name)
    if param is not None:
        return param.categorical
    return any(not isinstance(point.flat.get(name, 0), (int, float)) for point in results.points)


def _title(results: Results) -> dict[str, Any]:
    return {"text": (text(results.objective) or "result") + (" (less is better)" if results.minimize else "")}


def _hover(point: Point) -> str:
    said = "<br>".join(f"{text(name)}: {_label(value)}" for name, value in list(point.flat.items())[:20])
    phase = f" phase {point.phase}" if point.phase else ""
    fails = "" if point.feasible else "<br>fails the outcome constraints"
    return f"trial {point.trial}{phase}<br>{point.value:.6g}{fails}<br>{said}"


# -- one function a figure --------------------------------------------------------------------------------------------
def history(results: Results) -> Figure:
    """Each result in the order of its trial, and the best so far."""
    points = results.need(1)
    best: list[float | None] = []
    for point in points:
        last = best[-1] if best else None
        if not point.feasible:
            best.append(last)
        elif last is None:
            best.append(point.value)
        else:
            best.append(min(last, point.value) if results.minimize else max(last, point.value))
    numbers = [point.trial for point in points]
    return {
        "data": [
            {
                "type": "scattergl",
                "mode": "markers",
                "name": "results",
                "x": numbers,
                "y": [point.value for point in points],
                "text": [_hover(point) for point in points],
                "hoverinfo": "text",
                "marker": {"size": 6, "opacity": 0.65},
            },
            {"type": "scattergl", "mode": "lines", "name": "best so far", "x": numbers, "y": best},
        ],
        "layout": {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": _title(results)}},
    }


def intermediate(results: Results) -> Figure:
    """The intermediate results of each trial as a curve; the newest of very many."""
    curves = [
        (one, phase)
        for one in results.state.made
        for phase in one.phases
        if len(phase.intermediate) and any(map(math.isfinite, phase.intermediate))
    ][-MOST_CURVES:]
    if not curves:
        raise FigureError("no trial has reported an intermediate result")
    room = max(MOST_POINTS * 5 // len(curves), 20)
    data: list[dict[str, Any]] = []
    for one, phase in curves:
        stride = max(math.ceil(len(phase.intermediate) / room), 1)
        steps = range(0, len(phase.intermediate), stride)
        data.append(
            {
                "type": "scattergl",
                "mode": "lines+markers" if len(phase.intermediate) == 1 else "lines",
                "name": f"trial {one.number}",
                "x": list(steps),
                "y": [_finite(phase.intermediate[step]) for step in steps],
                "line": {"width": 1.2},
                "opacity": 0.75,
            }
        )
    return {
        "data": data,
        "layout": {
            "showlegend": len(curves) <= 30,
            "xaxis": {"title": {"text": "report"}},
            "yaxis": {"title": {"text": "intermediate result"}},
        },
    }


def parallel(results: Results, share: str = "100 %", lines: str = "") -> Figure:
    """Each result as a line across its parameters; `share` of the best ones. `lines` "plain": as ordinary lines."""
    points = results.need(2)
    ordered = sorted(points, key=lambda point: point.value, reverse=not results.minimize)
    kept = ordered[: max(math.ceil(len(ordered) * float(share.rstrip(" %")) / 100), 2)]
    dimensions = [_dimension(results, name, [point.flat.get(name) for point in kept]) for name in results.names[:30]]
    values = [point.value for point in kept]
    shown = [*(one for one in dimensions if one is not None), {"label": "result", "values": values}]
    if lines == "plain":
        return _plain_parallel(shown, values, results.minimize)
    return {
        "data": [
            {
                "type": "parcoords",
                "dimensions": shown,
                "line": {"color": values, "colorscale": "Viridis", "reversescale": results.minimize, "showscale": True},
            }
        ],
        "layout": {},
        "note": "Where a parameter is inactive (another branch), the line runs below its axis.",
    }


def _plain_parallel(dimensions: list[dict[str, Any]], values: list[float], minimize: bool) -> Figure:
    """The same with ordinary lines: one trace for each tenth of the results, worst first, so the best lie on top."""
    order = sorted(range(len(values)), key=lambda index: values[index], reverse=minimize)
    spans = [(min(one["values"]), max(one["values"])) for one in dimensions]
    data: list[dict[str, Any]] = []
    for part in range(10):
        x: list[float | None] = []
        y: list[float | None] = []
        for index in order[len(order) * part // 10 : len(order) * (part + 1) // 10]:
            x += [*range(len(dimensions)), None]
            y += [
                (one["values"][index] - low) / (high - low or 1)
                for one, (low, high) in zip(dimensions, spans, strict=True)
            ]
            y.append(None)
        color = f"hsl({260 - 20 * part}, 65%, {35 + 2 * part}%)"
        data.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": color, "width": 1}})
    ticks = {"tickvals": list(range(len(dimensions))), "ticktext": [one["label"] for one in dimensions]}
    return {
        "data": data,
        "layout": {"xaxis": ticks, "yaxis": {"showticklabels": False}, "showlegend": False, "hovermode": False},
    }


def _dimension(results: Results, name: str, values: list[Any]) -> dict[str, Any] | None:
    active = [value for value in values if value is not None]
    if not active:
        return None
    param = results.param(name)
    if _texts(results, name):
        labels = sorted({str(_label(value)) for value in active})
        places = {label: index for index, label in enumerate(labels)}
        return {
            "label": text(name),
            "tickvals": list(range(len(labels))),
            "ticktext": [label[:30] for label in labels],
            "range": [-1, len(labels) - 1],
            "values": [-1 if value is None else places[str(_label(value))] for value in values],
        }
    if param is not None and "log" in param.kind and min(active) > 0:
        low, high = math.log10(min(active)), math.log10(max(active))
        ticks = [low + (high - low) * step / 4 for step in range(5)]
        return {
            "label": text(name),
            "values": [low - 0.05 * (high - low or 1) if value is None else math.log10(value) for value in values],
            "tickvals": ticks,
            "ticktext": [f"{10**tick:.3g}" for tick in ticks],
        }
    low, high = min(active), max(active)
    return {"label": text(name), "values": [low - 0.05 * (high - low or 1) if v is None else v for v in values]}


def slice_(results: Results) -> Figure:
    """The results over each parameter, side by side."""
    points = results.need(1)
    names = [name for name in results.names if any(point.flat.get(name) is not None for point in points)][:24]
    columns = min(len(names), 4) or 1
    lines = math.ceil(len(names) / columns)
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "grid": {"rows": lines, "columns": columns, "pattern": "independent"},
        "showlegend": False,
        "height": max(320 * lines, 420),
    }
    for number, name in enumerate(names):
        mark = "" if number == 0 else str(number + 1)
        data.append(
            {
                "type": "scattergl",
                "mode": "markers",
                "x": results.values(name),
                "y": [point.value for point in points],
                "xaxis": f"x{mark}",
                "yaxis": f"y{mark}",
                "text": [_hover(point) for point in points],
                "hoverinfo": "text",
                "marker": {"size": 6, "color": [point.trial for point in points], "colorscale": "Blues", "cmin": -1},
            }
        )
        layout[f"xaxis{mark}"] = results.axis(name)
        layout[f"yaxis{mark}"] = {"title": _title(results)} if number % columns == 0 else {}
    return {"data": data, "layout": layout}


def contour(results: Results, x: str = "", y: str = "") -> Figure:
    """The results over two parameters: the surface between them, and the points."""
    results.need(5)
    names = [name for name in results.names if not _texts(results, name)]
    if len(names) < 2:
        raise FigureError("this figure needs two parameters that are numbers")
    x = x if x in names else names[0]
    y = y if y in names and y != x else next(name for name in names if name != x)
    both = [p for p in results.points[-MOST_POINTS:] if p.flat.get(x) is not None and p.flat.get(y) is not None]
    across, up, values = [p.flat[x] for p in both], [p.flat[y] for p in both], [p.value for p in both]
    axes = results.axis(x), results.axis(y)
    return {
        "data": [
            {
                "type": "contour",
                **_grid(across, up, values, axes[0]["type"] == "log", axes[1]["type"] == "log"),
                "colorscale": "Viridis",
                "reversescale": results.minimize,
                "connectgaps": True,
                "contours": {"showlines": False},
                "opacity": 0.85,
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": across,
                "y": up,
                "text": [_hover(point) for point in both],
                "hoverinfo": "text",
                "marker": {"size": 5, "color": "#000", "opacity": 0.5},
            },
        ],
        "layout": {"xaxis": axes[0], "yaxis": axes[1], "showlegend": False},
    }


def _grid(
    across: Sequence[float], up: Sequence[float], values: Sequence[float], log_x: bool, log_y: bool
) -> dict[str, Any]:
    """A surface through scattered points: the mean of the results, weighted by the inverse square of the distance."""
    import numpy as np
    from numpy.typing import NDArray

    def side(found: Sequence[float], log: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        places = np.array(found, dtype=np.float64)
        places = np.log10(places) if log else places
        return places, np.linspace(float(places.min()), float(places.max()), 40)

    (a, columns), (b, lines) = side(across, log_x), side(up, log_y)
    z: NDArray[np.float64] = np.array(values, dtype=np.float64)
    keep = np.linspace(0, len(z) - 1, min(len(z), 2000)).astype(np.intp)
    away_x = ((columns[:, None] - a[keep]) / (float(np.ptp(a)) or 1.0)) ** 2
    away_y = ((lines[:, None] - b[keep]) / (float(np.ptp(b)) or 1.0)) ** 2
    weight = 1.0 / (away_y[:, None, :] + away_x[None, :, :] + 1e-4)
    surface = np.sum(weight * z[keep], axis=-1) / np.sum(weight, axis=-1)
    return {
        "x": (10**columns if log_x else columns).tolist(),
        "y": (10**lines if log_y else lines).tolist(),
        "z": surface.tolist(),
    }


def edf(results: Results) -> Figure:
    """The share of results that are at most as large as a value."""
    values = sorted(point.value for point in results.need(1))
    shares = [(index + 1) / len(values) for index in range(len(values))]
    return {
        "data": [{"type": "scattergl", "mode": "lines", "x": values, "y": shares, "line": {"shape": "hv"}}],
        "layout": {
            "xaxis": {"title": _title(results)},
            "yaxis": {"title": {"text": "share of results"}, "range": [0, 1.02]},
        },
    }


def rank(results: Results, x: str = "", y: str = "") -> Figure:
    """The results over two parameters, coloured by their rank: outliers don't spoil the colours."""
    results.need(2)
    names = [name for name in results.names if any(point.flat.get(name) is not None for point in results.points)]
    if len(names) < 2:
        raise FigureError("this figure needs two parameters")
    x = x if x in names else names[0]
    y = y if y in names and y != x else next(name for name in names if name != x)
    points = results.points[-MOST_POINTS:]
    order = sorted(range(len(points)), key=lambda index: points[index].value)
    ranks = [0.0] * len(points)
    for place, index in enumerate(order):
        ranks[index] = place / max(len(points) - 1, 1)
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": results.values(x),
                "y": results.values(y),
                "text": [_hover(point) for point in points],
                "hoverinfo": "text",
                "marker": {
                    "size": 9,
                    "color": ranks,
                    "colorscale": "RdYlBu",
                    "reversescale": not results.minimize,
                    "showscale": True,
                    "colorbar": {"title": {"text": "rank"}},
                },
            }
        ],
        "layout": {"xaxis": results.axis(x), "yaxis": results.axis(y)},
    }


def timeline(results: Results) -> Figure:
    """When each trial ran, in its slot."""
    state = results.state
    ran = [one for one in state.made if one.started_us][-5000:]
    if not ran:
        raise FigureError("no trial has started yet")
    now = state.wall_us
    slots: list[int] = []  # until when each is taken
    data: dict[str, dict[str, Any]] = {}
    for one in sorted(ran, key=lambda trial: trial.started_us):
        end = one.ended_us if one.over and one.ended_us else now
        slot = next((index for index, free in enumerate(slots) if free <= one.started_us), len(slots))
        if slot == len(slots):
            slots.append(0)
        slots[slot] = end
        bars = data.setdefault(one.status, _bars(one))
        bars["base"].append(one.started_us / 1000)
        bars["x"].append(max(end - one.started_us, 0) / 1000)
        bars["y"].append(slot)
        bars["text"].append(f"trial {one.number} {one.status} {max(end - one.started_us, 0) / 1e6:.1f} s")
    return {
        "data": list(data.values()),
        "layout": {
            "barmode": "overlay",
            "xaxis": {"type": "date", "title": {"text": "time"}},
            "yaxis": {"title": {"text": "slot"}, "dtick": 1},
        },
    }


def _bars(one: Trial) -> dict[str, Any]:
    color = STATUS_COLORS.get(one.status, "#8b949e")
    empty: dict[str, list[Any]] = {"base": [], "x": [], "y": [], "text": []}
    return {
        "type": "bar",
        "orientation": "h",
        "name": one.status,
        "hoverinfo": "text",
        "textposition": "none",
        "marker": {"color": color, "line": {"width": 0.5, "color": "#fff"}},
        **empty,
    }


def importance(results: Results, method: str = "PED-ANOVA") -> Figure:
    """How much each parameter matters: for being among the best (PED-ANOVA), or for the whole variance (fANOVA)."""
    from .importance import fanova, ped_anova

    points = results.need(4)
    if results.space is None:
        raise FigureError("the search space is of a kind of its own")
    pairs = [(point.flat, point.value) for point in points]
    found = (fanova if method == "fANOVA" else ped_anova)(results.space, pairs, minimize=results.minimize)
    order = sorted(found, key=lambda name: found[name])
    return {
        "data": [{"type": "bar", "orientation": "h", "x": [found[n] for n in order], "y": [text(n) for n in order]}],
        "layout": {"xaxis": {"title": {"text": f"importance ({text(method)})"}}, "yaxis": {"automargin": True}},
    }


def pareto(results: Results, x: str = "", y: str = "") -> Figure:
    """The results over two of several objectives, and those that no other one beats in all of them."""
    points = results.need(1)
    keys = list(results.state.settings.objectives)
    if len(keys) < 2:
        raise FigureError("the experiment has one objective; this figure needs two")
    x = x if x in keys else keys[0]
    y = y if y in keys and y != x else next(key for key in keys if key != x)
    front = {(one.trial, one.phase) for one in results.state.front}
    return {
        "data": [
            _cloud("results", [one for one in points if (one.trial, one.phase) not in front], x, y, 6, "#8b949e"),
            _cloud("Pareto front", [one for one in points if (one.trial, one.phase) in front], x, y, 9, "#cf222e"),
        ],
        "layout": {"xaxis": _objective_axis(results, x), "yaxis": _objective_axis(results, y)},
    }


def _cloud(name: str, points: Sequence[Point], x: str, y: str, size: int, color: str) -> dict[str, Any]:
    both = [(point, point.values) for point in points if point.values is not None]
    return {
        "type": "scattergl",
        "mode": "markers",
        "name": name,
        "x": [values[x] for _, values in both],
        "y": [values[y] for _, values in both],
        "text": [_hover(point) for point, _ in both],
        "hoverinfo": "text",
        "marker": {"size": size, "color": color, "opacity": 0.8},
    }


def _objective_axis(results: Results, key: str) -> dict[str, Any]:
    less = results.state.settings.objectives[key] == "minimize"
    return {"title": {"text": f"{text(key)} ({'less' if less else 'more'} is better)"}}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- which there are --------------------------------------------------------------------------------------------------
TITLES: dict[str, tuple[str, Callable[..., Figure]]] = {
    "history": ("History", history),
    "intermediate": ("Intermediate results", intermediate),
    "parallel": ("Parallel coordinates", parallel),
    "slice": ("Slice", slice_),
    "contour": ("Contour", contour),
    "importance": ("Importance", importance),
    "edf": ("Distribution", edf),
    "rank": ("Rank", rank),
    "timeline": ("Timeline", timeline),
    "pareto": ("Pareto front", pareto),
}
_OF_ALL = ("intermediate", "timeline", "pareto")  # which show no single objective


def listed(state: State) -> list[dict[str, Any]]:
    """The figures by name, with their titles and options."""
    try:
        names = tuple(param.key for param in parse(state.settings.search_space).params)
    except SpaceError:
        names = ()
    objectives = tuple(state.settings.objectives)
    options: dict[str, tuple[Option, ...]] = {
        "parallel": (Option("share", "Best", ("100 %", "50 %", "20 %", "5 %")),),
        "importance": (Option("method", "Method", ("PED-ANOVA", "fANOVA")),),
        "contour": (Option("x", "x", names), Option("y", "y", names[1:] + names[:1])),
        "rank": (Option("x", "x", names), Option("y", "y", names[1:] + names[:1])),
        "pareto": (Option("x", "x", objectives), Option("y", "y", objectives[1:] + objectives[:1])),
    }
    which = (Option("objective", "Objective", objectives),) if objectives else ()
    return [
        {
            "name": name,
            "title": title,
            "options": [
                {"name": one.name, "title": one.title, "values": list(one.values)}
                for one in (*options.get(name, ()), *(which if name not in _OF_ALL else ()))
            ],
        }
        for name, (title, _) in TITLES.items()
        if objectives or name != "pareto"
    ]


def options_of(name: str) -> tuple[str, ...]:
    """The options that a figure takes, those that the page leaves at their defaults too; `KeyError` for no figure."""
    _, make = TITLES[name]
    return (
        *make.__code__.co_varnames[1 : make.__code__.co_argcount],
        *(("objective",) if name not in _OF_ALL else ()),
    )


def draw(state: State, name: str, options: Mapping[str, str] | None = None) -> Figure:
    """One figure; `KeyError` for an unknown name, `FigureError` when it can't be drawn."""
    _, make = TITLES[name]
    allowed = options_of(name)
    given = {key: value for key, value in (options or {}).items() if key in allowed}
    objective = given.pop("objective", "")
    try:
        return make(Results(state, objective), **given)
    except FigureError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise FigureError(f"it can't be drawn: {error}") from error
