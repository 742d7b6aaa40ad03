"""The floor of many at once: a thread that writes with raw sqlite3, all that waits in a commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from .. import storing
from ..storing import Store, modes
from ..subject import Item
from .raw_sqlite import INSERT, Versions, connect

Rows = list[tuple[str, int, str]]
Waiting = tuple[Rows, "asyncio.Future[None]"]


class GroupCommit(Store):
    """Callers await a future, which is done when the group is committed."""

    rows = "events"

    def __init__(self, path: Path, file: sqlite3.Connection, conversations: int) -> None:
        super().__init__(path)
        self._file = file
        self._versions = Versions(conversations)
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._write)
        self.facts = modes(file) | {"sqlite": sqlite3.sqlite_version}

    async def add(self, conversation: int, items: list[Item]) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((self._versions.rows(conversation, items), done))
        await done

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    async def stop(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            group, more = self._waiting(first)
            self._file.execute("BEGIN IMMEDIATE")
            for rows, _ in group:
                self._file.executemany(INSERT, rows)
            self._file.execute("COMMIT")
            self._loop.call_soon_threadsafe(_answer, group)
            if not more:
                return

    def _waiting(self, first: Waiting) -> tuple[list[Waiting], bool]:
        """All that waits, and whether more may come."""
        group = [first]
        while True:
            try:
                one = self._queue.get_nowait()
            except Empty:
                return group, True
            if one is None:
                return group, False
            group.append(one)


def _answer(group: list[Waiting]) -> None:
    for _, done in group:
        done.set_result(None)


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    with closing(connect(path)) as file:
        store = GroupCommit(path, file, conversations)
        store.start()
        try:
            yield store
        finally:
            await store.stop()


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
