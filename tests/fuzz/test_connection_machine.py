"""State machine of a trial's connection: a keeper that comes, goes, stops reading and talks nonsense harms nobody."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from pathlib import Path

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tune.trial_sdk import connection, wire

_from_trial: msgspec.msgpack.Decoder[wire.FromTrial] = msgspec.msgpack.Decoder(wire.FromTrial)
GARBAGE = [b"\xff" * 8, b"\0\0\0\1\xc1", wire.frame(b"\x91" * 1000), b"\0\0"]


class Clock:
    """Time as the connection sees it: it passes when somebody waits, and when a rule says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class ConnectionMachine(RuleBasedStateMachine):
    """The real connection and, in the same thread, the keeper's end of its socket."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="tune-machine-"))
        self.path = str(self.base / "k")
        self.clock = connection.time = Clock()  # type: ignore[assignment]
        self.ready, connection._ready = connection._ready, self.look_for
        self.trial = connection.Connection(self.path, "t1/0", "p", 7)
        self.listener: socket.socket | None = None
        self.keeper: socket.socket | None = None
        self.framer = wire.Framer()
        self.greeted = False
        self.most = 0  # that any keeper has said to be recorded
        self.highest = 0  # that the trial has taken in
        self.stop_said = False

    def look_for(self, sock: socket.socket, event: int, seconds: float) -> bool:
        """Waiting takes no time of ours; when nothing is there, it has been in vain."""
        if self.ready(sock, event, 0.0):
            return True
        self.clock.now += seconds
        return False

    # -- the keeper ---------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.listener is None)
    @rule()
    def listen(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(4)
        self.listener.setblocking(False)

    @precondition(lambda self: self.listener is not None)
    @rule()
    def die(self) -> None:
        """The keeper is killed: listener and connections go at once."""
        for sock in (self.listener, self.keeper):
            if sock is not None:
                sock.close()
        self.listener = self.keeper = None

    @precondition(lambda self: self.listener is not None)
    @rule()
    def accept(self) -> None:
        assert self.listener is not None
        with contextlib.suppress(BlockingIOError):
            accepted, _ = self.listener.accept()
            if self.keeper is not None:
                self.keeper.close()
            self.keeper = accepted
            self.keeper.setblocking(False)
            self.framer, self.greeted = wire.Framer(), False

    @initialize()
    def begin(self) -> None:
        self.meet()

    @precondition(lambda self: self.keeper is None)
    @rule()
    def meet(self) -> None:
        """A keeper is there, and the trial has reached it."""
        if self.listener is None:
            self.listen()
        self.clock.now += 2.0
        self.trial.poke()
        self.accept()

    @precondition(lambda self: self.keeper is not None)
    @rule()
    def read(self) -> None:
        """What a trial says is whole, and begins with who it is."""
        assert self.keeper is not None
        try:
            data = self.keeper.recv(1 << 16)
        except (BlockingIOError, ConnectionResetError):
            return
        for body in self.framer.feed(data):
            message = wire.decode(_from_trial, body)
            assert isinstance(message, wire.Hello) == (not self.greeted), message
            if not self.greeted:
                assert message == wire.Hello("t1/0", "p", 7)
            self.greeted = True

    def say(self, data: bytes) -> None:
        assert self.keeper is not None
        with contextlib.suppress(OSError):
            self.keeper.send(data)

    @precondition(lambda self: self.keeper is not None)
    @rule(
        message=st.one_of(
            st.builds(wire.Recorded, st.integers(0, 9)),
            st.builds(wire.Recorded, st.integers(0, 9)),
            st.builds(wire.Recorded, st.integers(0, 9)),
            st.builds(wire.Parameters, st.integers(0, 4), st.just(0), st.sampled_from(["{}", None])),
            st.builds(wire.EngineState, st.booleans()),
            st.just(wire.StopNotice()),
        ),
        cut=st.sampled_from([False] * 9 + [True]),
    )
    def tell(self, message: wire.ToTrial, cut: bool) -> None:
        data = wire.frame(msgspec.msgpack.encode(message))
        if cut:  # and the rest never comes
            self.say(data[:-1])
            self.hang_up()
            return
        if isinstance(message, wire.Recorded):
            self.most = max(self.most, message.number)
        self.stop_said |= isinstance(message, wire.StopNotice)
        self.say(data)

    @precondition(lambda self: self.keeper is not None)
    @rule(data=st.sampled_from(GARBAGE))
    def talk_nonsense(self, data: bytes) -> None:
        self.say(data)
        self.hang_up()

    @precondition(lambda self: self.keeper is not None)
    @rule()
    def hang_up(self) -> None:
        assert self.keeper is not None
        self.keeper.close()
        self.keeper = None

    # -- the trial ----------------------------------------------------------------------------------------------------
    @rule(count=st.sampled_from([1, 1, 1, 3000]))
    def poke(self, count: int) -> None:
        """Never waits, however many pokes nobody reads."""
        before = self.clock.now
        for _ in range(count):
            self.trial.poke()
        assert self.clock.now == before

    @rule()
    def look(self) -> None:
        before = self.clock.now
        assert self.trial.look() == self.trial.stopping
        assert self.clock.now == before

    @rule(number=st.integers(1, 9), silence=st.sampled_from([0.0, 5.0]))
    def wait_recorded(self, number: int, silence: float) -> None:
        """True only when a keeper has said so; it gives up in time."""
        before = self.clock.now
        found = self.trial.wait_recorded(number, silence)
        assert found == (self.trial.recorded >= number)
        assert self.clock.now - before <= 2 * silence + 10.0

    @rule(number=st.integers(1, 4), patience=st.sampled_from([0.0, 3.0, 200.0]))
    def wait_parameters(self, number: int, patience: float) -> None:
        """The answer to this very request, None for a stop, or a TimeoutError at the deadline."""
        deadline = self.clock.now + patience
        try:
            found = self.trial.wait_parameters(number, deadline)
        except TimeoutError:
            assert self.clock.now >= deadline
            return
        assert self.trial.stopping if found is None else found.number == number

    @rule(seconds=st.sampled_from([0.1, 1.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    # -- what holds always --------------------------------------------------------------------------------------------
    @invariant()
    def nothing_is_made_up(self) -> None:
        assert self.highest <= self.trial.recorded <= self.most, "what was recorded is not any more"
        self.highest = self.trial.recorded
        assert self.stop_said or not self.trial.stopping

    def teardown(self) -> None:
        """With a keeper that behaves, everything is heard."""
        try:
            if self.listener is not None:
                self.die()
            self.listen()
            self.trial.drop()
            self.wait(2.0)
            self.trial.poke()
            self.accept()
            self.read()
            assert self.keeper is not None and self.greeted
            self.tell(wire.Recorded(10), False)
            assert self.trial.wait_recorded(10, 0.0)
            self.tell(wire.StopNotice(), False)
            assert self.trial.look()
        finally:
            if self.listener is not None:
                self.die()
            self.trial.drop()
            connection._ready = self.ready
            connection.time = time
            shutil.rmtree(self.base)


TestConnection = ConnectionMachine.TestCase
TestConnection.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, database=None
)
