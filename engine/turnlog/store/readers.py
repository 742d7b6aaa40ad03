"""Readers: a small pool of aiosqlite connections for each event loop.

The one rule: one hop to a thread for each query, rows in short pages, and no transaction left
open behind them, since a reader that lingers keeps the write-ahead log from being moved
(storage 3.2). A caller may go away at any time; the connection goes back all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Protocol, TypeVar, cast

from ..errors import Closed, InvalidInput, StoreError, StoreMoved, TurnlogError
from .driving import Driver, Reading
from .faults import FAILED, translate
from .reads import Rows, Steps
from .statements import Parameters
from .whereabouts import Whereabouts

T = TypeVar("T")

SIZE = 3
"""How many connections an event loop has for reading."""

Opening = asyncio.Task[Reading]
Connect = Callable[[], Coroutine[None, None, Reading]]


class Ask(Protocol):
    """Runs a query; raises InvalidInput, StoreError and Closed."""

    async def __call__(self, sql: str, parameters: Parameters | None = None) -> Rows: ...


class Readers:
    """Runs reads on whatever event loop they are awaited."""

    def __init__(
        self, address: str, busy_timeout: float, name: str, place: Whereabouts, driver: Driver
    ) -> None:
        self._address = address
        self._timeout = busy_timeout
        self._name = name
        self.place = place
        self._driver = driver
        self._closed = False
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def run(self, steps: Steps[T], *, snapshot: bool = False) -> T:
        """Run a read; with `snapshot`, all of its queries see one state of the database.

        Raises StoreMoved, StoreUnavailable, StoreCorrupt and Closed.
        """
        pool = await self._pool()
        self.place.check()
        taken = await pool.take()
        try:
            ask = self._asking(await asyncio.shield(taken))
            return await (_drive_in_one if snapshot else _drive)(ask, steps)
        except FAILED as error:
            raise self._translated(error) from error
        finally:
            pool.give(taken)

    def _asking(self, connection: Reading) -> Ask:
        """Queries on a connection, whose errors are ours."""

        async def ask(sql: str, parameters: Parameters | None = None) -> Rows:
            try:
                return cast(Rows, await connection.execute_fetchall(sql, parameters))
            except UnicodeEncodeError as error:
                raise InvalidInput(f"not valid text: {error}") from error
            except OverflowError as error:
                raise InvalidInput(f"a number is too large: {error}") from error
            except (sqlite3.Error, ValueError) as error:
                raise self._translated(error) from error

        return ask

    async def data_version(self) -> int:
        """A number that changes when anybody commits; it compares within one event loop."""
        pool = await self._pool()
        self.place.check()
        try:
            connection = await asyncio.shield(pool.watch())
            rows = await connection.execute_fetchall("PRAGMA data_version")
        except (sqlite3.Error, ValueError) as error:
            raise self._translated(error) from error
        return int(next(iter(rows))[0])

    def _translated(self, error: sqlite3.Error | ValueError) -> TurnlogError:
        """Our error; a connection that was closed under a reader says so in several ways."""
        if isinstance(error, FAILED) and not self._closed:
            return translate(error, self._name)
        return Closed("the store was closed while it was read")

    async def close(self) -> None:
        """Finish what is being read, and close every connection, even where this is cancelled.

        A connection that stays open has a thread that keeps the process from ending.
        """
        self._closed = True
        pools, self._pools = self._pools, {}
        closing = asyncio.gather(*(pool.close() for pool in pools.values()))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    async def _pool(self) -> _Pool:
        if self._closed:
            raise Closed("the store is closed")
        loop = asyncio.get_running_loop()
        mine = self._pools.get(loop)
        if mine is None:
            # Other loops run in other threads, and may clear up at the same moment.
            gone = [one for one in list(self._pools) if one.is_closed()]
            mine = self._pools[loop] = _Pool(self._connect)
            for pool in filter(None, [self._pools.pop(one, None) for one in gone]):
                await pool.close()
        return mine

    async def _connect(self) -> Reading:
        connection = await self._driver.read(self._address, self._timeout)
        try:
            self._check()
        except (StoreMoved, Closed):
            await connection.close()
            raise
        return connection

    def _check(self) -> None:
        """Look whether a connection that was made just now is to this file, and still wanted."""
        try:
            self.place.check()  # it may be another file
        finally:
            # Closing knows nothing of the connection, and takes what is beside the file with it.
            if self._closed:
                raise Closed("the store is closed")


class _Pool:
    """The connections of one event loop, each as the task that opened it.

    A task that is cancelled while it opens a connection would leak it, so that a caller who goes
    away leaves the opening to the next one.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._slots = asyncio.Semaphore(SIZE)
        self._idle: list[Opening] = []
        self._all: list[Opening] = []
        self._watch: Opening | None = None

    async def take(self) -> Opening:
        """An idle connection, or a new one, or the next that comes back."""
        await self._slots.acquire()
        return self._idle.pop() if self._idle else self._open()

    def give(self, taken: Opening) -> None:
        """Take a connection back, unless it could not be opened."""
        if not _failed(taken):
            self._idle.append(taken)
        self._slots.release()

    def watch(self) -> Opening:
        """The connection on which changes are watched for."""
        if self._watch is None or _failed(self._watch):
            self._watch = self._open()
        return self._watch

    async def close(self) -> None:
        """Close them all; from another event loop too, where that of the pool was closed."""
        here = asyncio.get_running_loop()
        opening = [one for one in self._all if one.get_loop() is here and not one.done()]
        await asyncio.gather(*opening, return_exceptions=True)
        for one in self._all:
            if one.done() and not _failed(one):
                await one.result().close()

    def _open(self) -> Opening:
        opening = asyncio.ensure_future(self._connect())
        self._all = [one for one in self._all if not _failed(one)] + [opening]
        return opening


def _failed(opening: Opening) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


async def _drive(ask: Ask, steps: Steps[T]) -> T:
    """Run a read; it may catch what a query of its own raises, and go on with another."""
    try:
        sql, parameters = next(steps)
        while True:
            try:
                rows = await ask(sql, parameters)
            except StoreError as error:
                sql, parameters = steps.throw(error)
            else:
                sql, parameters = steps.send(rows)
    except asyncio.CancelledError:
        # Its thread still runs the query: it is given back, or its loop ends, only after that.
        await ask("SELECT 1")
        raise
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _drive_in_one(ask: Ask, steps: Steps[T]) -> T:
    """The same, in one transaction."""
    try:
        await ask("BEGIN")
        return await _drive(ask, steps)
    finally:
        # An error of the disk may have ended it.
        with contextlib.suppress(StoreError):
            await ask("ROLLBACK")
