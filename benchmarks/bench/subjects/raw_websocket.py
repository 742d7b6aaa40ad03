"""The floor of a WebSocket: `websockets`, and orjson for each frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import orjson
from websockets.asyncio.client import ClientConnection, connect

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard, Lags


def _connecting(url: str) -> connect:
    address = url.replace("http", "ws", 1) + "/responses"
    headers = {"Authorization": "Bearer sk-x"}
    return connect(address, additional_headers=headers, compression=None, max_size=None, proxy=None)


def _create(model: str, items: list[Item]) -> str:
    body = {"type": "response.create", "model": model, "input": items}
    return str(orjson.dumps(body), "utf-8")


class Raw(wire.Peer):
    """One connection."""

    facts = versions("websockets", "orjson")

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def ask(self, model: str, context: list[Item]) -> Heard:
        """Write a frame, and parse each one that comes."""
        deltas, first, at = 0, "", 0
        socket = self._socket
        await socket.send(_create(model, context))
        while True:
            event = orjson.loads(await socket.recv(decode=False))
            kind = event["type"]
            if kind == "response.output_text.delta":
                if not deltas:
                    at, first = time.monotonic_ns(), event["delta"]
                deltas += 1
            elif kind == "response.completed":
                return Heard(deltas, first, at)


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Raw]:
    async with _connecting(url) as socket:
        yield Raw(socket)


async def deltas(given: Given) -> Measured:
    """See `wire.deltas`."""
    return await wire.deltas(_open, given)


async def first(given: Given) -> Measured:
    """See `wire.first`."""
    return await wire.first(_open, given)


async def full_request(given: Given) -> Measured:
    """See `wire.full_request`."""
    return await wire.full_request(_open, given)


async def streams(given: Given) -> Measured:
    """A connection for each stream, all of them open before the first one begins."""
    wire.raise_open_files()
    url = given.text("url")
    async with AsyncExitStack() as stack:
        sockets: list[ClientConnection] = []
        for _ in range(given.number("conversations")):
            sockets.append(await stack.enter_async_context(_connecting(url)))

        async def watch(number: int, model: str, lags: Lags) -> None:
            socket = sockets[number]
            await socket.send(_create(model, wire.GO))
            async for frame in socket:
                event = orjson.loads(frame)
                if event["type"] == "response.output_text.delta":
                    lags.add(event["delta"])
                elif event["type"] == "response.completed":
                    return

        figures = await wire.streams(given, watch)
        await asyncio.gather(*(socket.close() for socket in sockets))
    return Measured(figures, Raw.facts)
