"""Moments between a look and a step, at which the turn ends, begins or is left by somebody else."""

from __future__ import annotations

import asyncio
import logging

import pytest

import turnlog
from turnlog.commands import DropTurn
from turnlog.decide import decide
from turnlog.draft import Draft
from turnlog.errors import Busy, ConfigurationError, NotFound, TurnlogError
from turnlog.ports import Head, Lease, Profile
from turnlog.recovery import Policy
from turnlog.settling import settle_here
from turnlog.starting import run_next
from turnlog.state import start
from turnlog.store import MemoryStore
from turnlog.testing import scripted, text
from turnlog.testing.store_contract import Author, added, begun
from turnlog.working import can_go_on
from turnlog_transports.replay import ReplayTransport

from .given import PATIENCE, agent, collect, opened, recorded, tags
from .test_queue import STUCK, crashed
from .test_races import Meanwhile
from .test_working import POLL, at_work, left, over

SLOW = text("It was a bright cold day in April.").but(delay=0.005)


class Ending(MemoryStore):
    """A store that gives out a head only when a turn has ended, where that was asked for."""

    wait = False

    async def head(self, conversation: str) -> Head | None:
        while self.wait:
            found = await super().head(conversation)
            if found is not None and found.state.turn is None:
                self.wait = False
            await asyncio.sleep(0)
        return await super().head(conversation)


