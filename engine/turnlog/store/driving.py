"""How the calls that block are run: in threads, unless somebody brings another way.

The one rule: the store neither connects to a file nor starts a thread except by its driver, so
that a simulation sees every call of the database, and decides when it happens.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import aiosqlite

CHUNK = 64
"""How many rows aiosqlite fetches at once where it iterates."""


class Driver(Protocol):
    """Connects to files, and runs what blocks."""

    def connect(self, address: str, patience: float) -> sqlite3.Connection:
        """Connect to the file at a URI, without the driver's own transactions.

        `patience` is for how many seconds a lock is waited for. Raises sqlite3.Error.
        """
        ...

    def start(self, work: Iterable[float | None]) -> Callable[[], None]:
        """Run the writer's work, and give what wakes it, from any thread.

        It yields where it has nothing to do: for how many seconds at most, or None, until it is
        woken. A wake-up that comes too early is not lost.
        """
        ...

    async def read(self, address: str, patience: float) -> aiosqlite.Connection:
        """A connection for a reader, as `connect` makes it. Raises sqlite3.Error."""
        ...


class Threads:
    """One thread for the writer, and one for each connection that reads."""

    def connect(self, address: str, patience: float) -> sqlite3.Connection:
        """Connect to a file (`Driver.connect`)."""
        return sqlite3.connect(
            address, uri=True, timeout=patience, isolation_level=None, cached_statements=256
        )

    def start(self, work: Iterable[float | None]) -> Callable[[], None]:
        """Run the work in a thread, which does not keep the process alive (`Driver.start`)."""
        woken = threading.Event()

        def run() -> None:
            for seconds in work:
                woken.wait(seconds)
                woken.clear()

        threading.Thread(target=run, name="turnlog-writer", daemon=True).start()
        return woken.set

    async def read(self, address: str, patience: float) -> aiosqlite.Connection:
        """Connect in a thread of its own (`Driver.read`)."""
        return await aiosqlite.Connection(partial(self.connect, address, patience), CHUNK)


THREADS = Threads()
