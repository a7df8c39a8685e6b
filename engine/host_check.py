"""The hosts of a config, from outside of an engine: whether they can be used, and what is left there afterwards."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from . import registry
from .blobs import Blobs
from .config import Config, TrainingService
from .errors import TuneError

T = TypeVar("T")
Check = Callable[[TrainingService, Config], Awaitable[list[TuneError]]]
Clear = Callable[[TrainingService, str], Awaitable[list[str]]]


def check_hosts(config: Config) -> list[str]:
    """Notes on the hosts that can't be used now; `TuneError` when none can.

    A training service may have `async problems(own, config)`: an error for each of its hosts that can't be used.
    """
    problems: list[TuneError] = []
    able = 0
    storage = config.shared_storage
    if storage is not None and not storage.is_mounted:
        _run(Blobs(storage).check)
    for own in config.training_services:
        kind = registry.training_service_class(own.platform)
        check: Check | None = getattr(kind, "problems", None)
        if check is None:
            able += 1
            continue
        found = _run(functools.partial(check, own, config))
        able += max(len(own.machine_list), 1) - len(found)
        problems += found
    if problems and not able:
        first = problems[0]
        others = [error.message for error in problems[1:]]
        raise TuneError("\n".join([first.message, *others]), first.hint)
    return [f"{error.message}; the other hosts are used meanwhile" for error in problems]


def clear_hosts_of(config: Config, experiment: str) -> list[str]:
    """Remove what an experiment left on its hosts: the folders. `TuneError` as soon as one can't be cleared.

    A training service whose hosts keep something has `async clear(own, experiment)`, which does it for all of them.
    """
    found: list[str] = []
    for own in config.training_services:
        clear: Clear | None = getattr(registry.training_service_class(own.platform), "clear", None)
        if clear is not None:
            found += _run(functools.partial(clear, own, experiment))
    return found


def _run(work: Callable[[], Awaitable[T]]) -> T:
    """In a thread of its own: the caller may be in an event loop, in a notebook say."""

    async def main() -> T:
        return await work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main()).result()
