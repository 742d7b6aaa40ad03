"""Looks at a database of turnlog's, for `power.explore`: as SQLite sees it, and as a program does.

The one rule: a look says which events are there, in the order of their commits, and raises whatever
is wrong with the database that it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ..errors import StoreCorrupt
from ..log import open as open_log
from ..ports import Store
from ..store import open_store, settings_for
from ..store.audit import check
from ..store.opening import connect, inspect
from ..store.reads import Reads
from ..store.transaction import run
from .invariants import violations
from .power import Look
from .scripts import scripted, text

__all__ = ["logged", "opened"]


def logged(name: str) -> Look:
    """Look at a database of turnlog's with plain SQLite: fast enough for every image.

    SQLite finds it intact, positions have no gaps, and every conversation verifies. A database
    that was only being made has nothing in it; `opened` finds out whether it can be made.
    """

    def look(directory: Path) -> list[str]:
        path = directory / name
        if not path.exists():
            return []
        settings = settings_for(path)
        with contextlib.closing(connect(settings, "rw")) as connection:
            _intact(connection)
            _, partitions = inspect(settings, "rw")
            return _checked(connection, Reads(partitions)) if partitions is not None else []

    return look


def _intact(connection: sqlite3.Connection) -> None:
    found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        raise StoreCorrupt(f"SQLite finds it damaged: {found}")


def _checked(connection: sqlite3.Connection, reads: Reads) -> list[str]:
    positions: dict[int, int] = {}
    ids: list[str] = []
    names: set[str] = set()
    while page := run(connection, reads.follow(positions, 500)):
        for partition, position, one in page:
            if position != positions.get(partition, 0) + 1:
                raise StoreCorrupt(f"position {position} of partition {partition} has a gap before")
            positions[partition] = position
            ids.append(one.id)
            names.add(one.conversation)
    wrong = [found for one in sorted(names) for found in run(connection, check(reads, one))]
    if wrong:
        raise StoreCorrupt(f"it does not verify: {wrong}")
    return ids


def opened(name: str) -> Look:
    """Look at a database of turnlog's as a program does that starts after the crash.

    It is opened (and made or migrated where that was not done yet), keeps I1 to I9, is recovered,
    takes a new turn, and keeps I1 to I9 with it.
    """

    def look(directory: Path) -> list[str]:
        return asyncio.run(_opened(directory / name))

    return look


async def _opened(path: Path) -> list[str]:
    store = await open_store(path)
    transport = scripted([text("Here again.")])
    async with open_log(path, store=store, transport=transport) as log:
        await _sound(store, (), repeat=False)
        ids = [one.event.id async for one in log.follow(wait=False)]
        await log.recover()
        chat = await log.conversation("after the crash", model="gpt-5")
        await chat.run("Are you there?")
        await _sound(store, ids)
    return ids


async def _sound(store: Store, ids: Sequence[str], *, repeat: bool = True) -> None:
    wrong = await violations(store, acknowledged=ids, samples=2, repeat=repeat)
    if wrong:
        raise StoreCorrupt(f"it does not keep what a store promises: {wrong}")
