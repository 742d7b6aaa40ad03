"""A database in a directory of its own, and a store on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnlog.store import SqlStore

from .files import opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    store = await opened(path)
    yield store
    await store.close()
