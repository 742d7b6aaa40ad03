"""livekit-plugins-openai over a WebSocket: its Responses LLM, and the chunks of `chat`.

With `store=False`, because it sends nothing but what is new since its last response otherwise, and
is asked the same thing again here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from livekit.agents.llm import ChatContext, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from livekit.agents.utils import http_context
from livekit.plugins.openai.responses import LLM

from bench import wire
from bench.subject import Given, Item, Measured, versions
from bench.wire import Heard


class Livekit(wire.Peer):
    """One LLM for each name that is asked for, each with connections that it keeps."""

    facts = versions("livekit-plugins-openai", "livekit-agents", "aiohttp", "pydantic")

    def __init__(self, url: str) -> None:
        self._url = f"{url}/responses"
        self._models: dict[str, LLM] = {}

    def context(self, items: list[Item]) -> ChatContext:
        """The items as livekit has them."""
        return ChatContext([_item(item) for item in items])

    async def ask(self, model: str, context: ChatContext) -> Heard:
        """Ask, and iterate the chunks."""
        deltas, first, at = 0, "", 0
        if model not in self._models:
            self._models[model] = LLM(
                model=model, api_key="sk-x", base_url=self._url, use_websocket=True, store=False
            )
        async with self._models[model].chat(chat_ctx=context) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    if not deltas:
                        at, first = time.monotonic_ns(), chunk.delta.content
                    deltas += 1
        return Heard(deltas, first, at)

    async def close(self) -> None:
        """Close the connections."""
        for model in self._models.values():
            await model.aclose()


def _item(item: Item) -> ChatItem:
    match item.get("type", "message"):
        case "function_call":
            return FunctionCall(
                call_id=item["call_id"], name=item["name"], arguments=item["arguments"]
            )
        case "function_call_output":
            return FunctionCallOutput(
                call_id=item["call_id"], output=item["output"], is_error=False
            )
        case _:
            content = item["content"]
            text = content if isinstance(content, str) else content[0]["text"]
            return ChatMessage(role=item["role"], content=[text])


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Livekit]:
    async with http_context.open():
        peer = Livekit(url)
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
