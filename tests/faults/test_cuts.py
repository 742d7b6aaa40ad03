"""Every fault at every frame of a turn with two tool calls and an answer, on every transport.

The turn is sent to a real simulator (or, on `replay`, to the provider behind it), and the fault
strikes once. What must be so afterwards is in `strike`, whatever the fault was and wherever.
TURNLOG_FAULTS=all strikes at every place on every transport; without it, those places are thinned
out that cost the most time.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, obj, text
from turnlog.conversation import Conversation
from turnlog.ports import Create, Endpoint, Timeouts, Transport
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, error, refuse_upgrade
from turnlog.testing import text as says
from turnlog_transports import fallback, http, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator

from .given import (
    ASK,
    BOTH,
    PATIENCE,
    SUM,
    collect,
    in_no_time,
    inputs,
    leaping,
    model,
    shown,
    sound,
)

Script = Sequence[Reply | Callable[[JsonObject], Reply]]

GOOD = (BOTH, says(SUM))
"""The two responses of the turn, as they are without a fault."""

WAYS = ("replay", "http", "websocket", "lanes", "auto")
OPENERS: Mapping[str, Callable[[Endpoint], Transport]] = {
    "http": http.open_transport,
    "websocket": websocket.open_transport,
    "lanes": websocket.open_transport,
    "auto": fallback.open_transport,
}
PROFILES = {"websocket": replace(OPENAI, lanes=False)}
"""A WebSocket takes one response at a time, or several on lanes of their own."""

WAIT = 5.0
TIMEOUTS = Timeouts(first_frame=WAIT, idle=WAIT)
TLS = ssl.create_default_context()
"""Nothing is encrypted here; to make one for each transport would take longer than a turn."""

EVERYWHERE = os.environ.get("TURNLOG_FAULTS") == "all"


@dataclass(frozen=True, slots=True)
class Point:
    """One fault at one place: which response it spoils, behind how many of its frames."""

    fault: str
    response: int
    frames: int
    status: str = "completed"

    def script(self, frames: Sequence[Sequence[JsonObject]]) -> Script:
        """The spoilt response at its place, and a provider that is well again behind it."""
        spoilt = self.spoilt(GOOD[self.response], frames[self.response][: self.frames])
        return [*GOOD[: self.response], spoilt, *[model] * 10]

    def spoilt(self, good: Reply, before: Sequence[JsonObject]) -> Reply:
        """The response with the fault in it."""
        match self.fault:
            case "cut":
                return good.but(cut_after=self.frames)
            case "malformed":
                return good.but(malformed_after=self.frames)
            case "stall":
                return good.but(stall_after=self.frames)
            case "unended":
                return good.but(no_terminal=True)
            case "429":
                return error(429, "rate_limit_exceeded", retry_after=0.001)
            case "500":
                return error(500, "server_error")
            case "refused 403":
                return refuse_upgrade(403)
            case "refused 426":
                return refuse_upgrade(426)
            case _:
                return Reply(events=(*before, last_frame(self.fault, begun(before))))


def begun(frames: Sequence[JsonObject]) -> str:
    """The id of the response that these frames belong to."""
    return next((id for one in frames if (id := text(obj(one, "response"), "id"))), "resp_x")


def last_frame(fault: str, response: str) -> JsonObject:
    """The frame with which a response goes wrong in its stream."""
    if fault == "error":
        return {"type": "error", "code": "server_error", "message": "It broke.", "param": None}
    head: JsonObject = {"id": response, "object": "response", "output": []}
    if fault == "incomplete":
        details = {"reason": "max_output_tokens"}
        stopped = {**head, "status": "incomplete", "incomplete_details": details}
        return {"type": "response.incomplete", "response": stopped}
    problem = {"code": fault.partition(" ")[2], "message": "It broke."}
    return {
        "type": "response.failed",
        "response": {**head, "status": "failed", "error": problem},
    }


def places(frames: Sequence[Sequence[JsonObject]], fault: str, status: str) -> list[Point]:
    """A fault behind every number of frames of both responses, their last frames aside."""
    return [
        Point(fault, response, number, status)
        for response, sent in enumerate(frames)
        for number in range(len(sent))
    ]


def points(way: str, fault: str, frames: Sequence[Sequence[JsonObject]]) -> list[Point]:
    """Every place at which a fault can strike on a transport, and what the turn comes to."""
    match fault:
        case "cut" | "stall" | "malformed" | "error" | "failed server_error":
            return places(frames, fault, "completed")
        case "failed invalid_prompt":
            return places(frames, fault, "failed")
        case "incomplete":
            return places(frames, fault, "incomplete")
        case "refused 403" | "refused 426":
            final = way in ("replay", "websocket", "lanes")
            return [Point(fault, 0, 0, "failed" if final else "completed")]
        case _:
            return [Point(fault, 0, 0), Point(fault, 1, 0)]


FAULTS = (
    "cut",
    "malformed",
    "stall",
    "unended",
    "429",
    "500",
    "error",
    "failed server_error",
    "failed invalid_prompt",
    "incomplete",
    "refused 403",
    "refused 426",
)


# -- one point -----------------------------------------------------------------------------

ran: list[str] = []


async def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
    """Add two numbers."""
    ran.append(ctx.idempotency_key)
    return a + b


AGENT = turnlog.Agent("test", model="gpt-5", tools=[add])


@dataclass(slots=True)
class Provider:
    """The provider at the other end of a transport: what it was asked, and what it answers."""

    transport: Transport
    bodies: Callable[[], list[JsonObject]]
    play: Callable[[Script], None]


@asynccontextmanager
async def provider(way: str, script: Script, *, seed: str = "") -> AsyncGenerator[Provider]:
    """A transport, and a provider that answers from a script."""
    if way == "replay":
        replay = ReplayTransport(script, timeouts=Timeouts(first_frame=WAIT, idle=WAIT), seed=seed)
        yield Provider(replay, lambda: replay.requests, lambda _: None)
        return
    async with Simulator(script, seed=seed) as simulator:
        endpoint = Endpoint(
            base_url=simulator.base_url,
            profile=PROFILES.get(way, OPENAI),
            timeouts=TIMEOUTS,
            tls=TLS,
        )
        yield Provider(OPENERS[way](endpoint), lambda: simulator.creates, simulator.play)


async def frames_of(way: str) -> list[list[JsonObject]]:
    """The frames of each good response, as they come."""
    found: list[list[JsonObject]] = []
    async with provider(way, GOOD, seed="other") as far:
        for _ in GOOD:
            request = Create(body={"model": "gpt-5", "input": "Hi."}, parent=None)
            async with aclosing(far.transport.send(request)) as frames:
                found.append([dict(frame.data) async for frame in frames])
        await far.transport.close()
    return found


async def strike(log: turnlog.Log, far: Provider, point: Point) -> None:
    """Send the turn into the fault, and look at everything afterwards."""
    ran.clear()
    where = str(point)
    chat = await log.conversation(where, agent=AGENT)
    turn = await chat.send(ASK)
    updates = await collect(aiter(turn))
    result = await turn.peek()
    assert result.status == point.status, (where, result)
    await sound(log, chat)
    assert len(set(ran)) == len(ran) == (0 if not_called(point) else 2), where
    if result.status != "failed":
        assert "".join(shown(updates).values()) == result.output_text, where
    if result.status == "completed":
        assert result.output_text == SUM, where
    await go_on(log, chat, far, where)


def not_called(point: Point) -> bool:
    """Whether the turn was over before its calls could be run."""
    return point.status != "completed" and point.response == 0


async def go_on(log: turnlog.Log, chat: Conversation, far: Provider, where: str) -> None:
    """The next turn works, as a delta wherever there is something to continue from."""
    parent = (await chat.state()).parent
    assert (await chat.run("And now?")).output_text == "Fine.", where
    assert far.bodies()[-1].get("previous_response_id") == parent, where
    assert inputs(await chat.items()) == [ASK, "And now?"], where
    await sound(log, chat)


# -- every point ---------------------------------------------------------------------------


def thinned(way: str, found: Sequence[Point]) -> Sequence[Point]:
    """Some of many places, on a socket; which of them, changes from way to way."""
    step = {"replay": 1, "auto": 4}.get(way, 2)
    if EVERYWHERE or len(found) <= step:
        return found
    return found[WAYS.index(way) % step :: step]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", WAYS)
@in_no_time
async def test_a_fault_everywhere(way: str, fault: str) -> None:
    frames = await frames_of(way)
    found = thinned(way, points(way, fault, frames))
    # A transport of its own for each point, or one that goes through all of them.
    groups = [[point] for point in found] if way == "replay" or len(found) == 1 else [found]
    for group in groups:
        async with (
            provider(way, group[0].script(frames)) as far,
            turnlog.open(
                "", agents=[AGENT], transport=far.transport, store=MemoryStore(), ambient=leaping()
            ) as log,
        ):
            for point in group:
                far.play(point.script(frames))
                await strike(log, far, point)
    print(f"{len(found)} points of {fault} on {way}")


@in_no_time
async def test_a_provider_that_is_away_and_comes_back() -> None:
    """Nobody listens at first, and again between the calls and the answer; each way by itself."""
    for way in WAYS[1:]:
        async with Simulator([]) as simulator:
            port = int(simulator.base_url.rpartition(":")[2].partition("/")[0])
        profile = PROFILES.get(way, OPENAI)
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", profile=profile, tls=TLS)
        async with AsyncExitStack() as up:
            agent = turnlog.Agent("test", model="gpt-5", tools=[leaving(up)])
            script: Script = [call("leave"), *[model] * 3]
            async with turnlog.open(
                "", agents=[agent], transport=OPENERS[way](endpoint), store=MemoryStore()
            ) as log:
                chat = await log.conversation("c", agent=agent)
                turn = await chat.send(ASK)
                await until_recorded(chat, "response.rejected")
                await up.enter_async_context(Simulator(script, port=port, seed="a"))
                await until_recorded(chat, "call.answered")
                await until_recorded(chat, "response.rejected", (await early(chat)) + 1)
                await up.enter_async_context(Simulator([model] * 3, port=port, seed="b"))
                result = await turn.result()
                assert (result.status, result.output_text) == ("completed", SUM), way
                events = await sound(log, chat)
                assert any(isinstance(one.event, ev.ChainLost) for one in events), way


def leaving(up: AsyncExitStack) -> turnlog.Tool:
    """A tool that takes the provider away."""

    @turnlog.tool
    async def leave() -> str:
        await up.aclose()
        return "gone"

    return leave


async def early(chat: Conversation) -> int:
    """How often nobody was there before the tool had run."""
    tags = [one.tag for one in await chat.events()]
    return tags[: tags.index("call.answered")].count("response.rejected")


async def until_recorded(chat: Conversation, tag: str, times: int = 1) -> None:
    """Wait until something is in the log so many times."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if [one.tag for one in await chat.events()].count(tag) >= times:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", WAYS)
