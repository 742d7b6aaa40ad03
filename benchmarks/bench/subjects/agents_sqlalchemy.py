"""openai-agents' `SQLAlchemySession`: sessions that share an engine over aiosqlite."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .. import storing
from ..storing import Store, named_modes
from .agents_sqlite import Sessions, session_id, versions_of


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        sessions = [
            SQLAlchemySession(session_id(number), engine=engine, create_tables=True)
            for number in range(conversations)
        ]
        yield Sessions(path, sessions, await facts_of(engine))
    finally:
        await engine.dispose()


async def facts_of(engine: AsyncEngine) -> dict[str, str]:
    """What the engine's connections are set to; a session sets them up."""
    async with engine.connect() as connection:
        journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    return named_modes(journal, synchronous) | versions_of("sqlalchemy", "aiosqlite")


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
length = partial(storing.length, opened)
last = partial(storing.last, opened)
load = partial(storing.load, opened)
