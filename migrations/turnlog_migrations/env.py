"""What Alembic runs: from its command line, and from the store on a connection of the store's.

The one rule: a migration happens in one transaction, or not at all. Python's SQLite driver would
commit before each DDL statement, so the transaction is begun explicitly (storage 3.4). Nothing
here configures logging or prints.
"""

from __future__ import annotations

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, event, make_url, pool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from turnlog.store.schema import metadata

NEVER_BATCHED = frozenset({"events"})
"""`batch_alter_table` copies a table, and silently loses what it does not understand."""


def _never_batch_events(
    _context: MigrationContext, _revision: object, directives: list[MigrationScript]
) -> None:
    for script in directives:
        for operations in script.upgrade_ops_list:
            for one in operations.ops:
                if getattr(one, "table_name", None) in NEVER_BATCHED:
                    raise ValueError("write migrations of events by hand, and only add columns")


def _address() -> URL:
    path = context.get_x_argument(as_dictionary=True).get("db")
    if path is not None:
        return URL.create("sqlite", database=path)
    return make_url(context.config.get_main_option("sqlalchemy.url", "sqlite:///turnlog.db"))


def _manual(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        process_revision_directives=_never_batch_events,
    )
    with context.begin_transaction():
        context.run_migrations()


def _online() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        _run(given)
        return
    engine = create_engine(_address(), poolclass=pool.NullPool)
    event.listen(engine, "connect", _manual)
    event.listen(engine, "begin", _begin)
    with engine.connect() as connection:
        _run(connection)


def _offline() -> None:
    context.configure(url=_address(), target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _offline()
else:
    _online()
