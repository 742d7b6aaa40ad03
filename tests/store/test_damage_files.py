"""Whole files are lost, cut, emptied or out of reach, disks are full: a typed error, or what is
there; and it goes on when the cause is gone.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from turnlog.errors import NotTurnlog, OutcomeUnknown, StoreCorrupt, StoreError, StoreUnavailable
from turnlog.store import SqlStore
from turnlog.testing.store_contract import Author, added

from .damage import story
from .files import opened
from .test_audit_bytes import report_of

FULL = (StoreUnavailable, OutcomeUnknown)
"""Nothing was written; or it was the commit that failed, and it takes a second look to know."""

ALL = os.environ.get("TURNLOG_FAULTS") == "all"


async def left_behind(store: SqlStore, path: Path, to: Path) -> Path:
    """The files as a process that was killed leaves them."""
    to.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", to / f"log.db{end}")
    return to / "log.db"


async def ids(store: SqlStore) -> list[str]:
    """Every event, in the order of the log."""
    return [one.id for _, _, one in await store.follow({}, limit=100_000)]


async def test_a_damaged_write_ahead_log_loses_only_what_is_behind(
    path: Path, store: SqlStore, tmp_path: Path
) -> None:
    """SQLite checks each frame, and takes what stands before the first that is wrong."""
    await story(store, chats=2, turns=2)
    whole = await ids(store)
    crashed = await left_behind(store, path, tmp_path / "crashed")
    wal = Path(f"{crashed}-wal").read_bytes()
    frames = (len(wal) - 32) // (4096 + 24)
    hit, lost = 0, set[int]()
    for frame in range(0, frames, 1 if ALL else frames // 8):
        rng = random.Random(frame)
        data = bytearray(wal)
        data[32 + frame * 4120 + rng.randrange(4120)] ^= 1 << rng.randrange(8)
        Path(f"{crashed}-wal").write_bytes(data)
        for end in ("-shm",):
            Path(f"{crashed}{end}").unlink(missing_ok=True)
        copy = tmp_path / "hit" / "log.db"
        copy.parent.mkdir()
        shutil.copy(crashed, copy)
        shutil.copy(f"{crashed}-wal", f"{copy}-wal")
        again = await opened(copy)
        try:
            found = await ids(again)
            assert found == whole[: len(found)]
            assert (await report_of(again)).ok
            lost.add(len(whole) - len(found))
        finally:
            await again.close()
        shutil.rmtree(copy.parent)
        hit += 1
    assert max(lost) > 0
    print(f"\n{hit} of {frames} frames damaged: up to {max(lost)} of {len(whole)} events are gone")


async def test_a_write_ahead_log_that_is_lost_is_not_noticed(
    path: Path, store: SqlStore, tmp_path: Path
) -> None:
    """What was moved to the file is there, and nothing says that there was more."""
    author = Author("c")
    await store.append(author.begin())
    await store.close()
    store = await opened(path)
    await store.append(author.write(added("a")))
    crashed = await left_behind(store, path, tmp_path / "crashed")
    Path(f"{crashed}-wal").unlink()
    again = await opened(crashed)
    assert await ids(again) == ["c-0"]
    assert (await report_of(again)).ok
    await again.close()
    await store.close()


async def test_a_file_that_was_cut_is_damaged(path: Path, store: SqlStore) -> None:
    await story(store, chats=2, turns=2)
    whole = await ids(store)
    await store.close()
    data = path.read_bytes()
    lengths = [1, 50, 100, 1000, *range(4096, len(data), 4096 * (1 if ALL else 9)), len(data) - 1]
    errors, found = 0, 0
    for length in lengths:
        path.write_bytes(data[:length])
        try:
            again = await opened(path)
        except StoreError as error:
            assert isinstance(error, StoreCorrupt | NotTurnlog), error
            errors += 1
            continue
        try:
            found += not (await report_of(again)).ok
            assert set(await ids(again)) <= set(whole)
        except StoreError:
            errors += 1
        finally:
            await again.close()
    assert found + errors >= len(lengths) - 1
    print(f"\n{len(lengths)} lengths: {errors} gave an error, {found} findings")


async def test_a_file_that_was_emptied_is_a_new_one(path: Path, store: SqlStore) -> None:
    """Nothing is left that could say that there was anything."""
    await store.append(Author("c").begin())
    await store.close()
    path.write_bytes(b"")
    again = await opened(path)
    assert await ids(again) == []
    await again.close()


@contextmanager
def limited(size: int) -> Generator[None]:
    """No file may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_file_that_may_not_grow_goes_on_when_it_may(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    large = {"role": "user", "content": "x" * 300_000}
    append = author.write(added("large", item=large))
    assert await ids(store) == ["c-0"]  # a reader makes the files that readers share
    size = Path(f"{path}-wal").stat().st_size
    for more in (0, 1, 4000, 4120, 8240, 100_000, 290_000):
        with limited(size + more):
            with pytest.raises(FULL):
                await store.append(append)
            assert await ids(store) == ["c-0"]
    assert not (await store.append(append)).already
    assert (await report_of(store)).ok


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of its own with little room; made by root only, and not everywhere."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", str(place)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("a disk of its own needs the right to mount one")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_disk_that_is_full_goes_on_when_there_is_room(small_disk: Path) -> None:
    filler = small_disk / "filler"
    store = await opened(small_disk / "log.db")
    author = Author("c")
    await store.append(author.begin())
    filler.write_bytes(b"x" * 100_000)
    written = ["c-0"]
    while True:
        append = author.write(added("k", item={"role": "user", "content": "x" * 12_000}))
        try:
            await store.append(append)
        except FULL as error:
            assert "full" in str(error)
            break
        written.append(append.events[0].id)
    assert await ids(store) == written
    assert (await report_of(store)).ok
    filler.unlink()
    assert not (await store.append(append)).already
    assert await ids(store) == [*written, append.events[0].id]
    assert (await report_of(store)).ok
    await store.close()
    print(f"\nthe disk was full after {len(written)} events, none of which was lost")


async def test_a_directory_that_is_read_only_is_read(path: Path, store: SqlStore) -> None:
    await store.append(Author("c").begin())
    await store.close()
    path.parent.chmod(0o500)
    path.chmod(0o400)
    try:
        reading = await opened(path, readonly=True)
        assert (await report_of(reading)).ok
        await reading.close()
        if os.geteuid():
            with pytest.raises(StoreError):
                await opened(path)
    finally:
        path.parent.chmod(0o700)
