"""Prices of models that operators save, who saved a plan, sums of exports, and long work that runs beside the API."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import sqlalchemy as sa
from alembic import op

from sidecar.billing.rating.price import EXACT, ZERO

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add what is new; sums are made of the entries that are there."""
    op.add_column("plan_versions", sa.Column("actor", sa.Text))
    op.create_table(
        "model_price_versions",
        sa.Column("seq", _SEQ, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False, unique=True),
        sa.Column("prices", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("saved_us", sa.BigInteger, nullable=False),
    )
    _forbid_changes("model_price_versions")
    shadow = sa.text("shadow")
    op.create_index("outcomes_shadow", "outcomes", ["period", "customer"], sqlite_where=shadow, postgresql_where=shadow)
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer),
        sa.Column("asked_us", sa.BigInteger, nullable=False),
        sa.Column("beat_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
    )
    # The entries of one state, newest first; and the oldest that waits.
    op.create_index("export_events_by_state", "export_events", ["target", "state", "seq"])
    waits = sa.text("state = 'waiting'")
    columns = ["target", "meter", "created_us"]
    op.create_index("export_events_oldest", "export_events", columns, sqlite_where=waits, postgresql_where=waits)
    _create_sums()


def _create_sums() -> None:
    sums = op.create_table(
        "export_sums",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("sent", sa.Boolean, primary_key=True),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("units", sa.Text, nullable=False),
    )
    query = sa.text(
        "SELECT target, meter, period, state, sent_us IS NOT NULL AS sent, quantity, COUNT(*) AS number "
        "FROM export_events GROUP BY 1, 2, 3, 4, 5, 6"
    )
    entries: dict[tuple[str, str, str, str, bool], int] = defaultdict(int)
    units: dict[tuple[str, str, str, str, bool], Decimal] = defaultdict(lambda: ZERO)
    for row in op.get_bind().execute(query):
        key = (row.target, row.meter, row.period, row.state, bool(row.sent))
        entries[key] += row.number
        units[key] = EXACT.add(units[key], EXACT.multiply(Decimal(row.quantity), Decimal(row.number)))
    names = ("target", "meter", "period", "state", "sent")
    found = [
        {**dict(zip(names, key, strict=True)), "entries": number, "units": f"{units[key]:f}"}
        for key, number in entries.items()
    ]
    if found:
        op.bulk_insert(sums, found)


def _forbid_changes(table: str) -> None:
    """As for the ledger: the database itself refuses."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        )


def downgrade() -> None:
    """Refused: who changed which price is not thrown away by a command."""
    raise RuntimeError("this revision cannot be undone: it holds what operators saved")
