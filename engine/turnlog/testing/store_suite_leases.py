"""What a store promises of leases: one owner at a time, and none stolen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from .. import events as ev
from ..errors import (
    Closed,
    NotFound,
    StaleEpoch,
    VersionConflict,
)
from ..ports import Lease, Store
from .store_author import Author, added, begun, raises
from .store_suite import Opens


class LeaseSuite(Opens):
    """Leases, owners and what a closed store says."""

    # -- leases ----------------------------------------------------------------------------

    async def test_a_lease_is_acquired_kept_and_released(self) -> None:
        async with self.two() as (store, other):
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
            head = await store.head("c")
            assert head is not None and head.epoch == 1 and head.alive and head.mine
            seen = await other.head("c")
            assert seen is not None and seen.owner == head.owner and seen.alive and not seen.mine
            await store.append(author.write(added("k1"), turn="t", lease="keep", epoch=1))
            await other.append(author.write(added("k2")))
            ended = ev.TurnEnded(outcome="completed")
            await store.append(author.write(ended, turn="t", lease="release", epoch=1))
            head = await store.head("c")
            assert head is not None and (head.epoch, head.owner, head.alive) == (1, None, False)
            await other.append(author.write(begun("two"), turn="u", lease="acquire", epoch=2))
            head = await store.head("c")
            assert head is not None and head.epoch == 2 and head.alive and not head.mine
            assert await store.check("c") == []

    async def test_a_stale_epoch_stops_its_owner(self) -> None:
        async with self.two() as (store, other):
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
            state = author.state
            leases: list[tuple[Store, Lease, int]] = [
                (other, "acquire", 2),
                (other, "keep", 1),
                (other, "release", 1),
                (store, "keep", 2),
                (store, "release", 0),
                (store, "acquire", 1),
                (store, "acquire", 3),
            ]
            for one, lease, epoch in leases:
                author.state = state
                append = author.write(added("k"), lease=lease, epoch=epoch)
                await raises(StaleEpoch, one.append(append))
            author.state = state
            await store.append(author.write(added("k"), lease="acquire", epoch=2))
            head = await store.head("c")
            assert head is not None and head.epoch == 2 and head.mine

    async def test_the_lease_of_a_dead_owner_is_taken_over(self) -> None:
        async with self.one() as store:
            dying = await self.beside(store)
            author = Author("c")
            await dying.append(author.begin())
            await dying.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
            assert await store.orphans() == []
            (row,) = await store.conversations()
            assert not row.orphaned
            await dying.close()
            assert await store.orphans() == ["c"]
            (row,) = await store.conversations()
            assert row.orphaned
            head = await store.head("c")
            assert head is not None and head.owner is not None and not head.alive
            await store.append(author.write(lease="acquire", epoch=2))
            head = await store.head("c")
            assert head is not None and head.epoch == 2 and head.mine
            assert await store.orphans() == []

    async def test_a_lease_is_taken_and_let_go_without_events(self) -> None:
        async with self.two() as (store, other):
            author = Author("c")
            await raises(NotFound, store.append(author.write(lease="acquire", epoch=1)))
            await store.append(author.begin())
            leases: list[tuple[Lease, bool]] = [
                ("acquire", False),
                ("acquire", True),
                ("release", False),
                ("release", True),
            ]
            for lease, already in leases:
                appended = await store.append(author.write(lease=lease, epoch=1))
                assert (appended.version, appended.already) == (1, already)
            await raises(StaleEpoch, other.append(author.write(lease="keep", epoch=1)))
            author.state = replace(author.state, version=5)
            await raises(VersionConflict, store.append(author.write(lease="acquire", epoch=2)))

    # -- the end ---------------------------------------------------------------------------

    async def test_a_closed_store_says_so(self) -> None:
        store = await self.open()
        author = Author("c")
        await store.append(author.begin())
        await store.close()
        await store.close()
        doing: list[Coroutine[Any, Any, object]] = [
            store.append(author.write(added("k"))),
            store.head("c"),
            store.events("c"),
            store.pick("c", [1]),
            store.context("c"),
            store.find("c", key="k"),
            store.turn("c", id="t"),
            store.turns("c"),
            store.conversations(),
            store.orphans(),
            store.pending(),
            store.follow({}),
            store.moved({}),
            store.changed(0),
            store.changed(0, others=True),
            store.check("c"),
        ]
        for one in doing:
            await raises(Closed, one)

    async def test_closing_finishes_what_was_handed_over(self) -> None:
        async with self.one() as store:
            closing = await self.beside(store)
            authors = [Author(f"c{number}") for number in range(30)]
            appends = [asyncio.ensure_future(closing.append(one.begin())) for one in authors]
            await asyncio.sleep(0)
            await closing.close()
            assert {one.version for one in await asyncio.gather(*appends)} == {1}
            assert len(await store.conversations()) == 30
