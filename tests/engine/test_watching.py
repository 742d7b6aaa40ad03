"""Watching: from the start, behind a cursor, in the middle of a text, and after a reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.draft import Ambient
from turnlog.errors import InvalidInput
from turnlog.ports import Append, Appended, Frame, Head, Request
from turnlog.record import Recorded
from turnlog.sending import NOTE_TURNS
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, failed, item, refusal, reply, text
from turnlog.updates import (
    CallUpdate,
    Cursor,
    Delta,
    HostedUpdate,
    ItemUpdate,
    Retracted,
    TurnDone,
    UnknownUpdate,
    Update,
)
from turnlog_transports.replay import ReplayTransport

from .given import agent, collect, opened, pay, tags, talking, texts, until

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."


async def test_attach_without_a_cursor_begins_where_the_open_turn_began() -> None:
    async with talking([text("One."), text(LONG).but(stall_after=8)]) as (chat, way):
        await chat.run("One.")
        turn = await chat.send("Two.")
        await until(lambda: len(way.requests) == 2)
        await asyncio.sleep(0.01)
        seen: list[Update] = []
        async with aclosing(chat.attach()) as updates:
            async for update in updates:
                seen.append(update)
                if texts(seen):
                    break
        assert LONG.startswith(texts(seen))
        await turn.cancel()


async def test_nothing_open_is_nothing_to_watch() -> None:
    async with talking([text("One.")]) as (chat, _):
        assert await collect(chat.attach()) == []
        await chat.run("One.")
        assert await collect(chat.attach()) == []


async def test_every_cursor_continues_exactly_behind_what_was_seen() -> None:
    """Whatever a page has seen before it reloads, it ends with the same text and calls."""
    script = [call("add", a=1, b=2), reply(text(LONG))]
    async with talking(script) as (chat, _):
        async with chat.stream("Go.") as turn:
            updates = await collect(aiter(turn))
        whole = texts(updates)
        assert whole == LONG
        for place, update in enumerate(updates):
            before = texts(updates[: place + 1])
            rest = await collect(chat.attach(after=str(update.cursor)))
            assert before + texts(rest) == LONG
            kinds = [one.type for one in updates[place + 1 :] if not isinstance(one, Delta)]
            assert [one.type for one in rest if not isinstance(one, Delta)] == kinds


async def test_a_page_reloads_in_the_middle_of_a_text() -> None:
    async with talking([text(LONG)]) as (chat, _):
        turn = await chat.send("Go.")
        seen: list[Update] = []
        async with aclosing(chat.attach()) as updates:
            async for update in updates:
                seen.append(update)
                if len(texts(seen)) > 10:
                    break
        rest = await collect(chat.attach(after=seen[-1].cursor))
        assert texts(seen) + texts(rest) == LONG
        assert isinstance(rest[-1], TurnDone)
        await turn.result()


async def test_attach_goes_on_to_the_turns_behind_the_cursor() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        async with chat.stream("1") as turn:
            updates = await collect(aiter(turn))
        await chat.run("2")
        rest = await collect(chat.attach(after=updates[0].cursor))
        assert texts(updates[:1]) + texts(rest) == "One.Two."
        assert [u.status for u in rest if isinstance(u, TurnDone)] == ["completed", "completed"]


async def test_a_cursor_from_the_end_has_nothing_behind_it() -> None:
    async with talking([text("One.")]) as (chat, _):
        async with chat.stream("1") as turn:
            updates = await collect(aiter(turn))
        assert await collect(chat.attach(after=updates[-1].cursor)) == []
        assert await collect(turn.updates(after=str(updates[-1].cursor))) == []


@pytest.mark.parametrize("wrong", ["", "x", "1/a", "1/a/b/c", "-1/a/b/3", "1/a/b/3/x"])
async def test_a_text_that_is_no_cursor_is_refused(wrong: str) -> None:
    async with talking([text("One.")]) as (chat, _):
        with pytest.raises(InvalidInput, match="not a cursor"):
            chat.attach(after=wrong)
        turn = await chat.send("1")
        with pytest.raises(InvalidInput, match="not a cursor"):
            await collect(turn.updates(after=wrong))


async def test_a_turn_that_is_over_can_be_watched_again() -> None:
    async with talking([text(LONG), text("Later.")]) as (chat, _):
        turn = await chat.send("Go.")
        first = await collect(aiter(turn))
        await chat.run("Later.")
        again = await collect(aiter(turn))
        assert texts(first) == texts(again) == LONG
        assert isinstance(again[-1], TurnDone)


async def test_what_was_shown_and_lost_is_retracted_before_more_is_shown() -> None:
    """W-30: a drop in the middle never doubles the text."""
    async with talking([text(LONG).but(cut_after=8), text("Short.")]) as (chat, _):
        async with chat.stream("Go.") as turn:
            updates = await collect(aiter(turn))
        place = next(n for n, one in enumerate(updates) if isinstance(one, Retracted))
        assert LONG.startswith(texts(updates[:place])) and texts(updates[:place])
        assert texts(updates[place:]) == "Short."
        again = await collect(aiter(turn))
        assert texts(again[[isinstance(one, Retracted) for one in again].index(True) :]) == "Short."


async def test_text_of_an_attempt_that_fails_for_good_stays_in_the_log() -> None:
    async with talking([text(LONG).but(cut_after=8)] * 4) as (chat, _):
        async with chat.stream("Go.") as turn:
            updates = await collect(aiter(turn))
        with pytest.raises(turnlog.TurnFailed, match="given up after 4 tries"):
            await turn.result()
        assert (await tags(chat)).count("output.checkpointed") == 4
        assert isinstance(updates[-1], TurnDone) and updates[-1].status == "failed"


async def test_a_pause_and_what_follows_it_are_one_story() -> None:
    async with talking([call("pay", amount=3), text("Paid.")], agent(pay)) as (chat, _):
        async with chat.stream("Pay.") as turn:
            first = await collect(aiter(turn))
        assert isinstance(first[-1], TurnDone) and first[-1].status == "waiting"
        (waiting,) = (await chat.state()).pending
        await waiting.approve()
        await turn.resume()
        rest = await collect(chat.attach(after=first[-1].cursor))
        assert [one.type for one in rest if isinstance(one, CallUpdate)] == [
            "call.approved",
            "call.started",
            "call.answered",
        ]
        assert texts(rest) == "Paid."


async def test_two_watchers_see_the_same() -> None:
    async with talking([call("add", a=1, b=2), text(LONG)]) as (chat, _):
        turn = await chat.send("Go.")
        one, two = await asyncio.gather(collect(aiter(turn)), collect(chat.attach()))
        assert [(u.type, u.cursor) for u in one] == [(u.type, u.cursor) for u in two]


async def test_a_watcher_that_leaves_disturbs_nobody() -> None:
    async with talking([text(LONG)]) as (chat, _):
        turn = await chat.send("Go.")
        async with aclosing(chat.attach()) as updates:
            async for _ in updates:
                break
        assert (await turn.result()).output_text == LONG


async def test_another_process_sees_what_the_log_holds() -> None:
    from turnlog.store import MemoryStore

    store = MemoryStore()
    async with talking([text(LONG)], store=store) as (chat, _):
        await chat.run("Go.")
        async with opened([], agent(), store=store.beside()) as log:
            other = await log.get("c")
            seen = await collect(other.attach(after=Cursor(1)))
            assert texts(seen) == LONG
            assert isinstance(seen[-1], TurnDone)


# -- what there is to see ------------------------------------------------------------------


async def test_w26_refusals_and_reasoning_surface() -> None:
    thought: JsonObject = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Not good."}],
    }
    async with talking([reply(item(thought), refusal("I will not."))]) as (chat, _):
        async with chat.stream("Do it.") as turn:
            updates = await collect(aiter(turn))
        for kind, said in (("reasoning.delta", "Not good."), ("refusal.delta", "I will not.")):
            found = [u for u in updates if isinstance(u, Delta) and u.type == kind]
            assert "".join(u.delta for u in found) == said
            assert all(u.raw for u in found)
        assert [u.item["type"] for u in updates if isinstance(u, ItemUpdate)] == [
            "reasoning",
            "message",
        ]
        assert (await turn.result()).refusal == "I will not."


def stream(*events: JsonObject) -> Reply:
    """A recorded stream around these events, with one message."""
    response: JsonObject = {"id": "resp_1", "object": "response", "status": "in_progress"}
    message: JsonObject = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
    }
    done: JsonObject = {**response, "status": "completed", "output": [message]}
    return Reply(
        events=(
            {"type": "response.created", "response": response},
            *events,
            {"type": "response.completed", "response": done},
        )
    )


async def test_a_hosted_tools_progress_and_unknown_frames_are_typed_updates() -> None:
    hosted: JsonObject = {
        "type": "response.web_search_call.searching",
        "item_id": "ws_1",
        "output_index": 0,
    }
    new: JsonObject = {"type": "response.brand_new", "field": 7}
    async with talking([stream(hosted, new)]) as (chat, _):
        async with chat.stream("Hi.") as turn:
            updates = await collect(aiter(turn))
        (progress,) = [u for u in updates if isinstance(u, HostedUpdate)]
        assert (progress.event, progress.item, progress.raw) == (hosted["type"], "ws_1", hosted)
        (unknown,) = [u for u in updates if isinstance(u, UnknownUpdate)]
        assert (unknown.event, unknown.raw) == ("response.brand_new", new)
        assert "provider.noted" in await tags(chat)


async def test_w22_a_frame_that_is_not_json_is_kept_and_told() -> None:
    async with talking([text("Hi.").but(malformed_after=3)]) as (chat, _):
        async with chat.stream("Hi.") as turn:
            updates = await collect(aiter(turn))
        (unknown,) = [u for u in updates if isinstance(u, UnknownUpdate)]
        assert unknown.text is not None and "bre" in unknown.text
        assert (await turn.result()).output_text == "Hi."


async def test_the_terminal_frame_decides_and_what_it_contradicts_is_retracted() -> None:
    shown: JsonObject = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Bye",
    }
    async with talking([stream(shown)]) as (chat, _):
        async with chat.stream("Hi.") as turn:
            updates = await collect(aiter(turn))
        place = next(n for n, one in enumerate(updates) if isinstance(one, Retracted))
        assert texts(updates[:place]) == "Bye"
        assert texts(updates[place:]) == "Hi."
        assert (await turn.result()).output_text == "Hi."


async def test_w25_a_stream_without_a_terminal_frame_is_never_a_success() -> None:
    async with talking([text("Half").but(no_terminal=True)] * 4) as (chat, _):
        with pytest.raises(turnlog.TurnFailed):
            await chat.run("Go.")
        assert (await tags(chat)).count("response.interrupted") == 4
        assert (await chat.state()).parent is None


async def test_w36_nobody_has_to_listen_for_an_error_to_reach_who_waits() -> None:
    async with talking([failed("invalid_prompt"), text("Fine.")]) as (chat, _):
        turn = await chat.send("Go.")
        with pytest.raises(turnlog.TurnFailed):
            await turn.result()
        assert (await turn.peek()).status == "failed"
        assert (await chat.run("Again.")).output_text == "Fine."


# -- between the log and what streams ------------------------------------------------------


async def test_a_fact_that_is_read_and_told_live_is_told_once() -> None:
    class Gated(MemoryStore):
        gate: asyncio.Event | None = None

        async def events(
            self, conversation: str, *, after: int = 0, until: int | None = None, limit: int = 500
        ) -> list[Recorded]:
            if self.gate is not None:
                await self.gate.wait()
            return await super().events(conversation, after=after, until=until, limit=limit)

    begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()
    store = Gated()

    async def wait() -> str:
        """Wait for whoever watches."""
        go = asyncio.Event()
        await begun.put(go)
        await go.wait()
        return "gone"

    script = [call("wait"), call("wait"), text("Done.")]
    async with opened(script, agent(wait), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        go = await begun.get()
        store.gate = asyncio.Event()
        watching = asyncio.create_task(collect(aiter(turn)))
        await asyncio.sleep(0)
        go.set()
        go = await begun.get()  # much was told live by now, and can be read as well
        store.gate.set()
        await asyncio.sleep(0)
        go.set()
        updates = await watching
        assert texts(updates) == "Done."
        facts = [one.type for one in updates if not isinstance(one, Delta)]
        called = ["item", "call.requested", "call.started", "call.answered"]
        assert facts == [*called, *called, "item", "turn.done"]


async def test_who_watches_hears_of_a_text_before_its_end_is_thought_about() -> None:
    order: list[str] = []

    class Noting(MemoryStore):
        async def append(self, append: Append) -> Appended:
            order.extend(type(recorded.event).__name__ for recorded in append.events)
            return await super().append(append)

    class AtOnce(ReplayTransport):
        async def send(self, request: Request) -> AsyncGenerator[Frame]:
            for frame in [each async for each in super().send(request)]:
                yield frame

    def now() -> int:
        order.append("clock")
        return len(order)

    way = AtOnce([call("add", a=1, b=2), text("Three.")])
    async with opened(way, agent(), store=Noting(), ambient=Ambient(now=now)) as log:
        chat = await log.conversation("c", agent="test")
        async with chat.stream("Go.") as turn:
            async for update in turn:
                order.append(update.type)
    last = len(order) - order[::-1].index("RequestPrepared")
    assert next(one for one in order[last:] if one in ("clock", "text.delta")) == "text.delta"


async def test_a_text_that_is_over_at_once_is_in_no_checkpoint() -> None:
    async with talking([text(LONG).but(delay=0.001)]) as (chat, _):
        await chat.run("Go.")
        assert (await tags(chat)).count("output.checkpointed") == 0


async def test_what_was_written_between_two_looks_is_told_too() -> None:
    class Moving(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.between: list[Callable[[], Awaitable[object]]] = []

        async def head(self, conversation: str) -> Head | None:
            if self.between:
                await self.between.pop(0)()
            return await super().head(conversation)

    store = Moving()
    async with opened([text("One."), text("Two.")], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("One.")
        cursor = (await chat.state()).cursor
        store.between += [partial(asyncio.sleep, 0), partial(chat.run, "Two.")]
        assert texts(await collect(chat.attach(cursor))) == "Two."
        assert not store.between


async def test_a_note_that_comes_while_another_is_written_is_written_behind_it() -> None:
    gate = asyncio.Event()

    async def turns() -> None:
        for _ in range(2 * NOTE_TURNS):
            await asyncio.sleep(0)

    class Slow(MemoryStore):
        async def append(self, append: Append) -> Appended:
            if any(isinstance(one.event, ev.ResponseStarted) for one in append.events):
                await gate.wait()
            return await super().append(append)

    class Odd(ReplayTransport):
        async def send(self, request: Request) -> AsyncGenerator[Frame]:
            async for frame in super().send(request):
                yield frame
                if frame.type == "response.created":
                    await turns()
                    yield Frame(type="response.odd", data={"type": "response.odd"})
                    await turns()
                    gate.set()

    async with opened(Odd([text("One.")]), agent(), store=Slow()) as log:
        chat = await log.conversation("c", agent="test")
        assert (await chat.run("Go.")).output_text == "One."
        found = await tags(chat)
        started = found.index("response.started")
        assert found[started : started + 2] == ["response.started", "provider.noted"]
