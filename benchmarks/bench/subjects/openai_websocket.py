"""The openai SDK over a WebSocket: `client.responses.connect()`, and its typed events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard


class Sdk(wire.Peer):
    """One connection."""

    facts = versions("openai", "pydantic", "websockets")

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def ask(self, model: str, context: list[Item]) -> Heard:
        """Create a response, and iterate the connection until it is over."""
        deltas, first, at = 0, "", 0
        await self._connection.response.create(model=model, input=context)
        async for event in self._connection:
            if event.type == "response.output_text.delta":
                if not deltas:
                    at, first = time.monotonic_ns(), event.delta
                deltas += 1
            elif event.type == "response.completed":
                break
        return Heard(deltas, first, at)


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Sdk]:
    async with (
        AsyncOpenAI(api_key="sk-x", base_url=url) as client,
        client.responses.connect() as connection,
    ):
        yield Sdk(connection)


async def deltas(given: Given) -> Measured:
    """See `wire.deltas`."""
    return await wire.deltas(_open, given)


async def first(given: Given) -> Measured:
    """See `wire.first`."""
    return await wire.first(_open, given)


async def full_request(given: Given) -> Measured:
    """See `wire.full_request`."""
    return await wire.full_request(_open, given)
