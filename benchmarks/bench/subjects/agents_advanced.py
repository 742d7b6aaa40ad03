"""openai-agents' `AdvancedSQLiteSession`: branches and turns beside the items."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from agents.extensions.memory import AdvancedSQLiteSession

from .. import storing
from ..storing import Store
from .agents_sqlite import sessions_in_threads


def make(id: str, path: Path) -> AdvancedSQLiteSession:
    """A session whose tables are made where they are not there."""
    return AdvancedSQLiteSession(session_id=id, db_path=path, create_tables=True)


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    async with sessions_in_threads(make, path, conversations) as store:
        yield store


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
length = partial(storing.length, opened)
last = partial(storing.last, opened)
load = partial(storing.load, opened)
