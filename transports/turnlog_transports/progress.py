"""How far one exchange over HTTP has come, and how long its next step may take.

The one rule: what was written decides what a failure means (law 5): before it nothing was sent,
behind it nothing was heard, and behind a frame the rest was lost. No kind of error is trusted to
say that. All times are the event loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import httpcore2
import httpx2

from turnlog.errors import Lost, NotSent, TransportError, Unheard
from turnlog.ports import Frame, Timeouts

from .network import NO_CONNECTION_FREE


class Progress:
    """One exchange. Its deadlines move with what `note` is told by the HTTP client.

    A handshake takes no longer than `connect`, proxies and TLS included. The first frame comes
    within `first_frame` of the written request, each other one within `idle` of the moment that
    somebody waits for it, whatever comments and pieces trickle in, and the end within `total`.
    """

    _move: Callable[[float | None], None]  # from `wait`, before there is anything to note

    def __init__(self, timeouts: Timeouts) -> None:
        self.heard = 0
        self._timeouts = timeouts
        self._late: tuple[str, float | None] = "", None
        self._sent = False
        self._over = False
        self._end: float | None = None
        self._connecting: httpcore2.AsyncNetworkStream | None = None

    def wait(self, move: Callable[[float | None], None]) -> None:
        """Somebody waits for the next frame, until a time that `move` sets."""
        self._move = move
        if self.heard and not self._over:
            self._allow("no frame", self._timeouts.idle)

    def took(self, frame: Frame) -> None:
        """A frame came. Behind a terminal one nothing is late, and nothing is lost any more."""
        self.heard += 1
        self._over = self._over or frame.terminal is not None

    async def note(self, event: str, about: Mapping[str, object]) -> None:
        """Take note of a step of the client (the extension `trace` of httpx2)."""
        match event.partition(".")[2]:
            case "connect_tcp.started":
                self._allow("no connection", self._timeouts.connect)
            case "connect_tcp.complete":
                self._connecting = _stream(about.get("return_value"))
            case "send_request_headers.started" if not _is_connect(about):
                self._begin()
            case "send_request_body.complete" if self._sent:
                self._allow("no frame", self._timeouts.first_frame)
            case _:
                pass

    async def abandon(self) -> None:
        """Close what was connecting: a handshake that is given up leaves its socket behind."""
        if self._connecting is not None:
            await self._connecting.aclose()

    def failed(self, error: Exception) -> TransportError:
        """What an error means, for whoever sent the request."""
        why = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            why = "{} within {} seconds".format(*self._late)
        if isinstance(error, httpx2.SSEError):
            why = f"{why.rstrip('.')}: raise the option max_frame_bytes"
        if isinstance(error, httpx2.PoolTimeout):
            why = f"no connection was free within {self._timeouts.queue} seconds"
            return NotSent(f"cannot reach the provider: {why}", code=NO_CONNECTION_FREE)
        # The client refuses a request that breaks the protocol before it writes any of it.
        if not self._sent or isinstance(error, httpx2.LocalProtocolError):
            return NotSent(f"cannot reach the provider: {why}")
        if not self.heard:
            return Unheard(f"the answer broke off: {why}")
        return Lost(f"the answer broke off: {why}, after {self.heard} frames")

    def _begin(self) -> None:
        self._sent, self._connecting = True, None
        total = self._timeouts.total
        self._end = None if total is None else _now() + total
        self._allow("the request was not taken", self._timeouts.first_frame)

    def _allow(self, late: str, seconds: float | None) -> None:
        end = self._end
        when = None if seconds is None else _now() + seconds
        if end is not None and (when is None or end < when):
            late, seconds, when = "no end", self._timeouts.total, end
        self._late = late, seconds
        self._move(when)


def _stream(made: object) -> httpcore2.AsyncNetworkStream | None:
    return made if isinstance(made, httpcore2.AsyncNetworkStream) else None


def _is_connect(about: Mapping[str, object]) -> bool:
    # What opens a tunnel through a proxy says nothing to the provider.
    request = about.get("request")
    return isinstance(request, httpcore2.Request) and request.method == b"CONNECT"


def _now() -> float:
    return asyncio.get_running_loop().time()
