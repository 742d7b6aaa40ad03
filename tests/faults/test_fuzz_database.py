"""Databases from a fuzzer: bytes, pages, ends and write-ahead logs changed by rule.

Whatever is done with such a file gives what was recorded, or a TurnlogError; what reads otherwise
than it was written is reported by `verify`. TURNLOG_FUZZ=<examples> says how many files each test
tries; without it, a few, the same on every run.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import turnlog
from turnlog.errors import NotFound, StoreError, TurnlogError
from turnlog.exchange import export
from turnlog.log import Log
from turnlog.record import Recorded
from turnlog.store import open_store
from turnlog.testing import scripted, text

MANY = int(os.environ.get("TURNLOG_FUZZ", 0))
PAGE = 4096
IDS = ("c1", "c2", "c3")
PATIENCE = 30
"""Seconds: nothing that is done with a file may take longer."""


def cases(few: int) -> settings:
    """How many cases are tried: the same few on every run, or as many as were asked for."""
    return settings(
        max_examples=MANY or few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@dataclass(frozen=True)
class Sound:
    """A database that is whole: its file, its write-ahead log, and what it holds."""

    file: bytes
    wal: bytes
    events: dict[str, list[Recorded]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    path = tmp_path_factory.mktemp("sound") / "log.db"

    async def main() -> Sound:
        replies = [text(f"Answer {number}. " + "long " * 5000) for number in range(4)]
        async with turnlog.open(path, transport=scripted(replies)) as log:
            chat = await log.conversation("c1", model="gpt-5.5")
            await chat.run("One. " + "more " * 5000)
            await (await chat.fork("c2")).run("Two.")
        async with turnlog.open(path, transport=scripted(replies)) as log:
            await (await log.conversation("c3", model="gpt-5.5")).run("Three.")
            file, wal = path.read_bytes(), path.with_name("log.db-wal").read_bytes()
        store = await open_store(path, readonly=True)
        events = {id: await store.events(id) for id in IDS}
        await store.close()
        assert wal and all(events.values())
        return Sound(file, wal, events)

    return asyncio.run(main())


# -- what is done to a file ----------------------------------------------------------------

Damage = Callable[[bytes, random.Random], bytes]


def flipped(raw: bytes, draw: random.Random) -> bytes:
    """A few bytes are others; often of the first page, where the file says what it is."""
    found = bytearray(raw)
    for _ in range(draw.choice([1, 1, 3, 40])):
        end = min(len(found), draw.choice([100, PAGE, len(found)]))
        if end:
            found[draw.randrange(end)] = draw.randrange(256)
    return bytes(found)


def a_page(raw: bytes, draw: random.Random) -> bytes:
    """A page holds zeros, noise, or what stands in another."""
    at = draw.randrange(max(1, len(raw) // PAGE)) * PAGE
    other = draw.randrange(max(1, len(raw) // PAGE)) * PAGE
    new = draw.choice([bytes(PAGE), draw.randbytes(PAGE), raw[other : other + PAGE]])
    return raw[:at] + new + raw[at + PAGE :]


def cut(raw: bytes, draw: random.Random) -> bytes:
    """The file ends early, or in the middle of a page."""
    pages = draw.randrange(len(raw) // PAGE + 1) * PAGE
    return raw[: draw.choice([0, 1, 50, pages, draw.randrange(len(raw) + 1)])]


def longer(raw: bytes, draw: random.Random) -> bytes:
    """Something stands behind the end."""
    return raw + draw.choice([b"\x00", bytes(PAGE), draw.randbytes(3 * PAGE), raw])


def in_text(raw: bytes, draw: random.Random) -> bytes:
    """A letter of what was recorded is another."""
    words = [b"long", b"completed", b"user", b"conversation", b"response", b"0004", b"partitions"]
    word = draw.choice(words)
    at = raw.find(word, draw.randrange(len(raw) + 1))
    return raw if at < 0 else raw[:at] + b"\x80" + raw[at + 1 :]


DAMAGES: list[Damage] = [flipped, flipped, a_page, a_page, cut, longer, in_text, in_text]


# -- what is done with it ------------------------------------------------------------------


async def attempted(doing: Coroutine[object, object, object], ran: Counter[str]) -> bool:
    """Whether it worked; what is raised must be one of turnlog's errors, and come soon."""
    try:
        async with asyncio.timeout(PATIENCE):
            await doing
    except TurnlogError as error:
        ran[type(error).__name__] += 1
        return False
    return True


