"""Responses over WebSockets: several at once on each connection, where the provider has lanes.

The one rule: a request is written once, to the lane that `lanes` chose for it, and what comes over
a connection counts for the response in progress on its lane or for none (W-24). `connections`
opens and keeps the sockets, `connection` reads them, `stream` holds what has not been taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.protocol import State

from turnlog.errors import Closed, ConfigurationError, NotSent, NotSupported
from turnlog.ports import Create, Endpoint, Frame, Late, Profile, Request
from turnlog.state import Parent

from . import wire
from .connection import CLOSE_TIMEOUT, Settings
from .connections import Connections, Keeping
from .direct import DirectConnection
from .endpoint import Access, Life, masked
from .lanes import limits

OPTIONS = frozenset(
    {
        "max_frame_bytes",
        "max_connections",
        "max_idle_connections",
        "keep_idle_seconds",
        "rotate_seconds",
        "lane_buffer_bytes",
    }
)


def open_transport(endpoint: Endpoint) -> WebSocketTransport:
    """The transport `websocket`; raises ConfigurationError for options that do not fit.

    Options: `max_frame_bytes` (64 MiB); `max_connections` (64); `max_idle_connections` (8), how
    many are kept that nobody uses and nothing is remembered on; `keep_idle_seconds` (900), how
    long any is kept that nobody uses; `rotate_seconds` (3000, or five sixths of what the provider
    allows, where that is less), the age at which a connection takes nothing new;
    `lane_buffer_bytes` (16 MiB), how far a reader may fall behind.
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    return WebSocketTransport(access)


class WebSocketTransport:
    """A Transport over WebSockets; it asks for responses, and for nothing else.

    Backpressure: a connection is read at once, whatever its readers do, so that its other lanes
    and its pings go on. What has not been taken of a response is kept up to `lane_buffer_bytes`;
    beyond that the response is given up: what was kept can still be taken, and then `Lost` is
    raised.

    A response that nobody waits for any more (its generator was closed, a deadline passed, its
    reader fell behind) is stopped by closing its connection, where that concerns nobody else;
    otherwise its lane runs out by itself, and `on_late` tells how it ended.

    Everything happens on the event loop of the first `send`.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._life = Life()
        self._max_frame = int(access.option("max_frame_bytes", 64 * 1024 * 1024))
        profile = access.profile
        rotate = min(3000.0, profile.connection_seconds * 5 / 6)
        self._connections = Connections(
            self._open,
            limits(
                profile,
                connections=max(1, int(access.option("max_connections", 64))),
                rotate=access.option("rotate_seconds", rotate),
            ),
            Settings(
                timeouts=access.endpoint.timeouts,
                lane_buffer=int(access.option("lane_buffer_bytes", 16 * 1024 * 1024)),
                max_frame=self._max_frame,
            ),
            Keeping(
                idle=access.option("max_idle_connections", 8),
                seconds=access.option("keep_idle_seconds", 900.0),
            ),
            store_default=profile.store_default,
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
        """Whether a conversation can continue from what a connection here remembers (law 8)."""
        return self._connections.remembers(parent, conversation)

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Have a function told how responses ended that were abandoned before their end."""
        self._connections.on_late(tell)

    async def warm(self) -> None:
        """Open a connection, unless one is open; one that is being opened will do.

        Raises NotSent, Closed and ConfigurationError; a later `warm` or `send` tries again.
        """
        self._life.check()
        await self._connections.warm()

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
        await asyncio.sleep(0)  # what has arrived is read before anything is decided (W-41)
        self._life.check()
        stream = await self._connections.take(request, payload)
        del request, payload  # they may be large, and the stream long
        try:
            frame = await stream.take()
            while frame.terminal is None:
                yield frame
                frame = stream.now() or await stream.take()
            yield frame
        finally:
            self._connections.leave(stream)

    async def close(self) -> None:
        """Close every connection; streams under way raise Closed (W-47)."""
        self._connections.shut(Closed("the transport was closed: open another one"))
        await self._life.close()
        await self._connections.gone()

    # -- connecting ------------------------------------------------------------------------

    async def _open(self) -> DirectConnection:
        seconds = self._access.endpoint.timeouts.connect
        try:
            async with self._life.within(seconds):
                socket = await self._handshake(await self._access.headers())
        except TimeoutError as error:
            raise NotSent(
                f"cannot connect to the WebSocket of the provider within {seconds:g} seconds"
            ) from error
        except (OSError, WebSocketException) as error:
            why = str(error) or type(error).__name__
            raise NotSent(f"cannot connect to the WebSocket of the provider: {why}") from error
        except ImportError as error:
            raise ConfigurationError(f"this proxy cannot be used: {error}") from error
        if socket.state is not State.OPEN:
            socket.transport.abort()
            await socket.wait_closed()
            raise NotSent("the provider closed the connection as soon as it was open")
        return socket

    async def _handshake(self, headers: dict[str, str]) -> DirectConnection:
        access, ping = self._access, self._access.endpoint.timeouts.ping
        handshake = _Connect(
            access.url(scheme="ws"),
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            proxy=access.websocket_proxy,
            ssl=access.websocket_tls,
            open_timeout=None,
            ping_interval=ping,
            ping_timeout=ping,
            close_timeout=CLOSE_TIMEOUT,
            max_size=self._max_frame,
            max_queue=None,  # its reader never waits for anybody
            create_connection=DirectConnection,
        )
        try:
            socket = await handshake
        except InvalidStatus as error:
            raise _refused(error, headers, access.profile.key_header) from error
        assert isinstance(socket, DirectConnection)
        return socket


class _Connect(connect):
    """A handshake that follows no redirect: a key goes to the address it was meant for."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _refused(error: InvalidStatus, headers: dict[str, str], key_header: str) -> NotSent:
    response = error.response
    body = masked(bytes(response.body or b""), headers, key_header)
    said = wire.answer(response.status_code, dict(response.headers.raw_items()), body).problem
    why = said.message if said is not None else "an answer that is no upgrade"
    status = response.status_code
    return NotSent(
        f"the provider refused the WebSocket with HTTP {status}: {why}",
        status=status,
        retry_after=None if said is None else said.retry_after,
    )
