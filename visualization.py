"""Figures of an experiment for notebooks and scripts: `from tune.visualization import plot_history`.

Only names: the figures are those of the web portal (portal/figures.py, portal/plots.py).
"""

from .portal.figures import FigureError
from .portal.plots import (
    plot,
    plot_contour,
    plot_edf,
    plot_history,
    plot_importance,
    plot_intermediate,
    plot_parallel,
    plot_pareto,
    plot_rank,
    plot_slice,
    plot_timeline,
)

__all__ = [
    "FigureError",
    "plot",
    "plot_contour",
    "plot_edf",
    "plot_history",
    "plot_importance",
    "plot_intermediate",
    "plot_parallel",
    "plot_pareto",
    "plot_rank",
    "plot_slice",
    "plot_timeline",
]
