"""pydantic-ai over a WebSocket: its OpenAI Responses model, asked directly, below an agent.

It falls back to HTTP by itself, which would be something else: here HTTP is refused.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
from openai import AsyncOpenAI
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard

SETTINGS = OpenAIResponsesModelSettings(openai_transport="websocket")


class PydanticAi(wire.Peer):
    """One model for each name that is asked for, each with a connection that it keeps."""

    facts = versions("pydantic-ai-slim", "openai", "pydantic", "websockets")

    def __init__(self, client: AsyncOpenAI, stack: AsyncExitStack) -> None:
        self._provider = OpenAIProvider(openai_client=client)
        self._stack = stack
        self._models: dict[str, OpenAIResponsesModel] = {}

    def context(self, items: list[Item]) -> list[ModelMessage]:
        """The items as pydantic-ai has them."""
        return [_message(item) for item in items]

    async def ask(self, model: str, context: list[ModelMessage]) -> Heard:
        """Ask, and iterate the parts and their deltas."""
        deltas, first, at = 0, "", 0
        if model not in self._models:
            made = OpenAIResponsesModel(model, provider=self._provider)
            self._models[model] = await self._stack.enter_async_context(made)
        asking = model_request_stream(self._models[model], context, model_settings=SETTINGS)
        async with asking as stream:
            async for event in stream:
                text = ""
                if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    text = event.delta.content_delta
                elif isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    text = event.part.content
                if text:
                    if not deltas:
                        at, first = time.monotonic_ns(), text
                    deltas += 1
        return Heard(deltas, first, at)


def _message(item: Item) -> ModelMessage:
    match item.get("type", "message"):
        case "function_call":
            call = ToolCallPart(item["name"], item["arguments"], tool_call_id=item["call_id"])
            return ModelResponse([call])
        case "function_call_output":
            part = ToolReturnPart("look_up", item["output"], tool_call_id=item["call_id"])
            return ModelRequest([part])
        case _ if item["role"] == "user":
            return ModelRequest([UserPromptPart(item["content"])])
        case _:
            return ModelResponse([TextPart(item["content"][0]["text"])])


def _refuse(request: httpx2.Request) -> httpx2.Response:
    raise AssertionError(f"{request.method} {request.url}: it did not use the WebSocket")


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[PydanticAi]:
    async with AsyncExitStack() as stack:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(_refuse))
        client = AsyncOpenAI(api_key="sk-x", base_url=url, http_client=http)
        yield PydanticAi(await stack.enter_async_context(client), stack)


async def deltas(given: Given) -> Measured:
    """See `wire.deltas`."""
    return await wire.deltas(_open, given)


async def first(given: Given) -> Measured:
    """See `wire.first`."""
    return await wire.first(_open, given)


async def full_request(given: Given) -> Measured:
    """See `wire.full_request`."""
    return await wire.full_request(_open, given)
