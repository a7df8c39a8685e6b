"""SSH to a machine: a connection that trusts known host keys only, and sessions in which boot.py carries out orders.

Nothing is ever put into a shell's text but the path of the Python there, which has no character that means anything to
a shell (config_load.py sees to that): whatever else is said goes over standard input.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import getpass
import importlib
import importlib.resources
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh

from ..engine.config import Machine, seconds
from ..engine.errors import TuneError
from ..engine.secret import secret
from ..trial_sdk.boot import COMMAND
from ._pack import Packed

CONNECT = 20.0  # seconds to be let in
MISSED = 3  # signs of life that may stay away
ANSWER = 60.0  # seconds for an order
UPLOAD = 600.0  # seconds for a machine to take in what is sent
NOISE = 1 << 20  # bytes that a login shell may print before it lets us speak
LONGEST = 8 << 20  # bytes of an answer
_PIECE = 1 << 18


class Unreachable(TuneError):
    """A machine that can't be reached or used: the message says why, the hint what to do."""


class Untrusted(Unreachable):
    """A machine whose host key is not known, or another one than the known one."""


# -- connecting -------------------------------------------------------------------------------------------------------
async def connect(machine: Machine) -> asyncssh.SSHClientConnection:
    """A connection to a machine, over its jump hosts; `Unreachable`."""
    return await _connect(machine, await tunnel_to(machine))


async def tunnel_to(machine: Machine) -> asyncssh.SSHClientConnection | None:
    """A connection to the last of a machine's jump hosts; None when it has none. `Unreachable`."""
    tunnel: asyncssh.SSHClientConnection | None = None
    for hop in _jumps(machine):
        tunnel = await _connect(hop, tunnel)
    return tunnel


def _jumps(machine: Machine) -> list[Machine]:
    """The jump hosts, in their order."""
    hops: list[Machine] = []
    for jump in filter(None, (machine.proxy_jump or "").split(",")):
        user, _, address = jump.rpartition("@")
        host, _, port = address.partition(":")
        hops.append(
            Machine(
                host=host,
                name=f"{machine.name} (jump host {host})",
                port=int(port or 22),
                user=user,
                ssh_key_file=machine.ssh_key_file,
                ssh_passphrase=machine.ssh_passphrase,
                known_hosts=machine.known_hosts,
                ssh_config=machine.ssh_config,
                keepalive=machine.keepalive,
            )
        )
    return hops


def known_hosts(machine: Machine) -> Path:
    """The file that holds the host keys which are trusted."""
    return Path(machine.known_hosts) if machine.known_hosts else Path.home() / ".ssh" / "known_hosts"


