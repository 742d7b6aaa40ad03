"""Warm-up: a connection and a context that is read ahead, and never a turn that fails by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.conversation import Conversation
from turnlog.errors import ConfigurationError
from turnlog.ports import Create, Endpoint, Frame, Problem, Request, Timeouts
from turnlog.store import MemoryStore
from turnlog.testing import call, error, text
from turnlog_transports import fallback
from turnlog_transports.profiles import OPENAI
from turnlog_transports.provider import Playable
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator

from ..transports.clock import advance, on_clock
from .given import agent, all_of, opened, recorded, said, tags, talking


async def kinds(chat: Conversation) -> list[str]:
    return [one.kind for one in await all_of(chat, ev.ProviderNoted)]


async def last_delta(chat: Conversation) -> bool:
    return (await all_of(chat, ev.RequestPrepared))[-1].kind == "delta"


# -- a context that is read ahead ----------------------------------------------------------


async def test_the_first_turn_continues_from_what_was_read() -> None:
    async with talking([text("Warm.")], agent(instructions="Be brief.")) as (chat, way):
        assert await chat.warm(by="user:7")
        (asked,) = way.requests
        assert (asked["generate"], asked["input"], asked["instructions"]) == (
            False,
            [],
            "Be brief.",
        )
        assert await tags(chat) == [
            "conversation.started",
            "conversation.configured",
            "provider.noted",
            "provider.noted",
        ]
        assert await kinds(chat) == ["warm_up_asked", "warmed"]
        assert (await chat.run("Go.")).output_text == "Warm."
        assert await last_delta(chat)
        assert said(way.requests[-1]) == ["Go."]


async def test_what_the_context_holds_is_read_where_the_parent_is_gone() -> None:
    chosen = agent(store=False)
    store = MemoryStore()
    async with opened([text("One.")], chosen, store=store) as log:
        await (await log.conversation("c", agent="test")).run("Go.")
    way = ReplayTransport([text("Two."), text("Three.")], checks=False, seed="b")
    async with opened(way, chosen, store=store.beside()) as log:
        chat = await log.conversation("c", agent="test")
        assert await chat.warm()
        assert said(way.requests[-1]) == ["Go.", "One."]
        await chat.run("On.")
        assert said(way.requests[-1]) == ["On."]
        # What the turn led to is the parent from now on.
        await chat.run("And on.")
        assert said(way.requests[-1]) == ["And on."]
        assert (await log.verify()).ok


async def test_nothing_is_asked_where_a_response_can_be_continued_from() -> None:
    async with talking([text("One.")]) as (chat, way):
        await chat.run("Go.")
        assert await chat.warm()
        assert len(way.requests) == 1
        assert await kinds(chat) == []


async def test_nothing_is_asked_while_a_turn_is_open_or_without_a_configuration() -> None:
    async with talking([call("gone", x=1)], agent(), checks=False) as (chat, way):
        await chat.run("Go.")
        assert await chat.warm()
        assert len(way.requests) == 1
    async with opened([]) as log:
        assert await (await log.conversation("new")).warm()


async def test_the_recorded_configuration_is_the_one_that_is_read() -> None:
    store = MemoryStore()
    async with opened([text("One.")], agent(store=False), store=store) as log:
        await (await log.conversation("c", agent="test")).run("Go.")
    way = ReplayTransport([text("Two.")], checks=False, seed="b")
    async with opened(way, store=store.beside()) as log:
        assert await (await log.get("c")).warm()
        assert way.requests[-1]["model"] == "gpt-5"


async def test_an_edit_behind_the_warm_up_rules_it_out() -> None:
    async with talking([text("One."), text("Two.")], agent(store=False)) as (chat, way):
        await chat.run("Go.")
        await chat.edit((await chat.items())[0], "Went.")
        assert await chat.warm()
        await chat.edit((await chat.items())[0], "Going.")
        await chat.run("On.")
        assert said(way.requests[-1]) == ["Going.", "One.", "On."]


async def test_a_lost_chain_is_answered_by_a_full_request() -> None:
    lost = error(400, "previous_response_not_found", "Not found.")
    async with talking([lost, text("Full.")]) as (chat, way):
        assert await chat.warm()
        assert (await chat.run("Go.")).output_text == "Full."
        assert "previous_response_id" not in way.requests[-1]
        assert "chain.lost" in await tags(chat)


async def test_a_context_whose_outputs_were_not_sent_so_far_is_not_read() -> None:
    chosen = agent(store=False, max_requests=1)
    store = MemoryStore()
    async with opened([call("add", a=1, b=2)], chosen, store=store) as log:
        await (await log.conversation("c", agent="test")).run("Go.")
    way = ReplayTransport([text("Two.")], seed="b")
    async with opened(way, chosen, store=store.beside()) as log:
        chat = await log.conversation("c", agent="test")
        assert await chat.warm()
        assert way.requests == []
        await chat.run("On.")
        assert said(way.requests[-1]) == ["Go.", "function_call", "function_call_output", "On."]


async def test_what_was_read_before_a_compaction_is_not_continued() -> None:
    way = Gated([text("1."), text("2."), text("3.")], checks=False)
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        warming = asyncio.create_task(chat.warm())
        await recorded(chat, "provider.noted")
        await chat.run("One?")
        await chat.run("Two?")
        way.gate.set()
        assert await warming
        await chat.compact()
        await chat.run("Three?")
        assert said(way.requests[-1]) == ["One?", "Two?", "compaction", "Three?"]
        assert "previous_response_id" not in way.requests[-1]


class Gated(ReplayTransport):
    """A provider that takes its time to read."""

    def __init__(self, script: Playable, *, checks: bool) -> None:
        super().__init__(script, checks=checks)
        self.gate = asyncio.Event()

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send, a warm-up only once the gate is open."""
        if isinstance(request, Create) and request.body.get("generate") is False:
            await self.gate.wait()
        async for frame in super().send(request):
            yield frame


