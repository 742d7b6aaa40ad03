"""What SQLite's errors mean to a caller: translated once, by a table (principle 17)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from ..errors import NotTurnlog, StoreCorrupt, StoreError, StoreReadOnly, StoreUnavailable

_ERRORS: Mapping[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "is locked by another process: try again"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "is locked: try again"),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "cannot grow: free some space on its disk"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "cannot be read or written: look at its disk"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "cannot be opened: look at its path and rights"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "cannot be written: change its rights"),
    sqlite3.SQLITE_PERM: (StoreReadOnly, "may not be accessed: change its rights"),
    sqlite3.SQLITE_CORRUPT: (
        StoreCorrupt,
        "is damaged or cannot be read: look at its disk, then restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (NotTurnlog, "is not a database of turnlog's: choose another file"),
}


_NO_TEXT = "Could not decode to UTF-8"
"""What the driver says of bytes that are no text, where there should be text."""


FAILED = (sqlite3.Error, UnicodeDecodeError)
"""What the driver raises where the database failed: the latter where its message is no text."""


def primary(error: sqlite3.Error | UnicodeDecodeError) -> int:
    """SQLite's primary result code of an error; -1 where the driver itself raised it."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def translate(error: sqlite3.Error | UnicodeDecodeError, path: str) -> StoreError:
    """Our error for one of SQLite's."""
    kind, meaning = _ERRORS.get(primary(error), (StoreUnavailable, "refused a statement"))
    if isinstance(error, UnicodeDecodeError) or str(error).startswith(_NO_TEXT):
        kind, meaning = _ERRORS[sqlite3.SQLITE_CORRUPT]
    return kind(f"the database {path} {meaning} ({error})")
