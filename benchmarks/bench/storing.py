"""What the subjects that store have in common: which turns come, what is timed, what is checked.

The one rule: only the standard library, and what is measured is between a caller and its answer:
items are made before the clock runs, and what was stored is counted behind it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from itertools import pairwise
from pathlib import Path

from .subject import Given, Item, Measured, latency, span, turn_items

FILE = "log.db"
WARM = 3
BESIDE = 10_000_000
"""How many turns go before those that are measured; one each where there are many."""
EACH = 4
"""How many items a turn has."""
LAST = 50
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


class Store(ABC):
    """A peer on its file, with conversations 0, 1, 2, which are there when it is opened."""

    facts: dict[str, str]
    rows = ""
    """A table that has a row for each item; a subject without one says itself how many it has."""
    beside = False
    """It is fast enough to be filled with what is beside the conversation that is measured."""
    one_by_one = False
    """It is called by one thread and does not wait for others: callers take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    async def add(self, conversation: int, items: list[Item]) -> None:
        """Append items to a conversation, durably where its defaults are; one append."""
        ...

    async def fill(self, items: list[Item], conversation: int = 0) -> None:
        """Append very many items to a conversation, as fast as may be."""
        await self.add(conversation, items)

    async def read(self, limit: int | None) -> int:
        """Read the first conversation's items, or its last ones, as JSON; how many there are."""
        raise NotImplementedError

    async def count(self) -> int:
        """How many items the file has."""
        with closing(sqlite3.connect(self.path)) as file:
            found: int = file.execute(f"SELECT count(*) FROM {self.rows}").fetchone()[0]
            return found


Open = Callable[[Path, int], AbstractAsyncContextManager[Store]]
"""Opens a file that is not there so far, and makes so many conversations."""


def modes(file: sqlite3.Connection) -> dict[str, str]:
    """The facts of a connection."""
    journal: str = file.execute("PRAGMA journal_mode").fetchone()[0]
    return named_modes(journal, file.execute("PRAGMA synchronous").fetchone()[0])


def named_modes(journal: str, synchronous: int) -> dict[str, str]:
    """The facts of a connection, of which the two pragmas were read."""
    return {"journal_mode": journal, "synchronous": SYNCHRONOUS[synchronous]}


def made(start: int, turns: int) -> list[list[Item]]:
    """The items of turns."""
    return [turn_items(number) for number in range(start, start + turns)]


def flat(turns: Iterable[Sequence[Item]]) -> list[Item]:
    """The items of turns in one list."""
    return [item for items in turns for item in items]


async def _warm(store: Store) -> int:
    for items in made(0, WARM):
        await store.add(0, items)
    return WARM * EACH


async def _check(store: Store, wanted: int) -> None:
    found = await store.count()
    assert found == wanted, f"there are {found} items, not {wanted}"


# -- one conversation ----------------------------------------------------------------------


async def turns(open: Open, given: Given) -> Measured:
    """Append turns to one conversation, each in one append."""
    return await _one(open, given, lambda items: [items])


async def items(open: Open, given: Given) -> Measured:
    """Append turns to one conversation, each item by itself."""
    return await _one(open, given, lambda items: [[item] for item in items])


async def _one(
    open: Open, given: Given, appends: Callable[[list[Item]], list[list[Item]]]
) -> Measured:
    count = given.number("turns")
    wanted = [one for items in made(WARM, count) for one in appends(items)]
    async with open(given.folder / FILE, 1) as store:
        before = await _warm(store)
        with span() as found:
            for items in wanted:
                await store.add(0, items)
        await _check(store, before + count * EACH)
    return Measured(found.rate(count), store.facts)


# -- many ----------------------------------------------------------------------------------


