"""Secrets, which a config only refers to: "env:NAME" or "file:PATH", read when they are needed and kept nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import TuneError


def secret(reference: str, owner: str) -> str:
    """What a reference leads to. `TuneError` where there is nothing; `owner` says whose it is."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise TuneError(f"{owner}: the environment has no variable {name}", f"export {name}=...")
        return value
    try:
        return Path(name).expanduser().read_text(encoding="utf-8").rstrip("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TuneError(f"{owner}: {reference} can't be read: {reason}") from error
