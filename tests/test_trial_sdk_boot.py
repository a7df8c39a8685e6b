"""boot.py, as a plain Python runs it over standard input: looks, takes things in, starts a keeper, relays."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tune.trial_sdk import boot, channel, wire
from tune.trial_sdk.keeper import read_lock

MARK = "0123456789abcdef"


class Host:
    """A Python with boot.py in it, whose home is a folder."""

    def __init__(self, home: Path, shell: str = "", **variables: str) -> None:
        argv = shlex.split(f"{sys.executable} {boot.COMMAND}")
        if shell:
            argv = ["/bin/sh", "-c", f"{shell}\nexec {shlex.join(argv)}"]
        env = {"HOME": str(home), "PATH": os.environ["PATH"], **variables}
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=home)
        self.say(base64.b64encode(Path(boot.__file__).read_bytes()) + b"\n" + MARK.encode() + b"\n")

    def say(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith(MARK.encode() + b" "):
                return json.loads(line.partition(b" ")[2])
        raise EOFError

    def __call__(self, do: str, **rest: Any) -> dict[str, Any]:
        self.say(json.dumps({"do": do, **rest}).encode() + b"\n")
        return self.hear()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def packed(**files: str) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return output.getvalue()


def put(host: Host, path: str, data: bytes, digest: str = "", **rest: Any) -> dict[str, Any]:
    digest = digest or hashlib.blake2b(data, digest_size=32).hexdigest()
    answer = host("put", folder=".tune", path=path, size=len(data), digest=digest, **{"check": "", "stall": 20, **rest})
    if not answer.get("send"):
        return answer
    host.say(data)
    return host.hear()


def test_it_looks(host: Host, tmp_path: Path) -> None:
    looked = host("look", folder=".tune")
    assert looked["ok"] and looked["python"] == list(sys.version_info[:3]) and not looked["old"]
    assert looked["folder"] == str(tmp_path / ".tune") and looked["writable"] and looked["runs"]
    assert looked["installed"]["wire"] == str(wire.VERSION) and looked["msgspec"]
    assert looked["sdk"] == [] and not (tmp_path / ".tune").exists()


def test_what_a_login_shell_prints_is_noise(tmp_path: Path) -> None:
    noisy = Host(tmp_path, shell=f"echo welcome; printf '{MARK}'; echo '{{\"ok\": false}}'; echo oops >&2")
    try:
        assert noisy("look", folder=".tune")["ok"]
    finally:
        noisy.close()


def test_modules_of_the_home_do_not_matter(tmp_path: Path) -> None:
    for name in ("json", "socket", "base64", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    made = Host(tmp_path, PYTHONPATH=str(tmp_path))
    try:
        assert made("look", folder=".tune")["ok"]
    finally:
        made.close()


def test_what_is_put_is_there_once(host: Host, tmp_path: Path) -> None:
    data = packed(one="1", two="22")
    answer = put(host, "code/x", data)
    assert answer["ok"] and not answer["there"]
    assert (tmp_path / ".tune/code/x/two").read_text() == "22"
    assert put(host, "code/x", data)["there"]
    assert [path.name for path in (tmp_path / ".tune/code").iterdir()] == ["x"]


def test_what_does_not_arrive_as_it_was_sent_is_not_there(host: Host, tmp_path: Path) -> None:
    wrong = put(host, "code/x", packed(one="1"), digest="0" * 64)
    assert not wrong["ok"] and "not what was sent" in wrong["error"]
    broken = put(host, "code/x", b"no archive at all")
    assert not broken["ok"] and "ReadError" in broken["error"]
    checked = put(host, "code/x", packed(one="1"), check="import no_such_module")
    assert not checked["ok"] and "no_such_module" in checked["error"]
    assert list((tmp_path / ".tune/code").iterdir()) == []
    assert put(host, "code/x", packed(one="1"))["ok"]


def test_what_is_to_be_replaced_is_sent_when_it_is_another(host: Host, tmp_path: Path) -> None:
    target = tmp_path / ".tune/checkpoints/3"
    target.mkdir(parents=True)
    (target / "made here").write_text("1")
    first, second = packed(one="1"), packed(two="2")
    for data, name in ((first, "one"), (second, "two"), (first, "one")):
        answer = put(host, "checkpoints/3", data, replace=True)
        assert answer["ok"] and not answer["there"], answer
        assert [path.name for path in target.iterdir()] == [name]
        assert put(host, "checkpoints/3", data, replace=True)["there"]
    broken = put(host, "checkpoints/3", b"no archive", replace=True)
    assert not broken["ok"] and (target / "one").is_file()
    assert sorted(path.name for path in target.parent.iterdir()) == [".came", "3"]


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("after", [0, 1, 100])
def test_a_transfer_that_is_cut_off_leaves_nothing(tmp_path: Path, after: int, silent: bool) -> None:
    host = Host(tmp_path)
    data = packed(one=os.urandom(2000).hex())
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()
    order = {"folder": ".tune", "path": "code/x", "size": len(data), "digest": digest, "check": ""}
    assert host("put", stall=0.2 if silent else 60, **order)["send"]
    host.say(data[:after])
    assert host.process.stdin is not None
    if not silent:
        host.process.stdin.close()
    answer = host.hear()
    assert not answer["ok"] and "cut off" in answer["error"]
    host.close()
    assert list((tmp_path / ".tune/code").iterdir()) == []


def test_names_that_lead_out_are_not_unpacked(host: Host, tmp_path: Path) -> None:
    answer = put(host, "code/x", packed(**{"../../../out": "1"}))
    assert not answer["ok"]
    assert not (tmp_path / "out").exists() and not (tmp_path.parent / "out").exists()


def test_it_starts_one_keeper_and_relays_to_it(tmp_path: Path) -> None:
    host, other = Host(tmp_path), Host(tmp_path)
    order = {"folder": ".tune/experiments/one", "lock": "keeper.x.lock", "sdk": "", "lease": 20, "grace": 1}
    lock = tmp_path / ".tune/experiments/one/keeper.x.lock"
    try:
        first, second = host("start", **order), other("start", **order)
        assert first["socket"] == second["socket"]
        running = read_lock(lock)
        assert running is not None
        pid = running.pid
        assert host("relay", socket=first["socket"])["ok"]
        host.say(wire.frame(channel.encoder.encode(channel.Attach("one", 1))))
        assert host.process.stdout is not None
        size = int.from_bytes(host.process.stdout.read(4), "big")
        attached = wire.decode(channel.from_keeper, host.process.stdout.read(size))
        assert isinstance(attached, channel.Attached) and attached.pid == pid
        refused = other("remove", folder=".tune/experiments/one")
        assert not refused["ok"] and "still runs" in refused["error"]
        host.say(wire.frame(channel.encoder.encode(channel.Shutdown())))
        while host.process.stdout.read(1 << 16):  # Over, and the end
            pass
        assert other("remove", folder=".tune/experiments/one")["ok"] or other("look", folder=".tune")["ok"]
    finally:
        known = read_lock(lock)
        if known is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(known.pid, signal.SIGKILL)
        host.close()
        other.close()


def test_a_keeper_that_can_not_start_says_why(host: Host, tmp_path: Path) -> None:
    (tmp_path / "bad/tune").mkdir(parents=True)
    (tmp_path / "bad/tune/__init__.py").write_text("raise RuntimeError('not this one')")
    answer = host("start", folder="x", lock="keeper.x.lock", sdk="bad", lease=1, grace=1)
    assert not answer["ok"] and "not this one" in answer["error"]


def test_files_are_read_below_their_folder_only(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / ".tune/experiments/one/trials/t/0"
    folder.mkdir(parents=True)
    (folder / "stdout").write_bytes(b"abc\xffdef")
    (tmp_path / "secret").write_text("no")
    (folder / "link").symlink_to(tmp_path / "secret")
    base = ".tune/experiments/one"
    whole = host("read", folder=base, path="trials/t/0/stdout", offset=0, limit=100)
    assert whole["data"].encode("latin-1") == b"abc\xffdef" and whole["size"] == 7
    assert host("read", folder=base, path="trials/t/0/stdout", offset=-3, limit=2)["data"] == "de"
    for path in ("trials/t/0/link", "../../../secret", "/etc/passwd", "trials/t/0/none", "trials"):
        assert host("read", folder=base, path=path, offset=0, limit=9)["data"] == ""


def test_a_folder_is_taken_whole(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / ".tune/experiments/one/checkpoints/3"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * 300_000)
    answer = host("take", folder=".tune/experiments/one", path="checkpoints/3", limit=1 << 20)
    assert host.process.stdout is not None
    data = host.process.stdout.read(answer["size"])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        weights = archive.extractfile("./weights")
        assert weights is not None and weights.read() == b"w" * 300_000
    assert host.hear()["ok"]
    refused = host("take", folder=".tune/experiments/one", path="checkpoints/3", limit=10)
    assert not refused["ok"] and "allowed: 10" in refused["error"]
    assert not host("take", folder=".tune/experiments/one", path="../..", limit=1 << 20)["ok"]
    (tmp_path / ".tune/experiments/one/checkpoints/4").mkdir()
    for path in ("checkpoints/4", "checkpoints/5", "../.."):
        assert host("take", folder=".tune/experiments/one", path=path, limit=1, optional=True)["size"] == -1


def test_the_text_is_plain_enough_for_an_old_python() -> None:
    """What 3.8 can't read could not say that it is too old."""
    import ast

    ast.parse(Path(boot.__file__).read_text(), feature_version=(3, 8))


