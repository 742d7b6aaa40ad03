"""What can come between a look and a step, made to happen: no two facts contradict each other.

`Meanwhile` is a memory store that lets something else go on at a chosen moment, as a slow database
would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.draft import Ambient
from turnlog.errors import InvalidInput, StoreCorrupt
from turnlog.ports import Append, Appended, Head, Profile
from turnlog.record import Recorded
from turnlog.settling import ask
from turnlog.store import MemoryStore
from turnlog.testing import call, calls, error, text
from turnlog.updates import Update
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator

from .given import add, agent, all_of, opened, tags, talking

Hook = Callable[[], Awaitable[object]]


async def steps(count: int = 60) -> None:
    """Let everything else go on for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


class Meanwhile(MemoryStore):
    """A store that lets a hook run once, behind the n-th head that is read from now on."""

    hooks: Mapping[int, Hook] = {}
    heads = 0
    slow_event: type[object] | None = None
    slow_reads = False

    async def head(self, conversation: str) -> Head | None:
        found = await super().head(conversation)
        self.heads += 1
        hook = self.hooks.get(self.heads)
        if hook is not None:
            await hook()
        return found

    async def append(self, append: Append) -> Appended:
        if any(type(one.event) is self.slow_event for one in append.events):
            await steps()
        return await super().append(append)

    async def events(
        self, conversation: str, *, after: int = 0, until: int | None = None, limit: int = 500
    ) -> list[Recorded]:
        if self.slow_reads:
            await steps()
        return await super().events(conversation, after=after, until=until, limit=limit)

    def behind(self, head: int, hook: Hook) -> None:
        self.hooks, self.heads = {head: hook}, 0


async def test_a_call_that_was_answered_before_its_tool_started_is_not_run() -> None:
    ran: list[str] = []

    async def first(order: str) -> str:
        """Answers its sibling, as a person might."""
        ran.append(order)
        sibling = next(one for one in (await chat.state()).pending if one.name == "second")
        await sibling.answer("by hand")
        return "done"

    def second(order: str) -> str:
        """Never runs."""
        ran.append(order)
        return "run"

    one_by_one = agent(turnlog.tool(first), turnlog.tool(second), max_parallel_tools=1)
    script = [calls(call("first", order="1"), call("second", order="2")), text("Done.")]
    async with talking(script, one_by_one) as (chat, _):
        assert (await chat.run("Go.")).status == "completed"
        assert ran == ["1"]
        assert len(await all_of(chat, ev.CallStarted)) == 1


async def test_a_call_is_given_up_beside_one_that_a_person_decides() -> None:
    @turnlog.tool(on_crash="give_up")
    async def light(n: int) -> str:
        """May be forgotten."""
        return await asyncio.Event().wait() and ""

    @turnlog.tool(on_crash="ask")
    async def grave(n: int) -> str:
        """May not."""
        return await asyncio.Event().wait() and ""

    both = agent(light, grave)
    store = MemoryStore()
    script = [calls(call("light", n=1), call("grave", n=2))]
    async with opened(script, both, store=store) as log:
        chat = await log.conversation("c", agent=both)
        await chat.send("Go.")
        while len(await all_of(chat, ev.CallStarted)) < 2:
            await asyncio.sleep(0)
        store.abandon()
        async with opened([text("Fine.")], both, store=store.beside()) as after:
            await after.recover()
            again = await after.get("c")
            turn = await again.turn((await again.state()).turn or "")
            result = await (await turn.resume()).result()
            (waiting,) = (await again.state()).pending
            assert (result.reason, waiting.name) == ("uncertain", "grave")


async def test_an_approval_that_comes_while_the_turn_is_about_to_pause_lets_it_go_on() -> None:
    store = Meanwhile()
    store.slow_event = ev.CallApproved
    approving: list[asyncio.Task[None]] = []

    async def asked(n: int) -> bool:
        (waiting,) = (await chat.state()).pending
        approving.append(asyncio.create_task(waiting.approve(by="ana")))
        await steps(3)
        return True

    @turnlog.tool(needs_approval=asked)
    def work(n: int) -> str:
        """Needs approval, which comes at once."""
        return "worked"

    async with talking([call("work", n=1), text("Done.")], agent(work), store=store) as (chat, _):
        assert (await chat.run("Go.")).status == "completed"
        await asyncio.gather(*approving)
        assert "turn.paused" not in await tags(chat)


