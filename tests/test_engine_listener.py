"""The engine's TCP address: a keeper that proves itself gets in, whatever strangers do, and nobody else ever does."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from tune.engine import listener as listener_module
from tune.engine.errors import TuneError
from tune.engine.listener import Expected, Listener, NotExpected, listening
from tune.trial_sdk import channel, dial, proof, wire
from tune.trial_sdk.proof import Dial, KeeperSide, Proof

TOKEN, OTHER = bytes(range(32)), bytes(range(1, 33))
Test = Callable[[Listener, Expected], Awaitable[None]]


class Keeper:
    """What serves a proven connection in a keeper."""

    def __init__(self) -> None:
        self.attached: asyncio.Queue[channel.Attach] = asyncio.Queue()
        self.heard: list[Any] = []
        self.served: set[Any] = set()
        self.lost_ones = 0

    def greeted(self, connection: Any, message: Any) -> None:
        connection.engine = message
        self.served.add(connection)
        self.attached.put_nowait(message)
        connection.send(channel.Attached("there", 7, "boot"))

    def from_trial(self, connection: Any, message: Any) -> None:
        raise AssertionError("no trial comes this way")

    def from_engine(self, connection: Any, message: Any) -> None:
        self.heard.append(message)

    def lost(self, connection: Any) -> None:
        self.lost_ones += 1
        self.served.discard(connection)


@contextlib.asynccontextmanager
async def dialling(listener: Listener, *, token: bytes = TOKEN, port: int = 0, **changes: Any) -> AsyncIterator[Keeper]:
    """A keeper that dials the listener while the block runs."""
    fields = {"name": "local", "fingerprint": listener.fingerprint, **changes}
    keeper = Keeper()
    target = dial.Target(listener.host, port or listener.port, fields["name"], lambda: token, fields["fingerprint"])
    task = asyncio.create_task(dial.Dialler(target, keeper).run())
    try:
        yield keeper
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for connection in list(keeper.served):
            connection.abort()
        await until(lambda: not keeper.served)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in this very loop, where nobody tells of it."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- nobody tells of it
            await asyncio.sleep(0.005)


async def got(expected: Expected, patience: float = 30.0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(patience):
        return await expected.channel()


async def attach(expected: Expected, epoch: int = 1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Take the keeper's connection and attach, as a HostLink does."""
    reader, writer = await got(expected)
    writer.write(wire.frame(channel.encoder.encode(channel.Attach("exp", epoch))))
    async with asyncio.timeout(10):
        head = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(head, "big"))
    assert isinstance(wire.decode(channel.from_keeper, body), channel.Attached)
    return reader, writer


async def nobody(expected: Expected, patience: float = 0.3) -> None:
    """Nobody has come in (and nobody does in this time)."""
    with pytest.raises(TimeoutError):
        await got(expected, patience)


