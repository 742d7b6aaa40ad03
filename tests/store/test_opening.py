"""Opening: what is made, what is refused, and what is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from turnlog.errors import (
    Closed,
    InvalidInput,
    NotFound,
    NotTurnlog,
    SchemaMismatch,
    StoreCorrupt,
    StoreMoved,
    StoreReadOnly,
    StoreUnavailable,
)
from turnlog.store import SqlStore, migrate, open_store, settings_for
from turnlog.store.opening import inspect
from turnlog.store.owners import LockFile
from turnlog.store.schema import REVISION
from turnlog.testing.store_contract import Author, added

from .files import behind, opened, tamper


async def test_a_database_is_made_and_opened_again(path: Path) -> None:
    author = Author("c")
    store = await opened(path)
    await store.append(author.begin())
    await store.close()
    assert sorted(one.name for one in path.parent.iterdir()) == ["log.db", "log.db-owners"]
    assert [one.name for one in (path.parent / "log.db-owners").iterdir()] == ["opening.lock"]
    store = await opened(path)
    assert len(await store.events("c")) == 1
    await store.close()


async def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    await (await opened(path)).close()
    with behind(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone()[0] == 0x746C6F67
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


async def test_the_number_of_partitions_is_fixed_at_the_start(path: Path) -> None:
    store = await open_store(path, partitions=4)
    await store.append(Author("c").begin())
    ((partition, _, _),) = await store.follow({})
    await store.close()
    store = await open_store(path, partitions=1)
    assert [one[0] for one in await store.follow({})] == [partition]
    await store.close()
    with pytest.raises(InvalidInput):
        await open_store(path, partitions=0)


async def test_many_open_a_new_database_at_once(path: Path) -> None:
    stores = await asyncio.gather(*(opened(path) for _ in range(5)))
    authors = [Author(f"c{number}") for number in range(5)]
    appends = zip(stores, authors, strict=True)
    await asyncio.gather(*(store.append(author.begin()) for store, author in appends))
    assert len(await stores[0].conversations()) == 5
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_durability_is_what_was_asked_for(path: Path, durability: str) -> None:
    store = await open_store(path, durability="power" if durability == "power" else "process")
    assert (await store.append(Author("c").begin())).version == 1
    await store.close()


def test_migrate_says_where_it_came_from(path: Path) -> None:
    assert migrate(path) == (None, REVISION)
    assert migrate(path) == (REVISION, REVISION)


def test_a_migration_leaves_output_and_logging_alone(path: Path) -> None:
    script = "import sys, logging; from turnlog.store import migrate; migrate(sys.argv[1]);"
    script += "assert not logging.getLogger().handlers"
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")


# -- what is refused -----------------------------------------------------------------------


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await opened(tmp_path / "nowhere" / "log.db")


async def test_a_file_of_somebody_else_is_left_alone(path: Path) -> None:
    tamper(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(NotTurnlog):
            await opened(path, readonly=readonly)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["log.db"]


async def test_an_application_id_of_somebody_else_is_enough(path: Path) -> None:
    tamper(path, "PRAGMA application_id = 7", "PRAGMA user_version = 1")
    with pytest.raises(NotTurnlog):
        await opened(path)


async def test_a_file_that_is_no_database_is_not_turnlogs(path: Path) -> None:
    path.write_text("Dear diary, " * 500)
    with pytest.raises(NotTurnlog):
        await opened(path)


async def test_a_directory_is_no_database(path: Path) -> None:
    path.mkdir()
    for readonly in (False, True):
        with pytest.raises(NotTurnlog, match="is a directory: choose a file"):
            await opened(path, readonly=readonly)


async def test_a_damaged_database_is_corrupt(path: Path) -> None:
    await (await opened(path)).close()
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * (4096 - 100)
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt):
        await opened(path)


async def test_damage_is_found_when_it_is_read(path: Path) -> None:
    store = await opened(path)
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(*(added(f"k{number}") for number in range(200))))
    await store.close()
    data = bytearray(path.read_bytes())
    data[-40_960:] = b"\xff" * 40_960
    path.write_bytes(data)
    store = await opened(path)
    with pytest.raises(StoreCorrupt):
        await store.events("c")
    await store.close()


async def test_a_newer_schema_is_refused(path: Path, store: SqlStore) -> None:
    author = Author("c")
    await store.append(author.begin())
    tamper(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="9999"):
        await store.append(author.write(added("k")))
    for readonly in (False, True):
        with pytest.raises(SchemaMismatch, match="update turnlog"):
            await opened(path, readonly=readonly)
    tamper(path, "DELETE FROM alembic_version")
    with pytest.raises(SchemaMismatch, match="none"):
        await store.append(author.write(added("k")))
    assert len(await store.events("c")) == 1


async def test_a_locked_database_is_unavailable(path: Path) -> None:
    store = await opened(path, busy_timeout=0.05)
    author = Author("c")
    with behind(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        first = author.begin()
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.append(first)
        with pytest.raises(StoreUnavailable):
            await opened(path, busy_timeout=0.05)
    await store.append(first)
    await store.close()


async def test_a_database_that_is_being_opened_is_unavailable(path: Path) -> None:
    await (await opened(path)).close()
    lock = LockFile.take(path.with_name("log.db-owners") / "opening.lock")
    assert lock is not None
    with pytest.raises(StoreUnavailable, match="opened elsewhere"):
        await opened(path, busy_timeout=0.05)
    lock.release()
    await (await opened(path)).close()


# -- reading only --------------------------------------------------------------------------


async def test_read_only_changes_and_makes_nothing(path: Path) -> None:
    with pytest.raises(NotFound):
        await opened(path, readonly=True)
    store = await opened(path)
    author = Author("c")
    await store.append(author.begin())
    await store.close()
    shutil.rmtree(path.with_name("log.db-owners"))
    before = path.read_bytes()
    store = await opened(path, readonly=True)
    assert len(await store.events("c")) == 1
    head = await store.head("c")
    assert head is not None and not head.mine
    assert await store.check("c") == []
    with pytest.raises(StoreReadOnly):
        await store.append(author.write(added("k")))
    with pytest.raises(StoreReadOnly):
        await store.rebuild("c")
    await store.changed(0.01)
    await store.close()
    assert path.read_bytes() == before
    assert not path.with_name("log.db-owners").exists()


async def test_read_only_does_not_migrate(path: Path) -> None:
    path.touch()
    with pytest.raises(SchemaMismatch, match=r"is empty so far: .*migrate"):
        await opened(path, readonly=True)
    assert path.read_bytes() == b""


async def test_read_only_sees_what_others_write(path: Path, store: SqlStore) -> None:
    reader = await opened(path, readonly=True)
    await store.append(Author("c").begin())
    assert await reader.head("c") is not None
    await reader.close()


@contextlib.contextmanager
def somebody() -> Generator[Path]:
    """A directory for a user who may not write everywhere: root may."""
    directory = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(directory, 65534, 65534)
        os.seteuid(65534)
    try:
        yield directory
    finally:
        directory.chmod(0o755)
        if root:
            os.seteuid(0)
        shutil.rmtree(directory)


async def test_a_directory_that_cannot_be_written_can_be_read() -> None:
    with somebody() as directory:
        path = directory / "log.db"
        store = await opened(path)
        await store.append(Author("c").begin())
        await store.close()
        shutil.rmtree(path.with_name("log.db-owners"))
        directory.chmod(0o555)
        with pytest.raises(StoreReadOnly):
            await opened(path)
        store = await opened(path, readonly=True)
        assert await store.head("c") is not None
        await store.close()
        with pytest.raises(StoreReadOnly):
            await opened(directory / "new.db")


async def test_a_file_that_cannot_be_written_is_read_only() -> None:
    with somebody() as directory:
        path = directory / "log.db"
        await (await opened(path)).close()
        path.chmod(0o444)
        store = await opened(path)
        with pytest.raises(StoreReadOnly):
            await store.append(Author("c").begin())
        await store.close()


async def test_what_was_left_in_a_directory_that_cannot_be_written_is_to_be_copied() -> None:
    """What is in the write-ahead log could only be read with an index beside it."""
    with somebody() as directory:
        path = directory / "log.db"
        store = await opened(path)
        await store.append(Author("c").begin())
        for beside in ("", "-wal"):
            shutil.copy(f"{path}{beside}", f"{directory / 'copy.db'}{beside}")
        await store.close()
        directory.chmod(0o555)
        for readonly in (False, True):
            with pytest.raises(StoreReadOnly, match="copy it, with what is beside it"):
                await opened(directory / "copy.db", readonly=readonly)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM])
async def test_owners_need_a_file_system_that_can_be_written(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreReadOnly, match=os.strerror(number)):
        await opened(path)


async def test_owners_need_a_directory(path: Path) -> None:
    path.with_name("log.db-owners").write_text("in the way")
    with pytest.raises(StoreUnavailable, match=r"log\.db-owners"):
        await opened(path)


def test_inspect_says_what_there_is(path: Path) -> None:
    migrate(path)
    assert inspect(settings_for(path), "ro") == (REVISION, 1)


# -- the process ---------------------------------------------------------------------------

FORKED = """
import asyncio, os, sys, warnings
from turnlog.errors import Closed
from turnlog.store import open_store
from turnlog.testing.store_contract import Author

