"""Closed periods, operators' decisions, assignments that begin inside a period; aggregates, and alerts to deliver."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_FOREVER = ("closings", "decisions")  # append-only, as the ledger; the other new tables are derived or are queues


def upgrade() -> None:
    """Add what is new; every event already there waits to be aggregated."""
    op.add_column("outcomes", sa.Column("late", sa.Text))
    op.add_column("customer_versions", sa.Column("plan_from_us", sa.BigInteger))
    op.add_column("customer_versions", sa.Column("recorded_us", sa.BigInteger))
    # Newest first within a customer is what pages ask for; a scan of a customer's rows uses the same index.
    op.drop_index("outcomes_by_customer", "outcomes")
    op.create_index("outcomes_by_customer", "outcomes", ["customer", "seq"])
    # A period's rows of one customer, in the order of arrival: the sessions behind a line.
    op.drop_index("outcomes_by_period", "outcomes")
    op.create_index("outcomes_by_period", "outcomes", ["period", "customer", "seq"])
    # Most outcomes replace none.
    op.drop_index("outcomes_by_reverses", "outcomes")
    named = sa.text("reverses IS NOT NULL")
    op.create_index("outcomes_by_reverses", "outcomes", ["reverses"], sqlite_where=named, postgresql_where=named)
    came_late = sa.text("late IS NOT NULL")
    op.create_index("outcomes_late", "outcomes", ["late"], sqlite_where=came_late, postgresql_where=came_late)
    partly = sa.text("revision > 0")
    op.create_index(
        "outcomes_revised", "outcomes", ["customer", "period"], sqlite_where=partly, postgresql_where=partly
    )
    op.create_table(
        "closings",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("period", sa.Text, nullable=False, unique=True),
        sa.Column("closed_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("outcome_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("assigned", sa.Text),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("decided_us", sa.BigInteger, nullable=False),
    )
    op.create_index("decisions_by_outcome", "decisions", ["outcome_id", "number"], unique=True)
    op.create_index("decisions_by_session", "decisions", ["session_id"])
    op.create_index("decisions_by_period", "decisions", ["period", "customer"])
    op.create_index("decisions_by_assigned", "decisions", ["assigned"])
    _create_aggregates()
    _forbid_changes()


def _create_aggregates() -> None:
    op.create_table(
        "pending",
        sa.Column("outcome_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_index("pending_by_customer", "pending", ["customer"])
    revised = sa.text("revision > 0")
    op.create_index("pending_revised", "pending", ["session_id"], sqlite_where=revised, postgresql_where=revised)
    op.execute(
        "INSERT INTO pending (outcome_id, number, customer, session_id, revision) "
        "SELECT id, 0, customer, session_id, revision FROM outcomes"
    )
    _note_outcomes()
    op.create_table(
        "movements",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("phase", sa.Integer, primary_key=True),
        sa.Column("charge", sa.Text, primary_key=True),
        sa.Column("units", sa.Text, nullable=False),
        sa.Column("trial", sa.Text, nullable=False),
        sa.Column("outcomes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rated",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("basis", sa.Text, nullable=False),
    )
    op.create_table(
        "tallies",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("minute_us", sa.BigInteger, primary_key=True),
        sa.Column("sessions", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_us", sa.BigInteger),
        sa.Column("delivered_us", sa.BigInteger),
        sa.Column("error", sa.Text),
    )
    op.create_index("alerts_once", "alerts", ["customer", "start_us", "percent"], unique=True)
    op.create_index("alerts_due", "alerts", ["next_us"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _note_outcomes() -> None:
    """Every outcome that is added waits to be summed up; the database sees to it."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION note_outcomes() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO pending (outcome_id, number, customer, session_id, revision) "
            "SELECT id, 0, customer, session_id, revision FROM added; RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER outcomes_noted AFTER INSERT ON outcomes REFERENCING NEW TABLE AS added "
            "FOR EACH STATEMENT EXECUTE FUNCTION note_outcomes()"
        )
        return
    op.execute(
        "CREATE TRIGGER outcomes_noted AFTER INSERT ON outcomes BEGIN "
        "INSERT INTO pending (outcome_id, number, customer, session_id, revision) "
        "VALUES (NEW.id, 0, NEW.customer, NEW.session_id, NEW.revision); END"
    )


def _forbid_changes() -> None:
    """As for the first tables: the database itself refuses."""
    dialect = op.get_bind().dialect.name
    for table in _FOREVER:
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
    """Refused: decisions and closings are not thrown away by a command."""
    raise RuntimeError("this revision cannot be undone: it holds decisions and closed periods")
