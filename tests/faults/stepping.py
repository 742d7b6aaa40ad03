"""A turn that is cut short after so many steps of the event loop, on every transport.

The one rule: a point is a number of steps, and each point has a log and a transport of its own;
the provider behind them stays. Everything runs on one loop, so that the same number leads to the
same place on every run.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.ports import Endpoint, Profile, Timeouts, Transport
from turnlog.record import Recorded
from turnlog.store import MemoryStore
from turnlog_transports import fallback, http
from turnlog_transports.profiles import OPENAI
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator

from .given import ASK, SUM, LateStore, for_ever, inputs, leaping, model, sound

STRIDE = 1 if os.environ.get("TURNLOG_FAULTS") == "all" else 12
"""Of how many steps one is taken; every test begins at another one."""

WAIT = 5.0
TIMEOUTS = Timeouts(connect=WAIT, queue=WAIT, first_frame=WAIT, idle=WAIT, total=60.0)
TLS = ssl.create_default_context()
"""Nothing is encrypted here; to make one for each point would take longer than the turn."""

OPENERS: Mapping[str, tuple[Callable[[Endpoint], Transport], Profile]] = {
    "http": (http.open_transport, OPENAI),
    "websocket": (fallback.open_websocket, replace(OPENAI, lanes=False)),
    "lanes": (fallback.open_websocket, OPENAI),
    "auto": (fallback.open_transport, OPENAI),
}
WAYS = ("replay", *OPENERS)


async def steps(number: int) -> None:
    """Let the event loop take so many steps."""
    for _ in range(number):
        await asyncio.sleep(0)


# -- one point -----------------------------------------------------------------------------

ran: list[str] = []


async def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
    """Add two numbers."""
    ran.append(ctx.idempotency_key)
    await asyncio.sleep(0)
    return a + b


AGENTS: Mapping[str, turnlog.Agent] = {
    "stored": turnlog.Agent("test", model="gpt-5", tools=[turnlog.tool(add, on_crash="rerun")]),
    "unstored": turnlog.Agent(
        "test", model="gpt-5", tools=[turnlog.tool(add, on_crash="rerun")], store=False
    ),
    "background": turnlog.Agent(
        "test", model="gpt-5", tools=[turnlog.tool(add, on_crash="rerun")], background=True
    ),
}


@dataclass(slots=True)
class Place:
    """A log in which one turn is cut short, and a way to open another behind it."""

    store: LateStore
    agent: turnlog.Agent
    connect: Callable[[], Transport]
    log: turnlog.Log
    chat: Conversation

    @asynccontextmanager
    async def reopened(self) -> AsyncGenerator[tuple[turnlog.Log, Conversation]]:
        """The next owner of the same data, with a transport of its own."""
        async with opened(self.store.beside(), self.agent, self.connect()) as log:
            yield log, await log.get("c")


def opened(store: MemoryStore, agent: turnlog.Agent, transport: Transport) -> turnlog.log.Opening:
    """A log over a store."""
    return turnlog.open("", agents=[agent], transport=transport, store=store, ambient=leaping())


Cut = Callable[[Place, int], Awaitable[bool]]
"""Cut a turn short after so many steps; whether it was over before."""


async def run_cancelled(now: Place, number: int) -> bool:
    """Whoever awaits `run` is cancelled."""
    running = asyncio.create_task(now.chat.run(ASK))
    await steps(number)
    if running.done():
        return running.result().output_text == SUM
    running.cancel()
    with suppress(asyncio.CancelledError):
        assert (await running).output_text == SUM
    return False


async def turn_cancelled(now: Place, number: int) -> bool:
    """Somebody else cancels the turn."""
    turn = await now.chat.send(ASK)
    await steps(number)
    await turn.cancel(by="ana")
    return (await turn.result()).status == "completed"


async def stream_left(now: Place, number: int) -> bool:
    """Whoever watches leaves the block."""
    async with now.chat.stream(ASK) as turn:
        watching = asyncio.create_task(_watched(turn))
        await steps(number)
        watching.cancel()
        await asyncio.wait({watching})
    return (await turn.result()).status == "completed"


async def _watched(turn: turnlog.Turn[str]) -> None:
    async for _ in turn:
        pass


async def log_closed(now: Place, number: int) -> bool:
    """The log is closed, and the next owner finishes the turn."""
    turn = await now.chat.send(ASK)
    await steps(number)
    await now.log.close()
    left = await now.store.beside().head("c")
    # What still runs at the provider is left to whoever resumes; everything else is settled.
    assert left is not None
    assert left.owner is None or (left.state.attempt is not None and not left.alive)
    assert left.state.attempt is None or left.state.attempt.background
    over = left.state.turn is None
    async with now.reopened() as (log, chat):
        if left.state.turn is not None and left.owner is None:
            assert left.state.turn.paused == "closed"
        result = await (await (await chat.turn(turn.id)).resume()).result()
        assert (result.status, result.output_text) == ("completed", SUM)
        await sound(log, chat, reruns=True)
        assert len(set(ran)) == 2
        await go_on(log, chat, [ASK])
    return over


CUTS: tuple[Cut, ...] = (run_cancelled, turn_cancelled, stream_left, log_closed)


# -- every point ---------------------------------------------------------------------------


@asynccontextmanager
async def provider(way: str) -> AsyncGenerator[Callable[[], Transport]]:
    """A provider that is there for all points, and how to reach it anew."""
    if way == "replay":
        yield lambda: ReplayTransport(for_ever())
        return
    open_transport, profile = OPENERS[way]
    async with Simulator([model] * 100_000) as simulator:
        yield lambda: open_transport(
            Endpoint(base_url=simulator.base_url, profile=profile, timeouts=TIMEOUTS, tls=TLS)
        )


async def everywhere(
    cut: Cut, agent: turnlog.Agent, connect: Callable[[], Transport], *, first: int
) -> tuple[int, int]:
    """Cut a turn short at every point, from the first on; how many, and in how many steps."""
    number, points, over = first % STRIDE, 0, False
    others = asyncio.all_tasks()
    while not over:
        ran.clear()
        store = LateStore()
        try:
            async with opened(store, agent, connect()) as log:
                chat = await log.conversation("c", agent=agent)
                over = await cut(Place(store, agent, connect, log, chat), number)
                if cut is not log_closed:
                    await check(store, log, chat, over=over)
            await tidied(others)
        except BaseException as error:
            error.add_note(f"{cut.__name__} after {number} steps")
            raise
        number, points = number + STRIDE, points + 1
    return points, number - STRIDE


def at_work() -> set[asyncio.Task[object]]:
    """All that runs, but for who listens to other processes, for as long as the log is open."""
    return {task for task in asyncio.all_tasks() if task.get_name() != "turnlog news"}


async def tidied(others: set[asyncio.Task[object]]) -> None:
    """Nothing runs any more that did not before; a server takes some steps to see that."""
    for _ in range(200):
        if asyncio.all_tasks() <= others:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"left over: {asyncio.all_tasks() - others}")


async def check(store: LateStore, log: turnlog.Log, chat: Conversation, *, over: bool) -> None:
    """What must be so wherever the turn was cut short, and that the next one works."""
    assert not [task for task in at_work() if task.get_name().startswith("turnlog ")]
    events = await sound(log, chat)
    assert len(set(ran)) == len(ran)
    if events:
        head = await store.head("c")
        assert head is not None and head.owner is None
        assert head.state.status == "idle"
        says_so(events, over=over)
    await go_on(log, chat, [ASK] if events else [])


def says_so(events: list[Recorded], *, over: bool) -> None:
    """The log says that the turn was cancelled, unless it was over first."""
    (ended,) = [one.event for one in events if isinstance(one.event, ev.TurnEnded)]
    asked = [one for one in events if isinstance(one.event, ev.TurnCancelRequested)]
    assert ended.outcome == "completed" if over else ended.outcome in ("cancelled", "completed")
    assert ended.outcome == "completed" or len(asked) == 1


async def go_on(log: turnlog.Log, chat: Conversation, said: list[str]) -> None:
    """The next turn works, by the same transport."""
    assert (await chat.run("And now?")).output_text == "Fine."
    await sound(log, chat, reruns=True)
    assert inputs(await chat.items()) == [*said, "And now?"]
