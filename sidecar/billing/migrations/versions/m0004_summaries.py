"""Sums behind the summary of a period; everything derived is made anew from the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is new; every event and decision waits to be summed up again."""
    op.create_table(
        "classes",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("shadow", sa.Boolean, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    undecided = sa.text("kind = 'undecided'")
    op.create_index("classes_undecided", "classes", ["period"], sqlite_where=undecided, postgresql_where=undecided)
    op.create_table(
        "class_days",
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("shadow", sa.Boolean, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "allowances",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True),
        sa.Column("shadow", sa.Boolean, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "earnings",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("totals", sa.Text),
        sa.Column("llm_cost", sa.Text, nullable=False),
    )
    op.create_index("earnings_by_period", "earnings", ["period"])
    for table in ("movements", "rated", "tallies", "pending"):
        op.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
    op.execute(
        "INSERT INTO pending (outcome_id, number, customer, session_id, revision) "
        "SELECT id, 0, customer, session_id, revision FROM outcomes"
    )
    op.execute(
        "INSERT INTO pending (outcome_id, number, customer, session_id, revision) "
        "SELECT d.outcome_id, d.number, coalesce(d.assigned, d.customer), d.session_id, o.revision "
        "FROM decisions d JOIN outcomes o ON o.id = d.outcome_id"
    )


def downgrade() -> None:
    """Back to where summaries were made from the rows."""
    for table in ("classes", "class_days", "allowances", "earnings"):
        op.drop_table(table)
