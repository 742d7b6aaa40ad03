"""The context: read, as it was, changed by hand, and forked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.conversation import Conversation
from turnlog.diff import Added, Difference, Kept
from turnlog.errors import (
    Busy,
    InvalidInput,
    ItemPresent,
    NotFound,
    RequestOpen,
    VersionConflict,
)
from turnlog.items import type_of
from turnlog.ports import ConversationRow
from turnlog.testing import call, calls, reasoning, reply, text

from .given import add, agent, all_of, opened, pay, said, tags, talking, until


def user(words: str, **fields: str) -> JsonObject:
    return {"type": "message", "role": "user", "content": words, **fields}


def kinds(found: Sequence[Difference]) -> list[str]:
    return [type(one).__name__ for one in found if not isinstance(one, Kept)]


# -- reading -------------------------------------------------------------------------------


async def test_items_are_the_context_and_turns_are_for_people() -> None:
    script = [text("One."), call("add", a=1, b=2), text("3.")]
    async with talking(script) as (chat, _):
        first = await chat.run("1")
        second = await chat.run("2")
        items = await chat.items()
        assert [one.type for one in items] == [
            "message",
            "message",
            "message",
            "function_call",
            "function_call_output",
            "message",
        ]
        assert [one.ordinal for one in items] == list(range(6))
        assert (items[1].text, items[1].role, items[1].response) == ("One.", "assistant", "resp_1")
        assert (items[0].id, items[1].id) == (None, "msg_1")
        assert [one.key for one in await chat.items(last=2)] == [one.key for one in items[-2:]]
        assert [row.turn for row in await chat.turns()] == [first.turn, second.turn]
        assert [row.turn for row in await chat.turns(last=1)] == [second.turn]
        state = await chat.state()
        assert (state.turns, state.items, state.parent, state.agent, state.model) == (
            2,
            6,
            "resp_3",
            "test",
            "gpt-5",
        )
        assert (await chat.events(after=state.version)) == []


async def test_a_conversation_as_it_was() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        first = await chat.run("1")
        then = (await chat.state()).version
        times = [one.time for one in await chat.events()]
        await chat.run("2")
        now = (await chat.state()).version
        by_turn = await chat.at(turn=first.turn)
        assert by_turn.version == then
        assert [one.text or one.raw for one in await by_turn.items()][-1] == "One."
        assert (await chat.at(version=then)).state == by_turn.state
        assert (await chat.at(time=times[-1] / 1e6)).version == then
        assert len(await (await chat.at(version=now)).items()) == 4
        assert len(await (await chat.at(version=now)).items(last=1)) == 1
        for version in range(1, now + 1):
            assert (await chat.at(version=version)).state.version == version


async def test_at_an_open_turn_is_now() -> None:
    async with talking([call("pay", amount=3)], agent(pay)) as (chat, _):
        result = await chat.run("Pay.")
        view = await chat.at(turn=result.turn)
        assert view.version == (await chat.state()).version
        assert [call.name for call in view.state.pending] == ["pay"]


async def test_places_that_do_not_exist() -> None:
    async with talking([text("One.")]) as (chat, _):
        await chat.run("1")
        now = (await chat.state()).version
        for wrong in (0, -1, now + 1):
            with pytest.raises(NotFound, match=f"no version {wrong}: it has {now}"):
                await chat.at(version=wrong)
        with pytest.raises(NotFound, match="no turn 'turn_x'"):
            await chat.at(turn="turn_x")
        with pytest.raises(NotFound, match="version 0"):
            await chat.at(time=1.0)
        for wrong_call in (chat.at(), chat.at(version=1, turn="x")):
            with pytest.raises(InvalidInput, match="exactly one"):
                await wrong_call


async def test_what_differs_between_two_versions() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        await chat.run("1")
        then = (await chat.state()).version
        await chat.run("2")
        found = [one for one in await chat.diff(then) if isinstance(one, Added)]
        assert [type_of(one.item) for one in found] == ["message", "message"]
        assert await chat.diff(then, then) == await chat.diff(then, then)


# -- changing ------------------------------------------------------------------------------


async def test_what_is_added_goes_along_with_the_next_request() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, way):
        await chat.add("Before.", by="ana")
        await chat.run("1")
        version = await chat.add({"role": "developer", "content": "Be kind."})
        assert version == (await chat.state()).version
        await chat.run("2")
        assert said(way.requests[0]) == ["Before.", "1"]
        assert way.requests[1]["previous_response_id"] == "resp_1"
        assert len(said(way.requests[1])) == 2
        assert (await chat.events())[0].actor == "ana"


async def test_adding_to_a_conversation_that_has_no_agent_makes_one() -> None:
    async with opened([text("Hi.")], agent()) as log:
        chat = await log.conversation("c")
        await chat.add("Before.")
        assert await tags(chat) == ["conversation.started", "item.added"]
        other = await log.conversation("c", agent="test")
        assert (await other.run("Hi.")).output_text == "Hi."


async def test_an_item_that_is_there_already_is_refused() -> None:
    async with talking([text("One.")]) as (chat, _):
        await chat.add(user("Hello.", id="msg_own"))
        await chat.run("1")
        answer = (await chat.items())[-1].raw
        before = await chat.events()
        for again in (answer, user("Other words.", id="msg_own")):
            with pytest.raises(ItemPresent, match="replace"):
                await chat.add(again)
            with pytest.raises(ItemPresent, match="replace"):
                await chat.run(again)
        with pytest.raises(ItemPresent):
            await chat.add(user("a", id="msg_new"), user("b", id="msg_new"))
        assert await chat.events() == before


async def test_a_user_message_without_an_id_is_new_each_time() -> None:
    async with talking([text("One.")]) as (chat, way):
        await chat.add("Same.")
        await chat.add("Same.")
        await chat.run("1")
        assert said(way.requests[0]) == ["Same.", "Same.", "1"]


async def test_an_output_of_an_open_call_is_answered_and_not_added() -> None:
    async with talking([call("pay", amount=3), text("Ok.")], agent(pay)) as (chat, _):
        await chat.run("Pay.")
        output = {"type": "function_call_output", "call_id": "call_1", "output": "paid"}
        with pytest.raises(InvalidInput, match=r"call\.answer"):
            await chat.add(output)
        (waiting,) = (await chat.state()).pending
        await waiting.answer("paid")
        with pytest.raises(ItemPresent):
            await chat.add(output)


async def test_only_who_expects_a_version_sees_a_conflict() -> None:
    async with talking([text("One.")]) as (chat, _):
        await chat.add("a", expected_version=0)
        version = await chat.add("b")
        with pytest.raises(VersionConflict) as caught:
            await chat.add("c", expected_version=version - 1)
        assert (caught.value.expected, caught.value.actual) == (version - 1, version)
        assert (await chat.state()).version == version


async def test_w06_an_edit_at_or_before_the_parent_is_an_event_and_forces_another_request() -> None:
    async with talking([text("One."), text("Two."), text("Three."), text("Four.")]) as (chat, way):
        await chat.add({"role": "system", "content": "Be brief.", "id": "sys_1"})
        await chat.run("1")
        await chat.run("2")
        first, *_ = await chat.items()
        await chat.edit("sys_1", {"role": "system", "content": "Be long."}, by="ana")
        edited = (await chat.items())[0]
        assert (edited.key, edited.text) == (first.key, "Be long.")
        await chat.run("3")
        assert "previous_response_id" not in way.requests[2]
        assert said(way.requests[2])[0] == "Be long."
        await chat.run("4")
        assert way.requests[3]["previous_response_id"] == "resp_3"


async def test_an_edit_behind_an_older_response_forks_from_it() -> None:
    async with talking([text("One."), text("Two."), text("Three.")]) as (chat, way):
        await chat.run("1")
        await chat.run("2")
        answer = (await chat.items())[-1]
        await chat.edit(answer, {**answer.raw, "content": [{"type": "output_text", "text": "2!"}]})
        edited = (await chat.items())[-1]
        assert (edited.text, edited.id) == ("2!", None)
        await chat.run("3")
        assert way.requests[2]["previous_response_id"] == "resp_1"
        assert said(way.requests[2]) == ["2", "2!", "3"]


async def test_w18_an_answer_that_was_cut_short_by_hand_is_told_as_it_was_heard() -> None:
    async with talking([text("A very long answer."), text("Fine.")]) as (chat, way):
        await chat.run("1")
        await chat.edit("msg_1", {"role": "assistant", "content": "A very long"})
        await chat.run("2")
        assert "previous_response_id" not in way.requests[1]
        assert said(way.requests[1])[:1] == ["1"]
        assert "A very long" in str(way.requests[1]["input"])
        assert "answer" not in str(way.requests[1]["input"])


async def test_an_item_is_removed_from_the_context_and_stays_in_the_log() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, way):
        await chat.run("1")
        await chat.remove((await chat.items())[0])
        assert [one.text for one in await chat.items()] == ["One."]
        assert "item.removed" in await tags(chat)
        await chat.run("2")
        assert "previous_response_id" not in way.requests[1]
        assert said(way.requests[1]) == ["One.", "2"]
        with pytest.raises(NotFound, match="no item 'itm_x'"):
            await chat.remove("itm_x")
        with pytest.raises(NotFound, match="no item 'itm_x'"):
            await chat.edit("itm_x", "new")


async def test_nothing_is_changed_while_a_request_is_out() -> None:
    async with talking([text("One."), text("Two.").but(stall_after=2)]) as (chat, way):
        await chat.run("1")
        turn = await chat.send("2")
        await until(lambda: len(way.requests) == 2)
        first = (await chat.items())[0]
        for change in (
            chat.edit(first, "new"),
            chat.remove(first),
            chat.replace(["only"]),
        ):
            with pytest.raises(Busy):
                await change
        await chat.add("Meanwhile.")
        await turn.cancel()


async def test_w07_what_is_added_while_a_request_is_out_is_sent_with_the_next() -> None:
    async with talking([text("One.").but(delay=0.002), text("Two.")]) as (chat, way):
        turn = await chat.send("1")
        await until(lambda: bool(way.requests))
        await chat.add("Meanwhile.")
        await turn.result()
        assert [one.text or "?" for one in await chat.items()] == ["1", "One.", "Meanwhile."]
        await chat.run("2")
        assert way.requests[1]["previous_response_id"] == "resp_1"
        assert said(way.requests[1]) == ["Meanwhile.", "2"]


async def test_w07_what_the_caller_changes_afterwards_changes_nothing() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, way):
        message: dict[str, object] = {
            "role": "user",
            "content": [{"type": "input_text", "text": "1"}],
        }
        await chat.run(message)
        message["content"] = "forged"
        await chat.run("2")
        assert way.requests[1]["previous_response_id"] == "resp_1"
        assert "forged" not in str(await chat.events())


async def test_replace_makes_the_context_equal_a_list_and_records_the_difference() -> None:
    async with talking([text("One."), text("Two."), text("Three.")]) as (chat, way):
        await chat.run("1")
        await chat.run("2")
        now = await chat.items()
        wanted = [user("Zero."), now[0], *[one.raw for one in now[1:3]], user("End.")]
        found = await chat.replace(wanted, by="ana")
        assert kinds(found) == ["Added", "Removed", "Added"]
        after = [one.raw for one in await chat.items()]
        assert after == [user("Zero."), *(one.raw for one in now[:3]), user("End.")]
        assert await chat.replace(after) == await chat.replace(after)
        await chat.run("3")
        assert len(said(way.requests[2])) == 6


async def test_replace_knows_items_by_id_and_others_by_equality_and_order() -> None:
    async with talking([text("One.")]) as (chat, _):
        await chat.run("1")
        _, answer = await chat.items()
        changed = {**answer.raw, "content": [{"type": "output_text", "text": "Changed."}]}
        found = await chat.replace([{"role": "user", "content": "1"}, changed])
        assert kinds(found) == ["Removed", "Added", "Edited"]
        assert (await chat.items())[-1].key == answer.key
        assert await chat.replace([]) != []
        assert await chat.items() == []
        with pytest.raises(InvalidInput, match="twice"):
            await chat.replace([user("a", id="msg_a"), user("b", id="msg_a")])


async def test_replacing_nothing_by_the_same_writes_nothing() -> None:
    async with talking([text("One.")]) as (chat, _):
        await chat.run("1")
        before = await chat.events()
        await chat.replace(await chat.items())
        assert await chat.events() == before


# -- forks ---------------------------------------------------------------------------------


async def test_a_fork_of_now_goes_its_own_way_from_the_same_response() -> None:
    async with talking([text("One."), text("Two."), text("Other.")]) as (chat, way):
        await chat.run("1")
        branch = await chat.fork("c2", by="ana")
        await chat.run("2")
        result = await branch.run("3")
        assert result.output_text == "Other."
        assert way.requests[2]["previous_response_id"] == "resp_1"
        assert said(way.requests[2]) == ["3"]
        assert [one.text for one in await branch.items()] == ["1", "One.", "3", "Other."]
        assert [one.text for one in await chat.items()] == ["1", "One.", "2", "Two."]
        started = (await branch.events())[0].event
        assert isinstance(started, ev.ConversationStarted) and started.fork is not None
        assert started.fork.conversation == "c"


async def test_a_fork_before_a_turn_is_another_answer_to_the_same_past() -> None:
    """W-15: to regenerate is to fork, and never an empty input."""
    async with talking([text("One."), text("Two."), text("Two, again.")]) as (chat, way):
        await chat.run("1")
        second = await chat.run("2")
        branch = await chat.fork(before=second.turn)
        assert branch.id.startswith("c~")
        assert (await branch.run("2")).output_text == "Two, again."
        assert way.requests[2]["previous_response_id"] == "resp_1"
        assert said(way.requests[2]) == ["2"]


async def test_a_fork_at_a_version_and_a_fork_of_a_fork() -> None:
    async with talking([text("One."), text("Two."), text("Three.")]) as (chat, way):
        first = await chat.run("1")
        then = (await chat.at(turn=first.turn)).version
        await chat.run("2")
        branch = await chat.fork("b", at=then)
        deeper = await branch.fork("d")
        await deeper.run("3")
        assert [one.text for one in await deeper.items()] == ["1", "One.", "3", "Three."]
        assert way.requests[2]["previous_response_id"] == "resp_1"
        assert [one.text for one in await (await deeper.at(version=1)).items()] == ["1", "One."]


async def test_a_fork_abandons_unanswered_calls_and_carries_answers_that_were_not_sent() -> None:
    script = [calls(call("pay", amount=1), call("add", a=1, b=2)), text("Here."), text("There.")]
    async with talking(script, agent(pay, add)) as (chat, way):
        result = await chat.run("Go.")
        branch = await chat.fork("b")
        (abandoned,) = await all_of(branch, ev.CallAbandoned)
        assert abandoned.reason == "forked"
        (answered,) = await all_of(branch, ev.CallAnswered)
        assert answered.item["output"] == "3"
        assert (await branch.run("And?")).output_text == "Here."
        assert said(way.requests[1]) == ["function_call_output", "function_call_output", "And?"]
        (waiting,) = (await chat.state()).pending
        await waiting.approve()
        await (await chat.turn(result.turn)).resume()
        assert (await (await chat.turn(result.turn)).result()).output_text == "There."


async def test_a_fork_where_a_request_is_open_names_the_nearest_legal_point() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        await chat.run("1")
        prepared = next(one.version for one in await chat.events() if one.tag == "request.prepared")
        before = [row.id for row in await _rows(chat)]
        with pytest.raises(
            RequestOpen, match=f"nearest version to fork at is {prepared - 1}"
        ) as caught:
            await chat.fork(at=prepared)
        assert caught.value.nearest == prepared - 1
        assert [row.id for row in await _rows(chat)] == before
        branch = await chat.fork(at=caught.value.nearest)
        assert [one.text for one in await branch.items()] == []


async def _rows(chat: Conversation) -> list[ConversationRow]:
    return await chat._engine.store.conversations()  # pyright: ignore[reportPrivateUsage]


async def test_forks_that_cannot_be() -> None:
    async with talking([text("One.")]) as (chat, _):
        first = await chat.run("1")
        await chat.fork("b")
        for id in ("b", "c"):
            with pytest.raises(InvalidInput, match="already"):
                await chat.fork(id)
        with pytest.raises(InvalidInput, match="not both"):
            await chat.fork(before=first.turn, at=1)
        with pytest.raises(NotFound):
            await chat.fork(before="turn_x")
        with pytest.raises(NotFound):
            await chat.fork(at=99)
        with pytest.raises(InvalidInput, match="not empty"):
            await chat.fork("")


@pytest.mark.parametrize("moved_on", [False, True])
async def test_a_fork_of_an_unstored_chain_is_full_once_that_has_moved_on(moved_on: bool) -> None:
    script = [text("One."), text("Two."), text("Three.")]
    async with talking(script, agent(add, store=False)) as (chat, way):
        await chat.run("1")
        branch = await chat.fork("b")
        if moved_on:
            await chat.run("on")
        await branch.run("2")
        full = ["1", "One.", "2"]
        assert said(way.requests[-1]) == (full if moved_on else ["2"])


async def test_w17_a_full_request_holds_everything_the_model_said() -> None:
    script = [
        reply(reasoning("Hm.", encrypted="sealed"), text("One.")),
        text("Two."),
    ]
    async with talking(script) as (chat, way):
        await chat.run("1")
        await chat.edit((await chat.items())[0], "1!")
        await chat.run("2")
        thought = way.requests[1]["input"]
        assert "sealed" in str(thought)
        assert said(way.requests[1]) == ["1!", "reasoning", "One.", "2"]
