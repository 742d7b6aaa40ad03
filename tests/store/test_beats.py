"""Owners that beat: judged by a clock of ours, by nobody's word, and never at a first look."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import cast

import pytest

from turnlog.errors import Closed, InvalidInput, StaleEpoch, StoreCorrupt, StoreUnavailable
from turnlog.ports import Head, Store
from turnlog.store import MemoryStore, SqlStore, open_store
from turnlog.store.beats import Heart, Kind, Life, Pulse, Watch
from turnlog.testing.store_contract import Author, added, begun, raises

from .files import behind, tamper

BEAT, LATE = 0.1, 1.0


@pytest.fixture
def path(tmp_path: Path, migrated: Path) -> Path:
    """A database that is there already, which saves migrating it."""
    return Path(shutil.copy(migrated, tmp_path / "log.db"))


class Clock:
    """A clock that somebody moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def beating(
    path: Path, *, beat: float = 5.0, late: float = 30.0, clock: Clock | None = None
) -> AsyncGenerator[SqlStore]:
    """A store whose owner beats."""
    store = await open_store(
        path,
        owners="beats",
        beat_seconds=beat,
        late_seconds=late,
        clock=clock or time.monotonic,
        durability="process",
    )
    assert isinstance(store, SqlStore)
    try:
        yield store
    finally:
        await store.close()


def said(path: Path) -> dict[str, int]:
    """What the owners' rows say."""
    with behind(path) as connection:
        return dict(connection.execute("SELECT owner, beat FROM owners").fetchall())


async def head(store: Store, conversation: str = "c") -> Head:
    found = await store.head(conversation)
    assert found is not None
    return found


async def lease(store: Store, author: Author, epoch: int = 1) -> None:
    """Take the lease of a conversation."""
    if author.state.version == 0:
        await store.append(author.begin())
    await store.append(author.write(lease="acquire", epoch=epoch))


def left_by(path: Path, owner: str, beat: int, conversation: str = "c") -> None:
    """Have the lease of a conversation be held by an owner that is far away."""
    tamper(
        path,
        f"INSERT OR REPLACE INTO owners (owner, beat) VALUES ('{owner}', {beat})",
        f"UPDATE conversations SET owner = '{owner}' WHERE id = '{conversation}'",
    )


# -- by the clock ---------------------------------------------------------------------------


def test_nobody_is_late_at_a_first_look() -> None:
    clock = Clock()
    watch = Watch(30, clock)
    assert not watch.late("a", 7)
    clock.now += 29
    assert (watch.left("a", 7), watch.late("a", 7)) == (1, False)
    assert not watch.late("b", 7)
    clock.now += 1
    assert watch.late("a", 7)
    assert not watch.late("b", 7)
    assert not watch.late("a", 8)
    clock.now += 29
    assert not watch.late("a", 8)


def test_only_so_many_owners_are_remembered() -> None:
    clock = Clock()
    watch = Watch(30, clock)
    for number in range(100_500):
        watch.late(f"o{number}", 1)
    clock.now += 30
    assert watch.late("o100499", 1)
    assert not watch.late("o3", 1)


def test_a_pulse_says_no_number_twice() -> None:
    clock = Clock()
    pulse = Pulse(Life(owners="beats", clock=clock))
    pulse.start(behind=4)
    assert (pulse.wait(), pulse.take()) == (None, False)
    assert not pulse.is_said_by(4)
    assert pulse.next() == 5
    assert pulse.is_said_by(5)
    clock.now += 3
    assert (pulse.wait(), pulse.take()) == (2, False)
    clock.now += 3
    assert (pulse.wait(), pulse.take(), pulse.take()) == (0, True, False)
    assert pulse.next() == 6
    pulse.rest()
    assert not pulse.is_said_by(6)
    locked = Pulse(Life())
    locked.start(behind=4)
    assert (locked.next(), locked.is_said_by(0), locked.is_said_by(4)) == (0, True, False)
    assert (locked.wait(), locked.beats) == (None, False)


def test_a_heart_beats_by_the_clock() -> None:
    clock = Clock()
    heart = Heart(Life(clock=clock))
    clock.now += 11
    assert heart.beat() == 3
    heart.stop()
    clock.now += 100
    assert heart.beat() == 3
    heart.go_on()
    assert heart.beat() == 4


@pytest.mark.parametrize(("beat", "late"), [(0.0, 30.0), (-1.0, 30.0), (16.0, 30.0)])
def test_an_owner_has_time_to_beat_twice(beat: float, late: float) -> None:
    with pytest.raises(InvalidInput, match="twice"):
        Life(beat_seconds=beat, late_seconds=late)


