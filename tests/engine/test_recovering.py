"""Recovery without real kills: an owner that is gone, whatever it was doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.conversation import Conversation
from turnlog.errors import Busy, NotFound, ProviderError, Waiting
from turnlog.ports import Profile
from turnlog.store import MemoryStore
from turnlog.testing import Reply, Scripted, call, error, scripted, text
from turnlog_transports.replay import ReplayTransport

from .given import add, agent, all_of, leaping, opened, pay, recorded, said, tags

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."


@asynccontextmanager
async def left(
    script: Sequence[Reply | Callable[[JsonObject], Reply]],
    tag: str,
    chosen: turnlog.Agent | None = None,
) -> AsyncGenerator[tuple[MemoryStore, str]]:
    """A store in which an owner died behind an event, and the turn that it left."""
    store = MemoryStore()
    async with opened(scripted(script), chosen or agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.", idempotency_key="k")
        await recorded(chat, tag)
        store.abandon()
        yield store.beside(), turn.id


@asynccontextmanager
async def after(
    store: MemoryStore,
    script: Sequence[Reply],
    chosen: turnlog.Agent | None = None,
) -> AsyncGenerator[tuple[turnlog.Log, Conversation, Scripted]]:
    """The next owner."""
    way = scripted(script, checks=False)
    async with opened(way, chosen or agent(), store=store) as log:
        yield log, await log.get("c"), way
        assert (await log.verify()).ok


async def test_recovery_starts_nothing_and_may_be_repeated() -> None:
    async with left([text(LONG).but(stall_after=6)], "response.started") as (store, turn):
        async with after(store, [text("Fine.")]) as (log, chat, way):
            (row,) = await log.conversations()
            assert row.orphaned
            done = await log.recover()
            assert [one.turn for one in done] == [turn, turn]
            assert [one.action for one in done] == [
                "recorded the response as interrupted",
                "left the turn to be resumed",
            ]
            assert (await log.recover(), way.requests) == ([], [])
            assert (await chat.state()).paused == "crashed"
            resumed = await (await chat.turn(turn)).resume()
            assert (await resumed.result()).output_text == "Fine."
            assert said(way.requests[0]) == ["Go."]


async def test_resume_settles_what_was_not_settled() -> None:
    async with left([text(LONG).but(stall_after=6)], "response.started") as (store, turn):
        async with after(store, [text("Fine.")]) as (_, chat, _):
            resumed = await (await chat.turn(turn)).resume()
            assert (await resumed.result()).output_text == "Fine."
            assert await (await chat.turn(turn)).resume() == resumed
            with pytest.raises(NotFound):
                await turnlog.Turn("turn_x", "c", chat._engine).resume()  # pyright: ignore[reportPrivateUsage]


async def test_a_send_settles_a_dead_owners_turn_first() -> None:
    async with left([text(LONG).but(stall_after=6)], "response.started") as (store, turn):
        async with after(store, [text("Fine.")]) as (_, chat, way):
            with pytest.raises(turnlog.errors.Waiting) as caught:
                await chat.run("Next.")
            assert caught.value.turn == turn
            result = await chat.run("Next.", pending="abandon")
            assert result.output_text == "Fine."
            assert said(way.requests[0]) == ["Go.", "Next."]


async def test_the_same_key_continues_the_turn() -> None:
    async with left([text(LONG).but(stall_after=6)], "response.started") as (store, turn):
        async with after(store, [text("Fine.")]) as (_, chat, _):
            result = await chat.run("Go.", idempotency_key="k")
            assert (result.turn, result.output_text) == (turn, "Fine.")


async def test_the_same_key_of_a_turn_that_waits_for_somebody_only_finds_it() -> None:
    async with left([call("pay", amount=3)], "turn.paused", agent(pay)) as (store, turn):
        async with after(store, [], agent(pay)) as (_, chat, way):
            result = await chat.run("Go.", idempotency_key="k")
            assert (result.turn, result.status, way.requests) == (turn, "waiting", [])


async def test_calls_that_had_not_started_are_run() -> None:
    never = asyncio.Event()
    ran: list[int] = []

    async def held(n: int) -> str:
        ran.append(n)
        if n == 1:
            await never.wait()
        return "ok"

    from turnlog.testing import calls

    chosen = agent(held, max_parallel_tools=1)
    script = [calls(call("held", n=1), call("held", n=2))]
    async with left(script, "call.started", chosen) as (store, turn):
        rerun = agent(turnlog.tool(held, on_crash="rerun"), max_parallel_tools=1)
        never.set()
        async with after(store, [text("Done.")], rerun) as (log, chat, way):
            await log.recover()
            resumed = await (await chat.turn(turn)).resume()
            assert (await resumed.result()).output_text == "Done."
            assert [one.run for one in await all_of(chat, ev.CallStarted)] == [1, 2, 1]
            assert said(way.requests[0]) == ["function_call_output"] * 2


async def test_a_turn_of_a_living_owner_is_left_alone() -> None:
    store = MemoryStore()
    async with opened([text(LONG).but(stall_after=6)], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        async with opened([], agent(), store=store.beside()) as other:
            assert await other.recover() == []
            there = await other.get("c")
            with pytest.raises(Busy) as caught:
                await (await there.turn(turn.id)).resume()
            assert caught.value.turn == turn.id
            with pytest.raises(Busy):
                await there.run("Me too.")
        await turn.cancel()


async def test_nobody_waits_for_a_turn_whose_process_is_gone() -> None:
    async with left([text(LONG).but(stall_after=6)], "response.started") as (store, turn):
        async with after(store, [text("Fine.")], agent()) as (_, chat, _):
            with pytest.raises(Waiting, match="resume"):
                await (await chat.turn(turn)).result()


async def test_closing_a_log_lets_go_of_its_turns_and_they_can_be_resumed() -> None:
    store = MemoryStore()
    async with opened([text(LONG).but(stall_after=6)], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "response.started")
        await log.close()
        await log.close()
        with pytest.raises(turnlog.errors.Closed):
            await log.get("c")
        with pytest.raises(turnlog.errors.Closed):
            await log.conversation("c")
    async with after(store.beside(), [text("Fine.")]) as (again, chat, _):
        assert (await chat.state()).paused == "closed"
        assert await again.recover() == []
        resumed = await (await chat.turn(turn.id)).resume()
        assert (await resumed.result()).output_text == "Fine."


async def test_a_provider_that_cannot_be_asked_is_asked_the_next_time() -> None:
    asks = Profile(name="asks", key_env=None, retrieve=True)
    finishing = text(LONG).but(stall_after=6, finishes=True)
    store = MemoryStore()
    first = ReplayTransport([finishing], profile=asks)
    async with opened(first, agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        await chat.send("Go.")
        await recorded(chat, "response.started")
        store.abandon()
        down = Refusing()
        async with opened(down, agent(), store=store.beside()) as other:
            (found,) = await other.recover()
            assert found.action == "left it for the next time"
            assert "refused" in found.reason
            with pytest.raises(ProviderError, match="refused"):
                await (await other.get("c")).run("Next.")
            down.says = 404
            done = await other.recover()
            assert done[0].action == "recorded the response as interrupted"


class Refusing(ReplayTransport):
    """A provider that is there, and answers a `GET` with an error."""

    says = 500

    def __init__(self) -> None:
        super().__init__([], profile=Profile(name="asks", key_env=None, retrieve=True))

    async def send(self, request: turnlog.ports.Request) -> AsyncGenerator[turnlog.ports.Frame]:
        from turnlog_transports import wire

        yield wire.answer(self.says, {}, b'{"error":{"message":"refused"}}')


async def test_a_response_that_broke_off_and_cannot_be_asked_about_is_sent_again() -> None:
    class Forgetful(ReplayTransport):
        async def send(self, request: turnlog.ports.Request) -> AsyncGenerator[turnlog.ports.Frame]:
            from turnlog_transports import wire

            if isinstance(request, turnlog.ports.Retrieve):
                yield wire.answer(500, {}, b'{"error":{"message":"refused"}}')
                return
            async for frame in super().send(request):
                yield frame

    asks = Profile(name="asks", key_env=None, retrieve=True)
    way = Forgetful([text("Never whole.").but(cut_after=4), text("Whole.")], profile=asks)
    async with opened(way, agent(), ambient=leaping()) as log:
        chat = await log.conversation("c", agent="test")
        assert (await chat.run("Go.")).output_text == "Whole."
        assert "response.interrupted" in await tags(chat)


async def test_a_turn_that_was_to_be_cancelled_is_ended() -> None:
    """The cancel was recorded, and the process died before it was carried out."""
    async with left([text(LONG).but(stall_after=6)], "response.started") as (store, turn):
        async with after(store, [text("Fine.")]) as (_, chat, _):
            handle = await chat.turn(turn)
            await handle.cancel(mode="after_request")
            result = await handle.result()
            assert result.status == "cancelled"
            assert (await chat.run("Again.")).output_text == "Fine."


async def test_what_is_left_over_of_a_turn_that_was_over_is_its_end() -> None:
    async with left([error(503)], "response.rejected", agent(add)) as (store, turn):
        async with after(store, [text("Fine.")]) as (log, chat, _):
            await log.recover()
            resumed = await (await chat.turn(turn)).resume()
            assert (await resumed.result()).output_text == "Fine."
            assert [one.try_number for one in await all_of(chat, ev.RequestPrepared)] == [1, 2]


async def test_nobody_is_bound_here_and_the_turn_waits() -> None:
    async with left([call("add", a=1, b=2)], "call.requested") as (store, turn):
        way = scripted([text("3.")], checks=False)
        async with opened(way, store=store) as log:
            chat = await log.get("c")
            resumed = await (await chat.turn(turn)).resume()
            result = await resumed.result()
            assert result.status == "waiting"
            assert "turn.ended" not in await tags(chat)
