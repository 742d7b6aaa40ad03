"""Background responses: heard to their end whatever breaks, and stopped where the turn is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.conversation import Conversation
from turnlog.errors import Busy, InvalidInput, Lost, NotSupported, TurnlogError, Unheard
from turnlog.ports import (
    Cancel,
    Delete,
    Endpoint,
    Frame,
    Problem,
    Profile,
    Request,
    Retrieve,
    Timeouts,
)
from turnlog.stopping import STOP_SECONDS
from turnlog.store import MemoryStore
from turnlog.testing import Reply, text
from turnlog.updates import Retracted
from turnlog_transports import http
from turnlog_transports.profiles import OPENAI
from turnlog_transports.replay import PROFILE, ReplayTransport
from turnlog_transports.simulator import Simulator

from ..transports.clock import advance, on_clock
from .given import agent, all_of, collect, opened, recorded, tags, talking, texts

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."


def in_background(**options: object) -> turnlog.Agent:
    return agent(background=True, **options)


# -- in a living process -------------------------------------------------------------------


@pytest.mark.parametrize("again", [0, 2])
async def test_a_stream_that_is_cut_is_heard_on_without_another_attempt(again: int) -> None:
    reply = text(LONG).but(cut_after=4, again=again)
    async with talking([reply], in_background()) as (chat, way):
        turn = await chat.send("Go.")
        updates = await collect(aiter(turn))
        assert texts(updates) == LONG
        assert not [update for update in updates if isinstance(update, Retracted)]
        (prepared,) = await all_of(chat, ev.RequestPrepared)
        (request,) = way.requests
        assert prepared.background
        assert request["background"] is True


@on_clock
async def test_a_stream_that_is_too_old_is_polled() -> None:
    reply = text(LONG).but(cut_after=4, stream_expires=True, polls=3)
    async with talking([reply], in_background()) as (chat, _):
        task = asyncio.create_task(chat.run("Go."))
        await advance(60)
        assert (await task).output_text == LONG
        assert len(await all_of(chat, ev.RequestPrepared)) == 1


@on_clock
async def test_a_stream_that_breaks_for_ever_is_polled_too() -> None:
    reply = text(LONG).but(cut_after=1, again=99)
    async with talking([reply], in_background()) as (chat, _):
        task = asyncio.create_task(chat.run("Go."))
        await advance(60)
        assert (await task).output_text == LONG


async def test_where_the_provider_cannot_there_is_no_background() -> None:
    transport = ReplayTransport([text("Never.")], profile=Profile(name="plain", key_env=None))
    async with opened(transport, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        with pytest.raises(InvalidInput, match="no background responses"):
            await chat.run("Go.")
        assert await chat.events() == []


# -- across processes ----------------------------------------------------------------------


@asynccontextmanager
async def provider(*replies: Reply) -> AsyncGenerator[Simulator]:
    async with Simulator(list(replies)) as simulator:
        yield simulator


def way_to(simulator: Simulator) -> http.HttpTransport:
    timeouts = Timeouts(first_frame=5, idle=5)
    return http.open_transport(
        Endpoint(base_url=simulator.base_url, profile=OPENAI, timeouts=timeouts)
    )


async def left_by_a_dead_owner(simulator: Simulator, store: MemoryStore) -> str:
    async with opened(way_to(simulator), in_background(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.", idempotency_key="k")
        await recorded(chat, "output.checkpointed")
        store.abandon()
    return turn.id


async def left_by_closing(simulator: Simulator, store: MemoryStore) -> str:
    async with opened(way_to(simulator), in_background(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.", idempotency_key="k")
        await recorded(chat, "output.checkpointed")
    return turn.id


@asynccontextmanager
async def next_owner(
    simulator: Simulator, store: MemoryStore
) -> AsyncGenerator[tuple[turnlog.Log, Conversation]]:
    async with opened(way_to(simulator), in_background(), store=store.beside()) as log:
        yield log, await log.get("c")
        assert (await log.verify()).ok


def asked(simulator: Simulator) -> Sequence[str]:
    return [f"{one.method} {one.path.removeprefix('/v1')}" for one in simulator.requests]


@pytest.mark.parametrize("leave", [left_by_a_dead_owner, left_by_closing])
async def test_what_still_runs_is_left_alone_and_heard_on(
    leave: Callable[[Simulator, MemoryStore], Awaitable[str]],
) -> None:
    async with provider(text(LONG).but(hold=8)) as simulator:
        store = MemoryStore()
        turn = await leave(simulator, store)
        async with next_owner(simulator, store) as (log, chat):
            (done,) = await log.recover()
            assert done.action == "left the turn as it is: resume it to hear the response on"
            assert (await log.recover())[0].turn == turn
            with pytest.raises(Busy):
                await chat.send("Another.")
            resumed = await (await chat.turn(turn)).resume()
            simulator.release()
            updates = await collect(aiter(resumed))
            assert texts(updates) == LONG
            assert (await resumed.result()).output_text == LONG
            checkpoints = await all_of(chat, ev.OutputCheckpointed)
            assert LONG.startswith("".join(one.text for one in checkpoints))
        assert asked(simulator).count("POST /responses") == 1


async def test_the_same_send_hears_it_on() -> None:
    async with provider(text(LONG).but(hold=8)) as simulator:
        store = MemoryStore()
        turn = await left_by_a_dead_owner(simulator, store)
        async with next_owner(simulator, store) as (_, chat):
            again = await chat.send("Go.", idempotency_key="k")
            simulator.release()
            assert (again.id, (await again.result()).output_text) == (turn, LONG)


async def test_what_finished_meanwhile_is_fetched() -> None:
    async with provider(text(LONG).but(hold=8)) as simulator:
        store = MemoryStore()
        turn = await left_by_a_dead_owner(simulator, store)
        simulator.release()
        async with next_owner(simulator, store) as (log, chat):
            assert (await log.recover())[0].action == "fetched the response, which had finished"
            assert (await (await chat.turn(turn)).result()).output_text == LONG


async def test_what_the_provider_forgot_is_asked_anew() -> None:
    async with provider(text(LONG).but(hold=8), text("Anew.")) as simulator:
        store = MemoryStore()
        turn = await left_by_a_dead_owner(simulator, store)
        async with next_owner(simulator, store) as (log, chat):
            (response,) = await all_of(chat, ev.ResponseStarted)
            await forget(simulator, response.response)
            await log.recover()
            result = await (await (await chat.turn(turn)).resume()).result()
            assert result.output_text == "Anew."
            assert "response.interrupted" in await tags(chat)


async def forget(simulator: Simulator, response: str) -> None:
    transport = way_to(simulator)
    async for frame in transport.send(Delete(response=response)):
        assert frame.terminal == "completed"
    await transport.close()


# -- stopping ------------------------------------------------------------------------------


async def test_a_cancelled_turn_stops_the_response_at_the_provider() -> None:
    async with provider(text(LONG).but(hold=8), text("Next.")) as simulator:
        async with opened(way_to(simulator), in_background()) as log:
            chat = await log.conversation("c", agent="test")
            turn = await chat.send("Go.")
            await recorded(chat, "output.checkpointed")
            await turn.cancel()
            assert (await turn.result()).status == "cancelled"
            assert asked(simulator)[-1].endswith("/cancel")
            assert (await chat.run("And now?")).output_text == "Next."


@pytest.mark.parametrize("interrupt", [False, True])
async def test_a_turn_that_was_left_can_be_cancelled(interrupt: bool) -> None:
    async with provider(text(LONG).but(hold=8), text("Next.")) as simulator:
        store = MemoryStore()
        turn = await left_by_a_dead_owner(simulator, store)
        async with next_owner(simulator, store) as (_, chat):
            if interrupt:
                assert (await chat.run("Next?", if_busy="interrupt")).output_text == "Next."
            else:
                await (await chat.turn(turn)).cancel()
            assert (await (await chat.turn(turn)).result()).status == "cancelled"
            assert [one for one in asked(simulator) if one.endswith("/cancel")]


async def test_a_provider_that_is_gone_does_not_keep_a_turn_from_being_cancelled() -> None:
    store = MemoryStore()
    async with provider(text(LONG).but(hold=8)) as simulator:
        turn = await left_by_a_dead_owner(simulator, store)
    async with opened(way_to(simulator), in_background(), store=store.beside()) as log:
        chat = await log.get("c")
        (left,) = await log.recover()
        assert left.action == "left it for the next time"
        await (await chat.turn(turn)).cancel()
        assert (await (await chat.turn(turn)).result()).status == "cancelled"


class Deaf(ReplayTransport):
    """A provider that never answers whoever asks it to stop."""

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send, or say nothing for ever."""
        if isinstance(request, Cancel):
            await asyncio.Event().wait()
        async for frame in super().send(request):
            yield frame


