"""Every store under the one contract suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnlog.ports import Store
from turnlog.store import MemoryStore, SqlStore, open_store
from turnlog.testing.store_contract import StoreContract


class TestMemory(StoreContract):
    async def open(self) -> Store:
        return await open_store(":memory:")

    async def beside(self, store: Store) -> Store:
        assert isinstance(store, MemoryStore)
        return store.beside()


class TestMemoryPartitions(TestMemory):
    async def open(self) -> Store:
        return await open_store("memory://", partitions=4)


class TestSqlite(StoreContract):
    partitions = 1

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "log.db"

    async def open(self) -> Store:
        return await open_store(self.path, partitions=self.partitions, durability="process")

    async def beside(self, store: Store) -> Store:
        assert isinstance(store, SqlStore)
        return await open_store(self.path)


class TestSqlitePartitions(TestSqlite):
    partitions = 4
