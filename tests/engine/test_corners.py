"""Corners: what is rare, and must still come out right."""

from __future__ import annotations

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.context import body_of, load
from turnlog.errors import Closed, InvalidInput, NotFound, NotPending, OutcomeUnknown, StoreCorrupt
from turnlog.ports import Append, Appended, Placed
from turnlog.store import MemoryStore
from turnlog.testing import call, calls, scripted, text
from turnlog_transports.replay import ReplayTransport

from .given import add, agent, all_of, opened, pay, recorded, said, talking

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