async def _connect(machine: Machine, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    options: dict[str, Any] = {}
    if machine.ssh_key_file is not None:
        options["client_keys"] = [machine.ssh_key_file]
    if machine.ssh_passphrase is not None:
        options["passphrase"] = _secret(machine.ssh_passphrase, machine)
    if machine.password is not None:
        options["password"] = _secret(machine.password, machine)
    if machine.user:
        options["username"] = machine.user
    if tunnel is not None:
        options["tunnel"] = tunnel
    where = _where(machine)
    try:
        async with asyncio.timeout(CONNECT):
            return await asyncssh.connect(
                machine.host,
                machine.port if machine.port != 22 else (),
                config=[str(Path.home() / ".ssh" / "config")] if machine.ssh_config else None,
                known_hosts=_trusted(machine),
                keepalive_interval=seconds(machine.keepalive),
                keepalive_count_max=MISSED,
                **options,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        raise await _untrusted(machine, tunnel) from error
    except asyncssh.PermissionDenied as error:
        user = machine.user or getpass.getuser()
        raise Unreachable(
            f"{where} does not let {user} in: {error.reason}",
            "Name the key with ssh_key_file (and ssh_passphrase), or add it to the SSH agent.",
        ) from error
    except asyncssh.KeyImportError as error:
        raise Unreachable(f"{where}: the key {machine.ssh_key_file} can't be used: {error}") from error
    except TimeoutError as error:
        raise Unreachable(f"{where} does not answer within {CONNECT:g} s") from error
    except (asyncssh.Error, OSError, ValueError) as error:
        raise Unreachable(f"{where} can't be reached: {_said(error)}") from error


def _trusted(machine: Machine) -> bytes:
    """What is known of host keys; never None, which would mean that anybody is trusted."""
    try:
        return known_hosts(machine).read_bytes()
    except FileNotFoundError:
        return b""


def _secret(reference: str, machine: Machine) -> str:
    """What a reference leads to; `Unreachable` where there is nothing."""
    try:
        return secret(reference, _where(machine))
    except TuneError as error:
        raise Unreachable(error.message, error.hint) from error


# -- host keys --------------------------------------------------------------------------------------------------------
async def host_keys(machine: Machine, tunnel: asyncssh.SSHClientConnection | None = None) -> list[asyncssh.SSHKey]:
    """The host keys that a machine shows now, trusted or not, the best first; `Unreachable`."""
    found: dict[bytes, asyncssh.SSHKey] = {}
    where, reason = _where(machine), "it shows no host key"
    for algorithm in ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"):
        try:
            async with asyncio.timeout(CONNECT):
                key = await asyncssh.get_server_host_key(
                    machine.host,
                    machine.port if machine.port != 22 else (),
                    server_host_key_algs=[algorithm],
                    config=[str(Path.home() / ".ssh" / "config")] if machine.ssh_config else None,
                    tunnel=tunnel or (),
                )
        except asyncssh.KeyExchangeFailed:
            continue  # it has no key of this kind
        except TimeoutError:
            reason = f"it does not answer within {CONNECT:g} s"
            break
        except (asyncssh.Error, OSError) as error:
            reason = _said(error)
            break
        if key is not None:
            found[key.public_data] = key
    if not found:
        raise Unreachable(f"{where} can't be reached: {reason}")
    return list(found.values())


def known_keys(machine: Machine) -> list[asyncssh.SSHKey]:
    """The keys that are trusted for a machine."""
    text = _trusted(machine).decode("utf-8", "surrogateescape")
    try:
        matched = asyncssh.import_known_hosts(text).match(machine.host, "", machine.port)
        return list(matched[0])
    except ValueError:
        return []


def trust(machine: Machine, keys: list[asyncssh.SSHKey]) -> Path:
    """Add keys to those that are trusted for a machine; the file that holds them."""
    path = known_hosts(machine)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = machine.host if machine.port == 22 else f"[{machine.host}]:{machine.port}"
    before = _trusted(machine)
    lines = b"" if not before or before.endswith(b"\n") else b"\n"
    for key in keys:
        kind, data = key.export_public_key("openssh").split()[:2]
        lines += name.encode() + b" " + kind + b" " + data + b"\n"
    with path.open("ab") as file:
        file.write(lines)
    path.chmod(0o600)
    return path


async def _untrusted(machine: Machine, tunnel: asyncssh.SSHClientConnection | None) -> Untrusted:
    shown = await host_keys(machine, tunnel)
    known = known_keys(machine)
    told = " and ".join(key.get_fingerprint() for key in shown[:1])
    path = known_hosts(machine)
    if known:
        before = ", ".join(key.get_fingerprint() for key in known)
        entry = machine.host if machine.port == 22 else f"[{machine.host}]:{machine.port}"
        return Untrusted(
            f"the host key of {_where(machine)} has CHANGED: it shows {told}, known is {before} (in {path})",
            f"Somebody may listen in. If it was set up anew: ssh-keygen -R '{entry}', then tune host trust.",
        )
    return Untrusted(
        f"the host key of {_where(machine)} is not known: it shows {told}, and {path} has none for it",
        f"Compare it with the machine's own, then: tune host trust {_address(machine)}",
    )


def _where(machine: Machine) -> str:
    at = machine.host if machine.port == 22 else f"{machine.host}:{machine.port}"
    return f"host {machine.name}" if at in machine.name else f"host {machine.name} ({at})"


def _address(machine: Machine) -> str:
    user = f"{machine.user}@" if machine.user else ""
    return f"{user}{machine.host}" + (f":{machine.port}" if machine.port != 22 else "")


def _said(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason) or type(error).__name__


# -- sessions ---------------------------------------------------------------------------------------------------------
class Session:
    """boot.py, running on a machine: orders in, answers out."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], mark: bytes, dead_after: float) -> None:
        """`dead_after`: seconds without a sign of life until the connection counts as lost."""
        self.process = process
        self.dead_after = dead_after
        self._mark = mark
        self._rest = b""

    async def order(self, do: str, *, patience: float = ANSWER, **rest: Any) -> dict[str, Any]:
        """One order's answer; `Unreachable` with the reason when it can't be done."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **rest}).encode() + b"\n")
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"the connection has ended: {_said(error)}") from error
        return await self.answer(patience)

    async def answer(self, patience: float = ANSWER) -> dict[str, Any]:
        """The next answer."""
        try:
            async with asyncio.timeout(patience):
                line = await self._line()
        except TimeoutError:
            raise Unreachable(f"no answer within {patience:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"the connection has ended: {_said(error)}") from error
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise Unreachable(str(answer["error"]))
        return answer

    async def send(self, data: AsyncIterator[bytes]) -> None:
        """Send bytes after an order that takes them."""
        try:
            async for piece in data:
                self.process.stdin.write(piece)
                await self.process.stdin.drain()
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"the transfer was cut off: {_said(error)}") from error

    async def bytes(self, size: int) -> AsyncGenerator[bytes, None]:
        """The `size` bytes that follow an answer."""
        left = size
        while left:
            data, self._rest = self._rest[:left], self._rest[left:]
            try:
                data = data or await self.process.stdout.read(min(left, _PIECE))
            except (OSError, asyncssh.Error) as error:
                raise Unreachable(f"the transfer was cut off: {_said(error)}") from error
            if not data:
                raise Unreachable("the transfer was cut off")
            left -= len(data)
            yield data

    async def _line(self) -> bytes:
        """The text of the next line with our mark; what a login shell says before it is noise."""
        while True:
            before, mark, after = self._rest.partition(b"\n" + self._mark + b" ")
            line, end, rest = after.partition(b"\n")
            if end:
                self._rest = rest
                return line
            if len(self._rest) > (LONGEST if mark else NOISE):
                raise Unreachable("it prints without end, and never answers")
            data = await self.process.stdout.read(_PIECE)
            if not data:
                raise await self._ended(before)
            self._rest += data

    async def _ended(self, noise: bytes) -> Unreachable:
        with contextlib.suppress(TimeoutError, asyncssh.Error):
            async with asyncio.timeout(5):
                await self.process.wait_closed()
        words = b""
        with contextlib.suppress(TimeoutError, asyncssh.Error):
            async with asyncio.timeout(5):
                words = await self.process.stderr.read(4096)
        text = (words or noise).decode(errors="replace").strip()
        code = self.process.exit_status
        missing = code in (126, 127) or "ommand not found" in text or "No such file" in text  # csh ends with 1
        return _NoPython(text) if missing else Unreachable(text[-500:] or f"it ended with exit code {code}")

    def close(self) -> None:
        """End it."""
        self.process.close()


class _NoPython(Unreachable):
    """There is no such program."""


async def put(opened: Session, folder: str, path: str, packed: Packed, check: str = "") -> str:
    """Have something there, sent only when it is not: its whole path."""
    answer = await opened.order(
        "put",
        folder=folder,
        path=path,
        size=packed.size,
        digest=packed.digest,
        check=check,
        stall=max(10.0, 2 * opened.dead_after),
    )
    if answer.get("send"):
        await opened.send(packed.pieces())
        answer = await opened.answer(UPLOAD)
    return str(answer["path"])


@contextlib.asynccontextmanager
async def session(connection: asyncssh.SSHClientConnection, machine: Machine) -> AsyncGenerator[Session, None]:
    """boot.py, running on the machine while the block does."""
    opened = await open_session(connection, machine)
    try:
        yield opened
    finally:
        opened.close()


async def open_session(connection: asyncssh.SSHClientConnection, machine: Machine) -> Session:
    """boot.py, running on the machine; `Unreachable` where no Python is."""
    tried: list[str] = []
    for python in pythons(machine.python_path):
        mark = secrets.token_hex(16).encode()
        try:
            process = await connection.create_process(f"{python} {COMMAND}", encoding=None, term_type=None)
        except (asyncssh.Error, OSError) as error:
            raise Unreachable(f"{_where(machine)} runs no command: {_said(error)}") from error
        opened = Session(process, mark, MISSED * seconds(machine.keepalive))
        process.stdin.write(base64.b64encode(boot_text()) + b"\n" + mark + b"\n")
        try:
            await opened.order("hello")
        except _NoPython as error:
            tried.append(f"{python} ({error.message.splitlines()[-1][:200] if error.message else 'not found'})")
            opened.close()
            continue
        except Unreachable as error:
            opened.close()
            raise Unreachable(f"{_where(machine)}: {error.message}", error.hint) from error
        return opened
    raise Unreachable(
        f"{_where(machine)} has no Python: tried {', '.join(tried)}",
        "Name one that is there with python_path: the program, or the folder it is in.",
    )


def pythons(path: str | None) -> list[str]:
    """The commands that may be the Python of a `python_path`: a program, a folder of programs, an environment."""
    if path is None:
        return ["python3"]
    whole = path.rstrip("/")
    if whole.rpartition("/")[2].startswith(("python", "pypy")):
        return [whole]
    return [f"{whole}/python3", f"{whole}/bin/python3", f"{whole}/python", whole]


def boot_text() -> bytes:
    """boot.py's text."""
    return importlib.resources.files("tune.trial_sdk").joinpath("boot.py").read_bytes()
