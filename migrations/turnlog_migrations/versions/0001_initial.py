"""The first schema: the log, and what is cached beside it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPLICATION_ID = 0x746C6F67
"""`tlog`: what tells a database of turnlog's from any other SQLite file."""


def upgrade() -> None:
    """Make every table; mark the file as turnlog's."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    _log()
    _heads()
    _beside()


def downgrade() -> None:
    """Drop every table, and with them the log."""
    op.drop_table("meta")
    op.drop_table("owners")
    op.drop_table("logs")
    op.drop_table("calls")
    op.drop_table("turns")
    op.drop_table("context")
    op.drop_table("conversations")
    op.drop_table("blobs")
    op.drop_table("events")


def _log() -> None:
    op.create_table(
        "events",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("schema", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("turn", sa.Text()),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("salt", sa.LargeBinary()),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "conversation", "version", name="pk_events"),
        sa.UniqueConstraint("partition", "position", name="uq_events_position"),
    )
    op.create_table(
        "blobs",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "conversation", "digest", name="pk_blobs"),
    )
    op.create_table(
        "logs",
        sa.Column("partition", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("partition", name="pk_logs"),
    )


def _heads() -> None:
    op.create_table(
        "conversations",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("head_format", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("turn", sa.Text()),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("turns", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("fork_of", sa.Text()),
        sa.Column("fork_version", sa.BigInteger()),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "id", name="pk_conversations"),
    )
    op.create_index(
        "ix_conversations_owner",
        "conversations",
        ["partition", "owner"],
        sqlite_where=sa.text("owner IS NOT NULL"),
        postgresql_where=sa.text("owner IS NOT NULL"),
    )
    op.create_table(
        "context",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("from_version", sa.BigInteger(), nullable=False),
        sa.Column("to_version", sa.BigInteger()),
        sa.Column("holder", sa.Text()),
        sa.Column("item_version", sa.BigInteger()),
        sa.Column("key", sa.Text()),
        sa.Column("item_id", sa.Text()),
        sa.Column("call_id", sa.Text()),
        sa.Column("response_id", sa.Text()),
        sa.PrimaryKeyConstraint(
            "partition", "conversation", "ordinal", "from_version", name="pk_context"
        ),
    )
    op.create_index(
        "ix_context_call_id",
        "context",
        ["partition", "conversation", "call_id"],
        sqlite_where=sa.text("call_id IS NOT NULL"),
        postgresql_where=sa.text("call_id IS NOT NULL"),
    )
    op.create_index(
        "ix_context_item_id",
        "context",
        ["partition", "conversation", "item_id"],
        sqlite_where=sa.text("item_id IS NOT NULL"),
        postgresql_where=sa.text("item_id IS NOT NULL"),
    )
    op.create_index(
        "ix_context_key",
        "context",
        ["partition", "conversation", "key"],
        sqlite_where=sa.text("key IS NOT NULL"),
        postgresql_where=sa.text("key IS NOT NULL"),
    )


def _beside() -> None:
    op.create_table(
        "turns",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("turn", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger()),
        sa.Column("outcome", sa.Text()),
        sa.Column("state", sa.LargeBinary()),
        sa.Column("state_format", sa.Integer()),
        sa.PrimaryKeyConstraint("partition", "conversation", "turn", name="pk_turns"),
    )
    op.create_index("ix_turns_key", "turns", ["partition", "conversation", "key"])
    op.create_index("ix_turns_started", "turns", ["partition", "conversation", "started"])
    op.create_table(
        "calls",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("turn", sa.Text()),
        sa.Column("name", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("item_version", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "conversation", "call", name="pk_calls"),
    )
    op.create_table(
        "owners",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_owners"),
    )
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
