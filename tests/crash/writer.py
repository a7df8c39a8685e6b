"""A writer to be killed, starved and cut off: forks a child a job, which writes a real log or a real spool.

`Writer` starts this file as a small process with shim.c preloaded. It reads jobs as JSON lines, forks a child for each
(a start of Python a crash would be a thousand times slower) and answers with how the child ended. What a child was
promised it puts into the file `acks` of its folder: one number a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tune.engine import log as module
from tune.engine.events import Row
from tune.engine.log import Log, LogError, LogIO, LogMissing, Reader, has_begun
from tune.trial_sdk.spool import Spool

ON_WRITE, ON_SYNC, ON_TRUNCATE, ON_OPEN, ON_UNLINK, ON_READ = 1, 2, 4, 8, 16, 32
KILL = -1
HERE = Path(__file__).parent


# -- the side of the tests --------------------------------------------------------------------------------------------
def shim() -> Path:
    """shim.c as a library, compiled once."""
    source = HERE / "shim.c"
    name = hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir()) / f"tune-shim-{os.getuid()}-{name}.so"
    if not path.exists():
        made = path.with_suffix(f".{os.getpid()}")
        command = [
            "cc",
            "-O2",
            "-Wall",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(made),
            str(source),
            "-ldl",
            "-lpthread",
        ]
        subprocess.run(command, check=True)
        made.rename(path)
    return path


def can_shim() -> bool:
    """Whether there is a C compiler and a preloading linker."""
    return sys.platform == "linux" and shutil.which("cc") is not None


class Writer:
    """The forking process, seen from outside."""

    def __init__(self) -> None:
        library = str(shim())
        self._process = subprocess.Popen(
            [sys.executable, __file__, library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": library},
            text=True,
        )

    def run(self, **job: Any) -> dict[str, Any]:
        """Do one job in a child: `{"code": its exit code or -signal, "calls": n, "said": ...}`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the writer ended by itself"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *ignored: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def acknowledged(folder: Path) -> int | None:
    """The last number that a child was promised; None when it had not even made its file."""
    try:
        lines = (folder / "acks").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    return max((int(line) for line in lines), default=None)


