"""`tune best`: the best result of an experiment so far; with several objectives, its Pareto front."""

from __future__ import annotations

from ..engine import views
from .reading import Json, Reference, front_table, json_text, no_best_text, number_text, opened, say, say_json


def best(id: Reference = None, /, *, json: Json = False) -> None:
    """Show the best result so far, and the parameters that gave it; with several objectives, the Pareto front."""
    with opened(id) as experiment:
        state = experiment.state
        several = bool(state.settings.objectives)
        found = views.best(state)
        if json:
            say_json(views.pareto(state) if several else found)
        elif several:
            front_table(state)
        elif found is None:
            say(no_best_text(state))
        else:
            phase = f" phase {found['phase']}" if state.settings.multi_phase else ""
            say(f"{number_text(found['value'])} trial {found['trial']}{phase}")
            say(json_text(found["parameters"]))
