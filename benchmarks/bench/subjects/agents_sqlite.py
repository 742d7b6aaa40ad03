"""openai-agents' `SQLiteSession`: a session for each conversation, all on one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

from agents.memory import Session, SQLiteSession

from .. import storing
from ..storing import Store, modes
from ..subject import Item, versions


def session_id(conversation: int) -> str:
    """The id of a conversation."""
    return f"conversation-{conversation:06d}"


class Sessions(Store):
    """Sessions of any kind: what is appended is what `add_items` is given."""

    rows = "agent_messages"

    def __init__(self, path: Path, sessions: Sequence[Session], facts: dict[str, str]) -> None:
        super().__init__(path)
        self._sessions = sessions
        self.facts = facts

    async def add(self, conversation: int, items: list[Item]) -> None:
        given: list[Any] = items
        await self._sessions[conversation].add_items(given)

    async def read(self, limit: int | None) -> int:
        return len(await self._sessions[0].get_items(limit=limit))


Make = Callable[[str, Path], SQLiteSession]


@asynccontextmanager
async def sessions_in_threads(make: Make, path: Path, conversations: int) -> AsyncGenerator[Store]:
    """Sessions that call sqlite3 in threads of asyncio's, as they are made."""
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(closing(make(session_id(number), path)))
            for number in range(conversations)
        ]
        # A connection of a session's own; it keeps one for each thread.
        facts = await asyncio.to_thread(lambda: modes(sessions[0]._get_connection()))
        yield Sessions(path, sessions, facts | versions_of())


def versions_of(*more: str) -> dict[str, str]:
    """The version of the library, and of what is below it."""
    return versions("openai-agents", *more) | {"sqlite": sqlite3.sqlite_version}


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    async with sessions_in_threads(SQLiteSession, path, conversations) as store:
        yield store


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
length = partial(storing.length, opened)
growth = partial(storing.growth, opened)
last = partial(storing.last, opened)
load = partial(storing.load, opened)
