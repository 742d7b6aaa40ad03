"""The openai SDK over server-sent events: `responses.create(stream=True)`, and its typed events."""

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
    """One client, which keeps its connection."""

    facts = versions("openai", "pydantic", "httpx2")

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def ask(self, model: str, context: list[Item]) -> Heard:
        """Create a response, and iterate its stream."""
        deltas, first, at = 0, "", 0
        create: Any = self._client.responses.create
        async for event in await create(model=model, input=context, stream=True):
            if event.type == "response.output_text.delta":
                if not deltas:
                    at, first = time.monotonic_ns(), event.delta
                deltas += 1
        return Heard(deltas, first, at)


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Sdk]:
    async with AsyncOpenAI(api_key="sk-x", base_url=url) as client:
        yield Sdk(client)


async def deltas(given: Given) -> Measured:
    """See `wire.deltas`."""
    return await wire.deltas(_open, given)


async def first(given: Given) -> Measured:
    """See `wire.first`."""
    return await wire.first(_open, given)


async def full_request(given: Given) -> Measured:
    """See `wire.full_request`."""
    return await wire.full_request(_open, given)
