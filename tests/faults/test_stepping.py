"""A turn is cancelled after every single step of the event loop that it takes, each in a new log.

Whatever step it was: the conversation stays usable, every call has an output, no lease is held and
no task is left. First on a script, at every step; then on every transport, where the steps are
thinned evenly unless TURNLOG_FAULTS=all. Each test prints how many points it enumerated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

import turnlog
from turnlog.conversation import Conversation
from turnlog.errors import Busy
from turnlog.store import MemoryStore
from turnlog.testing import scripted
from turnlog.turn import Turn
from turnlog.updates import TurnDone

from . import stepping
from .given import (
    ASK,
    SUM,
    LateStore,
    collect,
    facts,
    for_ever,
    in_no_time,
    inputs,
    leaping,
    shown,
    sound,
)
from .stepping import at_work, steps

STRIDE = 1 if os.environ.get("TURNLOG_FAULTS") == "all" else 3
"""Of how many steps one is taken, where two send at once."""

ran: list[str] = []


async def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
    """Add two numbers."""
    ran.append(ctx.idempotency_key)
    await asyncio.sleep(0)
    return a + b


@asynccontextmanager
async def tidied() -> AsyncGenerator[None]:
    """Dependencies that take long to be put away."""
    yield
    await steps(40)


AGENT = turnlog.Agent("test", model="gpt-5", tools=[add])
RERUN = turnlog.Agent("test", model="gpt-5", tools=[turnlog.tool(add, on_crash="rerun")])
TIDY = turnlog.Agent("test", model="gpt-5", tools=[add], deps=tidied)
CAREFUL = turnlog.Agent("test", model="gpt-5", tools=[turnlog.tool(add, needs_approval=True)])


@dataclass(slots=True)
class Stage:
    """One log in which one turn is disturbed."""

    store: LateStore
    log: turnlog.Log
    chat: Conversation


@asynccontextmanager
async def stage(agent: turnlog.Agent = AGENT) -> AsyncGenerator[Stage]:
    """A log in memory, with a conversation `c` in which nothing happened so far."""
    ran.clear()
    store = LateStore()
    async with reopened(store, agent) as log:
        yield Stage(store, log, await log.conversation("c", agent=agent))


@asynccontextmanager
async def reopened(store: MemoryStore, agent: turnlog.Agent) -> AsyncGenerator[turnlog.Log]:
    """A log over a store, with a provider that does not know what was asked of another."""
    async with turnlog.open(
        "", agents=[agent], transport=scripted(for_ever()), store=store, ambient=leaping()
    ) as log:
        yield log


Disturb = Callable[[Stage, int], Awaitable[bool]]


async def everywhere(disturb: Disturb, agent: turnlog.Agent = AGENT) -> int:
    """Disturb a turn after 0, 1, 2 … steps, until it was over before; how many those were."""
    number = 0
    while True:
        async with stage(agent) as now:
            over = await disturb(now, number)
            await check(now, number)
        number += 1
        if over:
            return number


async def check(now: Stage, number: int) -> None:
    """What must be so, wherever it was."""
    where = f"after {number} steps"
    assert at_work() == {asyncio.current_task()}, where
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

    print(await everywhere(disturb), "points of a run")


async def test_the_turn_is_cancelled_from_another_task() -> None:
    async def disturb(now: Stage, number: int) -> bool:
        turn = await now.chat.send(ASK)
        await steps(number)
        await turn.cancel(by="ana")
        result = await turn.result()
        return result.status == "completed"

    print(await everywhere(disturb), "points of a turn")


async def test_a_watcher_sees_what_the_log_tells_afterwards() -> None:
    async def disturb(now: Stage, number: int) -> bool:
        turn = await now.chat.send(ASK)
        watching = asyncio.create_task(collect(aiter(turn)))
        await steps(number)
        await turn.cancel()
        live, later = await watching, await collect(aiter(turn))
        assert facts(live) == facts(later), number
        assert shown(live) == shown(later), number
        assert isinstance(live[-1], TurnDone)
        return live[-1].status == "completed"

    print(await everywhere(disturb), "points of a watched turn")


async def test_the_log_is_closed_and_another_finishes_the_turn() -> None:
    number, over = 0, False
    while not over:
        async with stage(RERUN) as now:
            turn = await now.chat.send(ASK)
            await steps(number)
            await now.log.close()
            left = await now.store.beside().head("c")
            assert left is not None and left.owner is None and left.state.attempt is None, number
            over = left.state.turn is None
            assert over or (left.state.turn and left.state.turn.paused == "closed"), number
            async with reopened(now.store.beside(), RERUN) as log:
                again = await log.get("c")
                result = await (await (await again.turn(turn.id)).resume()).result()
                assert (result.status, result.output_text) == ("completed", SUM), number
                await sound(log, again, reruns=True)
                assert len(set(ran)) == 2, number
                assert (await again.run("And now?")).output_text == "Fine.", number
                assert inputs(await again.items()) == [ASK, "And now?"], number
        number += 1
    print(number, "points of a closed log")


async def test_a_waiting_turn_is_approved_resumed_and_cancelled() -> None:
    async def disturb(now: Stage, number: int) -> bool:
        result = await now.chat.run(ASK)
        assert result.status == "waiting"
        turn = await now.chat.turn(result.turn)
        for one in (await now.chat.state()).pending:
            await one.approve(by="ana")
        resuming = asyncio.create_task(turn.resume())
        await steps(number)
        await turn.cancel()
        await resuming
        return (await turn.result()).status == "completed"

    print(await everywhere(disturb, CAREFUL), "points of a resumed turn")


async def test_two_resume_one_turn() -> None:
    for number in range(40):
        async with stage(CAREFUL) as now:
            turn = await now.chat.turn((await now.chat.run(ASK)).turn)
            pending = (await now.chat.state()).pending
            for one in pending[1:]:
                await one.approve()

            async def second(turn: Turn[str] = turn, number: int = number) -> None:
                await steps(number)
                await turn.resume()

            await asyncio.gather(pending[0].approve(), turn.resume(), second())
            await turn.resume()
            assert (await turn.result()).output_text == SUM, number
            await check(now, number)


async def test_two_send_at_once_and_one_wins() -> None:
    number, over = 0, False
    while not over:
        async with stage(TIDY) as now:
            first = asyncio.create_task(now.chat.run(ASK))
            await steps(number)
            over = first.done()
            second = asyncio.create_task(now.chat.run(ASK))
            ends = await asyncio.gather(first, second, return_exceptions=True)
            lost = [end for end in ends if isinstance(end, BaseException)]
            assert all(isinstance(end, Busy) for end in lost), (number, ends)
            assert len(lost) == 1 or number > 60, number
            await sound(now.log, now.chat)
            assert inputs(await now.chat.items()) == [ASK] * (2 - len(lost)), number
        number += STRIDE
    print(number // STRIDE, "points of a second send")


async def test_two_processes_send_and_one_wins() -> None:
    number, over = 0, False
    while not over:
        async with stage() as now, reopened(now.store.late(), AGENT) as log:
            other = await log.conversation("c", agent=AGENT)
            first = asyncio.create_task(now.chat.run(ASK))
            await steps(number)
            over = first.done()
            ends = await asyncio.gather(first, other.run(ASK), return_exceptions=True)
            lost = [end for end in ends if isinstance(end, BaseException)]
            assert all(isinstance(end, Busy) for end in lost), (number, ends)
            assert len(lost) == 1 or number > 60, number
            await sound(log, other)
            assert inputs(await other.items()) == [ASK] * (2 - len(lost)), number
        number += STRIDE
    print(number // STRIDE, "points of a send in another process")


async def test_two_processes_resume_and_one_wins() -> None:
    for number in range(40):
        async with stage(CAREFUL) as now, reopened(now.store.late(), CAREFUL) as log:
            turn = await now.chat.turn((await now.chat.run(ASK)).turn)
            for one in (await now.chat.state()).pending:
                await one.approve()
            there = await (await log.get("c")).turn(turn.id)

            async def second(there: Turn[str] = there, number: int = number) -> None:
                await steps(number)
                await there.resume()

            ends = await asyncio.gather(turn.resume(), second(), return_exceptions=True)
            lost = [end for end in ends if isinstance(end, BaseException)]
            assert all(isinstance(end, Busy) for end in lost) and len(lost) < 2, (number, ends)
            await turn.peek()
            await there.peek()
            assert (await turn.result()).output_text == SUM, number
            await check(now, number)


async def test_two_send_with_one_key_and_get_one_turn() -> None:
    number, over = 0, False
    while not over:
        async with stage() as now:
            first = asyncio.create_task(now.chat.run(ASK, idempotency_key="k"))
            await steps(number)
            over = first.done()
            second = await now.chat.run(ASK, idempotency_key="k")
            assert (await first).turn == second.turn
            assert second.output_text == SUM
            await check(now, number)
        number += STRIDE
    print(number // STRIDE, "points of a repeated send")


# -- on every transport --------------------------------------------------------------------

KINDS = [
    *[(way, kind) for way in stepping.WAYS for kind in ("stored", "unstored")],
    *[(way, "background") for way in ("http", "auto")],
]
"""The transports, with parents that are stored, that are not, and responses in the background."""


@pytest.mark.parametrize(("way", "kind"), KINDS)
@in_no_time
async def test_a_turn_is_cut_short_everywhere(way: str, kind: str) -> None:
    """By `run`, `cancel`, `stream` and `close`; TURNLOG_FAULTS=all takes every step."""
    async with stepping.provider(way) as connect:
        for place, cut in enumerate(stepping.CUTS):
            first = KINDS.index((way, kind)) + 2 * place
            agent = stepping.AGENTS[kind]
            points, total = await stepping.everywhere(cut, agent, connect, first=first)
            print(f"{points} points of {total} steps of {cut.__name__} on {way}, {kind}")
