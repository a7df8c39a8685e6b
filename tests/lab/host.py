"""A host of the lab: namespaces of its own with an own file system and network, and a real OpenSSH server in them.

Two processes hold a host up, and the kernel takes everything back when they end; both end when their input does, so
nothing outlives the tests, not even their kill -9.

    the disk    holds a mount namespace with the host's file system (disk.py); it stays over a reboot
    the init    pid 1 of a pid namespace, with a network (an end of a veth pair), a host name and a /proc of its own
                (boot.sh); a reboot kills it, which kills all that ran, and starts another, with another boot id

Commands get in with nsenter. The controller's ends of the veth pairs are ports of the lab's bridge (bridge.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import disk, process_table
from lab.bridge import Bridge
from lab.errors import LabError
from lab.login import Login, known_hosts_line, make_key
from lab.process_table import Listener, Process
from lab.sshd import PATH, SETTINGS, SSHD, Traits
from lab.waiting import PATIENCE, until, until_gone

_BOOT = Path(__file__).resolve().with_name("boot.sh")  # seen at the same path inside
_PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class Host:
    """One host. Made by `Lab.host`; every method is back when what it does has been done."""

    def __init__(
        self, name: str, address: str, *, traits: Traits, folder: Path, mount_point: Path, bridge: Bridge, key: Path
    ) -> None:
        self.name, self.address, self.traits = name, address, traits
        self.boot_id = ""
        self._first_traits = traits
        self._folder, self._mount_point, self._bridge, self._key = folder, mount_point, bridge, key
        self._disk: subprocess.Popen[bytes] | None = None
        self._init: subprocess.Popen[bytes] | None = None
        self._sshd: subprocess.Popen[bytes] | None = None
        self._init_pid = 0
        self._filtered = False  # whether there is a packet filter
        self._filled: set[str] = set()  # where disks are filled

    # -- life ---------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Make the disk, boot, start sshd; when that fails nothing is left."""
        try:
            self._write_settings()
            self.change_host_key()
            self._disk = self._hold(
                *("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c"),
                disk.script(self._mount_point, self._folder, self.traits),
            )
            self._answer(self._disk)
            self.power_on()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything in it and take it away; may be called twice."""
        try:
            self.power_off()
        finally:
            if self._disk is not None:
                _end(self._disk)
                self._disk = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def power_off(self) -> None:
        """Pull the plug: no process says goodbye, no packet leaves; the files of /home, /root and /var/tmp stay."""
        try:
            self._bridge.set_port(self.address, up=False)
        finally:
            if self._init is not None:
                if self._init_pid:
                    _kill(self._init_pid)
                _end(self._init)
                self._init, self._init_pid = None, 0
            if self._sshd is not None:
                self._sshd.wait(PATIENCE)
                self._sshd = None
        self._bridge.remove_port(self.address)

    def power_on(self, *, sshd: bool = True) -> None:
        """Boot: a new init with a new boot id, /tmp, /run and /dev/shm empty, the link whole, sshd up if asked."""
        if self._disk is None or self._init is not None:
            raise LabError(f"{self.name} is {'closed' if self._disk is None else 'on already'}")
        self.boot_id = str(uuid.uuid4())
        self._init = self._hold(
            *("nsenter", "--target", str(self._disk.pid), "--mount", "--"),
            *("unshare", "--mount", "--pid", "--net", "--uts", "--ipc"),
            *("--propagation", "private", "--fork", "--kill-child"),
            *("/bin/sh", str(_BOOT), self.name, self.boot_id),
        )
        self._init_pid = int(self._answer(self._init))
        self._answer(self._init)
        self._filtered = False
        self._bridge.add_port(self.address, self._init_pid)
        if sshd:
            self.start_sshd()

    def reboot(self, off: float = 0.0) -> None:
        """Power off, stay so for some seconds, power on."""
        self.power_off()
        time.sleep(off)
        self.power_on()

    def heal(self) -> None:
        """Make it again what it was made as: on, link whole, disks free, sshd up with its first traits."""
        if self._init is None:
            self.power_on(sshd=False)
        self.restore()
        for path in list(self._filled):
            self.free_disk(path)
        if self._sshd is None or self.traits != self._first_traits:
            self.traits = self._first_traits
            self.restart_sshd()

    # -- the server ---------------------------------------------------------------------------------------------------
    def start_sshd(self, **changes: Any) -> None:
        """Start sshd, with some traits of the server changed from now on; back when it listens.

        What can be changed: port, tcp_forwarding, socket_forwarding, force_command, terminal, sshd_lines, environment.
        """
        if self._sshd is not None:
            raise LabError(f"the sshd of {self.name} runs already")
        self.traits = dataclasses.replace(self.traits, **changes)
        (self._folder / "ssh/sshd_config").write_text(self.traits.sshd_config(self.address))
        log = self._folder / "sshd.log"
        command = [*self._enter(), SSHD, "-D", "-e", "-f", f"{SETTINGS}/sshd_config"]
        with log.open("ab") as stderr:
            begin = stderr.tell()
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=_PLAIN)

        def listens() -> bool:
            said = log.read_bytes()[begin:].decode(errors="replace")
            if server.poll() is not None:
                raise LabError(f"the sshd of {self.name} does not start: {said}")
            return "Server listening on" in said

        self._sshd = server
        until(listens, f"the sshd of {self.name} to listen")

    def stop_sshd(self) -> None:
        """End the server that takes connections; its sessions go on, as they do when a machine's SSH service stops."""
        if self._sshd is not None:
            for pid in self._listeners():
                _kill(pid)
            self._sshd.wait(PATIENCE)
            self._sshd = None

    def restart_sshd(self, **changes: Any) -> None:
        """Stop and start it, with changes; sessions go on."""
        self.stop_sshd()
        self.start_sshd(**changes)

    def kill_sessions(self) -> int:
        """Kill -9 all of sshd's sessions, not the server; their commands live on. How many processes were killed."""
        listeners = self._listeners()
        doomed = [
            process.outer
            for process in self.processes()
            if process.name.startswith("sshd") and process.outer not in listeners
        ]
        for pid in doomed:
            _kill(pid)
        for pid in doomed:
            until_gone(pid)
        return len(doomed)

    def change_host_key(self) -> str:
        """Give it another host key, and start sshd again where it runs; the new line of `known_hosts`."""
        make_key(self._folder / "ssh/host_key", self.name)
        if self._sshd is not None:
            self.restart_sshd()
        return self.known_hosts

    def sshd_log(self) -> str:
        """What sshd has said since the host was made (LogLevel VERBOSE)."""
        return (self._folder / "sshd.log").read_text(errors="replace")

    # -- getting in ---------------------------------------------------------------------------------------------------
    @property
    def known_hosts(self) -> str:
        """Its line for a `known_hosts` file, with the key that it has now."""
        return known_hosts_line(self.address, self.traits.port, (self._folder / "ssh/host_key.pub").read_text())

    @property
    def login(self) -> Login:
        """How to get in over SSH, with the host key that it has now."""
        return Login(self.address, self.traits.port, self.traits.user, self._key, self.known_hosts)

    def run(
        self, *argv: str, root: bool = False, check: bool = True, stdin: str | bytes = b"", timeout: float = PATIENCE
    ) -> str:
        """Run a command inside, without SSH, as the user (or root) in the user's home; its stdout.

        Raises LabError with stdout and stderr when it fails and `check` is on, or when it takes longer than `timeout`
        seconds (it is killed then).
        """
        data = stdin.encode() if isinstance(stdin, str) else stdin
        command = self._command(argv, root=root)
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=timeout, env=_PLAIN)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{shlex.join(argv)} on {self.name} takes more than {timeout:g} s") from error
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            raise LabError(f"{shlex.join(argv)} on {self.name} ended with {done.returncode}:\n{out}\n{err}")
        return out

    @contextlib.contextmanager
    def spawn(self, *argv: str, root: bool = False, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs inside while the block does, and is killed then; `options` are Popen's.

        The Popen's own process is nsenter: the pids of the command are in `processes`.
        """
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": _PLAIN}
        with subprocess.Popen(self._command(argv, root=root), **{**settings, **options}) as process:
            try:
                yield process
            finally:
                process.kill()

    # -- files --------------------------------------------------------------------------------------------------------
    def read(self, path: str) -> bytes:
        """The content of a file inside (relative: to the user's home); FileNotFoundError where there is none."""
        command = self._command(["cat", "--", path], root=True)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, env=_PLAIN)
        if done.returncode:
            raise FileNotFoundError(f"{self.name}:{path}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def write(self, path: str, content: str | bytes, *, executable: bool = False) -> None:
        """Write a file inside as the user, with the folders above it."""
        script = 'mkdir -p -- "$(dirname -- "$1")" && cat > "$1" && chmod "$2" -- "$1"'
        self.run("sh", "-c", script, "sh", path, "755" if executable else "644", stdin=content)

    def exists(self, path: str) -> bool:
        """Whether there is something at a path inside."""
        script = 'if [ -e "$1" ] || [ -L "$1" ]; then echo yes; fi'
        return bool(self.run("sh", "-c", script, "sh", path, root=True))

    def fill_disk(self, path: str | None = None, leave: int = 0) -> None:
        """Fill the file system of a folder (default: the home) up to `leave` bytes, rounded up to pages."""
        script = 'dd if=/dev/zero of="$1/.filler" bs=1M 2> /dev/null; truncate -s "-$2" "$1/.filler"'
        place = path or self.traits.home
        self._filled.add(place)
        self.run("sh", "-c", script, "sh", place, str(-(-leave // 4096) * 4096), root=True)

    def free_disk(self, path: str | None = None) -> None:
        """Take back what `fill_disk` has filled."""
        place = path or self.traits.home
        self._filled.discard(place)
        self.run("rm", "-f", f"{place}/.filler", root=True)

    # -- what is going on ---------------------------------------------------------------------------------------------
    def processes(self) -> list[Process]:
        """All living processes inside, sshd's too, but for the init."""
        namespace = str(Path(f"/proc/{self._running()}/ns/pid").readlink())
        return [process for process in process_table.processes(namespace) if process.pid != 1]

    def listening(self) -> list[Listener]:
        """All sockets inside that wait for others: TCP, UDP and Unix, of every user."""
        return process_table.listening(self._running())

    def left(self) -> list[str]:
        """What holds it up; empty after `close`."""
        return [
            f"{self.name}: {process.args}" for process in (self._disk, self._init, self._sshd) if process is not None
        ]

    # -- the link -----------------------------------------------------------------------------------------------------
    def cut(self) -> None:
        """Take the link away: nothing passes, nobody is told; after some seconds new connections find no route."""
        self._bridge.set_port(self.address, up=False)

    def restore(self) -> None:
        """Undo cut, drop, reject, lossy and cut_after."""
        if self._filtered:
            self.run("/usr/sbin/nft", "flush", "ruleset", root=True)
            self._filtered = False
        self._bridge.set_port(self.address, up=True)

    def drop(self, *, incoming: bool = True, outgoing: bool = True) -> None:
        """Swallow packets silently, one way or both (nft drop inside): everything hangs."""
        self._filter(["drop"] if incoming else [], ["drop"] if outgoing else [])

    def reject(self) -> None:
        """Answer every TCP packet that comes in with a reset: connections break as soon as the controller sends."""
        self._filter(["meta l4proto tcp reject with tcp reset"], [])

    def lossy(self, fraction: float) -> None:
        """Drop this fraction (0 to 1) of all packets, each way, at random."""
        rule = f"numgen random mod 10000 < {round(fraction * 10000)} drop"
        self._filter([rule], [rule])

    def cut_after(self, size: int, *, reset: bool = False) -> None:
        """Let `size` more bytes of packets through, both ways counted together, then none: swallow them, or reset.

        The count is of whole packets, which on a veth pair hold up to 64 KiB. To cut at an exact byte use proxy.py.
        """
        end = "reject with tcp reset" if reset else "drop"
        rule = f'meta l4proto tcp quota name "budget" {end}'
        resets = ["tcp flags rst accept"] if reset else []  # our own must get out
        self._filter([*resets, rule], [*resets, rule], declared=f"quota budget {{ over {size} bytes }}")

    # -- inside -------------------------------------------------------------------------------------------------------
    def know(self, hosts: Mapping[str, str]) -> None:
        """Write its /etc/hosts anew: name -> address. In place, since the file itself is what is bound."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in hosts.items())]
        (self._folder / "etc/hosts").write_text("\n".join(lines) + "\n")

    def _running(self) -> int:
        if not self._init_pid:
            raise LabError(f"{self.name} is off")
        return self._init_pid

    def _enter(self) -> list[str]:
        """The argv that goes before a command to run it inside, as root."""
        return ["nsenter", "--target", str(self._running()), "--mount", "--uts", "--ipc", "--net", "--pid", "--"]

    def _command(self, argv: Sequence[str], *, root: bool) -> list[str]:
        """A command inside, in the user's home and environment; it is killed when what started it ends."""
        uid, gid = (0, 0) if root else self.traits.ids
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--pdeathsig", "KILL", "--"]
        variables = [f"{name}={value}" for name, value in self.traits.variables().items()]
        return [*self._enter(), *become, "env", "-i", "-C", self.traits.home, *variables, *argv]

    def _hold(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a process that lives until its input ends; what it says on stderr goes to the host's `hold.log`."""
        with (self._folder / "hold.log").open("ab") as stderr:
            return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=_PLAIN)

    def _answer(self, process: subprocess.Popen[bytes]) -> str:
        """The next line that such a process says."""
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            byte = os.read(process.stdout.fileno(), 1) if ready else b""
            if not byte:
                why = (self._folder / "hold.log").read_text(errors="replace")
                raise LabError(f"{self.name} does not start (its last word: {said!r}):\n{why}")
            said += byte
        return said.decode().strip()

    def _write_settings(self) -> None:
        """Write the files that the host sees in /etc, and its own programs."""
        for name in ("ssh", "bin", "etc"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "ssh/authorized_keys").write_text(self._key.with_name(self._key.name + ".pub").read_text())
        for name, text in self.traits.scripts().items():
            (self._folder / "bin" / name).write_text(text)
            (self._folder / "bin" / name).chmod(0o755)
        texts = {
            "passwd": self.traits.passwd(),
            "group": self.traits.group(),
            "profile": f"export PATH={PATH}\n",
            "hostname": f"{self.name}\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",  # nobody answers questions of DNS
        }
        for name, text in texts.items():
            (self._folder / "etc" / name).write_text(text)
        self.know({self.name: self.address})

    def _listeners(self) -> list[int]:
        """The pids, from outside, of the server that takes connections: the child of the nsenter that we started."""
        return [process.outer for process in self.processes() if self._sshd and process.parent == self._sshd.pid]

    def _filter(self, incoming: Sequence[str], outgoing: Sequence[str], declared: str = "") -> None:
        """Replace the host's packet filter."""
        self._filtered = True
        lines = ["flush ruleset", "table inet lab {", declared]
        for hook, rules in (("input", incoming), ("output", outgoing)):
            lines += [f"chain {hook} {{", f"type filter hook {hook} priority 0;", *rules, "}"]
        self.run("/usr/sbin/nft", "-f", "-", root=True, stdin="\n".join([*lines, "}"]) + "\n")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that `_hold` has started: end its input, and wait."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)
