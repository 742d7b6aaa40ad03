"""How an answer goes out over HTTP while it is made, and what a fault does to its connection.

The one rule: a fault is real. A cut closes the TCP connection with nothing more said, and a stall
keeps it open and silent.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import closing
from typing import assert_never

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from turnlog.canonical import JsonObject, dumps, loads_object, text
from turnlog.errors import InvalidInput

from .answer import Answer
from .generation import Cut, Garble, Source, Stall
from .generation import Send as SendEvent
from .pacing import play

PATH = "/v1/responses"

_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_GLANCE = 0.001


class Connections:
    """The TCP connections of a server, found by the scope of what came by them."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def drop(self, scope: Scope) -> None:
        """End a connection without a goodbye; what was written before is still delivered."""
        for transport in self._of(scope):
            transport.close()

    async def lost(self, scope: Scope) -> None:
        """Return once a connection has ended."""
        while self._of(scope):  # noqa: ASYNC110 (the server has no event for it)
            await asyncio.sleep(_GLANCE)

    def abort(self) -> None:
        """End all connections at once."""
        for connection in list(self._state.connections):
            connection.transport.abort()

    def _of(self, scope: Scope) -> list[asyncio.Transport]:
        return [
            connection.transport
            for connection in self._state.connections
            if _peer(connection.transport) == tuple(scope["client"])
        ]


def _peer(transport: asyncio.Transport) -> tuple[object, ...]:
    # An IPv6 address has two more parts.
    peer: tuple[object, ...] = transport.get_extra_info("peername")
    return peer[:2]


class Live(Response, ABC):
    """An answer that is made while it is sent, and given up when the client leaves."""

    def __init__(self, source: Source, connections: Connections) -> None:
        super().__init__()
        self._source = source
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def left() -> None:
            # The request was read whole: all that can still come is its end.
            await receive()

        with closing(self._source):
            await race(left(), self._play(scope, send))

    @abstractmethod
    async def _play(self, scope: Scope, send: Send) -> None: ...

    async def _cut(self, scope: Scope) -> None:
        self._connections.drop(scope)
        # The end comes with the disconnection, so that the server has nothing to complete.
        await for_ever()


class Stream(Live):
    """Server-sent events, one for each step."""

    async def _play(self, scope: Scope, send: Send) -> None:
        begun = False
        async for step in play(self._source):
            match step:
                case SendEvent() | Garble():
                    if not begun:
                        await _start(send, 200, _EVENT_STREAM)
                        begun = True
                    await _write(send, _sse(step), more=True)
                case Stall():
                    await for_ever()
                case Cut():
                    await self._cut(scope)
                case _:
                    assert_never(step)
        if not begun:
            await _start(send, 200, _EVENT_STREAM)
        await _write(send, b"", more=False)


class Whole(Live):
    """The whole response in one piece, for a client that did not ask for a stream."""

    async def _play(self, scope: Scope, send: Send) -> None:
        async for step in play(self._source):
            match step:
                case SendEvent():
                    continue
                case Garble(text=garbled):
                    return await _document(send, 200, garbled.encode())
                case Stall():
                    await for_ever()
                case Cut():
                    await self._cut(scope)
                case _:
                    assert_never(step)
        if self._source.response is None or not self._source.terminates:
            await self._cut(scope)
        else:
            await _document(send, 200, dumps(self._source.response))


def _sse(step: SendEvent | Garble) -> bytes:
    if isinstance(step, Garble):
        return b"data: " + step.text.encode() + b"\n\n"
    named = (text(step.event, "type") or "message").encode()
    return b"event: " + named + b"\ndata: " + dumps(step.event) + b"\n\n"


async def _document(send: Send, status: int, body: bytes) -> None:
    await _start(send, status, b"application/json")
    await _write(send, body, more=False)


async def _start(send: Send, status: int, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _write(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def parsed(raw: str | bytes) -> JsonObject | None:
    """What was sent, or None where it is no JSON object."""
    try:
        return loads_object(raw)
    except InvalidInput:
        return None


def plain(answer: Answer) -> Response:
    """A plain answer over HTTP."""
    headers = {**answer.headers, "cache-control": "no-store"}
    body = dumps(answer.body)
    return Response(body, answer.status, headers, media_type="application/json")


async def for_ever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


async def race(*contestants: Coroutine[object, object, None]) -> None:
    """Run all until one is done, stop the others, and raise what that one raised."""
    tasks = [asyncio.create_task(contestant) for contestant in contestants]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
