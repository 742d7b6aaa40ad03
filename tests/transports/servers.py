"""Real servers on loopback for the tests of the transports, each answering exactly as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as Upgrade
from websockets.http11 import Response

from turnlog.canonical import Json, JsonObject, loads_object
from turnlog.errors import TurnlogError
from turnlog.ports import Create, Endpoint, Frame, Request, Timeouts, Transport
from turnlog.state import Parent
from turnlog_transports.profiles import OPENAI

Talk = Callable[[ServerConnection], Awaitable[None]]
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
PATIENCE = 10.0


def frame(type: str, **fields: Json) -> dict[str, Json]:
    return {"type": type, **fields}


def created(id: str, **fields: Json) -> dict[str, Json]:
    return frame("response.created", response={"id": id, "status": "in_progress"}, **fields)


def completed(id: str, **fields: Json) -> dict[str, Json]:
    return frame("response.completed", response={"id": id, "status": "completed"}, **fields)


def delta(text: str, **fields: Json) -> dict[str, Json]:
    return frame("response.output_text.delta", delta=text, **fields)


def create(text: str = "Hello.", *, parent: Parent | None = None, **fields: Json) -> Create:
    return Create(body={"model": "gpt-5.5", "input": text, **fields}, parent=parent)


def parent(response: str, connection: str | None, *, lane: str | None = None) -> Parent:
    return Parent(
        response=response,
        end=2,
        version=5,
        time=0,
        store=False,
        transport="websocket",
        connection=connection,
        lane=lane,
    )


def endpoint(base_url: str, *, idle_timeout: float = 5.0, **options: object) -> Endpoint:
    return Endpoint(
        base_url=base_url,
        profile=OPENAI,
        timeouts=Timeouts(connect=5.0, idle=idle_timeout),
        options=options,
    )


def held(transport: Transport, parent: Parent, conversation: str = "") -> bool:
    """Whether a transport remembers a parent, by the way that it would choose."""
    return transport.remembers(parent, via=transport.choose(), conversation=conversation)


async def ask(transport: Transport, request: Request | None = None) -> list[Frame]:
    """Every frame of one request; an error goes through."""
    async with asyncio.timeout(PATIENCE), aclosing(transport.send(request or create())) as frames:
        return [frame async for frame in frames]


async def outcome(
    transport: Transport, request: Request | None = None
) -> tuple[list[str], TurnlogError | None]:
    """The types of the frames of one request, and the error behind them."""
    types: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE), aclosing(transport.send(request or create())) as got:
            async for each in got:
                types.append(each.type)
    except TurnlogError as error:
        return types, error
    return types, None


# -- a WebSocket server --------------------------------------------------------------------


@asynccontextmanager
async def websocket_server(
    talk: Talk, *, refuse: Callable[[Upgrade], tuple[int, str] | None] | None = None
) -> AsyncGenerator[str]:
    """A server that talks like this on every connection; gives its base URL."""

    def process(connection: ServerConnection, request: Upgrade) -> Response | None:
        refused = refuse(request) if refuse is not None else None
        return connection.respond(*refused) if refused is not None else None

    async with serve(talk, "127.0.0.1", 0, process_request=process, max_size=None) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        yield f"http://{host}:{port}/v1"


async def tell(connection: ServerConnection, *frames: Mapping[str, Json] | str | bytes) -> None:
    for each in frames:
        raw = each if isinstance(each, (str, bytes)) else json.dumps(each)
        await connection.send(raw)


async def hear(connection: ServerConnection) -> JsonObject:
    return loads_object(await connection.recv(decode=False))


def answering(seen: list[tuple[int, JsonObject]] | None = None) -> Talk:
    """Answer every request with a response of its own, and note which connection it came over."""
    ids = iter(range(1, 1000))
    connections: list[ServerConnection] = []

    async def talk(connection: ServerConnection) -> None:
        connections.append(connection)
        number = len(connections)
        async for raw in connection:
            if seen is not None:
                seen.append((number, loads_object(raw)))
            id = f"resp_{next(ids)}"
            await tell(connection, created(id), delta("hi"), completed(id))

    return talk


# -- an HTTP server ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Web:
    """An HTTP server that answers with raw bytes, one answer to each request, in order."""

    answers: list[Answer]
    asked: list[Asked] = field(default_factory=list[Asked])
    connections: int = 0
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                await self.answers.pop(0)(writer)
                if writer.is_closing():
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body)


@asynccontextmanager
async def web_server(
    *answers: Answer,
) -> AsyncGenerator[Web]:
    web = Web(list(answers))
    server = await asyncio.start_server(web.handle, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        web.url = f"http://{host}:{port}/v1"
        yield web


def plain(status: int, body: Json | bytes, **headers: str) -> Answer:
    """A whole answer; names of headers are given with underscores."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    head = {"content-type": "application/json", "content-length": str(len(raw)), **given}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + raw)
        await writer.drain()

    return answer


def event(data: Mapping[str, Json] | str) -> bytes:
    raw = data if isinstance(data, str) else json.dumps(data)
    return f"data: {raw}\n\n".encode()


def stream(
    *parts: bytes,
    end: bool = True,
    cut: bool = False,
    hang: asyncio.Event | None = None,
    content_type: str = "text/event-stream; charset=utf-8",
) -> Answer:
    """A stream of chunks. `cut` drops it; `hang` keeps it open until the event is set."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        for part in parts:
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
        if hang is not None:
            await hang.wait()
        if cut:
            writer.transport.abort()
        elif end:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    return answer


async def cut(writer: asyncio.StreamWriter) -> None:
    """Take the request, and drop the connection."""
    writer.transport.abort()
