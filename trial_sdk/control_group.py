"""Control groups: the kernel's own list of a launch's processes, which none of them can leave by forking.

Where this user may make control groups, each launch gets one. The waiter's inner shell joins it before it runs the
command, so everything that the trial ever starts is in it: also what has left its session and cleared its environment,
over any number of keepers' deaths. To end it is to freeze the group, so that nobody forks, to kill who is in there, and
to let go; again until nobody is left.

    v2       the one hierarchy of cgroup v2, by threaded groups
    freezer  the freezer of cgroup v1
    none     no groups: process_tree.py sweeps the process table

The first that works is taken; TUNE_CONTROL_GROUPS=NAME in the environment takes that one or none. The groups lie in the
group that the keeper is in (its user owns it, or is root): `tune-<hash of the experiment's folder>/<trial>.<attempt>`.
Nothing but the launch's `owner` file and the kernel holds them, and nothing in here is needed: a group that can't be
made or joined is done without.

A move to a group costs 10 to 20 ms (a grace period of the kernel's), but for a thread that moves itself and nobody
else: 0.1 ms. In v2 a thread may do so inside a threaded subtree only, hence these; they have no cgroup.kill, and list
threads, not processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from msgspec import Struct

VARIABLE = "TUNE_CONTROL_GROUPS"
NONE = "none"
PATIENCE = 10  # looks at a group that does not freeze, until those that were killed may run to their end


class Way(Struct, frozen=True):
    """A kind of control group: where it is mounted, and how it is spelled."""

    name: str
    mount: str  # the type of file system
    controller: str  # "" for v2, which has one hierarchy for all
    threads: str  # the file that lists threads, and takes in the one that writes 0 to it
    switch: str  # the file that freezes
    words: tuple[str, str]  # what is written there: to freeze, to let go
    state: tuple[str, str]  # the file that tells of it, and the line in it that says "all are frozen"


WAYS = (
    Way("v2", "cgroup2", "", "cgroup.threads", "cgroup.freeze", ("1", "0"), ("cgroup.events", "frozen 1")),
    Way("freezer", "cgroup", "freezer", "tasks", "freezer.state", ("FROZEN", "THAWED"), ("freezer.state", "FROZEN")),
)


class Group:
    """One control group, with the groups below it: a directory of the kernel's."""

    def __init__(self, path: Path, way: Way | None = None) -> None:
        self.path = path
        self.way = way or next((way for way in WAYS if (path / way.switch).exists()), WAYS[0])
        self._looks = 0

    @property
    def join(self) -> Path:
        """The file to which a thread writes 0 in order to be in there, and all that it starts from then on."""
        return self.path / self.way.threads

    def threads(self) -> set[int]:
        """The threads in there now; those of zombies and of other pid namespaces are not."""
        found: set[int] = set()
        for folder in self._folders():
            found.update(map(int, _text(Path(folder, self.way.threads)).split()))
        return found - {0}

    def pids(self) -> set[int]:
        """The processes of these threads."""
        return {pid for thread in self.threads() if (pid := _process_of(thread))}

    def freeze(self) -> None:
        """Let nobody in there run; the kernel takes a moment for it."""
        self._switch(self.way.words[0])
        file, line = self.way.state
        whole = line in _text(self.path / file).splitlines()
        self._looks = PATIENCE if whole else self._looks + 1

    def let_go(self, *, at_once: bool = False) -> None:
        """After a freeze and a kill: let them run, if all were frozen, or if that takes too long."""
        if at_once or self._looks >= PATIENCE:
            self._looks = 0
            self._switch(self.way.words[1])

    def remove(self) -> None:
        """Remove the group and those below it, as far as nobody is in there."""
        with contextlib.suppress(OSError):  # the common case: nobody, and nothing below
            self.path.rmdir()
            return
        for folder in reversed(self._folders()):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()

    def _folders(self) -> list[str]:
        return [folder for folder, _, _ in os.walk(self.path)]

    def _switch(self, word: str) -> None:
        with contextlib.suppress(OSError):  # the group has gone
            (self.path / self.way.switch).write_text(word)


