"""The floor: raw sqlite3 (WAL, FULL), a row for each item, one commit a turn, one caller."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import orjson

from .. import storing
from ..storing import Store, modes
from ..subject import Item, versions

TABLE = (
    "CREATE TABLE events (conversation TEXT NOT NULL, version INTEGER NOT NULL,"
    " body TEXT NOT NULL, PRIMARY KEY (conversation, version))"
)
INSERT = "INSERT INTO events VALUES (?, ?, ?)"
ALL = "SELECT body FROM events WHERE conversation = ? ORDER BY version"
NEWEST = "SELECT body FROM events WHERE conversation = ? ORDER BY version DESC LIMIT ?"


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a new file with the table in it."""
    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA synchronous = FULL")
    file.execute(TABLE)
    return file


def name(conversation: int) -> str:
    """The id of a conversation."""
    return f"conversation-{conversation:06d}"


class Versions:
    """The next version of each conversation, and rows that have it."""

    def __init__(self, conversations: int) -> None:
        self.next = [1] * conversations

    def rows(self, conversation: int, items: list[Item]) -> list[tuple[str, int, str]]:
        """Rows for items, behind those that there are."""
        start, id = self.next[conversation], name(conversation)
        self.next[conversation] = start + len(items)
        return [(id, version, json.dumps(item)) for version, item in enumerate(items, start)]


class RawSqlite(Store):
    """A connection in the caller's own thread."""

    rows = "events"
    one_by_one = True
    beside = True

    def __init__(self, path: Path, file: sqlite3.Connection, conversations: int) -> None:
        super().__init__(path)
        self._file = file
        self._versions = Versions(conversations)
        self.facts = modes(file) | versions("orjson") | {"sqlite": sqlite3.sqlite_version}

    async def add(self, conversation: int, items: list[Item]) -> None:
        rows = self._versions.rows(conversation, items)
        self._file.execute("BEGIN IMMEDIATE")
        self._file.executemany(INSERT, rows)
        self._file.execute("COMMIT")

    async def read(self, limit: int | None) -> int:
        assert limit is None
        rows = self._file.execute(ALL, (name(0),))
        return len([orjson.loads(body) for (body,) in rows])


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    with closing(connect(path)) as file:
        yield RawSqlite(path, file, conversations)


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
length = partial(storing.length, opened)
growth = partial(storing.growth, opened)
load = partial(storing.load, opened)
