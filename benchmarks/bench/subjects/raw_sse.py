"""The floor of server-sent events: httpx2, which reads them itself, and orjson for each one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard, Lags

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
        self._url = url

    async def ask(self, model: str, context: list[Item]) -> Heard:
        """Ask, and count the deltas."""
        deltas, first, at = 0, "", 0
        async for event in _events(self._client, self._url, _body(model, context)):
            if event["type"] == "response.output_text.delta":
                if not deltas:
                    at, first = time.monotonic_ns(), event["delta"]
                deltas += 1
        return Heard(deltas, first, at)


async def _events(client: httpx2.AsyncClient, url: str, body: bytes) -> AsyncGenerator[Any]:
    """Post a request, and parse each event that comes."""
    asking = client.stream("POST", f"{url}/responses", content=body, headers=HEADERS)
    async with asking as response:
        async for sent in httpx2.EventSource(response):
            yield orjson.loads(sent.data)


def _body(model: str, context: list[Item]) -> bytes:
    written: bytes = orjson.dumps({"model": model, "input": context, "stream": True})
    return written


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


async def streams(given: Given) -> Measured:
    """A connection for each stream, from one client."""
    wire.raise_open_files()
    url, no_limit = given.text("url"), httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=60, trust_env=False, limits=no_limit) as client:

        async def watch(_: int, model: str, lags: Lags) -> None:
            async for event in _events(client, url, _body(model, wire.GO)):
                if event["type"] == "response.output_text.delta":
                    lags.add(event["delta"])

        return Measured(await wire.streams(given, watch), Raw.facts)