async def test_a_turn_that_is_stopped_before_its_first_step_sends_nothing() -> None:
    async with talking([text("Never.")]) as (chat, way):
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]

        async def stop() -> None:
            while not engine.live:
                await asyncio.sleep(0)
            await engine.live["c"].stop("closed")

        stopping = asyncio.create_task(stop())
        turn = await chat.send("Go.")
        await stopping
        (rejected,) = await all_of(chat, ev.ResponseRejected)
        assert (rejected.reason, way.requests) == ("not_sent", [])
        assert (await (await turn.resume()).result()).output_text == "Never."


async def test_a_resumed_turn_that_is_closed_before_it_did_anything_gives_its_lease_back() -> None:
    hold = asyncio.Event()

    async def slow() -> str:
        await hold.wait()
        return "deps"

    careful = agent(turnlog.tool(add, needs_approval=True), deps=slow)
    hold.set()
    store = MemoryStore()
    async with opened([call("add", a=1, b=2)], careful, store=store) as log:
        chat = await log.conversation("c", agent=careful)
        result = await chat.run("Go.")
        assert result.status == "waiting"
    hold.clear()
    async with opened([text("Three.")], careful, store=store.beside()) as log:
        chat = await log.get("c")
        (waiting,) = (await chat.state()).pending
        await waiting.approve()
        await (await chat.turn(result.turn)).resume()
        await steps(5)
    head = await store.beside().head("c")
    assert head is not None
    assert (head.owner, head.state.status) == (None, "waiting")


async def test_a_lease_that_was_free_again_is_taken_at_the_second_try() -> None:
    store = Meanwhile()
    async with talking([text("One."), text("Three.")], store=store) as (chat, _):
        await chat.run("First.")
        async with opened([text("Two.")], agent(), store=store.beside()) as other:
            elsewhere = await other.get("c")
            _forget(chat)  # so that it reads before it begins
            store.behind(1, lambda: elsewhere.run("Second."))
            assert (await chat.run("Third.")).status == "completed"
        said = [item.text for item in await chat.items()]
        assert said == ["First.", "One.", "Second.", "Two.", "Third.", "Three."]
        assert [one.key for one in await all_of(chat, ev.TurnStarted)] == [
            row.turn for row in await chat.turns()
        ]


async def test_a_turn_may_begin_while_the_one_before_still_tidies_up() -> None:
    store = Meanwhile()
    tidy = asyncio.Event()

    @asynccontextmanager
    async def deps() -> AsyncGenerator[str]:
        yield "deps"
        await tidy.wait()

    held = agent(add, deps=deps)
    answers = [call("add", a=1, b=2), text("One."), text("Two.")]
    async with (
        talking(answers, held, store=store) as (chat, _),
        opened([text("Zero.")], agent(), store=store.beside()) as other,
    ):
        elsewhere = await other.conversation("c", agent="test")

        async def first() -> None:
            await chat.send("First.")
            while "One." not in [item.text for item in await chat.items(last=1)]:
                await asyncio.sleep(0)

        # Behind the way that was made it finds its epoch given out, and looks for a new one.
        store.hooks = {1: lambda: elsewhere.run("Begin."), 4: first}
        second = await chat.send("Second.")
        assert (await second.result()).output_text == "Two."
        said = [item.text for item in await chat.items() if item.text]
        assert said == ["Begin.", "Zero.", "First.", "One.", "Second.", "Two."]
        tidy.set()


async def test_a_fact_that_a_watcher_read_in_the_log_is_not_told_again() -> None:
    store = Meanwhile()
    async with talking([call("add", a=1, b=2), text("Three.")], store=store) as (chat, _):
        turn = await chat.send("Go.")
        store.slow_reads = True
        seen: list[Update] = [update async for update in turn]
        kinds = [update.type for update in seen]
        assert len(kinds) == len(set(kinds) - {"item"}) + kinds.count("item")


async def test_w15_an_output_without_its_call_is_nothing_to_send() -> None:
    async with talking([text("Never.")]) as (chat, _):
        lone = {"type": "function_call_output", "call_id": "call_x", "output": "?"}
        with pytest.raises(InvalidInput, match="nothing to send"):
            await chat.run(lone)
        assert await chat.events() == []


async def test_a_turn_whose_input_was_taken_away_between_two_tries_fails_and_says_so() -> None:
    overloaded = error(503, None, "Overloaded.", retry_after=0.2)
    async with talking([overloaded, text("Never.")], ambient=Ambient()) as (chat, way):
        turn = await chat.send("Go.")
        while "response.rejected" not in await tags(chat):
            await asyncio.sleep(0)
        (only,) = await chat.items()
        await chat.remove(only)
        result = await turn.peek()
        assert (result.status, len(way.requests)) == ("failed", 1)
        assert result.reason == "there is nothing left to send"


