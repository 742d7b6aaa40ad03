"""Every store under the one contract suite."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from turnlog.errors import NotFound
from turnlog.ports import Store
from turnlog.store import MemoryStore, SqlStore, open_store
from turnlog.store.beats import Kind
from turnlog.store.migrating import upgrade
from turnlog.testing.store_contract import StoreContract, raises


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables and nothing in them: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "log.db"
    upgrade(lambda: sqlite3.connect(path, isolation_level=None))
    return path


class TestMemory(StoreContract):
    async def open(self) -> Store:
        return await open_store(":memory:")

    async def beside(self, store: Store) -> Store:
        assert isinstance(store, MemoryStore)
        return store.beside()


class TestMemoryBeats(TestMemory):
    async def open(self) -> Store:
        return await open_store(":memory:", owners="beats", beat_seconds=0.05)


class TestMemoryPartitions(TestMemory):
    async def open(self) -> Store:
        return await open_store("memory://", partitions=4)


class TestSqlite(StoreContract):
    partitions = 1
    owners: Kind = "locks"

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path, migrated: Path) -> None:
        self.path = tmp_path / "log.db"
        shutil.copy(migrated, self.path)

    async def open(self) -> Store:
        return await open_store(
            self.path,
            partitions=self.partitions,
            durability="process",
            owners=self.owners,
            beat_seconds=0.05,
        )

    async def beside(self, store: Store) -> Store:
        assert isinstance(store, SqlStore)
        return await open_store(self.path, owners=self.owners, beat_seconds=0.05)


class TestSqlitePartitions(TestSqlite):
    partitions = 4


class TestSqliteBeats(TestSqlite):
    owners = "beats"


async def test_the_suite_says_what_it_needs() -> None:
    suite = StoreContract()
    await raises(NotImplementedError, suite.open())
    store = await open_store(":memory:")
    await raises(NotImplementedError, suite.beside(store))
    with pytest.raises(AssertionError, match="NotFound was not raised"):
        await raises(NotFound, store.head("c"))
    await store.close()
