"""`tune doctor`: looks at this machine and says what could keep experiments from running well."""

from __future__ import annotations

import os
import re
import resource
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..engine import client, home
from ..engine.errors import TuneError
from .reading import Json, printable, say, say_json, table

_LOGIND = Path("/etc/systemd/logind.conf")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Only `bad` keeps experiments from running."""

    name: str
    level: Literal["ok", "warning", "bad"]
    detail: str


def doctor(*, json: Json = False) -> int:
    """Look at this machine: versions, folders, limits. Exit code 1 when experiments can't run here."""
    findings = list(examine())
    bad = any(one.level == "bad" for one in findings)
    if json:
        say_json({"ok": not bad, "findings": [asdict(one) for one in findings]})
    else:
        table(("CHECK", "", "FOUND"), [(one.name, one.level, printable(one.detail)) for one in findings])
        say()
        say("experiments can't run here" if bad else "experiments can run here")
    return 1 if bad else 0


def examine() -> Iterator[Finding]:
    """Everything that is looked at, one by one."""
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield _sqlite()
    yield _home()
    yield _runtime()
    yield _shadow(Path.cwd())
    yield _logind(_LOGIND)
    yield _shell()
    yield _files()
    yield _control_groups()


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 38):
        return Finding("sqlite", "bad", f"{found}: 3.38 or later is needed")
    return Finding("sqlite", "ok", found)


def _home() -> Finding:
    try:
        root = home.root()
    except TuneError as error:
        return Finding("TUNE_HOME", "bad", error.message)
    there = root
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding("TUNE_HOME", "bad", f"{root} can't be written")
    free = os.statvfs(there)
    room = free.f_bavail * free.f_frsize / 2**30
    kind = home.network_file_system(root)
    if kind is not None:
        return Finding(
            "TUNE_HOME",
            "warning",
            f"{root} is on a network file system ({kind}): logs will lie in /var/tmp of this host, "
            "and only this host can resume them",
        )
    return Finding("TUNE_HOME", "warning" if room < 0.5 else "ok", f"{root}, {room:.1f} GiB free")


def _runtime() -> Finding:
    name = "XDG_RUNTIME_DIR"
    given = os.environ.get(name)
    if not given:
        return Finding(name, "ok", f"not set: sockets lie in {tempfile.gettempdir()}/tune-{os.getuid()}")
    path = Path(given)
    if not path.is_dir() or not os.access(path, os.W_OK):
        return Finding(name, "warning", f"{given} can't be written: sockets lie in {tempfile.gettempdir()}")
    return Finding(name, "ok", given)


def _shadow(folder: Path) -> Finding:
    ours = Path(__file__).resolve().parent.parent
    for path in (folder / "tune", folder / "tune.py"):
        package = path.suffix == ".py" or (path / "__init__.py").exists() or any(path.glob("*.py"))
        if path.exists() and package and path.resolve() != ours:
            return Finding("import tune", "warning", f"{path} hides this package from scripts in {folder}: rename it")
    return Finding("import tune", "ok", str(ours))


def _logind(main: Path) -> Finding:
    """logind may kill everything that a user leaves behind at logout; then engines end with the session."""
    value = "no"
    for path in [main, *sorted(main.with_name(main.name + ".d").glob("*.conf"))]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for match in re.finditer(r"^\s*KillUserProcesses\s*=\s*(\S+)", text, re.MULTILINE):
            value = match[1].lower()
    if value in ("yes", "true", "1", "on"):
        return Finding(
            "logind", "warning", "KillUserProcesses=yes: engines end when you log out; loginctl enable-linger helps"
        )
    return Finding("logind", "ok", "processes may outlive a login")


def _shell() -> Finding:
    if not os.access("/bin/sh", os.X_OK):
        return Finding("/bin/sh", "bad", "it is missing, and trials are started by it")
    return Finding("/bin/sh", "ok", os.path.realpath("/bin/sh"))


def _files() -> Finding:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    said = ", ".join(
        f"{'unlimited' if limit == resource.RLIM_INFINITY else limit} {word}"
        for limit, word in ((files, "open files"), (processes, "processes"))
    )
    few = files != resource.RLIM_INFINITY and files < 512
    return Finding("limits", "warning" if few else "ok", said + (": few for many trials at once" if few else ""))


def _control_groups() -> Finding:
    there, detail = client.control_groups(Path.cwd())
    return Finding("control groups", "ok" if there else "warning", detail)
