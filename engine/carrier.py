"""Carries what trials save between the hosts and a store of blobs, so that every host can go on with it.

A checkpoint is stored when its trial's attempt has ended (with multi_phase: when its phase has a final), and a trial
that goes on with it is launched, or told the parameters of its phase, when it is stored and on its own host: first
written, then read, however many hosts there are. The bytes go through the engine. That costs each of them twice the
way, and it needs no way from the hosts to the storage, no library there, and no key or signed address that could be
found there.

    tune/<experiment>/checkpoints/<name>.tar.gz     the folder that the log calls checkpoints/<name>
    tune/<experiment>/trials/<trial id>.tar.gz      what the trial has written, its output folder
    tune/<experiment>/code/<digest>.tar.gz          what the trials of other hosts run

What fails is tried again, for as long as the engine runs. What is not stored when an engine ends, its successor stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog

from ..trial_sdk import boot, channel
from .blobs import Blobs
from .config import Config
from .errors import TuneError
from .events import Fact, Metric, TrialEnd
from .home import Folder
from .host_files import HostFiles
from .state import State, Trial

_log = structlog.get_logger("storage")
_Result = TypeVar("_Result")
LOAD, SAVE = "load_checkpoint_dir", "save_checkpoint_dir"
CHECKPOINTS = "checkpoints/"
CARRIED = ".carried-"  # folders of what is on its way
MOST = 64 << 30  # bytes of a folder, packed
AT_ONCE = 4  # transfers
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds, before it is tried again
PATIENCE = 60.0  # seconds at the end of an experiment in which nothing could be stored


class Saved:
    """A checkpoint: where its newest version was made, and, once it is stored (`done`), what it is."""

    def __init__(self, host: str, attempt: int, digest: str = "", *, done: bool = False) -> None:
        self.host, self.attempt, self.digest = host, attempt, digest
        self.done = asyncio.Event()
        if done:
            self.done.set()


class Carrier:
    """The transfers of one experiment, all in the engine's event loop."""

    def __init__(self, folder: Folder, settings: Config, blobs: Blobs) -> None:
        self._folder, self._settings, self._blobs = folder, settings, blobs
        self._prefix = f"tune/{folder.id}/"
        self._created = ""  # tells this experiment from others of its name, which were deleted
        self._saved: dict[str, Saved] = {}
        self._given: dict[tuple[str, str], str] = {}  # by host and checkpoint: the digest of what it was given
        self._listed = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._files = HostFiles(folder.id, settings)
        self._guards: dict[str, asyncio.Lock] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._bringing: dict[tuple[object, ...], asyncio.Task[None]] = {}
        self.failing: dict[str, str] = {}  # what can't be done now, and why

    # -- what is told -----------------------------------------------------------------------------------------------
    def begin(self, state: State, services: Sequence[object]) -> None:
        """Start: find out what is stored, and store what ended without a carrier."""
        for left in self._folder.path.glob(f"{CARRIED}*"):  # of an engine that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._created = str(state.created_us)
        if any(trial.host for trial in state.made):
            self._start(self._list(state))
        else:
            self._listed.set()  # a new one has nothing there; an old one of the same name may have
        for service in services:
            code: Callable[[], Awaitable[tuple[str, AsyncIterator[bytes]]]] | None = getattr(service, "code", None)
            if code is not None:
                self._start(self._store_code(code))
                break  # all services have the same

    def hear(self, state: State, fact: Fact) -> None:
        """A fact: an end, or a phase's final, means that something was saved."""
        event = fact.event
        if type(event) is Metric:
            if event.final and state.settings.multi_phase and not event.ignored and fact.trial is not None:
                trial = state.trial(fact.trial)
                self._save(trial, _name(trial, event.phase))
        elif type(event) is TrialEnd and fact.trial is not None:
            trial = state.trial(fact.trial)
            if event.status != "LOST" and trial.host and event.attempt == trial.attempt:
                self._save(trial, _name(trial, len(trial.phases) - 1))
                self._start(self._store_outputs(trial.id, trial.host, trial.attempt))

    def deliver(self, host: str, message: channel.Launch | channel.Answer, send: Callable[[], None]) -> None:
        """Have what a launch or a phase goes on with on its host, then `send`; at once where nothing has to come."""
        names = _wanted(message.parameters)
        if not names or (self._listed.is_set() and all(self._is_there(host, name) for name in names)):
            send()
            return
        key = (type(message), message.trial, message.attempt)
        if isinstance(message, channel.Answer):
            key = (*key, message.process, message.number)
        if key not in self._bringing:  # else it was said before, and is on its way
            task = asyncio.get_running_loop().create_task(self._bring(host, names, send), name=f"bring {names}")
            self._bringing[key] = task
            task.add_done_callback(lambda _: self._bringing.pop(key, None))

    async def flush(self, patience: float = PATIENCE, *, forced: bool = False) -> None:
        """Wait until everything is stored; not longer than `patience` seconds in which nothing was, when something
        fails, or when it is `forced`."""
        while self._storing:
            done, left = await asyncio.wait(self._storing, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done and (self.failing or forced):
                reasons = "; ".join(sorted(set(self.failing.values()))) or "the end was forced"
                _log.error("not stored", what=sorted(self.failing), left=len(left), reason=reasons)
                return

    async def close(self) -> None:
        """End all transfers and accesses."""
        tasks = [*self._storing, *self._bringing.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._files.close()
        await self._blobs.close()

    # -- storing ----------------------------------------------------------------------------------------------------
    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    def _save(self, trial: Trial, name: str) -> None:
        if name:
            before = self._saved.get(name)
            saved = self._saved[name] = Saved(trial.host, trial.attempt)
            self._start(self._store(name, saved, before))

    async def _list(self, state: State) -> None:
        ended = list(_ended(state))  # before anything else is heard
        outputs = [
            (trial.id, trial.host, trial.attempt)
            for trial in state.made
            if trial.over and trial.host and trial.status != "LOST"
        ]
        stored = await self._patiently("the list of what is stored", lambda: self._blobs.names(self._prefix))
        kept = {blob: notes for blob, notes in stored.items() if notes.get("created") == self._created}
        for blob, notes in kept.items():
            name = blob.removeprefix(self._prefix).removesuffix(".tar.gz")
            if name.startswith(CHECKPOINTS) and name not in self._saved:
                attempt = int(notes.get("attempt", "0"))
                self._saved[name] = Saved(notes.get("host", ""), attempt, notes.get("digest", ""), done=True)
        for name, trial in ended:
            known = self._saved.get(name)
            if known is None or (known.attempt < trial.attempt and not state.settings.multi_phase):
                self._save(trial, name)
        self._listed.set()
        for identity, host, attempt in outputs:
            notes = kept.get(f"{self._prefix}trials/{identity}.tar.gz")
            if notes is None or int(notes.get("attempt", "0")) < attempt:
                self._start(self._store_outputs(identity, host, attempt))

    async def _store(self, name: str, saved: Saved, before: Saved | None) -> None:
        digest = await self._move(name, saved.host, saved.attempt)
        if not digest and before is not None and before.done.is_set():  # nothing new: what was stored holds
            digest, saved.host = before.digest, before.host
        saved.digest = digest
        saved.done.set()

    async def _store_outputs(self, identity: str, host: str, attempt: int) -> None:
        await self._move(f"trials/{identity}", host, attempt)

    async def _move(self, path: str, host: str, attempt: int) -> str:
        """From a host to the store: the digest, "" when there is nothing."""
        with tempfile.TemporaryDirectory(dir=self._folder.path, prefix=CARRIED) as room:
            packed = Path(room) / "packed"
            digest = await self._patiently(f"{path} from host {host}", lambda: self._take(host, path, packed))
            if digest:
                notes = {"digest": digest, "host": host, "attempt": str(attempt), "created": self._created}
                blob = f"{self._prefix}{path}.tar.gz"
                await self._patiently(f"{path} to the storage", lambda: self._blobs.put(blob, packed, notes))
            return digest

    async def _store_code(self, code: Callable[[], Awaitable[tuple[str, AsyncIterator[bytes]]]]) -> None:
        async def store() -> None:
            digest, pieces = await code()
            blob = f"{self._prefix}code/{digest}.tar.gz"
            if blob in await self._blobs.names(blob):
                return
            with tempfile.TemporaryDirectory(dir=self._folder.path, prefix=CARRIED) as room:
                packed = Path(room) / "packed"
                await _write(packed, pieces)
                await self._blobs.put(blob, packed, {"digest": digest})

        await self._patiently("the code to the storage", store)

    # -- bringing -----------------------------------------------------------------------------------------------------
    def _is_there(self, host: str, name: str) -> bool:
        saved = self._saved.get(name)
        return saved is None or saved.host == host

    async def _bring(self, host: str, names: Sequence[str], send: Callable[[], None]) -> None:
        await self._listed.wait()
        for name in names:
            while name in self._saved and not self._saved[name].done.is_set():
                await self._saved[name].done.wait()
            saved = self._saved.get(name)
            if saved is not None and saved.host != host and saved.digest:
                work = functools.partial(self._give, host, name, saved.digest)
                await self._patiently(f"{name} to host {host}", work)
        send()

    async def _give(self, host: str, name: str, digest: str) -> None:
        """From the store to a host."""
        if self._given.get((host, name)) == digest:
            return
        with tempfile.TemporaryDirectory(dir=self._folder.path, prefix=CARRIED) as room:
            packed = Path(room) / "packed"
            if await self._blobs.get(f"{self._prefix}{name}.tar.gz", packed) is None:
                raise TuneError(f"{self._blobs.where}: {name} was stored there, and is there no more")
            size, found = await asyncio.to_thread(_measured, packed)
            if found != digest:
                raise TuneError(f"{self._blobs.where}: {name} is not what was stored there")
            async with self._guard(host):
                files = await self._files.of(host)
                if files is None:
                    await asyncio.to_thread(_settle, packed, self._folder.path / name, digest)
                else:
                    await files.give(name, packed, size, digest)
        self._given[host, name] = digest

    # -- hosts --------------------------------------------------------------------------------------------------------
    async def _take(self, host: str, path: str, packed: Path) -> str:
        async with self._guard(host):
            files = await self._files.of(host)
            if files is None:
                return await asyncio.to_thread(_pack, self._folder.path / path, packed)
            await _write(packed, files.take(path, MOST, optional=True))
        size, digest = await asyncio.to_thread(_measured, packed)
        return digest if size else ""

    @contextlib.asynccontextmanager
    async def _guard(self, host: str) -> AsyncGenerator[None]:
        """One transfer with a host at a time; after one that fails the next begins with a new access."""
        async with self._guards.setdefault(host, asyncio.Lock()):
            try:
                yield
            except BaseException:
                await self._files.drop(host)
                raise

    async def _patiently(self, what: str, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do something, again and again until it is done."""
        failures = 0
        while True:
            try:
                async with self._slots:
                    done = await work()
            except Exception as error:  # also a plug-in's own: whatever it raises, it is not done
                reason = error.message if isinstance(error, TuneError) else f"{type(error).__name__}: {error}"
                if self.failing.get(what) != reason:
                    _log.warning("storage waits", what=what, reason=reason)
                self.failing[what] = reason
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
                continue
            if self.failing.pop(what, None) is not None:
                _log.info("storage goes on", what=what)
            return done


# -- what is in the log -----------------------------------------------------------------------------------------------
def _name(trial: Trial, phase: int) -> str:
    """What a phase saves, "checkpoints/12"; "" when the log's parameters name nothing of the kind."""
    if not 0 <= phase < len(trial.phases):
        return ""
    return _checkpoint(_read(bytes(trial.phases[phase].parameters).decode()), SAVE)


def _wanted(parameters: str | None) -> list[str]:
    """What has to be there before these parameters are told: what is gone on with, and what was saved before."""
    given = _read(parameters or "{}")
    return list(dict.fromkeys(name for key in (LOAD, SAVE) if (name := _checkpoint(given, key))))


def _read(text: str) -> dict[str, Any]:
    found: Any = json.loads(text) if "_checkpoint_dir" in text else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _checkpoint(parameters: Mapping[str, Any], key: str) -> str:
    value = parameters.get(key)
    name = value.removeprefix(CHECKPOINTS) if isinstance(value, str) and value.startswith(CHECKPOINTS) else ""
    return f"{CHECKPOINTS}{name}" if name and "/" not in name and not name.startswith(".") else ""


def _ended(state: State) -> list[tuple[str, Trial]]:
    """The checkpoints that must have been saved by now, each with its trial."""
    found: list[tuple[str, Trial]] = []
    for trial in state.made:
        for index, phase in enumerate(trial.phases):
            ended = trial.over and trial.status != "LOST"
            if (name := _name(trial, index)) and trial.host and (ended or (state.settings.multi_phase and phase.final)):
                found.append((name, trial))
    return found


# -- files ------------------------------------------------------------------------------------------------------------
async def _write(path: Path, pieces: AsyncIterator[bytes]) -> None:
    with path.open("wb") as file:
        async for data in pieces:
            file.write(data)


def _measured(path: Path) -> tuple[int, str]:
    """A file's size, and its BLAKE2b-256 digest."""
    size, digest = 0, hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            size += len(data)
            digest.update(data)
    return size, digest.hexdigest()


def _pack(path: Path, packed: Path) -> str:
    """A folder of this host, packed: its digest, "" when there is nothing in it."""
    if not path.is_dir() or not any(path.iterdir()):
        return ""
    with packed.open("wb") as file:
        boot.pack(path, file)
    return _measured(packed)[1]


def _settle(packed: Path, target: Path, digest: str) -> None:
    """Have a folder of this host be what a tar holds."""
    if boot.came(target) == digest and target.is_dir():
        return
    target.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as room:
        boot.unpacked(packed, Path(room) / "whole")
        boot.settle(Path(room) / "whole", target, digest)
