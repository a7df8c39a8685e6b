"""`tune view`: an experiment replayed from its log, read-only; also while its engine runs."""

from __future__ import annotations

from ..engine import home
from ..engine.portal_process import opening
from ..engine.progress import spark
from ..engine.views import phase_parameters
from .create import Certificate, Host, Key, Port
from .portal import serve
from .reading import (
    Json,
    Reference,
    json_text,
    number_text,
    opened,
    printable_lines,
    result_text,
    say,
    say_json,
    table,
)
from .status import show

_SHOWN = 15
_POINTS = 20


def view(
    id: Reference = None,
    /,
    *,
    port: Port = None,
    host: Host = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    json: Json = False,
) -> int | None:
    """Replay an experiment from its log and show it. Nothing is written; `--port` serves it until Ctrl-C."""
    with opening(port, host, tls_cert, tls_key) as portal:
        if portal is not None:
            return serve(home.find(id), portal, json)
    with opened(id) as experiment:
        if json:
            say_json(experiment.status())
            return
        say("VIEWED (read-only)")
        show(experiment)
        state = experiment.state
        made = state.made
        values = [phase.value for one in made for phase in one.phases if phase.value is not None]
        if len(values) > 1:
            say(f"{'Results':<12}{spark(values[-60:])}  {number_text(min(values))} to {number_text(max(values))}")
        if made:
            say()
            if len(made) > _SHOWN:
                say(f"the last {_SHOWN} of {len(made)} trials; tune trials {state.id} shows them all")
            rows: list[tuple[str, ...]] = []
            for one in made[-_SHOWN:]:
                phase = one.phases[-1] if one.phases else None
                rows.append(
                    (
                        str(one.number),
                        one.status,
                        result_text(state, phase),
                        spark(list(phase.intermediate[-_POINTS:])) if phase is not None else "",
                        json_text(phase_parameters(phase)) if phase is not None else "-",
                        next(iter(printable_lines(one.reason)), ""),
                    )
                )
            table(("NO", "STATUS", "RESULT", "REPORTS", "PARAMETERS", "REASON"), rows, right=(0, 2))
