"""The WebSocket connections of one transport: who may use which, and when each one goes.

The one rule: a connection has one user at a time, and whatever is wrong with it concerns no
other (W-40). Nothing here is locked: between a decision and its effect nobody else runs, and
connecting and closing happen outside of both (W-43).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from turnlog.ports import Frame
from turnlog.state import Parent

from . import wire
from .sequence import Sequencer, response_id

LIMIT_REACHED = "websocket_connection_limit_reached"
"""The code with which a provider ends a connection that is too old; it may come at any time."""

CLOSE_TIMEOUT = 1.0
"""How many seconds a provider has to answer a goodbye; nobody but `close` waits for it."""

_logger = logging.getLogger("turnlog.transports")


class Connection:
    """One socket, and what the provider keeps in its memory behind it (protocol 1.5).

    `newest` is the response that can be continued from here, `stored` whether it could be from
    anywhere else.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.id = f"ws_{secrets.token_hex(8)}"
        self.socket = socket
        self.sequence = Sequencer()
        self.newest: str | None = None
        self.stored = False

    @property
    def open(self) -> bool:
        """Whether something can still be written."""
        return self.socket.state is State.OPEN

    @property
    def spare(self) -> bool:
        """Whether nothing is lost when a stranger uses it."""
        return self.newest is None or self.stored

    async def receive(self) -> Frame:
        """The next frame, whosever it is; raises ConnectionClosed."""
        return wire.read(await self.socket.recv(decode=False), connection=self.id)


class Connections:
    """A small set of connections, opened on demand and kept for a while.

    At most `max_idle` wait for another user, none longer than `keep_idle` seconds (W-44). One
    that closes while nobody uses it is noticed at once, and costs nothing (W-41).
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[ClientConnection]],
        *,
        max_idle: float,
        keep_idle: float,
    ) -> None:
        self._connect = connect
        self._max_idle = max_idle
        self._keep_idle = keep_idle
        self._idle: dict[str, Connection] = {}  # the one used last stands last
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._busy: dict[str, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def remembers(self, parent: Parent) -> bool:
        """Whether a parent is the newest response of a connection that is open and free (law 8)."""
        found = self._idle.get(parent.connection or "")
        return found is not None and found.open and found.newest == parent.response

    async def take(self, parent: Parent | None) -> Connection:
        """A connection of one's own, until `release` or `evict`: the parent's before any other.

        Raises whatever connecting raises.
        """
        while (found := self._free(parent)) is not None:
            ready = False
            try:
                ready = await self._ready(found)
            finally:
                if not ready:
                    self.evict(found)
            if ready:
                return found
        fresh = Connection(await self._connect())
        self._busy[fresh.id] = fresh
        return fresh

    def release(self, connection: Connection) -> None:
        """Give a connection back for others to use."""
        del self._busy[connection.id]
        self._idle[connection.id] = connection
        self._watchers[connection.id] = self._start(self._watch(connection))
        while len(self._idle) > self._max_idle:
            self.evict(next(iter(self._idle.values())))

    def evict(self, connection: Connection) -> None:
        """Close a connection, and no other; nobody waits for the provider to agree."""
        known = self._idle.pop(connection.id, None) or self._busy.pop(connection.id, None)
        self._watchers.pop(connection.id, None)
        if known is not None:
            self._start(self._end(known))

    async def close(self) -> None:
        """Close every connection, used or not, and wait until they are gone."""
        for connection in [*self._idle.values(), *self._busy.values()]:
            self.evict(connection)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _free(self, parent: Parent | None) -> Connection | None:
        found = self._idle.get((parent and parent.connection) or "")
        if found is None:
            spare = (each for each in reversed(self._idle.values()) if each.spare)
            found = next(spare, None)
        if found is not None:
            del self._idle[found.id]
            self._busy[found.id] = found
        return found

    async def _watch(self, connection: Connection) -> None:
        # While nobody asked for anything, only late frames and the end can come.
        try:
            async with asyncio.timeout(self._keep_idle):
                while not limit_reached(frame := await connection.receive()):
                    note_stray(frame)
        except (TimeoutError, ConnectionClosed) as error:
            _logger.debug("connection %s ends while idle: %s", connection.id, error)
        self.evict(connection)

    async def _ready(self, connection: Connection) -> bool:
        """Whether a connection can be used, once what came while nobody asked is out of the way."""
        watcher = self._watchers.pop(connection.id)
        await asyncio.sleep(0)  # the watcher's turn: it takes all that has arrived in one go
        watcher.cancel()
        await asyncio.wait({watcher})
        return connection.id in self._busy and connection.open

    async def _end(self, connection: Connection) -> None:
        socket = connection.socket
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await socket.close()
        except TimeoutError:
            # A peer that reads nothing more would hold up even our goodbye.
            socket.transport.abort()

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def limit_reached(frame: Frame) -> bool:
    """Whether a frame says that the connection is too old to go on."""
    return frame.problem is not None and frame.problem.code == LIMIT_REACHED


def note_stray(frame: Frame) -> None:
    """Say in the log that a frame came which belongs to no response in progress (W-22, W-24)."""
    _logger.warning(
        "a frame of no response in progress: type %r, response %r, connection %r",
        frame.type,
        response_id(frame),
        frame.connection,
    )
