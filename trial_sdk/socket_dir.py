"""Where Unix sockets lie: a short private folder, since a socket's path holds 107 bytes only.

`$XDG_RUNTIME_DIR/tune/`, or a `tune-<uid>` folder in the temporary directory: mode 0700, its owner checked. Whoever
binds a socket writes its path into its lock file; clients read it there and never compute it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

MAX_PATH = 103 if sys.platform == "darwin" else 107


def socket_path(folder: Path, suffix: str) -> Path:
    """The path of the socket that serves `folder`; its own folder exists then. `suffix` is like ".k".

    `OSError` when no private folder can be had.
    """
    name = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest() + suffix
    problems: list[str] = []
    for parent in _candidates():
        path = parent / name
        if len(os.fsencode(path)) > MAX_PATH:
            problems.append(f"{path} is longer than {MAX_PATH} bytes")
            continue
        try:
            make_private(parent)
        except OSError as error:
            problems.append(str(error))
            continue
        return path
    raise OSError("no folder for sockets: " + "; ".join(problems))


def make_private(folder: Path) -> None:
    """Make `folder` and check that it is ours alone; `PermissionError` when it is somebody else's, or a link."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of this user")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def is_private(folder: Path) -> bool:
    """Whether `folder` stands already, is no link, and is ours alone."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _candidates() -> list[Path]:
    folders: list[Path] = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and is_private(Path(runtime)):
        folders.append(Path(runtime) / "tune")
    user = f"tune-{os.geteuid()}"
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if Path(parent) / user not in folders:
            folders.append(Path(parent) / user)
    return folders
