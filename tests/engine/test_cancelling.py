"""Cancelling: now, after the request, wherever the turn stands; the conversation stays usable."""

from __future__ import annotations

import asyncio

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.errors import NotFound
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, calls, error, text

from .given import add, agent, all_of, opened, pay, recorded, said, tags, talking, until

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."


async def test_now_in_the_middle_of_a_text() -> None:
    async with talking([text(LONG).but(stall_after=8), text("Fine.")]) as (chat, way):
        turn = await chat.send("Go.")
        async for update in turn:
            if update.type == "text.delta":
                break
        await turn.cancel(reason="enough", by="ana")
        result = await turn.result()
        assert (result.status, result.reason) == ("cancelled", "enough")
        (asked,) = [one for one in await chat.events() if one.tag == "turn.cancel_requested"]
        assert asked.actor == "ana"
        (outcome,) = await all_of(chat, ev.ResponseInterrupted)
        assert outcome.reason == "cancelled"
        assert len(await all_of(chat, ev.OutputCheckpointed)) > 0
        await turn.cancel()
        assert (await chat.run("Again.")).output_text == "Fine."
        assert said(way.requests[1]) == ["Go.", "Again."]


def fine_again(body: JsonObject) -> Reply:
    """Silence, until somebody asks again."""
    again = said(body)[-1] == "Again."
    return text("Fine.") if again else text(LONG).but(stall_after=0)


async def test_now_before_anything_was_heard() -> None:
    async with talking([fine_again, fine_again]) as (chat, _):
        turn = await chat.send("Go.")
        await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_now_while_tools_run() -> None:
    begun = asyncio.Event()

    async def slow() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    async with talking(
        [calls(call("slow"), call("add", a=1, b=2)), text("Fine.")], agent(slow, add)
    ) as (
        chat,
        way,
    ):
        turn = await chat.send("Go.")
        await begun.wait()
        await recorded(chat, "call.answered")
        await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        (abandoned,) = await all_of(chat, ev.CallAbandoned)
        assert "unknown" in str(abandoned.item["output"])
        assert (await chat.run("Again.")).output_text == "Fine."
        assert said(way.requests[1]) == ["function_call_output", "function_call_output", "Again."]


async def test_now_while_waiting_for_an_approval() -> None:
    async with talking([call("pay", amount=3), text("Fine.")], agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        turn = await chat.turn(result.turn)
        await turn.cancel(reason="too late")
        assert (await turn.result()).status == "cancelled"
        assert (await chat.state()).status == "idle"
        assert (await chat.run("Again.")).output_text == "Fine."
        assert said(way.requests[1]) == ["function_call_output", "Again."]


async def test_now_while_waiting_to_try_again() -> None:
    from turnlog.draft import Ambient

    async with talking([error(503), text("Fine.")], ambient=Ambient()) as (chat, _):
        turn = await chat.send("Go.")
        await recorded(chat, "response.rejected")
        await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_after_the_request_what_is_under_way_is_heard_and_its_calls_are_not_run() -> None:
    reply = calls(call("add", a=1, b=2)).but(delay=0.01)
    async with talking([reply, text("Fine.")]) as (chat, way):
        turn = await chat.send("Go.")
        await until(lambda: bool(way.requests))
        await turn.cancel(mode="after_request")
        result = await turn.result()
        assert result.status == "cancelled"
        assert "response.completed" in await tags(chat)
        assert "call.started" not in await tags(chat)
        assert len(await all_of(chat, ev.CallAbandoned)) == 1
        assert (await chat.run("Again.")).output_text == "Fine."
        assert way.requests[1]["previous_response_id"] == "resp_1"


async def test_after_the_request_an_answer_stands() -> None:
    async with talking([text("Heard.").but(delay=0.01)]) as (chat, way):
        turn = await chat.send("Go.")
        await until(lambda: bool(way.requests))
        await turn.cancel(mode="after_request")
        result = await turn.result()
        assert (result.status, result.output_text) == ("completed", "Heard.")


async def test_now_is_stronger_than_after_the_request() -> None:
    async with talking([text(LONG).but(stall_after=6), text("Fine.")]) as (chat, way):
        turn = await chat.send("Go.")
        await until(lambda: bool(way.requests))
        await turn.cancel(mode="after_request")
        await turn.cancel(mode="after_request")
        await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        assert [one.mode for one in await all_of(chat, ev.TurnCancelRequested)] == [
            "after_request",
            "now",
        ]


async def test_a_turn_that_never_was_cannot_be_cancelled() -> None:
    async with talking([text("Hi.")]) as (chat, _):
        turn = await chat.send("Hi.")
        await turn.result()
        before = len(await chat.events())
        await turn.cancel()
        from turnlog.turn import Turn

        ghost: Turn[str] = Turn("turn_x", "c", chat._engine)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(NotFound, match="turn_x"):
            await ghost.cancel()
        assert len(await chat.events()) == before


async def test_what_a_dead_process_left_can_be_cancelled() -> None:
    store = MemoryStore()
    async with opened([text(LONG).but(stall_after=6)], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "response.started")
        store.abandon()
        async with opened([text("Fine.")], agent(), store=store.beside()) as after:
            again = await after.get("c")
            await (await again.turn(turn.id)).cancel()
            assert (await (await again.turn(turn.id)).result()).status == "cancelled"
            assert (await again.run("Again.")).output_text == "Fine."
            assert (await after.verify()).ok


async def test_w02_an_abandoned_response_never_becomes_the_parent() -> None:
    """The provider finishes what nobody hears; the next turn does not continue from it."""
    ghost = text(LONG).but(stall_after=8, finishes=True)
    async with talking([text("One."), ghost, text("Three.")]) as (chat, way):
        await chat.run("1")
        async with chat.stream("2") as turn:
            async for update in turn:
                if update.type == "text.delta":
                    break
        await chat.run("3")
        assert way.requests[2]["previous_response_id"] == "resp_1"
        assert said(way.requests[2]) == ["2", "3"]


async def test_now_while_somebody_is_asked_whether_a_call_needs_approval() -> None:
    asked = asyncio.Event()

    async def for_ever(n: int) -> bool:
        asked.set()
        return await asyncio.Event().wait()

    @turnlog.tool(needs_approval=for_ever)
    def careful(n: int) -> int:
        return n

    async with talking([call("careful", n=1), text("Fine.")], agent(careful)) as (chat, _):
        turn = await chat.send("Go.")
        await asked.wait()
        async with asyncio.timeout(5):
            await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_now_while_deps_are_made() -> None:
    asked = asyncio.Event()

    async def deps() -> str:
        asked.set()
        await asyncio.Event().wait()
        return "never"

    async with talking([call("add", a=1, b=2), text("Fine.")], agent(add, deps=deps)) as (chat, _):
        turn = await chat.send("Go.")
        await asked.wait()
        async with asyncio.timeout(5):
            await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        assert (await chat.run("Again.")).output_text == "Fine."
