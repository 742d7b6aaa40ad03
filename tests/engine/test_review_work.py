"""What a second look at workers found: one conversation never holds up the others."""

from __future__ import annotations

import asyncio

import turnlog
from turnlog.errors import StoreCorrupt
from turnlog.ports import Head
from turnlog.store import MemoryStore
from turnlog.testing import call, scripted, text
from turnlog.working import WorkReport

from .given import PATIENCE, agent, opened, pay, recorded

STUCK = text("One.").but(stall_after=3)


class Torn(MemoryStore):
    """A store in which what is kept of one conversation cannot be read."""

    async def head(self, conversation: str) -> Head | None:
        if conversation == "a":
            raise StoreCorrupt("the head of conversation 'a' cannot be read: verify it")
        return await super().head(conversation)


async def left(*conversations: str) -> MemoryStore:
    """A store whose owner died in a turn of each of these."""
    store = MemoryStore()
    async with opened(scripted([STUCK] * len(conversations)), agent(), store=store) as log:
        for id in conversations:
            chat = await log.conversation(id, agent="test")
            await chat.send("1")
            await recorded(chat, "response.started")
        store.abandon()
    return store


async def test_what_cannot_be_read_does_not_keep_others_from_being_recovered() -> None:
    store = await left("a", "b", "c")
    async with opened([], agent(), store=Torn(shelf=store.shelf)) as log:
        found = await log.recover()
        told = {one.conversation: one for one in found if one.action.startswith("left it")}
        assert "cannot be read" in told["a"].reason
        assert {one.conversation for one in found if not one.settled} == {"a"}
        for id in ("b", "c"):
            assert (await (await log.get(id)).state()).paused == "crashed"


async def working(log: turnlog.Log, done: asyncio.Event) -> WorkReport:
    """Let a worker work until something is done."""
    stop = asyncio.Event()
    worker = asyncio.create_task(log.work(stop=stop, poll=0.01))
    async with asyncio.timeout(PATIENCE):
        await done.wait()
    stop.set()
    return await worker


async def ended(log: turnlog.Log, conversation: str, done: asyncio.Event) -> None:
    """Say when the turn of a conversation is over."""
    await recorded(await log.get(conversation), "turn.ended")
    done.set()


async def test_what_cannot_be_read_does_not_keep_a_worker_from_the_others() -> None:
    store = await left("a", "b", "c")
    async with opened([], agent(), store=store.beside()) as log:
        await log.recover()
    async with opened([text("One.")] * 2, agent(), store=Torn(shelf=store.shelf)) as log:
        done = asyncio.Event()
        watching = asyncio.create_task(ended(log, "c", done))
        report = await working(log, done)
        await watching
        assert report.stopped


async def test_what_is_left_for_the_next_time_does_not_count_as_recovered() -> None:
    store = await left("a", "b")
    async with opened([text("One.")], agent(), store=Torn(shelf=store.shelf)) as log:
        await log.recover()
        done = asyncio.Event()
        watching = asyncio.create_task(ended(log, "b", done))
        report = await working(log, done)
        await watching
        assert report.recovered == 0


async def test_a_worker_leaves_a_queued_turn_of_an_agent_that_is_not_registered_here() -> None:
    store, other = MemoryStore(), turnlog.Agent("other", model="gpt-5", tools=[pay])
    asks = call("pay", amount=3)
    async with opened([asks, asks], agent(pay), other, store=store) as log:
        waiting: list[turnlog.Turn[str]] = []
        for id, bound in (("a", "other"), ("b", "test")):
            waiting.append(await (await log.conversation(id, agent="test")).send("1"))
            await (await log.conversation(id, agent=bound)).send("2", if_busy="queue")
            await waiting[-1].result()
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        for first in waiting:
            await first.cancel()
    async with opened([text("B.")], agent(pay), store=store.beside()) as log:
        done = asyncio.Event()
        watching = asyncio.create_task(completed(log, "b", done))
        await working(log, done)
        await watching
        assert (await (await log.get("a")).state()).status == "queued"


async def completed(log: turnlog.Log, conversation: str, done: asyncio.Event) -> None:
    """Say when the last turn of a conversation has had its answer."""
    chat = await log.get(conversation)
    async with asyncio.timeout(PATIENCE):
        while (await chat.state()).status != "idle":
            await asyncio.sleep(0.01)
    done.set()
