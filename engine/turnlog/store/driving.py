"""How the calls that block are run: in threads, unless somebody brings another way.

The one rule: the store neither connects to a file nor starts a thread except by its driver, so
that a simulation sees every call of the database, and decides when it happens.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Protocol

import aiosqlite

from .statements import Parameters

CHUNK = 64
"""How many rows aiosqlite fetches at once where it iterates."""


class Reading(Protocol):
    """A connection that reads, as aiosqlite has them: in one hop, and in the order of the calls."""

    def execute_fetchall(
        self, sql: str, parameters: Parameters | None = None
    ) -> Awaitable[Iterable[sqlite3.Row]]:
        """All rows of a query; it is carried out to its end, whoever goes away meanwhile.

        Raises sqlite3.Error, and ValueError where the connection was closed.
        """
        ...

    async def close(self) -> None:
        """Do what was asked so far, and close."""
        ...


class Driver(Protocol):
    """Connects to files, and runs what blocks."""

    def connect(self, address: str, patience: float) -> sqlite3.Connection:
        """Connect to the file at a URI, without the driver's own transactions.

        `patience` is for how many seconds a lock is waited for. Raises sqlite3.Error.
        """
        ...

    def start(self, work: Iterator[float | None]) -> Callable[[], None]:
        """Run the writer's work, and give what wakes it, from any thread.

        It yields where it has nothing to do: for how many seconds at most, or None, until it is
        woken. A wake-up that comes too early is not lost.
        """
        ...

    async def read(self, address: str, patience: float) -> Reading:
        """A connection for a reader, as `connect` makes it. Raises sqlite3.Error."""
        ...


class Threads:
    """One thread for the writer, and one for each connection that reads."""

    def connect(self, address: str, patience: float) -> sqlite3.Connection:
        """Connect to a file (`Driver.connect`)."""
        return sqlite3.connect(
            address, uri=True, timeout=patience, isolation_level=None, cached_statements=256
        )

    def start(self, work: Iterator[float | None]) -> Callable[[], None]:
        """Run the work in a thread, which does not keep the process alive (`Driver.start`)."""
        asleep = threading.Lock()  # held unless it was woken; an Event takes five times as long
        asleep.acquire()

        def run() -> None:
            for seconds in work:
                asleep.acquire(timeout=-1 if seconds is None else min(seconds, _LONGEST))

        def wake() -> None:
            if asleep.locked():
                with suppress(RuntimeError):  # somebody else has woken it just now
                    asleep.release()

        threading.Thread(target=run, name="turnlog-writer", daemon=True).start()
        return wake

    async def read(self, address: str, patience: float) -> Reading:
        """Connect in a thread of its own (`Driver.read`)."""
        return await aiosqlite.Connection(partial(self.connect, address, patience), CHUNK)


_LONGEST = threading.TIMEOUT_MAX

THREADS = Threads()