async def test_a_moment_is_found_before_between_and_behind_all_turns() -> None:
    async with talking([text("One."), text("Two.")]) as (chat, _):
        await chat.add("Hello.")
        begun = (await chat.events())[0].time / 1_000_000
        assert (await chat.at(time=begun + 1e9)).version == 3
        await chat.run("First.")
        await chat.run("Second.")
        last = (await chat.events())[-1]
        assert (await chat.at(time=last.time / 1_000_000 + 1)).version == last.version
        first = (await chat.turns())[0]
        assert (await chat.at(time=first.time / 1_000_000)).version < (first.ended or 0)


async def test_a_call_is_found_in_the_conversation_that_a_fork_of_a_fork_came_from() -> None:
    async with talking([call("ask", n=1), text("Fine.")], agent({"type": "web_search"})) as (
        chat,
        _,
    ):
        await chat.run("Go.")
        branch = await chat.fork("branch")
        (output,) = [item for item in await branch.items() if item.type == "function_call_output"]
        await branch.remove(output)
        twig = await branch.fork("twig")
        (again,) = [item for item in await twig.items() if item.type == "function_call_output"]
        assert "forked" in str(again.raw["output"])
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]
        state = (await chat.state()).head
        with pytest.raises(StoreCorrupt, match="verify"):
            await engine.call_item(state, replace(state.pending[0], item="itm_nowhere"))


async def test_a_response_that_does_not_finish_in_time_is_given_up() -> None:
    asks = Profile(name="asks", key_env=None, retrieve=True)
    script = [text("Later.").but(cut_after=4, finishes=True, polls=10_000)]
    store = MemoryStore()
    async with opened(ReplayTransport(script, profile=asks), agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        prepared = await _attempt(chat)
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]
        state = (await chat.state()).head
        assert state.attempt is not None
        found = await ask(engine, "c", state.attempt, prepared.response, every=0.001, seconds=0.003)
        assert found is None
        await turn.cancel()


async def _attempt(chat: Conversation) -> ev.ResponseStarted:
    while not (started := await all_of(chat, ev.ResponseStarted)):
        await asyncio.sleep(0)
    return started[0]


async def test_a_response_that_was_lost_over_a_websocket_is_asked_about_by_http() -> None:
    script = [text("All of it.").but(cut_after=6, finishes=True)]
    async with Simulator(script) as simulator:
        opening = turnlog.open(
            ":memory:", transport="websocket", base_url=simulator.base_url, profile="openai"
        )
        async with opening as log:
            chat = await log.conversation("c", model="gpt-5")
            assert (await chat.run("Go.")).output_text == "All of it."
        assert len(simulator.creates) == 1
        assert [one.method for one in simulator.requests][-1] == "GET"


async def test_a_turn_that_moves_while_it_is_resumed_is_looked_at_again() -> None:
    """Another process takes it on and dies over it: what it did is settled before it goes on."""
    store = Meanwhile()
    async with opened([call("add", a=1, b=2).but(stall_after=2)], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await store_says(chat, "response.started")
        await log.close()
    mine = Meanwhile(shelf=store.shelf)
    async with opened([text("Mine.")], agent(), store=mine) as log:
        chat = await log.get("c")

        async def taken_and_left() -> None:
            other = store.beside()
            stuck = text("Theirs.").but(stall_after=2)
            async with opened([stuck], agent(), store=other) as there:
                theirs = await there.get("c")
                await (await theirs.turn(turn.id)).resume()
                while (await tags(theirs)).count("response.started") < 2:
                    await asyncio.sleep(0)
                other.abandon()

        mine.behind(2, taken_and_left)
        handle = await (await chat.turn(turn.id)).resume()
        assert (await handle.result()).output_text == "Mine."
        said_ = await tags(chat)
        assert said_.count("turn.resumed") == 2
        assert said_.count("response.interrupted") == 2
        assert (await log.verify()).ok


async def test_a_turn_that_begins_while_the_log_is_closed_is_stopped_too() -> None:
    store = Meanwhile()
    async with opened([text("Never.").but(stall_after=1)], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        store.slow_event = ev.TurnStarted
        sending = asyncio.create_task(chat.send("Go."))
        await steps(10)
        await log.close()
        await asyncio.wait([sending])
    async with opened([], agent(), store=store.beside()) as log:
        assert not log._engine.live  # pyright: ignore[reportPrivateUsage]


def _forget(chat: Conversation) -> None:
    """As if this process had never seen it."""
    chat._engine.recent.forget(chat.id)  # pyright: ignore[reportPrivateUsage]


async def store_says(chat: Conversation, tag: str) -> None:
    """Wait until the log says something."""
    while tag not in await tags(chat):
        await asyncio.sleep(0)
