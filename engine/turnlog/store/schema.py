"""The tables, as SQLAlchemy Core metadata.

The one rule: every key starts with the partition (design section 5), so that a distributed
database can distribute by it; nothing here needs a trigger, a function or a sequence. Alembic
brings a database to `REVISION`, and `alembic check` compares it with this metadata. `events` is
only ever extended (storage 3.4).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

APPLICATION_ID = int.from_bytes(b"tlog", "big")
"""What SQLite's `application_id` says in a database of turnlog's."""

REVISION = "0004"
"""The schema that this turnlog reads and writes: the newest Alembic revision."""

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("id", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("schema", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("turn", Text),
    Column("epoch", BigInteger),
    Column("salt", LargeBinary),
    Column("body", LargeBinary),
    Column("body_digest", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("partition", "conversation", "version", name="pk_events"),
    UniqueConstraint("partition", "position", name="uq_events_position"),
)
"""The log. `salt` and `body` are null once erased; the digest stays, and the chain verifies.

No row is ever deleted, so that the next position follows from the last one. On SQLite whoever
writes holds the lock of the whole file, and there are no gaps; a database that many write at once
needs a lock for each partition, as a row of counters would be (storage 3.1). Here that would be a
page more for every commit.
"""

blobs = Table(
    "blobs",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("partition", "conversation", "digest", name="pk_blobs"),
)
"""Large parts of bodies, by the SHA-256 of their bytes (`packing.py`)."""

conversations = Table(
    "conversations",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("head_format", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Text),
    Column("status", Text, nullable=False),
    Column("agent", Text),
    Column("model", Text),
    Column("turn", Text),
    Column("metadata", LargeBinary, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("turns", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("fork_of", Text),
    Column("fork_version", BigInteger),
    Column("base", BigInteger, nullable=False),
    PrimaryKeyConstraint("partition", "id", name="pk_conversations"),
)
"""The heads. `items` is the next ordinal, `base` the first that is a fork's own."""

Index(
    "ix_conversations_owner",
    conversations.c.partition,
    conversations.c.owner,
    sqlite_where=text("owner IS NOT NULL"),
    postgresql_where=text("owner IS NOT NULL"),
)
Index(
    "ix_conversations_status",
    conversations.c.partition,
    conversations.c.status,
    conversations.c.id,
    sqlite_where=text("status <> 'idle'"),
    postgresql_where=text("status <> 'idle'"),
)

context = Table(
    "context",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("ordinal", BigInteger, nullable=False),
    Column("from_version", BigInteger, nullable=False),
    Column("to_version", BigInteger),
    Column("holder", Text),
    Column("item_version", BigInteger),
    Column("key", Text),
    Column("item_id", Text),
    Column("call_id", Text),
    Column("response_id", Text),
    PrimaryKeyConstraint("partition", "conversation", "ordinal", "from_version", name="pk_context"),
)
"""What stood where from which version to which; a null `item_version` says that nothing did."""

# Names begin with the time, or with a counter, so that those that conversations write at the same
# moment are neighbours: where there are 100 at once, a turn writes a third of the pages less.
for _name in ("key", "item_id", "call_id"):
    Index(
        f"ix_context_{_name}",
        context.c.partition,
        context.c[_name],
        context.c.conversation,
        sqlite_where=text(f"{_name} IS NOT NULL"),
        postgresql_where=text(f"{_name} IS NOT NULL"),
    )

turns = Table(
    "turns",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("turn", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("outcome", Text),
    Column("state", LargeBinary),
    Column("state_format", Integer),
    PrimaryKeyConstraint("partition", "conversation", "turn", name="pk_turns"),
    Index("ix_turns_started", "partition", "conversation", "started"),
    Index("ix_turns_key", "partition", "key", "conversation"),
)
"""Turns, and the head where each ended, so that an old version is reached without refolding."""

calls = Table(
    "calls",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("call", Text, nullable=False),
    Column("turn", Text),
    Column("name", Text),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("item_version", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    PrimaryKeyConstraint("partition", "conversation", "call", name="pk_calls"),
)
"""The calls that have no output yet."""

owners = Table(
    "owners",
    metadata,
    Column("owner", Text, nullable=False),
    Column("beat", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", name="pk_owners"),
)
"""Who took a lease since it was opened; `beat` counts up where owners are on several machines."""

meta = Table(
    "meta",
    metadata,
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("name", name="pk_meta"),
)
"""What was fixed when the database was made: the number of partitions."""
