"""What every store promises, as a suite: subclass `StoreContract`, and run it.

The one rule: the suite sees only what the engine sees, `ports.Store`, so that a store of somebody
else passes exactly what ours do. It needs a test runner for `async` methods (pytest with
pytest-asyncio in its `auto` mode, or the like), and imports none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from .. import events as ev
from ..canonical import JsonObject
from ..errors import (
    Closed,
    IdConflict,
    InvalidInput,
    NotFound,
    StaleEpoch,
    VersionConflict,
)
from ..index import Change, Close, Put, Shift, advance
from ..ports import Append, Lease, Placed, Store
from ..record import NewEvent, Stamp, record
from ..state import State, branch, start

E = TypeVar("E", bound=Exception)


@dataclass(slots=True)
class Author:
    """Writes a conversation as an engine would: counted ids, salts and time, and its own fold."""

    id: str
    state: State = field(init=False)
    now: int = 1_000_000
    made: int = 0

    def __post_init__(self) -> None:
        self.state = start(self.id)

    @classmethod
    def fork(cls, source: State, id: str) -> tuple[Author, ev.ConversationStarted]:
        """The author of a fork of a conversation at a state, and the event that begins it."""
        author = cls(id)
        author.state = branch(source, id)
        fork = ev.Fork(conversation=source.id, version=source.version, hash=source.hash)
        return author, ev.ConversationStarted(id=id, metadata=source.metadata, fork=fork)

    def write(
        self,
        *events: ev.Event,
        turn: str | None = None,
        lease: Lease | None = None,
        epoch: int | None = None,
    ) -> Append:
        """The append of these events behind what was written so far."""
        self.now += 1000
        expected, previous = self.state.version, bytes.fromhex(self.state.hash)
        ids = [f"{self.id}-{self.made + place}" for place in range(len(events))]
        salts = [(self.made + place).to_bytes(16, "big") for place in range(len(events))]
        self.made += len(events)
        stamp = Stamp(time=self.now, actor="test", epoch=epoch, ids=ids, salts=salts)
        new = [NewEvent(event=event, turn=turn) for event in events]
        recorded = record(self.id, expected, previous, new, stamp)
        changes: list[Change] = []
        for one in recorded:
            self.state, more = advance(self.state, one)
            changes += more
        return Append(
            conversation=self.id,
            expected=expected,
            events=recorded,
            head=self.state,
            changes=changes,
            epoch=epoch,
            lease=lease,
        )

    def begin(self, **metadata: str) -> Append:
        """The first event."""
        return self.write(ev.ConversationStarted(id=self.id, metadata=metadata))


def message(text: str) -> JsonObject:
    """What a user says."""
    return {"role": "user", "content": text}


def added(key: str, ordinal: int | None = None, item: JsonObject | None = None) -> ev.ItemAdded:
    """An item of the caller's."""
    return ev.ItemAdded(key=key, item=item or message(key), ordinal=ordinal)


def prepared(attempt: str) -> ev.RequestPrepared:
    """A full request."""
    return ev.RequestPrepared(
        attempt=attempt,
        cause="first",
        try_number=1,
        kind="full",
        ranges=(),
        format=1,
        digest="d",
        transport="replay",
        store=True,
    )


def called(attempt: str, *call_ids: str) -> list[ev.Event]:
    """A completed response that asks for these calls."""
    response = f"r-{attempt}"
    outputs: list[ev.Event] = [
        ev.OutputRecorded(
            attempt=attempt,
            response=response,
            index=place,
            key=f"{attempt}.{place}",
            item={
                "type": "function_call",
                "id": f"fc-{one}",
                "call_id": one,
                "name": "look",
                "arguments": "{}",
            },
        )
        for place, one in enumerate(call_ids)
    ]
    calls: list[ev.Event] = [
        ev.CallRequested(call=f"call-{one}", item=f"{attempt}.{place}")
        for place, one in enumerate(call_ids)
    ]
    return [*outputs, ev.ResponseCompleted(attempt=attempt, response=response), *calls]


