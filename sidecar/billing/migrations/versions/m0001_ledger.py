"""The ledger: outcomes and statements, versions of plans and customers. Append-only by trigger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TABLES = ("outcomes", "statements", "plan_versions", "customer_versions")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "outcomes",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("conversation", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("reverses", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("billable", sa.Boolean, nullable=False),
        sa.Column("shadow", sa.Boolean, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("outcomes_by_id", "outcomes", ["id"], unique=True)
    op.create_index("outcomes_by_customer", "outcomes", ["customer", "period"])
    op.create_index("outcomes_by_period", "outcomes", ["period", "customer"])
    op.create_index("outcomes_by_session", "outcomes", ["session_id", "revision"])
    op.create_index("outcomes_by_conversation", "outcomes", ["conversation"])
    op.create_index("outcomes_by_reverses", "outcomes", ["reverses"])
    op.create_table(
        "statements",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("statements_by_id", "statements", ["id"], unique=True)
    op.create_index("statements_by_subject", "statements", ["subject", "at_us"])
    op.create_table(
        "plan_versions",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("plan_id", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_index("plan_versions_by_plan", "plan_versions", ["plan_id", "version"], unique=True)
    op.create_table(
        "customer_versions",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("effective_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("customer_versions_by_customer", "customer_versions", ["customer", "version"], unique=True)
    _forbid_changes()


def _forbid_changes() -> None:
    """No program, this one included, changes or deletes a row: the database itself refuses."""
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
        )
    for table in _TABLES:
        if dialect == "postgresql":
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()"
            )
            continue
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )


def downgrade() -> None:
    """Refused: a ledger is not thrown away by a command."""
    raise RuntimeError("the first revision cannot be undone: it holds the ledger")
