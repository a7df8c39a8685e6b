"""Waiting that ends: for a condition, for a process to be gone."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from lab.errors import LabError

PATIENCE = 20.0  # seconds until something that must happen counts as not happening


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Look again and again until it is so; LabError when it is not within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {patience:g} s in vain for {what}")
        time.sleep(0.003)


def until_gone(pid: int, patience: float = PATIENCE) -> None:
    """Wait until a process has ended, ours or not; it may still be a zombie."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], patience)
    finally:
        os.close(descriptor)
    if not ready:
        raise LabError(f"waited {patience:g} s in vain for process {pid} to end")
