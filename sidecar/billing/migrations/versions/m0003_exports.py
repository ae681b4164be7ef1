"""The outbox of exports, since when each meter receives, and what operators decided about parked entries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the tables. What is in the ledger already is not exported."""
    op.create_table(
        "export_meters",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("since_us", sa.BigInteger, nullable=False),
    )
    _create_outbox()
    op.create_table(
        "export_decisions",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("event_seq", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("decided_us", sa.BigInteger, nullable=False),
    )
    op.create_index("export_decisions_by_event", "export_decisions", ["event_seq"])
    _forbid_changes()


def _create_outbox() -> None:
    op.create_table(
        "export_events",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("outcome_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("quantity", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("act", sa.Text),
        sa.Column("body", sa.Text),
        sa.Column("alone", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_us", sa.BigInteger, nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("sent_us", sa.BigInteger),
        sa.Column("unsure_us", sa.BigInteger),
        sa.Column("acknowledged_us", sa.BigInteger),
    )
    once = ["outcome_id", "target", "meter", "number"]
    op.create_index("export_events_once", "export_events", once, unique=True)
    op.create_index("export_events_by_period", "export_events", ["target", "meter", "period", "state"])
    waits = sa.text("state = 'waiting'")
    op.create_index(
        "export_events_due", "export_events", ["target", "next_us", "seq"], sqlite_where=waits, postgresql_where=waits
    )
    is_open = sa.text("state <> 'acknowledged'")
    op.create_index(
        "export_events_open", "export_events", ["target", "meter", "created_us"],
        sqlite_where=is_open, postgresql_where=is_open,
    )  # fmt: skip


def _forbid_changes() -> None:
    """As for the ledger: the database itself refuses."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER export_decisions_append_only BEFORE UPDATE OR DELETE ON export_decisions "
            "FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER export_decisions_no_{change.lower()} BEFORE {change} ON export_decisions "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        )


def downgrade() -> None:
    """Refused: what was sent to whom is not thrown away by a command."""
    raise RuntimeError("this revision cannot be undone: it holds what was sent to other systems")
