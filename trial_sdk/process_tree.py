"""The process tree of one launch: who belongs to it, and signals that never hit anybody else.

On Linux, the launch's control group says it, where there is one (control_group.py), and /proc: a process belongs to a
launch when it is in the trial's process group or session, descends from the waiter or the inner shell, carries the
launch's folder in its environment (TUNE_LAUNCH_DIR), or was seen so before.
A pid is always held together with its start time, and a signal goes through a pidfd, so a recycled pid is never
signalled; nor is the keeper itself or any ancestor of it. Elsewhere the process group is all there is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from .control_group import Group

PROC = Path("/proc/self/stat").exists()
MARK = b"TUNE_LAUNCH_DIR="


class Process(Struct, frozen=True):
    """One line of the process table; `start` in clock ticks since boot."""

    pid: int
    parent: int
    group: int
    session: int
    start: int
    state: str


def read(pid: int) -> Process | None:
    """The process of this pid, None when there is none (or no /proc)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        stat = os.read(fd, 4096)
    except OSError:  # gone meanwhile
        return None
    finally:
        os.close(fd)
    words = stat[stat.rindex(b")") + 2 :].split()  # the name in parentheses may hold anything
    return Process(pid, int(words[1]), int(words[2]), int(words[3]), int(words[19]), words[0].decode())


def table() -> dict[int, Process]:
    """All processes that live (zombies don't)."""
    found: dict[int, Process] = {}
    if PROC:
        for name in os.listdir("/proc"):  # noqa: PTH208 -- only names are wanted
            if name.isdigit() and (process := read(int(name))) is not None and process.state not in "ZX":
                found[process.pid] = process
    return found


def launch_dir(pid: int) -> bytes | None:
    """The launch folder in a process's environment; None when there is none, or it is somebody else's process."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = b""
        while part := os.read(fd, 1 << 16):
            data += part
            if len(data) > 1 << 22:
                break
    except OSError:
        return None
    finally:
        os.close(fd)
    at = 0 if data.startswith(MARK) else data.find(b"\0" + MARK) + 1
    if not data.startswith(MARK) and at == 0:
        return None
    end = data.find(b"\0", at)
    return data[at + len(MARK) : end if end >= 0 else len(data)]


def relatives() -> set[int]:
    """The own pid and those of all ancestors: never to be signalled."""
    found = {os.getpid(), 0, 1}
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        process = read(pid)
        pid = process.parent if process is not None else 0
    return found


def descendants(roots: set[int], processes: dict[int, Process]) -> set[int]:
    """The pids below `roots`, without them."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    stack = list(roots)
    while stack:
        for child in children.get(stack.pop(), ()):
            if child not in found:
                found.add(child)
                stack.append(child)
    return found


def send(process: Process, number: int) -> None:
    """Signal exactly this process; nothing happens when it is gone or may not be signalled."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = read(process.pid)  # the pidfd is open: whoever this is can't become another one now
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(fd, number)
    except OSError:
        return
    finally:
        os.close(fd)


class Processes:
    """The machine's processes, as a tree asks for them. Here the real ones; a simulation has others."""

    def read(self, pid: int) -> Process | None:
        """The process of this pid."""
        return read(pid)

    def table(self) -> dict[int, Process]:
        """All processes that live."""
        return table()

    def launch_dir(self, pid: int) -> bytes | None:
        """The launch folder in a process's environment."""
        return launch_dir(pid)

    def relatives(self) -> set[int]:
        """Who is never to be signalled."""
        return relatives()

    def send(self, process: Process, number: int) -> None:
        """Signal exactly this process."""
        send(process, number)

    def send_group(self, group: int, number: int) -> None:
        """Signal a process group; `ProcessLookupError`, `PermissionError`."""
        os.killpg(group, number)

    def me(self) -> int:
        """The keeper's own pid."""
        return os.getpid()


REAL = Processes()


