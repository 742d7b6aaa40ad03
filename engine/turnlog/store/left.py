"""Rows that appends of one transaction leave to be written together.

The one rule: nothing is decided by what is left. Heads are written at once, and whoever reads the
log or a context has what was left before it written first.
"""

from __future__ import annotations

import sqlite3

from . import statements
from .statements import Value


class Left:
    """Rows of appends that were accepted, and `whose` they are.

    What it saves, measured: 15 us of 95 an append, with 100 of them in a transaction.
    """

    def __init__(self) -> None:
        self.whose = set[str]()
        self.events: list[list[Value]] = []
        self.places: list[tuple[Value, ...]] = []

    def add(self, more: Left) -> None:
        """Leave more of them."""
        self.whose |= more.whose
        self.events += more.events
        self.places += more.places

    def write(self, connection: sqlite3.Connection) -> None:
        """Write them; raises sqlite3.Error and what else `run` names."""
        if self.whose:
            connection.executemany(statements.ADD_EVENT.sql, self.events)
            connection.executemany(statements.ADD_ROW.sql, self.places)
            self.whose, self.events, self.places = set[str](), [], []
