"""Runs Alembic on a database, from inside the program.

The one rule: all of it happens in one transaction, says nothing on standard output, and leaves
logging alone. Alembic's environment is global to the process, so that one migration runs at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from importlib.resources import as_file, files

from sqlalchemy import Connection, create_engine, event, pool

_one_at_a_time = threading.Lock()


def upgrade(connect: Callable[[], sqlite3.Connection]) -> None:
    """Bring a database to the newest schema; raises sqlite3.Error."""
    # Only the first opening of a file needs Alembic, which is slow to import.
    from alembic import command
    from alembic.config import Config

    engine = create_engine("sqlite://", creator=connect, poolclass=pool.NullPool)
    event.listen(engine, "begin", _begin)
    with (
        _one_at_a_time,
        as_file(files("turnlog_migrations")) as scripts,
        engine.begin() as connection,
    ):
        config = Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
