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


def test_ids_that_are_present_are_found_by_the_index_of_names(migrated: Path) -> None:
    database = sqlite3.connect(migrated)
    values = dict.fromkeys(re.findall(r":(\w+)", statements.PRESENT), 0)
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statements.PRESENT}", values)]
    database.close()
    assert any(
        "ix_context_item_id (partition=? AND item_id=? AND conversation=?)" in step for step in plan
    )
    assert not any(step.startswith("SCAN") for step in plan)


def test_where_partitions_end_is_found_by_position(migrated: Path) -> None:
    database = sqlite3.connect(migrated)
    plan = database.execute(f"EXPLAIN QUERY PLAN {statements.LAST_POSITIONS}", {"partitions": 3})
    steps = [row[3] for row in plan]
    database.close()
    assert any("SEARCH events USING COVERING INDEX" in step for step in steps)
    assert not any("SCAN events" in step for step in steps)


@pytest.mark.parametrize("sql", [statements.ITEMS, statements.LAST_ITEMS])
def test_items_are_read_in_the_order_of_their_places(migrated: Path, sql: str) -> None:
    database = sqlite3.connect(migrated)
    values = dict.fromkeys(re.findall(r":(\w+)", sql), 0)
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    database.close()
    assert all(step.startswith("SEARCH ") for step in plan)
    assert any("ordinal>? AND ordinal<?" in step for step in plan)
