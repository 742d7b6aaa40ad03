"""The transport `auto`: a WebSocket where the provider has one, and HTTP behind it.

The one rule: it chooses and reports, and never sends again by itself (design section 6, W-31).
A WebSocket that is refused or cannot connect ends its attempt; from then on, for a while, `name`
is `http`, and whoever plans the next attempt sees it there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from turnlog.errors import NotSent
from turnlog.ports import Create, Endpoint, Frame, Late, Profile, Request, Transport
from turnlog.state import Parent

from . import http, websocket
from .endpoint import Access

OPTIONS = http.OPTIONS | websocket.OPTIONS | {"websocket_pause_seconds"}

SAME_BY_HTTP = frozenset({401, 429})
"""Refusals of an upgrade that say nothing against WebSockets: a wrong key, too many requests."""


def open_transport(endpoint: Endpoint) -> FallbackTransport:
    """The transport `auto`; raises ConfigurationError for options that do not fit.

    Options: those of `websocket` and `http`, and `websocket_pause_seconds` (60), the time that
    HTTP is used after a WebSocket was refused or could not connect.
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    return FallbackTransport(
        websocket.WebSocketTransport(access) if access.profile.websocket else None,
        http.HttpTransport(access),
        pause=access.option("websocket_pause_seconds", 60.0),
    )


def open_websocket(endpoint: Endpoint) -> FallbackTransport:
    """The transport `websocket`: never another way for a response, and HTTP for all else.

    A response that was started over a WebSocket is asked about by HTTP (design section 6). Raises
    ConfigurationError for options that do not fit.
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    return FallbackTransport(
        websocket.WebSocketTransport(access), http.HttpTransport(access), pause=0.0
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """Which way the next response is asked for: HTTP before `until`, the WebSocket from then on."""

    until: float | None = None

    def way(self, now: float) -> Literal["websocket", "http"]:
        """The way at a moment; moments are seconds of a monotonic clock."""
        return "http" if self.until is not None and now < self.until else "websocket"

    def failed(self, error: NotSent, now: float, pause: float) -> Choice:
        """What follows when a WebSocket brought nothing to the provider."""
        return self if error.status in SAME_BY_HTTP else Choice(now + pause)


class FallbackTransport:
    """A Transport that asks for responses in one of two ways, and for all else by HTTP.

    `first` is None where the provider has no WebSocket. `pause` is in seconds of `clock`; with 0
    there is no second way for a response.
    """

    def __init__(
        self,
        first: Transport | None,
        second: Transport,
        *,
        pause: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._second = second
        self._pause = pause
        self._clock = clock
        self._choice = Choice()

    @property
    def profile(self) -> Profile:
        """What the provider can do."""
        return self._second.profile

    def check(self) -> None:
        """Raise ConfigurationError where a request cannot go out."""
        self._second.check()

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """The way that the next response is asked for: `websocket` or `http`."""
        if background or ((before == "http" or failed) and self._pause):
            return self._second.choose()
        return self._next.choose()

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Whether a way remembers the parent."""
        return self._way(via).remembers(parent, via=via, conversation=conversation)

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Have a function told how abandoned responses ended."""
        if self._first is not None:
            self._first.on_late(tell)

    async def warm(self) -> None:
        """Connect ahead by the way that comes next."""
        await self._next.warm()

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send a request one way, once, and yield its frames, as `ports.Transport` says."""
        way = self._way(request.via) if isinstance(request, Create) else self._second
        try:
            async with aclosing(way.send(request)) as frames:
                async for frame in frames:
                    yield frame
        except NotSent as error:
            if way is self._first:
                self._choice = self._choice.failed(error, self._clock(), self._pause)
            raise

    async def close(self) -> None:
        """Close both ways; streams under way raise Closed."""
        if self._first is not None:
            await self._first.close()
        await self._second.close()

    def _way(self, via: str | None) -> Transport:
        if via is None:
            return self._next
        return self._first if via == "websocket" and self._first is not None else self._second

    @property
    def _next(self) -> Transport:
        if self._first is None or self._choice.way(self._clock()) == "http":
            return self._second
        return self._first
