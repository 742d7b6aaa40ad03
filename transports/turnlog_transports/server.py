"""The simulated provider on a socket: HTTP, server-sent events and WebSocket on one path.

The one rule: a fault is real. A cut closes the TCP connection with nothing more said, a stall keeps
it open and silent, and a refused upgrade is an HTTP answer; what the client sees is what it would
see of a server that failed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from typing import Literal, assert_never

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from turnlog.canonical import JsonObject, dumps, loads_object, text
from turnlog.errors import InvalidInput

from . import answer as answers
from .answer import Answer, refusal
from .carriers import Connections, Stream, Whole, for_ever, plain, race
from .generation import Cut, Garble, Generation, Stall
from .generation import Send as SendEvent
from .provider import Provider

PATH = "/v1/responses"

_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_GOING_AWAY = 1001


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

    def __init__(self, provider: Provider, *, key: str | None, connections: Connections) -> None:
        self.provider = provider
        self.requests: list[Heard] = []
        self._key = key
        self._connections = connections
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
            return plain(refused)
        if body is None:
            return plain(_NOT_JSON)
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
            return plain(found)
        return Stream(found, self._connections) if stream else Whole(found, self._connections)

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
            await websocket.send_denial_response(plain(refused))
            # Only then is the handshake over for the server, which would complain otherwise.
            await self._connections.lost(websocket.scope)
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
            await race(read(), work(), leave())

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
                    await for_ever()
                case Cut():
                    self._connections.drop(websocket.scope)
                    await for_ever()
                case _:
                    assert_never(step)
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


# -- small things --------------------------------------------------------------------------

_NOT_JSON = refusal("We could not parse the JSON body of your request: an object is needed.")
_NOT_A_CREATE = refusal("A message must be a JSON object of type 'response.create'.", param="type")
_BAD_LANE = refusal(
    "Invalid 'stream_id': 1 to 256 characters of A-Z, a-z, 0-9, '_', '.' and '-'.",
    param="stream_id",
    code="invalid_stream_id",
)
_NO_WEBSOCKET = refusal("No WebSocket is offered here: use HTTP.", status=426)


def _object(raw: str | bytes) -> JsonObject | None:
    try:
        return loads_object(raw)
    except InvalidInput:
        return None
