"""What a second look at races found: each at the moment where it happened, held open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from turnlog.ports import Head
from turnlog.store import MemoryStore
from turnlog.testing import call, text

from .given import PATIENCE, agent, opened, recorded, until


class Slow(MemoryStore):
    """A store whose answers may take a while to arrive."""

    on_the_way: Callable[[], Awaitable[None]] | None = None

    async def head(self, conversation: str) -> Head | None:
        found = await super().head(conversation)
        if self.on_the_way is not None:
            await self.on_the_way()
        return found


async def test_what_was_heard_of_another_process_is_not_kept_behind_the_end_of_the_turn() -> None:
    tidied, read, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def deps() -> AsyncGenerator[None]:
        yield
        await tidied.wait()

    async def hold() -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() == "turnlog catching up":
            read.set()
            await go_on.wait()

    store, bound = Slow(), agent(deps=deps)
    async with (
        opened([call("add", a=1, b=2), text("One.")], bound, store=store) as log,
        opened([], bound, store=store.beside()) as other,
    ):
        chat = await log.conversation("c", agent=bound)
        there = await other.conversation("c", agent=bound)
        turn = await chat.send("1")
        await recorded(chat, "turn.ended")
        store.on_the_way = hold
        await there.add("first")
        async with asyncio.timeout(PATIENCE):
            await read.wait()
        tidied.set()
        assert (await turn.result()).output_text == "One."
        store.on_the_way = None
        go_on.set()
        await until(lambda: not log._engine._errands)  # pyright: ignore[reportPrivateUsage]
        await there.add("second")
        async with asyncio.timeout(PATIENCE):
            await chat.add("third")
        assert [item.text for item in await chat.items(last=3)] == ["first", "second", "third"]
