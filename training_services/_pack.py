"""What goes to a machine: the trials' code and our SDK, each packed once and named by its content."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pathspec
from packaging.tags import Tag, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from ..engine.errors import TuneError
from ..trial_sdk.wire import VERSION

MAX_FILES = 2000
MAX_BYTES = 300 << 20
IGNORES = (".tuneignore", ".nniignore")  # the first that is there, in the syntax of .gitignore
ALWAYS = (".git/", "__pycache__/", "*.pyc", ".venv/", "node_modules/", ".ipynb_checkpoints/")
_PIECE = 1 << 18


class TooMuch(TuneError):
    """More code than is sent to a machine."""


class Packed:
    """A compressed tar in a file that has no name: its size, its digest, and its bytes, for any number of machines."""

    def __init__(self, file: IO[bytes]) -> None:
        """Takes `file` over, as long as this lives."""
        self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)
        digest = hashlib.blake2b(digest_size=32)
        file.seek(0)
        self.size = 0
        while data := file.read(_PIECE):
            digest.update(data)
            self.size += len(data)
        file.close()
        self.digest = digest.hexdigest()

    @property
    def name(self) -> str:
        """What tells it from others: the beginning of its digest."""
        return self.digest[:16]

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes."""
        offset = 0
        while data := os.pread(self._fd, _PIECE, offset):
            offset += len(data)
            yield data


# -- code -------------------------------------------------------------------------------------------------------------
def code(directory: Path) -> Packed:
    """A trial_code_directory, without what its .tuneignore (or .nniignore) names; `TooMuch`.

    The same files give the same bytes: names are sorted, times and owners left out. Links to files are followed.
    """
    files = list(_files(directory))
    size = sum(path.stat().st_size for path, _ in files)
    if len(files) > MAX_FILES or size > MAX_BYTES:
        raise TooMuch(
            f"{directory} has {len(files)} files with {size / 2**20:.0f} MiB; allowed: {MAX_FILES} files with "
            f"{MAX_BYTES >> 20} MiB, since they are sent to each machine",
            f"Name what trials don't need in {directory / IGNORES[0]}, as in a .gitignore.",
        )
    return Packed(_tar(files))


def _files(directory: Path) -> Iterator[tuple[Path, str]]:
    """The files that belong to it, with their names in the tar, sorted."""
    lines: list[str] = list(ALWAYS)
    for name in IGNORES:
        if (directory / name).is_file():
            lines += (directory / name).read_text(encoding="utf-8", errors="replace").splitlines()
            break
    ignored = pathspec.GitIgnoreSpec.from_lines(lines)
    for folder, folders, names in os.walk(directory):
        here = Path(folder).relative_to(directory)
        folders[:] = sorted(name for name in folders if not ignored.match_file(f"{here / name}/"))
        for name in sorted(names):
            path = Path(folder) / name
            if not ignored.match_file(str(here / name)) and path.is_file():
                yield path, str(here / name)


def _tar(files: list[tuple[Path, str]]) -> IO[bytes]:
    """The files, packed: always the same bytes for the same files."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as what is packed
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=output, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as archive,
    ):
        for path, name in files:
            with path.open("rb") as file:
                member = tarfile.TarInfo(name)
                member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
                content = file.read()  # whole: a file that grows meanwhile must not break the tar
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return output


class Code:
    """The trials' code, packed when a host first wants it: what all hosts run while this engine runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._packed: Packed | None = None
        self._guard = asyncio.Lock()

    async def packed(self) -> Packed:
        """The code. `TuneError` when it is too much."""
        async with self._guard:
            if self._packed is None:
                self._packed = await asyncio.to_thread(code, self._directory)
            return self._packed


# -- the SDK ----------------------------------------------------------------------------------------------------------
CHECK = "import msgspec, tune.trial_sdk.keeper, tune.trial_sdk.sdk, tune.trial_sdk.connection, tune.trial_sdk.spool"


class NoWheel(TuneError):
    """No build of msgspec for a machine."""


