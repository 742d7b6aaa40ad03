"""Reads cost what they bring: SQLite finds each row that it is asked for by an index."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from turnlog.store import statements

NAMED = {
    **{f"context_{name}": sql for name, sql in statements.FIND.items()},
    "turns_key": statements.TURN_BY["key"],
}


@pytest.mark.parametrize("name", NAMED)
def test_what_has_a_name_is_found_by_the_index_of_names(migrated: Path, name: str) -> None:
    database = sqlite3.connect(migrated)
    values = dict.fromkeys(re.findall(r":(\w+)", NAMED[name]), 0)
    plan = database.execute(f"EXPLAIN QUERY PLAN {NAMED[name]}", values).fetchall()
    database.close()
    assert f"USING INDEX ix_{name} " in plan[0][3]
