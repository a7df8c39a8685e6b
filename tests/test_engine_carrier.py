"""engine/carrier.py with hosts that are folders and a store that is a dict: what is stored, brought, waited for."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tune.engine import carrier as room
from tune.engine import registry
from tune.engine.carrier import Carrier
from tune.engine.config import Config, TrainingService
from tune.engine.errors import TuneError
from tune.engine.events import Fact, Metric, TrialEnd
from tune.engine.home import Folder
from tune.engine.state import Phase, State, Trial
from tune.trial_sdk import channel

read, write = Path.read_bytes, Path.write_bytes


class Store:
    """Blobs in memory. While `away` holds, nothing is answered but that."""

    where = "the store"

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.away = ""
        self.asked = 0

    def _asked(self) -> None:
        self.asked += 1
        if self.away:
            raise TuneError(self.away)

    async def names(self, prefix: str) -> dict[str, dict[str, str]]:
        self._asked()
        return {name: notes for name, (_, notes) in self.kept.items() if name.startswith(prefix)}

    async def put(self, name: str, path: Path, notes: dict[str, str]) -> None:
        self._asked()
        self.kept[name] = (read(path), notes)

    async def get(self, name: str, path: Path) -> dict[str, str] | None:
        self._asked()
        if name not in self.kept:
            return None
        write(path, self.kept[name][0])
        return self.kept[name][1]

    async def close(self) -> None: ...


class Files:
    """A host that is a folder."""

    def __init__(self, folder: Path, given: list[str]) -> None:
        self.folder, self.given = folder, given

    async def take(self, path: str, limit: int, *, optional: bool = False) -> AsyncIterator[bytes]:
        if not self.folder.is_dir():
            raise TuneError("the host is away")
        assert optional
        if not (self.folder / path).is_dir():
            return
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as archive:
            archive.add(self.folder / path, arcname=".")
        yield data.getvalue()

    async def give(self, path: str, packed: Path, size: int, digest: str) -> None:
        data = read(packed)
        assert len(data) == size and hashlib.blake2b(data, digest_size=32).hexdigest() == digest
        shutil.rmtree(self.folder / path, ignore_errors=True)
        with tarfile.open(packed) as archive:
            archive.extractall(self.folder / path, filter="data")
        self.given.append(f"{self.folder.name}:{path}")

    async def close(self) -> None: ...


class World:
    """Hosts one and two, a store, and a carrier between them."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch, *, multi_phase: bool = False) -> None:
        self.base, self.store, self.given = base, Store(), list[str]()
        for name in ("home", "one", "two"):
            (base / name).mkdir()
        world = self

        class Service:
            @staticmethod
            async def files(own: TrainingService, host: str, experiment: str) -> Files | None:
                assert experiment == "exp"
                return None if host == "local" else Files(world.base / host, world.given)

        monkeypatch.setattr(registry, "training_service_class", lambda name: Service)
        monkeypatch.setattr(room, "PAUSES", (0.001,))
        self.config = Config(
            search_space={}, trial_command="true", trial_code_directory="/", multi_phase=multi_phase, max_retries=3
        )
        self.state = State(id="exp", created_us=7, config=self.config)
        self.carrier = self.successor()

    def successor(self) -> Carrier:
        """The next engine's carrier."""
        folder = Folder("exp", self.base / "home", self.base / "home")
        self.carrier = Carrier(folder, self.config, self.store)  # type: ignore[arg-type]  # a store of ours
        return self.carrier

    def trial(self, host: str, text: str = "", *, load: int | None = None, status: str = "RUNNING") -> Trial:
        """One more trial, and what it has saved."""
        number = len(self.state.trials)
        source = number if load is None else load
        given = {"load_checkpoint_dir": f"checkpoints/{source}", "save_checkpoint_dir": f"checkpoints/{number}"}
        made = Trial(number, f"t{number}", "tuner", 0, status=status, host=host)
        made.phases = [Phase(msgspec.Raw(msgspec.json.encode(given)), 0)]
        self.state.trials.append(made)
        if text:
            self.write(host, f"checkpoints/{number}", text)
        return made

    def write(self, host: str, path: str, text: str) -> None:
        (self.base / host / path).mkdir(parents=True, exist_ok=True)
        (self.base / host / path / "weights").write_text(text)

    def weights(self, host: str, number: int) -> str:
        return (self.base / host / f"checkpoints/{number}/weights").read_text()

    def ended(self, trial: Trial, status: str = "SUCCEEDED") -> None:
        """Its TRIAL_END, as the engine hears it."""
        trial.status = status
        self.carrier.hear(self.state, fact(TrialEnd(trial.attempt, status), trial.number))

    def deliver(self, trial: Trial, host: str) -> list[str]:
        """Have it launched: the list grows when that is said."""
        said: list[str] = []
        message = channel.Launch(
            trial.id, trial.attempt, trial.number, 0, bytes(trial.phases[0].parameters).decode(), "true", "/"
        )
        self.carrier.deliver(host, message, lambda: said.append(host))
        return said

    @property
    def checkpoints(self) -> list[str]:
        return sorted(name for name in self.store.kept if "/checkpoints/" in name)