class Groups:
    """The control groups of one experiment's launches on this host."""

    def __init__(self, parent: Path, way: Way) -> None:
        self.parent, self.way = parent, way

    def make(self, trial: str, attempt: int) -> Group:
        """A launch's new group. `OSError`."""
        path = self.parent / _name(trial, attempt)
        if not self.parent.exists():  # the first one
            _make(self.parent, self.way)
        with contextlib.suppress(FileExistsError):  # somebody has deleted the launch's folder
            _make(path, self.way)
        return Group(path, self.way)


def found(recorded: str, folder: Path, trial: str, attempt: int) -> Group | None:
    """A launch's group where its `owner` file says that it is; None when that is not its group, or has gone."""
    path = Path(recorded)
    if not recorded or path.name != _name(trial, attempt) or path.parent.name != parent_name(folder):
        return None
    return Group(path) if path.is_dir() else None


def choose(folder: Path, wanted: str | None = None) -> Groups | str:
    """The groups for the experiment in `folder`, by the first way that works; in words why there are none.

    `wanted` is the way to take, "none" for none, "" for the first; None: what the environment says.
    """
    if wanted is None:
        wanted = os.environ.get(VARIABLE, "")
    if wanted == NONE:
        return "they are switched off"
    ways = [way for way in WAYS if wanted in ("", way.name)]
    if not ways:
        return f"{VARIABLE}={wanted}, allowed are {', '.join(way.name for way in WAYS)} and {NONE}"
    reasons: list[str] = []
    for way in ways:
        here = _here(way)
        reason = "not mounted, or not for this process" if here is None else _closed(here, way)
        if here is not None and not reason:
            return Groups(here / parent_name(folder), way)
        reasons.append(f"{way.name}: {reason}")
    return "; ".join(reasons)


def told(groups: Groups | str) -> str:
    """What `choose` found, for people."""
    if isinstance(groups, str):
        return f"none ({groups}): a stop sweeps the process table, and a daemon may outlive its keeper's death"
    return f"{groups.way.name}, at {groups.parent.parent}: a stop freezes what a trial has started, and kills it"


def parent_name(folder: Path) -> str:
    """The name of an experiment's own group."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    text = f"{namespace} {folder}"
    return "tune-" + hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()


def _name(trial: str, attempt: int) -> str:
    return f"{trial}.{attempt}"


def _here(way: Way) -> Path | None:
    """The directory of the group that this process is in; None when the hierarchy is not mounted where it sees it."""
    own = ""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, controllers, path = line.split(":", 2)
        if way.controller in controllers.split(",") and (way.controller or number == "0"):
            own = path
    if not own.startswith("/") or own.startswith("/.."):
        return None
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        words, _, kind = line.partition(" - ")
        root, point = (_unescaped(word) for word in words.split()[3:5])
        kinds = kind.split()
        if kinds[0] != way.mount or (way.controller and way.controller not in kinds[2].split(",")):
            continue
        if own == root or own.startswith(root.rstrip("/") + "/"):
            return Path(point) / own[len(root.rstrip("/")) :].lstrip("/")
    return None


def _closed(here: Path, way: Way) -> str:
    """Why no groups can be made in a directory, tried out; "" when they can."""
    if not os.access(here, os.W_OK | os.X_OK) or not os.access(here / "cgroup.procs", os.W_OK):
        return f"{here} can't be written"
    attempt = here / f"tune-{os.getpid()}"
    try:
        _make(attempt, way)
        return "" if (attempt / way.switch).exists() else f"{here} can't freeze (Linux can from 5.2 on)"
    except OSError as error:
        return f"{here}: {error.strerror}"
    finally:
        with contextlib.suppress(OSError):
            attempt.rmdir()


def _make(path: Path, way: Way) -> None:
    path.mkdir()
    if not way.controller:
        (path / "cgroup.type").write_text("threaded")


def _process_of(thread: int) -> int:
    """The process of a thread; 0 when it has gone."""
    for line in _text(Path(f"/proc/{thread}/status")).splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return 0


def _unescaped(word: str) -> str:
    for code in ("040", "011", "012", "134"):
        word = word.replace("\\" + code, chr(int(code, 8)))
    return word


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
