"""What breaks off: a writer that fails, a close that is cancelled, a loop that goes on reading."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from turnlog.errors import Closed, InvalidInput, OutcomeUnknown, StoreUnavailable
from turnlog.store import MemoryStore, SqlStore, open_store
from turnlog.store.beats import Life, Watch
from turnlog.store.opening import address
from turnlog.testing.store_author import Author, added

from .files import opened, tamper
from .test_writer import noise, small_files

SOON = 5.0


class Clock:
    """A clock that can be broken: it then raises twice, the second time when it is told to."""

    def __init__(self) -> None:
        self.broken = 0
        self.held, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> float:
        if self.broken:
            self.broken -= 1
            if not self.broken:
                self.held.set()
                assert self.go_on.wait(SOON)
            raise RuntimeError("this clock is broken")
        return time.monotonic()


def assert_none_reads() -> None:
    """Every thread that reads has ended, or is just about to."""
    for one in threading.enumerate():
        if "_connection_worker_thread" in one.name:
            one.join(SOON)
            assert not one.is_alive()


async def test_a_writer_that_fails_answers_everybody_and_closes(path: Path) -> None:
    clock = Clock()
    store = await open_store(path, owners="beats", beat_seconds=60, late_seconds=120, clock=clock)
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(added("k"), lease="acquire", epoch=1))
    async with asyncio.timeout(SOON):
        clock.broken = 2
        with pytest.raises(RuntimeError, match="broken"):
            await store.append(Author("d").begin())
        assert await asyncio.to_thread(clock.held.wait, SOON)
        waiting = asyncio.ensure_future(store.append(Author("e").begin()))
        await asyncio.sleep(0)
        clock.go_on.set()
        with pytest.raises(Closed, match="nothing was written"):
            await waiting
        with pytest.raises(Closed):
            await store.append(Author("f").begin())
        await store.close()
    later = await opened(path)
    assert await later.check("") == []
    await later.close()


async def test_who_writes_hears_of_others_in_the_same_transaction(
    path: Path, store: SqlStore
) -> None:
    other = await opened(path)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):  # whatever was written before is heard of by then
            while True:
                await store.changed(60, others=True)
    waiting = asyncio.ensure_future(store.changed(60, others=True))
    await asyncio.sleep(0)
    await other.append(Author("theirs").begin())
    await store.append(Author("ours").begin())
    async with asyncio.timeout(SOON):
        await waiting
    await other.close()


async def test_a_beat_that_never_comes_stops_no_writer(path: Path) -> None:
    store = await open_store(path, owners="beats", beat_seconds=math.inf, late_seconds=math.inf)
    author = Author("c")
    async with asyncio.timeout(SOON):
        await store.append(author.begin())
        await store.append(author.write(added("k"), lease="acquire", epoch=1))
        await store.append(author.write(added("l"), epoch=1))
        await store.close()


async def test_a_path_means_the_same_file_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store("log.db")
    beside = await open_store("log.db", owner="beside")
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(added("k"), lease="acquire", epoch=1))
    monkeypatch.chdir("/")
    head = await beside.head("c")
    assert head is not None and head.alive
    await store.append(author.write(added("l"), epoch=1))
    assert len(await beside.events("c")) == 3
    await store.close()
    await beside.close()
    assert not list((tmp_path / "log.db-owners").glob("beside*"))


async def test_a_cancelled_close_leaves_no_thread_behind(path: Path, store: SqlStore) -> None:
    for steps in range(12):
        one = await opened(path)
        await asyncio.gather(*(one.head("c") for _ in range(5)))
        closing = asyncio.ensure_future(one.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing], timeout=SOON)
        if steps > 1:  # before that it was never begun
            assert_none_reads()
        async with asyncio.timeout(SOON):
            await one.close()
    assert_none_reads()


def test_what_another_event_loop_opens_meanwhile_is_closed(path: Path) -> None:
    for _ in range(10):
        told: list[BaseException] = []

        async def read(store: SqlStore, begun: threading.Event, to: list[BaseException]) -> None:
            async def on() -> None:
                while True:
                    await store.events("c")
                    begun.set()

            to += filter(
                None, await asyncio.gather(*(on() for _ in range(4)), return_exceptions=True)
            )

        async def all_of_it(told: list[BaseException]) -> None:
            store = await opened(path)
            await store.append(Author(f"c{time.monotonic_ns()}").begin())
            begun = threading.Event()
            threads = [
                threading.Thread(target=asyncio.run, args=(read(store, begun, told),))
                for _ in range(3)
            ]
            for one in threads:
                one.start()
            assert await asyncio.to_thread(begun.wait, SOON)
            await store.close()
            for one in threads:
                await asyncio.to_thread(one.join, SOON)

        asyncio.run(all_of_it(told))
        assert {type(one) for one in told} == {Closed}
        assert len(told) == 12
    assert_none_reads()


async def test_a_loop_that_comes_while_the_store_is_closed_is_told(path: Path) -> None:
    store = await opened(path)
    asyncio.new_event_loop().close()

    async def head() -> None:
        await store.head("c")

    await asyncio.to_thread(asyncio.run, head())  # a pool of a loop that is gone by now
    reading = asyncio.ensure_future(store.head("c"))
    await asyncio.sleep(0)  # it is clearing up behind that loop
    await store.close()
    with pytest.raises(Closed):
        await reading


@pytest.mark.parametrize("large", [2**63, -(2**63) - 1])
async def test_a_number_that_is_too_large_is_invalid(store: SqlStore, large: int) -> None:
    with pytest.raises(InvalidInput, match="too large"):
        await store.events("c", after=large)


async def test_closing_a_store_in_memory_tells_those_who_wait() -> None:
    store = MemoryStore()
    waiting = asyncio.ensure_future(store.changed(60))
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(SOON):
        with pytest.raises(Closed):
            await waiting


def test_a_dead_owner_is_late_among_very_many_who_live() -> None:
    now = [0.0]
    watch = Watch(Life().late_seconds, lambda: now[0])
    for beat in range(1, 6):
        for owner in range(1500):
            watch.late(f"o{owner}", beat)
        assert watch.late("dead", 1) == (now[0] >= 30)
        now[0] += 10


async def test_nobody_is_late_while_the_disk_is_full(path: Path, store: SqlStore) -> None:
    now = [0.0]
    one = await open_store(path, owner="one", owners="beats", clock=lambda: 0.0)
    other = await open_store(path, owner="other", owners="beats", clock=lambda: now[0])
    author = Author("c")
    await one.append(author.begin())
    await one.append(author.write(added("k"), lease="acquire", epoch=1))

    async def lives() -> bool:
        head = await other.head("c")
        assert head is not None
        return head.alive

    assert await lives()
    now[0] += 20
    large = Author("d").begin(**{"k": noise(400_000)})
    with small_files(8192), pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await other.append(large)
    assert await lives()
    now[0] += 29
    assert await lives()
    now[0] += 2
    assert not await lives()
    await one.close()
    await other.close()


def test_a_link_is_judged_by_where_it_leads() -> None:
    with tempfile.TemporaryDirectory() as parent:
        real, links = Path(parent) / "real", Path(parent) / "links"
        for directory in (real, links):
            directory.mkdir()
        (real / "log.db").touch()
        (links / "log.db").symlink_to(real / "log.db")
        for directory, mode in ((Path(parent), 0o755), (real, 0o777), (links, 0o555)):
            directory.chmod(mode)
        root = os.geteuid() == 0
        if root:  # who may write anywhere
            os.seteuid(65534)
        try:
            found = address(links / "log.db", "ro")
        finally:
            if root:
                os.seteuid(0)
        assert "immutable" not in found
        links.chmod(0o755)


async def test_a_long_line_of_forks_is_followed(path: Path, store: SqlStore) -> None:
    author = Author("f0")
    await store.append(author.begin())
    for place in range(1, 400):
        author, begun = Author.fork(author.state, f"f{place}")
        await store.append(author.write(begun))
    assert await store.check("f399") == []
    assert (await store.rebuild("f399")).version == 1
    tamper(path, "UPDATE conversations SET head_format = 0 WHERE id = 'f399'")
    head = await store.head("f399")
    assert head is not None and head.state == author.state


async def test_forks_of_each_other_are_damage(path: Path, store: SqlStore) -> None:
    authors = [Author("a")]
    await store.append(authors[0].begin())
    for id in "bcd":
        author, begun = Author.fork(authors[-1].state, id)
        await store.append(author.write(begun))
        authors.append(author)
    tamper(
        path,
        """UPDATE events SET body = CAST(replace(CAST(body AS TEXT), '"conversation":"a"',
        '"conversation":"c"') AS BLOB) WHERE conversation = 'b'""",
    )
    for id in "bcd":
        (found,) = await store.check(id)
        assert found.version == 1 and len(found.problem) < 500
        assert "forked from itself" in found.problem
    assert await store.check("a") == []
