"""engine/blobs.py against a real Azurite: what is stored is whole; what fails says so, in time and without the key."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azurite import ACCOUNT, KEY, Azurite, CutLine

from tune.engine.blobs import Blobs, BlobsError
from tune.engine.config import SharedStorage


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(tmp_path_factory.mktemp("azurite") / "log")
    server.container("trials").close()
    yield server
    server.stop()


def blobs(monkeypatch: pytest.MonkeyPatch, connection: str, container: str = "trials", patience: float = 10.0) -> Blobs:
    monkeypatch.setenv("CONNECTION", connection)
    storage = SharedStorage(storage_type="AzureBlob", container_name=container, connection_string="env:CONNECTION")
    return Blobs(storage, patience)


def failed(work: Any) -> BlobsError:
    with pytest.raises(BlobsError) as caught:
        asyncio.run(work)
    assert KEY not in str(caught.value) and "AAAA" not in str(caught.value)
    return caught.value


def test_what_is_stored_comes_back_with_its_notes(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = blobs(monkeypatch, azurite.connection())
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 40_000)  # more than two blocks

    async def main() -> None:
        await store.check()
        assert await store.names("a/") == {} and await store.get("a/b", target) is None
        await store.put("a/b", source, {"digest": "1", "host": "one:2"})
        await store.put("other", source, {})
        assert await store.names("a/") == {"a/b": {"digest": "1", "host": "one:2"}}
        assert await store.get("a/b", target) == {"digest": "1", "host": "one:2"}
        assert target.read_bytes() == source.read_bytes()
        source.write_bytes(b"new")
        await store.put("a/b", source, {"digest": "2"})
        assert await store.get("a/b", target) == {"digest": "2"} and target.read_bytes() == b"new"
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("key", ["AAAA", KEY[:-8] + "AAAAAA==", "!"])
def test_a_wrong_key_is_said_and_not_shown(azurite: Azurite, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    error = failed(blobs(monkeypatch, azurite.connection(key)).check())
    assert "does not let us in" in error.message and "env:CONNECTION" in (error.hint or "")


def test_a_container_that_is_not_there(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failed(blobs(monkeypatch, azurite.connection(), "nowhere").check())
    assert "container nowhere" in error.message and "az storage container create" in (error.hint or "")


def test_what_is_no_connection_string_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BlobsError, match="env:CONNECTION: no connection string") as caught:
        blobs(monkeypatch, f"nonsense {KEY}")
    assert KEY not in str(caught.value)


def test_an_account_by_its_name_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNT_KEY", KEY)
    storage = SharedStorage(
        storage_type="AzureBlob",
        container_name="trials",
        storage_account_name=ACCOUNT,
        storage_account_key="env:ACCOUNT_KEY",
    )
    store: Any = Blobs(storage)
    assert store._client.url == f"https://{ACCOUNT}.blob.core.windows.net/trials"


def test_without_the_library_the_line_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BlobsError) as caught:
        blobs(monkeypatch, "")
    assert caught.value.hint == "pip install 'tune-engine[azure]'"


def test_a_server_that_says_nothing_is_not_waited_for_without_end(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = blobs(monkeypatch, azurite.connection(), patience=0.5)
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)

    async def main() -> None:
        azurite.suspend()
        try:
            for work in (store.check(), store.put("late", source, {}), store.get("late", tmp_path / "target")):
                with pytest.raises(BlobsError, match=r"does not answer within 0\.5 s"):
                    await work
        finally:
            azurite.go_on()
        await store.put("late", source, {})
        assert "late" in await store.names("")

    asyncio.run(main())


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch, azurite: Azurite) -> None:
    error = failed(blobs(monkeypatch, azurite.connection(port=1)).check())
    assert "can't be reached" in error.message and "refused" in error.message


def test_an_upload_that_is_cut_leaves_nothing(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = CutLine(azurite.port, after=6 << 20)
    store = blobs(monkeypatch, azurite.connection(port=line.port))
    source = tmp_path / "source"
    source.write_bytes(b"x" * (20 << 20))

    async def main() -> None:
        with pytest.raises(BlobsError, match="trials"):
            await store.put("cut", source, {})
        assert line.cuts == 1 and await store.get("cut", tmp_path / "target") is None
        await store.put("cut", source, {"digest": "1"})
        assert await store.get("cut", tmp_path / "target") == {"digest": "1"}
        assert (tmp_path / "target").stat().st_size == 20 << 20

    try:
        asyncio.run(main())
    finally:
        line.close()