async def test_an_owner_beats_or_holds_a_lock(tmp_path: Path) -> None:
    kind = cast(Kind, "neither")
    await raises(InvalidInput, open_store(tmp_path / "log.db", owners=kind))
    await raises(InvalidInput, open_store(tmp_path / "log.db", owners="beats", owner="a/b"))


# -- both stores ----------------------------------------------------------------------------


async def test_in_memory_an_owner_is_dead_once_its_beat_was_the_same_for_long() -> None:
    clock = Clock()
    life = Life(owners="beats", clock=clock)
    store = MemoryStore(life=Life(clock=clock))
    other = store.beside(life=life)
    author = Author("c")
    await lease(other, author)
    assert (await head(store)).alive
    clock.now += 100
    assert (await head(store)).alive
    other.stand_still()
    assert (await head(store)).alive
    clock.now += 29
    assert (await head(store)).alive
    other.go_on()
    assert (await head(store)).alive
    other.abandon()
    await raises(Closed, other.head("c"))
    assert (await head(store)).alive
    state = author.state
    await raises(StaleEpoch, store.append(author.write(lease="acquire", epoch=2)))
    clock.now += 30
    found = await head(store)
    assert (found.alive, found.certain, found.mine) == (False, False, False)
    assert await store.orphans() == ["c"]
    author.state = state
    await store.append(author.write(lease="acquire", epoch=2))
    assert (await head(store)).mine


async def test_orphans_in_memory_wait_for_a_beat_or_its_absence() -> None:
    life = Life(owners="beats", beat_seconds=0.02, late_seconds=0.1)
    store = MemoryStore(life=life)
    living, dying, gone = store.beside(), store.beside(), store.beside()
    for one, name in ((living, "living"), (dying, "dying"), (gone, "gone"), (store, "mine")):
        await lease(one, Author(name))
    dying.abandon()
    await gone.close()
    assert (await head(store, "gone")).certain
    assert await store.orphans() == ["dying", "gone"]


async def test_an_owner_beats_while_it_holds_a_lease(path: Path) -> None:
    async with beating(path, beat=0.01, late=1) as store:
        author = Author("c")
        await store.append(author.begin())
        assert said(path) == {}
        await lease(store, author)
        seen = {0}
        while len(seen) < 5:
            await asyncio.sleep(0)
            seen.add(said(path)[store.owner])
        await store.append(author.write(lease="release", epoch=1))
        while said(path):
            await asyncio.sleep(0.01)
        await lease(store, author, 2)
        assert said(path)[store.owner] > max(seen)
        locks = path.with_name(f"{path.name}-owners")
        assert [one.name for one in locks.iterdir()] == ["opening.lock"]
    assert said(path) == {store.owner: 0}


async def test_an_owner_that_leaves_with_leases_is_dead_at_once(path: Path) -> None:
    author, other = Author("c"), Author("d")
    async with beating(path) as leaving:
        await lease(leaving, author)
    async with beating(path) as resting:
        await lease(resting, other)
        await resting.append(other.write(lease="release", epoch=1))
    assert said(path) == {leaving.owner: 0}
    async with beating(path) as store:
        found = await head(store)
        assert (found.alive, found.certain) == (False, True)
        assert await store.orphans() == ["c"]
        await lease(store, author, 2)
        assert said(path) == {store.owner: 1}


async def test_the_same_name_counts_on(path: Path) -> None:
    author = Author("c")
    kinds: list[tuple[Kind, int]] = [("beats", 1), ("locks", 0), ("beats", 1), ("beats", 8)]
    for epoch, (owners, wanted) in enumerate(kinds, 1):
        store = await open_store(path, owner="me", owners=owners)
        await lease(store, author, epoch)
        assert said(path) == {"me": wanted}
        await store.close()
        if epoch == 3:
            left_by(path, "me", 7)


# -- far away -------------------------------------------------------------------------------


async def test_an_owner_far_away_is_judged_by_our_clock_alone(path: Path) -> None:
    clock = Clock()
    async with beating(path, clock=clock) as store:
        author = Author("c")
        await store.append(author.begin())
        left_by(path, "far", 3)
        assert (await head(store)).alive
        clock.now += 29
        (row,) = await store.conversations()
        assert (await head(store)).alive and not row.orphaned
        left_by(path, "far", 4)
        clock.now += 29
        assert (await head(store)).alive
        clock.now += 30
        found = await head(store)
        assert (found.alive, found.certain, found.owner) == (False, False, "far")
        (row,) = await store.conversations()
        assert row.orphaned
        assert await store.orphans() == ["c"]


