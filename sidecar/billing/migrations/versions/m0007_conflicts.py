"""Events that came under an id that was taken: what is known of them decides about their sessions' revisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; of conflicts before it nothing is known."""
    op.create_table(
        "conflicts",
        sa.Column("outcome_id", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, primary_key=True),
    )
    op.create_index("conflicts_by_session", "conflicts", ["session_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER conflicts_append_only BEFORE UPDATE OR DELETE ON conflicts "
            "FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER conflicts_no_{change.lower()} BEFORE {change} ON conflicts "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        )


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: it holds which ids were given twice")
