"""Watchers that are slow: they hold up their own turn within a bound, and lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

import turnlog
from turnlog.conversation import Conversation
from turnlog.testing import Reply, call, reply, text
from turnlog.updates import Delta, TurnDone, Update
from turnlog.watchers import BOUND, HOLD_SECONDS, Watchers

from ..transports.clock import advance, on_clock, settle
from .given import add, agent, collect, opened, recorded, tags, texts

WORDS = "".join(chr(97 + number % 26) for number in range(3 * BOUND))


def long(said: str = WORDS) -> Reply:
    """An answer of as many deltas as it has letters."""
    return Reply(items=text(said).items, chunk=1)


@asynccontextmanager
async def chatting(*script: Reply) -> AsyncGenerator[Conversation]:
    async with opened(list(script), agent(add)) as log:
        yield await log.conversation("c", agent="test")
        assert (await log.verify()).ok


def delta(letter: str) -> Delta:
    return Delta(cursor=turnlog.Cursor(1), type="text.delta", delta=letter, part="p", item=None)


# -- one watch -----------------------------------------------------------------------------


async def test_a_stream_waits_for_room_and_goes_on_when_there_is_some() -> None:
    watchers = Watchers()
    watch = watchers.add()
    watchers.tell([delta("x")] * BOUND)
    assert watchers.full
    waiting = asyncio.create_task(watchers.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await watch.take() == delta("x")
    await waiting
    assert not watch.behind


@on_clock
async def test_who_is_too_slow_is_left_behind_once_and_holds_up_nobody_any_more() -> None:
    watchers = Watchers()
    slow, quick = watchers.add(), watchers.add()
    watchers.tell([delta("x")] * BOUND)
    waiting = asyncio.create_task(watchers.room())
    for _ in range(BOUND):
        await quick.take()
    await advance(HOLD_SECONDS / 2)
    assert not waiting.done()
    await advance(HOLD_SECONDS)
    await waiting
    assert (slow.behind, quick.behind) == (True, False)
    watchers.tell([delta("y")] * BOUND * 2)
    assert await slow.take() == "behind"
    assert not slow.waiting
    slow.rejoin()
    watchers.tell([delta("z")])
    assert await slow.take() == delta("z")
    watchers.end()
    assert await slow.take() == "over"


async def test_facts_never_wait_and_are_bounded_too() -> None:
    watchers = Watchers()
    watch = watchers.add()
    watchers.tell([delta("x")] * (2 * BOUND))
    assert not watch.behind
    watchers.tell([delta("x")])
    assert (watch.behind, len(watch.waiting)) == (True, 0)


async def test_there_is_no_room_as_long_as_more_waits_than_the_bound() -> None:
    watchers = Watchers()
    watch = watchers.add()
    watchers.tell([delta("x")] * (BOUND + 1))
    waiting = asyncio.create_task(watchers.room())
    for waits in (True, False):
        await asyncio.sleep(0)
        assert watch.now() == delta("x")
        assert watch.full == waits
        await asyncio.sleep(0)
        assert waiting.done() != waits
    assert watchers.show(delta("y"))
    assert watch.now() == delta("x")
    assert not Watchers().show(delta("y"))
    await waiting


async def test_who_watches_no_longer_holds_up_nobody() -> None:
    watchers = Watchers()
    watch = watchers.add()
    watchers.tell([delta("x")] * BOUND)
    waiting = asyncio.create_task(watchers.room())
    await asyncio.sleep(0)
    watchers.remove(watch)
    await waiting
    assert not watchers.full


# -- whole turns ---------------------------------------------------------------------------


@on_clock
async def test_a_watcher_that_stops_looking_stops_the_stream_for_a_bounded_time() -> None:
    async with chatting(long()) as chat:
        turn = await chat.send("Go.")
        updates = aiter(turn)
        seen: list[Update] = [await anext(updates)]
        await settle(5 * BOUND)  # until the stream waits
        await advance(HOLD_SECONDS / 2)
        assert "turn.ended" not in await tags(chat)  # it is held up, for its watcher
        await advance(HOLD_SECONDS)
        assert (await turn.result()).output_text == WORDS  # and not for ever
        seen += [update async for update in updates]
        assert texts(seen) == WORDS
        assert isinstance(seen[-1], TurnDone)


@on_clock
async def test_a_slow_watcher_sees_all_of_a_turn_with_tools_and_in_order() -> None:
    async with chatting(call("add", a=1, b=2), long(), text("Next.")) as chat:
        turn = await chat.send("Go.")
        updates = aiter(turn)
        seen: list[Update] = []
        async for update in updates:
            seen.append(update)
            if len(seen) in (1, 5, 300):
                await settle(5 * BOUND)  # until the stream waits
                await advance(HOLD_SECONDS * 2)
        facts = [update.type for update in seen if not isinstance(update, Delta)]
        assert texts(seen) == WORDS
        assert len(facts) == len(set(facts) - {"item"}) + facts.count("item")
        assert facts[-1] == "turn.done"
        assert (await chat.run("And?")).output_text == "Next."


@on_clock
async def test_who_was_left_behind_goes_on_live_when_it_has_caught_up() -> None:
    caught_up = asyncio.Event()

    async def gate() -> str:
        """Wait for whoever watches."""
        await caught_up.wait()
        return "open"

    first = reply(text(WORDS), call("gate"))
    script = [Reply(items=first.items, chunk=1), text("Live.")]
    async with opened(script, agent(gate)) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        seen: list[Update] = []
        async for update in turn:
            seen.append(update)
            if len(seen) == 1:
                await settle(5 * BOUND)  # until the stream waits
                await advance(HOLD_SECONDS * 2)
            if update.type == "call.started":
                # The log is read to its end by then, and what follows comes live.
                asyncio.get_running_loop().call_later(0.1, caught_up.set)
        assert texts(seen) == f"{WORDS}Live."


@on_clock
async def test_other_conversations_are_not_held_up() -> None:
    async with opened([long(), text("Mine.")], agent(add)) as log:
        slow = await log.conversation("slow", agent="test")
        turn = await slow.send("Go.")
        updates = aiter(turn)
        await anext(updates)
        await advance(0)
        other = await log.conversation("other", agent="test")
        assert (await other.run("Go.")).output_text == "Mine."
        assert "turn.ended" not in await tags(slow)


async def test_watchers_of_one_turn_see_the_same() -> None:
    async with chatting(long()) as chat:
        turn = await chat.send("Go.")
        found: Sequence[Sequence[Update]] = await asyncio.gather(
            *(collect(aiter(turn)) for _ in range(3))
        )
        assert [texts(updates) for updates in found] == [WORDS] * 3


@pytest.mark.parametrize("late", [False, True])
async def test_a_watcher_that_leaves_lets_the_stream_go_on(late: bool) -> None:
    async with chatting(long()) as chat:
        turn = await chat.send("Go.")
        async with aclosing(chat.attach()) as updates:
            await anext(updates)
            if late:
                await recorded(chat, "response.started")
        assert (await turn.result()).output_text == WORDS
