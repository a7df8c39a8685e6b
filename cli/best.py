"""`tune best`: the best result of an experiment so far."""

from __future__ import annotations

from ..engine import views
from .reading import Json, Reference, json_text, number_text, opened, say, say_json


def best(id: Reference = None, /, *, json: Json = False) -> None:
    """Show the best result so far, and the parameters that gave it."""
    with opened(id) as experiment:
        found = views.best(experiment.state)
        if json:
            say_json(found)
        elif found is None:
            say("no result yet")
        else:
            phase = f" phase {found['phase']}" if experiment.state.settings.multi_phase else ""
            say(f"{number_text(found['value'])} trial {found['trial']}{phase}")
            say(json_text(found["parameters"]))
