"""openai-agents over a WebSocket: `stream_response` of its OpenAIResponsesWSModel."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from agents import ModelSettings, ModelTracing, OpenAIResponsesWSModel
from openai import AsyncOpenAI

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard


class Agents(wire.Peer):
    """One model for each name that is asked for, each with a connection that it keeps."""

    facts = versions("openai-agents", "openai", "pydantic", "websockets")

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._models: dict[str, OpenAIResponsesWSModel] = {}

    async def ask(self, model: str, context: list[Item]) -> Heard:
        """Ask below the runner, without tools and tracing."""
        deltas, first, at = 0, "", 0
        if model not in self._models:
            self._models[model] = OpenAIResponsesWSModel(model, self._client)
        ask: Any = self._models[model].stream_response
        events = ask(
            None,
            context,
            ModelSettings(),
            [],
            None,
            [],
            ModelTracing.DISABLED,
            previous_response_id=None,
            conversation_id=None,
            prompt=None,
        )
        async for event in events:
            if event.type == "response.output_text.delta":
                if not deltas:
                    at, first = time.monotonic_ns(), event.delta
                deltas += 1
        return Heard(deltas, first, at)

    async def close(self) -> None:
        """Close the connections."""
        for model in self._models.values():
            await model.close()


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Agents]:
    async with AsyncOpenAI(api_key="sk-x", base_url=url) as client:
        peer = Agents(client)
        yield peer
        await peer.close()


async def deltas(given: Given) -> Measured:
    """See `wire.deltas`."""
    return await wire.deltas(_open, given)


async def first(given: Given) -> Measured:
    """See `wire.first`."""
    return await wire.first(_open, given)


async def full_request(given: Given) -> Measured:
    """See `wire.full_request`."""
    return await wire.full_request(_open, given)
