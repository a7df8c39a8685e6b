"""Ctrl-C and TERM as something to look at, not an exception that may strike between any two steps.

While an `Interrupts` is entered, both are only counted, and a descriptor becomes readable: what must not be cut in two
(a folder and its process) is done whole, and whoever waits, waits for that descriptor too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_early: list[int] = []


def early(number: int, frame: FrameType | None) -> None:
    """What a signal does until an `Interrupts` is entered: `KeyboardInterrupt`, and it is remembered.

    Python drops an exception that strikes inside a callback of its own (of the import system, say): such a Ctrl-C
    would be lost, and the next `Interrupts` counts it.
    """
    _early.append(number)
    raise KeyboardInterrupt


class Interrupts:
    """How often Ctrl-C or TERM came since it was entered. For the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._read = self._write = -1

    def __enter__(self) -> Interrupts:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        for number in SIGNALS:
            self._before[number] = signal.getsignal(number)
        self.take()
        for number in _early:
            self._struck(number, None)
        _early.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    @property
    def fd(self) -> int:
        """Readable from the first interrupt on, until `drain`."""
        return self._read

    def take(self) -> None:
        """Take the signals, also back from somebody who had them in between."""
        for number in SIGNALS:
            signal.signal(number, self._struck)

    def check(self) -> None:
        """`KeyboardInterrupt` if there was one."""
        if self.count:
            raise KeyboardInterrupt

    def drain(self) -> None:
        """The descriptor is readable again at the next interrupt only."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return

    def _struck(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # it is readable anyway
