"""The threads of a database, made inline: its calls run on a simulated loop, one by one.

The one rule: the SQL, the file and the locks are real; only when something happens is made up. A
call that was begun is carried out to its end, whoever goes away meanwhile, as in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

from ..store.statements import Parameters
from .simulation_loop import Crashed, SimulatedLoop, fulfil

LOCKED = 0.005
"""After how many seconds a writer looks again whether it may write."""

P = ParamSpec("P")
T = TypeVar("T")


class Gate(Protocol):
    """What every call of the database goes through."""

    @property
    def loop(self) -> SimulatedLoop:
        """The loop on which the calls run."""
        ...

    def through(self, sql: str, call: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Carry out a call; raises Crashed, and sqlite3.Error that was made up."""
        ...

    def alone(self) -> bool:
        """Whether nobody writes now; from then on the caller does, until it says `done`."""
        ...

    def done(self) -> None:
        """Let others write."""
        ...


def _gated(
    method: Callable[Concatenate[sqlite3.Connection, str, P], sqlite3.Cursor],
) -> Callable[Concatenate[sqlite3.Connection, str, P], sqlite3.Cursor]:
    def call(
        self: sqlite3.Connection, sql: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> sqlite3.Cursor:
        assert isinstance(self, Gated)
        return self.gate.through(sql, lambda: self.noted(method(self, sql, *args, **kwargs)))

    return call


class Gated(sqlite3.Connection):
    """A connection whose calls go through a gate."""

    gate: Gate
    cursors: WeakSet[sqlite3.Cursor]

    def noted(self, cursor: sqlite3.Cursor) -> sqlite3.Cursor:
        """Take note of a cursor: the connection is open as long as a statement of it is."""
        self.cursors.add(cursor)
        return cursor

    def die(self) -> None:
        """Close it, and every statement with it: what was not committed is gone."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed before
            for cursor in list(self.cursors):
                cursor.close()
        self.close()

    execute = _gated(sqlite3.Connection.execute)
    executemany = _gated(sqlite3.Connection.executemany)


class Inline:
    """A driver (`turnlog.store.driving.Driver`) that runs everything on a simulated loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._connections: list[Gated] = []

    def connect(self, address: str, patience: float) -> sqlite3.Connection:
        """Connect to a file. Locks are not waited for: nobody could give them back meanwhile."""
        connection = sqlite3.connect(
            address, uri=True, timeout=0, isolation_level=None, factory=Gated
        )
        connection.gate, connection.cursors = self._gate, WeakSet()
        self._connections.append(connection)
        return connection

    def start(self, work: Iterator[float | None]) -> Callable[[], None]:
        """Run the writer's work in turns, from now on."""
        return Turns(self._gate, work).wake

    async def read(self, address: str, patience: float) -> Reader:
        """A connection that reads."""
        reader = Reader(self._gate.loop)
        await reader.open(partial(self.connect, address, patience))
        return reader

    def die(self) -> None:
        """Close all connections as they are."""
        for connection in self._connections:
            connection.die()


class Turns:
    """Work that runs until it has nothing to do, and then again when it is woken, or in time."""

    def __init__(self, gate: Gate, work: Iterator[float | None]) -> None:
        self._gate = gate
        self._work = work
        self._woken = False
        self._idle = False
        self._alarm: asyncio.TimerHandle | None = None
        self._soon()

    def wake(self) -> None:
        """Have it run again soon."""
        self._woken = True
        if self._idle:
            self._soon()

    def _soon(self, delay: float = 0.0) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._idle = False
        self._alarm = self._gate.loop.call_later(delay + self._gate.loop.moment(), self._run)

    def _run(self) -> None:
        if not self._gate.alone():
            self._soon(LOCKED)
            return
        self._woken = False
        try:
            seconds = next(self._work)
        except (StopIteration, Crashed):
            return
        finally:
            self._gate.done()
        if self._woken:
            self._soon()
            return
        self._idle = True
        if seconds is not None:
            self._alarm = self._gate.loop.call_later(seconds, self._run)


class Reader:
    """A connection that reads, one call after another (`turnlog.store.driving.Reading`)."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._inbox: deque[Callable[[], None]] = deque()
        self._busy = False
        self._connection: sqlite3.Connection | None = None

    async def open(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Connect; raises sqlite3.Error."""
        self._connection = await self._do(connect)

    async def execute_fetchall(
        self, sql: str, parameters: Parameters | None = None
    ) -> list[sqlite3.Row]:
        """All rows of a query (`Reading.execute_fetchall`)."""
        return await self._do(partial(self._fetchall, sql, parameters or {}))

    def _fetchall(self, sql: str, parameters: Parameters) -> list[sqlite3.Row]:
        if self._connection is None:
            raise ValueError("the connection is closed")
        return self._connection.execute(sql, parameters).fetchall()

    async def close(self) -> None:
        """Do what was asked so far, and close."""
        await self._do(self._close)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _do(self, call: Callable[[], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._inbox.append(partial(fulfil, future, call))
        self._go()
        return await future

    def _go(self) -> None:
        if self._inbox and not self._busy:
            self._busy = True
            self._loop.call_later(self._loop.moment(), self._next)

    def _next(self) -> None:
        self._inbox.popleft()()
        self._busy = False
        self._go()
