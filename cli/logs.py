"""`tune logs`: what an experiment's engine said, or what a trial wrote to stdout or stderr."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import msgspec
from cyclopts import Parameter

from ..engine import views
from ..engine.errors import TuneError, UsageError
from ..engine.mirror import Mirror
from ..engine.state import Trial
from .reading import Follow, Opened, Reference, emit, find_trial, note, opened, printable, printable_lines, say

_LINES = 50
_LAST_BYTES = 1 << 20
_STEP = 0.25  # seconds between two looks at a file that is followed
_LINK = re.compile(r"([0-9]{1,9})/(stdout|stderr)")
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,30}m")
_FAILED_SHOWN = 3


def logs(
    id: Reference = None,
    /,
    *,
    trial: Annotated[str | None, Parameter(help="Number or id: this trial's output instead of the engine's.")] = None,
    stderr: Annotated[bool, Parameter(negative=(), help="The trial's stderr instead of its stdout.")] = False,
    follow: Follow = False,
) -> None:
    """Show what the engine said, or with --trial what a trial wrote."""
    if stderr and trial is None:
        raise UsageError("--stderr belongs to a trial", "Name it: tune logs --trial 3 --stderr")
    with opened(id) as experiment:
        if trial is None:
            _engine(experiment, follow)
        else:
            _trial(experiment, find_trial(experiment.state, trial), "stderr" if stderr else "stdout", follow)


# -- the engine's -----------------------------------------------------------------------------------------------------
def _engine(experiment: Opened, follow: bool) -> None:
    path = experiment.folder.engine_log
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        note(f"{path}: {error.strerror}")
        file = None
    if file is not None:
        with file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _LAST_BYTES))
            for line in deque(file.read().decode(errors="replace").splitlines(), maxlen=_LINES):
                say(engine_line(line))
            if follow:
                rest = ""
                for chunk in _chunks(file, lambda: experiment.pid is not None):
                    *whole, rest = (rest + chunk).split("\n")
                    for line in whole:
                        emit(engine_line(line) + "\n")
                if rest:
                    say(engine_line(rest))
                experiment.view.catch_up()
    state = experiment.state
    failed = [one for one in state.made if one.status == "FAILED" and one.stderr.strip()]
    for one in failed[-_FAILED_SHOWN:]:
        say(f"trial {one.number} ({one.id}) FAILED, {printable(one.reason)}; the end of its stderr:")
        for line in printable_lines(views.stderr_tail(one)):
            say(f"    {line}")


def engine_line(line: str) -> str:
    """A line of engine.log for people: time, level, what happened, and its details."""
    try:
        found: Any = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return printable(line)
    if not isinstance(found, dict):
        return printable(line)
    fields = cast("dict[str, Any]", found)
    when = str(fields.pop("timestamp", ""))
    with contextlib.suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    level, event = str(fields.pop("level", "")), str(fields.pop("event", ""))
    trace = fields.pop("exception", None)
    details = " ".join(f"{name}={value}" for name, value in fields.items())
    text = "  ".join(printable(part) for part in (when, f"{level:<7}", event, details) if part.strip())
    if isinstance(trace, str):
        text += "".join(f"\n    {each}" for each in printable_lines(trace))
    return text


# -- a trial's --------------------------------------------------------------------------------------------------------
def _trial(experiment: Opened, one: Trial, name: str, follow: bool) -> None:
    number, folder = one.number, experiment.folder.trials / one.id
    shown = Shown(raw=not sys.stdout.isatty())

    def more() -> bool:
        """Whether the trial may still write."""
        experiment.view.catch_up()
        now = experiment.state.trial(number)
        if experiment.pid is not None:
            return not now.over
        return now.active and not (folder / str(now.attempt) / "exit").exists()

    attempt, going = -1, True
    with contextlib.closing(Copies(experiment)) as copies:
        while going:
            going = follow and more()
            copies.bring(number, name)
            found = open_output(folder, name)
            if found is not None and found[0] != attempt:
                attempt, file = found
                with file:

                    def same(current: int = attempt) -> bool:
                        goes_on = more() and experiment.state.trial(number).attempt == current
                        copies.bring(number, name)  # after that look: then what it wrote last is here, too
                        return goes_on

                    for data in _bytes(file, same if follow else None):
                        shown.write(data)
            elif found is not None:
                found[1].close()
            if going:
                time.sleep(_STEP)
    shown.end()
    now = experiment.state.trial(number)
    if attempt < 0:
        if name == "stderr" and now.stderr:
            emit("\n".join(printable_lines(now.stderr)) + "\n")
        else:
            why = f"it is {now.status} {views.reason(experiment.state, now)}".rstrip()
            note(f"trial {number} ({now.id}) has no {name} here; {printable(why)}")


class Copies:
    """The output of trials on other hosts, copied here as it is looked at; a host that is away is said once."""

    def __init__(self, experiment: Opened) -> None:
        self._experiment = experiment
        self._runner = asyncio.Runner()
        self._mirror = Mirror(experiment.folder, experiment.state.settings)
        self._away = False

    def bring(self, number: int, name: str) -> None:
        """Have what a trial wrote until now."""
        one = self._experiment.state.trial(number)
        if self._away or not one.host:
            return
        try:
            self._runner.run(self._mirror.output(one, name))
        except TuneError as error:
            self._away = True
            note(f"note: {printable(error.message)}; what was copied before is shown")

    def close(self) -> None:
        """End the connections."""
        self._runner.run(self._mirror.close())
        self._runner.close()


def open_output(folder: Path, name: str) -> tuple[int, BinaryIO] | None:
    """The last attempt and its `stdout` or `stderr`, opened without leaving the trial's folder; None: there is none.

    The trial's user code can write there, so no link is followed but the keeper's own, `<attempt>/<name>`.
    """
    try:
        base = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            target = os.readlink(name, dir_fd=base)
        except FileNotFoundError:
            return None
        link = _LINK.fullmatch(target)
        if link is None or link[2] != name:
            raise OSError(0, f"it is a link to {printable(target)}")
        inner = os.open(link[1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inner)
        except FileNotFoundError:
            return None
        finally:
            os.close(inner)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(0, "it is no regular file")
        return int(link[1]), os.fdopen(file, "rb")
    except OSError as error:
        raise TuneError(f"{folder / name} is not read: {error.strerror or error}") from error
    finally:
        os.close(base)


class Shown:
    """Prints a trial's output: as it is into a pipe; in a terminal without what could move or hide text."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._line = ""

    def write(self, data: bytes) -> None:
        """Print what came, whole lines at a time."""
        if self._raw:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        self._print(self._decode(data))

    def end(self) -> None:
        """Print what is left of the last line."""
        if not self._raw:
            self._print(self._decode(b"", True))
            if self._line:
                emit(visible(self._line) + "\n")
                self._line = ""

    def _print(self, text: str) -> None:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            emit(visible(line) + "\n")


def visible(line: str) -> str:
    """A line of output for a terminal: colours stay, a carriage return starts a new line, the rest is escaped."""
    parts: list[str] = []
    for piece in line.rstrip("\r").split("\r"):
        at, text = 0, ""
        for colour in _COLOUR.finditer(piece):
            text += printable(piece[at : colour.start()].expandtabs()) + colour[0]
            at = colour.end()
        coloured = "\x1b[0m" if at else ""
        parts.append(text + printable(piece[at:].expandtabs()) + coloured)
    return "\n".join(parts)


# -- following --------------------------------------------------------------------------------------------------------
def _bytes(file: BinaryIO, more: Callable[[], bool] | None) -> Iterator[bytes]:
    """What the file holds, and with `more` what is added while that is true, and what was added last."""
    going = True
    while going:
        going = more is not None and more()
        while data := file.read(1 << 16):
            yield data
        if going:
            time.sleep(_STEP)


def _chunks(file: BinaryIO, more: Callable[[], bool]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    for data in _bytes(file, more):
        yield decode(data)
