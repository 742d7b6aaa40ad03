"""SQLAlchemy Core async over aiosqlite (WAL, FULL): a transaction for each append."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, event, insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .. import storing
from ..storing import Store, named_modes
from ..subject import Item, versions
from .raw_sqlite import Versions

METADATA = MetaData()
EVENTS = Table(
    "events",
    METADATA,
    Column("conversation", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("body", Text, nullable=False),
)
COLUMNS = tuple(column.name for column in EVENTS.columns)


class Core(Store):
    """A pool of one connection: there is one writer, and callers queue for it in order."""

    rows = "events"

    def __init__(
        self, path: Path, engine: AsyncEngine, conversations: int, facts: dict[str, str]
    ) -> None:
        super().__init__(path)
        self._engine = engine
        self._versions = Versions(conversations)
        self.facts = facts

    async def add(self, conversation: int, items: list[Item]) -> None:
        rows = self._versions.rows(conversation, items)
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(EVENTS), [dict(zip(COLUMNS, row, strict=True)) for row in rows]
            )


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "connect", _durable)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        yield Core(path, engine, conversations, await facts_of(engine))
    finally:
        await engine.dispose()


def _durable(connection: Any, _: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


async def facts_of(engine: AsyncEngine) -> dict[str, str]:
    """What the engine's connections are set to."""
    async with engine.connect() as connection:
        journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    found = named_modes(journal, synchronous) | versions("sqlalchemy", "aiosqlite")
    return found | {"sqlite": sqlite3.sqlite_version}


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
