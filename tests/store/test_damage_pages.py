"""Bytes of a database are changed, page by page, and of its write-ahead log.

What must hold, whatever was hit: every answer is right or a typed error; where `verify` finds
nothing, nothing that is stored has changed; and a conversation that it does not name reads as it
did, whatever happened to others. `TURNLOG_FAULTS=all` hits every page in every way.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from turnlog.draft import Ambient
from turnlog.engine import Engine
from turnlog.errors import StoreError, TurnlogError
from turnlog.store import SqlStore, open_store
from turnlog.testing import scripted
from turnlog.testing.store_contract import Author
from turnlog.verifying import Report, verify

from .damage import PAGE, story
from .files import opened

ALL = os.environ.get("TURNLOG_FAULTS") == "all"
STRIDE = 1 if ALL else 9

Damage = Callable[[bytearray, int, random.Random], None]


def one_bit(data: bytearray, start: int, rng: random.Random) -> None:
    data[rng.randrange(start, start + PAGE)] ^= 1 << rng.randrange(8)


def some_bytes(data: bytearray, start: int, rng: random.Random) -> None:
    for _ in range(8):
        data[rng.randrange(start, start + PAGE)] = rng.randrange(256)


def head_of_page(data: bytearray, start: int, rng: random.Random) -> None:
    """Where the cells of a page are said to be."""
    place = start + (100 if not start else 0)
    data[place + rng.randrange(32)] ^= 1 << rng.randrange(8)


def noise(data: bytearray, start: int, rng: random.Random) -> None:
    data[start : start + PAGE] = rng.randbytes(PAGE)


def zeros(data: bytearray, start: int, rng: random.Random) -> None:
    data[start : start + PAGE] = bytes(PAGE)


def another_page(data: bytearray, start: int, rng: random.Random) -> None:
    """A write that went to the wrong place."""
    other = rng.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = data[other : other + PAGE]


WAYS: tuple[Damage, ...] = (one_bit, head_of_page, some_bytes, zeros, noise, another_page)


@dataclass
class Seen:
    """What was done and what came of it."""

    hit: int = 0
    found: int = 0
    unchanged: int = 0
    refused: int = 0
    findings: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])


def engine_of(store: SqlStore) -> Engine:
    return Engine(
        store=store, transport=scripted([]), agents={}, ambient=Ambient(), on_unknown=None
    )


async def verified(store: SqlStore) -> Report:
    async with asyncio.timeout(60):
        return await verify(engine_of(store))


def contents(path: Path) -> list[object]:
    """Every value of every table, but for what nothing else depends on."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        return [
            (name, sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr))
            for name in names
        ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A database with everything in it."""
    path = tmp_path_factory.mktemp("damage") / "log.db"

    async def make() -> dict[str, int]:
        store = await open_store(path)
        versions = await story(store, chats=12 if ALL else 4, turns=4 if ALL else 2)
        await store.close()
        return versions

    return path, asyncio.run(make())


Answers = dict[tuple[str, str], object]


async def answers(store: SqlStore, names: list[str], errors: Counter[str]) -> Answers:
    """What can be read of conversations; a typed error where it cannot."""
    found: Answers = {}

    async def ask(kind: str, name: str, answer: Awaitable[object]) -> None:
        try:
            found[kind, name] = await answer
        except TurnlogError as error:
            found[kind, name] = type(error)
            errors[f"{kind} {type(error).__name__}"] += 1

    for name in names:
        await ask("events", name, store.events(name))
        await ask("head", name, store.head(name))
        await ask("context", name, store.context(name))
        await ask("turns", name, store.turns(name))
        await ask("find", name, store.find(name, key="large"))
    await ask("list", "", store.conversations(limit=500))
    await ask("pending", "", store.pending())
    await ask("follow", "", store.follow({}))
    await ask("moved", "", store.moved({0: 0}))
    await ask("orphans", "", store.orphans())
    return found


async def damaged(path: Path, before: Answers, stored: list[object], seen: Seen) -> None:
    """Look at a database that was hit."""
    try:
        store = await opened(path, busy_timeout=0.2)
    except StoreError as error:
        seen.refused += 1
        seen.errors[f"open {type(error).__name__}"] += 1
        return
    try:
        report = await verified(store)
        seen.findings += len(report.findings)
        names = sorted({name for _, name in before if name})
        after = await answers(store, names, seen.errors)
        if report.ok:
            seen.unchanged += 1
            assert after == before
            assert contents(path) == stored
        else:
            seen.found += 1
        blamed = {one.conversation for one in report.findings}
        for name in set(names) - blamed:
            assert after["events", name] == before["events", name], (name, report.findings)
        for doing in (store.append(Author("new").begin()), store.rebuild("chat-01")):
            try:
                await doing
            except TurnlogError as error:
                seen.errors[f"write {type(error).__name__}"] += 1
    finally:
        await store.close()


async def test_every_page_of_the_file(whole: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    source, versions = whole
    data = source.read_bytes()
    reading = await opened(source, readonly=True)
    before = await answers(reading, list(versions), Counter())
    assert (await verified(reading)).ok
    await reading.close()
    stored = contents(source)
    assert not any(isinstance(answer, type) for answer in before.values())
    seen, broken = Seen(), list[str]()
    for number, page in enumerate(range(0, len(data) // PAGE, STRIDE)):
        for place, way in enumerate(WAYS):
            if not ALL and number % len(WAYS) != place:
                continue
            bytes_ = bytearray(data)
            way(bytes_, page * PAGE, random.Random(f"{page} {place}"))
            directory = tmp_path / "hit"
            directory.mkdir()
            (directory / "log.db").write_bytes(bytes_)
            try:
                await damaged(directory / "log.db", before, stored, seen)
            except Exception as error:
                broken.append(f"page {page}, {way.__name__}: {error!r}")
            shutil.rmtree(directory)
            seen.hit += 1
    assert not broken, "\n".join(broken)
    assert seen.found > seen.hit // 3
    print(
        f"\n{seen.hit} changes in {len(data) // PAGE} pages: {seen.found} found by verify with"
        f" {seen.findings} findings, {seen.refused} refused at opening, {seen.unchanged} in bytes"
        f" that hold nothing; {sum(seen.errors.values())} typed errors, no other"
    )
