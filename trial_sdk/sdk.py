"""What a trial's code calls: take parameters, report results, ask whether to stop.

Outside of an experiment ("stand-alone") parameters are `{}`, ids are "STANDALONE", and metrics are printed. In a
trial, every process has a spool and a connection of its own, both made at its first report, also after a fork. All
functions may be called from any thread. Imports are kept to what a trial needs, since every trial pays for them.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock, allocate_lock
from typing import TYPE_CHECKING, Any, cast

import msgspec

from . import crash_point, values, wire

if TYPE_CHECKING:
    from .connection import Connection
    from .spool import Spool

SILENCE = 5.0  # seconds without an acknowledgement after which a final is synced instead
STANDALONE = "STANDALONE"

_launch = os.environ.get("TUNE_LAUNCH_DIR", "")
_multi_phase = os.environ.get("TUNE_MULTI_PHASE") == "1"
_checkpoints = os.environ.get("TUNE_CHECKPOINT_DIR", "")


class _Process:
    """What belongs to one process: its spool, its connection, its open request. Made anew after a fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.name = f"{self.pid}-{os.urandom(4).hex()}"
        self.spool: Spool | None = None
        self.connection: Connection | None = None
        self.request = 0  # the number of the request that is not answered yet
        self.lock = RLock()  # around the spool: held for one write
        self.wire = allocate_lock()  # around the connection: held while somebody waits on it
        self.appending = False

    def append(self, kind: str, value: str = "") -> int:
        """Write a report to the spool; its number."""
        with self.lock:
            if self.appending:
                raise RuntimeError("a report from inside a signal handler that interrupted another report")
            self.appending = True
            try:
                if self.spool is None:
                    from .spool import Spool

                    self.spool = Spool(f"{_launch}/{self.name}.spool")
                return self.spool.append(kind, _state.phase, value)
            finally:
                self.appending = False

    def sync(self) -> None:
        """Bring the spool to the disk."""
        with self.lock:
            if self.spool is not None:
                self.spool.sync()

    def link(self) -> Connection:
        """The connection object; it dials by itself when it is used."""
        if self.connection is None:
            from .connection import Connection

            trial, attempt = _launch.rsplit("/", 2)[-2:]
            self.connection = Connection(os.environ.get("TUNE_SOCKET", ""), f"{trial}/{attempt}", self.name, self.pid)
        return self.connection

    def poke(self) -> None:
        """Tell the keeper that there is more; never waits. While another thread waits, the keeper looks by itself."""
        if self.wire.acquire(False):
            try:
                self.link().poke()
            finally:
                self.wire.release()


class _State:
    """What a trial's processes have in common and a fork inherits."""

    phase = 0
    text: bytes | None = None  # the current parameters
    current: dict[str, Any] | None = None
    reported = 0  # stand-alone: how many intermediate results
    warned = False
    stopping = False
    watches = False  # SIGTERM is ours


_state = _State()
_process = _Process()
_taking = RLock()


def _here() -> _Process:
    return _process


def _forked() -> None:
    """In a child, right after the fork: locks may be held by threads that are not there."""
    global _process, _taking
    parent = _process
    _process = _Process()
    _taking = RLock()
    # The parent's socket and spool stay the parent's: closed here without a word.
    if parent.connection is not None:
        parent.connection.drop()
    if parent.spool is not None:
        parent.spool.close()


os.register_at_fork(after_in_child=_forked)


def get_next_parameter(timeout: float | None = None) -> Any:
    """The parameters of this trial as a dict; with `multi_phase`, those of its next phase, or None: nothing more.

    Without `multi_phase` each call gives the same configuration. The wait for a further phase has no end unless
    `timeout` (seconds) sets one: `TimeoutError`, and the next call goes on waiting for the same answer. Stand-alone it
    is `{}`, with one warning.

    `load_checkpoint_dir` and `save_checkpoint_dir`, which some tuners give, are absolute paths here; the second exists.
    """
    if not _launch:
        if not _state.warned:
            _state.warned = True
            import warnings

            warnings.warn("no experiment: get_next_parameter() gives {} here", RuntimeWarning, stacklevel=2)
        _state.current = {}
        return _state.current
    with _taking:
        text = _state.text
        if text is None and (first := _first()).phase >= 0:
            _state.phase, text = first.phase, bytes(first.parameters)
        elif text is None or _multi_phase:
            answer = _ask(timeout)
            if answer is None or answer.parameters is None:
                return None
            _state.phase, text = answer.phase, answer.parameters.encode()
        _state.text, _state.current = text, _with_checkpoints(msgspec.json.decode(text))
        return _state.current


get_next_parameters = get_next_parameter


def get_current_parameter(tag: str | None = None) -> Any:
    """What the last `get_next_parameter` gave, or the value of one key of it; None before the first call."""
    if _state.current is None or tag is None:
        return _state.current
    return _state.current[tag]


