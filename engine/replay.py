"""Replaying a tuner over a log: each ask as it was put, what was said then, and what that tuner or another says now.

The recorded stream is fed to a tuner in this process (decisions.py), so it can be stepped through and looked at in a
debugger, as often as wanted: the log is only read. Another tuner is asked at the same points, and knows what the
recorded trials gave; what its own points would have given nobody knows.
"""

from __future__ import annotations

import pdb
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Raw

from . import registry, views
from .config import Algorithm
from .decisions import Incomparable, Knew, Put, Retelling, Said, Step, put_now, read
from .errors import TuneError, UsageError
from .home import Folder
from .host_wire import AskNow, FromHost
from .tuner_host import Host


class LeftDebugger(Exception):
    """Whoever sat in the debugger has quit it."""


class Replay:
    """One replay; `steps` gives it, `inside` puts the debugger into an ask that it gave.

    `tuner`: another one than the log's. Asks before `since` are only observed; after `until` it ends. `debug` stops
    inside the tuner at the first ask.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        tuner: Algorithm | None = None,
        since: int = 0,
        until: int | None = None,
        debug: bool = False,
    ) -> None:
        self._folder, self._until = folder, until
        self._debug = debug
        self._retelling = Retelling(folder, tuner=tuner, since=since, put=self._put)

    @property
    def deterministic(self) -> bool:
        """Whether tuner and assessor say that they can be replayed exactly; known from the first step on."""
        return self._retelling.deterministic

    @property
    def made_by(self) -> str:
        """The Python that made the log, when that can be why an answer is another one; else ""."""
        return self._retelling.made_by

    def steps(self) -> Iterator[Step]:
        """The decisions, one after the other; `TuneError` when there can be none."""
        try:
            for step in self._retelling.steps(read(self._folder)):
                if self._until is not None and step.put is not None and step.put.number > self._until:
                    return
                yield step
        except Incomparable as error:
            raise TuneError(
                f"the log can't be replayed: {error}", "Name a tuner: --tuner NAME or file.py:Class"
            ) from error

    def inside(self, step: Step) -> None:
        """Put the ask of the last step once more, to a tuner that knows the same, with the debugger inside of it."""
        if step.put is not None:
            put_inside(self._retelling.fresh(), step.put)

    def _put(self, host: Host, put: AskNow) -> FromHost:
        debug, self._debug = self._debug, False
        answer: Put = put_inside if debug else put_now
        return answer(host, put)


class _Debugger(pdb.Pdb):
    """Remembers that it was quit: a call under it then just returns."""

    left = False

    def set_quit(self) -> None:
        self.left = True
        super().set_quit()


def put_inside(host: Host, put: AskNow) -> FromHost:
    """A host's answer to an ask, with the debugger stopped at the first line of the tuner's `suggest`."""
    tuner, debugger = host.tuner, _Debugger()
    suggest = tuner.suggest

    def stopped(ask: Any) -> Any:
        return debugger.runcall(suggest, ask)

    try:
        tuner.suggest = stopped
    except AttributeError as error:  # it has __slots__
        raise TuneError(f"the debugger can't get into {type(tuner).__name__}: {error}") from error
    try:
        answer = put_now(host, put)
    finally:
        del tuner.suggest
    if debugger.left:
        raise LeftDebugger
    return answer


def named(text: str, class_args: dict[str, Any]) -> Algorithm:
    """The tuner that is meant, a name or `file.py:Class`; `UsageError` when there is none or its options are wrong."""
    path, colon, class_name = text.rpartition(":")
    if not colon:
        name, cls = registry.find("tuner", text)
        wrong = registry.check_arguments(cls, class_args)
        if wrong:
            raise UsageError("\n".join(f"--class-args: {problem}" for problem in wrong))
        return Algorithm(name=name, class_args=class_args)
    file = Path(path).expanduser().absolute()
    if not file.is_file() or file.suffix != ".py" or not class_name.isidentifier():
        raise UsageError(f"--tuner: there is no {text}", "Allowed: a tuner's name, or file.py:Class")
    return Algorithm(class_name=f"{file.stem}.{class_name}", code_directory=str(file.parent), class_args=class_args)


def plain(step: Step, *, compared: bool = True) -> dict[str, Any]:
    """A step for JSON; `same` is null where another tuner was asked and nothing is compared."""
    put = step.put
    return {
        "ask": put.number if put is not None else None,
        "attempt": put.attempt if put is not None else None,
        "trial": step.trial,
        "phase": put.phase if put is not None else None,
        "event": step.fact.seq,
        "knew": knew(step.knew),
        "then": answer(step.then),
        "now": answer(step.now),
        "same": not step.difference if compared else None,
        "difference": step.difference,
    }


def knew(known: Knew) -> dict[str, Any]:
    """What was known, for JSON."""
    return {
        "seen": known.seen,
        "points": known.points,
        "results": known.results,
        "others": known.others,
        "intermediates": known.intermediates,
        "imported": known.imported,
        "best": None if known.best is None else views.number(known.best),
        "best_trial": known.best_trial,
    }


def answer(said: Said) -> dict[str, Any]:
    """An answer for JSON."""
    return {
        "answer": said.answer,
        "parameters": Raw(said.parameters.encode()) if said.parameters else None,
        "continues": said.continues,
        "budget": said.budget,
        "parents": list(said.parents),
        "decision": Raw(said.decision.encode()) if said.decision else None,
        "reason": said.reason,
    }
