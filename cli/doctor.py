"""`tune doctor`: looks at this machine and says what could keep experiments from running well."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..engine import client, home, registry
from ..engine.blobs import Blobs
from ..engine.config import Config as Settings
from ..engine.config import Machine
from ..engine.config_load import load
from ..engine.errors import TuneError
from .machines import Config, Key, KnownHosts, PythonPath, SshConfig, chosen
from .reading import Json, printable, say, say_json, table

_LOGIND = Path("/etc/systemd/logind.conf")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Only `bad` keeps experiments from running."""

    name: str
    level: Literal["ok", "warning", "bad"]
    detail: str


def doctor(
    hosts: Annotated[
        tuple[str, ...], Parameter(help="Machines to look at instead: [user@]host[:port], or names with --config.")
    ] = (),
    *,
    config: Config = None,
    key: Key = None,
    python_path: PythonPath = None,
    known_hosts: KnownHosts = None,
    ssh_config: SshConfig = False,
    json: Json = False,
) -> int:
    """Look at this machine, or at others by SSH: versions, folders, limits. Exit code 1 when trials can't run there."""
    if hosts or config is not None:
        machines = chosen(hosts, config, key, python_path, known_hosts, ssh_config)
        settings = load(config)[0] if config is not None else None
        findings = [one for machine in machines for one in examine_host(machine, settings, several=len(machines) > 1)]
        findings += _storage(settings) if settings is not None else []
    else:
        findings = list(examine())
    bad = any(one.level == "bad" for one in findings)
    if json:
        say_json({"ok": not bad, "findings": [asdict(one) for one in findings]})
    else:
        table(("CHECK", "", "FOUND"), [(one.name, one.level, printable(one.detail)) for one in findings])
        say()
        where = "there" if hosts or config is not None else "here"
        say(f"experiments can{chr(39) + 't' if bad else ''} run {where}")
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


def examine_host(machine: Machine, settings: Settings | None = None, *, several: bool) -> Iterator[Finding]:
    """What is looked at on a machine of the platform remote, with the storage that the settings name."""
    before = f"{machine.name}: " if several else ""
    remote = registry.training_service_class("remote")
    try:
        looked: dict[str, Any] = asyncio.run(remote.examine(machine, settings))
    except TuneError as error:
        yield Finding(f"{before}ssh", "bad", f"{error.message}{f' ({error.hint})' if error.hint else ''}")
        return
    yield Finding(f"{before}ssh", "ok", f"{machine.host}, which calls itself {looked['host']}")
    yield Finding(f"{before}python", "ok", f"{'.'.join(map(str, looked['python']))} at {looked['executable']}")
    room = looked["free"] / 2**30
    yield Finding(f"{before}folder", "warning" if room < 0.5 else "ok", f"{looked['folder']}, {room:.1f} GiB free")
    if not looked["runs"]:
        yield Finding(f"{before}programs", "warning", f"none can be run from {looked['folder']}: it is mounted noexec")
    installed = looked["installed"].get("version", "")
    sdk = ", ".join(looked["sdk"])
    if looked["fits"]:
        yield Finding(f"{before}tune-engine", "ok", f"{installed} is installed")
    else:
        there = f"{installed} is installed, which does not fit; " if installed else ""
        yield Finding(f"{before}tune-engine", "ok", f"{there}{f'prepared: {sdk}' if sdk else 'put there when needed'}")
    if "storage" in looked:
        yield Finding(f"{before}shared storage", "ok", f"{looked['storage']} can be used")
    if looked["kills"]:
        yield Finding(
            f"{before}logind", "warning", "KillUserProcesses=yes: trials end with the session; loginctl enable-linger"
        )
    apart = looked["clock"] - time.time()
    if abs(apart) > 60:
        yield Finding(f"{before}clock", "warning", f"it is {apart:+.0f} s from the clock here")


def _storage(settings: Settings) -> Iterator[Finding]:
    """What is shared, as seen from this host."""
    storage = settings.shared_storage
    own = next((one for one in settings.training_services if one.platform == "local"), None)
    if storage is None or (storage.is_mounted and own is None):
        return
    try:
        if not storage.is_mounted:
            blobs = Blobs(storage)
            asyncio.run(blobs.check())
            yield Finding("shared storage", "ok", blobs.where)
            return
        problems: list[TuneError] = asyncio.run(registry.training_service_class("local").problems(own, settings))
        if problems:
            raise problems[0]
        yield Finding("shared storage", "ok", f"{storage.local_mount_point} can be used here")
    except TuneError as error:
        yield Finding("shared storage", "bad", f"{error.message}{f' ({error.hint})' if error.hint else ''}")


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
