"""Damage that no statement makes: the rows of queries are given by hand, and errors thrown."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from turnlog.errors import StoreCorrupt, StoreMoved, StoreUnavailable
from turnlog.store.deriving import derive
from turnlog.store.driving import Reading, Threads
from turnlog.store.faults import translate
from turnlog.store.readers import Readers
from turnlog.store.reads import Reads
from turnlog.store.shapes import rising
from turnlog.store.whereabouts import Whereabouts
from turnlog.store.whole import check_whole

from .damage import story
from .files import opened, tamper


def test_keys_that_do_not_rise() -> None:
    rising([1, 2, 9], 0)
    rising([("a", "b"), ("a", "c")], ("", ""))
    for keys in ([1, 1], [2, 1], ["x"], [0]):
        with pytest.raises(StoreCorrupt, match="an index is damaged"):
            rising(keys, 0)


def test_a_context_whose_places_do_not_rise() -> None:
    steps = Reads(1).context("c", 0, None, None, 2)
    next(steps)
    steps.send([(5, 10, 0, None, None)])
    place = (1, None, "c", 1, "k", None, None, None)
    with pytest.raises(StoreCorrupt, match="do not rise"):
        steps.send([(11, *place), (10, *place)])


def test_a_log_of_which_nothing_can_be_read() -> None:
    steps = derive(Reads(1), "c")
    next(steps)
    with pytest.raises(StopIteration) as done:
        for _ in range(20):
            steps.throw(StoreCorrupt("no disk"))
    _, (finding,) = done.value.value
    assert (finding.version, finding.problem) == (1, "the event cannot be read: no disk")


def test_positions_that_do_not_rise() -> None:
    steps = check_whole(Reads(1))
    next(steps)
    steps.send([("ok",)])
    steps.send([(0, 3, 1, 9)])
    steps.send([(1,), (1,)])
    with pytest.raises(StopIteration) as done:
        for _ in range(20):
            steps.send([])
    assert [one.problem for one in done.value.value] == [
        "in partition 0, position 1 comes behind 1"
    ]


def test_a_message_that_is_no_text() -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")
    assert isinstance(translate(error, "some.db"), StoreCorrupt)
    assert isinstance(translate(sqlite3.OperationalError("odd"), "some.db"), StoreUnavailable)


async def test_a_source_that_is_gone_or_the_fork_itself(path: Path) -> None:
    store = await opened(path)
    await story(store, chats=2, turns=1)
    tamper(path, "UPDATE conversations SET fork_of = 'fork' WHERE id = 'fork'")
    with pytest.raises(StoreCorrupt, match="forked from itself"):
        await store.context("fork")
    tamper(
        path,
        "UPDATE conversations SET fork_of = 'chat-01' WHERE id = 'fork'",
        "DELETE FROM conversations WHERE id = 'chat-01'",
    )
    with pytest.raises(StoreCorrupt, match="which has forks, is missing"):
        await store.context("fork")
    await store.close()


@pytest.mark.parametrize(
    ("was", "now", "problem"),
    [
        ('"hash":"', '"hash":"00', "at the fork is another one"),
        ('"conversation":"chat-01"', '"conversation":"fork"', "forked from itself"),
    ],
)
async def test_what_a_fork_says_of_its_source(path: Path, was: str, now: str, problem: str) -> None:
    store = await opened(path)
    await story(store, chats=2, turns=1)
    tamper(
        path,
        f"UPDATE events SET body = CAST(replace(body, '{was}', '{now}') AS BLOB)"
        " WHERE conversation = 'fork' AND version = 1",
    )
    finding, *_ = await store.check("fork")
    assert finding.version == 1 and problem in finding.problem
    await store.close()


async def test_tables_that_are_gone(path: Path) -> None:
    store = await opened(path)
    await story(store, chats=2, turns=1)
    tamper(path, "DROP TABLE turns", "DROP TABLE context")
    problems = [one.problem for one in await store.check("chat-00")]
    assert [one.split(":")[0] for one in problems] == [
        "its context cannot be read", "its turns cannot be read",
    ]  # fmt: skip
    await store.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE meta SET value = 'x' WHERE name = 'partitions'", "has 'x' partitions"),
        ("UPDATE alembic_version SET version_num = '00'", "schema '00', which is none"),
    ],
)
async def test_what_a_database_says_of_itself(path: Path, statement: str, message: str) -> None:
    await (await opened(path)).close()
    tamper(path, statement)
    with pytest.raises(StoreCorrupt, match=message):
        await opened(path)


class Late(Threads):
    """A driver that connects after the file was replaced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def read(self, address: str, patience: float) -> Reading:
        """Replace the file, and connect."""
        self._path.rename(self._path.with_name("moved.db"))
        self._path.touch()
        return await super().read(address, patience)


async def test_a_file_that_is_replaced_while_a_reader_connects(path: Path) -> None:
    await (await opened(path)).close()
    readers = Readers(f"{path.as_uri()}?mode=ro", 1, "log.db", Whereabouts(path), Late(path))
    with pytest.raises(StoreMoved):
        await readers.run(Reads(1).head("c"))
    await readers.close()
