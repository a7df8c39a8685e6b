"""The lock: one holder in the world, who it is, and looks that disturb nobody."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tune.engine import lock as module
from tune.engine.lock import Lock, LockHeld, peek

HOLDER = """
import sys
from pathlib import Path
from tune.engine.lock import Lock
lock = Lock.take(Path(sys.argv[1]))
lock.write({"pid": 4711, "host": "here", "socket": "/s"})
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_of_another_process_names_it_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        holder = {"pid": 4711, "host": "here", "socket": "/s"}
        assert peek(path) == holder
        with pytest.raises(LockHeld, match="pid 4711 on here") as caught:
            Lock.take(path)
        assert caught.value.holder == holder
        process.kill()
        process.wait()
        assert peek(path) is None
        lock = Lock.take(path)
        assert peek(path) == {}  # held, nothing said yet
        lock.write({"pid": os.getpid()})
        assert peek(path) == {"pid": os.getpid()}
        lock.release()
        lock.release()
        assert peek(path) is None


def test_no_file_is_made_by_a_look_and_a_private_one_by_taking(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert peek(path) is None
    assert not path.exists()
    lock = Lock.take(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(LockHeld, match="pid unknown"):
        Lock.take(path)
    lock.release()
    again = Lock.take(path)
    again.release()


def test_a_shorter_text_replaces_a_longer_one(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path / "lock")
    lock.write({"pid": 1, "host": "a" * 100})
    lock.write({"pid": 2})
    assert peek(tmp_path / "lock") == {"pid": 2}
    lock.release()


@pytest.mark.parametrize("text", [b"", b'{"pid": 1', b"[1]", b"\xff\xff", b"[" * 60000, b'{"pid": 1}}'])
def test_a_half_written_text_is_a_holder_without_a_name(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lock"
    lock = Lock.take(path)
    path.write_bytes(text)
    assert peek(path) == {}
    with pytest.raises(LockHeld) as caught:
        Lock.take(path)
    assert caught.value.holder == {}
    lock.release()


def test_who_takes_the_lock_outlasts_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    Lock.take(path).release()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
    lock = Lock.take(path)
    lock.release()
    os.close(looking)


def test_a_lock_on_a_deleted_file_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    real = fcntl.flock
    calls = 0

    def flock(descriptor: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            path.unlink()  # between open and flock
        real(descriptor, how)

    monkeypatch.setattr(module.fcntl, "flock", flock)
    lock = Lock.take(path)
    lock.write({"pid": 5})
    assert calls == 2
    assert peek(path) == {"pid": 5}
    lock.release()


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        Lock.take(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
