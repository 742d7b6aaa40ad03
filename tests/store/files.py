"""A store on a file, and ways to look at the file behind its back."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path

from turnlog.store import SqlStore, open_store


@contextlib.contextmanager
def behind(path: Path) -> Generator[sqlite3.Connection]:
    """A plain connection to a database; what it does is committed at once."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        yield connection
    finally:
        connection.close()


def tamper(path: Path, *statements: str) -> None:
    """Change a database as no store would."""
    with behind(path) as connection:
        for statement in statements:
            connection.execute(statement)


async def opened(path: Path, *, busy_timeout: float = 5.0, readonly: bool = False) -> SqlStore:
    """A store on a file."""
    store = await open_store(path, busy_timeout=busy_timeout, readonly=readonly)
    assert isinstance(store, SqlStore)
    return store
