"""Responses over a WebSocket, one at a time on each connection.

The one rule: what came over a connection counts for the response in progress there or for none
(W-24), and a connection that was left in the middle of a response is never used again (W-02).
Closing it is the documented way to stop a response (protocol 1.2).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from turnlog.errors import Lost, NotSent, NotSupported, TransportError, Unheard
from turnlog.ports import Create, Endpoint, Frame, Late, Profile, Request
from turnlog.state import Parent

from . import wire
from .connections import CLOSE_TIMEOUT, Connection, Connections, limit_reached, note_stray
from .endpoint import Access, Life, masked

OPTIONS = frozenset({"max_frame_bytes", "max_idle_connections", "keep_idle_seconds"})


def open_transport(endpoint: Endpoint) -> WebSocketTransport:
    """The transport `websocket`; raises ConfigurationError for options that do not fit.

    Options: `max_frame_bytes` (64 MiB), `max_idle_connections` (8), `keep_idle_seconds` (900).
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    return WebSocketTransport(access)


class WebSocketTransport:
    """A Transport over WebSockets; it asks for responses, and for nothing else.

    A response that nobody waits for any longer costs its connection. Everything happens on the
    event loop of the first `send`.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._life = Life()
        self._max_frame = int(access.option("max_frame_bytes", 64 * 1024 * 1024))
        self._connections = Connections(
            self._open,
            max_idle=access.option("max_idle_connections", 8),
            keep_idle=access.option("keep_idle_seconds", 900.0),
        )

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """`websocket`."""
        return "websocket"

    @property
    def profile(self) -> Profile:
        """What the provider can do."""
        return self._access.profile

    def check(self) -> None:
        """Raise ConfigurationError where a request cannot go out."""
        self._access.check()

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Whether the parent is the newest response of an open connection here (law 8)."""
        return parent.lane is None and self._connections.remembers(parent)

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send a `Create` and yield its frames, as `ports.Transport` says.

        Raises NotSupported for every other request, and InvalidInput for a body that is no JSON.
        """
        self._life.check()
        if not isinstance(request, Create):
            raise NotSupported(
                f"a WebSocket cannot carry {type(request).__name__}: use the http or auto transport"
            )
        payload = wire.create_payload(request.body)  # before a connection is taken (W-34)
        connection = await self._connections.take(request.parent)
        over = False
        try:
            await self._write(connection, payload)
            while not over:
                frame = await self._next(connection)
                if frame.terminal is not None:
                    self._settle(connection, request, frame)
                    over = True
                yield frame
        finally:
            if not over:
                self._connections.evict(connection)

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Nothing is drained here, so nothing is told."""

    async def warm(self) -> None:
        """Nothing to connect ahead."""

    async def close(self) -> None:
        """Close every connection; streams under way raise Closed (W-47)."""
        await self._life.close()
        await self._connections.close()

    async def _write(self, connection: Connection, payload: bytes) -> None:
        if not connection.open:
            raise NotSent("the provider closed the connection as soon as it was open")
        connection.sequence.begin()
        try:
            async with self._life.within(self._access.endpoint.timeouts.idle):
                await connection.socket.send(payload, text=True)
        except (TimeoutError, ConnectionClosed) as error:
            raise self._gone(connection, error) from error

    async def _next(self, connection: Connection) -> Frame:
        while True:
            try:
                async with self._life.within(self._access.endpoint.timeouts.idle):
                    frame = await connection.receive()
            except (TimeoutError, ConnectionClosed) as error:
                raise self._gone(connection, error) from error
            if connection.sequence.ours(frame):
                return frame
            note_stray(frame)

    def _gone(self, connection: Connection, error: Exception) -> TransportError:
        heard = connection.sequence.heard
        silent = f"the provider said nothing for {self._access.endpoint.timeouts.idle} seconds"
        why = silent if isinstance(error, TimeoutError) else f"the WebSocket closed: {error}"
        return Lost(f"{why}, after {heard} frames") if heard else Unheard(why)

    def _settle(self, connection: Connection, request: Create, frame: Frame) -> None:
        """Take note of what the provider remembers now, and let the connection go."""
        response = connection.sequence.response
        if frame.terminal == "completed":
            connection.newest = response
            stored = request.body.get("store")
            connection.stored = self.profile.store_default if stored is None else stored is True
        elif response or request.body.get("previous_response_id") == connection.newest:
            # Something else was begun here, or the continuation failed (law 8).
            connection.newest = None
        if limit_reached(frame):
            self._connections.evict(connection)
        else:
            self._connections.release(connection)  # an error is no fault of the socket (W-45)

    async def _open(self) -> ClientConnection:
        try:
            async with self._life.within(self._access.endpoint.timeouts.connect):
                return await self._handshake(await self._access.headers())
        except (OSError, WebSocketException) as error:
            why = str(error) or type(error).__name__
            raise NotSent(f"cannot connect to the WebSocket of the provider: {why}") from error

    async def _handshake(self, headers: dict[str, str]) -> ClientConnection:
        handshake = _Connect(
            self._access.url(scheme="ws"),
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            # What goes to this machine goes there directly, or its key would leave it.
            proxy=None if self._access.loopback else True,
            open_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
            max_size=self._max_frame,
        )
        try:
            return await handshake
        except InvalidStatus as error:
            raise _refused(error, headers) from error


class _Connect(connect):
    """A handshake that follows no redirect: a key goes to the address it was meant for."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _refused(error: InvalidStatus, headers: dict[str, str]) -> NotSent:
    response = error.response
    body = masked(bytes(response.body or b""), headers)
    said = wire.answer(response.status_code, dict(response.headers.raw_items()), body).problem
    why = said.message if said is not None else "an answer that is no upgrade"
    status = response.status_code
    return NotSent(f"the provider refused the WebSocket with HTTP {status}: {why}", status=status)
