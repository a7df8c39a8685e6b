"""`tune plot`: a figure of an experiment, as a page, a picture or data."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..engine import views
from ..engine.errors import TuneError, UsageError
from .export import write
from .reading import note

_FORMATS = (".html", ".png", ".json")
_PIXELS = (1200, 700)


def plot(
    id: Annotated[
        str,
        Parameter(help="Id of the experiment or the beginning of one, or the path of its log."),
    ],
    kind: Annotated[
        str,
        Parameter(
            help="history, intermediate, parallel, slice, contour, importance, edf, rank, timeline, and with several "
            "objectives pareto."
        ),
    ],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="File to write: .html (one file, no network), .png, .json."),
    ] = None,
    option: Annotated[
        list[str] | None, Parameter(negative=(), help="A choice of the figure, as NAME=VALUE: x=lr, method=fANOVA.")
    ] = None,
) -> None:
    """Draw one of the portal's figures into a file. A .png needs kaleido and a Chrome."""
    if output is None:
        raise UsageError("tune plot: into which file?", f"Name one: tune plot {id} {kind} -o {kind}.html")
    suffix = output.suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"--output: found {output.name}", f"Allowed are the suffixes {', '.join(_FORMATS)}.")
    if suffix == ".png" and importlib.util.find_spec("kaleido") is None:
        raise TuneError(
            "a .png is drawn by kaleido, which is not installed",
            "pip install kaleido; where there is no Chrome also: plotly_get_chrome. A .html needs neither.",
        )
    from ..portal.figures import FigureError

    try:
        data = _drawn(id, kind, _options(option or ()), suffix)
    except FigureError as error:
        raise TuneError(f"{kind}: {error}") from error
    try:
        write(output, data)
    except OSError as error:
        raise UsageError(f"{output} can't be written: {error.strerror}") from error
    note(f"{kind} written to {output}")


def _drawn(id: str, kind: str, options: dict[str, str], suffix: str) -> bytes:
    from ..portal.plots import plain_figure

    plain = plain_figure(id, kind, options)
    if suffix == ".json":
        return views.to_json({"data": plain["data"], "layout": plain["layout"]}) + b"\n"
    graph: Any = importlib.import_module("plotly.graph_objects")
    figure: Any = graph.Figure(data=plain["data"], layout=plain["layout"])
    if suffix == ".html":
        return figure.to_html(include_plotlyjs=True, full_html=True).encode()
    try:
        return figure.to_image(format="png", width=_PIXELS[0], height=_PIXELS[1])
    except Exception as error:  # kaleido's own, and those of the browser that it starts
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TuneError(f"kaleido can't draw: {said}", "Where there is no Chrome: plotly_get_chrome.") from error


def _options(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option: found {text!r}", "Allowed: NAME=VALUE")
        found[name] = value
    return found
