"""turnlog's store: what it decides, records and folds for an append, and writes durably.

The one rule: as the engine does it for items of a caller (`Conversation.add`), without the verbs
around it; a state is kept from one append to the next, as the engine keeps heads.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from turnlog.commands import AddItems, Keyed, Start
from turnlog.draft import Ambient, Draft
from turnlog.state import State, start
from turnlog.store import MemoryStore, SqlStore, open_store

from .. import storing
from ..storing import Store
from ..subject import Item, versions
from .ours_reading import among, diff, idle, last, load, opening, startup

__all__ = [
    "among",
    "diff",
    "growth",
    "idle",
    "items",
    "last",
    "length",
    "load",
    "many",
    "opening",
    "startup",
    "turns",
]

ALL_ITEMS = "(SELECT 1 FROM events WHERE tag = 'item.added')"
FILLED_AT_ONCE = 1000


def facts_of(path: Path) -> dict[str, str]:
    """What the writer is set to: `durability="power"`."""
    found = {"journal_mode": "wal", "synchronous": "FULL", **versions("turnlog")}
    return found | {"sqlite": sqlite3.sqlite_version}


class Ours(Store):
    """The store, and the state of each conversation."""

    rows = ALL_ITEMS
    beside = True

    def __init__(self, path: Path, store: SqlStore | MemoryStore, states: list[State]) -> None:
        super().__init__(path)
        self._store = store
        self._states = states
        self._ambient = Ambient()
        self.facts = facts_of(path)

    async def start(self, conversation: int) -> None:
        """Begin a conversation."""
        draft = Draft(self._states[conversation], self._ambient, "user")
        draft.do(Start())
        await self._store.append(draft.append(None))
        self._states[conversation] = draft.state

    async def add(self, conversation: int, items: list[Item]) -> None:
        draft = Draft(self._states[conversation], self._ambient, "user")
        keyed = tuple(map(Keyed, self._ambient.ids("itm", len(items)), items))
        draft.do(AddItems(items=keyed))
        await self._store.append(draft.append(None))
        self._states[conversation] = draft.state

    async def fill(self, items: list[Item], conversation: int = 0) -> None:
        for place in range(0, len(items), FILLED_AT_ONCE):
            await self.add(conversation, items[place : place + FILLED_AT_ONCE])


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    store = await open_store(path, durability="power")
    try:
        states = [start(f"conversation-{number:06d}") for number in range(conversations)]
        ours = Ours(path, store, states)
        await asyncio.gather(*(ours.start(number) for number in range(conversations)))
        yield ours
    finally:
        await store.close()


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
length = partial(storing.length, opened)
growth = partial(storing.growth, opened)
