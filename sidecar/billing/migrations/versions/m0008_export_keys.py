"""Keys of requests to targets that save their answers; claims by customer; two indexes whose questions sums answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Entries that wait under a key whose answer is saved get out of it with the next answer."""
    op.add_column("export_events", sa.Column("keys_spent", sa.Integer, nullable=False, server_default="0"))
    claimed = sa.text("claim IS NOT NULL")
    columns = ["target", "next_us", "meter", "customer"]
    op.create_index("export_events_claimed", "export_events", columns, sqlite_where=claimed, postgresql_where=claimed)
    op.drop_index("export_events_by_period", "export_events")
    op.drop_index("export_events_open", "export_events")


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: it holds which keys were used up")
