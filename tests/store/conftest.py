"""A database in a directory of its own, and a store on it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnlog.store import SqlStore
from turnlog.store.migrating import upgrade

from .files import opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables and nothing in them: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "log.db"
    upgrade(lambda: sqlite3.connect(path, isolation_level=None))
    return path


@pytest.fixture
async def store(path: Path, migrated: Path) -> AsyncIterator[SqlStore]:
    shutil.copy(migrated, path)
    store = await opened(path)
    yield store
    await store.close()
