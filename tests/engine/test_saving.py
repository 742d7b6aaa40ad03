"""When notes and text of a response get into the log: soon, in order, and behind no refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import pytest

import turnlog
from turnlog import Checkpoints
from turnlog import events as ev
from turnlog.errors import ConfigurationError, StaleEpoch, Waiting
from turnlog.ports import Append, Appended, Frame, Request
from turnlog.sending import NOTE_TURNS, Due
from turnlog.store import MemoryStore
from turnlog.testing import Reply, text
from turnlog_transports.replay import ReplayTransport

from .given import agent, opened, tags

SOON = NOTE_TURNS // 2
"""Fewer turns than a note waits for."""


class Saves(MemoryStore):
    """Counts what is saved while a response comes, and waits before each for what is asked."""

    def __init__(self, before: Callable[[int], Awaitable[None]]) -> None:
        super().__init__()
        self.count = 0
        self._before = before

    async def append(self, append: Append) -> Appended:
        events = [one.event for one in append.events]
        if all(isinstance(one, ev.ResponseStarted | ev.OutputCheckpointed) for one in events):
            self.count += 1
            await self._before(self.count)
        return await super().append(append)


class Between(ReplayTransport):
    """Does something behind its nth frame."""

    def __init__(self, script: list[Reply], what: Mapping[int, Callable[[], Awaitable[object]]]):
        super().__init__(script)
        self._what = what

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        heard = 0
        async for frame in super().send(request):
            yield frame
            heard += 1
            if heard in self._what:
                await self._what[heard]()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def nothing(_: int) -> None:
    pass


async def test_a_note_waits_for_turns_of_the_loop_and_not_for_ever() -> None:
    done: list[str] = []
    few, late = Due(lambda: done.append("few")), Due(lambda: done.append("late"))
    few.soon(SOON, 60.0)
    late.soon(10**9, 0.01)
    await turns(SOON + 2)
    assert done == ["few"]
    await asyncio.sleep(0.05)
    assert done == ["few", "late"]


@pytest.mark.parametrize("background", [False, True])
async def test_the_id_of_a_background_response_waits_for_nothing(background: bool) -> None:
    store, saved = Saves(nothing), list[int]()

    async def look() -> None:
        await turns(SOON)
        saved.append(store.count)

    bound = agent(background=True) if background else agent()
    transport = Between([text("One.")], {1: look})
    async with opened(transport, bound, store=store) as log:
        chat = await log.conversation("c", agent=bound)
        assert (await chat.run("Go.")).output_text == "One."
    assert saved == [int(background)]


async def test_text_that_was_due_while_something_was_saved_is_saved_right_behind_it() -> None:
    gate, saved = asyncio.Event(), list[int]()

    async def wait(count: int) -> None:
        if count == 1:
            await gate.wait()

    store = Saves(wait)

    async def look() -> None:
        await asyncio.sleep(1.5 * Checkpoints().seconds)
        saved.append(store.count)
        gate.set()
        await turns(4 * NOTE_TURNS)
        saved.append(store.count)

    transport = Between([text("One and two and three.")], {6: look})
    async with opened(transport, agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("Go.")
        assert "output.checkpointed" in await tags(chat)
    assert saved == [1, 2]


async def test_nothing_more_is_saved_once_a_save_was_refused() -> None:
    async def refuse(_: int) -> None:
        raise StaleEpoch("another owner took the turn")

    store = Saves(refuse)

    async def look() -> None:
        await asyncio.sleep(1.5 * Checkpoints().seconds)

    transport = Between([text("One and two and three.")], {6: look})
    async with opened(transport, agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        with pytest.raises(Waiting):
            await turn.result()
        assert store.count == 1


@pytest.mark.parametrize(("points", "saved_at_once"), [(3, True), (100_000, False)])
async def test_how_much_text_waits_is_a_setting(points: int, saved_at_once: bool) -> None:
    texts: list[bool] = []

    async def look() -> None:
        await turns(4 * NOTE_TURNS)
        texts.append("output.checkpointed" in [one.tag for one in await store.events("c")])

    store, bound = MemoryStore(), agent()
    transport = Between([text("One and two and three.")], {6: look})
    every = Checkpoints(seconds=60.0, points=points)
    async with turnlog.open(
        ":memory:", agents=[bound], transport=transport, store=store, checkpoints=every
    ) as log:
        chat = await log.conversation("c", agent="test")
        assert (await chat.run("Go.")).output_text == "One and two and three."
    assert texts == [saved_at_once]


async def test_enough_text_that_came_while_something_was_saved_is_saved_right_behind_it() -> None:
    saving, gate, texts = asyncio.Event(), asyncio.Event(), list[bool]()

    async def wait(count: int) -> None:
        if count == 1:
            saving.set()
            await gate.wait()

    store, bound = Saves(wait), agent()

    async def look() -> None:
        gate.set()
        await turns(4 * NOTE_TURNS)
        texts.append("output.checkpointed" in [one.tag for one in await store.events("c")])

    transport = Between([text("One and two and three.")], {2: saving.wait, 6: look})
    every = Checkpoints(seconds=60.0, points=3)
    async with turnlog.open(
        ":memory:", agents=[bound], transport=transport, store=store, checkpoints=every
    ) as log:
        chat = await log.conversation("c", agent=bound)
        assert (await chat.run("Go.")).output_text == "One and two and three."
    assert texts == [True]


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan"), True, "1"])
def test_a_time_between_checkpoints_is_a_number_above_0(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="a number above 0"):
        Checkpoints(seconds=seconds)


@pytest.mark.parametrize("seconds", [10**400, 1e9])
def test_a_time_between_checkpoints_is_a_day_at_most(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="at most 86,400"):
        Checkpoints(seconds=seconds)


@pytest.mark.parametrize("wrong", [0.5, 0, {"seconds": 1.0}])
def test_checkpoints_that_are_none_are_told_before_anything_is_opened(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"a turnlog.Checkpoints\(…\) is needed"):
        turnlog.open(":memory:", checkpoints=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [0, 1.5, True, None])
def test_a_checkpoint_has_a_character_at_least(points: int) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        Checkpoints(points=points)
