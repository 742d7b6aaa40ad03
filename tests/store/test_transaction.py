"""Appends that share a transaction: what one leaves to be written, the next one sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

from turnlog import events as ev
from turnlog.errors import InvalidInput, TurnlogError, VersionConflict
from turnlog.ports import Append, Appended
from turnlog.store import SqlStore
from turnlog.store.rows import POSITION, prepare
from turnlog.testing.store_contract import Author, added

from .files import tamper


async def together(store: SqlStore, *appends: Append) -> list[object]:
    """What each of them got, handed over in one turn of the event loop."""
    results = await asyncio.gather(*map(store.append, appends), return_exceptions=True)
    return [type(one) if isinstance(one, TurnlogError) else one for one in results]


async def whole(store: SqlStore, *conversations: str) -> None:
    """Check that there is nothing wrong with them, and that the log has no gap."""
    for name in conversations:
        assert await store.check(name) == []
    positions = [position for _, position, _ in await store.follow({})]
    assert positions == list(range(1, len(positions) + 1))


async def test_an_append_sees_what_was_left_before_it(store: SqlStore) -> None:
    author, other = Author("c"), Author("c")
    first = author.write(ev.ConversationStarted(id="c"), added("a"), added("b"))
    behind_it = author.write(added("d"))
    other.state, other.made = author.state, 9
    in_between = author.write(added("e", 1))
    gone = author.write(added("g"), ev.ItemRemoved(key="g", ordinal=4))
    same = Author("c").begin()
    late = other.write(added("x"))
    results = await together(store, first, first, behind_it, in_between, gone, same, late)
    written = [Appended(3), Appended(3, already=True), Appended(4), Appended(5), Appended(7)]
    assert results == [*written, Appended(1, already=True), VersionConflict]
    assert [one.key for one in await store.context("c")] == ["a", "e", "b", "d"]
    await whole(store, "c")


async def test_a_fork_sees_what_its_source_left(store: SqlStore) -> None:
    source = Author("source")
    begun = source.write(ev.ConversationStarted(id="source"), added("a"), added("b"))
    fork, first = Author.fork(source.state, "fork")
    results = await together(
        store, begun, fork.write(first, added("c")), fork.write(ev.ItemRemoved(key="a", ordinal=0))
    )
    assert results == [Appended(3), Appended(2), Appended(3)]
    await whole(store, "source", "fork")


async def test_who_is_refused_leaves_nothing_and_others_go_on(store: SqlStore) -> None:
    late, good = Author("late"), Author("good")
    await store.append(late.begin())
    stale = late.write(added("a"))
    await store.append(stale)
    again = Author("late")
    again.begin()
    again.made = 7
    results = await together(store, good.begin(), again.write(added("b")), good.write(added("g")))
    assert results == [Appended(1), VersionConflict, Appended(2)]
    await whole(store, "late", "good")


async def test_what_was_left_and_does_not_fit_fails_alone(path: Path, store: SqlStore) -> None:
    bad, good = Author("bad"), Author("good")
    await store.append(bad.write(ev.ConversationStarted(id="bad"), added("a")))
    before = bad.state
    wrong = bad.write(added("b"))
    await store.append(wrong)
    tamper(
        path,
        "DELETE FROM context WHERE conversation = 'bad' AND ordinal = 1",
        "UPDATE conversations SET version = 2, items = 1,"
        f" hash = x'{before.hash}' WHERE id = 'bad'",
    )
    results = await together(store, wrong, good.begin())
    assert results == [InvalidInput, Appended(1)]
    # Where the next one has to read, it is noticed then.
    results = await together(store, good.write(added("g")), wrong, good.write(added("h", 0)))
    assert results == [Appended(2), InvalidInput, Appended(3)]
    assert [one.key for one in await store.context("good")] == ["h", "g"]
    assert await store.check("good") == []


def test_only_items_behind_each_other_join_the_end() -> None:
    author = Author("c")
    author.begin()
    joining = prepare(author.write(added("a"), added("b")), 0)
    assert joining.joining is not None and len(joining.joining) == 2
    assert [row[POSITION] for row in joining.events] == [None, None]
    assert prepare(author.write(added("d", 0)), 0).joining is None
    twice = author.write(added("e"), ev.ItemEdited(key="f", item={"role": "user"}, ordinal=3))
    assert prepare(twice, 0).joining is None
    edited = author.write(ev.ItemEdited(key="g", item={"role": "user"}, ordinal=0))
    assert prepare(edited, 0).joining is None
