"""What a second look at races found: each at the moment where it happened, held open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from turnlog.limits import Limits
from turnlog.ports import Head
from turnlog.store import MemoryStore
from turnlog.testing import call, text

from .given import PATIENCE, agent, opened, pay, recorded, talking, until


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


async def test_room_that_comes_while_it_is_asked_for_is_not_missed() -> None:
    store = Slow()
    async with talking([call("pay", amount=3), text("Two.")], agent(pay), store=store) as (chat, _):
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]
        engine.limits = Limits(open_turns=1)
        first = await chat.send("1")
        await chat.send("2", if_busy="queue")
        assert (await first.result()).status == "waiting"
        loop = asyncio.get_running_loop()

        async def leave() -> None:
            lock = engine._locks.get("c")  # pyright: ignore[reportPrivateUsage]
            if "another" in engine.starting and lock is not None and lock.locked():
                loop.call_soon(engine.starting.discard, "another")

        await first.cancel()
        engine.starting.add("another")
        store.on_the_way = leave
        async with asyncio.timeout(PATIENCE):
            while "Two." not in [item.text for item in await chat.items()]:
                await asyncio.sleep(0)
        assert not engine.postponed
