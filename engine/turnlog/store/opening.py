"""Opening a database: whose it is, which schema it has, and who writes to it.

The one rule: nothing is changed in a file that is not turnlog's, and nothing at all where it is
opened read-only. Opening and migrating is serialised between processes by a lock file.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import (
    NotFound,
    NotTurnlog,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreMoved,
    StoreReadOnly,
    StoreUnavailable,
)
from . import statements
from .beats import LOCKS, Life, Pulse, Watch
from .driving import THREADS, Driver
from .faults import FAILED, primary, translate
from .migrating import upgrade
from .owners import CannotLock, LockFile, Owners, check_name
from .reads import Reads
from .room import BACKLOG, Backlog
from .schema import APPLICATION_ID, REVISION
from .transaction import Transaction
from .whereabouts import Whereabouts

Durability = Literal["power", "process"]
Mode = Literal["ro", "rw", "rwc"]

_PATIENCE = 0.02
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_REVISION = re.compile(r"[0-9]{4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a database is to be opened; `busy_timeout` is in seconds."""

    path: Path
    durability: Durability
    partitions: int
    busy_timeout: float
    owner: str
    driver: Driver = THREADS
    life: Life = LOCKS
    backlog: Backlog = BACKLOG
    watch: Watch = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        watch = Watch(self.life.late_seconds, self.life.clock)
        object.__setattr__(self, "watch", watch)

    def dead(self, owner: str, beat: int | None) -> bool:
        """Whether an owner is dead; its row says by what to tell: its beat, or its lock file."""
        if owner == self.owner:
            return False
        return self.watch.late(owner, beat) if beat else not self.owners.alive(owner)

    @property
    def owners(self) -> Owners:
        """The owners of the database, in the directory beside it."""
        path = self.path.resolve()  # by whatever name it is opened, its owners must meet
        return Owners(path.with_name(f"{path.name}-owners"))


def address(path: Path, mode: Mode) -> str:
    """A file as the URI that SQLite opens.

    Reading takes files beside the database, which cannot be made where a directory is read-only.
    Without a write-ahead log nobody has it open there, and it can be read as it stands.
    """
    real = path.resolve()  # SQLite follows links, and makes those files where the file really is
    fixed = mode == "ro" and not _is_writable(real.parent)
    fixed = fixed and not real.with_name(f"{real.name}-wal").exists()
    return f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if fixed else ''}"


