"""What is remembered of what was written is a hint: others write too, and the store decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from turnlog import events as ev
from turnlog.commands import AddItems, Keyed, Start
from turnlog.context import requested
from turnlog.conversation import Conversation
from turnlog.diff import diff
from turnlog.draft import Ambient, Draft
from turnlog.errors import Busy, InvalidInput, ItemPresent, StoreCorrupt, VersionConflict
from turnlog.head import changed
from turnlog.ports import Append, Appended, Head
from turnlog.recent import KEPT, Recent
from turnlog.record import to_json
from turnlog.settling import _take_over  # pyright: ignore[reportPrivateUsage]
from turnlog.starting import make_way
from turnlog.state import Config, State, start
from turnlog.store import MemoryStore
from turnlog.testing import call, text
from turnlog.unbroken import unbroken

from .given import agent, opened, pay, tags

CONFIG = ev.ConversationConfigured(
    agent=None, model="m", instructions=None, tools=(), settings={}, fingerprint="f"
)


def at(version: int, id: str = "c") -> State:
    return changed(start(id), version=version)


# -- what is kept --------------------------------------------------------------------------


def test_a_newer_head_is_not_forgotten_for_an_older_one() -> None:
    recent = Recent()
    recent.put(at(5), 3)
    recent.put(at(4), 2)
    recent.put(at(5))
    known = recent.get("c")
    assert known is not None
    assert (known.state.version, known.epoch) == (5, 3)


def test_what_was_written_longest_ago_is_forgotten() -> None:
    recent = Recent()
    for number in range(KEPT + 1):
        recent.put(at(1, f"c{number}"))
    assert recent.get("c0") is None
    assert recent.get("c1") is not None
    recent.forget("c1")
    assert recent.get("c1") is None


def test_a_configuration_is_that_of_the_state_it_was_read_for() -> None:
    recent, draft = Recent(), Draft(start("c"), Ambient(), "user")
    draft.do(Start())
    before = draft.state
    draft.take([])
    recent.put_config(before, CONFIG)
    assert recent.config(before) is None  # of what is not remembered, nothing is
    recent.put(before)
    recent.put_config(before, CONFIG)
    assert recent.config(before) == CONFIG
    after = changed(before, version=2, config=Config(version=2, fingerprint="g"))
    assert recent.config(after) is None
    recent.put(after)
    recent.put_config(before, CONFIG)
    assert recent.config(after) is None


# -- what is decided on it -----------------------------------------------------------------


class Counting(MemoryStore):
    """Says how often a head was read."""

    read = 0

    async def head(self, conversation: str) -> Head | None:
        self.read += 1
        return await super().head(conversation)


@asynccontextmanager
async def two() -> AsyncGenerator[tuple[Conversation, Conversation]]:
    store = MemoryStore()
    bound = agent(pay)
    async with (
        opened([text("One."), text("Two.")], bound, store=store) as log,
        opened([text("Three.")], bound, store=store.beside()) as other,
    ):
        yield (
            await log.conversation("c", agent=bound),
            await other.conversation("c", agent=bound),
        )


async def test_what_follows_reads_no_head_to_be_written() -> None:
    store = Counting()
    bound = agent()
    async with opened([text("One."), text("Two.")], bound, store=store) as log:
        chat = await log.conversation("c", agent=bound)
        await chat.run("Go.")
        before = store.read
        await chat.add({"role": "user", "content": "More."})
        turn = await chat.send("On.")
        assert store.read == before
        assert (await turn.result()).output_text == "Two."


async def test_a_new_conversation_and_one_of_another_process_are_read_once() -> None:
    store, bound = Counting(), agent()
    for begun in (store, Counting(shelf=store.shelf, life=store.life)):
        async with opened([text("One."), text("Two.")], bound, store=begun) as log:
            await (await log.conversation("before", agent=bound)).run("Go.")
            before = begun.read
            turn = await (await log.conversation("c", agent=bound)).send("Go.")
            assert begun.read == before + 1
            assert (await turn.result()).output_text == "Two."


async def test_a_request_reads_the_head_once_too() -> None:
    store, bound = Counting(), agent()
    async with opened([text("One."), text("Two.")], bound, store=store) as log:
        await (await log.conversation("before", agent=bound)).request("Go.")
        before = store.read
        assert (await (await log.conversation("c", agent=bound)).request("Go.")).status
        assert store.read == before + 1


async def test_a_conversation_that_another_process_has_begun_meanwhile_is_not_new() -> None:
    async with two() as (chat, there):
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]
        await make_way(engine, "c", "raise")
        assert (await there.run("First.")).output_text == "Three."
        assert (await chat.run("Second.")).output_text == "One."
        said = [item.text for item in await chat.items()]
        assert said == ["First.", "Three.", "Second.", "One."]


async def test_a_conversation_that_was_opened_is_ready_to_send() -> None:
    store = Counting()
    bound = agent()
    async with opened([text("One.")], bound, store=store) as log:
        await (await log.conversation("c", agent=bound)).run("Go.")
    async with opened([text("Two.")], bound, store=store.beside()) as log:
        chat = await log.get("c")
        before = store.read
        turn = await chat.send("On.")
        assert store.read == before
        assert (await turn.result()).output_text == "Two."


async def test_items_that_another_process_has_added_are_not_overwritten() -> None:
    async with two() as (chat, there):
        await chat.run("Go.")
        await there.add({"role": "user", "content": "There."})
        await chat.add({"role": "user", "content": "Here."})
        assert [item.text for item in await chat.items()] == ["Go.", "One.", "There.", "Here."]
        assert (await there.run("On.")).output_text == "Three."
        assert (await chat.run("And on.")).output_text == "Two."


async def test_what_is_refused_is_refused_by_what_is_stored() -> None:
    async with two() as (chat, there):
        await chat.run("Go.")
        item = {"type": "message", "id": "msg_there", "role": "user", "content": "There."}
        version = await there.add(item)
        with pytest.raises(VersionConflict):
            await chat.add("Here.", expected_version=version - 1)
        assert await chat.add("Here.", expected_version=version) == version + 1
        with pytest.raises(ItemPresent):
            await chat.add(item)


async def test_a_turn_that_runs_elsewhere_is_in_the_way_all_the_same() -> None:
    store, bound = MemoryStore(), agent()
    async with (
        opened([text("One.")], bound, store=store) as log,
        opened([text("Slow.").but(stall_after=1)], bound, store=store.beside()) as other,
    ):
        chat = await log.conversation("c", agent=bound)
        await chat.run("Go.")
        there = await (await other.conversation("c", agent=bound)).send("Stay.")
        with pytest.raises(Busy):
            await chat.send("In between.")
        await there.cancel()
        assert "turn.cancel_requested" in await tags(chat)


async def test_a_key_is_looked_up_whoever_has_used_it() -> None:
    async with two() as (chat, there):
        await chat.run("Go.")
        first = await there.send("On.", idempotency_key="k")
        await first.result()
        again = await chat.send("On.", idempotency_key="k")
        assert again.id == first.id
        with pytest.raises(InvalidInput):
            await chat.add({"type": "message", "role": "user", "content": ""})


async def test_a_queue_that_waits_is_no_idle_conversation() -> None:
    bound = agent(pay)
    async with opened([call("pay", amount=5), text("Paid.")], bound) as log:
        chat = await log.conversation("c", agent=bound)
        assert (await chat.run("Pay.")).status == "waiting"
        queued = await chat.send("Behind.", if_busy="queue", pending="abandon")
        assert (await queued.result()).output_text == "Paid."


async def test_what_is_missing_in_a_tail_is_damage() -> None:
    store, draft = MemoryStore(), Draft(start("c"), Ambient(), "user")
    draft.do(Start())
    draft.do(AddItems(items=(Keyed("itm_1", {"role": "user", "content": "Hi."}),)))
    await store.append(draft.append(None))
    lost = Draft(draft.state, Ambient(), "user")
    lost.do(AddItems(items=(Keyed("itm_2", {"role": "user", "content": "Lost."}),)))
    tail = ev.Range(of="tail", start=2, stop=4)
    with pytest.raises(StoreCorrupt, match="lacks version 3"):
        await requested(store, lost.state, [tail])


async def test_a_head_that_is_old_says_nothing_of_who_runs() -> None:
    async with opened([text("One.").but(delay=0.001)], agent()) as log:
        chat = await log.conversation("c", agent=agent())
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]
        turn = await chat.send("Go.")
        head = await engine.head("c")
        await turn.result()
        await engine.wind_up()
        assert head.mine and not await engine.is_left(head)
        await make_way(engine, "c", "interrupt")


async def test_a_lease_that_somebody_took_since_is_left_to_them() -> None:
    async with opened([text("One.")], agent()) as log:
        chat = await log.conversation("c", agent=agent())
        await chat.run("Go.")
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]
        before = await engine.head("c")
        assert await _take_over(engine, replace(before, epoch=before.epoch - 1), None) == []
        assert await engine.head("c") == before


async def test_to_resume_what_runs_here_changes_nothing() -> None:
    async with opened([text("One.").but(stall_after=1)], agent()) as log:
        chat = await log.conversation("c", agent=agent())
        turn = await chat.send("Go.")
        before = await tags(chat)
        await turn.resume()
        assert [one for one in await tags(chat) if one == "turn.resumed"] == []
        assert (await tags(chat))[: len(before)] == before
        await turn.cancel()


# -- what is small -------------------------------------------------------------------------


def test_random_bytes_are_as_many_as_are_asked_for() -> None:
    ambient = Ambient()
    assert [len(ambient.token(size)) for size in (16, 1024, 4096, 5000)] == [16, 1024, 4096, 5000]


def test_an_id_of_two_types_does_not_stand_twice() -> None:
    items = [{"type": "message", "id": "x", "role": "user"}, {"type": "reasoning", "id": "x"}]
    assert len(diff([], items)) == 2


def test_what_is_json_already_stays_as_it_is() -> None:
    assert to_json(0.5) == 0.5


# -- work within work ----------------------------------------------------------------------


class Slow(MemoryStore):
    """Writes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def append(self, append: Append) -> Appended:
        await self.go.wait()
        return await super().append(append)


async def test_work_within_unbroken_work_is_as_unbroken() -> None:
    store, done = Slow(), list[str]()

    async def inner() -> None:
        draft = Draft(start("c"), Ambient(), "user")
        draft.do(Start())
        draft.do(AddItems(items=(Keyed("itm_1", {"role": "user", "content": "Hi."}),)))
        await store.append(draft.append(None))
        done.append("inner")

    async def outer() -> None:
        await unbroken(inner())
        done.append("outer")

    task = asyncio.create_task(unbroken(outer()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["inner", "outer"]


async def test_a_turn_that_begins_while_the_log_is_closed_has_an_outcome() -> None:
    store, bound = Slow(), agent()
    store.go.set()
    async with opened([text("One."), text("Two.")], bound, store=store) as log:
        chat = await log.conversation("c", agent=bound)
        await chat.run("Go.")
        store.go.clear()
        sending = asyncio.create_task(chat.send("On."))
        for _ in range(20):
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, store.go.set)
    await sending
    head = await store.beside().head("c")
    assert head is not None and head.owner is None
    assert head.state.turn is not None and head.state.turn.paused == "closed"