# -- what fails ----------------------------------------------------------------------------


class Failing(ReplayTransport):
    """A provider that is not there at first: `failures` says how often."""

    failures = 0
    tried = 0

    async def warm(self) -> None:
        """Fail as long as nobody is there."""
        self.tried += 1
        if self.failures:
            self.failures -= 1
            raise turnlog.errors.NotSent("nobody is there")


async def test_a_warm_up_that_fails_says_so_and_fails_nothing_else() -> None:
    way = Failing([text("Fine.")])
    way.failures = 1
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        assert not await chat.warm()
        assert (await chat.run("Go.")).output_text == "Fine."


class Refusing(ReplayTransport):
    """A provider that takes no warm-up."""

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Refuse what is not to be answered."""
        if isinstance(request, Create) and request.body.get("generate") is False:
            problem = Problem(status=400, message="Unknown parameter: 'generate'.")
            yield Frame(type="error", data={}, terminal="error", problem=problem)
            return
        async for frame in super().send(request):
            yield frame


async def test_a_refused_warm_up_leaves_the_first_turn_as_it_was() -> None:
    async with opened(Refusing([text("Fine.")]), agent()) as log:
        chat = await log.conversation("c", agent="test")
        assert not await chat.warm()
        assert await kinds(chat) == ["warm_up_asked", "warm_up_failed"]
        assert (await chat.run("Go.")).output_text == "Fine."
        assert not await last_delta(chat)


async def test_a_warm_up_that_is_lost_says_so_in_the_log() -> None:
    class Lossy(ReplayTransport):
        async def send(self, request: Request) -> AsyncGenerator[Frame]:
            if isinstance(request, Create) and request.body.get("generate") is False:
                raise turnlog.errors.Unheard("cut")
            async for frame in super().send(request):
                yield frame

    async with opened(Lossy([text("Fine.")]), agent()) as log:
        chat = await log.conversation("c", agent="test")
        assert not await chat.warm()
        assert await kinds(chat) == ["warm_up_asked", "warm_up_failed"]
        assert (await all_of(chat, ev.ProviderNoted))[-1].text == "cut"
        assert (await chat.run("Go.")).output_text == "Fine."


async def test_only_so_many_warm_ups_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnlog.warming.MOST", 2)
    way = ReplayTransport([text("Cold."), text("Warm.")])
    async with opened(way, agent()) as log:
        chats = [await log.conversation(f"c{n}", agent="test") for n in range(3)]
        for chat in chats:
            assert await chat.warm()
        await chats[0].run("Go.")
        await chats[2].run("Go.")
        cold, warm = way.requests[-2:]
        assert ("previous_response_id" in cold, "previous_response_id" in warm) == (False, True)


async def test_without_a_key_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with turnlog.open(":memory:", agents=[agent()]) as log:
        with pytest.raises(ConfigurationError, match="key"):
            await (await log.conversation("c", agent="test")).warm()


@on_clock
async def test_w46_open_connects_ahead_and_tries_again() -> None:
    way = Failing([text("Fine.")])
    way.failures = 3
    async with turnlog.open(
        ":memory:", agents=[agent()], transport=way, store=MemoryStore(), warm=True
    ):
        await advance(0)
        assert way.tried == 1
        await advance(60)
        assert (way.tried, way.failures) == (4, 0)


@on_clock
async def test_closing_ends_the_attempts_to_connect() -> None:
    way = Failing([])
    way.failures = 100
    async with turnlog.open(":memory:", transport=way, store=MemoryStore(), warm=True):
        await advance(3600)
        assert way.tried == 8
    way.tried = 0
    async with turnlog.open(":memory:", transport=way, store=MemoryStore(), warm=True):
        await advance(0)
    await advance(3600)
    assert way.tried == 1


async def test_without_a_key_open_does_not_try() -> None:
    class Keyless(Failing):
        async def warm(self) -> None:
            self.tried += 1
            raise ConfigurationError("no key")

    way = Keyless([])
    async with turnlog.open(":memory:", transport=way, store=MemoryStore(), warm=True):
        while not way.tried:
            await asyncio.sleep(0)


# -- over a socket -------------------------------------------------------------------------


@asynccontextmanager
async def over_websocket() -> AsyncGenerator[tuple[Simulator, Conversation]]:
    async with Simulator([text("Warm."), text("On.")]) as simulator:
        way = fallback.open_transport(
            Endpoint(
                base_url=simulator.base_url,
                profile=OPENAI,
                timeouts=Timeouts(connect=5, first_frame=5, idle=5),
            )
        )
        async with opened(way, agent(store=False)) as log:
            yield simulator, await log.conversation("c", agent="test")


def inputs(creates: list[JsonObject]) -> list[list[str]]:
    return [said(body) for body in creates]


async def test_an_unstored_warm_up_is_continued_on_its_lane() -> None:
    async with over_websocket() as (simulator, chat):
        assert await chat.warm()
        assert (await chat.run("Go.")).output_text == "Warm."
        await chat.run("And?")
        lanes = [one.lane for one in simulator.requests if one.method == "response.create"]
        assert len(lanes) == 3
        assert len(set(lanes)) == 1
        assert inputs(simulator.creates) == [[], ["Go."], ["And?"]]
        assert simulator.creates[1]["previous_response_id"]


async def test_where_the_websocket_is_refused_only_http_is_warm() -> None:
    async with over_websocket() as (simulator, chat):
        simulator.websocket = False
        assert not await chat.warm()
        assert (await chat.run("Go.")).output_text == "Warm."
        assert [one.method for one in simulator.requests if one.body is not None] == ["POST"]


# -- forks of what is not stored -----------------------------------------------------------


async def test_a_fork_of_an_unstored_response_goes_on_a_lane_of_its_own() -> None:
    async with Simulator([text("One."), text("Mine."), text("Yours.")]) as simulator:
        way = fallback.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
        async with opened(way, agent(store=False)) as log:
            chat = await log.conversation("c", agent="test")
            await chat.run("Go.")
            other = await chat.fork("d")
            theirs = await other.send("There.")
            await recorded(other, "response.started")
            assert (await chat.run("Here.")).output_text == "Yours."
            assert (await theirs.result()).output_text == "Mine."
            assert inputs(simulator.creates) == [["Go."], ["There."], ["Here."]]
            heard = [one for one in simulator.requests if one.method == "response.create"]
            assert len({one.connection for one in heard}) == 1
            assert len({one.lane for one in heard}) == 2
