"""What every part of a store's suite begins with: how stores are opened, and closed again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..ports import Store


class Opens:
    """A subclass says how stores are opened."""

    async def open(self) -> Store:
        """A new and empty store."""
        raise NotImplementedError

    async def beside(self, store: Store) -> Store:
        """Another owner of the same data."""
        raise NotImplementedError

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[Store]:
        store = await self.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def two(self) -> AsyncGenerator[tuple[Store, Store]]:
        async with self.one() as store:
            other = await self.beside(store)
            try:
                yield store, other
            finally:
                await other.close()