def report_intermediate_result(metric: object) -> None:
    """Report a result on the way: a number, or a dict whose key "default" is one; any JSON value is stored.

    Returns when the report is in this process's spool, where no process's death can touch it. `ValueError` when JSON
    can't hold the value.
    """
    text = values.encode(metric)
    if not _launch:
        _print(f"Intermediate result: {text}  (Index {_state.reported})")
        _state.reported += 1
        return
    process = _here()
    process.append("I", text)
    process.poke()


def report_final_result(metric: object) -> None:
    """Report the result of the current phase: a number, or a dict whose key "default" is one.

    Returns when it is in the experiment's log; with no engine there (or none that answers within 5 s), when it is
    synced to the disk, from where it reaches the log later. `ValueError` when JSON can't hold the value.
    """
    text = values.encode(metric)
    if not _launch:
        _print(f"Final result: {text}")
        return
    process = _here()
    number = process.append("F", text)
    crash_point.point("trial.spooled")
    with process.wire:
        recorded = process.link().wait_recorded(number, SILENCE)
        _state.stopping |= process.link().stopping
    if not recorded:
        process.sync()
    crash_point.point("trial.recorded")


def should_stop() -> bool:
    """Whether this trial is to end: after an assessor's verdict, a kill, a stop or its time limit.

    SIGTERM follows at once and SIGKILL after the grace time. The first call in the main thread takes over SIGTERM,
    which then only sets this answer.
    """
    if not _state.watches:
        import signal

        try:
            signal.signal(signal.SIGTERM, _on_term)
            _state.watches = True
        except ValueError:  # not the main thread: its handler can't be set from here
            pass
    if not _state.stopping and _launch:
        process = _here()
        if process.wire.acquire(False):  # else somebody reads already, and will see it
            try:
                _state.stopping |= process.link().look()
            finally:
                process.wire.release()
        elif process.connection is not None:
            _state.stopping |= process.connection.stopping
    return _state.stopping


def get_experiment_id() -> str:
    """The experiment's id, or "STANDALONE"."""
    return os.environ.get("TUNE_EXPERIMENT_ID", STANDALONE) if _launch else STANDALONE


def get_trial_id() -> str:
    """The trial's id, or "STANDALONE"."""
    return os.environ.get("TUNE_TRIAL_ID", STANDALONE) if _launch else STANDALONE


def get_sequence_id() -> int:
    """The trial's number: 0, 1, 2 ... in the order of submission; 0 stand-alone."""
    return int(os.environ.get("TUNE_TRIAL_NUMBER", "0")) if _launch else 0


def get_attempt() -> int:
    """Which attempt of the trial this is: 0 is the first; 0 stand-alone."""
    return int(os.environ.get("TUNE_ATTEMPT", "0")) if _launch else 0


def get_output_dir() -> str:
    """A folder that belongs to this trial, over all its attempts; the working directory stand-alone."""
    return os.environ.get("TUNE_OUTPUT_DIR", "") if _launch else os.getcwd()  # noqa: PTH109


class _Configuration(msgspec.Struct):
    phase: int  # -1: every phase that the trial was given had its final before this attempt, so the next is asked for
    parameters: msgspec.Raw


def _first() -> _Configuration:
    """What this attempt was launched with."""
    with open(f"{_launch}/parameters.json", "rb") as file:  # noqa: PTH123 -- pathlib is dear in a trial
        return msgspec.json.decode(file.read(), type=_Configuration)


def _with_checkpoints(parameters: Any) -> Any:
    """The same, with checkpoint folders where they lie here: the log names those of an experiment `checkpoints/12`."""
    if not isinstance(parameters, dict):
        return parameters
    found = cast("dict[str, Any]", parameters)
    for key in ("load_checkpoint_dir", "save_checkpoint_dir"):
        path = found.get(key)
        if not isinstance(path, str):
            continue
        head, _, name = path.partition("/")
        if head == "checkpoints" and name not in ("", ".", "..") and "/" not in name and _checkpoints:
            found[key] = path = f"{_checkpoints}/{name}"
        if key == "save_checkpoint_dir" and path.startswith("/"):
            os.makedirs(path, exist_ok=True)  # noqa: PTH103 -- pathlib is dear in a trial
    return found


def _ask(timeout: float | None) -> wire.Parameters | None:
    """The answer to a request for the next phase; None when the trial is to stop instead."""
    process = _here()
    deadline = None if timeout is None else time.monotonic() + timeout
    if not process.request:
        process.request = process.append("R")
    with process.wire:
        connection = process.link()
        answer = connection.wait_parameters(process.request, deadline)
        _state.stopping |= connection.stopping
    if answer is not None:
        process.request = 0
    return answer


def _on_term(number: int, frame: object) -> None:
    _state.stopping = True


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
