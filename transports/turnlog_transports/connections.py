"""The WebSocket connections of one transport: who waits for which, and when each one goes.

The one rule: nothing here is locked. Between a decision (`lanes`) and its effect nobody else
runs, and connecting and closing happen in tasks of their own (W-43). Whatever is wrong with one
connection concerns no other (W-40).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from itertools import islice

from turnlog.errors import Closed, NotSent
from turnlog.ports import PARENT_GONE, Create, Late
from turnlog.state import Parent

from . import lanes
from .connection import Connection, Settings
from .direct import DirectConnection
from .lanes import Limits, Line, Place
from .network import NO_CONNECTION_FREE
from .stream import Stream

_logger = logging.getLogger("turnlog.transports")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How many connections that nobody uses are kept, and for how many seconds (W-44)."""

    idle: float
    seconds: float


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits for a connection, and what it is to write there."""

    request: Create
    payload: bytes
    granted: asyncio.Future[Stream]
    timer: asyncio.TimerHandle | None = None
    written: Stream | None = None

    def fail(self, error: Exception) -> None:
        """Give up waiting."""
        if not self.granted.done():
            self.granted.set_exception(error)


class Connections:
    """A set of connections to one provider, opened on demand and kept for a while.

    Whoever cannot be served waits in order, for whatever frees up first: a lane, or a connection
    that is being opened. One that closes while nobody uses it costs nothing (W-41).
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[DirectConnection]],
        limits: Limits,
        settings: Settings,
        keeping: Keeping,
        *,
        store_default: bool,
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._settings = settings
        self._keeping = keeping
        self._store_default = store_default
        self._open: dict[str, Connection] = {}
        self._sockets: set[str] = set()  # those that are being closed among them
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._rotations: dict[str, asyncio.TimerHandle] = {}
        self._streams: dict[Stream, Connection] = {}
        self._queue: OrderedDict[Waiter, None] = OrderedDict()
        self._warming: list[asyncio.Future[None]] = []
        self._connecting = 0
        self._closed: Closed | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tellers: list[Callable[[Late], None]] = []

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Have a function told how abandoned responses ended."""
        self._tellers.append(tell)

    def remembers(self, parent: Parent, conversation: str) -> bool:
        """Whether a conversation can continue from the memory of a connection (law 8)."""
        if (parent.connection or "") not in self._open:
            return False
        return lanes.continuation(parent, conversation, self._lines(), _now()) is not None

    async def warm(self) -> None:
        """Have a connection open; raises what connecting raises, and Closed."""
        now = _now()
        if any(line.usable(now) for line in self._lines().values()):
            return
        opened = asyncio.get_running_loop().create_future()
        self._warming.append(opened)
        if not self._connecting:
            self._start_connecting()
        try:
            await opened
        finally:
            self._warming.remove(opened)

    async def take(self, request: Create, payload: bytes) -> Stream:
        """Write a request to a lane, now or when it is its turn; what comes of it.

        Raises NotSent, with the code `parent_gone` for an unstored parent that nothing remembers,
        whatever connecting raises, and Closed.
        """
        parent = request.parent
        if parent is not None and not parent.store:
            return self._from_memory(request, parent, payload)
        waiter = Waiter(request, payload, asyncio.get_running_loop().create_future())
        self._queue[waiter] = None
        self._serve()
        if not waiter.granted.done():
            self._limit(waiter)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.written is not None:
                self.leave(waiter.written)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
            self._queue.pop(waiter, None)

    def leave(self, stream: Stream) -> None:
        """Nobody takes frames of a response any more, whether it was over or not."""
        self._streams.pop(stream).leave(stream)

    def shut(self, error: Closed) -> None:
        """Take nothing new, and end with an error whatever waits or is under way (W-47)."""
        self._closed = error
        for waiter in self._queue:
            waiter.fail(error)
        self._warm(error)
        for stream in self._streams:
            stream.cut(error)
        for connection in list(self._open.values()):
            connection.end()

    async def gone(self) -> None:
        """Wait until every connection and every task is gone."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- who is served ---------------------------------------------------------------------

    def _lines(self) -> dict[str, Line]:
        return {id: each.line for id, each in self._open.items() if each.open}

    def _from_memory(self, request: Create, parent: Parent, payload: bytes) -> Stream:
        place = lanes.continuation(parent, request.conversation, self._lines(), _now())
        if place is None:
            raise NotSent(
                f"the provider does not remember the unstored response {parent.response}"
                " any more: send the whole context",
                code=PARENT_GONE,
            )
        return self._begin(place, request, payload)

    def _begin(self, place: Place, request: Create, payload: bytes) -> Stream:
        connection = self._open[place.line.id]
        asked = lanes.asked(request, store_default=self._store_default)
        stream = connection.begin(place, asked, payload)
        self._streams[stream] = connection
        return stream

    def _serve(self) -> None:
        """Serve whoever can be, in order, and open what the others need."""
        if self._closed is not None:
            return
        while self._queue and self._serve_one(next(iter(self._queue))):
            self._queue.popitem(last=False)
        more = lanes.wanted(len(self._queue), self._connecting, self._limits)
        may = lanes.may_open(self._sockets, self._limits, connecting=self._connecting)
        for _ in range(min(more, may)):
            self._start_connecting()

    def _serve_one(self, waiter: Waiter) -> bool:
        """Serve somebody, if that is possible; whoever waits no longer is served."""
        if waiter.granted.done():
            return True
        place = lanes.place(
            waiter.request, self._lines(), self._limits, _now(), connecting=self._connecting
        )
        if place is None:
            return False
        waiter.written = self._begin(place, waiter.request, waiter.payload)
        waiter.granted.set_result(waiter.written)
        return True

    def _limit(self, waiter: Waiter) -> None:
        seconds = self._settings.timeouts.queue
        if seconds is not None:
            error = NotSent(
                f"no connection was free within {seconds:g} seconds: wait longer"
                " (timeouts.queue), or allow more of them (max_connections)",
                code=NO_CONNECTION_FREE,
            )
            waiter.timer = asyncio.get_running_loop().call_later(seconds, waiter.fail, error)

    # -- connecting ------------------------------------------------------------------------

    def _start_connecting(self) -> None:
        self._connecting += 1
        self._start(self._add())

    async def _add(self) -> None:
        try:
            socket = await self._connect()
        except Exception as error:  # whoever waits for the connection is told, whatever it is
            self._connecting -= 1
            self._failed(error)
            return
        self._connecting -= 1
        now = _now()
        line = Line(f"ws_{secrets.token_hex(8)}", now, self._limits, used=now)
        connection = Connection(
            socket, line, self._settings, changed=self._changed, late=self._tell
        )
        self._open[line.id] = connection
        self._sockets.add(line.id)
        rotation = asyncio.get_running_loop().call_at(now + self._limits.rotate, connection.retire)
        self._rotations[line.id] = rotation  # W-42
        self._start(connection.read())
        if self._closed is not None:
            connection.end()
        self._warm(None)
        self._changed(connection)

    def _failed(self, error: Exception) -> None:
        """Tell the first who cannot be served by the connections that are still being opened."""
        _logger.debug("a connection could not be opened: %s", error)
        self._warm(error)
        others = self._connecting * self._limits.in_flight
        waiter = next(islice(self._queue, others, None), None)
        if waiter is not None:
            del self._queue[waiter]
            waiter.fail(error)
        self._serve()

    def _warm(self, error: Exception | None) -> None:
        """Tell those who warm up that a connection is open, or why it is not."""
        for opened in [each for each in self._warming if not each.done()]:
            if error is None:
                opened.set_result(None)
            else:
                opened.set_exception(error)

    # -- the life of a connection ----------------------------------------------------------

    def _changed(self, connection: Connection) -> None:
        """Something was freed, or lost: serve whoever waits, and let go of what nobody needs."""
        line = connection.line
        if connection.over and self._open.pop(line.id, None) is not None:
            if (timer := self._idle.pop(line.id, None)) is not None:
                timer.cancel()
            self._rotations.pop(line.id).cancel()
            self._start(self._close(connection))
        self._serve()
        if not connection.over and not line.busy:
            self._keep(connection)
            for idle in lanes.surplus(self._lines().values(), self._keeping.idle):
                self._open[idle.id].retire()

    async def _close(self, connection: Connection) -> None:
        await connection.close()
        self._sockets.discard(connection.line.id)
        self._serve()  # there is room for another one now

    def _keep(self, connection: Connection) -> None:
        """Look again when a connection that nobody uses has been kept for long enough."""
        if connection.line.id not in self._idle:
            when = connection.line.used + self._keeping.seconds
            timer = asyncio.get_running_loop().call_at(when, self._kept, connection)
            self._idle[connection.line.id] = timer

    def _kept(self, connection: Connection) -> None:
        line = connection.line
        del self._idle[line.id]
        if line.busy:
            return
        if _now() < line.used + self._keeping.seconds:
            self._keep(connection)
        else:
            connection.retire()

    def _tell(self, late: Late) -> None:
        for tell in self._tellers:
            try:
                tell(late)
            except Exception:  # what the application does with it must not end the reader
                _logger.exception("the function that is told of late responses failed")

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _now() -> float:
    return asyncio.get_running_loop().time()
