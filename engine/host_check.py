"""Whether the hosts of a config can be used, tried before an experiment is started: what is wrong is said at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from . import registry
from .config import Config, TrainingService
from .errors import TuneError

Check = Callable[[TrainingService], Awaitable[list[TuneError]]]


def check_hosts(config: Config) -> list[str]:
    """Notes on the hosts that can't be used now; `TuneError` when none can.

    A training service may have `async problems(own)`: an error for each of its hosts that can't be used.
    """
    problems: list[TuneError] = []
    able = 0
    for own in config.training_services:
        kind = registry.training_service_class(own.platform)
        check: Check | None = getattr(kind, "problems", None)
        if check is None:
            able += 1
            continue
        found = _run(check, own)
        able += len(own.machine_list) - len(found)
        problems += found
    if problems and not able:
        first = problems[0]
        others = [error.message for error in problems[1:]]
        raise TuneError("\n".join([first.message, *others]), first.hint)
    return [f"{error.message}; the other hosts are used meanwhile" for error in problems]


def _run(check: Check, own: TrainingService) -> list[TuneError]:
    """In a thread of its own: the caller may be in an event loop, in a notebook say."""

    async def main() -> list[TuneError]:
        return await check(own)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main()).result()
