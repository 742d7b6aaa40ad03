"""Turns: sent, run, streamed and asked for one request at a time, and what they come to."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, obj
from turnlog.conversation import TurnOptions
from turnlog.errors import (
    Busy,
    ConfigurationError,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    OutputInvalid,
    Waiting,
)
from turnlog.items import type_of
from turnlog.result import TurnResult
from turnlog.testing import call, calls, error, failed, incomplete, reasoning, refusal, reply, text
from turnlog.updates import CallUpdate, Delta, ItemUpdate, TurnDone

from .given import (
    add,
    agent,
    all_of,
    collect,
    opened,
    pay,
    recorded,
    said,
    tags,
    talking,
    texts,
    until,
)


class Invoice(BaseModel):
    total: int


# -- run -----------------------------------------------------------------------------------


async def test_run_sends_waits_and_says_what_the_turn_came_to() -> None:
    script = [calls(call("add", a=1, b=2), call("add", a=3, b=4)), text("3 and 7.")]
    async with talking(script) as (chat, transport):
        result = await chat.run("Add them.")
        assert (result.status, result.output, result.output_text) == (
            "completed",
            "3 and 7.",
            "3 and 7.",
        )
        assert [type_of(item) for item in result.items] == [
            "function_call",
            "function_call",
            "message",
        ]
        assert (result.response, result.conversation) == ("resp_2", "c")
        assert result.usage.responses == 2
        assert result.usage.total_tokens == result.usage.input_tokens + result.usage.output_tokens
        first, second = transport.requests
        assert said(first) == ["Add them."]
        assert said(second) == ["function_call_output", "function_call_output"]
        assert second["previous_response_id"] == "resp_1"


async def test_instructions_and_tools_go_out_with_every_request() -> None:
    chosen = agent(add, instructions="Be brief.")
    async with talking([call("add", a=1, b=2), text("3."), text("Bye.")], chosen) as (chat, way):
        await chat.run("Add.")
        await chat.run("Bye.")
        assert [body["instructions"] for body in way.requests] == ["Be brief."] * 3
        assert all(body["tools"] == way.requests[0]["tools"] for body in way.requests)


async def test_a_refusal_is_no_empty_answer() -> None:
    async with talking([refusal("I will not.")]) as (chat, _):
        result = await chat.run("Do it.")
        assert (result.refusal, result.output_text, result.status) == (
            "I will not.",
            "",
            "completed",
        )


async def test_an_incomplete_answer_is_returned_and_never_continued_from() -> None:
    script = [incomplete("max_output_tokens", "Half an"), text("Again.")]
    async with talking(script) as (chat, way):
        result = await chat.run("Speak.")
        assert (result.status, result.reason) == ("incomplete", "max_output_tokens")
        assert (result.output_text, result.response) == ("Half an", None)
        assert (await chat.state()).parent is None
        await chat.run("Go on.")
        assert "previous_response_id" not in way.requests[1]
        assert said(way.requests[1]) == ["Speak.", "Go on."]


async def test_a_failed_turn_raises_and_leaves_the_conversation_usable() -> None:
    script = [error(400, "bad_thing", "That is bad."), text("Fine.")]
    async with talking(script) as (chat, _):
        with pytest.raises(turnlog.TurnFailed, match="That is bad") as caught:
            await chat.run("One.")
        assert (caught.value.code, caught.value.status) == ("bad_thing", 400)
        assert isinstance(caught.value.result, TurnResult)
        assert (await chat.run("Two.")).output_text == "Fine."


# -- output_type ---------------------------------------------------------------------------


async def test_an_answer_of_a_type_is_validated() -> None:
    async with talking([text('{"total": 7}')]) as (chat, way):
        result = await chat.run("As JSON.", output_type=Invoice)
        assert result.output == Invoice(total=7)
        assert obj(obj(way.requests[0], "text"), "format")["type"] == "json_schema"


async def test_an_agents_output_type_counts_for_its_turns() -> None:
    async with talking([text('{"total": 7}')], agent(add, output_type=Invoice)) as (chat, way):
        assert (await chat.run("As JSON.")).output == Invoice(total=7)
        assert "format" in obj(way.requests[0], "text")


async def test_an_answer_that_does_not_fit_is_a_typed_error_with_its_text() -> None:
    async with talking([text("Seven!")]) as (chat, _):
        with pytest.raises(OutputInvalid) as caught:
            await chat.run("As JSON.", output_type=Invoice)
        assert caught.value.text == "Seven!"
        assert (await chat.state()).status == "idle"


async def test_only_a_completed_answer_is_validated() -> None:
    async with talking([incomplete("max_output_tokens", "{")]) as (chat, _):
        assert (await chat.run("As JSON.", output_type=Invoice)).status == "incomplete"


# -- max_requests --------------------------------------------------------------------------


async def test_max_requests_bounds_a_turn_and_its_calls_are_abandoned() -> None:
    script = [call("add", a=1, b=2), call("add", a=3, b=4), text("Late.")]
    async with talking(script, agent(add, max_requests=2)) as (chat, way):
        result = await chat.run("Add for ever.")
        assert result.status == "limited"
        assert "max_requests" in (result.reason or "")
        assert len(await all_of(chat, ev.CallAbandoned)) == 1
        assert (await chat.run("Go on.")).output_text == "Late."
        assert said(way.requests[2]) == ["function_call_output", "Go on."]


async def test_a_turns_own_max_requests_wins() -> None:
    async with talking([call("add", a=1, b=2)], agent(add, max_requests=2)) as (chat, _):
        assert (await chat.run("Add.", max_requests=1)).status == "limited"


@pytest.mark.parametrize("limit", [0, -1, True, "3"])
async def test_a_limit_that_is_no_number_above_zero_is_refused(limit: int) -> None:
    async with talking([text("Hi.")]) as (chat, _):
        with pytest.raises(InvalidInput, match="max_requests"):
            await chat.run("Hi.", max_requests=limit)
        assert await chat.events() == []


# -- stream --------------------------------------------------------------------------------


async def test_a_stream_shows_deltas_items_calls_and_the_end() -> None:
    script = [call("add", a=1, b=2), reply(reasoning("Easy."), text("It is three."))]
    async with talking(script) as (chat, _):
        async with chat.stream("Add.") as turn:
            updates = await collect(aiter(turn))
        assert texts(updates) == "It is three."
        assert [u.type for u in updates if isinstance(u, CallUpdate)] == [
            "call.requested",
            "call.started",
            "call.answered",
        ]
        assert [type_of(u.item) for u in updates if isinstance(u, ItemUpdate)] == [
            "function_call",
            "reasoning",
            "message",
        ]
        assert any(u.type == "reasoning.delta" for u in updates if isinstance(u, Delta))
        assert isinstance(updates[-1], TurnDone) and updates[-1].status == "completed"
        assert (await turn.result()).output_text == "It is three."
        cursors = [(u.cursor.version, u.cursor.offset) for u in updates]
        assert [version for version, _ in cursors] == sorted(version for version, _ in cursors)


async def test_a_stream_that_is_left_early_is_cancelled() -> None:
    script = [text("A long answer, told in pieces.").but(stall_after=6), text("Fine.")]
    async with talking(script) as (chat, _):
        async with chat.stream("Speak.") as turn:
            async for update in turn:
                if update.type == "text.delta":
                    break
        assert (await turn.result()).status == "cancelled"
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_a_stream_that_was_heard_to_the_end_is_not_cancelled() -> None:
    async with talking([text("Hi.")]) as (chat, _):
        async with chat.stream("Hi.") as turn:
            await turn.result()
        assert "turn.cancel_requested" not in await tags(chat)


async def test_what_a_stream_raises_passes_through() -> None:
    async with talking([text("Hi.").but(stall_after=0)]) as (chat, _):
        with pytest.raises(ZeroDivisionError):
            async with chat.stream("Hi."):
                raise ZeroDivisionError
        assert (await chat.turns())[0].outcome == "cancelled"


# -- send ----------------------------------------------------------------------------------


async def test_what_was_sent_runs_whether_anybody_watches_or_not() -> None:
    async with talking([text("Done.")]) as (chat, _):
        turn = await chat.send("Go.", by="user:42")
        assert "request.prepared" in await tags(chat)
        other = await chat.turn(turn.id)
        assert (await other.result()).output_text == "Done."
        started = next(one for one in await chat.events() if one.tag == "turn.started")
        assert started.actor == "user:42"
        assert started.turn == turn.id


async def test_the_same_key_and_input_are_the_same_turn() -> None:
    async with talking([text("Once.")]) as (chat, way):
        first = await chat.send("Go.", idempotency_key="k")
        second = await chat.send("Go.", idempotency_key="k")
        assert first.id == second.id
        await first.result()
        third = await chat.run("Go.", idempotency_key="k")
        assert (third.turn, third.output_text) == (first.id, "Once.")
        assert len(way.requests) == 1


async def test_the_same_key_with_another_input_or_setting_is_an_error() -> None:
    async with talking([text("Once.")]) as (chat, _):
        first = await chat.run("Go.", idempotency_key="k")
        before = len(await chat.events())
        with pytest.raises(IdempotencyMismatch, match="new key") as caught:
            await chat.run("Stay.", idempotency_key="k")
        assert caught.value.turn == first.turn
        with pytest.raises(IdempotencyMismatch, match="new key"):
            await chat.run("Go.", idempotency_key="k", temperature=0.5)
        assert len(await chat.events()) == before


async def test_a_key_belongs_to_its_conversation() -> None:
    async with opened([text("A."), text("B.")], agent()) as log:
        a, b = [await log.conversation(id, agent="test") for id in ("a", "b")]
        assert (await a.run("Go.", idempotency_key="k")).output_text == "A."
        assert (await b.run("Go.", idempotency_key="k")).output_text == "B."


async def test_two_at_once_with_one_key_are_one_turn() -> None:
    async with talking([text("Once."), text("Twice.")]) as (chat, way):
        both = await asyncio.gather(*(chat.run("Go.", idempotency_key="k") for _ in range(2)))
        assert both[0].turn == both[1].turn
        assert len(way.requests) == 1


# -- busy and waiting ----------------------------------------------------------------------


async def test_a_second_turn_while_one_runs_is_busy() -> None:
    async with talking([text("Slow.").but(stall_after=2)]) as (chat, _):
        turn = await chat.send("One.")
        before = len(await chat.events())
        with pytest.raises(Busy) as caught:
            await chat.send("Two.")
        assert caught.value.turn == turn.id
        assert "Two." not in str([one.event for one in (await chat.events())[before:]])
        await turn.cancel()


async def test_interrupt_cancels_what_runs_and_goes_on() -> None:
    async with talking([text("Slow.").but(stall_after=2), text("Fast.")]) as (chat, way):
        first = await chat.send("One.")
        await until(lambda: bool(way.requests))
        result = await chat.run("Two.", if_busy="interrupt")
        stopped = await first.result()
        assert (stopped.status, stopped.reason) == ("cancelled", "interrupted")
        assert result.output_text == "Fast."
        assert said(way.requests[1]) == ["One.", "Two."]


async def test_where_nothing_runs_there_is_nothing_to_interrupt() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        await chat.run("One.", if_busy="interrupt")
        assert (await chat.run("Two.", if_busy="interrupt")).output_text == "Two."


@pytest.mark.parametrize("options", [{"if_busy": "wait"}, {"pending": "queue"}])
async def test_a_choice_that_is_none_is_refused(options: TurnOptions) -> None:
    async with talking([text("Hi.")]) as (chat, _):
        with pytest.raises(InvalidInput, match='= is "raise" or'):
            await chat.run("Hi.", **options)
        assert await chat.events() == []


async def test_a_turn_that_waits_is_in_the_way_unless_it_is_abandoned() -> None:
    script = [call("pay", amount=3), text("As you like.")]
    async with talking(script, agent(pay)) as (chat, way):
        first = await chat.run("Pay.")
        assert first.status == "waiting"
        before = len(await chat.events())
        with pytest.raises(Waiting, match="abandon") as caught:
            await chat.run("Never mind.")
        assert caught.value.turn == first.turn
        assert len(await chat.events()) == before
        result = await chat.run("Never mind.", pending="abandon")
        assert result.output_text == "As you like."
        assert said(way.requests[1]) == ["function_call_output", "Never mind."]
        assert [row.outcome for row in await chat.turns()] == ["cancelled", "completed"]


# -- request -------------------------------------------------------------------------------


async def test_request_leaves_the_tools_to_the_caller() -> None:
    script = [calls(call("add", a=1, b=2), call("add", a=3, b=4)), text("3 and 7.")]
    async with talking(script) as (chat, way):
        first = await chat.request("Add.")
        assert (first.status, len(first.pending)) == ("waiting", 2)
        with pytest.raises(Waiting, match="answer these calls first"):
            await chat.request()
        for pending in (await chat.state()).pending:
            arguments = pending.arguments
            await pending.answer(int(str(arguments["a"])) + int(str(arguments["b"])))
        second = await chat.request("And be brief.")
        assert (second.turn, second.status) == (first.turn, "completed")
        assert said(way.requests[1]) == [
            "function_call_output",
            "function_call_output",
            "And be brief.",
        ]
        assert [row.outcome for row in await chat.turns()] == ["completed"]


async def test_request_with_nothing_to_send_is_refused() -> None:
    async with talking([text("Hi.")]) as (chat, _):
        with pytest.raises(InvalidInput):
            await chat.request()
        assert await chat.events() == []


async def test_a_failed_request_raises_too() -> None:
    async with talking([error(400)]) as (chat, _):
        with pytest.raises(turnlog.TurnFailed):
            await chat.request("Hi.")


async def test_nobody_runs_the_tools_of_a_manual_turn() -> None:
    async with talking([call("add", a=1, b=2), text("3.")]) as (chat, _):
        result = await chat.request("Add.")
        turn = await chat.turn(result.turn)
        await turn.resume()
        assert (await turn.result()).status == "waiting"
        assert "call.started" not in await tags(chat)


# -- what goes wrong on the way ------------------------------------------------------------


async def test_a_conversation_without_a_model_is_refused_before_anything_is_written() -> None:
    async with opened([text("Hi.")]) as log:
        chat = await log.conversation("c", agent=turnlog.Agent("bare"))
        with pytest.raises(ConfigurationError, match="model"):
            await chat.run("Hi.")
        assert await chat.events() == []
        assert (await chat.run("Hi.", model="gpt-5")).status == "completed"


async def test_a_turn_that_never_was_is_not_found() -> None:
    async with talking([text("Hi.")]) as (chat, _):
        await chat.run("Hi.")
        with pytest.raises(NotFound, match="no turn 'turn_x'"):
            await chat.turn("turn_x")


async def test_the_await_of_run_can_be_cancelled() -> None:
    async with talking([text("Slow.").but(stall_after=3), text("Fine.")]) as (chat, _):
        running = asyncio.create_task(chat.run("Speak."))
        await recorded(chat, "request.prepared")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        (row,) = await chat.turns()
        assert row.outcome == "cancelled"
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_a_response_that_fails_and_is_not_to_be_tried_again_fails_the_turn() -> None:
    async with talking([failed("invalid_prompt", "No."), text("Fine.")]) as (chat, way):
        with pytest.raises(turnlog.TurnFailed, match="No"):
            await chat.run("Hi.")
        (row,) = await chat.turns()
        assert row.outcome == "failed"
        await chat.run("Hi again.")
        assert said(way.requests[1]) == ["Hi.", "Hi again."]


async def test_w01_failed_response_is_never_a_parent() -> None:
    script = [failed("invalid_prompt"), text("Fine.")]
    async with talking(script) as (chat, way):
        with pytest.raises(turnlog.TurnFailed):
            await chat.run("One.")
        (outcome,) = await all_of(chat, ev.ResponseFailed)
        assert outcome.response == "resp_1"
        assert (await chat.state()).parent is None
        await chat.run("Two.")
        second: JsonObject = way.requests[1]
        assert "previous_response_id" not in second
        assert said(second) == ["One.", "Two."]