async def many(open: Open, given: Given) -> Measured:
    """Append turns to conversations at once, a caller for each."""
    count = given.number("conversations")
    each = max(1, given.number("turns") // count)
    wanted = made(1, each)
    took: list[float] = []
    async with open(given.folder / FILE, count) as store:
        await _in_turn(store, count, made(0, 1), [])
        run = _in_turn if store.one_by_one else _at_once
        with span() as found:
            await run(store, count, wanted, took)
        await _check(store, count * (1 + each) * EACH)
    return Measured({**found.rate(count * each), **latency(took)}, store.facts)


async def _at_once(store: Store, count: int, wanted: list[list[Item]], took: list[float]) -> None:
    async def caller(conversation: int) -> None:
        for items in wanted:
            begun = time.perf_counter()
            await store.add(conversation, items)
            took.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as callers:
        for conversation in range(count):
            callers.create_task(caller(conversation))


async def _in_turn(store: Store, count: int, wanted: list[list[Item]], took: list[float]) -> None:
    for items in wanted:
        for conversation in range(count):
            begun = time.perf_counter()
            await store.add(conversation, items)
            took.append(time.perf_counter() - begun)


# -- as it grows ---------------------------------------------------------------------------


async def length(open: Open, given: Given) -> Measured:
    """Append turns to a conversation that has so many items.

    The file of a store that can has as many items at every length, `beside`: those that the
    conversation lacks are in another one. The trees of a small file are lower, whoever writes it.
    """
    count, there = given.number("turns"), given.number("items")
    wanted = made(there, count)
    took: list[float] = []
    async with open(given.folder / FILE, 2) as store:
        others = max(given.number("beside") - there, 100 * EACH) if store.beside else 0
        if others:
            await store.fill(flat(made(BESIDE, (others + EACH - 1) // EACH))[:others], 1)
        before = await _filled(store, there, others) + others + await _warm(store)
        _empty_wal(store.path)
        written = [_handed_over()]
        with span():
            for items in wanted:
                begun = time.perf_counter()
                await store.add(0, items)
                took.append(time.perf_counter() - begun)
                written.append(_handed_over())
        await _check(store, before + count * EACH)
    return Measured({**latency(took), **_bytes(written)}, store.facts)


def _bytes(written: Sequence[int]) -> dict[str, float]:
    """What an append wrote: on average, checkpoints included; and the usual one, without."""
    each = [after - before for before, after in pairwise(written)]
    return {
        "written_bytes": statistics.fmean(each),
        "written_p50_bytes": float(statistics.median(each)),
    }


async def _filled(store: Store, count: int, others: int = 0) -> int:
    """Fill a conversation with so many items, which are not those of `_warm`."""
    wanted = flat(made(WARM, (count + EACH - 1) // EACH))[:count]
    await store.fill(wanted)
    await _check(store, count + others)
    return count


def _handed_over() -> int:
    """How many bytes this process has handed to write()."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


async def growth(open: Open, given: Given) -> Measured:
    """What turns add to the file, and what they write to the write-ahead log.

    A reader holds the write-ahead log, so that it is not begun anew: its size is all of what was
    appended. What then goes into the file is all of what they wrote.
    """
    count = given.number("turns")
    wal = given.folder / f"{FILE}-wal"
    async with open(given.folder / FILE, 1) as store:
        before = await _warm(store)
        _empty_wal(store.path)
        size = store.path.stat().st_size
        with _reader(store.path):
            assert wal.stat().st_size == 0
            for items in made(WARM, count):
                await store.add(0, items)
            appended = wal.stat().st_size
        _empty_wal(store.path)
        grown = store.path.stat().st_size - size
        await _check(store, before + count * EACH)
    return Measured({"file_bytes": grown / count, "wal_bytes": appended / count}, store.facts)


@contextmanager
def _reader(path: Path) -> Generator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("BEGIN")
        file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield


def _empty_wal(path: Path) -> None:
    """Bring all of the write-ahead log into the file, so that each measurement begins alike."""
    with closing(sqlite3.connect(path)) as file:
        busy, *_ = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "somebody reads"


# -- reading -------------------------------------------------------------------------------


async def last(open: Open, given: Given) -> Measured:
    """Read the last items of many."""
    return await _reading(open, given, LAST)


async def load(open: Open, given: Given) -> Measured:
    """Read all items of many."""
    return await _reading(open, given, None)


async def _reading(open: Open, given: Given, limit: int | None) -> Measured:
    there = given.number("items")
    wanted = there if limit is None else min(limit, there)
    async with open(given.folder / FILE, 1) as store:
        await _filled(store, there)
        _empty_wal(store.path)

        async def read() -> None:
            found = await store.read(limit)
            assert found == wanted, f"it read {found} items, not {wanted}"

        took = await timed(read, given.number("times"))
    return Measured(latency(took), store.facts)


async def timed(what: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """How long it takes each time, in seconds, after a few that are not counted."""
    took: list[float] = []
    with span():
        for _ in range(times + WARM):
            begun = time.perf_counter()
            await what()
            took.append(time.perf_counter() - begun)
    return took[WARM:]