def fits(looked: dict[str, Any]) -> bool:
    """Whether the tune-engine that is installed on a machine can serve this engine as it is."""
    return str(looked["installed"].get("wire", "")) == str(VERSION) and bool(looked["msgspec"])


def sdk(looked: dict[str, Any], wheels: Path | None = None) -> Packed:
    """The SDK for a machine: our own modules, and msgspec where the machine has none; `NoWheel`."""
    files = list(_modules())
    with tempfile.TemporaryDirectory() as folder:
        if not looked["msgspec"]:
            files += _msgspec(looked, wheels, Path(folder))
        return Packed(_tar(sorted(files, key=lambda one: one[1])))


def _modules() -> Iterator[tuple[Path, str]]:
    """What a trial and a keeper import of ours."""
    package = Path(__file__).parents[1]
    yield package / "__init__.py", "tune/__init__.py"
    for path in sorted((package / "trial_sdk").glob("*.py")):
        yield path, f"tune/trial_sdk/{path.name}"


def _msgspec(looked: dict[str, Any], wheels: Path | None, folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a msgspec that runs there: out of `wheels`, our own where the machine is like ours, or by pip."""
    ours = Path(msgspec.__file__).parent
    if wheels is None and looked["soabi"] and looked["soabi"] == sysconfig.get_config_var("SOABI"):
        for path in sorted(ours.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path, str(Path("msgspec") / path.relative_to(ours))
        return
    with zipfile.ZipFile(_wheel(looked, wheels, folder)) as archive:
        archive.extractall(folder / "msgspec")
    for path in sorted((folder / "msgspec" / "msgspec").rglob("*")):
        if path.is_file():
            yield path, str(path.relative_to(folder / "msgspec"))


def tags(looked: dict[str, Any]) -> list[Tag]:
    """The tags of wheels that a machine takes, the best first (PEP 425, PEP 600)."""
    machine = looked["machine"]
    platforms = [f"linux_{machine}"]
    name, version = looked["libc"]
    if looked["system"] == "Darwin":
        platforms = [f"macosx_{major}_0_{machine}" for major in range(20, 10, -1)]
    elif name == "glibc":
        minor = int(version.split(".")[1])
        platforms = [f"manylinux_2_{number}_{machine}" for number in range(minor, 4, -1)]
        platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    else:
        platforms = [f"musllinux_1_{number}_{machine}" for number in range(5, -1, -1)] + platforms
    return list(cpython_tags(tuple(looked["python"][:2]), platforms=platforms))


def _wheel(looked: dict[str, Any], wheels: Path | None, folder: Path) -> Path:
    """A wheel of msgspec for a machine, from a folder of wheels or by pip; `NoWheel`."""
    able = tags(looked)
    what = f"msgspec for Python {looked['python'][0]}.{looked['python'][1]} on {looked['system']} {looked['machine']}"
    if wheels is None:
        wheels = folder / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", ".".join(map(str, looked["python"][:2])), "--implementation", "cp"]
        for platform in dict.fromkeys(tag.platform for tag in able):
            command += ["--platform", platform]
        done = subprocess.run(
            [*command, "--dest", str(wheels), f"msgspec=={msgspec.__version__}"], capture_output=True, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise NoWheel(
                f"there is no {what} here, and pip finds none: {reason}",
                f"pip download --only-binary=:all: ... msgspec=={msgspec.__version__} where there is a net, and "
                "give that folder: tune host prepare HOST --wheels DIR",
            )
    best: tuple[int, Path] | None = None
    for path in sorted(wheels.glob("msgspec-*.whl")):
        try:
            _, _, _, found = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        places = [able.index(tag) for tag in found if tag in able]
        if places and (best is None or min(places) < best[0]):
            best = (min(places), path)
    if best is None:
        raise NoWheel(f"{wheels} has no wheel of {what}", "It takes a file msgspec-VERSION-cp...whl for that machine.")
    return best[1]
