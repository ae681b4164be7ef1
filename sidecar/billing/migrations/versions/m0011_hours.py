"""Sessions are tallied by hour, as statements tell them, where it was by minute: a sixtieth of the rows to add up.

The column keeps its name. A replica of the version before goes on writing minutes into it, which lie in their hours.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_HOUR_US = 3_600_000_000


def upgrade() -> None:
    """Add minutes up. Nobody else adds any meanwhile: the sums' lock is held."""
    op.create_table(
        "hours",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("hour_us", sa.BigInteger, nullable=False),
        sa.Column("sessions", sa.BigInteger, nullable=False),
    )
    hour = f"minute_us - minute_us % {_HOUR_US}"
    op.execute(f"INSERT INTO hours SELECT tenant, {hour}, sum(sessions) FROM tallies GROUP BY tenant, {hour}")  # noqa: S608
    op.execute("DELETE FROM tallies")
    op.execute("INSERT INTO tallies (tenant, minute_us, sessions) SELECT tenant, hour_us, sessions FROM hours")
    op.drop_table("hours")


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: the one before it cannot either")
