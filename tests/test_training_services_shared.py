"""Storage that hosts mount, with hosts that answer from a table: who is admitted, and what is said of who is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tune.engine.config import Config, SharedStorage
from tune.training_services import _shared
from tune.training_services._ssh import Unreachable


class Host:
    """A host whose `share` works on a set of marks, which others may share with it."""

    def __init__(self, marks: set[str], fault: str = "") -> None:
        self.marks, self.fault = marks, fault
        self.orders: list[dict[str, Any]] = []

    async def order(self, do: str, **rest: Any) -> dict[str, Any]:
        assert do == "share"
        self.orders.append(rest)
        if self.fault:
            raise Unreachable(self.fault)
        if "write" in rest:
            self.marks.add(rest["write"])
        missing = [name for name in rest.get("read", []) if name not in self.marks]
        self.marks.difference_update(rest.get("remove", []))
        return {"folder": f"{rest['point']}/{rest['folder']}", "kind": "nfs4", "source": "s:/x", "missing": missing}


class Nothing:
    """Code that is there already."""

    name = "digest"
    size = 0
    digest = "digest"


def shared(**fields: Any) -> _shared.Shared:
    given = {
        "nfs_server": "s",
        "exported_directory": "/x",
        "local_mount_point": "/here",
        "remote_mount_point": "/there",
    }
    return _shared.Shared(SharedStorage(storage_type="NFS", **{**given, **fields}), "exp", "me")


def admitted(what: _shared.Shared, *hosts: tuple[str, Host], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each host's folder for the code, in turn."""

    async def put(opened: Any, folder: str, path: str, packed: Any) -> str:
        return f"{folder}/{path}"

    async def main() -> list[str]:
        return [await what.code(name, host, Nothing()) for name, host in hosts]  # type: ignore[arg-type]  # stand-ins

    monkeypatch.setattr(_shared, "put", put)
    return asyncio.run(main())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Host:
    """This host, in a session of its own."""
    made = Host(set())

    @contextlib.asynccontextmanager
    async def session() -> AsyncGenerator[Host]:
        yield made

    monkeypatch.setattr(_shared, "session_here", session)
    return made


def test_both_have_to_see_what_the_other_writes(here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    what = shared()
    one = Host(here.marks)
    assert admitted(what, ("one", one), monkeypatch=monkeypatch) == ["/there/tune/exp/code/digest"]
    assert not here.marks and len(here.orders) == 2 and len(one.orders) == 1
    assert {order["source"] for order in here.orders} == {""} and one.orders[0]["source"] == "s:/x"
    assert {order["owner"] for order in (*here.orders, *one.orders)} == {"me"}
    assert what.environment("one", "t1") == {
        "TUNE_OUTPUT_DIR": "/there/tune/exp/trials/t1",
        "NNI_OUTPUT_DIR": "/there/tune/exp/trials/t1",
        "TUNE_CHECKPOINT_DIR": "/there/tune/exp/checkpoints",
    }
    with pytest.raises(Unreachable, match=r"/there \(nfs4 s:/x\) is not what this host has: a mark .* on /here"):
        admitted(what, ("two", Host(set())), monkeypatch=monkeypatch)

    class OneWay(Host):
        """A host that reads what others write, and whose own writing goes elsewhere."""

        async def order(self, do: str, **rest: Any) -> dict[str, Any]:
            return await super().order(do, **{key: value for key, value in rest.items() if key != "write"})

    with pytest.raises(Unreachable, match=r"what host three writes to /there .* is not seen on this host"):
        admitted(what, ("three", OneWay(here.marks)), monkeypatch=monkeypatch)


def test_without_a_mount_here_the_first_host_is_the_measure(here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    what = shared(local_mounted="nomount", remote_mounted="usermount", nfs_server="::1")
    one, other = Host(set()), Host(set())
    hosts = (("one", one), ("two", Host(one.marks)), ("one", one))
    assert len(set(admitted(what, *hosts, monkeypatch=monkeypatch))) == 1 and not here.orders
    assert one.orders[0]["source"] == ""
    with pytest.raises(Unreachable, match="is not what host one has"):
        admitted(what, ("three", other), monkeypatch=monkeypatch)


def test_a_first_host_that_fails_is_no_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    what = shared(local_mounted="nomount", nfs_server="fe80::1")
    bad = Host(set(), "mount: no route")
    with pytest.raises(Unreachable, match="shared storage there: mount: no route"):
        admitted(what, ("bad", bad), monkeypatch=monkeypatch)
    assert bad.orders[0]["source"] == "[fe80::1]:/x"
    admitted(what, ("good", Host(set())), monkeypatch=monkeypatch)


def test_trials_here_need_the_mount_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    what, host = shared(local_mounted="tunemount"), Host(set())
    assert admitted(what, ("local", host), monkeypatch=monkeypatch) == ["/here/tune/exp/code/digest"]
    assert host.orders[0]["source"] == "s:/x" and not host.marks


def test_an_experiment_is_told_from_others_of_its_name(tmp_path: Path) -> None:
    nfs = SharedStorage(storage_type="NFS", local_mount_point="/here")
    config = Config(search_space={}, trial_command="true", trial_code_directory="/", shared_storage=nfs)
    first = _shared.of(tmp_path, config)
    assert first is not None and _shared.of(tmp_path, config) is first
    word = (tmp_path / "storage.owner").read_text()
    assert len(word) == 16
    del first
    assert _shared.of(tmp_path, config) is not None and (tmp_path / "storage.owner").read_text() == word
    assert _shared.of(tmp_path, Config(search_space={}, trial_command="true", trial_code_directory="/")) is None


def test_this_host_answers_like_any_other(tmp_path: Path) -> None:
    """boot.py, in a process of its own: a plain folder is no mount there either."""
    folder = tmp_path / "plain"
    folder.mkdir()
    what = shared(local_mount_point=str(folder))

    async def main() -> None:
        async with _shared.session_here() as opened:
            await what.try_there("local", opened)

    with pytest.raises(Unreachable, match=r"host local: shared storage here: .*plain is a folder of .* no mount"):
        asyncio.run(main())
