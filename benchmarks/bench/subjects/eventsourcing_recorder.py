"""eventsourcing's application recorder: an event for each item, those of an append at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

from .. import storing
from ..storing import Store, named_modes
from ..subject import Item, versions

TOPIC = "bench:Conversation.ItemAdded"


def facts_of(datastore: SQLiteDatastore) -> dict[str, str]:
    """What the connections of its pool are set to."""
    with datastore.transaction(commit=False) as cursor:
        cursor.execute("PRAGMA journal_mode")
        (journal,) = cursor.fetchone()
        cursor.execute("PRAGMA synchronous")
        (synchronous,) = cursor.fetchone()
    found = named_modes(journal, synchronous) | versions("eventsourcing")
    return found | {"sqlite": sqlite3.sqlite_version}


class Recorder(Store):
    """Without mapping, and without aggregates."""

    rows = "stored_events"
    one_by_one = True

    def __init__(self, path: Path, datastore: SQLiteDatastore, conversations: int) -> None:
        super().__init__(path)
        self._recorder = SQLiteApplicationRecorder(datastore)
        self._recorder.create_table()
        self._ids: list[UUID] = [uuid4() for _ in range(conversations)]
        self._next = [1] * conversations
        self.facts = facts_of(datastore)

    async def add(self, conversation: int, items: list[Item]) -> None:
        start, id = self._next[conversation], self._ids[conversation]
        self._next[conversation] = start + len(items)
        self._recorder.insert_events(
            [
                StoredEvent(id, version, TOPIC, json.dumps(item).encode())
                for version, item in enumerate(items, start)
            ]
        )


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    with closing(SQLiteDatastore(str(path))) as datastore:
        yield Recorder(path, datastore, conversations)


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
