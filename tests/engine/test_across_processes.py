"""A turn that another process runs: watched, waited for, stopped, and answered from here.

Two logs beside one store are two owners, as two processes on one file are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.errors import StoreUnavailable, Waiting
from turnlog.runner import Runner
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, calls, scripted, text

from .given import add, agent, all_of, collect, opened, pay, recorded, tags, texts

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."
STUCK = text(LONG).but(stall_after=6)
SLOW = text(LONG).but(delay=0.01)


@asynccontextmanager
async def two(
    here: Sequence[Reply], there: Sequence[Reply] = (), chosen: turnlog.Agent | None = None
) -> AsyncGenerator[tuple[Conversation, Conversation]]:
    """One conversation in two processes; the first one is to run the turns."""
    store = MemoryStore()
    bound = chosen or agent()
    async with (
        opened(here, bound, store=store) as log,
        opened(there, bound, store=store.beside()) as other,
    ):
        mine = await log.conversation("c", agent=bound)
        yield mine, await other.conversation("c", agent=bound)
        for each in (log, other):
            assert (await each.verify()).ok


async def test_a_watcher_elsewhere_sees_all_that_was_said_to_the_end() -> None:
    async with two([calls(call("add", a=1, b=2), call("add", a=3, b=4)), SLOW]) as (chat, there):
        turn = await chat.send("Go.")
        attached = asyncio.create_task(collect(there.attach()))
        watched = asyncio.create_task(collect(aiter(await there.turn(turn.id))))
        here = await collect(aiter(turn))
        for updates in (await attached, await watched):
            assert texts(updates) == texts(here) == LONG
            kinds = [update.type for update in updates if update.type != "text.delta"]
            assert kinds == [update.type for update in here if update.type != "text.delta"]


async def test_text_is_seen_elsewhere_before_the_response_is_over() -> None:
    async with two([STUCK]) as (chat, there):
        turn = await chat.send("Go.")
        async for update in there.attach():
            if update.type == "text.delta":
                break
        await turn.cancel()


async def test_the_result_can_be_waited_for_anywhere() -> None:
    async with two([SLOW]) as (chat, there):
        turn = await chat.send("Go.")
        result = await (await there.turn(turn.id)).result()
        assert (result.status, result.output_text) == ("completed", LONG)


async def test_it_is_cancelled_where_it_runs_and_that_is_waited_for() -> None:
    stopped = asyncio.Event()

    async def slow() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    chosen = agent(turnlog.tool(slow))
    async with two([call("slow"), text("Fine.")], [text("Fine.")], chosen) as (chat, there):
        turn = await chat.send("Go.")
        await recorded(chat, "call.started")
        await (await there.turn(turn.id)).cancel(reason="enough", by="ana")
        assert stopped.is_set()
        result = await turn.result()
        assert (result.status, result.reason) == ("cancelled", "enough")
        asked = next(one for one in await chat.events() if one.tag == "turn.cancel_requested")
        assert asked.actor == "ana"
        assert (await there.run("Again.")).output_text == "Fine."


async def test_after_the_request_its_calls_are_not_run() -> None:
    ran: list[int] = []

    def tool() -> str:
        ran.append(1)
        return "ran"

    asks = call("tool").but(delay=0.05)
    async with two([asks], [], agent(turnlog.tool(tool))) as (chat, there):
        turn = await chat.send("Go.")
        await (await there.turn(turn.id)).cancel(mode="after_request")
        assert ((await turn.result()).status, ran) == ("cancelled", [])


async def test_a_send_elsewhere_interrupts_or_is_queued_where_the_turn_runs() -> None:
    async with two([STUCK, text("Two.")], [text("Three.")]) as (chat, there):
        first = await chat.send("1")
        second = await there.send("2", if_busy="queue")
        await (await there.turn(first.id)).cancel()
        assert (await second.result()).output_text == "Two."
    async with two([STUCK, text("Never.")], [text("Three.")]) as (chat, there):
        first = await chat.send("1")
        assert (await there.run("3", if_busy="interrupt")).output_text == "Three."
        assert (await first.result()).status == "cancelled"


async def test_an_interrupt_elsewhere_goes_before_what_was_queued() -> None:
    async with two([STUCK, text("Next."), text("Next.")], [text("Next.")] * 2) as (chat, there):
        first = await chat.send("1")
        second = await there.send("2", if_busy="queue")
        third = await there.send("3", if_busy="interrupt")
        for turn in (third, second):
            assert (await turn.result()).output_text == "Next."
        rows = [row.turn for row in await chat.turns()]
        assert rows == [first.id, third.id, second.id]


async def test_what_others_write_is_seen_by_who_watches_here() -> None:
    go = asyncio.Event()

    async def wait() -> str:
        await go.wait()
        return "ok"

    asks = calls(call("wait"), call("pay", amount=3))
    async with two([asks, text("Done.")], [], agent(wait, pay)) as (chat, there):
        turn = await chat.send("Go.")
        await recorded(chat, "call.started")
        seen: list[str] = []
        async for update in turn:
            seen.append(update.type)
            if update.type == "call.started" and not go.is_set():
                (waits,) = [one for one in (await there.state()).pending if one.name == "pay"]
                await waits.approve(by="ana")
            if update.type == "call.approved":
                go.set()
        assert seen.index("call.approved") < seen.index("call.answered")
        assert (await turn.result()).output_text == "Done."


async def test_whoever_waits_elsewhere_is_told_where_the_process_dies() -> None:
    store = MemoryStore()
    async with opened(scripted([STUCK]), agent(), store=store) as log:
        turn = await (await log.conversation("c", agent="test")).send("Go.")
        beside = store.beside()
        async with opened([text("Fine.")], agent(), store=beside) as other:
            there = await other.get("c")
            handle = await there.turn(turn.id)
            waiting = asyncio.create_task(handle.result())
            watching = asyncio.create_task(collect(there.attach()))
            await recorded(there, "response.started")
            store.abandon()
            with pytest.raises(Waiting, match="no process"):
                await waiting
            assert texts(await watching) == ""
            await handle.cancel()
            assert (await handle.result()).status == "cancelled"


async def test_whoever_cancels_settles_where_the_process_dies_over_it() -> None:
    store = MemoryStore()
    async with opened(scripted([STUCK]), agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "response.started")
        deaf(log)
        async with opened([], agent(), store=store.beside()) as other:
            handle = await (await other.get("c")).turn(turn.id)
            cancelling = asyncio.create_task(handle.cancel())
            await recorded(await other.get("c"), "turn.cancel_requested")
            store.abandon()
            await cancelling
            assert (await handle.result()).status == "cancelled"


def deaf(log: turnlog.Log) -> None:
    """Let a process hear nothing of the others."""
    engine = log._engine  # pyright: ignore[reportPrivateUsage]
    runner = engine.live["c"]
    assert isinstance(runner, Runner)
    engine.news.forget("c", runner._look)  # pyright: ignore[reportPrivateUsage]


async def test_an_owner_that_was_taken_for_dead_writes_nothing_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is stopped for so long that another one takes over, and wakes (law 11)."""
    store, done = MemoryStore(), asyncio.Event()

    async def slow() -> str:
        await done.wait()
        return "late"

    chosen = agent(turnlog.tool(slow, on_crash="give_up"))
    async with opened([call("slow")], chosen, store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "call.started")
        deaf(log)
        store.shelf.alive.discard(store.owner)
        async with opened([text("Fine.")], chosen, store=store.beside()) as other:
            await other.recover()
            there = await (await other.get("c")).turn(turn.id)
            await there.resume()
            assert (await there.result()).output_text == "Fine."
            before = await tags(chat)
            with caplog.at_level(logging.WARNING):
                done.set()
                assert (await turn.result()).output_text == "Fine."
            assert "taken over by another owner" in caplog.text
            assert await tags(chat) == before
            assert [one.failed for one in await all_of(chat, ev.CallAnswered)] == [True]