async def test_a_turn_that_ends_while_it_is_looked_at_is_left_as_it_ended() -> None:
    store = Ending()
    async with opened([SLOW], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        store.wait = True
        await turn.cancel()
        assert (await turn.result()).status == "completed"


async def test_a_turn_that_ends_before_its_cancel_is_recorded_is_left_as_it_ended() -> None:
    store = Meanwhile()
    async with opened([SLOW], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        store.behind(1, lambda: recorded(chat, "turn.ended"))
        await turn.cancel()
        assert "turn.cancel_requested" not in await tags(chat)
        assert (await turn.result()).status == "completed"


async def test_what_is_queued_does_not_begin_while_another_process_holds_the_lease() -> None:
    store, one, two = await crashed([STUCK])
    async with opened([], agent(), store=store) as log:
        await log.recover()
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        await (await (await log.get("c")).turn(one)).cancel()
    async with (
        opened([], agent(), store=store.beside()) as there,
        opened([], agent(), store=store.beside()) as log,
    ):
        other = there._engine  # pyright: ignore[reportPrivateUsage]

        async def take(draft: Draft) -> Lease:
            return "acquire"

        await other.commit("c", take, epoch=(await other.head("c")).epoch + 1)
        assert await run_next(log._engine, "c") is None  # pyright: ignore[reportPrivateUsage]
        assert (await (await log.get("c")).state()).queued == (two,)


async def test_resuming_a_queued_turn_begins_nothing_before_its_time() -> None:
    store, one, two = await crashed([STUCK])
    async with opened([], agent(), store=store) as log:
        await log.recover()
        chat = await log.get("c")
        await (await chat.turn(two)).resume()
        state = await chat.state()
        assert (state.turn, state.queued) == (one, (two,))


async def test_who_watches_a_turn_that_never_was_is_not_kept() -> None:
    store = MemoryStore()
    async with opened([STUCK], agent(), store=store) as log:
        turn = await (await log.conversation("c", agent="test")).send("Go.")
        async with opened([], agent(), store=store.beside()) as there:
            ghost: turnlog.Turn[str] = turnlog.Turn("turn_x", "c", there._engine)  # pyright: ignore[reportPrivateUsage]
            await collect(aiter(ghost))
        await turn.cancel()


def test_a_turn_that_is_not_queued_is_not_dropped() -> None:
    with pytest.raises(NotFound, match="not queued"):
        decide(start("c"), DropTurn(turn="turn_x", outcome="cancelled"))


async def test_an_errand_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise NotFound("nobody is there")

    async with opened([], agent()) as log:
        engine = log._engine  # pyright: ignore[reportPrivateUsage]
        with caplog.at_level(logging.WARNING):
            engine.run_errand(fails(), "errand")
            await asyncio.sleep(0.01)
        assert "turnlog errand went wrong: nobody is there" in caplog.text


async def test_a_turn_that_begins_behind_the_closing_is_stopped() -> None:
    async with opened([STUCK], agent()) as log:
        chat = await log.conversation("c", agent="test")
        log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
        await chat.send("Go.")
        assert (await chat.state()).paused == "closed"


@pytest.mark.parametrize("look", range(1, 8))
async def test_what_was_in_the_way_may_be_over_before_an_input_is_queued(look: int) -> None:
    store = MemoryStore()
    mine = Meanwhile(shelf=store.shelf)
    async with (
        opened([STUCK, text("Fine.")], agent(), store=store) as there,
        opened([text("Fine.")], agent(), store=mine) as log,
    ):
        first = await (await there.conversation("c", agent="test")).send("1")
        mine.behind(look, first.cancel)
        chat = await log.conversation("c", agent="test")
        async with asyncio.timeout(PATIENCE):
            second = await chat.send("2", if_busy="queue")
            await first.cancel()
            assert (await second.result()).output_text == "Fine."


def test_what_does_not_wait_cannot_go_on() -> None:
    assert not can_go_on(start("c"), Policy())


# -- left behind -----------------------------------------------------------------------------


async def test_a_turn_that_a_living_owner_has_let_go_of_is_found() -> None:
    store = MemoryStore()
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
    await store.append(author.write(added("k"), turn="t", lease="release", epoch=1))
    async with opened([], agent(), store=store.beside()) as log:
        done = await log.recover()
        assert [one.action for one in done] == ["left the turn to be resumed"]


async def test_where_there_is_nothing_to_settle_the_lease_is_given_back() -> None:
    store = MemoryStore()
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(lease="acquire", epoch=1))
    async with opened([], agent(), store=store) as log:
        assert await settle_here(log._engine, "c", 1) == []  # pyright: ignore[reportPrivateUsage]
        head = await store.head("c")
        assert head is not None and head.owner is None


async def test_a_background_response_is_left_to_be_heard_when_the_log_closes() -> None:
    store = MemoryStore()
    profile = Profile(name="bg", key_env=None, retrieve=True, background=True)
    way = ReplayTransport([STUCK], profile=profile)
    async with opened(way, agent(background=True), store=store) as log:
        chat = await log.conversation("c", agent="test")
        await chat.send("Go.")
        await recorded(chat, "response.started")
        await log.close()
    head = await store.beside().head("c")
    assert head is not None and head.owner is not None and not head.alive
    assert head.state.attempt is not None and head.state.attempt.background


# -- a worker that cannot ----------------------------------------------------------------------


class Wrong(ReplayTransport):
    """A transport that cannot be used for a while, once a worker has begun."""

    wrong: TurnlogError | None = None
    asked = 0

    def check(self) -> None:
        super().check()
        self.asked += 1
        if self.asked > 1 and self.wrong is not None:
            raise self.wrong


@pytest.mark.parametrize("queued", [True, False], ids=["queued", "waiting"])
@pytest.mark.parametrize("error", [Busy("not you"), ConfigurationError("no key")], ids=["b", "c"])
async def test_a_worker_tries_again_what_could_not_be_taken_on(
    error: TurnlogError, queued: bool
) -> None:
    store, turn = await left([STUCK], "response.started", queued=queued)
    async with opened(scripted([]), agent(), store=store) as log:
        await log.recover()
        if queued:
            log._engine.closing = True  # pyright: ignore[reportPrivateUsage]
            await (await (await log.get("c")).turn(turn)).cancel()
    way = Wrong([text("Fine.")])
    way.wrong = error
    async with opened(way, agent(), store=store.beside()) as log:
        async with at_work(log, every=POLL):
            async with asyncio.timeout(PATIENCE):
                while way.asked < 2:
                    await asyncio.sleep(POLL)
            way.wrong = None
            await over(await log.get("c"), 2 if queued else 1)
        assert (await (await log.get("c")).items())[-1].text == "Fine."
