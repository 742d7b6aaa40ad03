"""Files that are removed, moved or replaced while they are open: said, and nothing is written.

Every file is a real one, and is really moved. Once it is back where it was, the same store goes on.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from turnlog.errors import StoreMoved, StoreUnavailable
from turnlog.store import SqlStore
from turnlog.store.whereabouts import Whereabouts
from turnlog.testing.store_contract import Author, added, begun

from .files import behind, opened


def removed(path: Path) -> None:
    path.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replaced(path: Path) -> None:
    shutil.copy(path, f"{path}.new")
    os.replace(f"{path}.new", path)


def made_a_directory(path: Path) -> None:
    path.rename(path.with_name("old.db"))
    path.mkdir()


GONE: tuple[Callable[[Path], None], ...] = (removed, moved, replaced, made_a_directory)


async def written(store: SqlStore, name: str = "c") -> Author:
    """A conversation with two items."""
    author = Author(name)
    await store.append(author.begin())
    await store.append(author.write(added("a"), added("b")))
    return author


@pytest.mark.parametrize("gone", GONE)
async def test_nothing_is_read_or_written_behind_a_name_that_is_gone(
    path: Path, store: SqlStore, gone: Callable[[Path], None]
) -> None:
    author = await written(store)
    kept = path.with_name("kept.db")
    os.link(path, kept)
    gone(path)
    for _ in range(2):
        with pytest.raises(StoreMoved, match="nothing was written"):
            await store.append(Author("d").begin())
        for reading in (store.events("c"), store.head("c"), store.changed(0), store.check("c")):
            with pytest.raises(StoreMoved):
                await reading
        with pytest.raises(StoreMoved):
            await store.backup(str(path.with_name("copy.db")))
    if path.is_dir():
        path.rmdir()
    os.replace(kept, path)
    assert len(await store.events("c")) == 3
    await store.append(author.write(added("c")))
    assert await store.head("d") is None
    assert await store.check("c") == []


async def test_a_file_in_its_place_is_left_alone(path: Path, store: SqlStore) -> None:
    await written(store)
    other = await opened(path.with_name("other.db"))
    await written(other, "other")
    await other.close()
    path.rename(path.with_name("moved.db"))
    shutil.copy(path.with_name("other.db"), path)
    before = path.read_bytes()
    with pytest.raises(StoreMoved):
        await store.append(Author("d").begin())
    with behind(path) as theirs:
        theirs.execute("CREATE TABLE mine (x)")
        await store.close()
        assert theirs.execute("SELECT name FROM sqlite_master WHERE name = 'mine'").fetchall()
    assert path.read_bytes() != before


async def test_a_file_that_was_moved_has_all_of_it(path: Path, store: SqlStore) -> None:
    """What was beside it stays behind: it is moved to the file when the log is closed."""
    await written(store)
    path.rename(path.with_name("moved.db"))
    await store.close()
    again = await opened(path.with_name("moved.db"))
    assert len(await again.events("c")) == 3
    await again.close()


@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("then", ["gone", "replaced"])
async def test_what_is_beside_a_file_is_gone_and_nothing_acknowledged_is_lost(
    path: Path, store: SqlStore, end: str, then: str
) -> None:
    author = await written(store)
    beside = Path(f"{path}{end}")
    beside.unlink()
    if then == "replaced":
        beside.touch()
    for _ in range(2):
        with pytest.raises(StoreMoved, match=f"log.db{end} was removed"):
            await store.append(author.write(added("c")))
        with pytest.raises(StoreMoved):
            await store.events("c")
    await store.close()
    again = await opened(path)
    try:
        assert [one.id for one in await again.events("c")] == ["c-0", "c-1", "c-2"]
        assert await again.check("c") == []
        await again.append(Author("d").begin())
    finally:
        await again.close()


async def test_a_log_that_is_gone_is_not_begun_anew_after_an_error(
    path: Path, migrated: Path
) -> None:
    """The connection is dropped after an error; a new one must not begin a second log."""
    shutil.copy(migrated, path)
    store = await opened(path, busy_timeout=0.05)
    try:
        author = await written(store)
        await store.events("c")  # a reader stays, and with it what it has open
        with behind(path) as other:
            other.execute("BEGIN IMMEDIATE")
            Path(f"{path}-wal").unlink()
            with pytest.raises(StoreUnavailable):
                await store.append(author.write(added("c")))
        for _ in range(3):
            with pytest.raises(StoreMoved):
                await store.append(author.write(added("c")))
        assert not Path(f"{path}-wal").exists()
    finally:
        await store.close()


async def test_a_read_only_log_notices_too(path: Path, store: SqlStore) -> None:
    await written(store)
    await store.close()
    reading = await opened(path, readonly=True)
    shutil.copy(path, f"{path}.new")
    os.replace(f"{path}.new", path)
    with pytest.raises(StoreMoved):
        await reading.events("c")
    await reading.close()


async def test_a_link_is_followed(path: Path, store: SqlStore) -> None:
    author = await written(store)
    link = path.with_name("link.db")
    link.symlink_to(path)
    linked = await opened(link)
    try:
        assert len(await linked.events("c")) == 3
        await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
        head = await linked.head("c")
        assert head is not None and head.alive and not head.mine
        await linked.append(Author("d").begin())
        Path(f"{path}-shm").unlink()
        with pytest.raises(StoreMoved, match=r"log\.db-shm"):
            await linked.append(Author("e").begin())
        link.unlink()
        with pytest.raises(StoreMoved, match=r"link\.db was"):
            await linked.events("c")
    finally:
        await linked.close()


def test_what_others_began_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    wal, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    for one in (path, wal, shm):
        one.touch()
    place = Whereabouts(path)
    place.settle()
    assert place.free()
    kept = wal.rename(tmp_path / "kept")
    assert place.free()
    wal.touch()
    assert place.free()
    wal.write_text("theirs")
    assert not place.free()
    kept.rename(wal)
    assert place.free()
    mine = shm.rename(tmp_path / "mine")
    assert not place.free()
    shm.touch()
    assert not place.free()
    mine.rename(shm)
    path.rename(tmp_path / "moved.db")
    assert place.free()
    path.touch()
    assert not place.free()


def test_whereabouts_are_known_from_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with pytest.raises(StoreMoved):
        Whereabouts(path).check()
    sqlite3.connect(path).close()
    path.touch()
    place = Whereabouts(path)
    place.settle()
    place.leave()
    Path(f"{path}-wal").touch()
    place.settle()
    Path(f"{path}-wal").unlink()
    place.leave()
    with pytest.raises(StoreMoved, match="-wal"):
        place.settle()
