"""The last position is what the log says, and no longer written beside it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the counters: a page less for every commit, and one thing less that can be wrong."""
    op.drop_table("logs")


def downgrade() -> None:
    """Count again, as the log says."""
    op.create_table(
        "logs",
        sa.Column("partition", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("partition", name="pk_logs"),
    )
    op.execute(
        "INSERT INTO logs (partition, last)"
        " SELECT partition, max(position) FROM events GROUP BY partition"
    )
