"""What types the values of a row have: SQLite keeps whatever it is given, or is damaged into.

The one rule: a row that does not fit its table is not believed. It is StoreCorrupt, and never an
error of whoever computes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, LargeBinary, Table, Text

from ..errors import StoreCorrupt

Key = TypeVar("Key", int, str, tuple[str, str])
Row = TypeVar("Row", bound=Sequence[Any])


class Shape:
    """The types of some columns of a table, in their order."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table.name
        self._types = tuple(_types(table.c[name]) for name in names)
        self._known: set[tuple[type, ...]] = set()

    def fit(self, row: Row) -> Row:
        """The row; raises StoreCorrupt where a value is of another type."""
        found = tuple(map(type, row))
        if found not in self._known:
            if not all(one in types for one, types in zip(found, self._types, strict=True)):
                raise StoreCorrupt(
                    f"a row of {self._table} holds a value of another type than it should:"
                    " run `turnlog verify`, and restore a backup"
                )
            self._known.add(found)
        return row


def rising(keys: Iterable[Any], after: Key) -> None:
    """Raise StoreCorrupt where keys do not rise: whoever reads page by page would never end."""
    for key in keys:
        if not (isinstance(key, type(after)) and key > after):
            raise StoreCorrupt(
                f"{key!r} comes behind {after!r}: an index is damaged: restore a backup"
            )
        after = key


def _types(column: Column[Any]) -> tuple[type, ...]:
    kind: type = str if isinstance(column.type, Text) else int
    kind = bytes if isinstance(column.type, LargeBinary) else kind
    return (kind, type(None)) if column.nullable else (kind,)