async def looked_at(path: Path, sound: Sound, ran: Counter[str]) -> None:
    """Everything that only reads. What reads well and wrong must be found by `verify`."""
    async with turnlog.open(path, readonly=True, transport=scripted([])) as log:
        await attempted(log.conversations(), ran)
        await attempted(log.pending(), ran)
        whole = await verified(log, ran)
        for id in IDS:
            await attempted(shown(log, id), ran)
        await attempted(exported(path, ran), ran)
    store = await open_store(path, readonly=True)
    try:
        for id in IDS:
            await attempted(compared(partial(store.events, id), sound.events[id], whole, ran), ran)
    finally:
        await store.close()


async def verified(log: Log, ran: Counter[str]) -> bool:
    """Whether `verify` finds nothing wrong."""
    try:
        found = (await log.verify()).findings
    except StoreError as error:
        ran[f"verify: {type(error).__name__}"] += 1
        return False
    ran["findings"] += len(found)
    return not found


async def shown(log: Log, id: str) -> None:
    chat = await log.get(id)
    await chat.items()
    await chat.state()
    await chat.turns()


async def exported(path: Path, ran: Counter[str]) -> None:
    store = await open_store(path, readonly=True)
    try:
        async for _ in export(store, *IDS):
            ran["lines"] += 1
    finally:
        await store.close()


async def compared(
    read: Callable[[], Coroutine[object, object, list[Recorded]]],
    sound: list[Recorded],
    whole: bool,
    ran: Counter[str],
) -> None:
    found = await read()
    if found != sound:
        # What was lost whole, from the end on, is another history that is sound in itself.
        assert not whole or found == sound[: len(found)], "it reads as fine, and is not what it was"
        ran["read otherwise"] += 1
    else:
        ran["read as it was"] += 1


async def written_to(path: Path, ran: Counter[str]) -> None:
    """A turn, an export, and closing."""
    async with turnlog.open(path, transport=scripted([text("More.")] * 3)) as log:
        await attempted(log.recover(), ran)
        for id in IDS:
            await attempted(_talk(log, id), ran)
        await attempted(log.verify(), ran)


async def _talk(log: Log, id: str) -> None:
    try:
        chat = await log.get(id)
    except NotFound:
        chat = await log.conversation(id, model="gpt-5.5")
    await chat.run("More?")


async def used(path: Path, sound: Sound, ran: Counter[str]) -> None:
    await attempted(looked_at(path, sound, ran), ran)
    if await attempted(written_to(path, ran), ran):
        ran["written to"] += 1


damages = st.lists(st.sampled_from(range(len(DAMAGES))), min_size=1, max_size=2)


@pytest.mark.parametrize("what", ["file", "log", "both"])
def test_a_damaged_database_is_told_of(tmp_path: Path, sound: Sound, what: str) -> None:
    ran = Counter[str]()
    numbers = count()

    @cases(7)
    @given(damages, st.integers(0, 2**32))
    def fuzz(kinds: list[int], seed: int) -> None:
        draw = random.Random(seed)
        file, wal = sound.file, sound.wal
        for kind in kinds:
            if what in ("file", "both"):
                file = DAMAGES[kind](file, draw)
            if what in ("log", "both"):
                wal = DAMAGES[kind](wal, draw)
        path = tmp_path / f"{next(numbers)}" / "log.db"
        path.parent.mkdir()
        path.write_bytes(file)
        path.with_name("log.db-wal").write_bytes(wal)
        asyncio.run(used(path, sound, ran))
        shutil.rmtree(path.parent)
        ran["files"] += 1

    fuzz()
    print(f"\nfuzz, databases ({what}): {dict(ran)}")
    assert ran["files"]
