"""The transport `auto`: a WebSocket where the provider has one, and HTTP behind it.

The one rule: it chooses and reports, and never sends again by itself (design section 6, W-31).
A WebSocket that brings nothing across ends its attempt. Whoever plans the next one asks `choose`,
which names HTTP: for the rest of that turn, and for everybody while the breaker is open. What
finds out whether the WebSocket works again is a handshake in the background, never a request
(W-50).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from turnlog.errors import Closed, ConfigurationError, NotSent, Unheard
from turnlog.ports import (
    PARENT_GONE,
    Create,
    Endpoint,
    Frame,
    Late,
    Profile,
    Request,
    Transport,
)
from turnlog.state import Parent

from . import http, websocket
from .breaker import Breaker
from .connection import TOO_LARGE
from .endpoint import Access
from .network import NO_CONNECTION_FREE

OPTIONS = http.OPTIONS | websocket.OPTIONS | {"websocket_pause_seconds", "breaker_failures"}

SAME_BY_HTTP = frozenset({401, 429})
"""Refusals of an upgrade that say nothing against WebSockets: a wrong key, too many requests."""

NO_FAULT = frozenset({PARENT_GONE, NO_CONNECTION_FREE, TOO_LARGE})
"""Codes of a request that was not taken, through no fault of the WebSocket."""

_logger = logging.getLogger("turnlog.transports")


def open_transport(endpoint: Endpoint) -> FallbackTransport:
    """The transport `auto`; raises ConfigurationError for options that do not fit.

    Options: those of `websocket` and `http`; `breaker_failures` (1), how many failures in a row
    it takes until the WebSocket is left alone; and `websocket_pause_seconds` (60), for how long
    at first: each pause is up to twice the last one, and the longest sixteen times the first.
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    breaker = Breaker(
        failures=access.count("breaker_failures") or 1,
        pause=access.option("websocket_pause_seconds", 60.0),
    )
    return FallbackTransport(
        websocket.WebSocketTransport(access) if access.profile.websocket else None,
        http.HttpTransport(access),
        breaker=breaker,
    )


def open_websocket(endpoint: Endpoint) -> FallbackTransport:
    """The transport `websocket`: never another way for a response, and HTTP for all else.

    A response that was started over a WebSocket is asked about by HTTP (design section 6), and
    a background response goes that way altogether. Raises ConfigurationError for options that do
    not fit.
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    return FallbackTransport(
        websocket.WebSocketTransport(access), http.HttpTransport(access), breaker=None
    )


class FallbackTransport:
    """A Transport that asks for responses by `first` while that works, for all else by `second`.

    `first` is None where the provider has no WebSocket. Without a breaker `second` is no way for
    a response that `first` can carry. `draw` gives a random number from 0 to below 1.
    """

    def __init__(
        self,
        first: Transport | None,
        second: Transport,
        *,
        breaker: Breaker | None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._second = second
        self._breaker = breaker
        self._draw = draw
        self._probe: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def profile(self) -> Profile:
        """What the provider can do."""
        return self._second.profile

    def check(self) -> None:
        """Raise ConfigurationError where a request cannot go out."""
        if self._first is not None:
            self._first.check()
        self._second.check()

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """The way of the next response, `websocket` or `http`; a turn never goes back.

        Whoever asks when a pause is over has the WebSocket tried in the background.
        """
        if self._first is None or background:
            return "http"
        if self._breaker is None:
            return "websocket"
        paused = self._paused(self._first, self._breaker)
        return "http" if paused or failed or before == "http" else "websocket"

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Whether the way of that name remembers the parent."""
        return self._way(via).remembers(parent, via=via, conversation=conversation)

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Have a function told how abandoned responses ended, by either way."""
        if self._first is not None:
            self._first.on_late(tell)
        self._second.on_late(tell)

    async def warm(self) -> None:
        """Connect ahead by the way that comes next."""
        await self._way(self.choose()).warm()

    def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send a request one way, once, and yield its frames, as `ports.Transport` says.

        Where nobody is told how it went, the way's own frames are given, and no generator stands
        between, which each frame would have to pass.
        """
        way = self._second
        if isinstance(request, Create):
            way = self._way(request.via or self.choose())
        frames = way.send(request)
        if self._breaker is None or way is not self._first:
            return frames
        return self._watched(frames)

    async def close(self) -> None:
        """Close both ways, and end a probe; streams under way raise Closed."""
        self._closed = True
        try:
            await self._end_probe()
            if self._first is not None:
                await self._first.close()
        finally:
            await self._second.close()

    def _way(self, via: str) -> Transport:
        return self._first if via == "websocket" and self._first is not None else self._second

    # -- what the breaker is told ----------------------------------------------------------

    async def _watched(self, frames: AsyncGenerator[Frame]) -> AsyncGenerator[Frame]:
        heard = False
        try:
            async with aclosing(frames):
                async for frame in frames:
                    if not heard:
                        heard = True
                        self._tell(Breaker.worked)
                    yield frame
        except (NotSent, Unheard) as error:
            if _speaks_against(error):
                self._tell(lambda breaker: breaker.failed(_now(), self._draw()))
            raise

    def _tell(self, step: Callable[[Breaker], Breaker]) -> None:
        assert self._breaker is not None  # only what has a breaker is watched
        was, self._breaker = self._breaker, step(self._breaker)
        if was.phase != self._breaker.phase:
            _logger.info("the WebSocket's breaker was %s, is %s", was.phase, self._breaker.phase)

    # -- the probe -------------------------------------------------------------------------

    def _paused(self, first: Transport, breaker: Breaker) -> bool:
        if breaker.due(_now()) and self._probe is None and not self._closed:
            self._tell(Breaker.probed)
            self._probe = asyncio.create_task(self._try(first))
        return breaker.phase != "closed"

    async def _try(self, first: Transport) -> None:
        try:
            self._tell(await self._tried(first))
        finally:
            self._probe = None

    async def _tried(self, first: Transport) -> Callable[[Breaker], Breaker]:
        try:
            await first.warm()
        except (NotSent, Closed, ConfigurationError) as error:
            if isinstance(error, NotSent) and _speaks_against(error):
                return lambda breaker: breaker.refused(_now(), self._draw())
            return lambda breaker: breaker.undecided(_now(), self._draw())
        except Exception:  # nobody awaits this task, and without an end it would be the last probe
            _logger.exception("the WebSocket could not be tried")
            return lambda breaker: breaker.refused(_now(), self._draw())
        return Breaker.connected

    async def _end_probe(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})


def _speaks_against(error: NotSent | Unheard) -> bool:
    if isinstance(error, Unheard):
        return True
    return error.status not in SAME_BY_HTTP and error.code not in NO_FAULT


def _now() -> float:
    return asyncio.get_running_loop().time()
