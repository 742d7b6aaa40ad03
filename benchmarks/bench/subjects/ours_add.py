"""turnlog as its users have it: `chat.add` on an open log, durable at power loss."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import turnlog
from turnlog.conversation import Conversation

from .. import storing
from ..storing import Store
from ..subject import Item
from .ours import ALL_ITEMS, facts_of


class Added(Store):
    """A handle for each conversation."""

    rows = ALL_ITEMS

    def __init__(self, path: Path, chats: list[Conversation]) -> None:
        super().__init__(path)
        self._chats = chats
        self.facts = facts_of(path)

    async def add(self, conversation: int, items: list[Item]) -> None:
        await self._chats[conversation].add(*items)


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    async with turnlog.open(path, transport="replay", options={"script": []}) as log:
        chats = [
            await log.conversation(f"conversation-{number:06d}", model="m")
            for number in range(conversations)
        ]
        yield Added(path, chats)


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
many = partial(storing.many, opened)