def answered(call_id: str) -> ev.CallAnswered:
    """The output of such a call."""
    output: JsonObject = {"type": "function_call_output", "call_id": call_id, "output": "42"}
    return ev.CallAnswered(call=f"call-{call_id}", key=f"out-{call_id}", item=output)


def begun(key: str = "once") -> ev.TurnStarted:
    """A turn that an idempotency key names."""
    return ev.TurnStarted(key=key, digest="digest")


def keys(places: Sequence[Placed]) -> list[str]:
    """What stands where, by key."""
    return [placed.key for placed in places]


async def raises(kind: type[E], doing: Coroutine[Any, Any, object]) -> E:
    """The error that is raised; fails where there is none of that kind."""
    try:
        await doing
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


class StoreContract:
    """The suite. A subclass says how stores are opened."""

    async def open(self) -> Store:
        """A new and empty store."""
        raise NotImplementedError

    async def beside(self, store: Store) -> Store:
        """Another owner of the same data."""
        raise NotImplementedError

    @asynccontextmanager
    async def _one(self) -> AsyncGenerator[Store]:
        store = await self.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def _two(self) -> AsyncGenerator[tuple[Store, Store]]:
        async with self._one() as store:
            other = await self.beside(store)
            try:
                yield store, other
            finally:
                await other.close()

    # -- append ----------------------------------------------------------------------------

    async def test_what_was_appended_is_read_back_whole(self) -> None:
        async with self._one() as store:
            author = Author("c")
            append = author.write(
                ev.ConversationStarted(id="c", metadata={"a": "b"}), added("k1"), added("k2")
            )
            appended = await store.append(append)
            assert (appended.version, appended.already) == (3, False)
            assert await store.events("c") == list(append.events)
            head = await store.head("c")
            assert head is not None
            assert (head.state, head.epoch, head.owner) == (author.state, 0, None)
            assert not head.alive and not head.mine
            assert await store.check("c") == []

    async def test_nothing_is_known_of_a_conversation_that_is_not_there(self) -> None:
        async with self._one() as store:
            assert await store.head("c") is None
            assert await store.events("c") == []
            assert await store.pick("c", [1]) == []
            assert await store.context("c") == []
            assert await store.context("c", last=3) == []
            assert await store.find("c", key="k") == []
            assert await store.turn("c", id="t") is None
            assert await store.turns("c") == []
            assert await store.check("c") == []
            assert await store.conversations() == []
            assert await store.pending() == []
            assert await store.follow({}) == []
            assert await store.orphans() == []

    async def test_another_version_is_a_conflict_that_says_which(self) -> None:
        async with self._one() as store:
            author, other = Author("c"), Author("c")
            await store.append(author.begin())
            other.made = 100
            error = await raises(VersionConflict, store.append(other.begin()))
            assert (error.conversation, error.expected, error.actual) == ("c", 0, 1)
            other.state = replace(author.state, version=7)
            error = await raises(VersionConflict, store.append(other.write(added("k"))))
            assert (error.expected, error.actual) == (7, 1)
            assert len(await store.events("c")) == 1

    async def test_the_same_events_again_are_there_already(self) -> None:
        async with self._one() as store:
            author = Author("c")
            first = author.begin()
            second = author.write(added("k1"), added("k2"))
            await store.append(first)
            await store.append(second)
            for append in (second, first):
                appended = await store.append(append)
                assert appended.already
                assert appended.version == append.head.version
            await store.append(author.write(added("k3")))
            assert (await store.append(second)).already
            assert len(await store.events("c")) == 4
            assert await store.check("c") == []

    async def test_an_event_id_with_other_contents_is_an_id_conflict(self) -> None:
        async with self._one() as store:
            author, other = Author("c"), Author("c")
            await store.append(author.begin())
            other.begin()
            await store.append(author.write(added("k1")))
            await raises(IdConflict, store.append(other.write(added("k2"))))

    async def test_a_part_of_the_same_events_is_a_version_conflict(self) -> None:
        async with self._one() as store:
            author, other = Author("c"), Author("c")
            await store.append(author.begin())
            await raises(
                VersionConflict,
                store.append(other.write(ev.ConversationStarted(id="c"), added("k"))),
            )

    async def test_conflicts_of_some_do_not_fail_others(self) -> None:
        async with self._one() as store:
            authors = [Author(f"c{number}") for number in range(20)]
            appends = [author.begin() for author in authors]
            rivals = [Author(f"c{number}", made=50) for number in range(20)]
            appends += [rival.begin() for rival in rivals]
            results = await asyncio.gather(
                *(store.append(append) for append in appends), return_exceptions=True
            )
            assert sum(isinstance(result, VersionConflict) for result in results) == 20
            followed = await store.follow({})
            assert len(followed) == 20
            positions: dict[int, list[int]] = {}
            for partition, position, _ in followed:
                positions.setdefault(partition, []).append(position)
            for found in positions.values():
                assert found == list(range(1, len(found) + 1))

    async def test_a_cancelled_caller_changes_nothing(self) -> None:
        async with self._one() as store:
            author = Author("c")
            first, second = author.begin(), author.write(added("k"))
            task = asyncio.ensure_future(store.append(first))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.append(second)
            assert len(await store.events("c")) == 2

    async def test_an_append_must_be_whole(self) -> None:
        async with self._one() as store:
            author = Author("c")
            append = author.write(ev.ConversationStarted(id="c"), added("k"))
            first, second = append.events
            wrong = [
                replace(append, events=[second]),
                replace(append, events=[first, replace(second, hash=first.hash)]),
                replace(append, events=[replace(first, conversation="d"), second]),
                replace(append, head=start("c")),
                replace(append, head=replace(append.head, hash="00" * 32)),
                replace(append, lease="acquire"),
            ]
            for one in wrong:
                await raises(InvalidInput, store.append(one))
            assert await store.head("c") is None

    async def test_names_must_be_text(self) -> None:
        async with self._one() as store:
            await raises(InvalidInput, store.append(Author("\ud800").begin()))

    async def test_the_first_event_must_follow_what_is_stored(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            author.state = replace(author.state, hash="ff" * 32)
            await raises(InvalidInput, store.append(author.write(added("k"))))
            assert len(await store.events("c")) == 1

    # -- reading events --------------------------------------------------------------------

    async def test_events_are_read_in_ranges(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(*(added(f"k{number}") for number in range(99))))

            async def versions(**bounds: int) -> list[int]:
                return [one.version for one in await store.events("c", **bounds)]

            assert await versions() == list(range(1, 101))
            assert await versions(after=3, until=6) == [4, 5, 6]
            assert await versions(after=3, limit=2) == [4, 5]
            assert await versions(after=100) == []
            picked = await store.pick("c", [7, 3, 200, 3, *range(10, 90)])
            assert [one.version for one in picked] == [7, 3, 3, *range(10, 90)]

    async def test_large_bodies_come_back_as_they_were(self) -> None:
        async with self._one() as store:
            author = Author("c")
            picture = "data:image/png;base64," + "QUJD" * 20_000
            odd = '\\"\ud800\u2028' * 5000
            item: JsonObject = {"role": "user", "content": [picture, odd, picture, "x" * 2000]}
            await store.append(author.begin())
            append = author.write(added("k1", item=item), added("k2", item=item))
            await store.append(append)
            assert await store.events("c", after=1) == list(append.events)
            assert await store.pick("c", [3, 2]) == list(append.events)[::-1]
            followed = await store.follow({})
            assert {one.version for _, _, one in followed} == {1, 2, 3}
            assert append.events[0] in [one for _, _, one in followed]
            assert await store.check("c") == []

    async def test_the_log_is_followed_by_position(self) -> None:
        async with self._one() as store:
            authors = [Author(f"c{number}") for number in range(8)]
            for author in authors:
                await store.append(author.begin())
            for author in authors:
                await store.append(author.write(added("k1"), added("k2")))
            seen: dict[int, int] = {}
            found: list[str] = []
            while page := await store.follow(seen, limit=5):
                assert len(page) <= 5
                for partition, position, one in page:
                    assert position == seen.get(partition, 0) + 1
                    seen[partition] = position
                    found.append(one.id)
            assert len(found) == len(set(found)) == 24

    async def test_changes_are_noticed(self) -> None:
        async with self._two() as (store, other):
            for one in (store, other):
                author = Author(f"c-{id(one)}")
                waiting = asyncio.ensure_future(store.changed(30))
                while not waiting.done():
                    await one.append(author.write(added("k")) if author.made else author.begin())
                    await asyncio.wait([waiting], timeout=0.02)
                await waiting
            await store.changed(0)
            await store.changed(0.001)

    async def test_only_what_others_append_counts_where_that_is_asked(self) -> None:
        async with self._two() as (store, other):
            mine, theirs = Author("mine"), Author("theirs")
            await store.append(mine.begin())
            seen, _ = await store.moved({})
            await store.changed(0, others=True)
            waiting = asyncio.ensure_future(store.changed(30, others=True))
            while not waiting.done():
                await other.append(theirs.write(added("k")) if theirs.made else theirs.begin())
                await asyncio.wait([waiting], timeout=0.2)
            await waiting
            await store.append(mine.write(added("k")))
            assert (await store.moved(seen))[1] == {"mine", "theirs"}

    async def test_what_others_append_between_two_looks_is_not_missed(self) -> None:
        async with self._two() as (store, other):
            for number in range(3):
                await other.append(Author(f"c{number}").begin())
                async with asyncio.timeout(30):
                    await store.changed(60, others=True)

    async def test_it_is_told_whose_logs_moved(self) -> None:
        async with self._one() as store:
            start, moved = await store.moved({})
            assert set(start.values()) == {0} and moved == frozenset()
            authors = [Author(f"c{number}") for number in range(8)]
            for author in authors:
                await store.append(author.write(ev.ConversationStarted(id=author.id), added("k")))
            ends, moved = await store.moved(start)
            assert sum(ends.values()) == 16
            assert moved == {author.id for author in authors}
            nothing: tuple[dict[int, int], frozenset[str]] = (ends, frozenset())
            assert await store.moved(ends) == nothing
            assert await store.moved({}) == nothing
            for author in authors[2:5]:
                await store.append(author.write(added("k2"), added("k3")))
            later, moved = await store.moved(ends)
            assert moved == {"c2", "c3", "c4"}
            partition, position, one = (await store.follow(ends))[-1]
            again, moved = await store.moved({partition: position - 1})
            assert again == later and moved == {one.conversation}

    # -- leases ----------------------------------------------------------------------------

    async def test_a_lease_is_acquired_kept_and_released(self) -> None:
        async with self._two() as (store, other):
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
        async with self._two() as (store, other):
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
        async with self._one() as store:
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
        async with self._two() as (store, other):
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

    # -- the context -----------------------------------------------------------------------

    async def test_the_context_is_read_at_every_version(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(added("a"), added("b"), added("c")))
            await store.append(author.write(ev.ItemEdited(key="B", item=message("B"), ordinal=1)))
            await store.append(author.write(ev.ItemRemoved(key="a", ordinal=0)))
            await store.append(author.write(added("x", ordinal=1)))
            expected = {
                1: [],
                2: ["a"],
                3: ["a", "b"],
                4: ["a", "b", "c"],
                5: ["a", "B", "c"],
                6: ["B", "c"],
                7: ["x", "B", "c"],
            }
            for version, wanted in expected.items():
                assert keys(await store.context("c", version=version)) == wanted
                for last in range(4):
                    found = await store.context("c", version=version, last=last)
                    assert keys(found) == wanted[len(wanted) - min(last, len(wanted)) :]
            places = await store.context("c")
            assert [one.ordinal for one in places] == [1, 2, 3]
            assert [one.item_version for one in places] == [7, 5, 4]
            assert {one.holder for one in places} == {"c"}
            assert await store.context("c", version=99) == places
            assert await store.context("c", start=2, stop=3) == places[1:2]
            assert await store.context("c", start=2, last=1) == places[2:]
            assert await store.check("c") == []

    async def test_an_item_is_found_where_it_stands_now(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            item: JsonObject = {**message("a"), "type": "message", "id": "msg"}
            await store.append(author.write(added("a", item=item), added("b")))
            (placed,) = await store.find("c", item_id="msg")
            assert placed.ordinal == 0
            assert await store.find("c", key="a") == [placed]
            await store.append(author.write(added("x", ordinal=0)))
            (placed,) = await store.find("c", key="a")
            assert placed.ordinal == 1
            await store.append(author.write(ev.ItemRemoved(key="a", ordinal=1)))
            assert await store.find("c", item_id="msg") == []
            await raises(InvalidInput, store.find("c"))
            await raises(InvalidInput, store.find("c", key="a", item_id="msg"))
            await raises(InvalidInput, store.turn("c"))

    async def test_several_changes_of_one_place_at_one_version(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(added("a"), added("b"), added("c")))
            append = author.write(ev.ProviderNoted(kind="test"))
            version = author.state.version

            def put(ordinal: int, key: str) -> Put:
                return Put(
                    version=version, ordinal=ordinal, item_version=version, key=key,
                    item_id=None, call_id=None, response=None,
                )  # fmt: skip

            changes: list[Change] = [
                Close(version=version, ordinal=0),
                put(0, "A"),
                put(0, "AA"),
                Shift(version=version, ordinal=1, by=2),
                put(1, "x"),
                put(2, "y"),
                Close(version=version, ordinal=2),
                Shift(version=version, ordinal=3, by=1),
                Close(version=version, ordinal=40),
            ]
            state = replace(author.state, next=6)
            await store.append(replace(append, changes=changes, head=state))
            assert keys(await store.context("c")) == ["AA", "x", "b", "c"]
            assert [one.ordinal for one in await store.context("c")] == [0, 1, 4, 5]
            assert keys(await store.context("c", version=version - 1)) == ["a", "b", "c"]
            assert await store.check("c") != []

    # -- forks -----------------------------------------------------------------------------

    async def _source(self, store: Store) -> Author:
        """A conversation with two committed items, and one in the tail behind them."""
        author = Author("source")
        await store.append(author.begin(team="red"))
        await store.append(author.write(begun(), added("a"), prepared("1"), turn="t"))
        await store.append(author.write(*called("1", "x"), answered("x"), turn="t"))
        return author

    async def test_a_fork_reads_through_to_its_ancestors(self) -> None:
        async with self._one() as store:
            source = await self._source(store)
            forked = source.state
            await store.append(source.write(ev.ItemEdited(key="A", item=message("A"), ordinal=0)))
            author, first = Author.fork(forked, "fork")
            await store.append(author.write(first, answered("x"), added("b")))
            assert keys(await store.context("fork")) == ["a", "1.0", "out-x", "b"]
            assert keys(await store.context("source")) == ["A", "1.0", "out-x"]
            places = await store.context("fork")
            assert [one.holder for one in places] == ["source", "source", "fork", "fork"]
            assert [one.version for one in await store.events("fork")] == [1, 2, 3]
            for last in range(6):
                wanted = places[max(0, len(places) - last) :]
                assert await store.context("fork", last=last) == wanted
            call, output = await store.find("fork", call_id="x")
            assert (call.holder, output.holder) == ("source", "fork")
            (row,) = await store.conversations(after="a", limit=1)
            assert (row.id, row.fork_of) == ("fork", "source")
            assert await store.check("fork") == []

    async def test_a_forks_changes_lie_over_its_ancestors(self) -> None:
        async with self._one() as store:
            source = await self._source(store)
            author, first = Author.fork(source.state, "fork")
            await store.append(author.write(first, answered("x")))
            child, begin = Author.fork(author.state, "child")
            await store.append(child.write(begin, answered("x")))
            steps: list[tuple[ev.Event, list[str]]] = [
                (ev.ItemRemoved(key="a", ordinal=0), ["1.0", "out-x"]),
                (added("i", ordinal=0), ["i", "1.0", "out-x"]),
                (ev.ItemEdited(key="E", item=message("E"), ordinal=2), ["i", "E", "out-x"]),
                (added("j", ordinal=1), ["i", "j", "E", "out-x"]),
                (ev.ItemRemoved(key="i", ordinal=0), ["j", "E", "out-x"]),
                (added("end"), ["j", "E", "out-x", "end"]),
            ]
            before = {1: ["a", "1.0"], 2: ["a", "1.0", "out-x"]}
            for event, wanted in steps:
                await store.append(child.write(event))
                before[child.state.version] = wanted
            for version, wanted in before.items():
                assert keys(await store.context("child", version=version)) == wanted
                for last in range(1, 5):
                    found = await store.context("child", version=version, last=last)
                    assert keys(found) == wanted[-last:]
            assert keys(await store.context("fork")) == ["a", "1.0", "out-x"]
            assert await store.find("child", key="a") == []
            assert await store.find("child", key="1.0") == []
            assert keys(await store.find("fork", key="a")) == ["a"]
            grandchild, begin = Author.fork(
                replace(child.state, committed=child.state.next), "grandchild"
            )
            await store.append(grandchild.write(begin, added("g")))
            assert keys(await store.context("grandchild")) == ["j", "E", "out-x", "end", "g"]
            for name in ("child", "fork", "source"):
                assert await store.check(name) == []

    async def test_a_fork_needs_its_source(self) -> None:
        async with self._one() as store:
            source = await self._source(store)
            elsewhere = replace(source.state, id="elsewhere")
            later = replace(source.state, version=99)
            for state in (elsewhere, later):
                author, first = Author.fork(state, "fork")
                await raises(NotFound, store.append(author.write(first)))
            author, first = Author.fork(replace(source.state, hash="00" * 32), "fork")
            await raises(InvalidInput, store.append(author.write(first)))
            assert await store.head("fork") is None

    # -- turns, calls, lists ---------------------------------------------------------------

    async def test_turns_are_read_by_id_by_key_and_in_pages(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            for number in range(5):
                await store.append(author.write(begun(f"key{number}"), turn=f"t{number}"))
                if number < 4:
                    ended = ev.TurnEnded(outcome="completed")
                    await store.append(author.write(ended, turn=f"t{number}"))
            turn = await store.turn("c", id="t3")
            assert turn is not None and turn == await store.turn("c", key="key3")
            assert (turn.started, turn.ended, turn.outcome) == (8, 9, "completed")
            assert turn.state is not None and turn.state.version == 9 and turn.state.turns == 4
            assert (turn.key, turn.digest, turn.conversation) == ("key3", "digest", "c")
            open_turn = await store.turn("c", id="t4")
            assert open_turn is not None
            assert (open_turn.ended, open_turn.outcome, open_turn.state) == (None, None, None)
            latest = await store.turns("c", limit=2)
            assert [one.turn for one in latest] == ["t4", "t3"]
            earlier = await store.turns("c", before=latest[-1].started)
            assert [one.turn for one in earlier] == ["t2", "t1", "t0"]
            assert await store.turn("c", id="none") is None
            assert await store.check("c") == []

    async def test_a_turn_begins_once_and_may_end_without_having_begun(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(ev.TurnEnded(outcome="cancelled"), turn="queued"))
            assert await store.turns("c") == []
            await store.append(author.write(begun(), turn="t"))
            state = author.state
            await raises(InvalidInput, store.append(author.write(begun("two"), turn="t")))
            author.state = state
            await store.append(author.write(begun("two"), turn="u"))
            assert [one.turn for one in await store.turns("c")] == ["u", "t"]
            assert await store.check("c") == []

    async def test_open_calls_are_in_an_inbox(self) -> None:
        async with self._one() as store:
            for name in ("a", "b"):
                author = Author(name)
                await store.append(author.begin())
                await store.append(author.write(begun(), prepared("1"), turn="t"))
                await store.append(author.write(*called("1", "x", "y", "z"), turn="t"))
                await store.append(author.write(ev.CallStarted(call="call-y"), turn="t"))
                await store.append(author.write(answered("z"), turn="t"))
            calls = await store.pending()
            assert [(one.conversation, one.call, one.status) for one in calls] == [
                ("a", "call-x", "requested"),
                ("a", "call-y", "started"),
                ("b", "call-x", "requested"),
                ("b", "call-y", "started"),
            ]
            assert (calls[0].name, calls[0].kind, calls[0].turn) == ("look", "function_call", "t")
            paged = [*await store.pending(limit=3)]
            paged += await store.pending(after=(paged[-1].conversation, paged[-1].call))
            assert paged == calls
            assert await store.check("a") == []

    async def test_conversations_are_listed_and_selected(self) -> None:
        async with self._one() as store:
            for number in range(6):
                author = Author(f"c{number}", now=number * 1_000_000)
                configured = ev.ConversationConfigured(agent="support", model="m", fingerprint="f")
                await store.append(author.begin(team="red" if number % 2 else "blue"))
                await store.append(author.write(configured, added("k")))
                if number > 3:
                    await store.append(author.write(begun(), turn="t"))
                if number == 5:
                    await store.append(author.write(ev.TurnPaused(reason="asked"), turn="t"))

            async def ids(**wanted: Any) -> list[str]:
                return [row.id for row in await store.conversations(**wanted)]

            assert await ids() == [f"c{number}" for number in range(6)]
            assert await ids(limit=2) == ["c0", "c1"]
            assert await ids(after="c3") == ["c4", "c5"]
            assert await ids(status="busy") == ["c4"]
            assert await ids(status="waiting") == ["c5"]
            assert await ids(metadata={"team": "red"}) == ["c1", "c3", "c5"]
            assert await ids(metadata={"team": "red"}, limit=2) == ["c1", "c3"]
            assert await ids(metadata={"team": "green"}) == []
            assert await ids(since=2_500_000) == ["c3", "c4", "c5"]
            assert await ids(until=2_500_000) == ["c0", "c1", "c2"]
            row = (await store.conversations(after="c3"))[0]
            assert (row.agent, row.model, row.turns, row.items) == ("support", "m", 1, 1)
            assert (row.version, row.status, row.turn) == (4, "busy", "t")
            assert row.metadata == {"team": "blue"}
            assert (row.created, row.updated) == (4_001_000, 4_003_000)
            assert (row.fork_of, row.orphaned) == (None, False)

    async def test_those_that_are_not_idle_are_listed_by_status(self) -> None:
        async with self._one() as store:
            authors = [Author(f"c{number}") for number in range(9)]
            for number, author in enumerate(authors):
                await store.append(author.begin(team="red" if number % 2 else "blue"))
                if number > 2:
                    queued = ev.TurnQueued(key="k", digest="d", items=(message("Hi."),))
                    await store.append(author.write(queued, turn="later"))
            for author in authors[6:]:
                await store.append(author.write(begun(), turn="t"))

            async def ids(**wanted: Any) -> list[str]:
                return [row.id for row in await store.conversations(**wanted)]

            assert await ids(status="idle") == ["c0", "c1", "c2"]
            assert await ids(status="queued") == ["c3", "c4", "c5"]
            assert await ids(status="busy") == ["c6", "c7", "c8"]
            assert await ids(status="waiting") == []
            assert await ids(status="queued", after="c3", limit=1) == ["c4"]
            assert await ids(status="queued", metadata={"team": "red"}) == ["c3", "c5"]
            assert await ids(status="busy", since=authors[7].now + 1) == []
            ended = authors[6].write(ev.TurnEnded(outcome="completed"), turn="t")
            await store.append(ended)
            assert await ids(status="queued") == ["c3", "c4", "c5", "c6"]
            for author in authors:
                assert await store.check(author.id) == []

    async def test_a_head_that_the_events_do_not_give_is_found(self) -> None:
        async with self._one() as store:
            author = Author("c")
            await store.append(author.begin())
            append = author.write(begun(), added("k"), turn="t")
            await store.append(replace(append, head=replace(append.head, turns=7), changes=[]))
            findings = await store.check("c")
            assert findings and {one.conversation for one in findings} == {"c"}

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
        async with self._one() as store:
            closing = await self.beside(store)
            authors = [Author(f"c{number}") for number in range(30)]
            appends = [asyncio.ensure_future(closing.append(one.begin())) for one in authors]
            await asyncio.sleep(0)
            await closing.close()
            assert {one.version for one in await asyncio.gather(*appends)} == {1}
            assert len(await store.conversations()) == 30
