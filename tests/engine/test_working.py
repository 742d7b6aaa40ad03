"""A worker: what it takes on, what it leaves alone, and how it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.errors import Closed, ConfigurationError, InvalidInput, StoreUnavailable
from turnlog.ports import ConversationRow
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, calls, scripted, text
from turnlog.working import WorkReport

from .given import PATIENCE, add, agent, all_of, opened, pay, recorded

STUCK = text("It was a bright cold day in April.").but(stall_after=3)
POLL = 0.01


@asynccontextmanager
async def at_work(
    log: turnlog.Log, *, most: int = 100, grace: float = 5.0, every: float = 60.0
) -> AsyncGenerator[list[WorkReport]]:
    """A worker on a log, told to stop at the end of the block; what it reported."""
    stop, reports = asyncio.Event(), list[WorkReport]()
    working = asyncio.create_task(
        log.work(stop=stop, poll=POLL, most=most, grace=grace, every=every, report=reports.append)
    )
    try:
        yield reports
    finally:
        stop.set()
        reports.append(await working)


async def left(
    script: Sequence[Reply], tag: str, chosen: turnlog.Agent | None = None, queued: bool = False
) -> tuple[MemoryStore, str]:
    """A store in which an owner died behind an event, and the turn that it left."""
    store = MemoryStore()
    async with opened(scripted(script), chosen or agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        if queued:
            await chat.send("And then?", if_busy="queue")
        await recorded(chat, tag)
        store.abandon()
    return store.beside(), turn.id


async def over(chat: Conversation, count: int = 1) -> None:
    """Wait until so many turns have ended."""
    async with asyncio.timeout(PATIENCE):
        while len(await all_of(chat, ev.TurnEnded)) < count:
            await asyncio.sleep(POLL)


async def test_what_a_dead_owner_left_is_settled_and_goes_on_and_then_the_queue() -> None:
    store, turn = await left([STUCK], "response.started", queued=True)
    async with opened([text("One."), text("Two.")], agent(), store=store) as log:
        chat = await log.get("c")
        async with at_work(log) as reports:
            await over(chat, 2)
        assert [item.text for item in await chat.items()] == ["Go.", "One.", "And then?", "Two."]
        done = reports[-1]
        assert (done.recovered, done.resumed, done.stopped, done.running) == (2, 1, 0, 0)
        assert "recovered=2 resumed=1" in str(done)
        resumed = next(one for one in await chat.events() if one.tag == "turn.resumed")
        assert (resumed.turn, resumed.actor) == (turn, "turnlog")
        assert isinstance(resumed.event, ev.TurnResumed) and resumed.event.reason == "work"
        assert (await log.verify()).ok


async def test_a_queue_that_was_left_alone_begins() -> None:
    store, turn = await left([STUCK], "response.started", queued=True)
    async with opened([], agent(), store=store) as log:
        await log.recover()
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        await (await (await log.get("c")).turn(turn)).cancel()
    async with opened([text("Two.")], agent(), store=store.beside()) as log:
        async with at_work(log) as reports:
            await over(await log.get("c"), 2)
        assert reports[-1].begun == 1


async def test_an_approval_given_anywhere_lets_the_turn_go_on() -> None:
    store = MemoryStore()
    asks = [calls(call("pay", amount=1), call("pay", amount=2)), text("Paid.")]
    async with opened(asks, agent(pay), store=store) as log:
        chat = await log.conversation("c", agent="test")
        first = await chat.run("Pay.")
        assert first.status == "waiting"
        async with opened([], agent(pay), store=store.beside()) as web:
            async with at_work(log) as reports:
                elsewhere = await web.get("c")
                one, other = (await elsewhere.state()).pending
                await one.approve(by="ana")
                await recorded(chat, "call.answered")
                await other.reject(by="ana")
                await over(chat)
            assert (await (await chat.turn(first.turn)).result()).output_text == "Paid."
            assert reports[-1].resumed >= 1


async def test_what_waits_for_somebody_or_is_not_ours_is_left_alone() -> None:
    store = MemoryStore()
    async with opened([call("pay", amount=1)], agent(pay), store=store) as log:
        await (await log.conversation("c", agent="test")).run("Pay.")
    other = turnlog.Agent("other", model="gpt-5")
    async with opened([call("add", a=1, b=2)], other, store=store.beside()) as log:
        chat = await log.conversation("d", agent="other")
        await chat.run("Add.")
    async with opened([], agent(pay), store=store.beside()) as log:
        manual = scripted([call("pay", amount=1)])
        async with opened(manual, agent(pay), store=store.beside()) as hand:
            await (await hand.conversation("e", agent="test")).request("Pay.")
        before = [row.version for row in await log.conversations()]
        async with at_work(log, every=POLL) as reports:
            async with asyncio.timeout(PATIENCE):
                while not any(report.waiting == 3 for report in reports):
                    await asyncio.sleep(POLL)
            await asyncio.sleep(5 * POLL)
        assert reports[-1].resumed == 0
        assert [row.version for row in await log.conversations()] == before


async def test_a_tool_that_is_bound_here_runs_though_it_was_not_bound_there() -> None:
    store = MemoryStore()
    bare = turnlog.Agent("test", model="gpt-5", tools=[{"type": "function", "name": "add"}])
    async with opened([call("add", a=1, b=2)], bare, store=store) as log:
        result = await (await log.conversation("c", agent="test")).run("Add.")
        assert result.reason == "unbound"
    async with opened([text("Three.")], agent(add), store=store.beside()) as log:
        chat = await log.get("c")
        async with at_work(log):
            await over(chat)
        assert (await chat.items())[-1].text == "Three."


async def test_no_more_turns_run_at_once_than_were_allowed() -> None:
    store = MemoryStore()
    async with opened([STUCK] * 3, agent(), store=store) as log:
        for name in "abc":
            chat = await log.conversation(name, agent="test")
            await chat.send("Go.")
            await recorded(chat, "response.started")
        store.abandon()
    running = list[int]()

    async def slow() -> str:
        running.append(len(log._engine.live))  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(POLL)
        return "ok"

    answers = [call("slow"), text("Fine.")]

    def answer(body: object) -> Reply:
        return answers[1] if "function_call_output" in str(body) else answers[0]

    async with opened([answer] * 6, agent(slow), store=store.beside()) as log:
        async with at_work(log, most=1):
            for name in "abc":
                await over(await log.get(name))
        assert running == [1, 1, 1]


async def test_a_turn_that_keeps_stopping_is_put_off_and_goes_on_when_that_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its process lets go of it each time, because a secret cannot be had."""
    hidden = {
        "type": "mcp",
        "server_label": "s",
        "server_url": "https://example.com",
        "authorization": turnlog.Secret("env:TURNLOG_TEST_TOKEN"),
    }
    chosen = turnlog.Agent("test", model="gpt-5", tools=[hidden])
    async with opened([text("Fine.")], chosen) as log:
        chat = await log.conversation("c", agent="test")
        with pytest.raises(ConfigurationError, match="TURNLOG_TEST_TOKEN"):
            await chat.run("Go.")
        async with at_work(log) as reports:
            async with asyncio.timeout(PATIENCE):
                while len(await all_of(chat, ev.TurnPaused)) < 3:
                    await asyncio.sleep(POLL)
            monkeypatch.setenv("TURNLOG_TEST_TOKEN", "secret")
            await over(chat)
        assert (await chat.items())[-1].text == "Fine."
        assert reports[-1].stopped >= 1


