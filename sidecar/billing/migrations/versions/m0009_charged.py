"""How many outcomes an invoice charges, and takes back.

The sums that were made before do not tell: by `ledger.differences.SUMMED_AS` they are outdated, customer by customer,
and until one is summed up anew its rows are rated. A replica of the version before sums up as it always did, and is
found out within a minute.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; replicas of the version before do not fill them."""
    for name in ("charged", "taken_back"):
        op.add_column("earnings", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("earnings", sa.Column("exact", sa.Boolean, nullable=False, server_default=sa.true()))


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: the one before it cannot either")
