"""A fault of the network at every point of a turn with two tool calls and an answer, each way.

A run without a fault says which frames pass, in both directions; then the turn is sent anew for
each fault at each point of each frame, and what must be so afterwards is in `strike`, whatever
the fault was and wherever. Nobody waits: the clock leaps as soon as all is silent.

Every fault strikes before, inside and behind every frame. Without TURNLOG_FAULTS=all, it strikes
inside a frame once, in its header or in its payload (which of them, changes from fault to fault
and from way to way); what does no harm strikes a frame once; and behind a frame it does where the
other side is next, since anywhere else that is before the next frame. Of these points each fault
takes a third on each way, and the next fault or way another third. A lost response can be fetched
from this provider, which has finished it long before; so whether the profile says so changes from
frame to frame too, or else nothing that was shown would ever be retracted.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.ports import Endpoint, Profile, Timeouts, Transport
from turnlog.record import Recorded
from turnlog.store import MemoryStore
from turnlog.updates import Retracted
from turnlog_transports import fallback, http
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from .given import (
    ASK,
    PATIENCE,
    SUM,
    collect,
    facts,
    in_no_time,
    inputs,
    leaping,
    model,
    shown,
    sound,
)
from .proxy import (
    HARMLESS,
    KINDS,
    Fault,
    Frame,
    Kind,
    Point,
    Proxy,
    Sender,
    Where,
)


@dataclass(frozen=True, slots=True)
class Way:
    """A transport, and what the provider can do."""

    open: Callable[[Endpoint], Transport]
    profile: Profile


ONE_AT_A_TIME = replace(OPENAI, lanes=False)
WAYS: Mapping[str, Way] = {
    "http": Way(http.open_transport, OPENAI),
    "websocket": Way(fallback.open_websocket, ONE_AT_A_TIME),
    "lanes": Way(fallback.open_websocket, OPENAI),
    "auto": Way(fallback.open_transport, OPENAI),
}
WAIT = 5.0
TIMEOUTS = Timeouts(connect=WAIT, queue=WAIT, first_frame=WAIT, idle=WAIT, total=60.0)
TLS = ssl.create_default_context()
"""Nothing is encrypted here; to make one for each point would take longer than the turn."""

EVERYWHERE = os.environ.get("TURNLOG_FAULTS") == "all"


# -- one point -----------------------------------------------------------------------------

ran: list[str] = []


async def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
    """Add two numbers."""
    ran.append(ctx.idempotency_key)
    return a + b


AGENT = turnlog.Agent("test", model="gpt-5", tools=[add])
UNSTORED = turnlog.Agent("unstored", model="gpt-5", tools=[add], store=False)


@dataclass(slots=True)
class Stage:
    """A log whose transport reaches the provider through a proxy."""

    simulator: Simulator
    proxy: Proxy
    log: turnlog.Log
    chat: Conversation


@asynccontextmanager
async def stage(
    way: str, simulator: Simulator, fault: Fault | None, *, fetches: bool = True
) -> AsyncGenerator[Stage]:
    """A new log, a new transport and a new proxy; the provider is the one that was there.

    `fetches` says whether the provider is asked what became of a response.
    """
    ran.clear()
    port = int(simulator.base_url.rpartition(":")[2].partition("/")[0])
    async with Proxy(port, fault) as proxy:
        profile = replace(WAYS[way].profile, retrieve=fetches)
        endpoint = Endpoint(base_url=proxy.base_url, profile=profile, timeouts=TIMEOUTS, tls=TLS)
        async with turnlog.open(
            "",
            agents=[AGENT, UNSTORED],
            transport=WAYS[way].open(endpoint),
            store=MemoryStore(),
            ambient=leaping(),
        ) as log:
            yield Stage(simulator, proxy, log, await log.conversation("c", agent=AGENT))


async def strike(now: Stage, fault: Fault) -> None:
    """Send the turn into the fault, and look at everything afterwards."""
    turn = await now.chat.send(ASK)
    updates = await collect(aiter(turn))
    result = await turn.peek()
    assert (result.status, result.output_text) == ("completed", SUM)
    assert "".join(shown(updates).values()) == SUM
    assert len(set(ran)) == len(ran) == 2
    await go_on(now)
    assert now.proxy.struck.is_set()
    events = await sound(now.log, now.chat)
    assert attempts(events) <= 4
    if fault.kind in HARMLESS:
        assert attempts(events) == 3
        assert not any(isinstance(one, Retracted) for one in updates)


async def go_on(now: Stage) -> None:
    """The next turn works, as a delta."""
    parent = (await now.chat.state()).parent
    assert parent is not None
    async with asyncio.timeout(PATIENCE):
        assert (await now.chat.run("And now?")).output_text == "Fine."
    assert now.simulator.creates[-1].get("previous_response_id") == parent
    assert inputs(await now.chat.items()) == [ASK, "And now?"]


def attempts(events: Sequence[Recorded]) -> int:
    """How often something was sent, or was to be."""
    return sum(isinstance(one.event, ev.RequestPrepared) for one in events)


# -- every point ---------------------------------------------------------------------------


async def sent(way: str, simulator: Simulator) -> list[tuple[Sender, Frame]]:
    """What passes in the turn where nothing goes wrong, and from whom."""
    async with stage(way, simulator, None) as now:
        assert (await now.chat.run(ASK)).output_text == SUM
        return list(now.proxy.passed)


def points(passed: Sequence[tuple[Sender, Frame]], kind: Kind, turned: int) -> Iterator[Point]:
    """Every point at which a fault strikes; `turned` says in which frames it does so where."""
    numbers: Counter[Sender] = Counter()
    followers: list[Sender | None] = [*(sender for sender, _ in passed[1:]), None]
    for (sender, frame), follower in zip(passed, followers, strict=True):
        numbers[sender] += 1
        number = numbers[sender]
        for where in places(frame, kind, last=follower != sender, odd=(number + turned) % 2 == 1):
            yield Point(sender, number, where)


def places(frame: Frame, kind: Kind, *, last: bool, odd: bool) -> list[Where]:
    """Where in a frame a fault strikes."""
    all: list[Where] = [where for where, _ in frame.places()]
    if kind == "trickle":
        return ["before"]
    if EVERYWHERE:
        return all
    inside: list[Where] = [where for where in all if where in ("in header", "in payload")]
    chosen: list[Where] = inside[:1] if odd else inside[-1:]
    if kind in HARMLESS:
        return chosen or ["before"]
    return ["before", *chosen, "after"] if last else ["before", *chosen]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@in_no_time
async def test_a_fault_everywhere(way: str, kind: Kind) -> None:
    async with Simulator([model] * 100_000) as simulator:
        turned = KINDS.index(kind) + list(WAYS).index(way)
        step = 1 if EVERYWHERE else 3
        found = [
            (point, fetches)
            for point in points(await sent(way, simulator), kind, turned)
            for fetches in whether(point.frame + turned)
        ][turned % step :: step]
        for point, fetches in found:
            fault = Fault(kind, point)
            try:
                async with stage(way, simulator, fault, fetches=fetches) as now:
                    await strike(now, fault)
            except Exception as error:
                error.add_note(f"{way}: {fault}, {fetches=}")
                raise
    print(f"{len(found)} points of {kind} on {way}")


def whether(number: int) -> Sequence[bool]:
    """Whether lost responses are fetched: either, and elsewhere the other, or both."""
    return (True, False) if EVERYWHERE else (number % 4 < 2,)


async def talk(now: Stage, name: str) -> None:
    """One of two conversations that share a connection, and so its fault."""
    chat = await now.log.conversation(name, agent=UNSTORED)
    turn = await chat.send(ASK)
    live = await collect(aiter(turn))
    later = await collect(aiter(turn))
    assert (await turn.peek()).output_text == SUM
    assert "".join(shown(live).values()) == SUM
    assert (facts(live), shown(live)) == (facts(later), shown(later))
    async with asyncio.timeout(PATIENCE):
        assert (await chat.run("And now?")).output_text == "Fine."
    assert inputs(await chat.items()) == [ASK, "And now?"]
    await sound(now.log, chat)


@pytest.mark.parametrize("kind", ["cut", "stall"])
@in_no_time
async def test_a_fault_hits_two_conversations_on_one_connection(kind: Kind) -> None:
    """Nothing is stored, so that both lose what the connection remembered."""
    async with Simulator([model] * 100_000) as simulator:
        async with stage("lanes", simulator, None) as now:
            await asyncio.gather(talk(now, "a"), talk(now, "b"))
            assert simulator.connections.total == 1
            passed = list(now.proxy.passed)
        found = list(points(passed, kind, 0))[:: 1 if EVERYWHERE else 5]
        for point in found:
            async with stage("lanes", simulator, Fault(kind, point)) as now:
                await asyncio.gather(talk(now, "a"), talk(now, "b"))
                assert now.proxy.struck.is_set(), point
                assert len(set(ran)) == len(ran) == 4, point
    print(f"{len(found)} points of {kind} on lanes that two share")
