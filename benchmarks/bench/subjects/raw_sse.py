"""The floor of server-sent events: httpx2, which reads them itself, and orjson for each one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import orjson

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard

HEADERS = {
    "Authorization": "Bearer sk-x",
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
}


class Raw(wire.Peer):
    """One client, which keeps its connection."""

    facts = versions("httpx2", "orjson")

    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self._client = client
        self._url = f"{url}/responses"

    async def ask(self, model: str, context: list[Item]) -> Heard:
        """Post a request, and parse each event that comes."""
        deltas, first, at = 0, "", 0
        body = orjson.dumps({"model": model, "input": context, "stream": True})
        asking = self._client.stream("POST", self._url, content=body, headers=HEADERS)
        async with asking as response:
            async for sent in httpx2.EventSource(response):
                event = orjson.loads(sent.data)
                if event["type"] == "response.output_text.delta":
                    if not deltas:
                        at, first = time.monotonic_ns(), event["delta"]
                    deltas += 1
        return Heard(deltas, first, at)


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Raw]:
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        yield Raw(client, url)


async def deltas(given: Given) -> Measured:
    """See `wire.deltas`."""
    return await wire.deltas(_open, given)


async def first(given: Given) -> Measured:
    """See `wire.first`."""
    return await wire.first(_open, given)


async def full_request(given: Given) -> Measured:
    """See `wire.full_request`."""
    return await wire.full_request(_open, given)
