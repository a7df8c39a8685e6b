"""The web portal from the command line: `tune view --port`. Not a verb."""

from __future__ import annotations

import os
import select

from ..engine import home
from ..engine.client import Opening, View
from ..engine.errors import TuneError
from ..engine.portal_process import start
from .interrupts import Interrupts
from .reading import emit, note, opened_at, say_json


def serve(folder: home.Folder, portal: Opening, json: bool) -> int:
    """The portal of an experiment that only shows it, until Ctrl-C; 130 then, as after every interrupt."""
    process, held = start(folder, portal, commands=False)
    try:
        View(folder).close()  # a damaged log is said here, not in the portal's own log; that reads it meanwhile
        with Interrupts() as interrupts:
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
