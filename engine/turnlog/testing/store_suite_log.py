"""What a store promises of the log: written whole or not at all, and read in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from .. import events as ev
from ..canonical import JsonObject
from ..errors import (
    IdConflict,
    InvalidInput,
    VersionConflict,
)
from ..state import start
from .store_author import Author, added, raises
from .store_suite import Opens


class LogSuite(Opens):
    """Appending, reading and following."""

    # -- append ----------------------------------------------------------------------------

    async def test_what_was_appended_is_read_back_whole(self) -> None:
        async with self.one() as store:
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
        async with self.one() as store:
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
        async with self.one() as store:
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
        async with self.one() as store:
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
        async with self.one() as store:
            author, other = Author("c"), Author("c")
            await store.append(author.begin())
            other.begin()
            await store.append(author.write(added("k1")))
            await raises(IdConflict, store.append(other.write(added("k2"))))

    async def test_a_part_of_the_same_events_is_a_version_conflict(self) -> None:
        async with self.one() as store:
            author, other = Author("c"), Author("c")
            await store.append(author.begin())
            await raises(
                VersionConflict,
                store.append(other.write(ev.ConversationStarted(id="c"), added("k"))),
            )

    async def test_conflicts_of_some_do_not_fail_others(self) -> None:
        async with self.one() as store:
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
        async with self.one() as store:
            author = Author("c")
            first, second = author.begin(), author.write(added("k"))
            task = asyncio.ensure_future(store.append(first))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.append(second)
            assert len(await store.events("c")) == 2

    async def test_an_append_must_be_whole(self) -> None:
        async with self.one() as store:
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
        async with self.one() as store:
            await raises(InvalidInput, store.append(Author("\ud800").begin()))
            author, item = Author("c"), {"type": "message", "role": "user", "content": "x"}
            await store.append(author.begin())
            odd = author.write(added("k", item={**item, "id": "msg_\udfff"}))
            refused = await raises(InvalidInput, store.append(odd))
            assert r"'msg_\udfff' is not valid text" in str(refused)
            assert [one.version for one in await store.events("c")] == [1]

    async def test_the_first_event_must_follow_what_is_stored(self) -> None:
        async with self.one() as store:
            author = Author("c")
            await store.append(author.begin())
            author.state = replace(author.state, hash="ff" * 32)
            await raises(InvalidInput, store.append(author.write(added("k"))))
            assert len(await store.events("c")) == 1

    # -- reading events --------------------------------------------------------------------

    async def test_events_are_read_in_ranges(self) -> None:
        async with self.one() as store:
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
        async with self.one() as store:
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
        async with self.one() as store:
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
        async with self.two() as (store, other):
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
        async with self.two() as (store, other):
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
        async with self.two() as (store, other):
            for number in range(3):
                await other.append(Author(f"c{number}").begin())
                async with asyncio.timeout(30):
                    await store.changed(60, others=True)

    async def test_it_is_told_whose_logs_moved(self) -> None:
        async with self.one() as store:
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
