"""Whole tables that are gone: what stands in the others is read, and the loss is told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from turnlog.errors import StoreCorrupt, StoreError
from turnlog.store import open_store
from turnlog.store.driving import Reading, Threads
from turnlog.testing.store_contract import Author, added, begun

from .files import tamper


@pytest.mark.parametrize("table", ["events", "turns", "calls", "context"])
async def test_a_table_that_is_gone_is_told(tmp_path: Path, migrated: Path, table: str) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(migrated.read_bytes())
    store = await open_store(path)
    author = Author("c")
    await store.append(author.begin())
    await store.append(author.write(added("k")))
    await store.append(author.write(begun(), turn="t"))
    await store.close()
    tamper(path, f"DROP TABLE {table}")
    store = await open_store(path)
    try:
        assert await store.check("c") != []
        with pytest.raises(StoreError):
            if table == "events":
                await store.events("c")
            elif table == "turns":
                await store.turns("c")
            elif table == "calls":
                await store.pending()
            else:
                await store.context("c")
    finally:
        await store.close()


@pytest.mark.parametrize("position", ["'x'", str(2**63 - 1), str(2**62), "x'00'"])
async def test_nothing_is_written_behind_a_position_that_is_none(
    tmp_path: Path, migrated: Path, position: str
) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(migrated.read_bytes())
    store, author = await open_store(path), Author("c")
    await store.append(author.begin())
    tamper(path, f"UPDATE events SET position = {position}")
    with pytest.raises(StoreCorrupt, match="turnlog verify"):
        await store.append(author.write(added("k")))
    with pytest.raises(StoreCorrupt, match="turnlog verify"):
        await store.moved({})
    assert len(await store.events("c")) == 1
    await store.close()


async def test_a_log_of_which_nobody_knows_the_length_is_told_once(
    tmp_path: Path, migrated: Path
) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(migrated.read_bytes())
    store = await open_store(path)
    await store.append(Author("c").begin())
    await store.close()
    tamper(path, "DROP TABLE events", "DROP TABLE conversations")
    store = await open_store(path, readonly=True)
    (found, *_) = await store.check("c")
    assert "cannot be read" in found.problem
    await store.close()


class Broken(Threads):
    """Threads whose connections for reading cannot be made."""

    async def read(self, address: str, patience: float) -> Reading:
        raise sqlite3.OperationalError("unable to open database file")


async def test_a_connection_that_cannot_be_made_is_told(tmp_path: Path, migrated: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(migrated.read_bytes())
    store = await open_store(path, driver=Broken())
    with pytest.raises(StoreError, match="unable to open"):
        await store.head("c")
    await store.close()
