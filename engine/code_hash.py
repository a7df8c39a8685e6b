"""The hash of a trial's code directory, so that trials 1 and 900 don't silently run different code.

Contents are hashed once and again only when a file's size or time has changed; a look at an unchanged directory costs
one `stat` a file. Hidden files, caches and everything beyond the first 2,000 files or 64 MiB are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

MAX_FILES = 2000
MAX_BYTES = 64 << 20
_SKIP = {"__pycache__", "node_modules", "build", "dist", "data"}
_AGAIN = 1.0  # seconds in which one look serves all launches


class CodeHash:
    """The hash of one directory, now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._looked = -_AGAIN
        self._hash = ""
        self._files: dict[str, tuple[int, int, bytes]] = {}

    def now(self) -> str:
        """16 hex digits; "" when the directory can't be read."""
        moment = time.monotonic()
        if moment - self._looked >= _AGAIN:
            self._looked = moment
            self._hash = self._look()
        return self._hash

    def _look(self) -> str:
        files: dict[str, tuple[int, int, bytes]] = {}
        room = MAX_BYTES
        for folder, folders, names in os.walk(self._directory):
            folders[:] = sorted(name for name in folders if name not in _SKIP and not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or name.endswith(".pyc"):
                    continue
                path = os.path.join(folder, name)  # noqa: PTH118 - a hot loop over strings
                with contextlib.suppress(OSError):
                    found = os.stat(path)  # noqa: PTH116
                    room -= found.st_size
                    if room < 0 or len(files) >= MAX_FILES:
                        return self._digest(files)
                    known = self._files.get(path)
                    if known is not None and known[:2] == (found.st_size, found.st_mtime_ns):
                        files[path] = known
                    else:
                        content = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
                        files[path] = (found.st_size, found.st_mtime_ns, content)
        return self._digest(files)

    def _digest(self, files: dict[str, tuple[int, int, bytes]]) -> str:
        self._files = files
        whole = hashlib.blake2b(digest_size=8)
        for path, (_, _, content) in files.items():
            whole.update(os.path.relpath(path, self._directory).encode("utf-8", "surrogateescape") + b"\0" + content)
        return whole.hexdigest() if files else ""
