"""Corners: what is rare, and must still come out right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.context import body_of, load, requested
from turnlog.conversation import Conversation
from turnlog.errors import (
    Busy,
    Closed,
    InvalidInput,
    ItemPresent,
    NotFound,
    NotPending,
    OutcomeUnknown,
    StoreCorrupt,
    TurnFailed,
)
from turnlog.ports import Append, Appended, Placed
from turnlog.record import Recorded
from turnlog.state import start
from turnlog.store import MemoryStore
from turnlog.testing import call, calls, scripted, text
from turnlog_transports.replay import ReplayTransport

from .given import add, agent, all_of, collect, opened, pay, recorded, said, talking, texts

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."


class Forgetful(MemoryStore):
    """A store whose commits happen, and whose answers get lost on the way."""

    lost = 0

    async def append(self, append: Append) -> Appended:
        done = await super().append(append)
        self.lost += 1
        if self.lost % 2:
            raise OutcomeUnknown("the disk went away")
        return done


async def test_a_commit_whose_answer_is_lost_is_asked_about_with_the_same_ids() -> None:
    """Law 5 of the store: nothing is written twice, and nothing is lost."""
    store = Forgetful()
    async with talking([call("add", a=1, b=2), text("3.")], store=store) as (chat, _):
        assert (await chat.run("Add.")).output_text == "3."
        assert [one.version for one in await chat.events()] == list(
            range(1, (await chat.state()).version + 1)
        )
        assert store.lost > 4


async def test_an_import_asks_about_a_commit_whose_answer_is_lost() -> None:
    async with opened([text("Hi.")], agent()) as log:
        await (await log.conversation("c", agent="test")).run("Hi.")
        lines = [line async for line in log.export("c")]
    store = Forgetful()
    async with opened([], agent(), store=store) as log:
        assert (await log.import_(lines)).written == len(lines) - 1
        assert store.lost > 1


async def test_a_store_that_never_answers_is_an_error_in_the_end() -> None:
    class Lost(MemoryStore):
        async def append(self, append: Append) -> Appended:
            raise OutcomeUnknown("the disk went away")

    async with opened([text("Hi.")], agent(), store=Lost()) as log:
        chat = await log.conversation("c", agent="test")
        with pytest.raises(OutcomeUnknown):
            await chat.run("Hi.")


async def test_a_call_by_its_id() -> None:
    async with talking([call("pay", amount=3), text("Ok.")], agent(pay)) as (chat, _):
        result = await chat.run("Pay.")
        (id,) = result.pending
        found = await chat.call(id)
        assert (found.name, found.waits_for) == ("pay", "approval")
        await found.answer("paid")
        assert (await chat.call(id)).waits_for is None
        with pytest.raises(NotPending, match="call_x"):
            await chat.call("call_x")


async def test_a_conversation_that_was_never_configured_says_so() -> None:
    async with opened([text("Hi.")]) as log:
        chat = await log.conversation("c")
        with pytest.raises(NotFound, match="give it an agent"):
            await chat.run("Hi.")
        assert await chat.events() == []
        await chat.add("Before.")
        branch = await chat.fork("b")
        assert [one.text for one in await branch.items()] == []
        assert (await branch.state()).agent is None


async def test_a_call_that_was_taken_out_of_the_context_is_in_nobodys_way() -> None:
    script = [call("pay", amount=3), text("Fine.")]
    async with talking(script, agent(pay)) as (chat, way):
        result = await chat.run("Pay.")
        await chat.edit((await chat.items())[-1], {"role": "user", "content": "Gone."})
        assert [one.name for one in (await chat.state()).pending] == ["pay"]
        await chat.remove((await chat.items())[-1])
        assert [one.name for one in (await chat.state()).pending] == ["pay"]
        await (await chat.turn(result.turn)).cancel()
        assert (await chat.run("Again.")).output_text == "Fine."
        assert said(way.requests[1]) == ["Pay.", "Again."]


async def test_an_output_that_was_taken_away_again_is_abandoned_in_a_fork() -> None:
    script = [calls(call("pay", amount=3), call("add", a=1, b=2)), text("Here.")]
    async with talking(script, agent(pay, add)) as (chat, way):
        await chat.run("Pay.")
        await chat.remove((await chat.items())[-1])
        branch = await chat.fork("b")
        assert len(await all_of(branch, ev.CallAbandoned)) == 2
        assert (await branch.run("Well?")).output_text == "Here."
        assert len(way.requests) == 2


async def test_a_request_behind_answers_that_were_taken_away_has_nothing_to_send() -> None:
    async with talking([call("pay", amount=3), text("Ok.")], agent(pay)) as (chat, way):
        await chat.request("Pay.")
        (waiting,) = (await chat.state()).pending
        await waiting.answer("paid")
        await chat.remove((await chat.items())[-1])
        with pytest.raises(InvalidInput, match="nothing to send"):
            await chat.request()
        assert len(way.requests) == 1


class Slow(MemoryStore):
    """Does something behind the next event that is picked."""

    behind: Callable[[], Awaitable[object]] | None = None

    async def pick(self, conversation: str, versions: Sequence[int]) -> list[Recorded]:
        found = await super().pick(conversation, versions)
        what, self.behind = self.behind, None
        if what is not None:
            await what()
        return found


async def test_a_request_of_a_turn_that_ended_meanwhile_begins_another() -> None:
    store = Slow()
    script = [call("pay", amount=3), text("First."), text("Second.")]
    async with talking(script, agent(pay), store=store) as (chat, _):
        one = await chat.request("Pay.")
        await answered(chat)
        store.behind = chat.request
        result = await chat.request("And?")
        assert (result.output_text, result.turn == one.turn) == ("Second.", False)
        assert [row.outcome for row in await chat.turns()] == ["completed", "completed"]


async def test_a_request_goes_into_the_turn_that_is_open_when_it_is_sent() -> None:
    store = Slow()
    script = [call("pay", amount=3), text("First."), call("pay", amount=4), text("Second.")]
    async with talking(script, agent(pay), store=store) as (chat, _):
        await chat.request("Pay.")
        await answered(chat)

        async def another() -> None:
            await chat.request()
            await chat.request("Pay more.")
            await answered(chat)

        store.behind = another
        result = await chat.request("And?")
        first, last = await chat.turns()
        assert (result.output_text, result.turn) == ("Second.", last.turn)
        assert (first.outcome, last.outcome) == ("completed", "completed")


async def answered(chat: Conversation) -> None:
    """Answer what waits."""
    (waiting,) = (await chat.state()).pending
    await waiting.answer("paid")


async def test_a_request_does_not_bring_what_stands_there_already() -> None:
    async with talking([call("pay", amount=3), text("Ok.")], agent(pay)) as (chat, way):
        known = {"type": "message", "role": "user", "content": "Pay.", "id": "msg_1"}
        await chat.request(known)
        (waiting,) = (await chat.state()).pending
        await waiting.answer("paid")
        with pytest.raises(ItemPresent, match=r"'msg_1' .*chat\.replace"):
            await chat.request(known)
        await chat.request("And?")
        assert len(way.requests) == 2


async def test_a_response_that_still_runs_is_asked_about_again() -> None:
    """Design section 4: running otherwise → poll until it has finished."""
    store = MemoryStore()
    way = ReplayTransport([text(LONG).but(stall_after=6, finishes=True, polls=1)])
    async with opened(way, agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "response.started")
        store.abandon()
        await way.close()
        with pytest.raises(Closed):
            await turn.result()
        again = store.beside()
        # The provider is the same one: it knows what it was asked.
        async with opened(Shared(way), agent(), store=again) as other:
            (done, *_) = await other.recover()
            assert done.action == "fetched the response, which had finished"
            there = await other.get("c")
            assert (await (await there.turn(turn.id)).resume()).id == turn.id
            assert (await (await there.turn(turn.id)).result()).output_text == LONG


class Shared(ReplayTransport):
    """Another way to the same provider."""

    def __init__(self, other: ReplayTransport) -> None:
        super().__init__([])
        self._provider = other._provider  # pyright: ignore[reportPrivateUsage]


async def test_an_event_that_holds_no_item_and_one_that_is_not_there() -> None:
    with pytest.raises(StoreCorrupt, match="holds no item"):
        body_of(ev.TurnEnded(outcome="completed"))
    place = Placed(
        ordinal=0, holder="c", item_version=7, key="k", item_id=None, call_id=None, response=None
    )
    with pytest.raises(StoreCorrupt, match="lacks version 7"):
        await load(MemoryStore(), [place])


async def test_a_custom_tool_is_surfaced_even_where_a_function_has_its_name() -> None:
    custom: JsonObject = {"type": "custom_tool_call", "call_id": "k", "name": "add", "input": "1"}
    from turnlog.testing import item

    way = scripted([item(custom), text("Ok.")])
    async with opened(way, agent(add)) as log:
        chat = await log.conversation("c", agent="test")
        assert (await chat.run("Go.")).reason == "unbound"


async def test_a_watcher_goes_on_behind_what_the_state_says() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        await chat.run("1")
        cursor = (await chat.state()).cursor
        await chat.run("2")
        assert texts(await collect(chat.attach(after=cursor))) == "Two."


async def test_a_turn_whose_answers_were_taken_away_fails_and_says_so() -> None:
    script = [call("pay", amount=3), text("Fine.")]
    async with talking(script, agent(pay)) as (chat, _):
        result = await chat.run("Pay.")
        (waiting,) = (await chat.state()).pending
        await waiting.answer("paid")
        await chat.remove((await chat.items())[-1])
        turn = await (await chat.turn(result.turn)).resume()
        with pytest.raises(TurnFailed, match="nothing left to send"):
            await turn.result()
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_a_call_is_found_in_the_conversation_that_a_fork_came_from() -> None:
    script = [call("pay", amount=3), text("Deep.")]
    async with talking(script, agent(pay)) as (chat, _):
        await chat.run("Pay.")
        branch = await chat.fork("b")
        await branch.remove((await branch.items())[-1])
        deeper = await branch.fork("d")
        (abandoned,) = await all_of(deeper, ev.CallAbandoned)
        assert abandoned.item["call_id"] == "call_1"
        assert (await deeper.run("Well?")).output_text == "Deep."


async def test_several_may_recover_at_once() -> None:
    store = MemoryStore()
    async with opened([text(LONG).but(stall_after=6)], agent(), store=store) as log:
        await (await log.conversation("c", agent="test")).send("Go.")
        await recorded(await log.get("c"), "response.started")
        store.abandon()
        async with (
            opened([], agent(), store=store.beside()) as one,
            opened([], agent(), store=store.beside()) as two,
        ):
            found = await asyncio.gather(one.recover(), two.recover())
            assert sorted(map(len, found)) == [0, 2]
            assert (await one.verify()).ok


async def test_two_processes_send_at_once_and_one_of_them_is_busy() -> None:
    store = MemoryStore()
    script = [text("Hi."), text(LONG).but(stall_after=6)]
    async with (
        opened(script, agent(), store=store) as one,
        opened([text(LONG).but(stall_after=6)], agent(), store=store.beside()) as two,
    ):
        first = await one.conversation("c", agent="test")
        await first.run("Hi.")
        second = await two.conversation("c", agent="test")
        found = await asyncio.gather(first.send("1"), second.send("2"), return_exceptions=True)
        (busy,) = [one for one in found if isinstance(one, BaseException)]
        assert isinstance(busy, Busy)
        assert len(await first.turns()) == 2


async def test_resume_by_two_at_once_runs_the_turn_once() -> None:
    async with talking([call("pay", amount=3), text("Paid.")], agent(pay)) as (chat, _):
        result = await chat.run("Pay.")
        (waiting,) = (await chat.state()).pending
        await waiting.approve()
        turn = await chat.turn(result.turn)
        await asyncio.gather(turn.resume(), turn.resume())
        assert (await turn.result()).output_text == "Paid."
        assert len(await all_of(chat, ev.CallStarted)) == 1
        await turn.resume()
        assert len(await chat.turns()) == 1


async def test_an_item_of_the_tail_that_is_gone_is_damage_and_no_defect() -> None:
    lost = ev.Range(of="tail", start=3, stop=4)
    with pytest.raises(StoreCorrupt, match="lacks version 3"):
        await requested(MemoryStore(), start("c"), [lost])
