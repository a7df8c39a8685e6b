"""Ctrl-C and TERM are counted while somebody looks at them, and as before afterwards."""

from __future__ import annotations

import os
import select
import signal

import pytest

from tune.cli.interrupts import Interrupts


def test_they_are_counted_and_the_descriptor_tells() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts() as interrupts:
        interrupts.check()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.count == 2
        assert select.select([interrupts.fd], [], [], 0)[0]
        interrupts.drain()
        interrupts.drain()
        assert not select.select([interrupts.fd], [], [], 0)[0]
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_flood_of_them_blocks_nobody() -> None:
    with Interrupts() as interrupts:
        for _ in range(100_000):
            interrupts._struck(signal.SIGINT, None)
        assert interrupts.count == 100_000


def test_they_are_taken_back_from_somebody_else() -> None:
    with Interrupts() as interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.take()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.count == 1
