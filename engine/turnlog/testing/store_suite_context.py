"""What a store promises of contexts: what stood where at which version, in forks too."""

from __future__ import annotations

from dataclasses import replace

from .. import events as ev
from ..canonical import JsonObject
from ..errors import (
    InvalidInput,
    ItemPresent,
    NotFound,
    VersionConflict,
)
from ..index import Change, Close, Put, Shift
from ..item import body_of
from ..ports import Placed, Store
from .store_author import Author, added, answered, begun, called, keys, message, prepared, raises
from .store_suite import Opens


async def both(store: Store, conversation: str, **where: int) -> list[Placed]:
    """What stands there, which the items that are read must be."""
    places = await store.context(conversation, **where)
    items = await store.items(conversation, **where)
    for place, item in zip(places, items, strict=True):
        assert (item.key, item.ordinal) == (place.key, place.ordinal)
        assert item.response == place.response
        (recorded,) = await store.pick(place.holder, [place.item_version])
        assert item.raw == body_of(recorded.event)
    return places


NAMED: JsonObject = {**message("a"), "type": "message", "id": "msg"}
MSG = frozenset({"msg"})
OTHERS = frozenset(f"other_{number}" for number in range(40))


class ContextSuite(Opens):
    """Contexts and forks."""

    # -- the context -----------------------------------------------------------------------

    async def test_the_context_is_read_at_every_version(self) -> None:
        async with self.one() as store:
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
                assert keys(await both(store, "c", version=version)) == wanted
                for last in range(4):
                    found = await both(store, "c", version=version, last=last)
                    assert keys(found) == wanted[len(wanted) - min(last, len(wanted)) :]
            places = await both(store, "c")
            assert [one.ordinal for one in places] == [1, 2, 3]
            assert [one.item_version for one in places] == [7, 5, 4]
            assert {one.holder for one in places} == {"c"}
            assert await both(store, "c", version=99) == places
            assert await both(store, "c", start=2, stop=3) == places[1:2]
            assert await both(store, "c", start=2, last=1) == places[2:]
            assert await store.check("c") == []

    async def test_an_item_is_found_where_it_stands_now(self) -> None:
        async with self.one() as store:
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

    async def test_an_item_that_has_to_be_new_is_refused_where_it_stands(self) -> None:
        async with self.one() as store:
            author = Author("c")
            await store.append(replace(author.begin(), absent=MSG))
            state = author.state
            behind = replace(author.write(added("z")), absent=MSG)
            author.state = state
            first = replace(author.write(added("a", item=NAMED)), absent=MSG | OTHERS)
            await store.append(first)
            assert (await store.append(first)).already
            state = author.state
            again = replace(author.write(added("b", item=NAMED)), absent=MSG | OTHERS)
            for _ in range(2):
                await raises(ItemPresent, store.append(again))
            # Who is behind is told that, and decides anew: it may be his own that stands there.
            await raises(VersionConflict, store.append(behind))
            author.state = state
            await store.append(replace(author.write(added("c")), absent=OTHERS))
            await store.append(author.write(ev.ItemRemoved(key="a", ordinal=0)))
            await store.append(replace(author.write(added("d", item=NAMED)), absent=MSG))

    async def test_what_a_fork_inherits_is_not_new_to_it(self) -> None:
        async with self.one() as store:
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(added("a", item=NAMED)))
            committed = replace(author.state, committed=author.state.next)
            fork, started = Author.fork(committed, "fork")
            await store.append(fork.write(started, added("b")))
            state = fork.state
            again = replace(fork.write(added("c", item=NAMED)), absent=MSG)
            await raises(ItemPresent, store.append(again))
            fork.state = state
            await store.append(fork.write(ev.ItemRemoved(key="a", ordinal=0)))
            await store.append(replace(fork.write(added("d", item=NAMED)), absent=MSG))

    async def test_several_changes_of_one_place_at_one_version(self) -> None:
        async with self.one() as store:
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
        async with self.one() as store:
            source = await self._source(store)
            forked = source.state
            await store.append(source.write(ev.ItemEdited(key="A", item=message("A"), ordinal=0)))
            author, first = Author.fork(forked, "fork")
            await store.append(author.write(first, answered("x"), added("b")))
            assert keys(await both(store, "fork")) == ["a", "1.0", "out-x", "b"]
            assert keys(await both(store, "source")) == ["A", "1.0", "out-x"]
            places = await both(store, "fork")
            assert [one.holder for one in places] == ["source", "source", "fork", "fork"]
            assert [one.version for one in await store.events("fork")] == [1, 2, 3]
            for last in range(6):
                wanted = places[max(0, len(places) - last) :]
                assert await both(store, "fork", last=last) == wanted
            call, output = await store.find("fork", call_id="x")
            assert (call.holder, output.holder) == ("source", "fork")
            (row,) = await store.conversations(after="a", limit=1)
            assert (row.id, row.fork_of) == ("fork", "source")
            assert await store.check("fork") == []

    async def test_a_forks_changes_lie_over_its_ancestors(self) -> None:
        async with self.one() as store:
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
                assert keys(await both(store, "child", version=version)) == wanted
                for last in range(1, 5):
                    found = await both(store, "child", version=version, last=last)
                    assert keys(found) == wanted[-last:]
            assert keys(await both(store, "fork")) == ["a", "1.0", "out-x"]
            assert await store.find("child", key="a") == []
            assert await store.find("child", key="1.0") == []
            assert keys(await store.find("fork", key="a")) == ["a"]
            grandchild, begin = Author.fork(
                replace(child.state, committed=child.state.next), "grandchild"
            )
            await store.append(grandchild.write(begin, added("g")))
            assert keys(await both(store, "grandchild")) == ["j", "E", "out-x", "end", "g"]
            for name in ("child", "fork", "source"):
                assert await store.check(name) == []

    async def test_a_fork_needs_its_source(self) -> None:
        async with self.one() as store:
            source = await self._source(store)
            elsewhere = replace(source.state, id="elsewhere")
            later = replace(source.state, version=99)
            for state in (elsewhere, later):
                author, first = Author.fork(state, "fork")
                await raises(NotFound, store.append(author.write(first)))
            author, first = Author.fork(replace(source.state, hash="00" * 32), "fork")
            await raises(InvalidInput, store.append(author.write(first)))
            assert await store.head("fork") is None
