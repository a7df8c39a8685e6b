"""A trial process's connection to its keeper: dialled when first used, dialled again when it broke.

Nothing here may harm the trial: reports are safe in the spool before the keeper hears of them, so every failure of the
connection only means that the keeper hears later. Not thread-safe; its owner holds a lock.
"""

from __future__ import annotations

import select
import socket
import time

import msgspec

from .wire import (
    EngineState,
    Framer,
    FromTrial,
    Hello,
    Parameters,
    Poke,
    Recorded,
    StopNotice,
    ToTrial,
    Waiting,
    WireError,
    decode,
    frame,
)

REDIAL = 1.0  # seconds between two attempts to reach a keeper that is not there, when nobody waits for it
BACKOFF = (0.05, 2.0)  # seconds between two attempts while somebody waits: first, longest
_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[ToTrial] = msgspec.msgpack.Decoder(ToTrial)
_POKE = frame(_encode(Poke()))


def _frame(message: FromTrial) -> bytes:
    return frame(_encode(message))


class Connection:
    """The state of the connection, as the keeper's messages made it."""

    def __init__(self, path: str, launch: str, process: str, pid: int) -> None:
        self._path = path
        self._hello = _frame(Hello(launch, process, pid))
        self._socket: socket.socket | None = None
        self._framer = Framer()
        self._dial_at = 0.0
        self._answer: Parameters | None = None
        self._heard = 0.0  # when something was last acknowledged
        self._engine: bool | None = None
        self.recorded = 0
        self.stopping = False

    def drop(self) -> None:
        """Close the socket, if any."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def poke(self) -> None:
        """Say that there is more in the spool, without ever waiting. A full socket has pokes enough in it."""
        self._read(0.0)  # what the keeper said meanwhile must not fill its side
        if self._socket is None and time.monotonic() < self._dial_at:
            return
        for _ in range(2):
            if not self._dial():
                return
            if self._send(_POKE):
                return

    def look(self) -> bool:
        """Whether the keeper has said that the trial is to stop; never waits."""
        if self._socket is None and time.monotonic() >= self._dial_at:
            self._dial()
        self._read(0.0)
        return self.stopping

    def wait_recorded(self, number: int, silence: float) -> bool:
        """Wait until report `number` is in the log; False when that can't be had now.

        That is: no keeper, no engine, or nothing acknowledged for `silence` seconds.
        """
        self._heard = time.monotonic()
        self._read(0.0)
        dials = 0
        while self.recorded < number:
            if self._socket is None:
                if dials == 2 or not self._dial():
                    return False
                dials += 1
            if not self._ask(number):
                continue
            while self._socket is not None and self.recorded < number:
                left = self._heard + silence - time.monotonic()
                if left <= 0 or self._engine is False:
                    return False
                self._read(left)
        return True

    def wait_parameters(self, number: int, deadline: float | None) -> Parameters | None:
        """Wait for the answer to request `number`, over any absence of keeper and engine.

        None when the trial is told to stop; `TimeoutError` when the monotonic clock reaches `deadline`.
        """
        pause = BACKOFF[0]
        while not self.stopping:
            if self._dial() and self._ask(number):
                while self._socket is not None and not self.stopping:
                    if self._answer is not None and self._answer.number == number:
                        return self._answer
                    self._read(_left(deadline, 60.0))
                if self._engine is not None:  # that was a keeper who knew us
                    pause = BACKOFF[0]
            if not self.stopping:
                time.sleep(min(pause, _left(deadline, BACKOFF[1])))
                pause = min(pause * 2, BACKOFF[1])
        return None

    def _dial(self) -> bool:
        """Have a connection, greeted; never waits."""
        if self._socket is not None:
            return True
        self._dial_at = time.monotonic() + REDIAL
        sock: socket.socket | None = None
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            sock.connect(self._path)
            sock.sendall(self._hello)
        except (OSError, ValueError):  # nobody there, his queue is full, no such path or one too long
            if sock is not None:
                sock.close()
            return False
        self._socket = sock
        self._framer = Framer()
        self._engine = None
        return True

    def _ask(self, number: int) -> bool:
        """Say that this process waits for `number` (and that there is more); False when the connection broke."""
        return self._send(_POKE + _frame(Waiting(number)), must=True)

    def _send(self, data: bytes, *, must: bool = False) -> bool:
        """Send; what a full socket does not take is dropped unless it `must` go. False when the connection broke."""
        sock = self._socket
        try:
            while data and sock is not None:
                try:
                    data = data[sock.send(data, _FLAGS) :]
                    must = True  # never half a message
                except BlockingIOError:
                    if not must:
                        return True
                    if not _ready(sock, select.POLLOUT, 5.0):
                        self.drop()  # a keeper that reads nothing
                        return False
        except OSError:
            self.drop()
        return self._socket is not None

    def _read(self, seconds: float) -> None:
        """Take in what the keeper says, waiting for it at most so long."""
        sock = self._socket
        if sock is None:
            return
        try:
            if seconds > 0 and not _ready(sock, select.POLLIN, seconds):
                return
            data = sock.recv(1 << 16, socket.MSG_DONTWAIT)
            if not data:
                self.drop()
                return
            for body in self._framer.feed(data):
                self._take(decode(_decoder, body))
        except BlockingIOError:
            return
        except (OSError, WireError):
            self.drop()

    def _take(self, message: ToTrial) -> None:
        match message:
            case Recorded():
                if message.number > self.recorded:
                    self.recorded = message.number
                    self._heard = time.monotonic()
            case Parameters():
                self._answer = message
            case EngineState():
                self._engine = message.connected
            case StopNotice():
                self.stopping = True


def _ready(sock: socket.socket, event: int, seconds: float) -> bool:
    """Wait until the socket can be read or written; any number of open files will do (select has a limit)."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(seconds * 1000))


def _left(deadline: float | None, longest: float) -> float:
    """Seconds until the deadline, `longest` at most; `TimeoutError` when it is reached."""
    if deadline is None:
        return longest
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no parameters yet")
    return min(left, longest)
