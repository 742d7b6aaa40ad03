"""What the torture found, each made small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.ports import Append, Appended, ConversationRow
from turnlog.state import Status
from turnlog.store import MemoryStore
from turnlog.testing import call, scripted, text


class Slow(MemoryStore):
    """A store whose answers come some steps of the loop after it has written, as a file's do."""

    async def append(self, append: Append) -> Appended:
        """Write, and answer later."""
        await asyncio.sleep(0)
        appended = await super().append(append)
        await asyncio.sleep(0)
        return appended


@asynccontextmanager
async def left_in_a_tool() -> AsyncGenerator[tuple[turnlog.Log, Conversation]]:
    """A log, and a turn in it whose owner died while its tool ran."""
    begun = asyncio.Event()

    @turnlog.tool(on_crash="give_up")
    async def look() -> None:
        begun.set()
        await asyncio.Event().wait()

    agent = turnlog.Agent("a", model="gpt-5", tools=[look])
    mortal = Slow()
    log = await turnlog.open("", store=mortal, agents=[agent], transport=scripted([call("look")]))
    chat = await log.conversation("c", agent=agent)
    await chat.send("Go.", idempotency_key="k")
    await begun.wait()
    mortal.abandon()
    transport = scripted([text("Done.")], checks=False)
    store = Slow(shelf=mortal.shelf)
    async with turnlog.open("", store=store, agents=[agent], transport=transport) as other:
        yield other, await other.get("c")
    await log.close()


async def test_a_turn_is_settled_once_by_many_at_once() -> None:
    """A service recovers while the sender sends again: both find the turn of a dead owner."""
    async with left_in_a_tool() as (log, chat):
        *found, turn = await asyncio.gather(
            log.recover(), log.recover(), chat.send("Go.", idempotency_key="k")
        )
        assert (await turn.result()).output_text == "Done."
        events = [one.event for one in await chat.events()]
        assert sum(isinstance(one, ev.CallUncertain) for one in events) == 1
        assert sum(map(len, found)) <= 2


async def late(steps: int, log: turnlog.Log) -> None:
    """Recover so many steps of the loop later."""
    for _ in range(steps):
        await asyncio.sleep(0)
    await log.recover()


@pytest.mark.parametrize("steps", range(12))
async def test_a_turn_that_begins_to_run_is_not_taken_for_left(steps: int) -> None:
    """Between the lease and the runner, a service of the same process may look."""
    async with left_in_a_tool() as (log, chat):
        await log.recover()
        turn = await chat.turn((await chat.turns())[0].turn)
        await asyncio.gather(turn.resume(), late(steps, log))
        assert (await turn.result()).output_text == "Done."
        paused = [one for one in await chat.events() if isinstance(one.event, ev.TurnPaused)]
        assert len(paused) == 1


class Behind(MemoryStore):
    """A store that lists conversations as they were a moment ago; `asked` says that it was."""

    asked: asyncio.Event

    async def conversations(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        status: Status | None = None,
        metadata: Mapping[str, str] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> list[ConversationRow]:
        """All of them, whatever has become of them since."""
        return await super().conversations(after=after, limit=limit)

    async def changed(self, seconds: float, *, others: bool = False) -> None:
        """Say that a service has looked at what was listed."""
        self.asked.set()
        await super().changed(seconds, others=others)


async def test_a_service_leaves_alone_what_has_ended_since_it_looked() -> None:
    store, agent = Behind(), turnlog.Agent("a", model="gpt-5")
    store.asked = asyncio.Event()
    async with turnlog.open(
        "", store=store, agents=[agent], transport=scripted([text("Done.")])
    ) as log:
        await (await log.conversation("c", agent=agent)).run("Go.")
        report = await log.work(stop=store.asked)
        assert (report.resumed, report.begun, report.stopped) == (0, 0, 0)
