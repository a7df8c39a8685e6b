"""What an engine runs on a host that it has reached: looks at it, puts things there, starts the keeper, relays to it.

Its text is sent to a plain `python3` over an SSH session's standard input, so that nothing has to be there before; the
command is always COMMAND, into which no data goes. Orders then come in as lines of JSON, each is answered by one line

    <the session's mark> {"ok": ..., ...}

and everything on stdout before a mark is noise of a login shell. Standard library only, and no newer than Python 3.8:
an older one than we need has to be able to say so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

# One command for every login shell: single quotes, and nothing that any of them treats in a way of its own.
COMMAND = "-I -c 'import base64;f=open(0,\"rb\",0,closefd=False);exec(base64.b64decode(f.readline()))'"
OLDEST = (3, 11)
START = 30.0  # seconds for a keeper to come up
PIECE = 1 << 18
IDLE = 120.0  # seconds without an order after which nobody is there any more: of a link that broke sshd may not know


class Fault(Exception):
    """An order that can't be done, with the reason."""


# -- the host ---------------------------------------------------------------------------------------------------------
def look(order: dict[str, Any]) -> dict[str, Any]:
    """What this host is: its Python, its folders, what is installed. `folder` is where everything of ours lies."""
    home = Path.home()
    folder = home / order["folder"]
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    found = shutil.disk_usage(there)
    return {
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "implementation": sys.implementation.name,
        "soabi": sysconfig.get_config_var("SOABI") or "",
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": list(platform.libc_ver()),
        "old": sys.version_info < OLDEST,
        "host": socket.gethostname(),
        "home": str(home),
        "folder": str(folder),
        "uid": os.getuid(),
        "writable": os.access(there, os.W_OK | os.X_OK),
        "runs": _runs(there),
        "free": found.free,
        "shell": os.environ.get("SHELL", ""),
        "kills": _kills(),
        "clock": time.time(),
        "installed": _installed(),
        "msgspec": _spec("msgspec") != "",
        "sdk": sorted(path.name for path in (folder / "sdk").glob("*")) if (folder / "sdk").is_dir() else [],
    }


def _spec(name: str) -> str:
    """Where a package lies that a plain `python3` would import, without importing it."""
    import importlib.machinery
    import site

    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    if sys.prefix == sys.base_prefix:  # no virtual environment
        paths.append(site.getusersitepackages())
    spec = importlib.machinery.PathFinder.find_spec(name, [path for path in paths if path])
    return str(spec.origin or "") if spec is not None else ""


def _installed() -> dict[str, Any]:
    """The tune-engine that is installed here: its version, and that of what its keeper speaks."""
    origin = _spec("tune")
    if not origin:
        return {}
    text = Path(origin).read_text(encoding="utf-8", errors="replace")
    wire = Path(origin).with_name("trial_sdk") / "wire.py"
    spoken = wire.read_text(encoding="utf-8", errors="replace") if wire.is_file() else ""
    return {"version": _assigned(text, "__version__"), "wire": _assigned(spoken, "VERSION"), "path": origin}


def _assigned(text: str, name: str) -> str:
    for line in text.splitlines():
        left, sign, right = line.partition(" = ")
        if sign and left == name:
            return right.strip().strip('"')
    return ""


def _runs(folder: Path) -> bool:
    """Whether a program in there can be run; True where that can't be tried."""
    try:
        fd, name = tempfile.mkstemp(prefix=".tune-", dir=str(folder))
    except OSError:
        return True
    try:
        os.write(fd, b"#!/bin/sh\nexit 0\n")
        os.fchmod(fd, 0o700)
        os.close(fd)
        return subprocess.call([name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) == 0
    except OSError:
        return False
    finally:
        Path(name).unlink()


def _kills() -> bool:
    """Whether logind ends what a session leaves behind."""
    found = False
    main = Path("/etc/systemd/logind.conf")
    for path in [main, *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf"))]:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.replace(" ", "").partition("=")
            if name == "KillUserProcesses":
                found = value.lower() in ("yes", "true", "1", "on")
    lingers = Path("/var/lib/systemd/linger") / (os.environ.get("USER") or "")
    return found and not (lingers.name and lingers.is_file())


# -- things that are put there ----------------------------------------------------------------------------------------
def put(order: dict[str, Any], source: BinaryIO) -> dict[str, Any]:
    """Take in a compressed tar of `size` bytes with BLAKE2b-256 `digest`, and unpack it as `folder`/`path`, whole or
    not at all; nothing comes when it stands there already, and the answer before says so. After `stall` seconds without
    a byte no more will come.

    With `replace` another content may stand there, whose place it takes."""
    target = Path.home() / order["folder"] / order["path"]
    replace = bool(order.get("replace"))
    if target.is_dir() and (not replace or came(target) == order["digest"]):
        return {"there": True, "path": str(target)}
    _say({"ok": True, "send": True})
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=".new-", dir=str(target.parent)))
    try:
        digest = hashlib.blake2b(digest_size=32)
        with (room / "packed").open("wb") as packed:
            left = int(order["size"])
            while left:
                data = source.read(min(left, PIECE)) if _comes(source, float(order.get("stall", IDLE))) else b""
                if not data:
                    raise Fault("the transfer was cut off")
                digest.update(data)
                packed.write(data)
                left -= len(data)
            if digest.hexdigest() != order["digest"]:
                raise Fault("what arrived is not what was sent")
        unpacked(room / "packed", room / "whole")
        check = order.get("check")
        if check:
            _check(check, room / "whole")
        if replace:
            settle(room / "whole", target, order["digest"])
            return {"there": False, "path": str(target)}
        try:
            (room / "whole").rename(target)
        except OSError:
            if not target.is_dir():  # somebody else was faster, with the same
                raise
    finally:
        shutil.rmtree(str(room), ignore_errors=True)
    return {"there": False, "path": str(target)}


