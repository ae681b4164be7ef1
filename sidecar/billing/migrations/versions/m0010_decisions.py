"""Decisions about one customer's outcomes are found, newest first, without going through all."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """An index for either side, in place of the one that had no order."""
    op.create_index("decisions_by_customer", "decisions", ["customer", "seq"])
    op.drop_index("decisions_by_assigned", "decisions")
    op.create_index("decisions_by_assigned", "decisions", ["assigned", "seq"])


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: the one before it cannot either")
