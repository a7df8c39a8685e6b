"""The files that the portal reads and writes: the page's own, what trials wrote, and notes.

Who can write into an experiment's folder can put links there; none is followed, so nothing else is ever shown.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.home import Folder
from .shapes import MAX_NOTES

STATIC = Path(__file__).parent / "static"
_NOTES = "notes.md"


def own_names() -> frozenset[str]:
    """The files of the page."""
    return frozenset(entry.name for entry in os.scandir(STATIC) if entry.is_file())


def plotly() -> Path | None:
    """The script of the installed Plotly; None without one."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def piece(folder: Path, parts: Sequence[str], offset: int, limit: int) -> dict[str, Any]:
    """A piece of a file below a folder, at most `limit` bytes from `offset` on (negative: from its end).

    Nothing of one that is not there, or that is no plain file of ours.
    """
    try:
        descriptor = _unlinked(folder, parts)
    except OSError:
        return {"offset": 0, "size": 0, "next": 0, "text": ""}
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        start = max(size + offset, 0) if offset < 0 else min(offset, size)
        file.seek(start)
        data = file.read(limit)
    return {"offset": start, "size": size, "next": start + len(data), "text": data.decode("utf-8", "replace")}


def notes(folder: Folder) -> str:
    """What people wrote down about an experiment; "" when they did not."""
    try:
        with os.fdopen(_unlinked(folder.path, (_NOTES,)), "rb") as file:
            return file.read(4 * MAX_NOTES).decode("utf-8", "replace")[:MAX_NOTES]
    except OSError:
        return ""


def write_notes(folder: Folder, text: str) -> None:
    """Put a text in place of the notes; `OSError`."""
    path = folder.path / f"{_NOTES}.new"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
    path.replace(folder.path / _NOTES)


def _unlinked(folder: Path, parts: Sequence[str]) -> int:
    """A file below a folder, opened to read; OSError where a link lies on the way, or where it is no plain file."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for index, part in enumerate(parts):
        flags = os.O_NONBLOCK if index == len(parts) - 1 else os.O_DIRECTORY
        try:
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=here)
        finally:
            os.close(here)
        here = below
    if not stat.S_ISREG(os.fstat(here).st_mode):
        os.close(here)
        raise OSError(errno.EINVAL, "no plain file")
    return here