class Tree:
    """One launch's processes. `leader` is the inner shell (pid and start ticks), None while it is not known."""

    def __init__(self, folder: bytes, processes: Processes = REAL) -> None:
        self._folder = folder
        self._processes = processes
        self._seen: dict[int, Process] = {}
        self.leader: tuple[int, int] | None = None
        self.waiter: Process | None = None
        self.group: Group | None = None  # the control group that all of it was born into
        self.watched = False  # its waiter's end was seen as it came: the group's number can't be another's yet

    def lead(self) -> bool:
        """Whether the process group is still the trial's: its leader is there (dead or alive), or others of it are."""
        if self.leader is None:
            return False
        pid, start = self.leader
        if not start:
            return True  # no /proc: the number is all there is
        process = self._processes.read(pid)
        return process is None or process.start == start

    def group_lives(self) -> bool:
        """Whether anybody is left in the trial's process group. One system call in the common case that nobody is."""
        if self.leader is None:
            return False
        try:
            self._processes.send_group(self.leader[0], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return self.lead() and not PROC
        if not PROC:
            return True
        return any(process.group == self.leader[0] for process in self.members(group_only=True))

    def grouped(self) -> list[Process]:
        """Who lives in the launch's control group, if it has one; also a process whose first thread has ended."""
        if self.group is None or not self.group.threads():
            return []
        lines = [self._processes.read(pid) for pid in self.group.pids() - self._processes.relatives()]
        still = self.group.pids()  # a pid that was another's when its line was read is not in there any more
        return [line for line in lines if line is not None and line.pid in still]

    def members(self, *, group_only: bool = False) -> list[Process]:
        """Who lives of this launch now, the waiter and the keeper's own line left out."""
        processes = self._processes.table()
        found: dict[int, Process] = {}
        if self.leader is not None and self.lead():
            pid = self.leader[0]
            # Without its leader, a group is known by its environment, unless its end is only just past.
            alone = pid not in processes and not self.watched
            for process in processes.values():
                if process.group != pid and (process.session != pid or group_only):
                    continue
                if not alone or self._known(process) or self._processes.launch_dir(process.pid) == self._folder:
                    found[process.pid] = process
        if not group_only:
            roots = set(found)
            if self.waiter is not None and self._same(self.waiter, processes):
                roots.add(self.waiter.pid)
            roots |= {process.pid for process in processes.values() if self._known(process)}
            roots |= {pid for pid in processes if self._processes.launch_dir(pid) == self._folder}
            grouped = {process.pid: process for process in self.grouped()}
            processes = {**grouped, **processes}
            roots |= grouped.keys()
            for pid in roots | descendants(roots, processes):
                found[pid] = processes[pid]
        spared = self._processes.relatives()
        if self.waiter is not None and self._same(self.waiter, processes):
            # The waiter's session: itself, and what it runs to write `exit`.
            spared |= {pid for pid, process in processes.items() if process.session == self.waiter.pid}
        living = [process for process in found.values() if process.pid not in spared]
        if not group_only:
            self._seen = {process.pid: process for process in living}
        return living

    def signal(self, number: int, known: set[tuple[int, int]] | None = None) -> list[Process]:
        """Signal the whole tree, and say who it was; those in `known` (pid, start) are spared.

        Nobody of the control group runs while it is killed, so a chain of forks can't outrun that.
        """
        if number != signal.SIGKILL or self.group is None:
            return self._signal(number, known or set())
        self.group.freeze()
        living = self._signal(number, set())
        self.group.let_go()
        return living

    def _signal(self, number: int, spared: set[tuple[int, int]]) -> list[Process]:
        living = self.members()  # before any signal: an orphan is not seen to descend from anybody
        hit = 0
        if self.leader is not None and not spared and self.lead() and (not PROC or self._leads(living)):
            try:
                self._processes.send_group(self.leader[0], number)  # at once: a group that forks can't outrun it
                hit = self.leader[0]
            except (ProcessLookupError, PermissionError):
                pass
        for process in living:
            if process.group != hit and (process.pid, process.start) not in spared:
                self._processes.send(process, number)
        return living

    def _leads(self, living: list[Process]) -> bool:
        return self.leader is not None and any((process.pid, process.start) == self.leader for process in living)

    def _known(self, process: Process) -> bool:
        seen = self._seen.get(process.pid)
        return seen is not None and seen.start == process.start

    @staticmethod
    def _same(process: Process, processes: dict[int, Process]) -> bool:
        now = processes.get(process.pid)
        return now is not None and now.start == process.start


def below(folder: bytes, groups: Iterable[Group] = (), processes: Processes = REAL) -> list[Process]:
    """Every process whose launch folder lies below `folder`, that is in one of the groups or descends from this one."""
    living = processes.table()
    spared = processes.relatives()
    mine = descendants({processes.me()}, living).union(*(group.pids() for group in groups))
    return [
        process
        for pid, process in living.items()
        if pid not in spared and (pid in mine or (processes.launch_dir(pid) or b"").startswith(folder + b"/"))
    ]