@in_no_time
async def test_a_stored_response_that_is_lost_and_finishes_is_fetched_and_not_paid_twice(
    way: str,
) -> None:
    """Section 4 of the design in a living process: the provider is asked what became of it."""
    frames = await frames_of(way)
    for number in range(1, len(frames[1])):
        script = [BOTH, says(SUM).but(cut_after=number, finishes=True), says("Fine.")]
        async with (
            provider(way, script) as far,
            turnlog.open(
                "", agents=[AGENT], transport=far.transport, store=MemoryStore(), ambient=leaping()
            ) as log,
        ):
            chat = await log.conversation("c", agent=AGENT)
            turn = await chat.send(ASK)
            updates = await collect(aiter(turn))
            fetches = way not in ("websocket", "lanes")
            assert (await turn.result()).output_text == (SUM if fetches else "Fine."), number
            if fetches:
                assert [one for one in updates if one.type == "retracted"] == [], number
                assert "".join(shown(updates).values()) == SUM
                assert len(far.bodies()) == 2, number
            await sound(log, chat)


@in_no_time
async def test_a_lost_response_that_nobody_can_be_asked_about_is_asked_for_anew() -> None:
    """The provider keeps nothing that could be fetched, or refuses to say what it has."""
    script = [says(SUM).but(cut_after=5, finishes=True), says(SUM)]
    keys = iter(["k", "wrong", "k"])
    async with Simulator(script, key="k") as simulator:
        endpoint = Endpoint(base_url=simulator.base_url, profile=OPENAI, key=lambda: next(keys))
        forgetful = replace(OPENAI, retrieve=False)
        for transport in (
            http.open_transport(endpoint),
            ReplayTransport(script, profile=forgetful),
        ):
            async with turnlog.open(
                "", agents=[AGENT], transport=transport, store=MemoryStore(), ambient=leaping()
            ) as log:
                chat = await log.conversation("c", agent=AGENT)
                turn = await chat.send("Say it.")
                updates = await collect(aiter(turn))
                assert (await turn.result()).output_text == SUM
                assert "retracted" in [one.type for one in updates]
                assert list(shown(updates).values()) == [SUM]
                await sound(log, chat)
