"""A trial's connection against a keeper that is scripted here: silent, gone, full, or back again."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import pytest

from tune.trial_sdk import connection as module
from tune.trial_sdk.connection import Connection
from tune.trial_sdk.wire import (
    EngineState,
    Framer,
    FromTrial,
    Hello,
    Parameters,
    Poke,
    Recorded,
    StopNotice,
    Waiting,
    frame,
)

decoder = msgspec.msgpack.Decoder(FromTrial)
encode = msgspec.msgpack.Encoder().encode


class Keeper:
    """A listening socket; `accept` gives the next connection, blocking."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.socket.settimeout(20)
        self.open: list[socket.socket] = []

    def accept(self):
        sock, _ = self.socket.accept()
        sock.settimeout(20)
        self.open.append(sock)
        return Peer(sock)

    def close(self):
        for sock in [*self.open, self.socket]:
            sock.close()


class Peer:
    """The keeper's end of one connection."""

    def __init__(self, sock):
        self.socket = sock
        self.framer = Framer()
        self.inbox: list[object] = []

    def hear(self):
        while not self.inbox:
            data = self.socket.recv(1 << 16)
            assert data, "the trial hung up"
            self.inbox += [decoder.decode(body) for body in self.framer.feed(data)]
        return self.inbox.pop(0)

    def say(self, *messages):
        self.socket.sendall(b"".join(frame(encode(message)) for message in messages))


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "k"


@pytest.fixture
def keeper(path):
    made = Keeper(path)
    yield made
    made.close()


@pytest.fixture
def trial(path):
    made = Connection(str(path), "t1/0", "1-abc", 1)
    yield made
    made.drop()


@contextlib.contextmanager
def meanwhile(work):
    """Run the keeper's part in a thread; its failure is the test's."""
    failed: list[BaseException] = []

    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(30)
    assert not failed, failed


def test_the_first_poke_greets(keeper, trial):
    trial.poke()
    peer = keeper.accept()
    assert peer.hear() == Hello("t1/0", "1-abc", 1)
    assert peer.hear() == Poke()


def test_a_poke_never_waits_for_a_keeper_that_does_not_read(keeper, trial):
    trial.poke()
    peer = keeper.accept()
    for _ in range(100_000):
        trial.poke()
    trial.poke()
    assert peer.hear() == Hello("t1/0", "1-abc", 1)
    assert peer.hear() == Poke()


def test_a_final_is_recorded_when_the_keeper_says_so(keeper, trial):
    def work():
        peer = keeper.accept()
        assert [peer.hear() for _ in range(3)] == [Hello("t1/0", "1-abc", 1), Poke(), Waiting(7)]
        peer.say(EngineState(True), Recorded(3), Recorded(7))

    with meanwhile(work):
        assert trial.wait_recorded(7, 20.0)
    assert trial.wait_recorded(7, 0.0)  # known already


@pytest.mark.parametrize("words", [[EngineState(False)], [EngineState(True)], [EngineState(True), Recorded(6)], []])
def test_a_final_does_not_wait_without_an_engine_or_an_answer(keeper, trial, words):
    with meanwhile(lambda: keeper.accept().say(*words)):
        assert not trial.wait_recorded(7, 0.05)


def test_progress_keeps_a_final_waiting(keeper, trial, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def work():
        peer = keeper.accept()
        for _ in range(3):
            peer.hear()
        for number in range(1, 8):
            clock[0] += 3.0
            peer.say(Recorded(number))
            while trial.recorded < number:
                time.sleep(0.001)

    with meanwhile(work):
        assert trial.wait_recorded(7, 5.0)


def test_nobody_there(trial):
    trial.poke()
    assert not trial.wait_recorded(1, 20.0)
    assert not trial.look()
    with pytest.raises(TimeoutError):
        trial.wait_parameters(1, time.monotonic() + 0.05)


@pytest.mark.parametrize("bad", ["", "/" + "x" * 300, "a\0b", "/dev/null"])
def test_a_bad_path_is_nobody(bad):
    trial = Connection(bad, "t1/0", "p", 1)
    trial.poke()
    assert not trial.wait_recorded(1, 20.0)


def test_a_broken_connection_is_dialled_again_once(keeper, trial):
    trial.poke()
    keeper.accept().socket.close()

    def work():
        peer = keeper.accept()
        assert [type(peer.hear()) for _ in range(3)] == [Hello, Poke, Waiting]
        peer.say(Recorded(1))

    with meanwhile(work):
        assert trial.wait_recorded(1, 20.0)


def test_a_keeper_that_always_hangs_up_does_not_hold_a_final(keeper, trial):
    def work():
        keeper.accept().socket.close()
        keeper.socket.settimeout(2)
        with contextlib.suppress(TimeoutError):  # a greeting that met a closed socket already is the end of it
            keeper.accept().socket.close()

    with meanwhile(work):
        assert not trial.wait_recorded(1, 20.0)


def test_garbage_from_the_keeper_is_a_broken_connection(keeper, trial):
    def work():
        keeper.accept().socket.sendall(b"\xff" * 10)
        peer = keeper.accept()
        peer.say(Recorded(1))

    with meanwhile(work):
        assert trial.wait_recorded(1, 20.0)


def test_parameters_over_a_keeper_that_goes_and_comes(path, trial):
    def work():
        first = Keeper(path)
        peer = first.accept()
        assert [type(peer.hear()) for _ in range(3)] == [Hello, Poke, Waiting]
        peer.say(EngineState(True), Parameters(4, 1, '{"old":1}'))  # the answer to an earlier request
        first.close()
        path.unlink()
        second = Keeper(path)
        peer = second.accept()
        assert [peer.hear() for _ in range(3)][2] == Waiting(5)
        peer.say(EngineState(False), EngineState(True), Parameters(5, 2, None))
        second.close()

    with meanwhile(work):
        assert trial.wait_parameters(5, None) == Parameters(5, 2, None)


def test_a_stop_ends_the_wait_for_parameters(keeper, trial):
    with meanwhile(lambda: keeper.accept().say(StopNotice())):
        assert trial.wait_parameters(5, None) is None
    assert trial.stopping


def test_look_finds_the_notice_without_waiting(keeper, trial):
    assert not trial.look()
    peer = keeper.accept()
    assert not trial.look()
    peer.say(StopNotice())
    while not trial.look():
        pass
