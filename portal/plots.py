"""`tune.visualization`: the portal's figures as Plotly figures, for notebooks and scripts.

Each takes an `Experiment`, an id (or a unique beginning of one), the path of an events.db or of its folder, or a
`State`, and gives a `plotly.graph_objects.Figure`. `FigureError` says why one can't be drawn. With several objectives
`objective` names the one that is shown, by default the first.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from ..engine import home
from ..engine.client import View
from ..engine.errors import TuneError, UsageError
from ..engine.experiment import Experiment
from ..engine.state import State
from .figures import TITLES, draw, listed, options_of
from .figures import Figure as Plain

if TYPE_CHECKING:
    Figure: TypeAlias = Any  # plotly.graph_objects.Figure: plotly has no types

Source: TypeAlias = "Experiment | State | str | os.PathLike[str]"


def plot_history(of: Source, *, objective: str = "") -> Figure:
    """Each result in the order of its trial, and the best so far."""
    return plot(of, "history", objective=objective)


def plot_intermediate(of: Source) -> Figure:
    """The intermediate results of each trial as a curve."""
    return plot(of, "intermediate")


def plot_parallel(of: Source, *, share: str = "100 %", objective: str = "") -> Figure:
    """Each result as a line across its parameters; `share` of the best ones."""
    return plot(of, "parallel", share=share, objective=objective)


def plot_slice(of: Source, *, objective: str = "") -> Figure:
    """The results over each parameter, side by side."""
    return plot(of, "slice", objective=objective)


def plot_contour(of: Source, *, x: str = "", y: str = "", objective: str = "") -> Figure:
    """The results over two parameters that are numbers: the surface between them, and the points."""
    return plot(of, "contour", x=x, y=y, objective=objective)


def plot_importance(of: Source, *, method: str = "PED-ANOVA", objective: str = "") -> Figure:
    """How much each parameter matters: for being among the best ("PED-ANOVA"), or for the variance ("fANOVA")."""
    return plot(of, "importance", method=method, objective=objective)


def plot_edf(of: Source, *, objective: str = "") -> Figure:
    """The share of results that are at most as large as a value."""
    return plot(of, "edf", objective=objective)


def plot_rank(of: Source, *, x: str = "", y: str = "", objective: str = "") -> Figure:
    """The results over two parameters, coloured by their rank."""
    return plot(of, "rank", x=x, y=y, objective=objective)


def plot_timeline(of: Source) -> Figure:
    """When each trial ran, in its slot."""
    return plot(of, "timeline")


def plot_pareto(of: Source, *, x: str = "", y: str = "") -> Figure:
    """The results over two of several objectives, and the Pareto front."""
    return plot(of, "pareto", x=x, y=y)


def plot(of: Source, name: str, **options: str) -> Figure:
    """The figure with this name ("history", "intermediate" ...) and these options.

    `UsageError` for an unknown name or option, `FigureError` when there is too little to draw.
    """
    plain = plain_figure(of, name, options)
    graph: Any = importlib.import_module("plotly.graph_objects")
    return graph.Figure(data=plain["data"], layout=plain["layout"])


def plain_figure(of: Source, name: str, options: dict[str, str]) -> Plain:
    """The figure as plain data; errors as in `plot`."""
    if name not in TITLES:
        raise UsageError(f"there is no figure {name!r}", f"Allowed: {', '.join(TITLES)}.")
    allowed = options_of(name)
    for option in options:
        if option not in allowed:
            hint = f"Allowed: {', '.join(allowed)}." if allowed else "It has none."
            raise UsageError(f"the figure {name} has no option {option!r}", hint)
    if isinstance(of, Experiment):
        return of.read(lambda state: _drawn(state, name, options))
    if isinstance(of, State):
        return _drawn(of, name, options)
    view = View(home.find(os.fspath(of)))
    try:
        if view.state.config is None:
            raise TuneError(f"the log of experiment {view.folder.id} is empty: it was never started")
        return _drawn(view.state, name, options)
    finally:
        view.close()


def _drawn(state: State, name: str, options: dict[str, str]) -> Plain:
    given = {key: value for key, value in options.items() if value}
    known: dict[str, list[dict[str, Any]]] = {one["name"]: one["options"] for one in listed(state)}
    for option in known.get(name, ()):
        allowed: list[str] = option["values"]
        value = given.get(option["name"])
        if value is not None and value not in allowed and option["name"] != "share":
            raise UsageError(f"{option['name']}: found {value!r}", f"Allowed: {', '.join(allowed)}.")
    return draw(state, name, given)