def fact(event: Any, trial: int) -> Fact:
    return Fact(1, 1, "e1", 1, trial, None, 0, event)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- many different things are waited for
            await asyncio.sleep(0.002)


def test_written_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    async def main() -> None:
        (tmp_path / "home/.carried-by-a-killed-engine").mkdir()
        world.carrier.begin(world.state, [])
        parent = world.trial("one", "parent's")
        assert world.deliver(parent, "one") == ["one"]  # nothing has to come
        world.store.away = "not now"
        world.ended(parent)
        child = world.trial("two", load=0)
        said = world.deliver(child, "two")
        assert world.deliver(child, "two") == []  # once more, after a reconnect, say
        await until(lambda: world.store.asked > 3)
        assert not said and not world.given and list(world.carrier.failing.values()) == ["not now"]
        world.store.away = ""
        await until(lambda: said)
        assert said == ["two"] and world.weights("two", 0) == "parent's" and world.given == ["two:checkpoints/0"]
        await world.carrier.flush()
        assert not world.carrier.failing and world.checkpoints == ["tune/exp/checkpoints/0.tar.gz"]
        assert world.deliver(world.trial("one", load=0), "one") == ["one"]  # made there
        again = world.deliver(world.trial("two", load=0), "two")
        await until(lambda: again)
        assert world.given == ["two:checkpoints/0"]
        await world.carrier.close()
        assert not list((tmp_path / "home").iterdir())

    asyncio.run(main())


def test_this_host_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    async def main() -> None:
        world.carrier.begin(world.state, [])
        world.write("home", "checkpoints/0", "made here")
        world.ended(world.trial("local"))
        said = world.deliver(world.trial("two", load=0), "two")
        await until(lambda: said)
        assert world.weights("two", 0) == "made here"
        world.ended(world.trial("two", "made there"))
        said = world.deliver(world.trial("local", load=2), "local")
        await until(lambda: said)
        assert world.weights("home", 2) == "made there"
        await world.carrier.flush()
        await world.carrier.close()

    asyncio.run(main())


def test_a_successor_stores_what_is_missing_and_brings_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)

    async def first() -> None:
        world.carrier.begin(world.state, [])
        world.ended(world.trial("one", "stored"))
        await world.carrier.flush()
        world.store.away = "away"
        world.ended(world.trial("one", "not stored"))
        world.ended(world.trial("one", "lost"), "LOST")
        await world.carrier.flush(0.05)
        assert world.carrier.failing
        await world.carrier.close()

    async def second() -> None:
        world.store.away = ""
        foreign = {"digest": "?", "host": "one", "attempt": "0", "created": "6"}
        world.store.kept["tune/exp/checkpoints/2.tar.gz"] = (b"", foreign)  # of a deleted one with the same name
        world.successor().begin(world.state, [])
        child = world.deliver(world.trial("two", load=1), "two")
        await until(lambda: child)
        assert world.weights("two", 1) == "not stored"
        await world.carrier.flush()
        await world.carrier.close()
        (tmp_path / "one").rename(tmp_path / "gone")

    async def third() -> None:
        world.successor().begin(world.state, [])
        child = world.deliver(world.trial("two", load=0), "two")
        await until(lambda: child)
        assert world.weights("two", 0) == "stored"
        await world.carrier.close()

    for part in (first, second, third):
        asyncio.run(part())
    assert sorted(world.given) == ["two:checkpoints/0", "two:checkpoints/1"]


