"""engine/tuner_calls.py: asks that wait, in threads and as coroutines."""

import asyncio
import threading
from typing import Any

import pytest

from tune.engine.plugins import Ask, Ended
from tune.engine.space import Space
from tune.engine.tuner_calls import Loop, Threads


def ask(number: int) -> Ask:
    return Ask(number, 0, number, "", 0, Space({}, ()), 0, 7)


class Answers:
    """What `done` was called with, in its order."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, Any]] = []
        self._more = threading.Condition()

    def done(self, found: Any, error: BaseException | None) -> None:
        with self._more:
            self.found.append((found, error))
            self._more.notify_all()

    def until(self, count: int) -> list[tuple[Any, Any]]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.found) >= count, 30)
        return self.found


def test_threads_choose_in_the_order_of_the_asks_and_then_wait() -> None:
    chosen: list[int] = []
    go = threading.Event()

    def suggest(one: Ask) -> int:
        chosen.append(one.number)
        go.wait()
        return one.number

    calls, answers = Threads(suggest), Answers()
    for number in range(30):
        calls.start(ask(number), answers.done)
        assert chosen == list(range(number + 1))  # it has chosen before the next one starts
    assert not answers.found
    go.set()
    assert sorted(found for found, _ in answers.until(30)) == list(range(30))


def test_what_a_thread_raises_is_its_answer() -> None:
    def suggest(one: Ask) -> int:
        raise SystemExit(one.number)

    answers = Answers()
    Threads(suggest).start(ask(3), answers.done)
    [(found, error)] = answers.until(1)
    assert found is None and isinstance(error, SystemExit) and error.code == 3


def test_a_thread_that_is_busy_holds_up_the_next_one_only_for_a_moment() -> None:
    over = False

    def suggest(one: Ask) -> int:
        while one.number == 0 and not over:
            pass
        return one.number

    calls, answers = Threads(suggest), Answers()
    calls.start(ask(0), answers.done)
    calls.start(ask(1), answers.done)
    assert answers.until(1) == [(1, None)]
    over = True
    assert answers.until(2)[1] == (0, None)


def test_answers_and_observations_of_threads_take_turns() -> None:
    calls, answers = Threads(lambda one: one.number), Answers()

    def action() -> None:
        calls.start(ask(1), answers.done)  # it answers, and its answer waits for this turn
        assert not answers.found

    calls.run(action)
    assert answers.until(1) == [(1, None)]


def test_coroutines_wait_for_the_ends_of_others_trials() -> None:
    async def suggest(one: Ask) -> Any:
        ended = await calls.result_of(one.number - 1, 0)
        threads.add(threading.current_thread().name)
        return ended.value

    threads: set[str] = set()
    calls, answers = Loop(suggest), Answers()
    for number in (1, 2, 2):
        calls.start(ask(number), answers.done)
    assert not answers.found
    for trial, value in ((0, 0.5), (1, 1.5)):
        fact = Ended(trial + 9, trial, 0, "completed", value)
        calls.run(lambda fact=fact: calls.observed(fact))
    assert [found for found, _ in answers.until(3)] == [0.5, 1.5, 1.5]
    calls.start(ask(1), answers.done)  # it has ended already
    assert answers.until(4)[3] == (0.5, None) and threads == {"asks"}


def test_a_coroutine_that_raises_and_an_observation_that_does() -> None:
    async def suggest(one: Ask) -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    def action() -> None:
        raise KeyError("observe")

    calls, answers = Loop(suggest), Answers()
    calls.start(ask(1), answers.done)
    [(_, error)] = answers.until(1)
    assert isinstance(error, ValueError)
    with pytest.raises(KeyError, match="observe"):
        calls.run(action)


def test_result_of_belongs_to_async_tuners() -> None:
    with pytest.raises(RuntimeError, match="concurrent = True"):
        ask(1).result_of(0)
