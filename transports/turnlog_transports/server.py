"""The simulated provider on a socket: HTTP, server-sent events and WebSocket on one path.

The one rule: a fault is real. A cut closes the TCP connection with nothing more said, a stall keeps
it open and silent, and a refused upgrade is an HTTP answer; what the client sees is what it would
see of a server that failed.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from turnlog.canonical import JsonObject, dumps, loads_object, text
from turnlog.errors import InvalidInput

from . import answer as answers
from .answer import Answer, refusal
from .generation import Cut, Garble, Generation, Stall
from .generation import Send as SendEvent
from .provider import Provider

PATH = "/v1/responses"

_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_GOING_AWAY = 1001

Close: TypeAlias = Callable[[Scope], None]
"""Closes the TCP connection that a scope came by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One thing that a client asked.

    `method` is the HTTP method, `UPGRADE` where a WebSocket was asked for, or the type of a
    message on one; `body` is None where there was none that is a JSON object, and `size` counts
    its bytes as they came.
    """

    carrier: Literal["http", "websocket"]
    method: str
    path: str
    size: int = 0
    body: JsonObject | None = None


class Service:
    """What the simulator's server does with a request: ask the provider, then play its part."""

    def __init__(self, provider: Provider, *, key: str | None, close: Close) -> None:
        self.provider = provider
        self.requests: list[Heard] = []
        self._key = key
        self._close = close
        self._numbers = count(1)
        self._websocket = True
        self._leaving: set[asyncio.Event] = set()
        self.app = Starlette(
            routes=[
                Route(PATH, self._create, methods=["POST"]),
                Route(f"{PATH}/{{id}}", self._retrieve, methods=["GET"]),
                Route(f"{PATH}/{{id}}", self._delete, methods=["DELETE"]),
                Route(f"{PATH}/{{id}}/input_items", self._input_items, methods=["GET"]),
                WebSocketRoute(PATH, self._connect),
            ]
        )

    @property
    def websocket(self) -> bool:
        """Whether a WebSocket may be opened."""
        return self._websocket

    @websocket.setter
    def websocket(self, offered: bool) -> None:
        self._websocket = offered
        if not offered:
            for leaving in self._leaving:
                leaving.set()

    # -- HTTP ------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        body = await self._hear(request)
        refused = self._unauthorized(request.headers.get("authorization"))
        if refused is not None:
            return _json(refused)
        if body is None:
            return _json(_NOT_JSON)
        found = self.provider.create(body)
        return self._respond(found, stream=body.get("stream") is True)

    async def _retrieve(self, request: Request) -> Response:
        query = request.query_params
        stream = query.get("stream") == "true"
        after = query.get("starting_after", "")
        return await self._simple(
            request,
            lambda id: self.provider.retrieve(
                id, stream=stream, starting_after=int(after) if after.isdecimal() else None
            ),
        )

    async def _delete(self, request: Request) -> Response:
        return await self._simple(request, self.provider.delete)

    async def _input_items(self, request: Request) -> Response:
        return await self._simple(request, self.provider.input_items)

    async def _simple(
        self, request: Request, ask: Callable[[str], Answer | Generation]
    ) -> Response:
        await self._hear(request)
        refused = self._unauthorized(request.headers.get("authorization"))
        id: str = request.path_params["id"]
        return self._respond(refused or ask(id), stream=True)

    def _respond(self, found: Answer | Generation, *, stream: bool) -> Response:
        if isinstance(found, Answer):
            return _json(found)
        return _Stream(found, self._close) if stream else _Whole(found, self._close)

    async def _hear(self, request: Request) -> JsonObject | None:
        raw = await request.body()
        body = _object(raw)
        self.requests.append(
            Heard(
                carrier="http",
                method=request.method,
                path=request.url.path,
                size=len(raw),
                body=body,
            )
        )
        return body

    def _unauthorized(self, header: str | None) -> Answer | None:
        if self._key is None or header == f"Bearer {self._key}":
            return None
        return refusal("Incorrect API key provided.", code="invalid_api_key", status=401)

    # -- WebSocket -------------------------------------------------------------------------

    async def _connect(self, websocket: WebSocket) -> None:
        self.requests.append(Heard(carrier="websocket", method="UPGRADE", path=PATH))
        refused = (
            self._unauthorized(websocket.headers.get("authorization"))
            or (None if self._websocket else _NO_WEBSOCKET)
            or self.provider.upgrade()
        )
        if refused is not None:
            await websocket.send_denial_response(_json(refused))
            return
        await websocket.accept()
        connection, leaving = f"connection-{next(self._numbers)}", asyncio.Event()
        self._leaving.add(leaving)
        try:
            await self._converse(websocket, connection, leaving)
        finally:
            self._leaving.discard(leaving)
            self.provider.disconnect(connection)

    async def _converse(
        self, websocket: WebSocket, connection: str, leaving: asyncio.Event
    ) -> None:
        messages: asyncio.Queue[str | bytes] = asyncio.Queue()

        async def read() -> None:
            while (message := await websocket.receive())["type"] != "websocket.disconnect":
                messages.put_nowait(message.get("text") or message.get("bytes") or "")

        async def work() -> None:
            while await self._message(websocket, connection, await messages.get()):
                pass
            await websocket.close()

        async def leave() -> None:
            await leaving.wait()
            await websocket.close(_GOING_AWAY)

        with suppress(WebSocketDisconnect):
            await _race(read(), work(), leave())

    async def _message(self, websocket: WebSocket, connection: str, raw: str | bytes) -> bool:
        """Answer a message; whether the connection goes on."""
        body = _object(raw)
        kind = None if body is None else text(body, "type")
        size = len(raw.encode() if isinstance(raw, str) else raw)
        heard = Heard(
            carrier="websocket", method=kind or "", path=PATH, size=size, body=_bare(body)
        )
        self.requests.append(heard)
        if body is None or kind != "response.create":
            return await _say(websocket, answers.frame(_NOT_A_CREATE), None)
        lane = body.get("stream_id")
        if lane is not None and not (isinstance(lane, str) and _LANE.fullmatch(lane)):
            return await _say(websocket, answers.frame(_BAD_LANE), None)
        found = self.provider.create(heard.body or {}, connection=connection, lane=lane)
        if isinstance(found, Answer):
            return await _say(websocket, answers.frame(found), lane)
        with closing(found):
            return await self._stream(websocket, found, lane)

    async def _stream(self, websocket: WebSocket, found: Generation, lane: str | None) -> bool:
        for step in found:
            await asyncio.sleep(found.delay)
            match step:
                case SendEvent(event=event):
                    await _say(websocket, answers.nested(event), lane)
                case Garble(text=garbled):
                    await websocket.send_text(garbled)
                case Stall():
                    await _for_ever()
                case Cut():
                    self._close(websocket.scope)
                    await _for_ever()
        return found.terminates