warnings.simplefilter("ignore", DeprecationWarning)

async def begin(path):
    store = await open_store(path)
    author = Author("c")
    await store.append(author.begin())
    return store, author

async def end(store, status):
    head = await store.head("c")
    print("parent", status, head.state.version)
    await store.close()

async def ask(store, author):
    for doing in (store.append(author.write()), store.head("c")):
        try:
            await doing
        except Closed as error:
            print("child", error)
    await store.close()

runner = asyncio.Runner()
store, author = runner.run(begin(sys.argv[1]))
child = os.fork()
if not child:
    asyncio.run(ask(store, author))
    sys.exit()
_, status = os.waitpid(child, 0)
asyncio.run(end(store, os.waitstatus_to_exitcode(status)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_no_store(path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.count("child the store belongs to the parent process") == 2
    assert "parent 0 1" in done.stdout


async def test_a_file_that_is_gone_is_said_to_be_moved(path: Path) -> None:
    store, other = await opened(path), await opened(path)
    moved = path.rename(path.with_name("moved.db"))
    with pytest.raises(StoreMoved):
        await other.head("c")
    await other.close()
    for _ in range(2):
        for doing in (store.head("c"), store.changed(0.01)):
            with pytest.raises(StoreMoved):
                await doing
    moved.rename(path)
    assert await store.head("c") is None
    await store.changed(0)
    await store.close()


async def test_a_closed_store_stays_closed(path: Path) -> None:
    store = await opened(path)
    waiting = asyncio.ensure_future(store.changed(30))
    await asyncio.wait([waiting], timeout=0.01)
    await asyncio.gather(store.close(), store.close())
    with pytest.raises(Closed):
        await store.head("c")
    with pytest.raises(Closed):
        await waiting
