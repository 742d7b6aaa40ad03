"""Calls: run, approved, rejected, answered, deferred, abandoned, and all the kinds there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic import BaseModel

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, objects
from turnlog.conversation import Conversation
from turnlog.errors import AlreadyAnswered, InvalidInput, LateAnswer, NotPending
from turnlog.items import type_of
from turnlog.testing import call, calls, item, reply, text
from turnlog.updates import CallUpdate

from .given import add, agent, all_of, collect, opened, pay, said, tags, talking


async def the_call(chat: Conversation) -> turnlog.Call:
    """The one call that waits."""
    (found,) = (await chat.state()).pending
    return found


async def go_on(chat: Conversation, turn: str) -> turnlog.TurnResult[str]:
    """Resume a turn and wait for it."""
    return await (await (await chat.turn(turn)).resume()).result()


def outputs(body: JsonObject) -> list[JsonObject]:
    """The items of a request that answer calls."""
    return [one for one in objects(body, "input") if "output" in type_of(one)]


# -- approval ------------------------------------------------------------------------------


async def test_a_call_that_needs_approval_waits_and_runs_when_it_is_approved() -> None:
    async with talking([call("pay", amount=3), text("Paid.")], agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        assert (result.status, result.reason) == ("waiting", "approval")
        waiting = await the_call(chat)
        assert (waiting.name, waiting.arguments, waiting.waits_for) == (
            "pay",
            {"amount": 3},
            "approval",
        )
        assert result.pending == (waiting.id,)
        await waiting.approve(by="ana", reason="fine")
        assert (await the_call(chat)).waits_for is None
        (approved,) = [one for one in await chat.events() if one.tag == "call.approved"]
        assert approved.actor == "ana"
        before = len(await chat.events())
        await waiting.approve(by="ben")
        assert len(await chat.events()) == before
        assert (await go_on(chat, result.turn)).output_text == "Paid."
        with pytest.raises(NotPending):
            await waiting.approve()
        assert outputs(way.requests[1])[0]["output"] == "paid 3"


async def test_a_rejected_call_is_told_to_the_model_with_the_reason() -> None:
    async with talking([call("pay", amount=3), text("Sorry.")], agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        waiting = await the_call(chat)
        await waiting.reject(by="ana", reason="too much")
        await waiting.reject(by="ana", reason="too much")
        with pytest.raises(AlreadyAnswered):
            await waiting.reject(reason="another reason")
        assert (await go_on(chat, result.turn)).output_text == "Sorry."
        assert outputs(way.requests[1])[0]["output"] == "The call was rejected: too much"
        assert "call.started" not in await tags(chat)


async def test_siblings_run_while_another_waits_and_the_next_request_takes_all() -> None:
    script = [calls(call("pay", amount=3), call("add", a=1, b=2)), text("Done.")]
    async with talking(script, agent(pay, add)) as (chat, way):
        result = await chat.run("Pay and add.")
        assert result.status == "waiting"
        (answered,) = await all_of(chat, ev.CallAnswered)
        assert answered.call not in result.pending
        assert len(way.requests) == 1
        await (await the_call(chat)).approve()
        assert (await go_on(chat, result.turn)).output_text == "Done."
        assert len(outputs(way.requests[1])) == 2


async def test_approval_may_depend_on_the_arguments() -> None:
    def is_large(amount: float) -> bool:
        return amount > 10

    @turnlog.tool(needs_approval=is_large)
    def spend(amount: float) -> str:
        return f"spent {amount:g}"

    script = [call("spend", amount=3), text("Small."), call("spend", amount=30)]
    async with talking(script, agent(spend)) as (chat, _):
        assert (await chat.run("Spend 3.")).output_text == "Small."
        assert (await chat.run("Spend 30.")).status == "waiting"


async def test_approving_an_mcp_request_answers_it() -> None:
    request: JsonObject = {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "name": "delete",
        "server_label": "crm",
        "arguments": '{"id":7}',
    }
    for approve in (True, False):
        async with talking([item(request), text("Done.")]) as (chat, way):
            result = await chat.run("Delete it.")
            waiting = await the_call(chat)
            assert (waiting.kind, waiting.waits_for) == ("mcp_approval_request", "approval")
            assert waiting.arguments == {"id": 7}
            if approve:
                await waiting.approve(reason="go")
            else:
                await waiting.reject(reason="no")
            assert (await go_on(chat, result.turn)).output_text == "Done."
            (answer,) = objects(way.requests[1], "input")
            assert answer == {
                "type": "mcp_approval_response",
                "approval_request_id": "mcpr_1",
                "approve": approve,
                "reason": "go" if approve else "no",
            }


# -- answers -------------------------------------------------------------------------------


class Paid(BaseModel):
    amount: int


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("paid", "paid"),
        ({"ok": True}, '{"ok":true}'),
        (Paid(amount=3), '{"amount":3}'),
        (None, "null"),
    ],
)
async def test_an_answer_is_told_as_text(output: object, told: str) -> None:
    async with talking([call("pay", amount=3), text("Done.")], agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        waiting = await the_call(chat)
        await waiting.answer(output, by="ana")
        await waiting.answer(output, by="ben")
        assert len(await all_of(chat, ev.CallAnswered)) == 1
        with pytest.raises(AlreadyAnswered, match="another output"):
            await waiting.answer("something else")
        await go_on(chat, result.turn)
        assert outputs(way.requests[1])[0]["output"] == told
        await waiting.answer(output)
        with pytest.raises(AlreadyAnswered):
            await waiting.answer("something else")


async def test_an_answer_may_be_a_picture_or_a_whole_item() -> None:
    async with talking([calls(call("pay"), call("pay")), text("Done.")], agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        first, second = (await chat.state()).pending
        await first.answer(turnlog.image("https://example.com/a.png"))
        await second.answer({"type": "function_call_output", "output": "paid"}, failed=True)
        await go_on(chat, result.turn)
        picture, whole = outputs(way.requests[1])
        assert objects(picture, "output")[0]["type"] == "input_image"
        assert (whole["call_id"], whole["output"]) == (second.call_id, "paid")
        assert [one.failed for one in await all_of(chat, ev.CallAnswered)] == [False, True]


async def test_an_item_that_answers_another_call_is_refused() -> None:
    async with talking([call("pay", amount=3)], agent(pay)) as (chat, _):
        await chat.run("Pay.")
        waiting = await the_call(chat)
        before = len(await chat.events())
        for wrong in (
            {"type": "function_call_output", "call_id": "call_other", "output": ""},
            {"type": "computer_call_output", "call_id": waiting.call_id, "output": ""},
        ):
            with pytest.raises(InvalidInput, match="answer"):
                await waiting.answer(wrong)
        assert len(await chat.events()) == before


async def test_a_late_answer_replaces_an_abandonment_until_a_request_contains_it() -> None:
    script = [call("pay", amount=3), text("Ok."), text("More.")]
    async with talking(script, agent(pay)) as (chat, way):
        await chat.run("Pay.")
        waiting = await the_call(chat)
        await waiting.abandon(reason="nobody is here")
        with pytest.raises(AlreadyAnswered):
            await waiting.abandon(reason="somebody is")
        await waiting.answer("paid after all")
        result = await chat.run("Well?", pending="abandon")
        assert outputs(way.requests[1])[0]["output"] == "paid after all"
        assert result.output_text == "Ok."
        with pytest.raises(AlreadyAnswered):
            await waiting.answer("really")


async def test_an_answer_behind_the_request_that_held_the_abandonment_is_late() -> None:
    script = [call("pay", amount=3), text("Ok."), text("More.")]
    async with talking(script, agent(pay)) as (chat, way):
        await chat.run("Pay.")
        waiting = await the_call(chat)
        await chat.run("Never mind.", pending="abandon")
        before = len(await chat.events())
        with pytest.raises(LateAnswer, match="as a message"):
            await waiting.answer("paid")
        assert len(await chat.events()) == before
        await chat.add("It was paid after all.")
        await chat.run("So?")
        assert said(way.requests[2]) == ["It was paid after all.", "So?"]


async def test_a_call_that_never_was_is_not_pending() -> None:
    async with talking([text("Hi.")]) as (chat, _):
        await chat.run("Hi.")
        ghost = turnlog.Call(
            id="call_x",
            conversation="c",
            turn=None,
            name="pay",
            kind="function_call",
            status="requested",
            waits_for=None,
            raw={"type": "function_call", "call_id": "x", "name": "pay", "arguments": "{}"},
            _engine=chat._engine,  # pyright: ignore[reportPrivateUsage]
        )
        before = len(await chat.events())
        for verb in (ghost.approve, ghost.rerun, ghost.reject, ghost.abandon):
            with pytest.raises(NotPending, match="call_x"):
                await verb()
        with pytest.raises(NotPending, match="call_x"):
            await ghost.answer("x")
        assert len(await chat.events()) == before


async def test_only_an_uncertain_call_is_run_again() -> None:
    async with talking([call("pay", amount=3)], agent(pay)) as (chat, _):
        await chat.run("Pay.")
        with pytest.raises(NotPending, match="not uncertain"):
            await (await the_call(chat)).rerun()


async def test_arguments_that_are_no_object_are_empty_and_raw() -> None:
    async with talking([call("pay", "{oh")], agent(pay)) as (chat, _):
        result = await chat.run("Pay.")
        assert result.status == "waiting"
        waiting = await the_call(chat)
        assert waiting.arguments == {}
        assert waiting.raw["arguments"] == "{oh"


# -- tools ---------------------------------------------------------------------------------


async def test_what_a_tool_raises_is_told_to_the_model() -> None:
    def broken(x: int) -> str:
        raise ValueError(f"no {x}")

    script = [calls(call("broken", x=7), call("broken", x="seven")), text("Sorry.")]
    async with talking(script, agent(broken)) as (chat, way):
        assert (await chat.run("Break.")).output_text == "Sorry."
        told = sorted(str(one["output"]) for one in outputs(way.requests[1]))
        assert told[0].startswith("The arguments do not fit: x")
        assert told[1] == "ValueError: no 7"
        assert [one.failed for one in await all_of(chat, ev.CallAnswered)] == [True, True]


async def test_a_tool_has_a_time_limit() -> None:
    @turnlog.tool(timeout=0.01)
    async def slow() -> str:
        await asyncio.Event().wait()
        return "never"

    async with talking([call("slow"), text("Sorry.")], agent(slow)) as (chat, way):
        await chat.run("Wait.")
        assert "Timed out" in str(outputs(way.requests[1])[0]["output"])


async def test_a_tool_may_defer_its_answer() -> None:
    def order() -> str:
        raise turnlog.Deferred

    async with talking([call("order"), text("Arrived.")], agent(order)) as (chat, way):
        result = await chat.run("Order.")
        assert (result.status, result.reason) == ("waiting", "deferred")
        waiting = await the_call(chat)
        assert (waiting.status, waiting.waits_for) == ("deferred", "deferred")
        with pytest.raises(NotPending):
            await waiting.approve()
        with pytest.raises(NotPending):
            await waiting.reject()
        await waiting.answer("a parcel")
        assert (await go_on(chat, result.turn)).output_text == "Arrived."
        assert outputs(way.requests[1])[0]["output"] == "a parcel"


async def test_at_most_as_many_tools_run_at_once_as_the_agent_allows() -> None:
    running, most = 0, 0
    both = asyncio.Event()

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            both.set()
        await both.wait()
        running -= 1
        return n

    script = [calls(*(call("work", n=n) for n in range(5))), text("Done.")]
    async with talking(script, agent(work, max_parallel_tools=2)) as (chat, way):
        await chat.run("Work.")
        assert most == 2
        assert sorted(str(one["output"]) for one in outputs(way.requests[1])) == list("01234")


@dataclass
class Bank:
    open: bool = True


async def test_tools_have_deps_ids_and_progress() -> None:
    bank = Bank()
    seen: list[turnlog.ToolContext[Bank]] = []

    async def look(ctx: turnlog.ToolContext[Bank], order: str) -> str:
        assert ctx.deps.open
        seen.append(ctx)
        await ctx.progress(done=0.5)
        return order

    @asynccontextmanager
    async def deps() -> AsyncGenerator[Bank]:
        yield bank
        bank.open = False

    chosen = agent(look, deps=deps)
    async with talking([call("look", order="7"), text("Done.")], chosen) as (chat, _):
        async with chat.stream("Look.") as turn:
            updates = await collect(aiter(turn))
        await turn.result()
        assert not bank.open
        (context,) = seen
        asked = (await all_of(chat, ev.CallRequested))[0]
        assert context.idempotency_key == asked.call
        assert (context.call_id, context.run, context.tool) == ("call_1", 1, "look")
        assert (context.conversation, context.turn) == ("c", turn.id)
        progress = [u for u in updates if isinstance(u, CallUpdate) and u.type == "call.progressed"]
        assert [u.data for u in progress] == [{"done": 0.5}]


async def test_deps_may_come_from_an_async_function() -> None:
    async def deps() -> str:
        return "ready"

    def look(ctx: turnlog.ToolContext[str]) -> str:
        return ctx.deps

    async with talking([call("look"), text("Done.")], agent(look, deps=deps)) as (chat, way):
        await chat.run("Look.")
        assert outputs(way.requests[1])[0]["output"] == "ready"


async def test_a_factory_that_fails_stops_the_turn_and_the_turn_can_be_resumed() -> None:
    working = False

    def deps() -> str:
        if not working:
            raise ConnectionError("no bank")
        return "bank"

    def look(ctx: turnlog.ToolContext[str]) -> str:
        return ctx.deps

    async with talking([call("look"), text("Done.")], agent(look, deps=deps)) as (chat, _):
        with pytest.raises(ConnectionError, match="no bank"):
            await chat.run("Look.")
        state = await chat.state()
        assert (state.status, state.paused) == ("waiting", "stopped")
        working = True
        assert state.turn is not None
        assert (await go_on(chat, state.turn)).output_text == "Done."


async def test_a_tool_that_nobody_has_here_waits_unbound() -> None:
    async with talking([call("elsewhere", x=1), text("Done.")]) as (chat, _):
        result = await chat.run("Go.")
        assert (result.status, result.reason) == ("waiting", "unbound")
        waiting = await the_call(chat)
        assert waiting.waits_for == "unbound"
        await waiting.answer("done there")
        assert (await go_on(chat, result.turn)).output_text == "Done."


async def test_a_call_that_its_tool_is_running_cannot_be_answered() -> None:
    begun, may = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await may.wait()
        return "done"

    async with talking([call("slow"), text("Ok.")], agent(slow)) as (chat, _):
        turn = await chat.send("Go.")
        await begun.wait()
        running = await the_call(chat)
        with pytest.raises(NotPending, match="being run"):
            await running.answer("no need")
        may.set()
        assert (await turn.result()).output_text == "Ok."


async def test_a_call_is_told_in_the_log_before_its_tool_begins() -> None:
    seen: list[str] = []

    async def look() -> str:
        seen.extend(await tags(chats[0]))
        return "ok"

    chats: list[Conversation] = []
    async with talking([call("look"), text("Done.")], agent(look)) as (chat, _):
        chats.append(chat)
        await chat.run("Look.")
        assert seen[-1] == "call.started"


# -- the kinds that are not functions ------------------------------------------------------

KINDS: list[tuple[JsonObject, JsonObject]] = [
    (
        {"type": "custom_tool_call", "call_id": "k1", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "k1", "output": "1"},
    ),
    (
        {"type": "computer_call", "call_id": "k1", "action": {"type": "screenshot"}},
        {
            "type": "computer_call_output",
            "call_id": "k1",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AA"},
        },
    ),
    (
        {"type": "shell_call", "call_id": "k1", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "k1", "output": []},
    ),
    (
        {"type": "local_shell_call", "call_id": "k1", "action": {"type": "exec"}},
        {"type": "local_shell_call_output", "id": "k1", "output": "ok"},
    ),
    (
        {"type": "apply_patch_call", "call_id": "k1", "operation": {"type": "delete_file"}},
        {"type": "apply_patch_call_output", "call_id": "k1", "status": "completed"},
    ),
    (
        {"type": "tool_search_call", "call_id": "k1", "execution": "client", "arguments": {"q": 1}},
        {"type": "tool_search_output", "call_id": "k1", "execution": "client", "tools": []},
    ),
]


@pytest.mark.parametrize(("asked", "answer"), KINDS, ids=lambda value: str(value["type"]))
async def test_every_client_owned_kind_is_surfaced_and_answered(
    asked: JsonObject, answer: JsonObject
) -> None:
    async with talking([item(asked), text("Done.")]) as (chat, way):
        result = await chat.run("Go.")
        assert (result.status, result.reason) == ("waiting", "unbound")
        waiting = await the_call(chat)
        assert (waiting.kind, waiting.call_id) == (asked["type"], "k1")
        if asked["type"] != "custom_tool_call":
            with pytest.raises(InvalidInput, match="whole"):
                await waiting.answer("just text")
        await waiting.answer(answer)
        assert (await go_on(chat, result.turn)).output_text == "Done."
        assert objects(way.requests[1], "input") == [answer]


@pytest.mark.parametrize("asked", [kind for kind, _ in KINDS], ids=lambda value: str(value["type"]))
async def test_every_client_owned_kind_can_be_abandoned(asked: JsonObject) -> None:
    async with talking([item(asked), text("Done.")]) as (chat, _):
        await chat.run("Go.")
        assert (await chat.run("Never mind.", pending="abandon")).output_text == "Done."


async def test_arguments_may_be_an_object_already() -> None:
    async with talking([item(KINDS[-1][0])]) as (chat, _):
        await chat.run("Go.")
        assert (await the_call(chat)).arguments == {"q": 1}


async def test_a_hosted_call_is_nobodys_to_answer() -> None:
    hosted: JsonObject = {"type": "web_search_call", "action": {"type": "search", "query": "x"}}
    async with talking([reply(item(hosted), text("Found."))]) as (chat, _):
        result = await chat.run("Search.")
        assert (result.status, result.output_text) == ("completed", "Found.")
        assert await all_of(chat, ev.CallRequested) == []


# -- pitfalls ------------------------------------------------------------------------------


async def test_w05_a_late_tool_output_is_never_lost() -> None:
    """A's output is there, B's is not: nothing goes out until B has one too, or is abandoned."""
    script = [calls(call("pay", amount=1), call("add", a=1, b=2)), text("Both."), text("So.")]
    async with talking(script, agent(pay, add)) as (chat, way):
        result = await chat.run("Go.")
        assert (result.status, len(way.requests)) == ("waiting", 1)
        await (await the_call(chat)).answer("paid")
        assert (await go_on(chat, result.turn)).output_text == "Both."
        assert sorted(str(one["output"]) for one in outputs(way.requests[1])) == ["3", "paid"]
        assert all(objects(body, "input") for body in way.requests)


async def test_w10_only_calls_of_the_completed_response_are_pending() -> None:
    lost = call("add", a=1, b=2).but(cut_after=6)
    async with talking([lost, call("add", a=3, b=4), text("7.")]) as (chat, way):
        assert (await chat.run("Add.")).output_text == "7."
        assert len(await all_of(chat, ev.CallRequested)) == 1
        assert [one["output"] for one in outputs(way.requests[2])] == ["7"]
        assert (await chat.state()).pending == ()


async def test_w11_a_call_has_a_key_of_its_own_and_the_providers_id_pairs() -> None:
    """A provider that repeats its call ids mixes nothing up."""
    again = [call("add", {"a": 1, "b": 2}, "same"), call("add", {"a": 3, "b": 4}, "same")]
    async with talking([again[0], text("3."), again[1], text("7.")]) as (chat, way):
        await chat.run("One.")
        await chat.run("Two.")
        first, second = await all_of(chat, ev.CallRequested)
        assert first.call != second.call
        assert [outputs(body)[0]["output"] for body in way.requests[1::2]] == ["3", "7"]
        assert [outputs(body)[0]["call_id"] for body in way.requests[1::2]] == ["same", "same"]


async def test_w30_a_tool_runs_only_when_its_response_has_completed() -> None:
    ran: list[int] = []

    def note(n: int) -> str:
        ran.append(n)
        return "ok"

    script = [call("note", n=1).but(no_terminal=True), call("note", n=2), text("Done.")]
    async with talking(script, agent(note)) as (chat, _):
        await chat.run("Note.")
        assert ran == [2]


async def test_a_pending_call_is_in_the_inbox_of_the_log() -> None:
    async with opened([call("pay", amount=3), text("Ok.")], agent(pay)) as log:
        chat = await log.conversation("c", agent="test")
        result = await chat.run("Pay.")
        (row,) = await log.pending()
        assert (row.conversation, row.call, row.name) == ("c", result.pending[0], "pay")
        assert await log.pending(after=(row.conversation, row.call)) == []
        await (await the_call(chat)).abandon()
        assert await log.pending() == []
