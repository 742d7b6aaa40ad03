"""A server with lanes whose every frame a test sends itself, when it wants to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from websockets.asyncio.server import ServerConnection, serve

from turnlog.canonical import JsonObject, loads_object, obj, text
from turnlog.errors import TurnlogError
from turnlog.ports import Create, Endpoint, Frame, Profile, Timeouts
from turnlog.state import Parent
from turnlog_transports.profiles import OPENAI
from turnlog_transports.websocket import WebSocketTransport, open_transport

from .servers import PATIENCE, completed, create, created, delta, frame, tell

QUIET = Timeouts(ping=None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the server got, on its connection number `number`, counted from 1."""

    socket: ServerConnection
    number: int
    body: JsonObject

    @property
    def lane(self) -> str | None:
        return text(self.body, "stream_id")

    async def tell(self, *frames: JsonObject) -> None:
        """Say something on the lane of the request."""
        named = {} if self.lane is None else {"stream_id": self.lane}
        await tell(self.socket, *[{**each, **named} for each in frames])

    async def start(self, id: str) -> None:
        await self.tell(created(id), frame("response.in_progress", response={"id": id}))

    async def answer(self, id: str) -> None:
        await self.start(id)
        await self.tell(delta("hi"), completed(id))

    async def settled(self) -> None:
        """Return when the client has read all that was said on the connection."""
        await (await self.socket.ping())
        await asyncio.sleep(0)


class LaneServer:
    """What arrives, in order; the test answers it."""

    def __init__(self) -> None:
        self.url = ""
        self.sockets: list[ServerConnection] = []
        self.arrived: asyncio.Queue[Asked] = asyncio.Queue()

    async def talk(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        number = len(self.sockets)
        async for raw in socket:
            await self.arrived.put(Asked(socket, number, loads_object(raw)))

    async def next(self) -> Asked:
        """The next request, as soon as it is here."""
        async with asyncio.timeout(PATIENCE):
            return await self.arrived.get()

    async def opened(self, number: int) -> ServerConnection:
        """A connection, as soon as it is open."""
        async with asyncio.timeout(PATIENCE):
            while len(self.sockets) < number:
                await asyncio.sleep(0.001)
        return self.sockets[number - 1]


@asynccontextmanager
async def lanes(
    profile: Profile = OPENAI, timeouts: Timeouts = QUIET, *, key: object = None, **options: object
) -> AsyncGenerator[tuple[LaneServer, WebSocketTransport]]:
    """A server with lanes, and a transport to it."""
    server = LaneServer()
    async with serve(server.talk, "127.0.0.1", 0, max_size=None, ping_interval=None) as serving:
        host, port = next(iter(serving.sockets)).getsockname()[:2]
        server.url = f"http://{host}:{port}/v1"
        transport = open_transport(
            Endpoint(
                base_url=server.url,
                profile=profile,
                timeouts=timeouts,
                key=key,
                options=options,
            )
        )
        try:
            yield server, transport
        finally:
            await transport.close()


def of(
    conversation: str, parent: Parent | None = None, *, store: bool = False, attempt: str = ""
) -> Create:
    """A request of a conversation; behind a parent, a continuation."""
    fields = {} if parent is None else {"previous_response_id": parent.response}
    request = create(parent=parent, store=store, **fields)
    return replace(request, conversation=conversation, attempt=attempt)


def behind(last: Frame, *, store: bool = False) -> Parent:
    """The parent that a completed response is."""
    return Parent(
        response=text(obj(last.data, "response"), "id") or "",
        end=2,
        version=5,
        time=0,
        store=store,
        transport="websocket",
        connection=last.connection,
        lane=last.lane,
    )


async def turn(
    server: LaneServer, transport: WebSocketTransport, request: Create, id: str
) -> tuple[Asked, Parent]:
    """Ask, and have it answered: what the server got, and the parent that came of it."""
    asking = asyncio.create_task(_last(transport, request))
    asked = await server.next()
    await asked.answer(id)
    last = await asking
    return asked, behind(last, store=request.body.get("store") is True)


async def _last(transport: WebSocketTransport, request: Create) -> Frame:
    async with asyncio.timeout(PATIENCE):
        return [frame async for frame in transport.send(request)][-1]


async def said(transport: WebSocketTransport, request: Create) -> list[Frame]:
    """Every frame of one request, however long it takes: for a clock that the test moves."""
    async with aclosing(transport.send(request)) as stream:
        return [each async for each in stream]


async def came_of(
    transport: WebSocketTransport, request: Create
) -> tuple[list[str], TurnlogError | None]:
    """The types of the frames of one request, and the error behind them, however long it takes."""
    types: list[str] = []
    try:
        async with aclosing(transport.send(request)) as stream:
            async for each in stream:
                types.append(each.type)
    except TurnlogError as error:
        return types, error
    return types, None
