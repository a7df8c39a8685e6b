"""The web portal from the command line: the port that a verb was given, and `tune view --port`. Not a verb."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
from collections.abc import Generator

from ..engine import home
from ..engine.client import Opening, View
from ..engine.errors import TuneError, UsageError
from .interrupts import Interrupts
from .reading import emit, note, opened_at, say_json


@contextlib.contextmanager
def opening(port: int | None) -> Generator[Opening | None]:
    """Bind the port before anything is started, while the block runs; None when no portal is wanted. `UsageError`."""
    if port is None:
        yield None
        return
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: {port} was given", "Allowed: 0 to 65535; 0 takes any free one.")
    from ..portal.server import bind

    with bind(port) as listening:
        yield Opening(listening, secrets.token_urlsafe(32))


def serve(folder: home.Folder, port: int, json: bool) -> int:
    """The portal of an experiment that only shows it, until Ctrl-C; 130 then, as after every interrupt."""
    from ..portal.server import start

    View(folder).close()  # a damaged log is said here, not in the portal's own log
    with Interrupts() as interrupts, opening(port) as portal:
        assert portal is not None
        process, held = start(folder, portal, commands=False)
        try:
            if json:
                with opened_at(folder) as experiment:
                    say_json({**experiment.status(), "port": portal.port, "url": portal.url})
            else:
                emit(f"Web portal: {portal.url}\n")
            note("Ctrl-C ends it")
            poll = select.poll()
            poll.register(interrupts.fd, select.POLLIN)
            poll.register(held, 0)  # an error there: the portal has gone
            poll.poll()
            interrupts_came = interrupts.count > 0
        finally:
            os.close(held)
            process.wait()
    if not interrupts_came:
        raise TuneError("the portal has ended", f"See {folder.path / 'portal.log'}.")
    return 130
