"""The channel between an engine and a keeper: every message, once. Framed as in wire.py.

A launch is (trial id, attempt); its folder is `trials/<trial id>/<attempt>/` on the keeper's host. The keeper answers
each command, and says by itself what happens to launches it was told of (Launch or Probe). Every statement may come
twice (after a reconnect); numbers and the (trial, attempt) make that harmless.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from .wire import VERSION


# -- engine -> keeper -------------------------------------------------------------------------------------------------
class Attach(Struct, frozen=True, tag="attach"):
    """First on every connection. A keeper serves one engine, the newest: an older epoch is refused, the same or a
    newer one replaces the connection that is there. With `devices` it is to say what devices there are (Inventory)."""

    experiment: str
    epoch: int
    version: int = VERSION
    devices: bool = False


class Launch(Struct, frozen=True, tag="launch"):
    """Start a trial's attempt. Answered by Launched, LaunchFailed, or NotLaunched when its devices can't be had;
    started at most once however often it is said."""

    trial: str
    attempt: int
    number: int  # of the trial, for its environment
    phase: int  # that the trial starts with
    parameters: str  # JSON text of that phase
    command: str  # given to /bin/sh -c
    cwd: str
    env: dict[str, str] = {}  # on top of the keeper's own; with TUNE_OUTPUT_DIR files lie where hosts share them
    unset: list[str] = []  # taken out of it
    path: str = ""  # put in front of PATH
    multi_phase: bool = False
    devices: list[str] | None = None  # uuids of those that it may use; None: whatever the keeper's environment says
    share: bool = False  # also those that trials of other experiments use
    most: int = 1  # trials on one device


class Probe(Struct, frozen=True, tag="probe"):
    """What became of a launch? Answered by Launched, then Reports, then Exited if it is over; or by NeverLaunched.

    `recorded` says, by process, the number up to which its reports are in the log; the keeper sends what is after.
    """

    trial: str
    attempt: int
    recorded: dict[str, int] = {}


class Stop(Struct, frozen=True, tag="stop"):
    """End a launch: StopNotice and TERM to its whole tree, KILL after `grace` seconds. Answered by Exited."""

    trial: str
    attempt: int
    grace: float


class Ack(Struct, frozen=True, tag="ack"):
    """All reports of this process up to `number` are in the log."""

    trial: str
    attempt: int
    process: str
    number: int


class Answer(Struct, frozen=True, tag="answer"):
    """The answer to a request for parameters, to be passed on to the process if it is there."""

    trial: str
    attempt: int
    process: str
    number: int
    phase: int
    parameters: str | None


class Claim(Struct, frozen=True, tag="claim"):
    """The experiment has trials that wait for `wants` of these devices (uuids), and none that runs: other experiments
    are to leave it as many. No devices: it has no claim any more. A claim ends with the connection."""

    devices: list[str] = []
    wants: int = 0


class Forget(Struct, frozen=True, tag="forget"):
    """The launch's end is in the log: the keeper need not tell it again."""

    trial: str
    attempt: int


class Shutdown(Struct, frozen=True, tag="shutdown"):
    """The experiment is over: kill what is left of it on this host, and end. Answered by Over."""


# -- keeper -> engine -------------------------------------------------------------------------------------------------
class Attached(Struct, frozen=True, tag="attached"):
    """The answer to Attach."""

    host: str
    pid: int
    boot: str
    version: int = VERSION


class Refused(Struct, frozen=True, tag="refused"):
    """The answer to an Attach that is not taken, with the reason; the connection ends."""

    reason: str


class Over(Struct, frozen=True, tag="over"):
    """The answer to Shutdown: nothing of the experiment is left on this host, and the keeper ends."""


class Launched(Struct, frozen=True, tag="launched"):
    """The launch was started: `pid` of the inner shell, `started` in us of the host's wall clock."""

    trial: str
    attempt: int
    pid: int
    started: int


KEEPER_DIED = "the keeper died while starting it"  # the reason of a LaunchFailed that is not the trial's doing


class LaunchFailed(Struct, frozen=True, tag="launch_failed"):
    """The launch could not be started, and never will be; with KEEPER_DIED as the reason, its command never ran."""

    trial: str
    attempt: int
    reason: str


class NotLaunched(Struct, frozen=True, tag="not_launched"):
    """These of the launch's devices can't be had now: nothing was made, it may be launched here or elsewhere.

    An Inventory follows when that has changed.
    """

    trial: str
    attempt: int
    devices: list[str]
    reason: str  # of the first one


class Device(Struct, frozen=True, omit_defaults=True):
    """A device of a host. `memory` in bytes; `busy`: a process that is no trial of this experiment computes on it;
    `leases`: how many trials of other experiments hold it."""

    index: int
    uuid: str
    name: str = ""
    memory: int = 0
    busy: bool = False
    leases: int = 0


class Inventory(Struct, frozen=True, tag="inventory"):
    """The devices that trials can be given here, after Attached and when it has changed, for an engine that wants
    to know. `reason`: what is wrong with the others, or why there are none."""

    devices: list[Device] = []
    reason: str = ""


class NeverLaunched(Struct, frozen=True, tag="never_launched"):
    """The answer to a Probe of a launch that has no folder: it may be launched."""

    trial: str
    attempt: int


class Reports(Struct, frozen=True, tag="reports"):
    """Whole frames of a spool as they stand there (spool.parse reads them); `first` is the first one's number."""

    trial: str
    attempt: int
    process: str
    first: int
    data: bytes


class TrialWaits(Struct, frozen=True, tag="trial_waits"):
    """A process waits for the answer to its request `number` (said again after every reconnect)."""

    trial: str
    attempt: int
    process: str
    number: int


class Exited(Struct, frozen=True, tag="exited"):
    """The launch is over, and all its reports were sent before this on the same connection.

    `code`: exit code, -N for signal N, None when nobody knows (its waiter died). `reason`: "" or "lease" (the keeper
    ended it because no engine was heard for so long). `stderr`: the end of it, <= 4 KiB.
    """

    trial: str
    attempt: int
    code: int | None
    ended: int
    reason: str = ""
    stderr: str = ""


class Flood(Struct, frozen=True, tag="flood"):
    """The flood policy left out the intermediates `first` to `last` of this process."""

    trial: str
    attempt: int
    process: str
    first: int
    last: int


ToKeeper = Attach | Launch | Probe | Stop | Ack | Answer | Claim | Forget | Shutdown
FromKeeper = (
    Attached
    | Refused
    | Over
    | Inventory
    | Launched
    | LaunchFailed
    | NotLaunched
    | NeverLaunched
    | Reports
    | TrialWaits
    | Exited
    | Flood
)

encoder = msgspec.msgpack.Encoder()
to_keeper: msgspec.msgpack.Decoder[ToKeeper] = msgspec.msgpack.Decoder(ToKeeper)
from_keeper: msgspec.msgpack.Decoder[FromKeeper] = msgspec.msgpack.Decoder(FromKeeper)
