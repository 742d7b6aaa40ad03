"""The floor of asyncio: aiosqlite (WAL, FULL) on one connection, each call a hop to its thread."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiosqlite
import orjson

from .. import storing
from ..storing import FILE, Store, named_modes, timed
from ..subject import Given, Item, Measured, latency, versions
from .raw_sqlite import ALL, INSERT, NEWEST, TABLE, Versions, name

HEAD = "SELECT head FROM heads WHERE conversation = ?"
HEADS = "CREATE TABLE heads (conversation TEXT NOT NULL PRIMARY KEY, head BLOB NOT NULL)"
HEAD_BYTES = 600
"""About what a row of turnlog has that says where a conversation stands."""


async def facts_of(file: aiosqlite.Connection) -> dict[str, str]:
    """What the connection is set to."""
    ((journal,),) = await file.execute_fetchall("PRAGMA journal_mode")
    ((synchronous,),) = await file.execute_fetchall("PRAGMA synchronous")
    found = named_modes(journal, synchronous) | versions("aiosqlite", "orjson")
    return found | {"sqlite": sqlite3.sqlite_version}


@asynccontextmanager
async def connected(path: Path) -> AsyncGenerator[aiosqlite.Connection]:
    async with aiosqlite.connect(path) as file:
        await file.execute("PRAGMA journal_mode = WAL")
        await file.execute("PRAGMA synchronous = FULL")
        yield file


class Aio(Store):
    """One connection; a lock keeps the rows of a caller and its commit together."""

    rows = "events"

    def __init__(
        self, path: Path, file: aiosqlite.Connection, conversations: int, facts: dict[str, str]
    ) -> None:
        super().__init__(path)
        self._file = file
        self._versions = Versions(conversations)
        self._lock = asyncio.Lock()
        self.facts = facts

    async def add(self, conversation: int, items: list[Item]) -> None:
        rows = self._versions.rows(conversation, items)
        async with self._lock:
            await self._file.executemany(INSERT, rows)
            await self._file.commit()

    async def read(self, limit: int | None) -> int:
        if limit is None:
            rows = list(await self._file.execute_fetchall(ALL, (name(0),)))
        else:
            rows = list(await self._file.execute_fetchall(NEWEST, (name(0), limit)))[::-1]
        return len([orjson.loads(body) for (body,) in rows])


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    async with connected(path) as file:
        await file.execute(TABLE)
        yield Aio(path, file, conversations, await facts_of(file))


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
last = partial(storing.last, opened)


async def opening(given: Given) -> Measured:
    """Read one row by its key, of a file that has as many as a conversation has items."""
    return await _one_row(given, given.number("items"))


async def among(given: Given) -> Measured:
    """Read one row by its key, of a file that has one for each conversation."""
    return await _one_row(given, given.number("conversations"))


async def _one_row(given: Given, count: int) -> Measured:
    async with connected(given.folder / FILE) as file:
        await file.execute(HEADS)
        head = random.Random(count).randbytes(HEAD_BYTES)
        rows = ((name(number), head) for number in range(count))
        await file.executemany("INSERT INTO heads VALUES (?, ?)", rows)
        await file.commit()
        await file.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        chance = random.Random(count)

        async def read() -> None:
            wanted = (name(chance.randrange(count)),)
            assert len(list(await file.execute_fetchall(HEAD, wanted))) == 1

        took = await timed(read, given.number("times"))
        return Measured(latency(took), await facts_of(file))
