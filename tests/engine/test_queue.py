"""Turns that are queued behind the one that runs: in order, once, and after a crash too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.errors import Busy, IdempotencyMismatch, InvalidInput, TurnFailed, Waiting
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, scripted, text

from .given import add, agent, all_of, collect, opened, pay, recorded, said, talking, texts

SLOW = text("One.").but(delay=0.02)
STUCK = text("One.").but(stall_after=3)


async def order(chat: Conversation) -> list[str]:
    """What stands in the context, in order."""
    return [item.text for item in await chat.items()]


async def test_queued_turns_run_in_order_when_the_one_before_is_over() -> None:
    script = [SLOW, text("Two."), text("Three.")]
    async with talking(script) as (chat, way):
        first = await chat.send("1", if_busy="queue")
        second = await chat.send("2", by="ana", if_busy="queue")
        third = await chat.send("3", if_busy="queue")
        assert (await chat.state()).queued == (second.id, third.id)
        assert [(await turn.result()).output_text for turn in (third, second, first)] == [
            "Three.",
            "Two.",
            "One.",
        ]
        assert await order(chat) == ["1", "One.", "2", "Two.", "3", "Three."]
        assert [row.turn for row in await chat.turns()] == [first.id, second.id, third.id]
        assert [said(body) for body in way.requests] == [["1"], ["2"], ["3"]]
        started = [one for one in await chat.events() if one.tag == "turn.started"]
        assert [one.actor for one in started] == ["user", "ana", "user"]


async def test_a_watcher_of_a_queued_turn_sees_it_from_its_start() -> None:
    async with talking([SLOW, text("Two.")]) as (chat, _):
        await chat.send("1")
        second = await chat.send("2", if_busy="queue")
        updates = await collect(aiter(second))
        assert texts(updates).endswith("Two.")
        assert updates[-1].type == "turn.done"


async def test_whoever_attaches_sees_the_queue_to_its_end() -> None:
    async with talking([SLOW, text("Two.")]) as (chat, _):
        await chat.send("1")
        await chat.send("2", if_busy="queue")
        assert texts(await collect(chat.attach())) == "One.Two."


async def test_the_same_key_finds_the_queued_turn() -> None:
    async with talking([SLOW, text("Two.")]) as (chat, way):
        await chat.send("1")
        second = await chat.send("2", idempotency_key="k", if_busy="queue")
        again = await chat.send("2", idempotency_key="k")
        assert again.id == second.id
        with pytest.raises(IdempotencyMismatch):
            await chat.send("3", idempotency_key="k", if_busy="queue")
        assert (await again.result()).output_text == "Two."
        assert (await chat.send("2", idempotency_key="k", if_busy="queue")).id == second.id
        assert len(way.requests) == 2


async def test_a_queued_turn_can_be_cancelled_and_never_begins() -> None:
    async with talking([SLOW, text("Three.")]) as (chat, way):
        await chat.send("1")
        second = await chat.send("2", idempotency_key="k", if_busy="queue")
        third = await chat.send("3", if_busy="queue")
        await second.cancel(reason="never mind", by="ana")
        result = await second.result()
        assert (result.status, result.reason) == ("cancelled", "never mind")
        assert (await third.result()).output_text == "Three."
        await second.cancel()
        assert (await chat.send("2", idempotency_key="k")).id == second.id
        assert [said(body) for body in way.requests] == [["1"], ["3"]]
        assert await order(chat) == ["1", "One.", "3", "Three."]
        rows = {row.turn: row.outcome for row in await chat.turns()}
        assert rows[second.id] == "cancelled"


async def test_what_is_queued_goes_before_what_comes_later_unless_that_interrupts() -> None:
    never = STUCK
    async with talking([never, text("Now."), text("Two.")]) as (chat, _):
        first = await chat.send("1")
        second = await chat.send("2", if_busy="queue")
        with pytest.raises(Busy):
            await chat.send("3")
        now = await chat.run("now", if_busy="interrupt")
        assert now.output_text == "Now."
        assert (await first.result()).status == "cancelled"
        assert (await second.result()).output_text == "Two."


async def test_a_turn_behind_one_that_waits_says_so_and_runs_when_that_is_over() -> None:
    async with talking([call("pay", amount=3), text("Paid."), text("Two.")], agent(pay)) as (
        chat,
        _,
    ):
        first = await chat.send("Pay.")
        second = await chat.send("2", if_busy="queue")
        assert (await first.result()).status == "waiting"
        with pytest.raises(Waiting, match="approval") as caught:
            await second.result()
        assert caught.value.turn == first.id
        with pytest.raises(Waiting):
            await chat.send("3", if_busy="queue")
        (pending,) = (await chat.state()).pending
        await pending.approve()
        assert (await (await first.resume()).result()).output_text == "Paid."
        assert (await second.result()).output_text == "Two."


async def test_a_queued_input_that_cannot_be_sent_any_more_fails_alone() -> None:
    message = {"id": "msg_9", "type": "message", "role": "user", "content": "Twice."}
    script = [SLOW, text("Two."), text("Four.")]
    async with talking(script) as (chat, way):
        await chat.send("1")
        second = await chat.send(message, if_busy="queue")
        third = await chat.send(message, if_busy="queue")
        fourth = await chat.send("4", if_busy="queue")
        assert (await second.result()).output_text == "Two."
        with pytest.raises(TurnFailed, match="in the context already"):
            await third.result()
        assert (await fourth.result()).output_text == "Four."
        assert len(way.requests) == 3


async def test_a_queued_turn_has_the_agent_that_it_was_given() -> None:
    async with talking([SLOW, text("Two.")]) as (chat, way):
        await chat.send("1", max_output_tokens=5)
        other = Conversation("c", chat._engine, chat._agent, {"instructions": "Be brief."})  # pyright: ignore[reportPrivateUsage]
        second = await other.send("2", max_output_tokens=7, if_busy="queue")
        await second.result()
        assert [body.get("instructions") for body in way.requests] == [None, "Be brief."]
        assert [body["max_output_tokens"] for body in way.requests] == [5, 7]


async def test_an_item_that_cannot_be_is_not_queued() -> None:
    async with talking([SLOW]) as (chat, _):
        first = await chat.send("1")
        with pytest.raises(InvalidInput):
            await chat.send({"no": "type"}, if_busy="queue")
        assert (await chat.state()).queued == ()
        await first.result()


async def test_a_request_of_a_callers_own_loop_cannot_be_queued() -> None:
    async with talking([]) as (chat, _):
        with pytest.raises(InvalidInput, match="cannot be queued"):
            await chat.request("Hi.", if_busy="queue")


async def test_who_leaves_takes_its_turn_out_of_the_queue() -> None:
    async with talking([SLOW, text("Three.")]) as (chat, way):
        await chat.send("1")
        waiting = asyncio.create_task(chat.run("2", if_busy="queue"))
        await recorded(chat, "turn.queued")
        third = await chat.send("3", if_busy="queue")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await third.result()).output_text == "Three."
        assert sorted(str(row.outcome) for row in await chat.turns()) == [
            "cancelled",
            "completed",
            "completed",
        ]
        assert [said(body) for body in way.requests] == [["1"], ["3"]]


# -- after a crash ---------------------------------------------------------------------------


async def crashed(script: Sequence[Reply]) -> tuple[MemoryStore, str, str]:
    """A store whose owner died in a turn with another one behind it: the ids of both."""
    store = MemoryStore()
    async with opened(scripted(script), agent(add), store=store) as log:
        chat = await log.conversation("c", agent="test")
        first = await chat.send("1")
        second = await chat.send("2", idempotency_key="k", if_busy="queue")
        await recorded(chat, "response.started")
        store.abandon()
    return store.beside(), first.id, second.id


async def test_what_was_queued_when_the_process_died_runs_behind_its_turn() -> None:
    store, one, two = await crashed([STUCK])
    async with opened([text("One."), text("Two.")], agent(add), store=store) as log:
        chat = await log.get("c")
        first, second = await chat.turn(one), await chat.turn(two)
        with pytest.raises(Waiting, match="its process is gone"):
            await second.result()
        await log.recover()
        assert (await chat.state()).paused == "crashed"
        assert (await (await first.resume()).result()).output_text == "One."
        assert (await second.result()).output_text == "Two."
        assert (await log.verify()).ok


async def test_what_was_left_in_the_queue_goes_before_the_next_input() -> None:
    store, one, two = await crashed([STUCK])
    async with opened([], agent(add), store=store) as log:
        await log.recover()
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        await (await (await log.get("c")).turn(one)).cancel()
        assert [row.id for row in await log.conversations(status="queued")] == ["c"]
    async with opened([text("Two.")], agent(add), store=store.beside()) as log:
        chat = await log.get("c")
        assert (await chat.state()).status == "queued"
        with pytest.raises(Busy) as caught:
            await chat.send("3")
        assert caught.value.turn == two
        assert (await (await chat.turn(two)).result()).output_text == "Two."


async def test_the_same_key_begins_what_was_left_in_the_queue() -> None:
    store, one, two = await crashed([STUCK])
    async with opened([], agent(add), store=store) as log:
        await log.recover()
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        await (await (await log.get("c")).turn(one)).cancel()
    async with opened([text("Two.")], agent(add), store=store.beside()) as log:
        chat = await log.conversation("c", agent="test")
        result = await chat.run("2", idempotency_key="k")
        assert (result.turn, result.output_text) == (two, "Two.")
        (queued,) = await all_of(chat, ev.TurnQueued)
        assert queued.key == "k"


async def test_two_processes_begin_what_is_queued_once() -> None:
    store, one, two = await crashed([STUCK])
    async with opened([], agent(add), store=store) as log:
        await log.recover()
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        await (await (await log.get("c")).turn(one)).cancel()
    third, fourth = store.beside(), store.beside()
    async with (
        opened([text("Two.")], agent(add), store=third) as log,
        opened([text("Two.")], agent(add), store=fourth) as other,
    ):
        handles = [await (await each.get("c")).turn(two) for each in (log, other)]
        results = await asyncio.gather(*(handle.result() for handle in handles))
        assert [result.output_text for result in results] == ["Two.", "Two."]
        assert len(await all_of(await log.get("c"), ev.TurnStarted)) == 2
