"""Whatever happens to a browser, or to the test that waits for it, the run goes on: each of these waits has no end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from driven import Driven, Stuck

NEVER = "new Promise(() => 0)"


def page(chromium: Driven) -> Any:
    return chromium.do(lambda: chromium.context().new_page(), 50)


def test_a_call_that_never_ends_is_ended_and_the_next_browser_works(chromium: Driven) -> None:
    waiting = page(chromium)
    with pytest.raises(Stuck) as caught:
        chromium.do(lambda: waiting.evaluate(NEVER), 0.2)
    assert "closed" in str(caught.value.__cause__)  # the call itself has ended too, and said where
    again = page(chromium)
    assert chromium.do(lambda: again.evaluate("6 * 7"), 30) == 42


def test_a_signal_that_raises_in_the_middle_of_a_wait_ends_it(chromium: Driven) -> None:
    class Alarm(BaseException):
        pass

    def alarm(*_: Any) -> None:
        raise Alarm

    waiting = page(chromium)
    before = signal.signal(signal.SIGUSR1, alarm)
    try:
        with pytest.raises(Alarm):
            chromium.do(lambda: (os.kill(os.getpid(), signal.SIGUSR1), waiting.evaluate(NEVER)), 60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    again = page(chromium)
    assert chromium.do(lambda: again.evaluate("6 * 7"), 30) == 42


def test_a_chromium_that_answers_nothing_does_not_hold_up_its_end(chromium: Driven) -> None:
    waiting = page(chromium)
    processes = chromium.processes
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Stuck):
        chromium.do(waiting.close, 0.2)
    deadline = time.monotonic() + 20
    while any(_lives(pid) for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
