"""The log: one SQLite file that holds every event of an experiment, written by one engine and read by anybody.

The rules, whose numbers the tests carry:

L1  One table, `event`, STRICT, ten columns and a chain; the body is JSON, so any SQLite tool can read a log.
L2  `seq` is dense, 1, 2, 3 ...; `(sender, sender_seq)` occurs once.
L3  Append-only: triggers refuse UPDATE, DELETE and an INSERT whose seq is not the next one or whose sender's number
    is taken (INSERT OR REPLACE would otherwise slip past the delete trigger).
L4  `chain` is BLAKE2b-256 over the previous chain (32 zero bytes first) and the msgpack array of the ten columns in
    table order. Whatever reads rows checks it, and gives the first bad seq.
L5  A chain proves a prefix only, so after each commit seq and chain also go into `events.head` (not synced). A log
    that is shorter than its head was cut. A head that is behind is normal after a crash.
L6  An append is durable when it returns: WAL, synchronous=FULL, and every pragma is read back. A batch is one
    statement, so it is there as a whole or not at all.
L7  Appends are shielded from cancellation: a commit can't be called back. A cancellation that came through
    nevertheless (a bare `Task.cancel`) ends the handle, which no longer knows what is on disk.
L8  A full disk waits: `on_full` is called once an episode, the very same batch is tried again until there is room.
L9  Any other I/O error ends the handle for ever, and such a handle is closed without a checkpoint. SQLite reports one
    failed fsync and then acknowledges the next commits as if nothing had happened.
L10 One connection in the world writes and checkpoints (SQLite before 3.51.3 can corrupt a WAL that two connections
    reset at once); readers are `mode=ro`. The checkpoint is an explicit call, since SQLite's automatic one swallows
    its errors, a failed fsync among them.
L11 Fencing: an event of an older epoch than the log's last one is refused inside the insert trigger, so that an
    engine that was paused and wakes up after a takeover can't write.
L12 An orderly end checkpoints, so that one file is the whole log.
L13 A log from a stranger may be read: `trusted_schema=OFF`, and the schema is compared with ours before any query.
L14 Old logs open for ever: `UPCAST` lifts old bodies at read, after the chain was checked.
L15 Files are made 0600, and the folder is synced once the file is in it.

Nothing in a process that holds a log open may open `events.db` itself: closing any descriptor of a file drops the
process's POSIX locks on it, SQLite's too.

Errors:
    LogError
      LogMissing   there is no such file
      LogDamaged   what was written is not what is there; `first_bad_seq`, `reason`
      LogNewer     written by a later version of this program
      LogFenced    another engine has taken the log over
      LogIO        the disk, the file system or SQLite failed
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import aiosqlite
import anyio
import msgspec

from ..trial_sdk.crash_point import point
from .events import Row

FORMAT = 1
APPLICATION = 0x74756E65  # "tune", for file(1) and for us
ZERO = bytes(32)
MAX_ROW = 16 << 20  # bytes of one row as msgpack; a reader takes no longer ones
CHECKPOINT_FRAMES = 1000  # pages in the WAL after which they are moved into the file
_WAL_LIMIT = 16 << 20  # bytes that the WAL file keeps once a slow reader is gone
_BUSY_MS = 10_000
_READ = 4096  # rows a query; no lock is held while a reader's caller works on them
_INT64 = 1 << 63

_TABLE = (
    "CREATE TABLE event(seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, kind TEXT NOT NULL, ver INTEGER NOT NULL, "
    "sender TEXT NOT NULL, sender_seq INTEGER NOT NULL, trial INTEGER, cause INTEGER, wall_us INTEGER NOT NULL, "
    "body TEXT NOT NULL, chain BLOB NOT NULL, UNIQUE(sender, sender_seq)) STRICT"
)
_TRIGGERS = {
    "event_delete": "CREATE TRIGGER event_delete BEFORE DELETE ON event BEGIN "
    "SELECT RAISE(ABORT, 'the log is append-only: no DELETE'); END",
    "event_insert": "CREATE TRIGGER event_insert BEFORE INSERT ON event BEGIN "
    "SELECT RAISE(ABORT, 'fenced: a newer engine has taken the log over') "
    "WHERE NEW.epoch < (SELECT epoch FROM event ORDER BY seq DESC LIMIT 1); "
    "SELECT RAISE(ABORT, 'the log is append-only: seq is not the next one') "
    "WHERE NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM event); "
    "SELECT RAISE(ABORT, 'the log is append-only: this number of the sender is taken') "
    "WHERE EXISTS (SELECT 1 FROM event WHERE sender = NEW.sender AND sender_seq = NEW.sender_seq); END",
    "event_update": "CREATE TRIGGER event_update BEFORE UPDATE ON event BEGIN "
    "SELECT RAISE(ABORT, 'the log is append-only: no UPDATE'); END",
}
_SCHEMA: list[tuple[str, str, str, str | None]] = sorted(
    [
        ("table", "event", "event", _TABLE),
        ("index", "sqlite_autoindex_event_1", "event", None),
        *(("trigger", name, "event", sql) for name, sql in _TRIGGERS.items()),
    ],
    key=lambda entry: entry[1],
)
_PRAGMAS: dict[str, tuple[str, str | int]] = {  # what is set, and what must be read back
    "trusted_schema": ("OFF", 0),
    "cell_size_check": ("ON", 1),
    "busy_timeout": (str(_BUSY_MS), _BUSY_MS),
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "fullfsync": ("ON", 1),  # macOS: its fsync alone does not reach the platter
    "checkpoint_fullfsync": ("ON", 1),
    "recursive_triggers": ("ON", 1),
    "wal_autocheckpoint": ("0", 0),
    "journal_size_limit": (str(_WAL_LIMIT), _WAL_LIMIT),
}
_COLUMNS = "seq, epoch, kind, ver, sender, sender_seq, trial, cause, wall_us, body, chain"
# The chains travel as one BLOB, 32 bytes a row: JSON has no bytes, and SQLite before 3.41 no unhex().
_INSERT = (
    "INSERT INTO event SELECT "
    + ", ".join(f"json_extract(value, '$[{column}]')" for column in range(10))
    + ", substr(?2, key * 32 + 1, 32) FROM json_each(?1)"
)
_HEAD = struct.Struct("<8sq32sI")
_HEAD_MAGIC = b"tunehd1\n"

UPCAST: dict[tuple[str, int], Callable[[str], str]] = {}
"""(kind, version) -> a pure function from a body of that version to one of the next; tried until none fits."""

_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)  # SQLite's messages can quote a damaged file
_UNMADE = "the log is just being made, or its engine died as it made it"
_logger = logging.getLogger(__name__)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Row).decode
_blake2b = hashlib.blake2b


class LogError(Exception):
    """Whatever can be wrong with a log; the tree is in the module's docstring."""


