"""A turn is cancelled after every single step of the event loop that it takes, each in a new log.

Whatever step it was: the conversation stays usable, every call has an output, no lease is held and
no task is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import turnlog
from turnlog.conversation import Conversation
from turnlog.store import MemoryStore
from turnlog.testing import scripted

from .given import ASK, SUM, LateStore, for_ever, inputs, leaping, sound

ran: list[str] = []


async def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
    """Add two numbers."""
    ran.append(ctx.idempotency_key)
    await asyncio.sleep(0)
    return a + b


AGENT = turnlog.Agent("test", model="gpt-5", tools=[add])


@dataclass(slots=True)
class Stage:
    """One log in which one turn is disturbed."""

    store: MemoryStore
    log: turnlog.Log
    chat: Conversation


@asynccontextmanager
async def stage() -> AsyncGenerator[Stage]:
    ran.clear()
    store = LateStore()
    transport = scripted(for_ever())
    async with turnlog.open(
        "", agents=[AGENT], transport=transport, store=store, ambient=leaping()
    ) as log:
        yield Stage(store, log, await log.conversation("c", agent=AGENT))


async def steps(number: int) -> None:
    """Let the event loop take so many steps."""
    for _ in range(number):
        await asyncio.sleep(0)


Disturb = Callable[[Stage, int], Awaitable[bool]]


async def everywhere(disturb: Disturb) -> int:
    """Disturb a turn after 0, 1, 2 … steps, until it was over before; how many those were."""
    number = 0
    while True:
        async with stage() as now:
            over = await disturb(now, number)
            await check(now, number)
        number += 1
        if over:
            return number


async def check(now: Stage, number: int) -> None:
    """What must be so, wherever it was."""
    where = f"after {number} steps"
    assert asyncio.all_tasks() == {asyncio.current_task()}, where
    events = await sound(now.log, now.chat)
    assert len(set(ran)) == len(ran), where
    if events:
        head = await now.store.head("c")
        assert head is not None and head.owner is None, where
        assert head.state.status == "idle", where
        assert {row.outcome for row in await now.chat.turns()} <= {"cancelled", "completed"}, where
    assert (await now.chat.run("And now?")).output_text == "Fine.", where
    await sound(now.log, now.chat)
    asked = [ASK] if events else []
    assert inputs(await now.chat.items()) == [*asked, "And now?"], where


async def test_the_await_of_run_is_cancelled() -> None:
    async def disturb(now: Stage, number: int) -> bool:
        running = asyncio.create_task(now.chat.run(ASK))
        await steps(number)
        if running.done():
            assert running.result().output_text == SUM
            return True
        running.cancel()
        with suppress(asyncio.CancelledError):
            assert (await running).output_text == SUM
        return False

    print(await everywhere(disturb), "points")


async def test_the_turn_is_cancelled_from_another_task() -> None:
    async def disturb(now: Stage, number: int) -> bool:
        turn = await now.chat.send(ASK)
        await steps(number)
        await turn.cancel(by="ana")
        result = await turn.result()
        return result.status == "completed"

    print(await everywhere(disturb), "points")
