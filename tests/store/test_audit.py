"""What is cached beside the log is found where it is wrong, and rebuilt from the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnlog import events as ev
from turnlog.errors import NotFound, StoreCorrupt
from turnlog.ports import Store
from turnlog.state import State
from turnlog.store import MemoryStore, SqlStore
from turnlog.testing.store_contract import Author, added, answered, begun, called, prepared

from .files import tamper


async def story(store: Store) -> State:
    """A conversation with everything beside it, and a fork."""
    author = Author("c")
    await store.append(author.begin(team="red"))
    await store.append(author.write(begun(), added("a"), prepared("1"), turn="t"))
    await store.append(author.write(*called("1", "x", "y"), turn="t"))
    await store.append(author.write(answered("x"), turn="t"))
    await store.append(author.write(ev.TurnEnded(outcome="completed"), turn="t"))
    await store.append(author.write(begun("two"), turn="u", lease="acquire", epoch=1))
    fork, first = Author.fork(author.state, "fork")
    await store.append(fork.write(first, added("f"), ev.ItemRemoved(key="a", ordinal=0)))
    return author.state


TAMPERED = {
    "UPDATE conversations SET head = x'00'": "head",
    "UPDATE conversations SET status = 'idle', items = 99": "status, items",
    "DELETE FROM conversations": "head",
    "DELETE FROM context WHERE ordinal = 1": "context",
    "UPDATE context SET to_version = 9 WHERE ordinal = 1": "to_version",
    "UPDATE context SET conversation = 'c', ordinal = 77 WHERE ordinal = 1": "not in the log",
    "DELETE FROM turns": "turn",
    "UPDATE turns SET outcome = 'failed' WHERE turn = 't'": "outcome",
    "DELETE FROM calls": "call",
    "UPDATE calls SET status = 'started'": "status",
}

BROKEN = {
    "UPDATE events SET actor = 'eve' WHERE version = 3 AND conversation = 'c'": (3, "hash"),
    "UPDATE events SET body = x'7b7d' WHERE version = 2 AND conversation = 'c'": (2, "body"),
    "UPDATE events SET body = NULL WHERE version = 2 AND conversation = 'c'": (2, "erased"),
    "UPDATE events SET body_digest = x'00' WHERE version = 4 AND conversation = 'c'": (4, "digest"),
    "DELETE FROM events WHERE version = 5 AND conversation = 'c'": (5, "missing"),
    "UPDATE events SET position = -version WHERE conversation = 'c'": (1, "position"),
    "UPDATE events SET tag = 'x' WHERE version = 1 AND conversation = 'c'": (1, "tag"),
}


@pytest.mark.parametrize(("statement", "problem"), TAMPERED.items())
async def test_a_wrong_cache_is_found_and_rebuilt(
    path: Path, store: SqlStore, statement: str, problem: str
) -> None:
    await story(store)
    assert await store.check("c") == []
    tamper(path, statement)
    findings = await store.check("c")
    assert any(problem in one.problem for one in findings), findings
    assert {one.version for one in findings} == {None}
    for name in ("c", "fork"):
        assert (await store.rebuild(name)).version
    for name in ("c", "fork"):
        assert await store.check(name) == []
    head = await store.head("c")
    assert head is not None and head.epoch == 1
    assert head.mine or statement.startswith("DELETE FROM conversations")


@pytest.mark.parametrize(("statement", "found"), BROKEN.items())
async def test_a_broken_log_is_found(
    path: Path, store: SqlStore, statement: str, found: tuple[int, str]
) -> None:
    await story(store)
    tamper(path, statement)
    finding, *_ = await store.check("c")
    version, problem = found
    assert finding.version == version and problem in finding.problem, finding
    with pytest.raises(StoreCorrupt):
        await store.rebuild("c")


async def test_a_head_that_cannot_be_read_is_folded_again(path: Path, store: SqlStore) -> None:
    state = await story(store)
    wanted = await store.turn("c", id="t")
    for statement in (
        "UPDATE conversations SET head_format = 0",
        "UPDATE conversations SET head = x'7b7d'",
        "UPDATE turns SET state_format = 0",
        "UPDATE turns SET state = x'7b'",
    ):
        await store.rebuild("c")
        tamper(path, statement)
        head = await store.head("c")
        assert head is not None and head.state == state
        assert await store.turn("c", id="t") == wanted
        fork = await store.head("fork")
        assert fork is not None and fork.state.fork is not None


async def test_a_long_log_is_followed_in_pages(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(*(added(f"k{number}") for number in range(600))))
    tamper(path, "UPDATE conversations SET head_format = 0")
    head = await store.head("c")
    assert head is not None and head.state == author.state
    # A state that another turnlog wrote is not read, and so is nothing that could be wrong.
    tamper(path, "UPDATE conversations SET head = x'7b'")
    assert await store.check("c") == []


async def test_a_log_with_a_gap_cannot_be_folded(path: Path, store: SqlStore) -> None:
    await story(store)
    tamper(
        path,
        "UPDATE conversations SET head_format = 0",
        "DELETE FROM events WHERE conversation = 'c'",
    )
    with pytest.raises(StoreCorrupt, match="missing"):
        await store.head("c")
    with pytest.raises(StoreCorrupt, match="missing"):
        await store.head("fork")
    (finding,) = await store.check("fork")
    assert "missing" in finding.problem
    with pytest.raises(NotFound):
        await store.rebuild("c")


async def test_a_fork_of_a_changed_source_is_found(path: Path, store: SqlStore) -> None:
    await story(store)
    last = "(SELECT max(version) FROM events WHERE conversation = 'c')"
    tamper(
        path,
        f"UPDATE events SET hash = x'00' WHERE conversation = 'c' AND version = {last}",
    )
    (finding,) = await store.check("fork")
    assert finding.version == 1 and "fork" in finding.problem


async def test_a_missing_blob_is_found(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    item = {"role": "user", "content": "A" * 50_000}
    await store.append(author.write(added("k", item=item)))
    tamper(path, "DELETE FROM blobs")
    with pytest.raises(StoreCorrupt):
        await store.events("c")
    event, blob = await store.check("c")
    assert event.version == 2
    assert blob.version is None and "is missing" in blob.problem


async def test_memory_is_checked_too() -> None:
    store = MemoryStore()
    await story(store)
    kept = store.shelf.kept["c"]
    kept.events[2] = kept.events[1]
    (finding,) = await store.check("c")
    assert "follow" in finding.problem