def _is_writable(directory: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(directory, os.W_OK, effective_ids=effective)


def connect(settings: Settings, mode: Mode) -> sqlite3.Connection:
    """A connection without the driver's own transactions; raises sqlite3.Error."""
    return settings.driver.connect(address(settings.path, mode), settings.busy_timeout)


class Opened:
    """The writing connection of an open database, and the owner that it writes for."""

    def __init__(self, settings: Settings, reads: Reads, lock: LockFile | None) -> None:
        self._settings = settings
        self._connection: sqlite3.Connection | None = None
        self._seen = 0
        self._lock = lock
        self.reads = reads
        self.place = Whereabouts(settings.path)
        self.owner = settings.owner
        self.pulse = Pulse(settings.life)
        self.name = str(settings.path)

    def transaction(self, connection: sqlite3.Connection) -> Transaction:
        """What is to be written in the transaction that `begin` began."""
        return Transaction(connection, self.reads, self.owner, self._settings.dead, self.pulse)

    def begin(self) -> sqlite3.Connection:
        """The connection, connected again where it was dropped, in a new transaction.

        Raises StoreMoved where a file is not where it was, and sqlite3.Error.
        """
        connection = self._connected()
        with self._forgiving():
            connection.execute("BEGIN IMMEDIATE")
        try:
            self.place.settle()
        except StoreMoved:
            connection.execute("ROLLBACK")
            raise
        return connection

    @contextlib.contextmanager
    def _forgiving(self) -> Generator[None]:
        """Hold it against nobody that they did not beat while the database was locked for long."""
        life = self._settings.life
        asked = life.clock()
        try:
            yield
        finally:
            if life.clock() - asked > life.beat_seconds / 2:
                self._settings.watch.forgive()

    def others_wrote(self) -> bool:
        """Whether anybody else has committed since this was asked, or may have done so."""
        # What this connection commits itself does not count, and nobody else in this process
        # writes; a new connection counts from anew, which is why it may say yes for nothing.
        before = self._seen
        (self._seen,) = self._connected().execute("PRAGMA data_version").fetchone()
        return self._seen != before

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._seen = 0
            self.place.check()
            self._connection = connect(self._settings, "rw")
            durable = "FULL" if self._settings.durability == "power" else "NORMAL"
            self._connection.execute(f"PRAGMA synchronous = {durable}")
            # What a savepoint may have to undo (`Torn`) would go through a file otherwise.
            self._connection.execute("PRAGMA temp_store = MEMORY")
            # Only macOS knows a stronger sync than fsync; elsewhere this says nothing.
            self._connection.execute(f"PRAGMA fullfsync = {int(durable == 'FULL')}")
        return self._connection

    def drop(self) -> None:
        """Let go of a connection in an unknown state; the next transaction connects again."""
        # Where nothing could be written here, as on a full disk, others could not beat either.
        self._settings.watch.forgive()
        connection, self._connection = self._connection, None
        if connection is not None:
            self.place.leave()
            connection.close()

    def close(self) -> None:
        """Move what is in the write-ahead log to the file, and end the owner's life."""
        try:
            self._leave()
            if self._connection is not None and self.place.free():
                # Others may keep it from being moved now; it is safe where it is.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA busy_timeout = 0")
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self.drop()
            if self._lock is not None:
                self._lock.release(remove=True)

    def _leave(self) -> None:
        """Say that this owner beats no more; where that cannot be, its beat is late in time."""
        if not self.pulse.beats:
            return
        with contextlib.suppress(sqlite3.Error, StoreError):
            connection = self.begin()
            transaction = self.transaction(connection)
            transaction.check_schema()
            transaction.roll.leave()
            connection.execute("COMMIT")


def open_database(settings: Settings) -> Opened:
    """Open for writing; make and migrate the database where that is needed.

    Raises NotFound (no such directory), NotTurnlog, SchemaMismatch, StoreCorrupt, StoreReadOnly
    and StoreUnavailable.
    """
    if not settings.path.parent.is_dir():
        raise NotFound(f"there is no directory {settings.path.parent}: make it first")
    if os.path.exists(settings.path):  # `Path.exists` raises for a name that is too long
        inspect(settings, "rw")
    with _serialised(settings), _translated(settings):
        partitions = _bring_up(settings)
        opened = Opened(settings, Reads(partitions), _enter(settings))
        try:
            _bury_the_dead(settings, opened)
            opened.others_wrote()
        except BaseException:
            opened.close()
            raise
        return opened


def _enter(settings: Settings) -> LockFile | None:
    """Come alive: by a lock file, or else by beats, from the first lease on."""
    if settings.life.owners == "locks":
        return settings.owners.enter(settings.owner)
    check_name(settings.owner)
    return None


def inspect(settings: Settings, mode: Mode) -> tuple[str | None, int | None]:
    """The schema and the number of partitions of a database, None where it has none so far.

    Raises NotFound, NotTurnlog, SchemaMismatch (newer than this turnlog), StoreCorrupt,
    StoreReadOnly and StoreUnavailable.
    """
    if not os.path.exists(settings.path):
        raise NotFound(f"there is no database {settings.path}")
    if settings.path.is_dir():
        raise NotTurnlog(f"{settings.path} is a directory: choose a file")
    with _translated(settings), contextlib.closing(connect(settings, mode)) as connection:
        return _identify(settings, connection)


def _identify(settings: Settings, connection: sqlite3.Connection) -> tuple[str | None, int | None]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if application != APPLICATION_ID and (application or tables):
        raise NotTurnlog(f"{settings.path} is not a database of turnlog's: choose another file")
    if not tables:
        return None, None
    revisions = connection.execute(statements.REVISION).fetchall()
    revision = str(revisions[0][0]) if revisions else None
    if revision is not None and not _REVISION.fullmatch(revision):
        raise StoreCorrupt(
            f"{settings.path} is at schema {revision!r}, which is none: restore a backup"
        )
    if revision is not None and revision > REVISION:
        raise SchemaMismatch(
            f"{settings.path} is at schema {revision}, and this turnlog knows {REVISION}:"
            " update turnlog"
        )
    found = connection.execute(statements.META, {"name": "partitions"}).fetchone()
    if found and not _NUMBER.fullmatch(str(found[0])):
        raise StoreCorrupt(f"{settings.path} has {found[0]!r} partitions: restore a backup")
    return revision, int(found[0]) if found else None


def _bring_up(settings: Settings) -> int:
    """Make or migrate the database; the number of its partitions."""
    with contextlib.closing(connect(settings, "rwc")) as connection:
        revision, partitions = _identify(settings, connection)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    if revision != REVISION:
        upgrade(lambda: connect(settings, "rw"))
    if partitions is None:
        partitions = _partition(settings)
    return partitions


def _partition(settings: Settings) -> int:
    """Fix the number of partitions, unless somebody else did at the same moment."""
    with contextlib.closing(connect(settings, "rw")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        wanted = {"name": "partitions", "value": str(settings.partitions)}
        connection.execute(statements.ADD_META, wanted)
        (found,) = connection.execute(statements.META, {"name": "partitions"}).fetchone()
        connection.execute("COMMIT")
    return int(found)


def _bury_the_dead(settings: Settings, opened: Opened) -> None:
    """Forget owners that are dead and hold no lease; absent is as dead as free."""
    owners = settings.owners
    for owner in list(owners.known()):
        if owner != settings.owner:
            owners.bury(owner)
    connection = opened.begin()
    roll = opened.transaction(connection).roll
    opened.pulse.start(roll.said(settings.owner) or 0)
    roll.forget_the_dead()
    connection.execute("COMMIT")


@contextlib.contextmanager
def _serialised(settings: Settings) -> Generator[None]:
    """One at a time, in whatever process; raises StoreUnavailable after the busy timeout.

    Where owners beat because no file can be locked, a migration's transaction has to do.
    """
    lock = None
    try:
        lock = _opening(settings)
    except CannotLock:
        if settings.life.owners == "locks":
            raise
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _opening(settings: Settings) -> LockFile:
    give_up = time.monotonic() + settings.busy_timeout
    while (lock := settings.owners.opening()) is None:
        if time.monotonic() > give_up:
            raise StoreUnavailable(f"{settings.path} is being opened elsewhere: try again")
        time.sleep(_PATIENCE)
    return lock


@contextlib.contextmanager
def _translated(settings: Settings) -> Generator[None]:
    try:
        yield
    except FAILED as error:
        directory = settings.path.resolve().parent
        if primary(error) == sqlite3.SQLITE_CANTOPEN and not _is_writable(directory):
            raise StoreReadOnly(
                f"the database {settings.path} cannot be opened where it is, since {directory}"
                " cannot be written: copy it, with what is beside it, to where that can be"
            ) from error
        raise translate(error, str(settings.path)) from error
