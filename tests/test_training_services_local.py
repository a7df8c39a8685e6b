"""The training service "local": it starts a keeper when none runs, finds the one that does, and says why it can't."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest

from tune.training_services.local import KeeperUnreachable, Local
from tune.trial_sdk import channel, wire
from tune.trial_sdk.keeper import read_lock


async def talk(local, *messages, epoch=1):
    """Attach, say something, and hear what comes until the keeper has answered it all or hung up."""
    reader, writer = await local.channel()
    framer = wire.Framer()
    heard = []
    for message in (channel.Attach("exp", epoch), *messages):
        writer.write(wire.frame(channel.encoder.encode(message)))
    with contextlib.suppress(ConnectionError):
        while len(heard) < 1 + len(messages):
            data = await asyncio.wait_for(reader.read(1 << 16), 30)
            if not data:
                break
            heard += [wire.decode(channel.from_keeper, body) for body in framer.feed(data)]
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return heard


async def gone(local):
    async with asyncio.timeout(30):
        while local.running():  # noqa: ASYNC110 -- another process's lock
            await asyncio.sleep(0.01)


async def shut(local):
    await talk(local, channel.Shutdown(), epoch=99)
    await gone(local)


def test_one_keeper_is_started_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_TRIAL_ID", "outer")
    monkeypatch.setenv("NNI_PLATFORM", "outer")

    async def main():
        local = Local(tmp_path, lease=60, grace=1)
        assert not local.running()
        (attached,) = await talk(local)
        assert local.running()
        pid = attached.pid
        assert pid == read_lock(tmp_path / "keeper.lock").pid
        assert os.getsid(pid) == pid
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123, ASYNC230
            assert not [v for v in file.read().split(b"\0") if v.startswith((b"TUNE_", b"NNI_"))]
        again, answer = await talk(Local(tmp_path), channel.Probe("t1", 0))
        assert again.pid == pid and answer == channel.NeverLaunched("t1", 0)
        await shut(local)
        assert not local.running()

    asyncio.run(main())


def test_many_at_once_get_the_same_keeper(tmp_path):
    async def main():
        locals_ = [Local(tmp_path, lease=60) for _ in range(4)]
        heard = await asyncio.gather(*(talk(local) for local in locals_))
        assert len({attached.pid for said in heard for attached in said}) == 1
        await shut(locals_[0])

    asyncio.run(main())


def test_a_killed_keeper_is_replaced_on_the_same_socket(tmp_path):
    async def main():
        local = Local(tmp_path, lease=60)
        (attached,) = await talk(local)
        before = read_lock(tmp_path / "keeper.lock")
        os.kill(attached.pid, signal.SIGKILL)
        await gone(local)
        (again,) = await talk(local)
        after = read_lock(tmp_path / "keeper.lock")
        assert again.pid != attached.pid and after.socket == before.socket
        await shut(local)

    asyncio.run(main())


def test_the_lock_may_lie_elsewhere(tmp_path):
    async def main():
        (tmp_path / "there").mkdir()
        (tmp_path / "here").mkdir()
        local = Local(tmp_path / "here", lease=60, lock=tmp_path / "there" / "keeper.lock")
        await talk(local)
        assert read_lock(tmp_path / "there" / "keeper.lock") is not None
        assert not (tmp_path / "here" / "keeper.lock").exists()
        await shut(local)

    asyncio.run(main())


def test_a_keeper_that_can_not_start_says_why(tmp_path):
    (tmp_path / "trials").write_text("no folder")

    async def main():
        with pytest.raises(KeeperUnreachable, match="ended with code 1"):
            await Local(tmp_path).channel()

    asyncio.run(main())
