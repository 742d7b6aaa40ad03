"""The indexes of names in the order of the names, whichever conversation's they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CONTEXT = ("call_id", "item_id", "key")


def upgrade() -> None:
    """Put the conversation last, so that what is written at the same time stands side by side."""
    _drop()
    for name in CONTEXT:
        _of_context(name, ["partition", name, "conversation"])
    op.create_index("ix_turns_key", "turns", ["partition", "key", "conversation"])


def downgrade() -> None:
    """Put the conversation before the name again."""
    _drop()
    for name in CONTEXT:
        _of_context(name, ["partition", "conversation", name])
    op.create_index("ix_turns_key", "turns", ["partition", "conversation", "key"])


def _drop() -> None:
    for name in CONTEXT:
        op.drop_index(f"ix_context_{name}", "context")
    op.drop_index("ix_turns_key", "turns")


def _of_context(name: str, columns: list[str]) -> None:
    op.create_index(
        f"ix_context_{name}",
        "context",
        columns,
        sqlite_where=sa.text(f"{name} IS NOT NULL"),
        postgresql_where=sa.text(f"{name} IS NOT NULL"),
    )
