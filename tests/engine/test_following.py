"""Background responses where the provider, the key or the process does not keep its word.

What is asked without an end, what nobody owns, what is stopped that should be heard: none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.commands import RequestCancel
from turnlog.draft import Draft
from turnlog.errors import ConfigurationError, Lost, NotSent, Unheard
from turnlog.ports import PARENT_GONE, Cancel, Create, Endpoint, Frame, Lease, Request, Retrieve
from turnlog.store import MemoryStore
from turnlog.testing import text
from turnlog_transports import fallback
from turnlog_transports.breaker import Breaker
from turnlog_transports.fallback import FallbackTransport
from turnlog_transports.profiles import OPENAI
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator

from ..transports.clock import advance, on_clock
from .given import agent, all_of, collect, opened, recorded, tags, texts
from .test_background import (
    LONG,
    Odd,
    asked,
    in_background,
    left_by_closing,
    next_owner,
    provider,
    refused,
    way_to,
)


async def test_warming_up_what_answers_in_the_background_raises_nothing() -> None:
    async with Simulator([text("Fine.")]) as simulator:
        way = fallback.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
        async with opened(way, in_background()) as log:
            chat = await log.conversation("c", agent="test")
            assert await chat.warm()
            assert [one.method for one in simulator.requests if one.body] == []


class Snapshots(ReplayTransport):
    """A provider that answers whoever resumes a stream with what the response is by now."""

    asked = 0
    limit = 100

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Say that it runs, however often it is asked."""
        if not isinstance(request, Retrieve):
            async for frame in super().send(request):
                yield frame
            return
        self.asked += 1
        if self.asked > self.limit:
            await asyncio.Event().wait()
        yield Frame(
            type="response.in_progress",
            data={"response": {"id": "resp_1", "status": "in_progress"}},
        )