def _comes(source: BinaryIO, seconds: float) -> bool:
    """Wait until there is something to read, or the end."""
    return bool(select.select([source], [], [], seconds)[0])


def came(target: Path) -> str:
    """The digest of what has come to this place; "" for what was made here."""
    try:
        return _stamp(target).read_text()
    except OSError:
        return ""


def settle(whole: Path, target: Path, digest: str) -> None:
    """Put a folder in the place of another one, with a note of what it is."""
    stamp = _stamp(target)
    stamp.parent.mkdir(mode=0o700, exist_ok=True)
    if stamp.exists():
        stamp.unlink()  # first: without a note it would only come once more
    if target.exists():
        target.rename(whole.with_name("old"))
    whole.rename(target)
    stamp.write_text(digest)


def _stamp(target: Path) -> Path:
    return target.parent / ".came" / target.name


def unpacked(packed: Path, folder: Path) -> None:
    """Unpack a compressed tar as a new folder, of which nothing lies outside."""
    folder.mkdir(mode=0o700)
    with tarfile.open(str(packed), mode="r:gz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(str(folder), filter="data")
        else:
            archive.extractall(str(folder))  # of our own making, and its digest was compared


def _check(code: str, folder: Path) -> None:
    """Try what was unpacked before it gets its name."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise Fault(done.stdout.decode(errors="replace").strip()[-500:] or f"exit code {done.returncode}")


# -- a directory that hosts have in common ----------------------------------------------------------------------------
MOUNT = 40.0  # seconds for mount
# lookupcache=positive: that a file is not there is never remembered, since another host may just have written it
OPTIONS = {"Linux": "rw,nosuid,nodev,lookupcache=positive", "Darwin": "rw,nosuid,nodev,resvport"}
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "ceph", "beegfs", "gpfs", "afs", "9p", "virtiofs")


def share(order: dict[str, Any]) -> dict[str, Any]:
    """Have what `point` shares with other hosts: mounted, and its `folder` writable and the same there as here.

    `source` (server:/directory) is mounted where nothing is; "": only the user mounts. `write` names a mark to be left,
    `read` are marks that others have left (the answer says which of them are `missing`), `remove` those that nobody
    needs any more. `owner` tells the experiment from others of its name. With `clear` the folder is deleted at the end.
    """
    point = Path(order["point"])
    where, kind, source = _mount_of(point)
    if not _is_mount(point, where, kind):
        if not order["source"]:
            what = f"is a folder of {where} ({kind}, {source}), no mount" if point.is_dir() else "doesn't exist"
            raise Fault(
                f"{point} {what}: mount the storage there, or let it be mounted (tunemount); where the storage is this "
                f"host's own disk: mount --bind EXPORTED-DIRECTORY {point}"
            )
        _mount(order["source"], point)
        where, kind, source = _mount_of(point)
        if not _is_mount(point, where, kind):
            raise Fault(f"mount has said nothing, and {point} is still a folder of {where} ({kind}, {source})")
    folder = point / order["folder"]
    marks = folder / ".marks"
    try:
        _make(point, marks)
        _own(marks / "owner", order["owner"])
        if order.get("write"):
            _leave(marks / order["write"], order["write"])
        missing = [name for name in order.get("read", []) if not _says(marks / name, name)]
        for name in order.get("remove", []):
            if (marks / name).exists():
                (marks / name).unlink()
        if order.get("clear"):
            shutil.rmtree(str(folder), ignore_errors=True)
    except OSError as error:
        raise Fault(
            f"{error.filename or folder} can't be written by uid {os.getuid()} ({error.strerror}); {point} is {kind} "
            f"{source}: look at its export (rw, root_squash), and at who owns what: NFS goes by the numbers of users"
        ) from error
    return {"folder": str(folder), "kind": kind, "source": source, "missing": missing}


def _mount_of(path: Path) -> tuple[str, str, str]:
    """The mount in which a path lies: where it is, its kind, its source."""
    real = os.path.realpath(str(path))
    found = ("/", "", "")
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return (real if os.path.ismount(real) else "/"), "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        where = _plain_text(before.split()[4])
        if (real == where or real.startswith(where.rstrip("/") + "/")) and len(where) >= len(found[0]):
            kind, source = after.split()[:2]
            found = (where, kind, _plain_text(source))  # of two at the same place the later one is on top
    return found


def _plain_text(text: str) -> str:
    """A text of mountinfo without its escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _is_mount(point: Path, where: str, kind: str) -> bool:
    """Whether something is mounted there, or a network file system above it."""
    if not point.is_dir():
        return False
    return os.path.realpath(str(point)) == where != "/" or kind in NETWORK or kind.startswith("fuse.")


def _mount(source: str, point: Path) -> None:
    """Mount an export, as root or by sudo."""
    before = [] if os.getuid() == 0 else ["sudo", "-n"]
    options = OPTIONS.get(platform.system(), "rw")
    commands = [[*before, "mount", "-t", "nfs", "-o", options, source, str(point)]]
    if not point.is_dir():
        commands.insert(0, [*before, "mkdir", "-p", str(point)])
    for command in commands:
        told = " ".join(command)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=MOUNT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Fault(f"{told}: no answer within {MOUNT:g} s") from None
        except OSError as error:
            raise Fault(f"{told}: {error.strerror}") from error
        if done.returncode:
            said = done.stdout.decode(errors="replace").strip()[-500:] or f"exit code {done.returncode}"
            raise Fault(
                f"{told}: {said} (it takes root, or sudo without a password, and an NFS client: Debian's nfs-common, "
                "Fedora's nfs-utils)"
            )


def _make(point: Path, marks: Path) -> None:
    """Make the folders: the first one for all users, as /tmp is, the rest for this one."""
    top = point / marks.relative_to(point).parts[0]
    if not top.is_dir():
        top.mkdir(exist_ok=True)
        top.chmod(0o1777)
    marks.mkdir(mode=0o700, parents=True, exist_ok=True)


def _own(path: Path, owner: str) -> None:
    """Let nobody go on with what another experiment of the same name has left."""
    if not path.exists():
        _leave(path, owner)
    elif path.read_text() != owner:
        raise Fault(
            f"{path.parents[1]} holds the files of another experiment of this name: remove them, or choose another"
        )


def _leave(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _says(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except FileNotFoundError:
        return False


# -- the keeper -------------------------------------------------------------------------------------------------------
def start(order: dict[str, Any]) -> dict[str, Any]:
    """Have a keeper for the experiment in `folder`: the path of its socket. `sdk` is where its modules lie, or ""."""
    folder = Path.home() / order["folder"]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = folder / order["lock"]
    deadline = time.monotonic() + START
    pause = 0.01
    while True:
        if _held(lock):
            path = _socket(lock)
            if path and _listens(path):
                return {"socket": path}
        else:
            _spawn(order, folder, lock)
            continue
        if time.monotonic() > deadline:
            raise Fault(f"the keeper holds {lock} and does not answer")
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _spawn(order: dict[str, Any], folder: Path, lock: Path) -> None:
    read_end, write_end = os.pipe()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "NNI_", "SSH_"))}
    if order["sdk"]:
        sdk = str(Path.home() / order["sdk"])
        env["PYTHONPATH"] = os.pathsep.join([sdk, *filter(None, [env.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "tune.trial_sdk.keeper", str(folder), "--lock", str(lock)]
    command += ["--lease", str(order["lease"]), "--grace", str(order["grace"]), "--ready-fd", str(write_end)]
    log = lock.with_suffix(".log")
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                pass_fds=[write_end],
                start_new_session=True,
                cwd=str(folder),
            )
    finally:
        os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        ready = pipe.read(1)
    if ready:
        return
    code = process.wait(START)
    if code:
        raise Fault(f"the keeper ended with code {code}: {_tail(log)}")


def _held(lock: Path) -> bool:
    try:
        fd = os.open(str(lock), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _socket(lock: Path) -> str:
    try:
        return str(json.loads(lock.read_text())["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        try:
            attempt.connect(path)
        except OSError:
            return False
    return True


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-2000:].decode(errors="replace").strip() or "it said nothing"
    except OSError:
        return "it left no log"


def relay(order: dict[str, Any]) -> None:
    """Be the connection to a keeper's socket until either side ends."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(order["socket"])
    _say({"ok": True})

    def inward() -> None:
        try:
            while True:
                data = os.read(0, PIECE)
                if not data:
                    break
                peer.sendall(data)
        except OSError:
            pass
        os._exit(0)

    threading.Thread(target=inward, daemon=True).start()
    try:
        while True:
            data = peer.recv(PIECE)
            if not data:
                break
            while data:
                data = data[os.write(1, data) :]
    except OSError:
        pass
    os._exit(0)


# -- files of trials --------------------------------------------------------------------------------------------------
def read(order: dict[str, Any]) -> dict[str, Any]:
    """A piece of a file below `folder`: {"size", "data" as latin-1}; an empty one where there is none."""
    base = Path.home() / order["folder"]
    path = (base / order["path"]).resolve()
    if base.resolve() not in path.parents or not path.is_file():
        return {"size": 0, "offset": 0, "data": ""}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = int(order["offset"])
        offset = max(size + offset, 0) if offset < 0 else min(offset, size)
        file.seek(offset)
        return {"size": size, "offset": offset, "data": file.read(min(int(order["limit"]), 1 << 20)).decode("latin-1")}


def take(order: dict[str, Any]) -> dict[str, Any]:
    """Send a folder below `folder` as a compressed tar: an answer with the size, then the bytes.

    `optional`: the answer's size is -1 where there is none, or nothing in it."""
    base = Path.home() / order["folder"]
    path = (base / order["path"]).resolve()
    if base.resolve() not in path.parents or not path.is_dir() or not any(path.iterdir()):
        if order.get("optional"):
            return {"size": -1}
        if base.resolve() not in path.parents or not path.is_dir():
            raise Fault(f"there is no folder {path}")
    with tempfile.TemporaryFile(dir=str(base)) as packed:
        size = pack(path, packed)
        if size > int(order["limit"]):
            raise Fault(f"{path} is {size} bytes when packed; allowed: {order['limit']}")
        packed.seek(0)
        _say({"ok": True, "size": size})
        while True:
            data = packed.read(PIECE)
            if not data:
                return {}
            while data:
                data = data[os.write(1, data) :]


def pack(path: Path, file: Any) -> int:
    """A folder's plain files and folders as a compressed tar in an open file; its size."""
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
        archive.add(str(path), arcname=".", filter=_plain)
    return int(file.tell())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return member if member.isreg() or member.isdir() else None


def remove(order: dict[str, Any]) -> dict[str, Any]:
    """Delete an experiment's folder, unless its keeper lives."""
    folder = Path.home() / order["folder"]
    if any(_held(lock) for lock in folder.glob("keeper*.lock")):
        raise Fault(f"a keeper still runs in {folder}")
    shutil.rmtree(str(folder), ignore_errors=True)
    return {}


# -- orders -----------------------------------------------------------------------------------------------------------
_mark = ""


def _say(answer: dict[str, Any]) -> None:
    data = f"\n{_mark} {json.dumps(answer)}\n".encode()
    while data:
        data = data[os.write(1, data) :]


def _hello(order: dict[str, Any]) -> dict[str, Any]:
    """Nothing but that orders are heard here."""
    return {"heard": order["do"]}


def serve(source: BinaryIO) -> None:
    """Carry out orders until there are no more; the first line is the session's mark."""
    global _mark
    _mark = source.readline().decode().strip()
    verbs = {"hello": _hello, "look": look, "share": share, "start": start}
    verbs.update({"read": read, "take": take, "remove": remove})
    while True:
        line = source.readline() if _comes(source, IDLE) else b""
        if not line:
            return
        order = json.loads(line)
        try:
            if order["do"] == "relay":
                relay(order)
            answer = put(order, source) if order["do"] == "put" else verbs[order["do"]](order)
        except Fault as error:
            _say({"ok": False, "error": str(error)})
        except (OSError, subprocess.SubprocessError, tarfile.TarError, ValueError, EOFError) as error:
            _say({"ok": False, "error": f"{type(error).__name__}: {error}"})
        else:
            _say({"ok": True, **answer})


if __name__ == "__main__":
    serve(globals()["f"])  # COMMAND has opened it, and read this text from it