class LogMissing(LogError):
    """There is no log at this path."""


class LogDamaged(LogError):
    """The log is not what was written. `first_bad_seq`: the first event that is wrong or gone, None if unknown."""

    def __init__(self, first_bad_seq: int | None, reason: str) -> None:
        at = "" if first_bad_seq is None else f" from event {first_bad_seq} on"
        super().__init__(f"the log is damaged{at}: {reason}")
        self.first_bad_seq = first_bad_seq
        self.reason = reason


class LogNewer(LogError):
    """The log was written by a later version of this program."""


class LogFenced(LogError):
    """Another engine has taken the log over; this one may write no more."""


class LogIO(LogError):
    """The disk, the file system or SQLite failed; the handle writes no more."""


def chain_of(previous: bytes, row: Row) -> bytes:
    """The chain (32 bytes) of a row that follows one with the chain `previous` (L4)."""
    return _blake2b(previous + _pack(row), digest_size=32).digest()


def head_path(path: Path) -> Path:
    """Where the head of the log at `path` stands: `events.head` beside `events.db`."""
    return path.with_suffix(".head")


def read_head(path: Path) -> tuple[int, bytes] | None:
    """Seq and chain in the head of the log at `path`; None when it is missing or unreadable.

    It is not synced, so after a power cut it may be empty: that alone is no damage.
    """
    try:
        data = head_path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogIO(f"can't read {head_path(path)}: {error}") from error
    if len(data) != _HEAD.size:
        return None
    magic, seq, chain, crc = _HEAD.unpack(data)
    if magic != _HEAD_MAGIC or crc != zlib.crc32(data[:-4]):
        return None
    return seq, chain


