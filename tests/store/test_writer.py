"""The writer: grouping, faults, and callers who go away."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from sqlite3 import Connection

import pytest

from turnlog.errors import Closed, InvalidInput, OutcomeUnknown, StoreMoved, StoreUnavailable
from turnlog.ports import Appended
from turnlog.store import Backlog, SqlStore, open_store, settings_for
from turnlog.store.bell import Bell
from turnlog.store.driving import Threads
from turnlog.store.opening import open_database
from turnlog.store.room import Room
from turnlog.store.transaction import Transaction
from turnlog.store.writer import LOOK, Writer
from turnlog.testing.store_contract import Author, added, begun, raises

from .files import behind, opened

WAL_INDEX = 32 * 1024
"""What the file beside the write-ahead log takes, in bytes, which whoever reads needs."""


@contextlib.contextmanager
def small_files(size: int) -> Generator[None]:
    """No file can grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(size: int) -> str:
    return random.Random(size).randbytes(size // 2).hex()


async def test_a_commit_that_fails_may_have_happened(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    wal = path.with_name("log.db-wal").stat().st_size
    append = author.write(added("k", item={"role": "user", "content": noise(200_000)}))
    with small_files(max(wal, WAL_INDEX) + 8192):
        with pytest.raises(OutcomeUnknown, match="append the same events again"):
            await store.append(append)
        assert len(await store.events("c")) == 1
    assert not (await store.append(append)).already
    assert (await store.append(append)).already
    assert await store.check("c") == []


async def test_a_full_disk_before_the_commit_writes_nothing(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    wal = path.with_name("log.db-wal").stat().st_size
    large = author.write(
        *(added(f"k{n}", item={"role": "user", "content": noise(400_000 + n)}) for n in range(20))
    )
    with small_files(max(wal, WAL_INDEX) + 8192), pytest.raises(StoreUnavailable):
        await store.append(large)
    assert not (await store.append(large)).already
    assert await store.check("c") == []


async def test_what_does_not_fit_fails_alone(store: SqlStore) -> None:
    bad, good = Author("bad"), Author("good")
    await store.append(bad.begin())
    await store.append(bad.write(begun(), turn="t"))
    again = store.append(bad.write(begun(), turn="t"))
    item = {"type": "message", "role": "user", "content": "x", "id": "\ud800"}
    odd = store.append(Author("odd").write(added("k", item=item)))
    results = await asyncio.gather(again, store.append(good.begin()), odd, return_exceptions=True)
    assert [type(one) for one in results] == [InvalidInput, Appended, InvalidInput]
    followed = await store.follow({})
    assert [position for _, position, _ in followed] == [1, 2, 3]
    await raises(InvalidInput, store.head("\ud800"))


async def test_a_mistake_of_ours_reaches_its_caller_and_nobody_else(path: Path) -> None:
    writer = Writer(lambda: open_database(settings_for(path)), Bell())
    await asyncio.wrap_future(writer.ready)

    def mistake(transaction: Transaction) -> Appended:
        raise ZeroDivisionError(transaction.wrote)

    def fine(transaction: Transaction) -> Appended:
        transaction.wrote = True
        return Appended(7)

    with pytest.raises(ZeroDivisionError):
        await writer.submit(mistake)
    assert await writer.submit(fine) == Appended(7)
    with pytest.raises(ZeroDivisionError):
        await writer.submit(mistake)
    moved = path.rename(path.with_name("moved.db"))
    for _ in range(2):
        with pytest.raises(StoreMoved):
            await writer.submit(fine)
    moved.rename(path)
    writer.stop()
    writer.stop()
    with pytest.raises(Closed):
        await writer.submit(fine)
    await asyncio.wrap_future(writer.done)


async def test_appends_come_from_any_event_loop(store: SqlStore) -> None:
    def elsewhere(number: int) -> int:
        async def append() -> int:
            author = Author(f"c{number}")
            await store.append(author.begin())
            head = await store.head(author.id)
            assert head is not None
            return head.state.version

        return asyncio.run(append())

    versions = await asyncio.gather(*(asyncio.to_thread(elsewhere, n) for n in range(4)))
    assert versions == [1, 1, 1, 1]
    assert len(await store.conversations()) == 4
    assert await asyncio.to_thread(elsewhere, 5) == 1
    assert await asyncio.to_thread(elsewhere, 6) == 1


async def test_a_caller_whose_loop_is_gone_is_not_missed(path: Path) -> None:
    store = await opened(path)
    author = Author("c")
    append = author.begin()

    def forget() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(store.append(append))
        loop.run_until_complete(asyncio.wait([task], timeout=0))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()

    with behind(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=forget)
        thread.start()
        thread.join()
    assert (await store.append(append)).already
    await store.close()


async def test_readers_that_are_cancelled_come_back(store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(*(added(f"k{n}") for n in range(300))))
    for turns in range(12):
        tasks = [asyncio.ensure_future(store.events("c")) for _ in range(6)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(await store.events("c")) == 301


async def test_a_read_that_is_overtaken_by_closing_ends(path: Path) -> None:
    store = await opened(path)
    author = Author("c")
    await store.append(author.begin())
    reads = [asyncio.ensure_future(store.check("c")) for _ in range(10)]
    await asyncio.sleep(0)
    await store.close()
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert all(result == [] or isinstance(result, Closed) for result in results), results


async def test_opening_that_is_cancelled_leaves_nothing_open(path: Path) -> None:
    task = asyncio.ensure_future(opened(path))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store = await opened(path)
    await store.append(Author("c").begin())
    await store.close()


async def test_bytes_written_do_not_grow_with_the_conversation(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())

    async def written() -> int:
        before = path.with_name("log.db-wal").stat().st_size
        for _ in range(3):
            await store.append(author.write(added(f"k{author.made}")))
        return path.with_name("log.db-wal").stat().st_size - before

    early = await written()
    for _ in range(3):
        await store.append(author.write(*(added(f"k{author.made + n}") for n in range(40))))
    assert await written() <= early + 3 * 4 * 4120


# -- a writer that cannot keep up -----------------------------------------------------------


@contextlib.asynccontextmanager
async def held_up(path: Path, backlog: Backlog) -> AsyncGenerator[tuple[SqlStore, Connection]]:
    """A store whose writer waits for the lock of somebody else, until that one lets go."""
    store = await open_store(path, backlog=backlog, busy_timeout=60)
    assert isinstance(store, SqlStore)
    try:
        with behind(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield store, connection
    finally:
        await store.close()


def handed_over(store: SqlStore, *names: str, size: int = 10) -> list[asyncio.Task[Appended]]:
    """A conversation begun under each name, with a body of some size."""
    return [
        asyncio.ensure_future(store.append(Author(name).begin(text="x" * size))) for name in names
    ]


async def order(store: SqlStore) -> list[str]:
    return [one.conversation for _, _, one in await store.follow({})]


async def test_who_finds_no_room_for_long_is_told_that_nothing_was_written(path: Path) -> None:
    async with held_up(path, Backlog(jobs=3, seconds=0.2)) as (store, connection):
        first = handed_over(store, *"abc")
        late = await asyncio.gather(*handed_over(store, *"de"), return_exceptions=True)
        for one in late:
            assert isinstance(one, StoreUnavailable)
            assert "seconds behind, and nothing was written" in str(one)
        assert not any(one.done() for one in first)
        connection.execute("ROLLBACK")
        assert [one.version for one in await asyncio.gather(*first)] == [1, 1, 1]
        assert await order(store) == ["a", "b", "c"]
        await asyncio.gather(*handed_over(store, *"fgh"))


async def test_room_is_given_in_turn(path: Path) -> None:
    async with held_up(path, Backlog(jobs=1)) as (store, connection):
        tasks = handed_over(store, *"abcde")
        await asyncio.sleep(0)
        tasks[2].cancel()
        connection.execute("ROLLBACK")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, Appended) for one in results] == [True, True, False, True, True]
        assert await order(store) == ["a", "b", "d", "e"]


async def test_room_is_counted_in_bytes_but_one_has_always_room(path: Path) -> None:
    async with held_up(path, Backlog(size=10_000, seconds=0.1)) as (store, connection):
        (large,) = handed_over(store, "large", size=50_000)
        (small,) = await asyncio.gather(*handed_over(store, "small"), return_exceptions=True)
        assert isinstance(small, StoreUnavailable)
        connection.execute("ROLLBACK")
        await large
        some = await asyncio.gather(*handed_over(store, *"abc", size=4_000))
        assert len(some) == 3


async def test_those_who_wait_for_room_are_told_when_the_store_is_closed(path: Path) -> None:
    async with held_up(path, Backlog(jobs=1)) as (store, connection):
        first, second = handed_over(store, *"ab")
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        with pytest.raises(Closed):
            await second
        connection.execute("ROLLBACK")
        assert (await first).version == 1
        await closing


async def test_room_comes_back_from_those_who_went_away_with_it() -> None:
    room = Room(Backlog(jobs=1, size=100, seconds=60))
    await room.take(10)
    waiting = [asyncio.ensure_future(room.take(number)) for number in (20, 30, 40)]
    await asyncio.sleep(0)
    room.give([10])
    waiting[0].cancel()  # it has room by now, and does not know
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    assert [one.cancelled() for one in waiting[:2]] == [True, False]
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    room.give([30])
    await room.take(100)
    room.close()
    with pytest.raises(Closed):
        await room.take(1)


async def test_nobody_waits_behind_a_loop_that_is_gone() -> None:
    room = Room(Backlog(jobs=1))
    await room.take(1)
    gone = room.take(2)

    async def begin() -> None:
        gone.send(None)

    def wait_and_leave() -> None:
        with asyncio.Runner() as runner:
            runner.run(begin())

    await asyncio.to_thread(wait_and_leave)
    other = asyncio.ensure_future(room.take(3))
    await asyncio.sleep(0)
    room.give([1])
    await other
    gone.close()
    room.give([3])
    await room.take(1)


def test_a_backlog_has_room_for_one() -> None:
    with pytest.raises(InvalidInput):
        Backlog(jobs=0)


# -- step by step ---------------------------------------------------------------------------


class ByHand(Threads):
    """Runs the writer where and when the test says so."""

    work: Iterator[float | None] = iter(())

    def start(self, work: Iterator[float | None]) -> Callable[[], None]:
        self.work = work
        return lambda: None


@contextlib.asynccontextmanager
async def by_hand(path: Path) -> AsyncGenerator[tuple[Writer, ByHand]]:
    """A writer that has opened its file; it has room for one."""
    driver = ByHand()
    backlog = Backlog(jobs=1)
    writer = Writer(lambda: open_database(settings_for(path)), Bell(), driver, backlog)
    assert next(driver.work) is None
    yield writer, driver
    writer.stop()
    assert list(driver.work) == []
    assert writer.done.done()


async def handed_on() -> None:
    """Wait until the writer has what was handed over: that is behind a turn of the event loop."""
    for _ in range(2):
        await asyncio.sleep(0)


def fine(transaction: Transaction) -> Appended:
    return Appended(int(transaction.wrote))


async def test_who_was_let_in_as_the_store_closed_is_told(path: Path) -> None:
    async with by_hand(path) as (writer, driver):
        first, second = (asyncio.ensure_future(writer.submit(fine)) for _ in range(2))
        await handed_on()
        next(driver.work)
        writer.stop()
        with pytest.raises(Closed):
            await second
        assert await first == Appended(0)


async def test_who_looks_for_others_survives_a_file_that_is_not_there(path: Path) -> None:
    def mistake(transaction: Transaction) -> Appended:
        raise ZeroDivisionError(transaction.wrote)

    async with by_hand(path) as (writer, driver):
        submitted = asyncio.ensure_future(writer.submit(mistake))
        await handed_on()
        next(driver.work)
        with pytest.raises(ZeroDivisionError):
            await submitted
        with writer.watching():
            moved = path.rename(path.with_name("moved.db"))
            assert next(driver.work) == LOOK
            assert not await writer.others.next(0)
            moved.rename(path)
            contents = path.read_bytes()
            path.write_bytes(b"x" * 4096)
            assert next(driver.work) == LOOK
            assert not await writer.others.next(0)
            path.write_bytes(contents)
            assert next(driver.work) == LOOK
            assert await writer.others.next(0)
