"""Readers: a small pool of aiosqlite connections for each event loop.

The one rule: one hop to a thread for each query, rows in short pages, and no transaction left
open behind them, since a reader that lingers keeps the write-ahead log from being moved
(storage 3.2). A caller may go away at any time; the connection goes back all the same.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import aiosqlite

from ..errors import Closed, InvalidInput, TurnlogError
from .faults import translate
from .reads import Rows, Steps

T = TypeVar("T")

SIZE = 3
"""How many connections an event loop has for reading."""

Connect = Callable[[], Awaitable[aiosqlite.Connection]]


class Readers:
    """Runs reads on whatever event loop they are awaited."""

    def __init__(self, address: str, busy_timeout: float, name: str) -> None:
        self._address = address
        self._timeout = busy_timeout
        self._name = name
        self._closed = False
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def run(self, steps: Steps[T], *, snapshot: bool = False) -> T:
        """Run a read; with `snapshot`, all of its queries see one state of the database.

        Raises StoreUnavailable, StoreCorrupt and Closed.
        """
        pool = await self._pool()
        try:
            connection = await pool.take()
            try:
                if not snapshot:
                    return await _drive(connection, steps)
                try:
                    await connection.execute_fetchall("BEGIN")
                    return await _drive(connection, steps)
                finally:
                    await connection.execute_fetchall("ROLLBACK")
            finally:
                pool.give(connection)
        except UnicodeEncodeError as error:
            raise InvalidInput(f"not valid text: {error}") from error
        except (sqlite3.Error, ValueError) as error:
            raise self._translated(error) from error

    async def data_version(self) -> int:
        """A number that changes when anybody commits; it compares within one event loop."""
        pool = await self._pool()
        try:
            rows = await (await pool.watch()).execute_fetchall("PRAGMA data_version")
        except (sqlite3.Error, ValueError) as error:
            raise self._translated(error) from error
        return int(next(iter(rows))[0])

    def _translated(self, error: sqlite3.Error | ValueError) -> TurnlogError:
        """Our error; a connection that was closed under a reader says so in several ways."""
        if isinstance(error, sqlite3.Error) and not self._closed:
            return translate(error, self._name)
        return Closed("the store was closed while it was read")

    async def close(self) -> None:
        """Finish what is being read, and close every connection."""
        self._closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def _pool(self) -> _Pool:
        if self._closed:
            raise Closed("the store is closed")
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            gone = [one for one in self._pools if one.is_closed()]
            self._pools[loop] = _Pool(self._connect)
            for one in gone:
                await self._pools.pop(one).close()
        return self._pools[loop]

    async def _connect(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(
            self._address,
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            cached_statements=256,
        )
        try:
            await connection.execute_fetchall("PRAGMA query_only = ON")
        except BaseException:
            await connection.close()
            raise
        return connection


class _Pool:
    """The connections of one event loop."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._slots = asyncio.Semaphore(SIZE)
        self._idle: list[aiosqlite.Connection] = []
        self._all: list[asyncio.Task[aiosqlite.Connection]] = []
        self._watch: asyncio.Task[aiosqlite.Connection] | None = None

    async def take(self) -> aiosqlite.Connection:
        """An idle connection, or a new one, or the next that comes back."""
        await self._slots.acquire()
        if self._idle:
            return self._idle.pop()
        opening = self._open()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A connection that is cancelled while it opens would leak: it opens for the next one.
            opening.add_done_callback(self._opened)
            raise
        except BaseException:
            self._slots.release()
            raise

    def give(self, connection: aiosqlite.Connection) -> None:
        """Take a connection back."""
        self._idle.append(connection)
        self._slots.release()

    async def watch(self) -> aiosqlite.Connection:
        """The connection on which changes are watched for."""
        if self._watch is None or (self._watch.done() and self._watch.exception() is not None):
            self._watch = self._open()
        return await asyncio.shield(self._watch)

    async def close(self) -> None:
        """Close them all; from another event loop too, where that of the pool was closed."""
        here = asyncio.get_running_loop()
        for task in self._all:
            if task.get_loop() is here:
                await asyncio.wait([task])
            if task.done() and not task.cancelled() and task.exception() is None:
                await task.result().close()

    def _open(self) -> asyncio.Task[aiosqlite.Connection]:
        task = asyncio.ensure_future(self._connect())
        self._all.append(task)
        return task

    def _opened(self, task: asyncio.Task[aiosqlite.Connection]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._slots.release()
        else:
            self.give(task.result())


async def _drive(connection: aiosqlite.Connection, steps: Steps[T]) -> T:
    try:
        sql, parameters = next(steps)
        while True:
            rows = await connection.execute_fetchall(sql, parameters)
            sql, parameters = steps.send(cast(Rows, rows))
    except asyncio.CancelledError:
        # Its thread still runs the query: it is given back, or its loop ends, only after that.
        await connection.execute_fetchall("SELECT 1")
        raise
    except StopIteration as stop:
        result: T = stop.value
        return result
