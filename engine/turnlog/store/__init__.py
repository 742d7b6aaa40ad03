"""Stores: where events live, on SQLite or in memory.

    open_store   opens, makes and migrates a database
    migrate      brings a database to the newest schema
    MemoryStore  the same contract without a file
    SqlStore     what `open_store` returns for a file

    schema       the tables                          statements  every statement, compiled once
    admission    whether an append may be written    transaction one write transaction
    places       what stands where in a context      writer      the thread that writes
    packing      large parts of bodies               reads       lists; log_reads the log;
    wanted       what a caller asks for                          context_reads contexts;
    bodies       items out of bodies                              item_reads items
    heads, rows  values as rows                      readers     connections that read
    audit        the log against what is beside it   owners      who lives
    room         how much may wait for the writer    left        rows written together
    roll, beats  owners as rows, and beats by a clock
    driving      how the calls that block are run
    opening, migrating, faults, whereabouts, bell, partition

The one rule: stores import values and ports only (design section 2).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from ..errors import InvalidInput, SchemaMismatch
from .beats import LOCKS, Life
from .bell import Bell
from .driving import THREADS, Driver
from .memory import MemoryStore
from .opening import Durability, Settings, address, inspect, open_database
from .readers import Readers
from .reads import Reads
from .room import BACKLOG, Backlog
from .schema import REVISION
from .sql import SqlStore
from .whereabouts import Whereabouts
from .writer import Writer

__all__ = [
    "Backlog",
    "Durability",
    "MemoryStore",
    "SqlStore",
    "migrate",
    "open_store",
    "settings_for",
]

IN_MEMORY = (":memory:", "memory://")


async def open_store(
    path: str | os.PathLike[str],
    *,
    readonly: bool = False,
    durability: Literal["power", "process"] = "power",
    partitions: int = 1,
    busy_timeout: float = 5.0,
    owner: str | None = None,
    owners: Literal["locks", "beats"] = "locks",
    beat_seconds: float = 5.0,
    late_seconds: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    backlog: Backlog = BACKLOG,
    driver: Driver = THREADS,
) -> SqlStore | MemoryStore:
    """Open a database; make and migrate it unless it is opened `readonly`.

    `durability` names what an answered append survives: `power` a power cut, `process` the death
    of the process. `partitions` counts for a new database only. `busy_timeout` is in seconds.
    `owners` says how this one shows that it lives: `locks` a file beside the database, for
    processes of one machine; `beats` a number that it counts up every `beat_seconds` while it
    holds leases, for where files cannot be locked or owners are on several machines. Both kinds
    can share a database. An owner that beats is taken for dead when its beat was the same for
    `late_seconds` of this one's `clock`.
    `backlog` bounds what may wait for the writer.
    `:memory:` and `memory://` give a store that forgets. `driver` is how the calls that block are
    run: in threads, unless a simulation brings its own.

    Raises InvalidInput, NotFound (no such directory; read-only: no such file), NotTurnlog,
    SchemaMismatch, StoreCorrupt, StoreReadOnly and StoreUnavailable.
    """
    if partitions < 1:
        raise InvalidInput(f"a database has at least one partition, not {partitions}")
    life = Life(owners=owners, beat_seconds=beat_seconds, late_seconds=late_seconds, clock=clock)
    if os.fspath(path) in IN_MEMORY:
        return MemoryStore(owner=owner, partitions=partitions, life=life)
    settings = settings_for(
        path, durability, partitions, busy_timeout, owner, driver, life, backlog
    )
    return await (_open_readonly(settings) if readonly else _open(settings))


async def _open(settings: Settings) -> SqlStore:
    bell = Bell()
    writer = Writer(partial(open_database, settings), bell, settings.driver, settings.backlog)
    try:
        opened = await asyncio.wrap_future(writer.ready)
    except BaseException:
        writer.stop()
        raise
    return SqlStore(settings, opened.reads, _readers(settings, opened.place), writer, bell)


async def _open_readonly(settings: Settings) -> SqlStore:
    revision, partitions = await asyncio.to_thread(inspect, settings, "ro")
    if revision != REVISION or partitions is None:
        found = f"at schema {revision}, not {REVISION}" if revision else "empty so far"
        raise SchemaMismatch(
            f"{settings.path} is {found}:"
            " open it once without readonly=True, or run `turnlog migrate`"
        )
    readers = _readers(settings, Whereabouts(settings.path))
    return SqlStore(settings, Reads(partitions), readers, None, Bell())


def _readers(settings: Settings, place: Whereabouts) -> Readers:
    found = address(settings.path, "ro")
    name, driver = str(settings.path), settings.driver
    return Readers(found, settings.busy_timeout, name, place, driver)


def migrate(path: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> tuple[str | None, str]:
    """Make a database, or bring it to the newest schema; the schema before and after.

    Raises what `open_store` raises.
    """
    settings = settings_for(path, busy_timeout=busy_timeout)
    before = inspect(settings, "rw")[0] if settings.path.exists() else None
    open_database(settings).close()
    return before, REVISION


def settings_for(
    path: str | os.PathLike[str],
    durability: Durability = "power",
    partitions: int = 1,
    busy_timeout: float = 5.0,
    owner: str | None = None,
    driver: Driver = THREADS,
    life: Life = LOCKS,
    backlog: Backlog = BACKLOG,
) -> Settings:
    """How a database is opened, for those who open it without `open_store`."""
    return Settings(
        path=Path(path).absolute(),  # the same file, wherever the process goes
        durability=durability,
        partitions=partitions,
        busy_timeout=busy_timeout,
        owner=owner or secrets.token_hex(16),
        driver=driver,
        life=life,
        backlog=backlog,
    )
