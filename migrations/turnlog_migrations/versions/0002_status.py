"""An index of the conversations that are not idle, which are few among very many."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_conversations_status",
        "conversations",
        ["partition", "status", "id"],
        sqlite_where=sa.text("status <> 'idle'"),
        postgresql_where=sa.text("status <> 'idle'"),
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_conversations_status", "conversations")