def _translated(error: sqlite3.Error | UnicodeDecodeError, seq: int | None) -> LogError:
    """Ours for one of SQLite's; `seq` is the first event that could not be read, or None."""
    if isinstance(error, UnicodeDecodeError):
        return LogDamaged(seq, "there is text in it that is no UTF-8")
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # the sqlite3 module's own: text that is no UTF-8, a row beyond the length limit
        if isinstance(error, sqlite3.OperationalError | sqlite3.DataError):
            return LogDamaged(seq, str(error))
        return LogIO(f"SQLite: {error}")
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_ERROR):
        return LogDamaged(seq, str(error))
    return LogIO(f"SQLite: {error} ({error.sqlite_errorname})")


def _check_schema(entries: list[tuple[object, ...]], application: int, version: int) -> None:
    """Refuse what is not our schema (L13)."""
    if application == APPLICATION and version > FORMAT:
        raise LogNewer(f"the log has format {version}, this program knows {FORMAT}: use a newer version of tune")
    if application != APPLICATION or version != FORMAT or entries != _SCHEMA:
        raise LogDamaged(None, "this is no log of tune, or its schema was changed")


def _check_head(head: tuple[int, bytes] | None, last: int, chain_at: Callable[[int], bytes | None]) -> None:
    """Refuse a log that is shorter than its head or another one (L5)."""
    if head is None or head[0] < 1:
        return
    if head[0] > last:
        raise LogDamaged(last + 1, f"the log was cut: it ends with event {last}, but {head[0]} were written")
    if chain_at(head[0]) != head[1]:
        raise LogDamaged(None, f"event {head[0]} is not the one that events.head names: the log was exchanged")