def test_a_second_attempt_finds_what_the_first_has_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    async def main() -> None:
        world.carrier.begin(world.state, [])
        one = world.trial("one", "half")
        world.ended(one, "FAILED")
        one.status, one.attempt, one.host = "WAITING", 1, "two"
        said = world.deliver(one, "two")
        await until(lambda: said)
        assert world.weights("two", 0) == "half"
        world.write("two", "checkpoints/0", "whole")
        world.ended(one)
        await world.carrier.flush()
        assert world.store.kept["tune/exp/checkpoints/0.tar.gz"][1]["attempt"] == "1"
        child = world.deliver(world.trial("one", load=0), "one")
        await until(lambda: child)
        assert world.weights("one", 0) == "whole"  # in the place of the half that lies there
        await world.carrier.close()

    asyncio.run(main())


def test_an_attempt_that_saves_nothing_leaves_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    async def main() -> None:
        world.carrier.begin(world.state, [])
        one = world.trial("one", "half")
        world.ended(one, "FAILED")
        await world.carrier.flush()
        one.attempt, one.host = 1, "two"
        world.ended(one, "FAILED")
        await world.carrier.flush()
        one.attempt, one.host = 2, "two"
        said = world.deliver(one, "two")
        await until(lambda: said)
        assert world.weights("two", 0) == "half"
        nothing = world.trial("one")
        world.ended(nothing)
        child = world.deliver(world.trial("two", load=1), "two")
        await until(lambda: child)  # there is nothing to wait for
        await world.carrier.close()

    asyncio.run(main())


def test_a_phase_is_stored_at_its_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, multi_phase=True)

    async def main() -> None:
        world.carrier.begin(world.state, [])
        parent = world.trial("one", "phase 0")
        world.carrier.hear(world.state, fact(Metric(msgspec.Raw(b"1"), 0, True, "late"), 0))
        await world.carrier.flush()
        assert not world.checkpoints
        world.carrier.hear(world.state, fact(Metric(msgspec.Raw(b"1"), 0, True), 0))
        said: list[str] = []
        text = bytes(parent.phases[0].parameters).decode()
        world.trial("two")
        answer = channel.Answer("t1", 0, "p", 1, 1, text.replace('save_checkpoint_dir":"checkpoints/0', 'x":"'))
        world.carrier.deliver("two", answer, lambda: said.append("told"))
        await until(lambda: said)
        assert world.weights("two", 0) == "phase 0"
        world.carrier.deliver("two", channel.Answer("t1", 0, "p", 2, -1, None), lambda: said.append("nothing more"))
        assert said == ["told", "nothing more"]
        await world.carrier.close()

    asyncio.run(main())


def test_what_came_back_changed_is_not_given_to_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    async def main() -> None:
        world.carrier.begin(world.state, [])
        world.ended(world.trial("one", "right"))
        await world.carrier.flush()
        whole = world.store.kept["tune/exp/checkpoints/0.tar.gz"]
        world.store.kept["tune/exp/checkpoints/0.tar.gz"] = (whole[0][:-1], whole[1])
        said = world.deliver(world.trial("two", load=0), "two")
        await until(lambda: world.carrier.failing)
        assert "is not what was stored there" in next(iter(world.carrier.failing.values()))
        world.store.kept["tune/exp/checkpoints/0.tar.gz"] = whole
        await until(lambda: said)
        assert world.weights("two", 0) == "right"
        await world.carrier.close()

    asyncio.run(main())


def test_paths_of_the_user_s_own_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    async def main() -> None:
        world.carrier.begin(world.state, [])
        for path in ("/shared/3", "checkpoints/../x", "checkpoints/a/b", "checkpoints/", "elsewhere", 5):
            one = world.trial("one")
            given = {"load_checkpoint_dir": path, "save_checkpoint_dir": path}
            one.phases[0].parameters = msgspec.Raw(msgspec.json.encode(given))
            world.ended(one)
            assert world.deliver(one, "two") == ["two"]
        await world.carrier.flush()
        assert not world.checkpoints
        await world.carrier.close()

    asyncio.run(main())


def test_the_code_is_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)

    class Service:
        async def code(self) -> tuple[str, AsyncIterator[bytes]]:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"co"
                yield b"de"

            return "abc", pieces()

    async def main() -> None:
        for _ in range(2):
            world.successor().begin(world.state, [object(), Service(), Service()])
            await world.carrier.flush()
            await world.carrier.close()

    asyncio.run(main())
    assert {name: data for name, (data, _) in world.store.kept.items()} == {"tune/exp/code/abc.tar.gz": b"code"}
    assert world.store.asked == 3