async def test_what_decides_is_the_beat_in_the_transaction(path: Path) -> None:
    clock = Clock()
    async with beating(path, clock=clock) as store:
        author = Author("c")
        await store.append(author.begin())
        left_by(path, "far", 3)
        assert (await head(store)).alive
        clock.now += 30
        assert not (await head(store)).alive
        left_by(path, "far", 4)
        state = author.state
        await raises(StaleEpoch, store.append(author.write(lease="acquire", epoch=1)))
        clock.now += 30
        author.state = state
        await store.append(author.write(lease="acquire", epoch=1))
        assert said(path) == {store.owner: 1}
        assert (await head(store)).mine


async def test_who_could_not_beat_is_not_late(path: Path) -> None:
    async with beating(path, beat=0.05, late=0.4) as store:
        author = Author("c")
        await store.append(author.begin())
        state = author.state
        left_by(path, "far", 3)
        with behind(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            assert (await head(store)).alive
            taking = asyncio.ensure_future(store.append(author.write(lease="acquire", epoch=1)))
            while (await head(store)).alive:
                await asyncio.sleep(0.01)
            assert not taking.done()
        with pytest.raises(StaleEpoch):
            await taking
        assert await store.orphans() == ["c"]
        author.state = state
        await store.append(author.write(lease="acquire", epoch=1))


async def test_an_owner_that_holds_another_lease_keeps_its_row(path: Path) -> None:
    clock = Clock()
    async with beating(path, clock=clock) as store:
        author = Author("c")
        for one in (author, Author("d")):
            await store.append(one.begin())
            left_by(path, "far", 3, one.id)
        assert (await head(store)).alive
        clock.now += 30
        await lease(store, author)
        assert said(path) == {"far": 3, store.owner: 1}
        assert await store.orphans() == ["d"]


async def test_a_beat_forgets_those_who_are_late_and_hold_nothing(path: Path) -> None:
    async with beating(path, beat=0.02, late=0.1) as store:
        author = Author("c")
        await store.append(author.begin())
        tamper(path, "INSERT INTO owners VALUES ('far', 9)")
        await lease(store, author)
        while "far" in said(path):
            await asyncio.sleep(0.01)
        tamper(path, "DELETE FROM owners")
        while store.owner not in said(path):
            await asyncio.sleep(0.01)


async def test_a_lock_file_and_a_beat_share_a_database(path: Path) -> None:
    clock = Clock()
    locked = await open_store(path, clock=clock)
    async with beating(path, clock=clock) as store:
        authors = [Author("locked"), Author("beats")]
        await lease(locked, authors[0])
        await lease(store, authors[1])
        assert said(path) == {locked.owner: 0, store.owner: 1}
        for one in (locked, store):
            assert (await head(one, "locked")).alive and (await head(one, "beats")).alive
        clock.now += 1000
        assert (await head(store, "locked")).alive
        assert (await head(locked, "beats")).alive is (said(path)[store.owner] > 1)
        await locked.close()
        found = await head(store, "locked")
        assert (found.alive, found.certain) == (False, True)


async def test_where_no_file_can_be_locked_owners_beat(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    (path.with_name("log.db-owners")).mkdir()
    (path.with_name("log.db-owners") / "old.lock").touch()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        error = await raises(StoreUnavailable, open_store(path))
        assert "owners='beats'" in str(error)
        async with beating(path) as store, beating(path) as other:
            author = Author("c")
            await lease(store, author)
            assert (await head(other)).alive
        assert (await raises(StoreUnavailable, open_store(path))) is not None


async def test_a_lock_is_waited_for_by_those_who_beat_too(path: Path) -> None:
    async with beating(path):
        file = os.open(path.with_name("log.db-owners") / "opening.lock", os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="being opened"):
            await open_store(path, owners="beats", busy_timeout=0.05)
        os.close(file)


# -- real processes -------------------------------------------------------------------------

HOLDER = """
import asyncio, sys
from turnlog.errors import StaleEpoch
from turnlog.store import open_store
from turnlog.testing.store_contract import Author, added

async def main():
    path, owners, beat, late, name = sys.argv[1:]
    store = await open_store(
        path, owners=owners, beat_seconds=float(beat), late_seconds=float(late)
    )
    author = Author(name)
    await store.append(author.begin())
    await store.append(author.write(lease="acquire", epoch=1))
    print("held", flush=True)
    for _ in iter(sys.stdin.readline, ""):
        try:
            await store.append(author.write(added(f"k{author.made}"), lease="keep", epoch=1))
            print("written", flush=True)
        except StaleEpoch:
            print("stale", flush=True)
            break
    await store.close()

asyncio.run(main())
"""


class Holder:
    """A process that holds a lease, and writes with it when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stop(self, path: Path) -> None:
        """Have it stand still, but not in the middle of a transaction: nobody could write."""
        while True:
            os.kill(self.process.pid, signal.SIGSTOP)
            os.waitpid(self.process.pid, os.WUNTRACED)
            with contextlib.suppress(sqlite3.OperationalError), behind(path) as connection:
                connection.execute("PRAGMA busy_timeout = 50")
                connection.execute("BEGIN IMMEDIATE")
                return
            self.wake()

    def wake(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def write(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def holder(path: Path, owners: str = "beats", name: str = "c") -> Generator[Holder]:
    """A process that holds the lease of a conversation."""
    command = [sys.executable, "-c", HOLDER, str(path), owners, str(BEAT), str(LATE), name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        one = Holder(process)
        try:
            assert one.heard() == "held"
            yield one
        finally:
            process.kill()


async def test_a_stopped_process_keeps_its_turn_for_a_while_and_no_longer(path: Path) -> None:
    clock = Clock()
    async with beating(path, beat=BEAT, late=LATE, clock=clock) as store:
        with holder(path) as one:
            assert await store.orphans() == []
            for _ in range(2):
                one.stop(path)
                assert (await head(store)).alive
                clock.now += 0.9 * LATE
                found = await head(store)
                assert found.alive and found.certain
                author = Author("c")
                author.state = found.state
                again = author.write(lease="acquire", epoch=2)
                await raises(StaleEpoch, store.append(again))
                one.wake()
                one.write()
                assert await asyncio.to_thread(one.heard) == "written"
                assert await store.orphans() == []
            one.stop(path)
            assert (await head(store)).alive
            clock.now += LATE
            assert await store.orphans() == ["c"]
            found = await head(store)
            assert (found.alive, found.certain) == (False, False)
            author = Author("c")
            author.state, author.made = found.state, 1000
            await store.append(author.write(lease="acquire", epoch=2))
            one.wake()
            one.write()
            assert await asyncio.to_thread(one.heard) == "stale"
            await store.append(author.write(added("k"), lease="keep", epoch=2))
            assert await store.check("c") == []
            assert one.process.wait() == 0
        assert set(said(path)) == {store.owner}


async def test_with_lock_files_a_stopped_process_keeps_its_turn(path: Path) -> None:
    clock = Clock()
    async with beating(path, clock=clock) as store:
        with holder(path, "locks") as one:
            one.stop(path)
            assert (await head(store)).alive
            clock.now += 1_000_000
            assert (await head(store)).alive
            assert await store.orphans() == []
            one.wake()
            one.write()
            assert await asyncio.to_thread(one.heard) == "written"
        found = await head(store)
        assert (found.alive, found.certain) == (False, True)


async def test_a_fresh_process_finds_those_who_died(path: Path) -> None:
    with holder(path, name="dead") as dead, holder(path, name="living") as living:
        dead.process.kill()
        dead.process.wait()
        async with beating(path, beat=BEAT, late=LATE) as store:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.ensure_future(tick())
            assert await store.orphans() == ["dead"]
            ticking.cancel()
            assert ticks > 10
            assert (await head(store, "living")).alive
        living.write()
        assert living.heard() == "written"


async def test_a_read_only_store_tells_who_beats(path: Path) -> None:
    with holder(path) as one:
        store = await open_store(path, readonly=True, beat_seconds=BEAT, late_seconds=LATE)
        assert await store.orphans() == []
        one.process.kill()
        one.process.wait()
        assert await store.orphans() == ["c"]
        await store.changed(0, others=True)
        await store.close()


async def test_a_turn_that_is_held_by_nobody_is_free(path: Path) -> None:
    async with beating(path) as store:
        author = Author("c")
        await store.append(author.begin())
        await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
        left_by(path, "nobody", 0)
        assert await store.orphans() == ["c"]
        await store.append(author.write(added("k"), lease="acquire", epoch=2))


async def test_a_beat_that_is_no_number_is_damage(path: Path) -> None:
    async with beating(path) as store:
        author = Author("c")
        await store.append(author.begin())
        left_by(path, "far", 3)
        tamper(path, "UPDATE owners SET beat = 'often' WHERE owner = 'far'")
        with pytest.raises(StoreCorrupt, match="no number"):
            await store.append(author.write(begun(), turn="t", lease="acquire", epoch=2))
