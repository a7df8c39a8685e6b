"""Ctrl-C and TERM are counted while somebody looks at them, and as before afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal

import pytest

from tune.cli.interrupts import Interrupts, early


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


def test_one_that_came_before_and_was_lost_counts() -> None:
    with contextlib.suppress(KeyboardInterrupt):  # as Python does it in a callback of its own
        early(signal.SIGINT, None)
    with Interrupts() as interrupts:
        assert interrupts.count == 1
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    with Interrupts() as interrupts:
        assert interrupts.count == 0