async def test_the_database_may_be_away_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    class Ill(MemoryStore):
        ill = 2

        async def orphans(self) -> list[str]:
            self.well()
            return await super().orphans()

        async def conversations(self, **options: object) -> list[ConversationRow]:
            self.well()
            return await super().conversations(**options)  # type: ignore[arg-type]

        def well(self) -> None:
            self.ill -= 1
            if self.ill >= 0:
                raise StoreUnavailable("not now")

    dead, _ = await left([STUCK], "response.started")
    store = Ill(shelf=dead.shelf)
    with caplog.at_level(logging.INFO, logger="turnlog.working"):
        async with opened([text("Fine.")], agent(), store=store) as log:
            async with at_work(log):
                await over(await log.get("c"))
    assert "cannot recover just now: not now" in caplog.text
    assert "cannot look for turns just now: not now" in caplog.text
    assert "c: left the turn to be resumed (crashed)" in caplog.text


async def test_it_waits_for_what_runs_and_no_longer_than_it_was_told() -> None:
    store, _ = await left([STUCK], "response.started")
    async with opened([STUCK], agent(), store=store) as log:
        chat = await log.get("c")
        async with at_work(log, grace=POLL) as reports:
            await recorded(chat, "turn.resumed")
        assert reports[-1].running == 1
    assert (await chat_status(store)) == "waiting"


async def chat_status(store: MemoryStore) -> str:
    async with opened([], agent(), store=store.beside()) as log:
        return (await (await log.get("c")).state()).status


async def test_a_line_is_logged_where_nobody_asked_for_reports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened([], agent()) as log:
        stop = asyncio.Event()
        stop.set()
        with caplog.at_level(logging.INFO, logger="turnlog.working"):
            await log.work(stop=stop)
        assert "work: running=0 waiting=0" in caplog.text


async def test_what_cannot_be_is_refused() -> None:
    async with opened([], agent()) as log:
        for work in (log.work(most=0), log.work(poll=0.0), log.work(every=-1.0)):
            with pytest.raises(InvalidInput, match="above 0"):
                await work
    with pytest.raises(Closed):
        await log.work()


async def test_closing_the_log_under_it_ends_it() -> None:
    async with opened([], agent()) as log:
        working = asyncio.create_task(log.work(poll=POLL))
        await asyncio.sleep(POLL)
    with pytest.raises(Closed):
        await working
