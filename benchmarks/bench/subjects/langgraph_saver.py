"""langgraph's `AsyncSqliteSaver`: a checkpoint of all messages for each append."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from .. import storing
from ..storing import Store, named_modes
from ..subject import Item, versions

CHANNEL = "messages"


def message_of(item: Item) -> AnyMessage:
    """An item as a message, as a graph's `messages` channel has them."""
    match item.get("type"):
        case "function_call":
            call = {
                "id": item["call_id"],
                "name": item["name"],
                "args": json.loads(item["arguments"]),
            }
            return AIMessage(content="", id=item["id"], tool_calls=[call])
        case "function_call_output":
            return ToolMessage(content=item["output"], tool_call_id=item["call_id"])
        case "message":
            return AIMessage(content=item["content"][0]["text"], id=item["id"])
        case _:
            return HumanMessage(content=item["content"])


class Thread:
    """A thread as a graph that runs it has it: its newest checkpoint, and where that stands."""

    def __init__(self, number: int) -> None:
        self.config: RunnableConfig = {
            "configurable": {"thread_id": f"thread-{number}", "checkpoint_ns": ""}
        }
        self.messages: list[AnyMessage] = []
        self.checkpoint: Checkpoint = empty_checkpoint()
        self.step = -1


class Saver(Store):
    """What a graph saves behind a step that added messages."""

    def __init__(
        self, path: Path, saver: AsyncSqliteSaver, conversations: int, facts: dict[str, str]
    ) -> None:
        super().__init__(path)
        self._saver = saver
        self._threads = [Thread(number) for number in range(conversations)]
        self.facts = facts

    async def add(self, conversation: int, items: list[Item]) -> None:
        thread = self._threads[conversation]
        thread.messages = [*thread.messages, *(message_of(item) for item in items)]
        thread.step += 1
        last = thread.checkpoint["channel_versions"].get(CHANNEL)
        new = {CHANNEL: self._saver.get_next_version(last, None)}
        thread.checkpoint = Checkpoint(
            v=thread.checkpoint["v"],
            id=str(uuid6(clock_seq=thread.step)),
            ts=datetime.now(UTC).isoformat(),
            channel_values={CHANNEL: thread.messages},
            channel_versions=new,
            versions_seen={},
            updated_channels=[CHANNEL],
        )
        metadata: CheckpointMetadata = {"source": "loop", "step": thread.step, "parents": {}}
        thread.config = await self._saver.aput(thread.config, thread.checkpoint, metadata, new)

    async def read(self, limit: int | None) -> int:
        return len((await self._messages(0))[-(limit or 0) :])

    async def count(self) -> int:
        return sum([len(await self._messages(number)) for number in range(len(self._threads))])

    async def _messages(self, number: int) -> list[AnyMessage]:
        wanted = {"thread_id": f"thread-{number}", "checkpoint_ns": ""}
        found = await self._saver.aget_tuple({"configurable": wanted})
        if found is None:  # nothing was written to it so far
            return []
        messages: list[AnyMessage] = found.checkpoint["channel_values"][CHANNEL]
        return messages


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()
        yield Saver(path, saver, conversations, await facts_of(saver))


async def facts_of(saver: AsyncSqliteSaver) -> dict[str, str]:
    """What its connection is set to."""
    (journal,) = (await saver.conn.execute_fetchall("PRAGMA journal_mode"))[0]
    (synchronous,) = (await saver.conn.execute_fetchall("PRAGMA synchronous"))[0]
    packages = ("langgraph", "langgraph-checkpoint-sqlite", "aiosqlite")
    found = named_modes(journal, synchronous) | versions(*packages)
    return found | {"sqlite": sqlite3.sqlite_version}


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
length = partial(storing.length, opened)
last = partial(storing.last, opened)
load = partial(storing.load, opened)