async def _say(websocket: WebSocket, event: JsonObject, lane: str | None) -> bool:
    named: JsonObject = event if lane is None else {**event, "stream_id": lane}
    await websocket.send_text(dumps(named).decode("utf-8"))
    return True


def _bare(body: JsonObject | None) -> JsonObject | None:
    """The body of a create without what only a WebSocket's message has."""
    if body is None:
        return None
    return {key: value for key, value in body.items() if key not in ("type", "stream_id")}


# -- answers over HTTP ---------------------------------------------------------------------


class _Live(Response, ABC):
    """An answer that is made while it is sent, and given up when the client leaves."""

    def __init__(self, generation: Generation, close: Close) -> None:
        super().__init__()
        self._generation = generation
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        with closing(self._generation):
            await _race(left(), self._play(scope, send))

    @abstractmethod
    async def _play(self, scope: Scope, send: Send) -> None: ...

    async def _cut(self, scope: Scope) -> None:
        self._close(scope)
        # The end comes with the disconnection, so that the server has nothing to complete.
        await _for_ever()


class _Stream(_Live):
    """Server-sent events, one for each step."""

    async def _play(self, scope: Scope, send: Send) -> None:
        begun = False
        for step in self._generation:
            await asyncio.sleep(self._generation.delay)
            match step:
                case SendEvent() | Garble():
                    if not begun:
                        await _start(send, 200, _EVENT_STREAM)
                        begun = True
                    await _write(send, _sse(step), more=True)
                case Stall():
                    await _for_ever()
                case Cut():
                    await self._cut(scope)
        if not begun:
            await _start(send, 200, _EVENT_STREAM)
        await _write(send, b"", more=False)


class _Whole(_Live):
    """The whole response in one piece, for a client that did not ask for a stream."""

    async def _play(self, scope: Scope, send: Send) -> None:
        for step in self._generation:
            await asyncio.sleep(self._generation.delay)
            match step:
                case SendEvent():
                    continue
                case Garble(text=garbled):
                    return await _document(send, 200, garbled.encode())
                case Stall():
                    await _for_ever()
                case Cut():
                    await self._cut(scope)
        if self._generation.response is None or not self._generation.terminates:
            await self._cut(scope)
        else:
            await _document(send, 200, dumps(self._generation.response))


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


# -- small things --------------------------------------------------------------------------

_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_NOT_JSON = refusal("We could not parse the JSON body of your request: an object is needed.")
_NOT_A_CREATE = refusal("A message must be a JSON object of type 'response.create'.", param="type")
_BAD_LANE = refusal(
    "Invalid 'stream_id': 1 to 256 characters of A-Z, a-z, 0-9, '_', '.' and '-'.",
    param="stream_id",
    code="invalid_stream_id",
)
_NO_WEBSOCKET = refusal("No WebSocket is offered here: use HTTP.", status=426)


def _json(answer: Answer) -> Response:
    headers = {**answer.headers, "cache-control": "no-store"}
    body = dumps(answer.body)
    return Response(body, answer.status, headers, media_type="application/json")


def _object(raw: str | bytes) -> JsonObject | None:
    try:
        return loads_object(raw)
    except InvalidInput:
        return None


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _race(*contestants: Coroutine[object, object, None]) -> None:
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
