"""The first entry that waits of each customer is found without going through the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """By customer, in the order in which they are due."""
    waits = sa.text("state = 'waiting'")
    columns = ["target", "meter", "customer", "next_us", "seq"]
    op.create_index("export_events_lanes", "export_events", columns, sqlite_where=waits, postgresql_where=waits)


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: the one before it cannot either")