# -- a directory that hosts have in common ----------------------------------------------------------------------------
def mount_that(tmp_path: Path, script: str) -> dict[str, str]:
    """A PATH in which `mount` and `sudo` do this."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("mount", "sudo"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def shared(host: Host, point: Path, source: str = "server:/export") -> dict[str, Any]:
    return host("share", point=str(point), source=source, folder="tune/one", owner="me", write="mark")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo mount.nfs: Connection refused >&2; exit 32", "Connection refused"),
        ("exit 0", "mount has said nothing"),
    ],
)
def test_a_mount_that_fails_is_said(tmp_path: Path, script: str, said: str) -> None:
    host = Host(tmp_path, **mount_that(tmp_path, f'[ "$3" = mkdir ] && shift 2 && exec "$@"\n{script}'))
    try:
        (tmp_path / "mnt").mkdir()
        answer = shared(host, tmp_path / "mnt")
        assert not answer["ok"] and said in answer["error"] and str(tmp_path / "mnt") in answer["error"]
        assert not list((tmp_path / "mnt").iterdir())
    finally:
        host.close()


def test_a_plain_folder_is_no_shared_storage(host: Host, tmp_path: Path) -> None:
    answer = shared(host, tmp_path, "")
    assert not answer["ok"] and "no mount" in answer["error"] and "tunemount" in answer["error"]
    assert "doesn't exist" in shared(host, tmp_path / "none", "")["error"]
    assert not (tmp_path / "tune").exists()


def test_a_server_that_is_away_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = mount_that(tmp_path, "exec sleep 100")
    monkeypatch.setenv("PATH", variables["PATH"])
    monkeypatch.setattr(boot, "MOUNT", 0.2)
    (tmp_path / "mnt").mkdir()
    with pytest.raises(boot.Fault, match=r"server:/export .*mnt: no answer within 0\.2 s"):
        boot.share({"point": str(tmp_path / "mnt"), "source": "server:/export", "folder": "tune/one"})


def test_marks_are_left_found_and_removed(host: Host) -> None:
    """On a mount that is there anyway: a file system in memory."""
    base = Path("/dev/shm")
    if not os.path.ismount(base):
        pytest.skip("needs /dev/shm")
    order = {"point": str(base), "source": "", "folder": f"tune-{os.getpid()}/one", "owner": "me"}
    try:
        assert host("share", **order, write="a")["missing"] == []
        found = host("share", **order, read=["a", "b"], remove=["a"])
        assert found["missing"] == ["b"] and found["kind"] == "tmpfs"
        assert found["folder"] == f"{base}/tune-{os.getpid()}/one"
        other = host("share", **{**order, "owner": "you"})
        assert not other["ok"] and "another experiment of this name" in other["error"]
        assert host("share", **order, read=["a"], clear=True)["missing"] == ["a"]
        assert not (base / order["folder"]).exists()
    finally:
        (base / f"tune-{os.getpid()}").rmdir()