class Log:
    """The one writer of a log. Made by `Log.open`; ended by `close`, also after an error.

    `last_seq` and `last_chain` are those of the last durable event, `epoch` is what `take` set.
    """

    def __init__(
        self,
        path: Path,
        connection: aiosqlite.Connection,
        anchor: sqlite3.Connection,
        head: int,
        last: tuple[int, bytes],
        on_full: Callable[[str], None],
        retry: float,
    ) -> None:
        self.path = path
        self.last_seq, self.last_chain = last
        self.epoch = 0
        self._connection = connection
        self._anchor = anchor
        self._head = head
        self._on_full = on_full
        self._retry = retry
        self._frames = 0  # about how many pages the WAL holds
        self._dead: LogError | None = None
        self._closed = False
        self._guard = anyio.ResourceGuard("appending to the log")

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        create: bool,
        expect: tuple[int, bytes] | None = None,
        on_full: Callable[[str], None] | None = None,
        retry: float = 1.0,
    ) -> Log:
        """Make a log, or open one for writing.

        To open one the caller has replayed it by a `Reader`: `expect` is that reader's `last`, and the file must end
        with it. `on_full` is told once an episode that the disk is full; `retry` seconds later the batch is tried
        again. The caller holds the experiment's lock. Raises any `LogError`.
        """
        if create == (expect is not None):
            raise ValueError("expect is for opening an existing log, and needed there")
        if sqlite3.sqlite_version_info < (3, 37):
            raise LogIO(f"SQLite {sqlite3.sqlite_version} is too old for STRICT tables: 3.37 or later is needed")
        try:
            _prepare(path, create)
            point("log.made")
            return await cls._open(path, create, expect, on_full or _log_full, retry)
        except OSError as error:
            raise LogIO(f"can't {'make' if create else 'open'} the log {path}: {error}") from error

    @classmethod
    async def _open(
        cls,
        path: Path,
        create: bool,
        expect: tuple[int, bytes] | None,
        on_full: Callable[[str], None],
        retry: float,
    ) -> Log:
        address = _address(path)
        connection: aiosqlite.Connection | None = None
        anchor: sqlite3.Connection | None = None
        head = -1
        try:
            if not create:
                anchor = _stand_by(address)
            connection = await aiosqlite.connect(f"{address}?mode=rw", uri=True, isolation_level=None)
            if not create:
                await connection.execute_fetchall("PRAGMA trusted_schema = OFF")
                _check_schema(*await _schema_of(connection))
            await _set_pragmas(connection)
            if create:
                await connection.execute_fetchall("BEGIN IMMEDIATE")
                for sql in (_TABLE, *_TRIGGERS.values()):
                    await connection.execute_fetchall(sql)
                await connection.execute_fetchall(f"PRAGMA application_id = {APPLICATION}")
                await connection.execute_fetchall(f"PRAGMA user_version = {FORMAT}")
                await connection.execute_fetchall("COMMIT")
                point("log.tabled")
                _check_schema(*await _schema_of(connection))
            last = await _last_of(connection)
            if expect is not None and last != expect:
                raise LogDamaged(
                    min(last[0], expect[0]) + 1, f"it ended with event {expect[0]} when it was read, now with {last[0]}"
                )
            if not create:
                chains = {last[0]: last[1]}
                if (written := read_head(path)) is not None and written[0] < last[0]:
                    chains[written[0]] = await _chain_at(connection, written[0]) or b""
                _check_head(written, last[0], chains.get)
            if anchor is None:
                anchor = _stand_by(address)
            head = os.open(head_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            log = cls(path, connection, anchor, head, last, on_full, retry)
            log._write_head()
            if create:
                os.fsync(head)
                _sync_folder(path.parent)
            return log
        except BaseException as error:
            if head >= 0:
                os.close(head)
            if connection is not None:
                with anyio.CancelScope(shield=True):
                    await connection.close()
            if anchor is not None:
                anchor.close()
            if isinstance(error, _UNREADABLE):
                raise _translated(error, None) from error
            raise

    def take(self, epoch: int) -> None:
        """Write as this incarnation of the engine from now on: later than every earlier one."""
        if epoch <= self.epoch:
            raise ValueError(f"epoch {epoch} is not after {self.epoch}")
        self.epoch = epoch

    async def append(self, rows: Sequence[Row]) -> None:
        """Write the batch; it is durable when this returns (L6).

        Raises `ValueError` for rows that don't fit, with nothing changed; `LogFenced` and `LogIO` end the handle: this
        batch may or may not be on disk, and every later append raises the same. A full disk waits, and only while it
        waits can an append be cancelled.
        """
        with self._guard:
            if self._closed:
                raise LogIO("the log is closed")
            if self._dead is not None:
                raise type(self._dead)(f"the log can't be written any more: {self._dead}") from self._dead
            if not rows:
                return
            text, chains = self._batch(rows)
            last = (rows[-1].seq, chains[-32:])
            full = False
            while not await self._commit(text, chains, last, again=full):
                if not full:
                    full = True
                    self._on_full(
                        f"the disk is full: {self.path} waits for room with events {rows[0].seq} to {last[0]}"
                    )
                await anyio.sleep(self._retry)
            point("log.inserted")
            self.last_seq, self.last_chain = last
            self._frames += 3 + len(text) // 2048 + 2 * len({row.sender for row in rows})
            with self._mortal():
                self._write_head()
            if self._frames >= CHECKPOINT_FRAMES:
                await self._checkpoint("PASSIVE")

    def _batch(self, rows: Sequence[Row]) -> tuple[str, bytes]:
        """The rows as one JSON text, and their chains one after the other."""
        seq, chain, chains = self.last_seq, self.last_chain, bytearray()
        for row in rows:
            seq += 1
            if row.seq != seq:
                raise ValueError(f"the next event is {seq}, not {row.seq}")
            if row.epoch != self.epoch:
                raise ValueError(f"event {seq} is of epoch {row.epoch}, the log was taken for {self.epoch}")
            try:
                packed = _pack(row)
                _unpack(packed)  # a float where an integer belongs would be stored as one, and break the chain
            except (msgspec.MsgspecError, TypeError, OverflowError) as error:
                raise ValueError(f"event {seq} ({row.kind}) has a column of a wrong type: {error}") from error
            if "\0" in row.body or "\0" in row.sender or "\0" in row.kind:
                raise ValueError(f"event {seq} ({row.kind}) holds a NUL")
            if len(packed) > MAX_ROW:
                raise ValueError(f"event {seq} ({row.kind}) has over {MAX_ROW} bytes")
            if not (
                -_INT64 <= row.ver < _INT64
                and -_INT64 <= row.sender_seq < _INT64
                and -_INT64 <= row.wall_us < _INT64
                and (row.trial is None or -_INT64 <= row.trial < _INT64)
                and (row.cause is None or -_INT64 <= row.cause < _INT64)
            ):
                raise ValueError(f"event {seq} ({row.kind}) holds an integer of over 64 bits")
            chain = _blake2b(chain + packed, digest_size=32).digest()
            chains += chain
        return msgspec.json.encode(rows).decode(), bytes(chains)

    async def _commit(self, text: str, chains: bytes, last: tuple[int, bytes], *, again: bool) -> bool:
        """Try the batch once; False when the disk is full."""
        with anyio.CancelScope(shield=True), self._mortal():
            if again:  # a commit that reported a full disk may be there nevertheless
                found = await _last_of(self._connection)
                if found == last:
                    return True
                if found != (self.last_seq, self.last_chain):
                    raise LogFenced(f"somebody else writes this log: it ends with event {found[0]}")
            try:
                await self._connection.execute_fetchall(_INSERT, (text, chains))
            except sqlite3.Error as error:
                if _is_full(error):
                    return False
                raise
        return True

    async def _checkpoint(self, mode: str) -> None:
        """Move what the WAL holds into the file (L10)."""
        with anyio.CancelScope(shield=True), self._mortal():
            try:
                rows = list(await self._connection.execute_fetchall(f"PRAGMA wal_checkpoint({mode})"))
            except sqlite3.Error as error:
                if not _is_full(error):
                    raise
                _logger.warning("the disk is full: %s keeps its write-ahead log", self.path)
                self._frames = 0
                return
            _, frames, moved = rows[0]
            self._frames = frames - moved  # a reader can hold some back: they go next time

    @contextlib.contextmanager
    def _mortal(self) -> Generator[None, None, None]:
        """Whatever fails inside ends the handle (L7, L9), and leaves as a `LogError`."""
        try:
            yield
        except LogError as error:
            self._dead = error
            raise
        except sqlite3.Error as error:
            text = str(error)
            if text.startswith("fenced"):
                self._dead = LogFenced(text)
            elif "seq is not the next" in text:
                self._dead = LogFenced("somebody else writes this log")
            else:
                self._dead = LogIO(f"SQLite: {text} ({getattr(error, 'sqlite_errorname', 'no code')})")
            raise self._dead from error
        except Exception as error:
            self._dead = LogIO(f"{type(error).__name__}: {error}")
            raise self._dead from error
        except BaseException:  # cancelled in spite of the shield: the commit goes on in its thread
            self._dead = LogIO("an append was cancelled in the middle of its commit")
            raise

    def _write_head(self) -> None:
        data = _HEAD_MAGIC + struct.pack("<q", self.last_seq) + self.last_chain
        try:
            os.pwrite(self._head, data + zlib.crc32(data).to_bytes(4, "little"), 0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A head that is behind is normal, and the events that it would name are durable.

    async def close(self, *, checkpoint: bool = True) -> None:
        """End the handle; an orderly end leaves one file (L12). Closing twice is fine. Raises `LogIO`.

        A handle that died is closed without a checkpoint. A reader that is busy at this moment can hold the
        checkpoint back: the log is then whole in two files.
        """
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            try:
                if checkpoint and self._dead is None:
                    with self._mortal():
                        await self._connection.execute_fetchall("PRAGMA busy_timeout = 1000")
                    await self._checkpoint("TRUNCATE")
                    # The head is synced here since this is cheap, once.
                    with self._mortal():
                        os.fsync(self._head)
            finally:
                os.close(self._head)
                orderly = checkpoint and self._dead is None
                if orderly:
                    self._anchor.close()
                try:
                    await self._connection.close()
                except sqlite3.Error as error:
                    raise LogIO(f"SQLite: {error}") from error
                finally:
                    if not orderly:
                        self._anchor.close()


def _log_full(message: str) -> None:
    _logger.error("%s", message)


def _is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite found no room; growing the shared memory file reports it in its own way."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def _address(path: Path) -> str:
    """The URI of the file, for SQLite."""
    return path.absolute().as_uri()


def _stand_by(address: str) -> sqlite3.Connection:
    """A second connection that does nothing but be there.

    The writer, closed after an error, is then not the last one, and SQLite does not checkpoint (L9). Its own switch
    against that can be reached from Python 3.12 on only.
    """
    anchor = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        anchor.execute("PRAGMA trusted_schema = OFF")
        anchor.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        anchor.close()
        raise
    return anchor


def _prepare(path: Path, create: bool) -> None:
    """Make the empty file, private from its first moment on, or see that there is one (L15)."""
    if create:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    elif not path.is_file():
        raise LogMissing(f"there is no log at {path}")


def has_begun(path: Path) -> bool:
    """Whether there is a log to resume. The rest of one whose engine died as it made it, before the table, is removed.

    The caller holds the experiment's lock. Raises `LogDamaged`, `LogNewer`, `LogIO`.
    """
    if not path.is_file():
        return path.exists()
    try:
        Reader(path).close()
    except LogMissing:
        for suffix in ("-wal", "-shm", "", "-journal"):  # without its journal the file might look like a damaged log
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _set_pragmas(connection: aiosqlite.Connection) -> None:
    for name, (value, _) in _PRAGMAS.items():
        await connection.execute_fetchall(f"PRAGMA {name} = {value}")
    for name, (value, expected) in _PRAGMAS.items():
        found = [row[0] for row in await connection.execute_fetchall(f"PRAGMA {name}")]
        if found != [expected]:
            raise LogIO(f"SQLite did not take PRAGMA {name} = {value}, it has {found}")


async def _schema_of(connection: aiosqlite.Connection) -> tuple[list[tuple[object, ...]], int, int]:
    entries = await connection.execute_fetchall("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")
    [application] = await connection.execute_fetchall("PRAGMA application_id")
    [version] = await connection.execute_fetchall("PRAGMA user_version")
    return [tuple(entry) for entry in entries], application[0], version[0]


async def _last_of(connection: aiosqlite.Connection) -> tuple[int, bytes]:
    rows = await connection.execute_fetchall("SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1")
    for seq, chain in rows:
        return seq, chain
    return 0, ZERO


async def _chain_at(connection: aiosqlite.Connection, seq: int) -> bytes | None:
    rows = await connection.execute_fetchall("SELECT chain FROM event WHERE seq = ?", (seq,))
    for (chain,) in rows:
        return bytes(chain)
    return None


class Reader:
    """Reads a log, also while an engine writes it; never writes, never checkpoints. A context manager.

    One thread at a time. `last` is seq and chain of the last row read, up to date when an iteration has ended.
    """

    def __init__(self, path: Path) -> None:
        """Raises `LogMissing`, `LogDamaged`, `LogNewer`, `LogIO`."""
        if not path.is_file():
            raise LogMissing(f"there is no log at {path}")
        self.path = path
        self.last: tuple[int, bytes] = (0, ZERO)
        address = _address(path)
        made = head_path(path).exists()  # looked at first: it is written when the table is there
        try:
            self._connection = self._connect(f"{address}?mode=ro", made)
        except LogIO:
            # In a folder where nothing can be made SQLite can't set up its WAL: fine when there is none.
            wal = path.with_name(path.name + "-wal")
            if os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
                raise
            self._connection = self._connect(f"{address}?mode=ro&immutable=1", made)

    @staticmethod
    def _connect(address: str, made: bool) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000
            )
        except _UNREADABLE as error:
            raise _translated(error, None) from error
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * MAX_ROW)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA query_only = ON")
            entries: list[tuple[object, ...]] = connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
            ).fetchall()
            [application] = connection.execute("PRAGMA application_id").fetchone()
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if not (entries or application or version or made):
                raise LogMissing(_UNMADE)
            _check_schema(entries, application, version)
        except _UNREADABLE as error:
            connection.close()
            # before it is a WAL a file has a rollback journal, which a reader may not play back
            if not made and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
                raise LogMissing(_UNMADE) from error
            raise _translated(error, None) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def head(self) -> tuple[int, bytes]:
        """Seq and chain of the table's last row, (0, ZERO) for none, without reading the others."""
        try:
            row = self._connection.execute("SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        except _UNREADABLE as error:
            raise _translated(error, None) from error
        return (0, ZERO) if row is None else (row[0], row[1])

    def rows(
        self, after: int = 0, upto: int | None = None, chain: bytes | None = None, *, raw: bool = False
    ) -> Iterator[Row]:
        """The rows with after < seq <= upto, each checked against its chain before it is yielded.

        `chain` is that of seq `after`; left out, the file's own word for it is taken. Without `upto` it ends where the
        log ends at that moment, and checks that end against `events.head` (L5). `raw` rows are not lifted (L14).
        Raises `LogDamaged` at the first row that is wrong or gone, when all before it were yielded.
        """
        written = read_head(self.path) if upto is None else None
        seq = after
        try:
            found = ZERO if after == 0 else self._chain_at(after)
            if found is None or (chain is not None and found != chain):
                raise LogDamaged(after, f"event {after} is gone or not the one that was read before")
            chain = found
            self.last = (seq, chain)
            size = _READ
            while upto is None or seq < upto:
                first = seq
                try:
                    batch = self._fetch(seq, size if upto is None else min(size, upto - seq))
                except LogDamaged as error:
                    if size == 1:
                        raise LogDamaged(seq + 1, error.reason) from error
                    size = 1  # one of these rows can't be read: find out which
                    continue
                for columns in batch:
                    number = seq + 1
                    if columns[0] != number:
                        raise LogDamaged(number, f"event {number} is missing: {columns[0]} follows on {seq}")
                    packed = _pack(columns[:10])
                    link = _blake2b(chain + packed, digest_size=32).digest()
                    if link != columns[10]:
                        raise LogDamaged(number, f"event {number} does not fit its chain")
                    row = _unpack(packed)
                    if UPCAST and not raw:
                        row = _upcast(row)
                    seq, chain = number, link
                    yield row
                if seq == first:
                    break
            self.last = (seq, chain)
            if upto is None:
                _check_head(written, seq, self._chain_at)
            elif seq < upto:
                raise LogDamaged(seq + 1, f"the log was cut: it ends with event {seq}, not with {upto}")
        except msgspec.MsgspecError as error:
            raise LogDamaged(seq + 1, f"event {seq + 1} has a column of a wrong type: {error}") from error
        finally:
            if chain is not None:
                self.last = (seq, chain)

    def rows_of(self, trial: int, kind: str, upto: int) -> list[Row]:
        """The rows of one trial and one kind up to an event, found by the table alone: for those who have read the log.

        They are not held against their chain. Raises `LogDamaged`.
        """
        try:
            found: list[tuple[object, ...]] = self._connection.execute(
                f"SELECT {_COLUMNS} FROM event WHERE trial = ? AND kind = ? AND seq <= ? ORDER BY seq",
                (trial, kind, upto),
            ).fetchall()
            rows = [_unpack(_pack(columns[:10])) for columns in found]
        except _UNREADABLE as error:
            raise _translated(error, None) from error
        except msgspec.MsgspecError as error:
            raise LogDamaged(None, f"an event of trial {trial} has a column of a wrong type: {error}") from error
        return [_upcast(row) for row in rows] if UPCAST else rows

    def _fetch(self, after: int, count: int) -> list[tuple[object, ...]]:
        try:
            return self._connection.execute(
                f"SELECT {_COLUMNS} FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (after, count)
            ).fetchall()
        except _UNREADABLE as error:
            raise _translated(error, after + 1) from error

    def _chain_at(self, seq: int) -> bytes | None:
        try:
            row = self._connection.execute("SELECT chain FROM event WHERE seq = ?", (seq,)).fetchone()
        except _UNREADABLE as error:
            raise _translated(error, seq) from error
        return None if row is None else row[0]

    def integrity(self) -> str:
        """What SQLite itself finds wrong with the file, its index above all; "" for nothing."""
        try:
            found = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except _UNREADABLE as error:
            raise _translated(error, None) from error
        return "" if found == "ok" else str(found)

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _upcast(row: Row) -> Row:
    """The row with its body lifted as far as `UPCAST` goes."""
    while (lift := UPCAST.get((row.kind, row.ver))) is not None:
        row = msgspec.structs.replace(row, ver=row.ver + 1, body=lift(row.body))
    return row