def room() -> Path:
    """A temporary folder in memory where there is one: nothing here is about the disk's own speed."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="tune-faults-", dir=shared if os.access(shared, os.W_OK) else None))


def body_of(number: int, padding: int = 0) -> str:
    """The body of report `number`: an intermediate result whose value is the number."""
    return f'{{"value":{number}{" " * padding}}}'


def number_of(body: str) -> int:
    """The number of the report in a body."""
    return int(body[len('{"value":') : -1])


# -- the child --------------------------------------------------------------------------------------------------------
async def _write_log(job: dict[str, Any], say: dict[str, Any], acks: int) -> None:
    """Append reports 1, 2, 3 ... in batches; a report is a row whose body holds its number."""
    path = Path(job["folder"]) / "events.db"
    choose = random.Random(job["seed"])
    module.CHECKPOINT_FRAMES = job.get("checkpoint_frames", 40)
    if job.get("synchronous", "FULL") != "FULL":
        module._PRAGMAS["synchronous"] = ("NORMAL", 1)
    waited: list[str] = []
    dedup = job.get("dedup", True)
    known = job.get("acked", 0)
    for life in range(job.get("lives", 1)):
        epoch = number = 0
        try:
            with Reader(path) as reader:
                for row in reader.rows():
                    epoch, number = row.epoch, number_of(row.body)
                last = reader.last
            log = await Log.open(path, create=False, expect=last, on_full=waited.append, retry=0.001)
        except LogMissing:
            assert not has_begun(path)
            log = await Log.open(path, create=True, on_full=waited.append, retry=0.001)
            os.write(acks, b"0\n")
            job["made"] = True
        log.take(epoch + 1)
        try:
            if not dedup:  # what was sent and not acknowledged comes again, and nobody looks at its number
                number = known
            left = job["events"]
            while left > 0:
                size = min(left, choose.randrange(1, job.get("batch", 5) + 1))
                first, left = log.last_seq + 1, left - size
                rows = [
                    Row(
                        first + index,
                        epoch + 1,
                        "METRIC",
                        1,
                        "abcde.0.1",
                        first + index,
                        0,
                        None,
                        1_700_000_000_000_000,
                        body_of(number + index + 1, choose.randrange(job.get("padding", 60))),
                    )
                    for index in range(size)
                ]
                if job.get("early"):
                    os.write(acks, b"%d\n" % (number + size))
                await log.append(rows)
                number += size
                if not job.get("early"):
                    os.write(acks, b"%d\n" % number)
            known = number
        except LogError as error:
            say["error"] = f"{type(error).__name__}: {error}"
            for _ in range(2):  # a dead handle stays dead
                with contextlib.suppress(LogIO):
                    await log.append([])
                    say["undead"] = True
        finally:
            say["waited"] = len(waited)
            try:
                await log.close(checkpoint=job.get("orderly", True) and not (life % 2 and job.get("mixed", False)))
            except LogError as error:
                say.setdefault("error", f"close: {type(error).__name__}: {error}")
        if "error" in say:
            return


def _write_spool(job: dict[str, Any], say: dict[str, Any], acks: int) -> None:
    """Append reports 1, 2, 3 ...; a failed one is tried again, as a trial may, up to 3 times each."""
    choose = random.Random(job["seed"])
    errors = 0
    spool = None
    for _ in range(4):
        try:
            spool = Spool(str(Path(job["folder"]) / "1.spool"))
            break
        except OSError:
            errors += 1
    if spool is None:
        say["error"] = "can't be opened"
        return
    target = spool.number + job["events"]
    while spool.number < target:
        number = spool.number + 1
        for _ in range(4):
            try:
                assert spool.append("I", 0, f"{number}" + " " * choose.randrange(60)) == number
                os.write(acks, b"%d\n" % number)
                break
            except OSError:
                errors += 1
        else:
            break
        if number % 7 == 0:
            try:
                spool.sync()
            except OSError:
                errors += 1
    say["errors"] = errors
    spool.close()


def _child(job: dict[str, Any], library: ctypes.CDLL, out: int) -> None:
    acks = os.open(str(Path(job["folder"]) / "acks"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.close(acks)
    record = -1
    if "record" in job:
        record = os.open(job["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    fault = job.get("fault", {})
    library.shim_arm(
        job["folder"].encode(),
        record,
        ctypes.c_int(fault.get("what", ON_WRITE | ON_SYNC | ON_TRUNCATE)),
        ctypes.c_long(fault.get("n", 0)),
        ctypes.c_long(fault.get("count", 1)),
        ctypes.c_int(fault.get("error", 0)),
        ctypes.c_long(fault.get("part", 0)),
    )
    acks = os.open(str(Path(job["folder"]) / "acks"), os.O_WRONLY | os.O_APPEND)
    library.shim_calls.restype = ctypes.c_long
    say: dict[str, Any] = {}
    try:
        if job.get("kind") == "spool":
            _write_spool(job, say, acks)
        else:
            asyncio.run(_write_log(job, say, acks))
    except LogError as error:
        say["error"] = f"open: {type(error).__name__}: {error}"
    except Exception as error:  # whatever it is, the test that gave the job judges it
        say["unexpected"] = f"{type(error).__name__}: {error}"
    calls = library.shim_calls()
    library.shim_disarm()
    os.write(out, json.dumps({"calls": calls, **say}).encode())


def main() -> None:
    """Serve jobs until stdin ends."""
    library = ctypes.CDLL(sys.argv[1])
    os.environ.pop("LD_PRELOAD", None)
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = 0
            try:
                _child(job, library, write)
            except BaseException as error:
                os.write(write, json.dumps({"unexpected": repr(error)}).encode())
                code = 98
            os._exit(code)
        os.close(write)
        if "after" in job:  # seconds until the child is killed
            ended = os.pidfd_open(pid)
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            deadline = time.monotonic() + job["after"]
            while (left := deadline - time.monotonic()) > 0:
                if left > 0.002:
                    if poll.poll((left - 0.001) * 1000):
                        break
                elif poll.poll(0):
                    break
            os.close(ended)
            os.kill(pid, signal.SIGKILL)
        said = b""
        while data := os.read(read, 65536):
            said += data
        os.close(read)
        _, status = os.waitpid(pid, 0)
        answer = json.loads(said) if said else {}
        answer["code"] = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
