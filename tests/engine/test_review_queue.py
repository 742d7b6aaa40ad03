"""What a second look at queues found: order, watchers, and turns that nobody else begins."""

from __future__ import annotations

import asyncio

import pytest

import turnlog
from turnlog import events as ev
from turnlog.draft import Draft
from turnlog.errors import Busy, TurnFailed
from turnlog.exchange import export
from turnlog.limits import Limits
from turnlog.ports import Append, Appended
from turnlog.record import NewEvent
from turnlog.store import MemoryStore
from turnlog.testing import call, scripted, text
from turnlog.updates import TurnDone

from .given import PATIENCE, agent, collect, opened, pay, recorded, said, talking, texts

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."
STUCK = text(LONG).but(stall_after=6)
SLOW = text(LONG).but(delay=0.01)


async def test_what_is_queued_begins_when_the_waiting_turn_before_it_is_cancelled() -> None:
    async with talking([call("pay", amount=3), text("Two.")], agent(pay)) as (chat, _):
        first = await chat.send("Pay.")
        await chat.send("2", if_busy="queue")
        assert (await first.result()).status == "waiting"
        await first.cancel()
        async with asyncio.timeout(PATIENCE):
            while "Two." not in [item.text for item in await chat.items()]:
                await asyncio.sleep(0)


async def test_what_is_queued_goes_before_an_input_that_abandons_the_turn_that_waits() -> None:
    script = [call("pay", amount=3), text("Two."), text("Three.")]
    async with talking(script, agent(pay)) as (chat, way):
        first = await chat.send("Pay.")
        second = await chat.send("2", if_busy="queue")
        assert (await first.result()).status == "waiting"
        with pytest.raises(Busy) as caught:
            await chat.send("3", pending="abandon")
        assert caught.value.turn == second.id
        third = await chat.send("3", pending="abandon", if_busy="queue")
        assert (await third.result()).output_text == "Three."
        assert (await first.result()).status == "cancelled"
        assert [said(body)[-1] for body in way.requests] == ["Pay.", "2", "3"]


async def test_a_request_of_a_callers_own_loop_is_never_queued_nor_are_its_tools_run() -> None:
    ran: list[int] = []

    def tool() -> str:
        ran.append(1)
        return "ran"

    script = [STUCK, call("tool"), text("Two.")]
    async with talking(script, agent(turnlog.tool(tool))) as (chat, _):
        first = await chat.send("1")
        second = await chat.send("2", if_busy="queue")
        with pytest.raises(Busy):
            await chat.request("Mine.", if_busy="interrupt")
        assert (await chat.state()).queued == (second.id,)
        await second.cancel()
        result = await chat.request("Mine.", if_busy="interrupt")
        assert (result.status, ran) == ("waiting", [])
        assert (await first.result()).status == "cancelled"


async def test_a_watcher_of_a_turn_behind_one_that_waits_is_told_nothing_and_let_go() -> None:
    script = [text("Zero."), call("pay", amount=3), text("Two.")]
    async with talking(script, agent(pay)) as (chat, _):
        await chat.run("0")
        first = await chat.send("Pay.")
        second = await chat.send("2", if_busy="queue")
        assert (await first.result()).status == "waiting"
        assert await collect(aiter(second)) == []
        await second.cancel()


async def test_whoever_reloads_behind_a_turn_that_left_the_queue_sees_no_text_twice() -> None:
    async with talking([SLOW]) as (chat, _):
        first = await chat.send("1")
        for _ in range(8):
            await (await chat.send("0", if_busy="queue")).cancel()
        second = await chat.send("2", if_busy="queue")
        seen, cursor = "", None
        async for update in first.updates():
            seen += texts([update])
            if update.type == "text.delta" and not (await chat.state()).queued:
                cursor = update.cursor
                break
            if update.type == "text.delta":
                await second.cancel()
        seen += texts(await collect(chat.attach(after=cursor)))
        assert seen == LONG


async def test_a_watcher_of_a_turn_hears_nothing_of_another_ones_end() -> None:
    async with talking([SLOW]) as (chat, _):
        first = await chat.send("1")
        watching = asyncio.create_task(collect(aiter(first)))
        second = await chat.send("2", if_busy="queue")
        await second.cancel()
        updates = await watching
        done = [update.turn for update in updates if isinstance(update, TurnDone)]
        assert done == [first.id]


async def test_what_a_failed_attempt_showed_is_retracted_though_a_turn_left_the_queue() -> None:
    cut = text(LONG).but(cut_after=6)
    async with talking([cut, text("Two.")]) as (chat, _):
        first = await chat.send("1")
        second = await chat.send("2", if_busy="queue")
        await recorded(chat, "response.interrupted")
        await second.cancel()
        updates = await collect(aiter(first))
        kinds = [update.type for update in updates]
        assert "retracted" in kinds


class Crowded(MemoryStore):
    """A store that lets another turn take the place of one that has just ended."""

    crowd: set[str] | None = None

    async def append(self, append: Append) -> Appended:
        done = await super().append(append)
        if self.crowd is not None and any(isinstance(e.event, ev.TurnEnded) for e in append.events):
            self.crowd.add("elsewhere")
        return done


async def test_what_is_queued_begins_when_there_is_room_again() -> None:
    store = Crowded()
    way = scripted([SLOW, text("Two.")])
    async with turnlog.open(
        "", agents=[agent()], transport=way, limits=Limits(open_turns=1), store=store
    ) as log:
        engine = log._engine  # pyright: ignore[reportPrivateUsage]
        store.crowd = engine.starting
        one = await log.conversation("a", agent="test")
        await one.send("1")
        second = await one.send("2", if_busy="queue")
        async with asyncio.timeout(PATIENCE):
            while not engine.postponed:
                await asyncio.sleep(0)
        assert (await one.state()).queued == (second.id,)
        store.crowd = None
        engine.starting.clear()
        engine.make_room()
        assert (await second.result()).output_text == "Two."


async def test_a_queued_turn_with_the_key_of_another_one_fails_and_holds_up_nobody() -> None:
    message = {"type": "message", "role": "user", "content": "Twice."}
    queued = ev.TurnQueued(key="k", digest="d", items=(message,))

    async def act(draft: Draft) -> None:
        draft.take([NewEvent(event=queued, turn="turn_twice")])

    async with talking([text("One.")]) as (chat, _):
        await chat.run("1", idempotency_key="k")
        await chat._engine.commit("c", act)  # pyright: ignore[reportPrivateUsage]
        lines = [line async for line in export(chat._engine.store, "c")]  # pyright: ignore[reportPrivateUsage]
    async with opened([text("Two.")], agent()) as log:
        await log.import_(lines)
        chat = await log.get("c")
        third = await chat.send("3", if_busy="queue")
        async with asyncio.timeout(PATIENCE):
            assert (await third.result()).output_text == "Two."
            with pytest.raises(TurnFailed, match="is that of turn"):
                await (await chat.turn("turn_twice")).result()