async def connect(listener: Listener, *, tls: bool | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stranger's connection, with TLS where that is spoken."""
    secured = bool(listener.fingerprint) if tls is None else tls
    context = dial._tls() if secured else None
    return await asyncio.wait_for(asyncio.open_connection(listener.host, listener.port, ssl=context), 10)


async def ended(reader: asyncio.StreamReader, patience: float = 30.0) -> bytes:
    """What comes until the other side ends the connection, as it must in time."""
    got = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(patience):
            while data := await reader.read(1 << 16):
                got += data
    return got


async def message(reader: asyncio.StreamReader) -> bytes:
    """The next frame, whole."""
    async with asyncio.timeout(10):
        head = await reader.readexactly(4)
        return head + await reader.readexactly(int.from_bytes(head, "big"))


def strangers(listener: Listener) -> int:
    return len(listener._strangers)


async def quiet(listener: Listener) -> None:
    """No stranger is left."""
    await until(lambda: not listener._strangers)


@pytest.fixture(params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture(params=["plain", "tls"])
def run(
    request: pytest.FixtureRequest, tmp_path: Path, loops: Callable[[], asyncio.AbstractEventLoop]
) -> Callable[[Test], None]:
    """Runs a test at a listener that expects the keeper "local", on both event loops, with TLS and without."""

    async def main(test: Test) -> None:
        async with listening(tmp_path, "127.0.0.1", 0, tls=request.param == "tls") as listener:
            await test(listener, listener.expect("local", TOKEN))
            await until(lambda: not listener._tasks)
            assert not [task for task in asyncio.all_tasks() if task.get_name() == "stranger"]

    def runner(test: Test) -> None:
        with asyncio.Runner(loop_factory=loops) as made:
            made.run(asyncio.wait_for(main(test), 60))

    return runner


# -- who is let in ----------------------------------------------------------------------------------------------------
def test_a_keeper_that_knows_the_token_is_served(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        async with dialling(listener) as keeper:
            _, writer = await attach(expected)
            assert await asyncio.wait_for(keeper.attached.get(), 10) == channel.Attach("exp", 1)
            big = channel.Launch("t", 0, 0, 0, "{}", "x" * 900_000, "/")
            writer.write(wire.frame(channel.encoder.encode(big)) * 5)
            await until(lambda: len(keeper.heard) == 5)
            assert keeper.heard == [big] * 5
            assert strangers(listener) == 0
            writer.close()
        assert keeper.lost_ones == 1

    run(test)


def test_it_dials_again_when_its_connection_ends(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        async with dialling(listener) as keeper:
            for epoch in range(4):
                _, writer = await attach(expected, epoch)
                assert (await asyncio.wait_for(keeper.attached.get(), 10)).epoch == epoch
                writer.transport.abort()

    run(test)


def test_a_newer_proven_connection_replaces_the_one_before(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        async with dialling(listener) as first:
            old, _ = await attach(expected)
            async with dialling(listener):
                assert await ended(old) == b""  # aborted: the first keeper dials again, and so on
                _, writer = await attach(expected)
                writer.close()
            assert first.lost_ones >= 1

    run(test)


def test_who_waits_gets_the_newest_and_no_dead_one(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        for _ in range(3):
            side = KeeperSide("local", TOKEN, os.urandom(32), listener.fingerprint)
            reader, writer = await connect(listener)
            writer.write(side.begin())
            writer.write(side.feed(await message(reader)))
            side.feed(await message(reader))
            assert side.proven
            await until(lambda: expected._arrived is not None)
            writer.transport.abort()
        assert expected._arrived is not None
        reader, kept = expected._arrived
        await until(lambda: reader.at_eof() or kept.is_closing())
        await nobody(expected)
        async with dialling(listener):
            _, writer = await attach(expected)
            writer.close()

    run(test)


def test_several_names_have_a_token_each(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        other = listener.expect("other", OTHER)
        async with dialling(listener, name="other", token=OTHER) as keeper, dialling(listener, token=OTHER):
            _, writer = await attach(other)
            assert await asyncio.wait_for(keeper.attached.get(), 10)
            await nobody(expected)
            writer.close()

    run(test)


# -- who is not -------------------------------------------------------------------------------------------------------
def test_a_wrong_and_an_old_token_are_refused(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        async with dialling(listener, token=OTHER) as wrong, dialling(listener, name="nobody") as unknown:
            await nobody(expected)
            renewed = listener.expect("local", OTHER)
            with pytest.raises(NotExpected, match="as local"):
                await got(expected)
            _, writer = await attach(renewed)  # it dials on, and the token is now right
            assert await asyncio.wait_for(wrong.attached.get(), 10)
            async with dialling(listener, token=TOKEN) as old:
                await nobody(renewed)
                assert old.attached.empty() and unknown.attached.empty()
            writer.close()

    run(test)


def test_a_closed_launch_ends_its_connection_and_lets_nobody_in(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        async with dialling(listener) as keeper:
            reader, _ = await attach(expected)
            waiting = asyncio.create_task(expected.channel())
            await asyncio.sleep(0)
            expected.close()
            expected.close()
            assert await ended(reader) == b""
            with pytest.raises(NotExpected):
                await waiting
            await asyncio.sleep(0.3)
            assert keeper.attached.qsize() == 1 and listener._expected == {}

    run(test)


def test_a_token_that_dies_between_challenge_and_proof_is_refused(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        side = KeeperSide("local", TOKEN, os.urandom(32), listener.fingerprint)
        reader, writer = await connect(listener)
        writer.write(side.begin())
        answer = side.feed(await message(reader))
        expected.close()
        writer.write(answer)
        assert await ended(reader) == b""
        writer.close()

    run(test)


def test_a_replayed_talk_is_refused(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        side = KeeperSide("local", TOKEN, os.urandom(32), listener.fingerprint)
        reader, writer = await connect(listener)
        opening = side.begin()
        writer.write(opening)
        answer = side.feed(await message(reader))
        writer.write(answer)
        side.feed(await message(reader))
        assert side.proven
        (_, ours) = await got(expected)
        for _ in range(3):
            again, sender = await connect(listener)
            sender.write(opening)
            await message(again)
            sender.write(answer)
            assert await ended(again) == b""
            sender.close()
        await nobody(expected)
        ours.close()
        writer.close()

    run(test)


def test_a_reflected_proof_is_refused(run: Callable[[Test], None]) -> None:
    """A stranger with two connections has the engine answer its own challenges: the engine never proves first."""

    async def test(listener: Listener, expected: Expected) -> None:
        one, to_one = await connect(listener)
        two, to_two = await connect(listener)
        to_one.write(wire.frame(channel.encoder.encode(Dial("local", os.urandom(32)))))
        challenge = await message(one)
        nonce = wire.decode(proof._challenge, challenge[4:]).nonce
        to_two.write(wire.frame(channel.encoder.encode(Dial("local", nonce))))
        other = await message(two)
        for writer, sent in ((to_one, other), (to_two, challenge)):  # what the engine said, back to it
            writer.write(sent)
        assert await ended(one) == b"" and await ended(two) == b""
        await nobody(expected, 0.05)
        to_one.close()
        to_two.close()

    run(test)


def test_a_man_between_two_listeners_is_refused(tmp_path: Path) -> None:
    """Who relays to another listener, or stands between with a certificate of his own, gets nothing from either."""

    for name in "ab":
        (tmp_path / name).mkdir()

    async def main() -> None:
        async with (
            listening(tmp_path / "a", "127.0.0.1", 0, tls=True) as right,
            listening(tmp_path / "b", "127.0.0.1", 0, tls=True) as wrong,
        ):
            expected, misled = right.expect("local", TOKEN), wrong.expect("local", TOKEN)
            # the keeper knows `right`'s certificate and reaches `wrong`, even with the same token there
            async with dialling(right, port=wrong.port) as keeper:
                await nobody(misled)
                assert keeper.attached.empty()
            # the man ends TLS with his own certificate, and speaks to `right` himself
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "b" / "channel" / "identity.pem")
            relayed: list[bytes] = []

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                there, to_there = await connect(right)
                async with asyncio.TaskGroup() as tasks:
                    for source, target in ((reader, to_there), (there, writer)):
                        tasks.create_task(carry(source, target, relayed))

            man = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
            port = man.sockets[0].getsockname()[1]
            async with dialling(right, port=port) as keeper:
                await nobody(expected)
                assert keeper.attached.empty() and relayed == []  # not one byte of a proof
            # and a keeper that pins nothing of it but the man's own certificate: the binding differs
            async with dialling(right, port=port, fingerprint=wrong.fingerprint) as keeper:
                await nobody(expected)
                assert keeper.attached.empty() and relayed
            man.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relayed: list[bytes]) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            relayed.append(data)
            writer.write(data)
    writer.close()


def test_a_man_between_without_tls_can_not_use_one_listener_for_another(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()

    async def main() -> None:
        async with (
            listening(tmp_path / "a", "127.0.0.1", 0, tls=False) as right,
            listening(tmp_path / "b", "127.0.0.1", 0, tls=False) as other,
        ):
            expected, elsewhere = right.expect("local", TOKEN), other.expect("local", OTHER)
            async with dialling(right, port=other.port) as keeper:
                await nobody(elsewhere)
                await nobody(expected, 0.01)
                assert keeper.attached.empty()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_listener_that_does_not_know_the_token_is_left(tmp_path: Path) -> None:
    """Somebody else has the port: he learns nothing, and says nothing that a keeper would do."""

    async def main() -> None:
        heard: list[bytes] = []

        async def false(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await message(reader))
            writer.write(wire.frame(channel.encoder.encode(proof.Challenge(os.urandom(32)))))
            heard.append(await message(reader))
            writer.write(wire.frame(channel.encoder.encode(Proof(os.urandom(32)))))
            writer.write(wire.frame(channel.encoder.encode(channel.Attach("exp", 1))))
            heard.append(await ended(reader))
            writer.close()

        server = await asyncio.start_server(false, "127.0.0.1", 0)
        here = Listener("127.0.0.1", server.sockets[0].getsockname()[1], None, "")
        async with dialling(here) as keeper:
            await until(lambda: len(heard) == 3)
        assert keeper.attached.empty() and heard[2] == b""
        assert not any(TOKEN in one for one in heard)
        server.close()

    asyncio.run(asyncio.wait_for(main(), 60))


GARBAGE = {
    "two gigabytes": (1 << 31).to_bytes(4, "big") + b"x" * 1000,
    "http": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + bytes(500),
    "zeros": bytes(5000),
    "a megabyte": os.urandom(1 << 20),
    "attach": wire.frame(channel.encoder.encode(channel.Attach("exp", 1 << 40))),
    "a trial": wire.frame(channel.encoder.encode(wire.Hello("t/0", "1", 1))),
    "deep": wire.frame(b"\x91" * 500),
    "all at once": wire.frame(channel.encoder.encode(Dial("local", bytes(32))))
    + wire.frame(channel.encoder.encode(Proof(bytes(32)))),
}


@pytest.mark.parametrize("secured", [None, False])
def test_garbage_ends_its_connection_only(
    run: Callable[[Test], None], secured: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "PROOF_TIME", 2.0)  # half a record of TLS is ended by time

    async def test(listener: Listener, expected: Expected) -> None:
        async with dialling(listener):
            _, writer = await attach(expected)
            for name, data in GARBAGE.items():
                reader, sender = await connect(listener, tls=secured)
                with contextlib.suppress(ConnectionError):
                    sender.write(data)
                    if name == "zeros":  # of no message: frames of no bytes, or half a TLS record
                        sender.write_eof() if sender.can_write_eof() else sender.close()
                said = await ended(reader)
                assert len(said) < 200, name
                sender.transport.abort()
            await quiet(listener)
            assert not writer.is_closing()
            writer.close()

    run(test)


def test_slow_strangers_keep_no_keeper_out(run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """200 connections that say a byte now and then, from the keeper's own address."""
    monkeypatch.setattr(listener_module, "PROOF_TIME", 2.0)

    async def test(listener: Listener, expected: Expected) -> None:
        slow = [await connect(listener, tls=False) for _ in range(200)]
        assert strangers(listener) <= listener_module.MAX_STRANGERS
        for at, (_, writer) in enumerate(slow):
            with contextlib.suppress(ConnectionError):
                writer.write(b"\0" if at % 3 else b"")
        async with dialling(listener) as keeper:
            _, writer = await attach(expected)
            assert await asyncio.wait_for(keeper.attached.get(), 10)
            for reader, _ in slow:
                assert await ended(reader) == b""
            assert not writer.is_closing()
            writer.close()
        await quiet(listener)
        for _, sender in slow:
            sender.close()

    run(test)


def test_a_half_open_connection_goes_in_time(run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "PROOF_TIME", 0.3)

    async def test(listener: Listener, expected: Expected) -> None:
        silent, one = await connect(listener, tls=False)
        half, two = await connect(listener)
        two.write(KeeperSide("local", TOKEN, os.urandom(32), listener.fingerprint).begin()[:20])
        challenged, three = await connect(listener)
        three.write(KeeperSide("local", TOKEN, os.urandom(32), listener.fingerprint).begin())
        await message(challenged)
        for reader in (silent, half, challenged):
            assert await ended(reader) == b""
        await quiet(listener)
        await nobody(expected, 0.01)
        for writer in (one, two, three):
            writer.close()

    run(test)


def test_another_address_s_strangers_do_not_push_a_keeper_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who has the most connections loses one, and it is the oldest of his."""
    monkeypatch.setattr(listener_module, "MAX_STRANGERS", 8)

    async def main() -> None:
        async with listening(tmp_path, "127.0.0.1", 0, tls=False) as listener:
            mine = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=("127.0.0.2", 0))
            mine[1].write(KeeperSide("local", TOKEN, os.urandom(32), "").begin())
            assert await message(mine[0])
            flood = [await connect(listener) for _ in range(30)]
            addresses = [one.address for one in listener._strangers]
            assert addresses.count("127.0.0.2") == 1 and len(addresses) == 8
            assert await ended(flood[0][0]) == b""
            for _, writer in (*flood, mine):
                writer.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_strangers_are_one_line_a_minute_in_engine_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path, "127.0.0.1", 0, tls=False) as listener:
            for _ in range(50):
                reader, writer = await connect(listener)
                writer.write(b"\xff" * 40)
                assert await ended(reader) == b""
                writer.close()

    with structlog.testing.capture_logs() as logs:
        asyncio.run(asyncio.wait_for(main(), 60))
    refused = [one for one in logs if one["event"] == "connections refused"]
    assert [one["count"] for one in refused] == [1, 49]
    assert refused[0]["last"] == "127.0.0.1" and "4294967295 bytes" in refused[0]["reason"]
    assert TOKEN.hex() not in json.dumps(logs, default=str)


# -- where it listens -------------------------------------------------------------------------------------------------
def test_the_port_and_the_certificate_stay(tmp_path: Path) -> None:
    async def seen() -> tuple[int, str, str]:
        async with listening(tmp_path, "127.0.0.1", 0, tls=True) as listener:
            assert listener.here == f"127.0.0.1:{listener.port}"
            _, writer = await connect(listener)
            shown = hashlib.sha256(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)).hexdigest()
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            writer.close()
            return listener.port, listener.fingerprint, shown

    first, second = asyncio.run(seen()), asyncio.run(seen())
    assert first == second and first[1] == first[2]
    for path in (tmp_path / "channel").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "channel").stat().st_mode) == 0o700


def test_two_experiments_have_two_certificates(tmp_path: Path) -> None:
    async def fingerprint(folder: Path) -> str:
        async with listening(folder, "127.0.0.1", 0, tls=True) as listener:
            return listener.fingerprint

    for name in "ab":
        (tmp_path / name).mkdir()
    assert asyncio.run(fingerprint(tmp_path / "a")) != asyncio.run(fingerprint(tmp_path / "b"))


def test_an_address_that_can_not_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "BIND_PATIENCE", 0.2)

    async def listen(host: str, port: int, *, tls: bool = False) -> None:
        async with listening(tmp_path, host, port, tls=tls):
            raise AssertionError("it listens")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TuneError, match=rf"127\.0\.0\.1 port {port}: Address already in use"):
            asyncio.run(listen("127.0.0.1", port))
    with pytest.raises(TuneError, match=r"can't listen at 192\.0\.2\.1"):
        asyncio.run(listen("192.0.2.1", 0))
    with pytest.raises(TuneError, match=r"can't listen at no\.such\.host"):
        asyncio.run(listen("no.such.host", 0))
    (tmp_path / "channel" / "identity.pem").write_text("rubbish")
    with pytest.raises(TuneError, match=r"identity\.pem holds no key and certificate"):
        asyncio.run(listen("127.0.0.1", 0, tls=True))


def test_a_port_that_is_being_given_up_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            asyncio.get_running_loop().call_later(0.3, taken.close)
            async with listening(tmp_path, "127.0.0.1", port, tls=False) as listener:
                assert listener.port == port

    asyncio.run(asyncio.wait_for(main(), 60))


def test_ipv6_and_all_addresses(tmp_path: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this system has no IPv6")

    async def main(host: str, here: str) -> None:
        async with listening(tmp_path, host, 0, tls=False) as listener:
            assert listener.here == f"{here}:{listener.port}"
            expected = listener.expect("local", TOKEN)
            to, port = dial.address(listener.here)
            target = dial.Target(to, port, "local", lambda: TOKEN)
            task = asyncio.create_task(dial.Dialler(target, Keeper()).run())
            _, writer = await attach(expected)
            writer.close()
            task.cancel()

    asyncio.run(asyncio.wait_for(main("::1", "[::1]"), 60))
    asyncio.run(asyncio.wait_for(main("0.0.0.0", "127.0.0.1"), 60))
    asyncio.run(asyncio.wait_for(main("::", "[::1]"), 60))


def test_a_reset_in_the_middle_of_anything_is_nothing(run: Callable[[Test], None]) -> None:
    async def test(listener: Listener, expected: Expected) -> None:
        begin = KeeperSide("local", TOKEN, os.urandom(32), listener.fingerprint).begin()
        for cut in (0, 3, 10, len(begin)):
            for secured in (False, bool(listener.fingerprint)):
                _, writer = await connect(listener, tls=secured)
                writer.write(begin[:cut])
                end = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        await quiet(listener)
        async with dialling(listener):
            _, writer = await attach(expected)
            writer.close()

    run(test)


def test_expect_takes_tokens_and_names_only(tmp_path: Path) -> None:
    listener = Listener("127.0.0.1", 1, None, "")
    for name, token in (("local", b"short"), ("", TOKEN), ("a b", TOKEN), ("a/../b", TOKEN)):
        with pytest.raises(ValueError, match="proves nothing"):
            listener.expect(name, token)
