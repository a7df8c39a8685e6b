"""Where experiments live: `$TUNE_HOME`, each experiment's folder, its id, and how an id that is typed is found.

An experiment's folder is `$TUNE_HOME/<id>/`. On a network file system the log and the locks can't lie there (SQLite's
WAL needs shared memory, flock may be a no-op): they lie in `/var/tmp/tune-<user>/<id>/` of one host, and
`pointer.json` in the folder names host and path.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import secrets
import shutil
import socket
import stat
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import TuneError, UsageError
from .lock import peek

_LETTERS = string.ascii_lowercase
_ALPHABET = _LETTERS + string.digits
_GIVEN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "webdav"}
    | {"lustre", "gpfs", "beegfs", "ceph", "glusterfs", "pvfs2", "orangefs", "ocfs2", "gfs2", "panfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.davfs", "fuse.s3fs", "fuse.rclone"}
    | {"fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.juicefs", "fuse.nfs", "fuse.smb", "fuse.cifs"}
)
MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True, slots=True)
class Folder:
    """One experiment's files. `path` is its folder; `data` holds log and locks (`path`, but for a network one)."""

    id: str
    path: Path
    data: Path
    log_name: str = "events.db"

    @property
    def events(self) -> Path:
        """The log, an SQLite file."""
        return self.data / self.log_name

    @property
    def head(self) -> Path:
        """Number and chain of the last event, so that a cut log is found."""
        return self.data / "events.head"

    @property
    def lock(self) -> Path:
        """Held (flock) by the engine; tells its pid, host and socket."""
        return self.data / "lock"

    @property
    def keeper_lock(self) -> Path:
        """Held (flock) by the keeper of this host; tells its socket."""
        return self.data / "keeper.lock"

    @property
    def engine_log(self) -> Path:
        """What the engine says, as JSON lines."""
        return self.path / "engine.log"

    @property
    def config(self) -> Path:
        """The resolved config, for people; the log decides."""
        return self.path / "config.json"

    @property
    def trials(self) -> Path:
        """One folder a trial, with one folder an attempt."""
        return self.path / "trials"


def root() -> Path:
    """`$TUNE_HOME`, absolute; by default `~/tune-experiments`. It may not exist yet."""
    given = os.environ.get("TUNE_HOME", "")
    try:
        return (Path(given).expanduser() if given else Path.home() / "tune-experiments").absolute()
    except RuntimeError as error:
        raise UsageError(f"$TUNE_HOME {given or '~'} can't be found: {error}", "Set TUNE_HOME.") from error


# -- ids --------------------------------------------------------------------------------------------------------------
def new_id(length: int = 8, taken: Callable[[str], bool] | None = None) -> str:
    """A made id: `length` of a-z0-9, first a letter (8 for an experiment, 5 for a trial), not `taken`."""
    while True:
        made = secrets.choice(_LETTERS) + "".join(secrets.choice(_ALPHABET) for _ in range(length - 1))
        if taken is None or not taken(made):
            return made


def check_id(text: str) -> str:
    """An id given by a person, unchanged; `UsageError` unless it is 1 to 64 of `A-Za-z0-9_-`, not starting with `-`."""
    if not _GIVEN_ID.fullmatch(text):
        raise UsageError(f"{text!r} is no experiment id", "Allowed: 1 to 64 of A-Z a-z 0-9 _ -, not starting with -.")
    return text


# -- making and removing a folder -------------------------------------------------------------------------------------
def create(given: str | None = None) -> tuple[Folder, list[str]]:
    """A new experiment's folder (0700, still without a log), with the id `given` or a made one, and notes to be said.

    `UsageError` when the id is taken or `$TUNE_HOME` can't be written; then nothing is left behind.
    """
    home = root()
    if given is not None:
        check_id(given)
        if os.path.lexists(home / given):
            raise UsageError(
                f"the experiment id {given!r} is taken: {home / given}",
                f"Choose another --id, or remove it with: tune delete {given}",
            )
    name = given or new_id(taken=lambda made: os.path.lexists(home / made))
    path, made = home / name, [parent for parent in (home, *home.parents) if not parent.exists()]
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError as error:
        _remove_empty(made)
        if not home.is_dir():
            raise UsageError(f"$TUNE_HOME {home} is no folder", "Point TUNE_HOME to a folder.") from error
        raise UsageError(f"the experiment id {name!r} is taken: {path}", "Choose another --id.") from error
    except OSError as error:
        _remove_empty(made)
        raise UsageError(
            f"$TUNE_HOME {home} can't be written: {error.strerror}", "Point TUNE_HOME to a folder of yours."
        ) from error
    folder, notes = Folder(name, path, path), list[str]()
    kind = network_file_system(path)
    if kind is not None and network_file_system(_local_root()) is None:
        try:
            data = _local_root() / name
            _private(data.parent)
            data.mkdir(mode=0o700)
            pointer = json.dumps({"host": socket.gethostname(), "path": str(data)})
            (path / "pointer.json").write_text(pointer + "\n", encoding="utf-8")
        except OSError as error:
            remove(folder)
            _remove_empty(made)
            raise UsageError(f"{_local_root()} can't be written: {error.strerror}") from error
        folder = Folder(name, path, data)
        notes.append(f"$TUNE_HOME is on a network file system ({kind}): the log lies in {data} on this host")
    return folder, notes