async def test_an_owner_hears_that_its_turn_was_taken_over() -> None:
    store = MemoryStore()
    async with opened([STUCK], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "response.started")
        store.shelf.alive.discard(store.owner)
        async with opened([text("Fine.")], agent(), store=store.beside()) as other:
            there = await (await other.get("c")).turn(turn.id)
            await there.resume()
            assert (await there.result()).output_text == "Fine."
            assert (await turn.result()).output_text == "Fine."


async def test_news_that_cannot_be_read_is_looked_for_again() -> None:
    class Ill(MemoryStore):
        ill = 2

        async def changed(self, seconds: float, *, others: bool = False) -> None:
            self.ill -= 1
            if self.ill > 0:
                raise StoreUnavailable("not now")
            await super().changed(seconds, others=others)

    store = Ill()
    async with opened([STUCK], agent(), store=store) as log:
        turn = await (await log.conversation("c", agent="test")).send("Go.")
        async with opened([], agent(), store=store.beside()) as other:
            await (await (await other.get("c")).turn(turn.id)).cancel()
        assert (await turn.result()).status == "cancelled"


async def test_two_owners_of_one_file(tmp_path: object) -> None:
    path = f"{tmp_path}/a.db"
    async with (
        opened([STUCK, text("Two.")], agent(add), path=path) as log,
        opened([], agent(add), path=path) as other,
    ):
        chat, there = (
            await log.conversation("c", agent="test"),
            await other.conversation("c", agent="test"),
        )
        first = await chat.send("1")
        second = await there.send("2", if_busy="queue")
        async for update in there.attach():
            if update.type == "text.delta":
                break
        await (await there.turn(first.id)).cancel()
        assert (await second.result()).output_text == "Two."
        assert [said_ for said_ in await tags(chat) if said_ == "turn.cancel_requested"]


async def test_two_processes_send_the_same_key_after_a_crash_and_both_get_the_answer() -> None:
    """One of them settles what the dead owner left, and goes on; the other waits for it."""
    for steps in range(12):
        store = MemoryStore()
        async with opened(scripted([STUCK]), agent(), store=store) as log:
            chat = await log.conversation("c", agent="test")
            await chat.send("Go.", idempotency_key="k")
            await recorded(chat, "response.started")
            store.abandon()
        async with (
            opened([SLOW], agent(), store=store.beside()) as one,
            opened([SLOW], agent(), store=store.beside()) as other,
        ):
            first = asyncio.create_task((await one.get("c")).run("Go.", idempotency_key="k"))
            for _ in range(steps):
                await asyncio.sleep(0)
            second = await (await other.get("c")).run("Go.", idempotency_key="k")
            assert [second.status, (await first).status] == ["completed"] * 2
            chat = await one.get("c")
            assert len(await all_of(chat, ev.TurnResumed)) == 1
            assert (await chat.state()).turns == 1
