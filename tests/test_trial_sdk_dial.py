"""A keeper that dials out: what its command line takes, where its token may lie, and its rules over a TCP channel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from test_trial_sdk_keeper import Engine, World

from tune.engine.listener import Listener, listening
from tune.training_services.local import KeeperUnreachable, Local
from tune.trial_sdk import channel, dial, process_tree
from tune.trial_sdk.keeper import main

HELD = """
    import os, time, tune
    tune.get_next_parameter()
    tune.report_intermediate_result(1)
    while not os.path.exists("go"):
        time.sleep(0.01)
    tune.report_final_result(2)
"""


# -- the command line -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.1:4000", ("10.0.0.1", 4000)),
        ("host.example:1", ("host.example", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert dial.address(text) == found


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":80", "host:0", "host:65536", "::1:80", "a b:80", "[::1]", "h:٣"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="is no address; allowed: HOST:PORT"):
        dial.address(text)


def test_fingerprints() -> None:
    plain = "ab" * 32
    assert dial.fingerprint(plain) == dial.fingerprint(":".join(["AB"] * 32)) == plain
    for text in ("", "ab", plain + "0", "g" * 64):
        with pytest.raises(ValueError, match="no SHA-256 fingerprint"):
            dial.fingerprint(text)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--dial", "nowhere"], "invalid address value"),
        (["--dial", "h:1"], "--dial needs --name"),
        (["--dial", "h:1", "--name", "a b", "--token-fd", "9"], "found 'a b'"),
        (["--dial", "h:1", "--name", "a"], "one of --token-file and --token-fd"),
        (["--dial", "h:1", "--name", "a", "--token-fd", "9", "--token-file", "f"], "one of --token-file"),
        (["--dial", "h:1", "--name", "a", "--token-fd", "987"], "Bad file descriptor"),
        (["--dial", "h:1", "--name", "a", "--token-file", "f", "--fingerprint", "ab"], "invalid fingerprint value"),
        (["--name", "a"], "are for --dial"),
        (["--fingerprint", "ab" * 32], "are for --dial"),
    ],
)
def test_what_a_keeper_can_not_be_told(
    options: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), *options])
    assert why in capsys.readouterr().err
    assert not (tmp_path / "keeper.lock").exists()


def test_pauses_grow_to_a_limit_and_differ() -> None:
    for failures in range(200):
        least, most = dial.pause(failures, lambda: 0.0), dial.pause(failures, lambda: 1.0)
        assert 0 < least < most <= dial.LONGEST_PAUSE and most == 2 * least
    assert dial.pause(0, lambda: 1.0) == dial.FIRST_PAUSE and dial.pause(99, lambda: 1.0) == dial.LONGEST_PAUSE


# -- tokens -----------------------------------------------------------------------------------------------------------
def test_a_token_s_file_is_this_user_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "channel" / "a.token"
    made = dial.new_token(path)
    assert len(made) == 32 and dial.kept_token(path) == made and path.stat().st_mode & 0o777 == 0o600
    assert dial.new_token(path) != made and dial.kept_token(path) != made
    assert [one.name for one in path.parent.iterdir()] == ["a.token"]
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(PermissionError, match="allowed: 600"):
            dial.kept_token(path)
    path.chmod(0o600)
    (link := tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        dial.kept_token(link)
    os.mkfifo(pipe := tmp_path / "pipe", 0o600)
    with pytest.raises(PermissionError):
        dial.kept_token(pipe)
    path.write_text("secret")
    with pytest.raises(ValueError, match="6 characters that are no token"):
        dial.kept_token(path)
    with pytest.raises(FileNotFoundError):
        dial.kept_token(tmp_path / "none")


def test_a_descriptor_gives_the_token_once() -> None:
    read, write = os.pipe()
    os.write(write, b"ab" * 32 + b"\n")
    os.close(write)
    assert dial.handed_token(read) == b"\xab" * 32
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(read)


# -- the keeper's rules over TCP --------------------------------------------------------------------------------------
class Dialled(World):
    """A world whose keeper dials, until `close`."""

    listener: Listener

    @contextlib.asynccontextmanager
    async def open(self, tls: bool, lease: float = 600.0) -> AsyncIterator[Dialled]:
        async with listening(self.folder, "127.0.0.1", 0, tls=tls) as self.listener:
            self.local = Local(self.folder, lease=lease, grace=5.0, listener=self.listener)
            try:
                yield self
            finally:
                await self.close()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def world(tmp_path: Path) -> Dialled:
    return Dialled(tmp_path)


def held(engine: Engine, world: Dialled) -> None:
    engine.launch("t", HELD, cwd=str(world.root))


def test_K4_K5_a_trial_runs_and_every_report_arrives(world: Dialled, tls: bool) -> None:
    async def test() -> None:
        async with world.open(tls):
            engine = await world.attach()
            held(engine, world)
            await engine.reported(1)
            (world.root / "go").touch()
            exited = await engine.heard(channel.Exited)
            assert exited.code == 0
            assert [(one.number, one.kind) for one in await engine.reported(2)] == [(1, "I"), (2, "F")]

    asyncio.run(asyncio.wait_for(test(), 60))


def test_K13_an_engine_that_is_gone_is_followed_by_the_next_one(world: Dialled, tls: bool) -> None:
    """The listener goes too, and comes back at the same port: same trial, nothing lost or doubled."""

    async def test() -> None:
        async with listening(world.folder, "127.0.0.1", 0, tls=tls) as listener:
            world.local = Local(world.folder, lease=600, grace=5, listener=listener)
            engine = await world.attach(3)
            held(engine, world)
            await engine.reported(1)
            pid, port = (await engine.heard(channel.Launched)).pid, listener.port
        await engine.ended()
        (world.root / "go").touch()  # it ends while no engine is there
        async with world.open(tls):
            assert world.listener.port == port
            older = Engine(world, *await world.local.channel())
            world.engines.append(older)
            older.send(channel.Attach("exp", 2))
            assert "older" in (await older.heard(channel.Refused)).reason
            await older.ended()
            engine = await world.attach(4)
            engine.send(channel.Probe("t", 0, {}))
            assert (await engine.heard(channel.Launched)).pid == pid
            assert (await engine.heard(channel.Exited)).code == 0
            assert [one.number for one in await engine.reported(2)] == [1, 2]

    asyncio.run(asyncio.wait_for(test(), 60))


def test_K1_K14_a_killed_keeper_is_started_again_with_another_token(world: Dialled, tls: bool) -> None:
    async def test() -> None:
        async with world.open(tls):
            engine = await world.attach()
            held(engine, world)
            await engine.reported(1)
            pid = (await engine.heard(channel.Launched)).pid
            token = (world.folder / "channel" / "local.token").read_text()
            world.kill_keeper()
            await engine.ended()
            engine = await world.attach()
            assert (world.folder / "channel" / "local.token").read_text() != token
            engine.send(channel.Probe("t", 0, {}))
            assert (await engine.heard(channel.Launched)).pid == pid
            # a second keeper finds the lock held, and leaves
            command = [
                sys.executable,
                "-m",
                "tune.trial_sdk.keeper",
                str(world.folder),
                *world.local._to_dial(world.listener),
            ]
            assert await asyncio.to_thread(subprocess.call, command, timeout=30) == 0
            (world.root / "go").touch()
            assert (await engine.heard(channel.Exited)).code == 0

    asyncio.run(asyncio.wait_for(test(), 60))


def test_K11_a_keeper_that_finds_no_engine_ends_with_its_lease(world: Dialled) -> None:
    async def test() -> None:
        async with listening(world.folder, "127.0.0.1", 0, tls=False) as listener:
            world.local = Local(world.folder, lease=1.0, grace=1.0, listener=listener)
            engine = await world.attach()
            held(engine, world)
            await engine.reported(1)
        await engine.ended()
        await world.gone()
        assert await world.leftover() == []
        async with world.open(False):
            engine = await world.attach()
            engine.send(channel.Probe("t", 0, {}))
            assert (await engine.heard(channel.Exited)).reason == "lease"

    asyncio.run(asyncio.wait_for(test(), 60))


def test_the_token_is_in_no_argument_and_no_environment(world: Dialled) -> None:
    async def test() -> None:
        async with world.open(True):
            engine = await world.attach()
            held(engine, world)
            await engine.reported(1)
            token = (world.folder / "channel" / "local.token").read_bytes().strip()
            mine = [world.keeper, *await world.leftover()]
            assert len(mine) >= 2
            for path in [Path(f"/proc/{pid}") / name for pid in mine for name in ("cmdline", "environ")]:
                assert token not in path.read_bytes()
            for log in (world.folder / "keeper.log", world.folder / "channel" / "port"):
                assert token not in log.read_bytes()
            (world.root / "go").touch()
            await engine.heard(channel.Exited)

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_lost_token_is_made_anew_and_found(world: Dialled) -> None:
    async def test() -> None:
        async with world.open(False):
            engine = await world.attach()
            await engine.leave()
            (world.folder / "channel" / "local.token").unlink()
            world.local = Local(world.folder, lease=600, grace=5, listener=world.listener)
            engine = await world.attach(2)
            assert (await engine.heard(channel.Attached)).pid == world.keeper

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_keeper_that_does_not_dial_is_said(world: Dialled, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        engine = await world.attach()  # it was started for the Unix socket
        async with listening(world.folder, "127.0.0.1", 0, tls=False) as listener:
            monkeypatch.setattr("tune.training_services.local.START_TIMEOUT", 0.3)
            monkeypatch.setattr("tune.training_services.local.LOOK_AGAIN", 0.1)
            with pytest.raises(KeeperUnreachable, match=f"does not dial {listener.here}"):
                await Local(world.folder, listener=listener).channel()
            await engine.leave()
        monkeypatch.undo()
        await world.close()

    asyncio.run(asyncio.wait_for(test(), 60))


# -- from another network ---------------------------------------------------------------------------------------------
def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@pytest.fixture
def namespace() -> Iterator[tuple[str, str, Callable[[str], None]]]:
    """A network namespace joined to this one: its name, the address here, and how to cut and mend what joins them."""
    mark = f"{os.getpid() % 100_000:05d}"
    name, here, there = f"tune{mark}", f"tu{mark}h", f"tu{mark}k"
    net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace may be made here: {error.stderr.decode().strip()}")
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("addr", "add", f"{net}.1/24", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "addr", "add", f"{net}.2/24", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
        # without its address the other side drops what comes, without a word, as a broken link does
        yield name, f"{net}.1", lambda how: _ip("-n", name, "addr", how, f"{net}.2/24", "dev", there)
    finally:
        subprocess.run(["ip", "link", "del", here], capture_output=True, timeout=30)
        _ip("netns", "del", name)


@pytest.mark.root
def test_a_keeper_in_another_network_and_a_link_that_is_cut(
    world: Dialled, namespace: tuple[str, str, Callable[[str], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be reached from here, and dials. The link goes, a trial reports on; it comes back, and all arrives."""
    name, address, link = namespace
    monkeypatch.setattr(dial, "SILENCE", 6)  # on this side; the keeper's stays

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 -- a process's files
                await asyncio.sleep(0.02)

    async def test() -> None:
        async with listening(world.folder, address, 0, tls=True) as listener:
            token = world.folder / "channel" / "far.token"
            expected = listener.expect("far", dial.new_token(token))
            command = ["ip", "netns", "exec", name, sys.executable, "-m", "tune.trial_sdk.keeper", str(world.folder)]
            command += ["--dial", f"{address}:{listener.port}", "--name", "far", "--token-file", str(token)]
            command += ["--fingerprint", listener.fingerprint]
            with (world.folder / "keeper.log").open("ab") as log:
                keeper = await asyncio.create_subprocess_exec(*command, stderr=log, start_new_session=True)
            try:

                async def attach(epoch: int) -> Engine:
                    async with asyncio.timeout(40):
                        engine = Engine(world, *await expected.channel())
                    engine.send(channel.Attach("exp", epoch))
                    await engine.heard(channel.Attached)
                    return engine

                engine = await attach(1)
                held(engine, world)
                await engine.reported(1)
                pid = (await engine.heard(channel.Launched)).pid
                link("del")
                (world.root / "go").touch()
                await until((world.folder / "trials" / "t" / "0" / "exit").exists)
                await asyncio.wait([engine.task], timeout=30)  # silence tells, and nothing else
                assert isinstance(engine.task.exception(), TimeoutError)
                link("add")
                engine = await attach(2)
                engine.send(channel.Probe("t", 0, {}))
                assert (await engine.heard(channel.Launched)).pid == pid
                assert (await engine.heard(channel.Exited)).code == 0
                assert [one.number for one in await engine.reported(2)] == [1, 2]
                engine.send(channel.Shutdown())
                await engine.heard(channel.Over)
                await engine.leave()
                assert await asyncio.wait_for(keeper.wait(), 30) == 0
            finally:
                if keeper.returncode is None:
                    keeper.kill()
                    await keeper.wait()
        mark = os.fsencode(world.folder)
        assert not [one for one in process_tree.table() if (process_tree.launch_dir(one) or b"").startswith(mark)]

    asyncio.run(asyncio.wait_for(test(), 110))