def remove(folder: Folder) -> None:
    """Take an experiment's files away, also the local ones of a network home. The caller knows that none runs."""
    if folder.data != folder.path:
        shutil.rmtree(folder.data, ignore_errors=True)
    shutil.rmtree(folder.path)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # innermost first, as they were listed
        with contextlib.suppress(OSError):
            folder.rmdir()


def _local_root() -> Path:
    return Path("/var/tmp") / f"tune-{getpass.getuser()}"


def _private(folder: Path) -> None:
    """Make a folder in a place that everybody can write, or see that it is ours alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(1, "it is not a private folder of yours", str(folder))


# -- finding one ------------------------------------------------------------------------------------------------------
def experiments() -> list[Folder]:
    """All experiments in `$TUNE_HOME`, newest first (by when their folder was made); those of other hosts included."""
    found: list[tuple[int, str]] = []
    home = root()
    try:
        entries = list(os.scandir(home))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"$TUNE_HOME {home} can't be read: {error.strerror}") from error
    for entry in entries:
        path = Path(entry.path)
        if _GIVEN_ID.fullmatch(entry.name) and ((path / "events.db").exists() or (path / "pointer.json").exists()):
            found.append((_made_at(path), entry.name))
    return [_folder(home / name, name, anywhere=True) for _, name in sorted(found, key=lambda x: (-x[0], x[1]))]


def find(ref: str | None = None, *, running_only: bool = False) -> Folder:
    """The experiment that `ref` names: an id, a unique beginning of one, or the path of an `events.db` or its folder.

    None: see `pick`. `UsageError` for an unknown or ambiguous one, `TuneError` when its log lies on another host.
    """
    if ref is None:
        return pick(running_only=running_only)
    home = root()
    path = Path(ref).expanduser()
    if _GIVEN_ID.fullmatch(ref) and _is_experiment(home / ref):
        return _folder(home / ref, ref)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(16) not in (b"SQLite format 3\0", b""):
                raise UsageError(f"{ref} is no log of an experiment", "Name an id, an events.db or its folder.")
        whole = path.resolve()
        return Folder(whole.parent.name, whole.parent, whole.parent, whole.name)
    if ref and path.is_dir() and _is_experiment(path):
        whole = path.resolve()
        return _folder(whole, whole.name)
    names = [folder.id for folder in experiments()]
    matching = [name for name in names if ref and name.startswith(ref)]
    if len(matching) == 1:
        return _folder(home / matching[0], matching[0])
    if matching:
        raise UsageError(
            f"{ref!r} is the beginning of several ids: {', '.join(sorted(matching)[:8])}", "Type more of it."
        )
    raise UsageError(f"there is no experiment {ref!r} in {home}", "See them all with: tune list")


def at(path: Path) -> Folder:
    """The experiment in a folder that is known, also while it has no log yet; `TuneError` as in `find`."""
    whole = path.absolute()
    return _folder(whole, whole.name)


def pick(*, running_only: bool = False) -> Folder:
    """The experiment that is meant when no id is given: the only running one, else the newest.

    `running_only` (stop): exactly one must run. `UsageError` when there is none to pick.
    """
    everything = experiments()
    running = [folder for folder in everything if is_running(folder)]
    if len(running) == 1:
        return _folder(running[0].path, running[0].id)
    if running_only:
        if not running:
            raise UsageError("no experiment runs", "See them all with: tune list")
        raise UsageError(
            f"several experiments run: {', '.join(folder.id for folder in running)}", "Say which one: name its id."
        )
    if not everything:
        raise UsageError(f"there is no experiment in {root()}", "Start one with: tune create CONFIG")
    return _folder(everything[0].path, everything[0].id)


def is_running(folder: Folder) -> bool:
    """Whether an engine holds the experiment's lock (on this host; a lock elsewhere can't be seen).

    The look takes a shared lock for an instant: who takes the lock for an engine tries more than once.
    """
    try:
        return peek(folder.lock) is not None
    except OSError:
        return False


def _made_at(path: Path) -> int:
    # config.json is written once, at create; a folder's own time changes with every file in it
    for name in ("config.json", "pointer.json", "events.db"):
        with contextlib.suppress(OSError):
            return (path / name).stat().st_mtime_ns
    return 0


def _is_experiment(path: Path) -> bool:
    return (path / "events.db").is_file() or (path / "pointer.json").is_file()


def _folder(path: Path, name: str, *, anywhere: bool = False) -> Folder:
    pointer = path / "pointer.json"
    if not pointer.is_file():
        return Folder(name, path, path)
    try:
        said = json.loads(pointer.read_text(encoding="utf-8"))
        host, data = str(said["host"]), Path(str(said["path"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if anywhere:
            return Folder(name, path, path)
        raise TuneError(f"{pointer} can't be read: {error}") from error
    if host != socket.gethostname() and not anywhere:
        raise TuneError(f"the log of experiment {name} lies on host {host} in {data}", f"Do this on {host}.")
    return Folder(name, path, data)


# -- network file systems ---------------------------------------------------------------------------------------------
def network_file_system(path: Path) -> str | None:
    """The kind of network file system that `path` (or its nearest existing parent) lies on, e.g. "nfs4"; None: local.

    Read from the mount table; where there is none (macOS), None.
    """
    try:
        table = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    while not path.exists() and path != path.parent:
        path = path.parent
    whole, best, kind = os.path.realpath(path), "", ""
    for line in table.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[1])
        inside = whole == point or whole.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later line covers an earlier one
            best, kind = point, words[2]
    return kind if kind in _NETWORK else None
