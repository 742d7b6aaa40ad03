"""What was really heard of an answer that was spoken: as an edit, or as a note (laws 3 and 9)."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, objects, text
from turnlog.conversation import Conversation
from turnlog.errors import InvalidInput, NotFound, NotPending
from turnlog.testing import call, calls, item, reasoning, refusal, reply
from turnlog.testing import incomplete as cut_off
from turnlog.testing import text as words
from turnlog.truncating import Mode, cut, said

from .given import add, agent, all_of, opened, pay, tags, talking
from .given import said as sent

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."
HEARD = "It was a bright"


async def last(chat: Conversation) -> str:
    """The text of the newest item."""
    return (await chat.items())[-1].text


async def truncations(chat: Conversation) -> list[tuple[str, str]]:
    """How much was heard, and how that was told."""
    return [(one.heard, one.mode) for one in await all_of(chat, ev.OutputTruncated)]


async def cut_short(chat: Conversation) -> turnlog.Turn[object]:
    """A turn of which a listener has heard something."""
    turn = await chat.send("Go.")
    async for update in turn:
        if update.type == "text.delta" and "bright" in LONG[: update.cursor.offset]:
            return turn
    raise AssertionError("nothing was said")


# -- a completed turn, as an edit ------------------------------------------------------------


async def test_the_message_is_left_with_what_was_heard() -> None:
    async with talking([words(LONG), words("Yes.")]) as (chat, way):
        result = await chat.run("Go.")
        before = (await chat.items())[-1]
        await (await chat.turn(result.turn)).truncate(heard=f"{HEARD} \n", by="ana")
        after = (await chat.items())[-1]
        assert (after.text, after.id, after.key) == (HEARD, None, before.key)
        truncated, edited_ = (await chat.events())[-2:]
        assert truncated.event == ev.OutputTruncated(key=before.key, heard=HEARD, mode="edit")
        assert (truncated.actor, truncated.turn, edited_.tag) == ("ana", result.turn, "item.edited")
        assert (await chat.run("And?")).output_text == "Yes."
        assert sent(way.requests[1]) == ["Go.", HEARD, "And?"]
        assert "previous_response_id" not in way.requests[1]


async def test_the_same_again_changes_nothing_and_another_corrects_it() -> None:
    async with talking([words(LONG)]) as (chat, _):
        turn = await chat.turn((await chat.run("Go.")).turn)
        for heard in (HEARD, f"{HEARD} ", HEARD):
            await turn.truncate(heard=heard)
        assert await truncations(chat) == [(HEARD, "edit")]
        await turn.truncate(heard="It was")
        assert await last(chat) == "It was"
        await turn.truncate(heard=LONG)
        assert await last(chat) == LONG
        await turn.truncate(heard=LONG)
        assert [heard for heard, _ in await truncations(chat)] == [HEARD, "It was", LONG]


@pytest.mark.parametrize("mode", ["edit", "note"])
async def test_all_of_it_was_heard(mode: Mode) -> None:
    async with talking([words(f"{LONG}\n"), words("Yes.")]) as (chat, way):
        turn = await chat.turn((await chat.run("Go.")).turn)
        await turn.truncate(heard=LONG, mode=mode)
        assert await truncations(chat) == []
        await chat.run("And?")
        assert sent(way.requests[1]) == ["And?"]


async def test_nothing_of_it_was_heard() -> None:
    async with talking([reply(reasoning("Hm."), words(LONG)), words("Yes.")]) as (chat, way):
        turn = await chat.turn((await chat.run("Go.")).turn)
        for _ in range(2):
            await turn.truncate(heard="  ")
        assert await truncations(chat) == [("", "edit")]
        assert "item.removed" in await tags(chat)
        with pytest.raises(InvalidInput, match="was removed"):
            await turn.truncate(heard=HEARD)
        await chat.run("And?")
        assert sent(way.requests[1]) == ["Go.", "And?"]


async def test_a_later_turn_may_have_begun() -> None:
    async with talking([words(LONG), words("Yes."), words("No.")]) as (chat, way):
        turn = await chat.turn((await chat.run("Go.")).turn)
        await chat.run("And?")
        await turn.truncate(heard=HEARD)
        await chat.run("Really?")
        assert sent(way.requests[2]) == ["Go.", HEARD, "And?", "Yes.", "Really?"]
        with pytest.raises(InvalidInput, match='mode="edit"'):
            await turn.truncate(heard=HEARD, mode="note")


async def test_the_next_request_forks_where_an_older_response_was_not_touched() -> None:
    async with talking([words("One."), words(LONG), words("Yes.")]) as (chat, way):
        first = await chat.run("Go.")
        turn = await chat.turn((await chat.run("On.")).turn)
        await turn.truncate(heard=HEARD)
        await chat.run("And?")
        assert way.requests[2]["previous_response_id"] == first.response
        assert sent(way.requests[2]) == ["On.", HEARD, "And?"]


async def test_of_several_messages_the_last_is_meant_and_calls_are_left_alone() -> None:
    both = calls(words("One."), call("add", a=1, b=2))
    async with talking([both, reply(words("Two."), words(LONG)), words("Yes.")]) as (chat, way):
        turn = await chat.turn((await chat.run("Go.")).turn)
        await turn.truncate(heard=HEARD)
        await chat.run("And?")
        heard = ["Go.", "One.", "function_call", "function_call_output", "Two.", HEARD, "And?"]
        assert sent(way.requests[-1]) in (heard, heard[3:])


async def test_a_turn_that_waits_goes_on_waiting() -> None:
    both = calls(words(LONG), call("pay", amount=3))
    async with talking([both, words("Paid.")], agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        turn = await chat.turn(result.turn)
        await turn.truncate(heard=HEARD)
        (waiting,) = (await chat.state()).pending
        await waiting.approve()
        assert (await (await turn.resume()).result()).output_text == "Paid."
        assert sent(way.requests[1]) == ["Pay.", HEARD, "function_call", "function_call_output"]
        with pytest.raises(NotPending):
            await waiting.approve()


async def test_what_the_caller_made_of_an_answer_is_cut_too() -> None:
    async with talking([words(LONG)]) as (chat, _):
        turn = await chat.turn((await chat.run("Go.")).turn)
        await chat.edit((await chat.items())[-1], {"role": "assistant", "content": "Hello, you."})
        await turn.truncate(heard="Hello")
        assert await last(chat) == "Hello"
        await turn.truncate(heard=HEARD)
        assert await last(chat) == HEARD


# -- a completed turn, as a note -------------------------------------------------------------


async def test_a_note_keeps_the_chain() -> None:
    async with talking([words(LONG), words("Yes.")]) as (chat, way):
        result = await chat.run("Go.")
        turn = await chat.turn(result.turn)
        for _ in range(2):
            await turn.truncate(heard=HEARD, mode="note")
        assert await truncations(chat) == [(HEARD, "note")]
        await chat.run("And?")
        assert way.requests[1]["previous_response_id"] == result.response
        note, _ = objects(way.requests[1], "input")
        assert note["role"] == "developer"
        assert f'only up to: "{HEARD}"' in str(note["content"])


@pytest.mark.parametrize(
    ("heard", "told"),
    [("", "before hearing any of it"), (LONG[:60], f'only up to: "…{LONG[20:60]}"')],
)
async def test_a_note_says_where_it_was(heard: str, told: str) -> None:
    async with talking([words(LONG)]) as (chat, _):
        turn = await chat.turn((await chat.run("Go.")).turn)
        await turn.truncate(heard=heard, mode="note")
        assert told in await last(chat)
        assert (await chat.items())[-2].text == LONG


# -- a turn that still speaks ----------------------------------------------------------------


async def test_a_turn_that_speaks_is_cancelled_and_what_was_heard_enters_the_context() -> None:
    async with talking([words(LONG).but(stall_after=8), words("Yes.")]) as (chat, way):
        turn = await cut_short(chat)
        for _ in range(2):
            await turn.truncate(heard=HEARD, by="ana")
        result = await turn.result()
        assert (result.status, result.reason) == ("cancelled", "truncated")
        assert await truncations(chat) == [(HEARD, "edit")]
        (asked,) = [one for one in await chat.events() if one.tag == "turn.cancel_requested"]
        assert asked.actor == "ana"
        await turn.truncate(heard="It was")
        await chat.run("And?")
        assert sent(way.requests[1]) == ["Go.", "It was", "And?"]


async def test_a_turn_that_speaks_and_a_note() -> None:
    thought = reply(reasoning("Hm."), words(LONG)).but(stall_after=14)
    async with talking([thought, words("Yes.")]) as (chat, way):
        turn = await cut_short(chat)
        for _ in range(2):
            await turn.truncate(heard=HEARD, mode="note")
        await chat.run("And?")
        told = "You were interrupted there: the user heard no more of it."
        assert sent(way.requests[1]) == ["Go.", HEARD, told, "And?"]


async def test_a_note_may_follow_an_edit() -> None:
    async with talking([words(LONG).but(stall_after=8)]) as (chat, _):
        turn = await cut_short(chat)
        await turn.truncate(heard=HEARD)
        await turn.truncate(heard=HEARD, mode="note")
        said_ = [one.text for one in await chat.items()]
        assert said_[:2] == ["Go.", HEARD] and "interrupted there" in said_[2]
        assert await truncations(chat) == [(HEARD, "edit"), (HEARD, "note")]


async def test_nothing_was_heard_of_a_turn_that_speaks() -> None:
    async with talking([words(LONG).but(stall_after=8)]) as (chat, _):
        turn = await cut_short(chat)
        for _ in range(2):
            await turn.truncate(heard="")
        assert await truncations(chat) == [("", "edit")]
        assert [one.text for one in await chat.items()] == ["Go."]
        await turn.truncate(heard=HEARD)
        await turn.truncate(heard="")
        assert [one.text for one in await chat.items()] == ["Go."]
        await turn.truncate(heard="", mode="note")
        assert "before hearing any of it" in await last(chat)


async def test_what_was_heard_of_an_interrupted_turn_stands_before_what_came_later() -> None:
    async with talking([words(LONG).but(stall_after=8), words("Yes."), words("No.")]) as (
        chat,
        way,
    ):
        turn = await cut_short(chat)
        await turn.cancel()
        added = await chat.add("An aside.")
        assert added
        await chat.remove((await chat.items())[-1])
        await chat.run("And?")
        await turn.truncate(heard=HEARD)
        await chat.run("Really?")
        assert sent(way.requests[2]) == ["Go.", HEARD, "And?", "Yes.", "Really?"]


async def test_of_a_response_that_stopped_early_the_context_has_what_was_heard() -> None:
    async with talking([cut_off(text=LONG), words("Yes.")]) as (chat, way):
        result = await chat.run("Go.")
        assert result.status == "incomplete"
        await (await chat.turn(result.turn)).truncate(heard=HEARD)
        await chat.run("And?")
        assert sent(way.requests[1]) == ["Go.", HEARD, "And?"]


async def test_what_was_retracted_is_not_what_was_said() -> None:
    script = [words(LONG).but(stall_after=8), calls(call("pay", amount=3))]
    async with opened(script, agent(pay)) as log:
        chat = await log.conversation("c", agent="test")
        turn = await cut_short(chat)
        await chat._engine.live["c"].stop("stopped")  # pyright: ignore[reportPrivateUsage]
        assert (await (await turn.resume()).peek()).status == "waiting"
        with pytest.raises(InvalidInput, match="said nothing"):
            await turn.truncate(heard=HEARD)
        assert (await turn.peek()).status == "waiting"


async def test_a_turn_that_was_stopped_ends_there() -> None:
    async with talking([words(LONG).but(stall_after=8)]) as (chat, _):
        turn = await cut_short(chat)
        await chat._engine.live["c"].stop("stopped")  # pyright: ignore[reportPrivateUsage]
        assert (await turn.peek()).status == "waiting"
        await turn.truncate(heard=HEARD)
        assert (await turn.peek()).status == "cancelled"
        assert await last(chat) == HEARD


async def test_a_turn_that_runs_a_tool_is_cancelled_and_its_message_cut() -> None:
    async def forever() -> str:
        await asyncio.Event().wait()
        return "never"

    both = calls(words(LONG), call("forever"))
    async with talking([both, words("Yes.")], agent(forever)) as (chat, way):
        turn = await chat.send("Go.")
        async for update in turn:
            if update.type == "call.started":
                break
        await turn.truncate(heard=HEARD)
        assert (await turn.peek()).status == "cancelled"
        await chat.run("And?")
        assert sent(way.requests[1])[1] == HEARD


# -- what cannot be --------------------------------------------------------------------------


async def test_what_was_not_said_cannot_have_been_heard() -> None:
    async with talking([words(LONG)]) as (chat, _):
        turn = await chat.turn((await chat.run("Go.")).turn)
        before = len(await chat.events())
        for mode in ("edit", "note"):
            with pytest.raises(InvalidInput, match=r"from character 16.*cold.*warm") as error:
                await turn.truncate(heard="It was a bright warm day in May", mode=mode)
            assert len(str(error.value)) < 250
        with pytest.raises(InvalidInput, match="from character 73"):
            await turn.truncate(heard=f"{LONG} And on.")
        with pytest.raises(InvalidInput, match="heard= is the text"):
            await turn.truncate(heard=cast("str", None))
        with pytest.raises(InvalidInput, match='mode= is "edit" or "note"'):
            await turn.truncate(heard="", mode=cast("Mode", "loud"))
        assert len(await chat.events()) == before


async def test_where_nothing_was_said_nothing_was_heard() -> None:
    async with talking([call("pay", amount=3)], agent(pay)) as (chat, _):
        turn = await chat.turn((await chat.run("Pay.")).turn)
        await turn.truncate(heard="")
        with pytest.raises(InvalidInput, match="said nothing"):
            await turn.truncate(heard="Hi")
        with pytest.raises(NotFound):
            await turnlog.Turn("turn_x", "c", chat._engine).truncate(heard="")  # pyright: ignore[reportPrivateUsage]
        assert await truncations(chat) == []


# -- messages ------------------------------------------------------------------------------


def message(*parts: JsonObject) -> JsonObject:
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": list(parts)}


def spoken(words: str, *annotations: JsonObject) -> JsonObject:
    return {"type": "output_text", "text": words, "annotations": list(annotations), "logprobs": []}


def test_parts_are_cut_at_the_last_word_that_was_heard() -> None:
    near: JsonObject = {"type": "url_citation", "start_index": 0, "end_index": 3, "url": "a"}
    far: JsonObject = {"type": "url_citation", "start_index": 2, "end_index": 9, "url": "b"}
    of_all: JsonObject = {"type": "file_citation", "index": 0, "file_id": "f"}
    picture: JsonObject = {"type": "output_image", "image_url": "data:,"}
    first, second = spoken("One, ", far), spoken("two, three.", near, far, of_all)
    whole = message(first, picture, second, picture, spoken("Four."))
    assert said(whole) == "One, two, three.Four."
    short = cut(whole, "One, two")
    assert objects(short, "content") == [
        first,
        picture,
        {"type": "output_text", "text": "two", "annotations": [near]},
    ]
    assert (short["id"], short["role"]) == ("msg_1", "assistant")
    assert cut(whole, said(whole)) == whole
    assert objects(cut(whole, "One, "), "content") == [first]


def test_a_refusal_is_spoken_and_text_may_be_plain() -> None:
    refused = message({"type": "refusal", "refusal": "I cannot."})
    assert said(refused) == "I cannot."
    (part,) = objects(cut(refused, "I can"), "content")
    assert part == {"type": "refusal", "refusal": "I can"}
    plain: JsonObject = {"type": "message", "role": "assistant", "content": "Hello"}
    assert (said(plain), text(cut(plain, "He"), "content")) == ("Hello", "He")
    assert said({"type": "reasoning", "summary": []}) == ""


async def test_a_refusal_is_cut_short_while_it_is_spoken() -> None:
    async with talking([refusal(LONG).but(stall_after=8)]) as (chat, way):
        turn = await chat.send("Go.")
        async for update in turn:
            if update.type == "refusal.delta" and update.cursor.offset > len(HEARD):
                break
        await turn.truncate(heard=HEARD)
        assert await last(chat) == HEARD
        assert len(way.requests) == 1


async def test_a_message_of_another_shape_is_cut_as_it_is() -> None:
    odd: JsonObject = {**message(spoken(LONG)), "phase": "final_answer"}
    async with talking([item(odd), words("Yes.")], agent(add)) as (chat, _):
        turn = await chat.turn((await chat.run("Go.")).turn)
        await turn.truncate(heard=HEARD)
        assert (await chat.items())[-1].raw["phase"] == "final_answer"