@on_clock
async def test_a_provider_that_is_silent_does_not_keep_a_turn_from_being_cancelled() -> None:
    way = Deaf([text(LONG).but(hold=8)])
    async with opened(way, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await advance(1)
        task = asyncio.create_task(turn.cancel())
        await advance(STOP_SECONDS / 2)
        assert not task.done()
        await advance(STOP_SECONDS)
        await task
        assert (await turn.result()).status == "cancelled"


# -- providers that do not keep their word -------------------------------------------------


def refused(status: int, *, after: float | None = None) -> Frame:
    problem = Problem(status=status, message="No.", retry_after=after)
    return Frame(type="error", data={}, terminal="error", problem=problem)


class Odd(ReplayTransport):
    """A provider that answers each question about a response as it is told."""

    answers: Sequence[Frame | TurnlogError] = ()
    asked = 0

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send, or answer as told; the last answer is given for ever."""
        if isinstance(request, Retrieve):
            answer = self.answers[min(self.asked, len(self.answers) - 1)]
            self.asked += 1
            if isinstance(answer, TurnlogError):
                raise answer
            yield answer
            return
        async for frame in super().send(request):
            yield frame


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([NotSupported("no")], 2),
        ([refused(404)], 2),
        ([refused(400), refused(404)], 2),
        ([refused(400), refused(500)], 65),
        ([Unheard("silence")], 69),
        ([refused(500)], 69),
        ([refused(400), refused(429, after=300)], 3),
        ([Lost("cut"), NotSupported("no")], 3),
    ],
    ids=[
        "not supported",
        "gone",
        "expired and gone",
        "expired and failing",
        "silent",
        "failing",
        "expired and told to wait",
        "cut and not supported",
    ],
)
@on_clock
async def test_what_cannot_be_heard_on_is_asked_anew(
    answers: Sequence[Frame | TurnlogError], asked: int
) -> None:
    way = Odd([text(LONG).but(cut_after=4), text("Anew.")])
    way.answers = answers
    async with opened(way, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        task = asyncio.create_task(chat.run("Go."))
        await advance(2000)
        assert (await task).output_text == "Anew."
        assert way.asked == asked
        (lost,) = await all_of(chat, ev.ResponseInterrupted)
        assert lost.response == "resp_1"


@on_clock
async def test_an_answer_between_refusals_is_taken() -> None:
    ended: JsonObject = {"id": "resp_1", "status": "completed", "output": text("Late.").items[:1]}
    running: JsonObject = {"response": {"id": "resp_1", "status": "in_progress"}}
    way = Odd([text(LONG).but(cut_after=4)])
    way.answers = [
        refused(400),
        refused(503),
        Frame(type="response.in_progress", data=running),
        refused(503),
        Frame(type="response.completed", data={"response": ended}, terminal="completed"),
    ]
    async with opened(way, in_background()) as log:
        chat = await log.conversation("c", agent="test")
        task = asyncio.create_task(chat.run("Go."))
        await advance(600)
        assert (await task).output_text == "Late."
        assert (await log.verify()).ok


@pytest.mark.parametrize("profile", [PROFILE, replace(PROFILE, retrieve=False)])
async def test_an_unstored_response_in_the_foreground_is_not_asked_about(profile: Profile) -> None:
    way = Odd([text(LONG).but(cut_after=4), text("Anew.")], profile=profile)
    way.answers = [NotSupported("never asked")]
    async with opened(way, agent(store=False)) as log:
        chat = await log.conversation("c", agent="test")
        assert (await chat.run("Go.")).output_text == "Anew."
        assert way.asked == 0
