"""eventsourcing as its users have it: an aggregate with an event for each item, then a save."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.sqlite import SQLiteApplicationRecorder

from .. import storing
from ..storing import Store
from ..subject import Item
from .eventsourcing_recorder import facts_of


class Talk(Aggregate):
    """A conversation whose state is how many items it has."""

    def __init__(self) -> None:
        self.items = 0

    @event("ItemAdded")
    def add(self, item: Item) -> None:
        self.items += 1


class Talks(Application[UUID]):
    """Conversations as they are by default: JSON, no cache, no snapshots."""


class Saved(Store):
    """Aggregates that stay in memory, and are saved once for each append."""

    rows = "stored_events"
    one_by_one = True

    def __init__(self, path: Path, talks: Talks, conversations: int) -> None:
        super().__init__(path)
        assert isinstance(talks.recorder, SQLiteApplicationRecorder)
        self._talks = talks
        self._open = [Talk() for _ in range(conversations)]
        talks.save(*self._open)
        self.facts = facts_of(talks.recorder.datastore)

    async def add(self, conversation: int, items: list[Item]) -> None:
        talk = self._open[conversation]
        for item in items:
            talk.add(item)
        self._talks.save(talk)

    async def count(self) -> int:
        created = len(self._open)
        return await super().count() - created


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    with closing(Talks(env=settings)) as talks:
        yield Saved(path, talks, conversations)


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
