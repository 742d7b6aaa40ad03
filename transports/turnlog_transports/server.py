"""The simulated provider on a socket: HTTP, server-sent events and WebSocket on one path.

The one rule: a fault is real. A cut closes the TCP connection with nothing more said, a stall keeps
it open and silent, and a refused upgrade is an HTTP answer; what the client sees is what it would
see of a server that failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from turnlog.canonical import JsonObject

from .admission import Rules
from .answer import Answer, refusal
from .carriers import PATH, Connections, Stream, Whole, parsed, plain
from .hearing import Count, Heard
from .provider import Given, Provider
from .sockets import Host, Socket


class Service:
    """What the simulator's server does with a request: ask the provider, then play its part.

    `rules` are those of each WebSocket, which lives for `seconds`; with `record` what was asked
    is kept.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        key: str | None,
        connections: Connections,
        rules: Rules,
        seconds: float | None,
        record: bool,
    ) -> None:
        self.provider = provider
        self.requests: list[Heard] = []
        self.sockets = Count()
        self.in_flight = Count()
        self._key = key
        self._record = record
        self._connections = connections
        self._host = Host(
            provider=provider,
            connections=connections,
            hear=self._keep,
            rules=rules,
            seconds=seconds,
            in_flight=self.in_flight,
        )
        self._numbers = count(1)
        self._websocket = True
        self._leaving: set[asyncio.Event] = set()
        self.app = Starlette(
            routes=[
                Route(PATH, self._create, methods=["POST"]),
                Route(f"{PATH}/compact", self._compact, methods=["POST"]),
                Route(f"{PATH}/{{id}}", self._retrieve, methods=["GET"]),
                Route(f"{PATH}/{{id}}", self._delete, methods=["DELETE"]),
                Route(f"{PATH}/{{id}}/cancel", self._cancel, methods=["POST"]),
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
        return await self._post(request, self.provider.create)

    async def _compact(self, request: Request) -> Response:
        return await self._post(request, self.provider.compact)

    async def _post(self, request: Request, ask: Callable[[JsonObject], Given]) -> Response:
        body = await self._hear(request)
        refused = self._unauthorized(request.headers.get("authorization"))
        if refused is not None:
            return plain(refused)
        if body is None:
            return plain(_NOT_JSON)
        return self._respond(ask(body), stream=body.get("stream") is True)

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

    async def _cancel(self, request: Request) -> Response:
        return await self._simple(request, self.provider.cancel)

    async def _input_items(self, request: Request) -> Response:
        return await self._simple(request, self.provider.input_items)

    async def _simple(self, request: Request, ask: Callable[[str], Given]) -> Response:
        await self._hear(request)
        refused = self._unauthorized(request.headers.get("authorization"))
        id: str = request.path_params["id"]
        return self._respond(refused or ask(id), stream=True)

    def _respond(self, found: Given, *, stream: bool) -> Response:
        if isinstance(found, Answer):
            return plain(found)
        return Stream(found, self._connections) if stream else Whole(found, self._connections)

    async def _hear(self, request: Request) -> JsonObject | None:
        try:
            raw = await request.body()
        except ClientDisconnect:
            return None  # what was not said whole is not heard, and nobody is there to be answered
        body = parsed(raw)
        self._keep(
            Heard(
                carrier="http",
                method=request.method,
                path=request.url.path,
                size=len(raw),
                body=body,
            )
        )
        return body

    def _keep(self, heard: Heard) -> None:
        if self._record:
            self.requests.append(heard)

    def _unauthorized(self, header: str | None) -> Answer | None:
        if self._key is None or header == f"Bearer {self._key}":
            return None
        return refusal("Incorrect API key provided.", code="invalid_api_key", status=401)

    # -- WebSocket -------------------------------------------------------------------------

    async def _connect(self, websocket: WebSocket) -> None:
        refused = (
            self._unauthorized(websocket.headers.get("authorization"))
            or (None if self._websocket else _NO_WEBSOCKET)
            or self.provider.upgrade()
        )
        number = 0 if refused is not None else next(self._numbers)
        self._keep(
            Heard(carrier="websocket", method="UPGRADE", path=PATH, connection=number or None)
        )
        if refused is not None:
            await websocket.send_denial_response(plain(refused))
            # Only then is the handshake over for the server, which would complain otherwise.
            await self._connections.lost(websocket.scope)
            return
        await websocket.accept()
        leaving = asyncio.Event()
        self._leaving.add(leaving)
        try:
            with self.sockets.one():
                await Socket(websocket, self._host, number).converse(leaving)
        finally:
            self._leaving.discard(leaving)


_NOT_JSON = refusal("We could not parse the JSON body of your request: an object is needed.")
_NO_WEBSOCKET = refusal("No WebSocket is offered here: use HTTP.", status=426)
