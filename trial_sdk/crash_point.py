"""Crash points: places in the program where it can be made to die by SIGKILL, to prove that it survives that.

`TUNE_CRASH_AT=NAME` or `NAME:N` in the environment of an engine lets it, or the keeper that it starts, kill itself at
the N-th passing (the first one without N; each process counts for itself). Trials never inherit it: a trial's own
points work where its command sets it. With the variable unset `point` does nothing at all. The points:

    engine.locked       the engine has its lock; the log is not yet opened, or not yet there
    engine.decided      a batch is folded into the state, and nothing of it is in the log
    engine.committed    a batch is in the log, and nobody was told
    engine.output       one of the outputs that waited for the log is out, the next is not
    engine.said         a burst of commands was written to a keeper
    engine.started      ENGINE_STARTED is in the log, and the engine's door is not yet open
    engine.shutdown     the experiment has ended, and its keepers don't know
    resume.replayed     the log is read; the next epoch is not taken
    resume.history      what the tuner is to be told anew is gathered; it was not told
    log.made            the log's file is there, and empty
    log.tabled          the log has its table, and no event and no events.head
    log.inserted        a batch is in the table; events.head is behind
    keeper.made         a launch has its folder, and nothing in it
    keeper.spawned      a waiter runs, and nobody was told of it
    keeper.read         reports were taken from a spool and not sent
    keeper.exited       a launch is over, all its reports are sent, and its Exited is not
    keeper.termed       a tree was sent TERM and not yet KILL
    trial.spooled       a final is in the spool; the keeper was not poked
    trial.recorded      a final is in the log; the trial's call has not returned
"""

from __future__ import annotations

import os
from collections.abc import Callable

VARIABLE = "TUNE_CRASH_AT"
SIGKILL = 9


def _nowhere(name: str) -> None:
    """The program passes a place where it could be made to die."""


def armed(at: str) -> Callable[[str], None]:
    """A `point` that kills this process at `at`, NAME or NAME:N; it says so on stderr just before. `ValueError`."""
    place, _, text = at.partition(":")
    left = int(text or "1")

    def point(name: str) -> None:
        nonlocal left
        if name != place:
            return
        left -= 1
        if left == 0:
            os.write(2, f"crash point {name}: pid {os.getpid()} kills itself\n".encode())
            os.kill(os.getpid(), SIGKILL)

    return point


point: Callable[[str], None] = armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _nowhere