async def test_a_provider_that_does_not_stream_again_is_polled_with_pauses() -> None:
    way = Snapshots([text(LONG).but(cut_after=4)])
    async with opened(way, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await asyncio.sleep(0.5)  # of the real clock: hardly anything is to happen
        seen = way.asked
        await turn.cancel()
        assert seen < 50


class Dripping(ReplayTransport):
    """A provider whose frames have no number: who resumes hears the same again, and is cut."""

    asked = 0

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Repeat one delta for ever."""
        if not isinstance(request, Retrieve) or request.starting_after is None:
            async for frame in super().send(request):
                yield frame
            return
        self.asked += 1
        if self.asked > 100:
            await asyncio.Event().wait()
        delta: JsonObject = {"item_id": "msg_1", "output_index": 0, "delta": "again "}
        yield Frame(type="response.output_text.delta", data=delta)
        raise Lost("cut")


async def test_a_stream_that_only_repeats_itself_is_given_up_for_polling() -> None:
    way = Dripping([text(LONG).but(cut_after=4)])
    async with opened(way, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await asyncio.sleep(0.5)  # of the real clock: hardly anything is to happen
        seen = way.asked
        await turn.cancel()
        assert seen < 50


class Forgetful(ReplayTransport):
    """A WebSocket whose connection has no room by the time that the request is written."""

    refusals = 1

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """`websocket`."""
        return "websocket"

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Refuse the first continuation."""
        if isinstance(request, Create) and request.parent is not None and self.refusals:
            self.refusals -= 1
            raise NotSent("not remembered any more", code=PARENT_GONE)
        async for frame in super().send(request):
            yield frame


async def test_a_parent_that_is_gone_is_no_reason_to_leave_the_websocket() -> None:
    first = Forgetful([text("1."), text("2.")], checks=False)
    second = ReplayTransport([text("By HTTP.")], checks=False, seed="h")
    way = FallbackTransport(first, second, breaker=Breaker())
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("One")
        await chat.run("Two")
        ways = [one.transport for one in await all_of(chat, ev.RequestPrepared)]
        assert ways == ["websocket"] * 3
        assert not await all_of(chat, ev.TransportSwitched)


async def test_a_left_response_is_still_heard_where_only_what_follows_is_cancelled() -> None:
    async with provider(text(LONG).but(hold=8)) as simulator:
        store = MemoryStore()
        turn = await left_by_closing(simulator, store)
        async with next_owner(simulator, store) as (_, chat):
            await (await chat.turn(turn)).cancel(mode="after_request")
            assert not [one for one in asked(simulator) if one.endswith("/cancel")]


class Keyless(ReplayTransport):
    """A transport whose key cannot be had for some requests."""

    refuses: type = Cancel

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send, unless there is no key."""
        if isinstance(request, self.refuses):
            raise ConfigurationError("no key")
        async for frame in super().send(request):
            yield frame


async def test_a_left_turn_can_be_cancelled_without_a_key() -> None:
    async with provider(text(LONG).but(hold=8)) as simulator:
        store = MemoryStore()
        turn = await left_by_closing(simulator, store)
        async with opened(Keyless([]), in_background(), store=store.beside()) as log:
            chat = await log.get("c")
            await (await chat.turn(turn)).cancel()
            assert (await tags(chat))[-1] == "turn.ended"


async def test_a_turn_that_broke_here_can_go_on_elsewhere() -> None:
    store = MemoryStore()
    way = Keyless([text(LONG).but(cut_after=4)])
    way.refuses = Retrieve
    async with opened(way, in_background(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        with pytest.raises(ConfigurationError):
            await turn.result()
        other = ReplayTransport([text("Anew.")], checks=False)
        async with opened(other, in_background(), store=store.beside()) as second:
            again = await (await second.get("c")).turn(turn.id)
            await again.resume()


async def test_recovering_a_cancelled_turn_stops_its_response_too() -> None:
    async with provider(text(LONG).but(hold=8)) as simulator:
        store = MemoryStore()
        async with opened(way_to(simulator), in_background(), store=store) as log:
            chat = await log.conversation("c", agent="test")
            await chat.send("Go.")
            await recorded(chat, "output.checkpointed")

            async def act(draft: Draft) -> Lease | None:
                draft.do(RequestCancel(mode="now", reason=None))
                return None

            engine = log._engine  # pyright: ignore[reportPrivateUsage]
            await engine.commit("c", act)  # and the process dies before it acts on it
            store.abandon()
        async with next_owner(simulator, store) as (log, chat):
            await log.recover()
            assert (await tags(chat))[-1] == "turn.ended"
            assert [one for one in asked(simulator) if one.endswith("/cancel")]


@pytest.mark.parametrize("answer", [Unheard("silence"), refused(404)], ids=["silent", "gone"])
@on_clock
async def test_a_response_that_was_heard_from_is_interrupted_after_a_restart_too(
    answer: Frame | Unheard,
) -> None:
    store = MemoryStore()
    async with opened([text(LONG).but(hold=8)], in_background(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await advance(1)
    way = Odd([text("Anew.")], checks=False, seed="b")
    way.answers = [Frame(type="response.in_progress", data={}), answer]
    # It was heard from, so that `on_unknown` has no say (law 5, law 10, design section 4).
    async with opened(way, in_background(), store=store.beside(), on_unknown="stop") as log:
        chat = await log.get("c")
        await (await chat.turn(turn.id)).resume()
        await advance(3600)
        assert [one.response for one in await all_of(chat, ev.ResponseInterrupted)] == ["resp_1"]


class Repeating(ReplayTransport):
    """A provider that sends a resumed stream from further back than it was asked to."""

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Begin two frames earlier."""
        if isinstance(request, Retrieve) and request.starting_after is not None:
            request = replace(request, starting_after=max(0, request.starting_after - 2))
        async for frame in super().send(request):
            yield frame


async def test_what_was_heard_before_is_not_heard_again() -> None:
    way = Repeating([text(LONG).but(cut_after=7)])
    async with opened(way, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        updates = await collect(aiter(turn))
        assert texts(updates) == LONG
        assert "retracted" not in [update.type for update in updates]
