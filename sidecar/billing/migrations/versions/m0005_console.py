"""What the console looks things up by: outcomes in the order of time, ids in attributes, what waits for a decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from sidecar.billing.ledger.mentions import mentioned

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_AT_ONCE = 1000


def upgrade() -> None:
    """Add the indexes and tables, and fill the tables from the events that are there."""
    op.create_index("outcomes_by_time", "outcomes", ["at_us", "seq"])
    op.create_index("outcomes_by_customer_time", "outcomes", ["customer", "at_us", "seq"])
    op.drop_index("outcomes_by_conversation", "outcomes")
    op.create_index("outcomes_by_conversation", "outcomes", ["conversation", "at_us", "seq"])
    for column in ("state", "outcome"):  # most sessions are plainly resolved, and are found by time
        others = sa.text(f"{column} <> 'RESOLVED'")
        op.create_index(
            f"outcomes_by_{column}", "outcomes", [column, "at_us", "seq"], sqlite_where=others, postgresql_where=others
        )
    op.create_index(
        "outcomes_held", "outcomes", ["at_us", "seq"],
        sqlite_where=sa.text("held = 1"), postgresql_where=sa.text("held"),
    )  # fmt: skip
    mentions = op.create_table(
        "mentions",
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("at_us", sa.BigInteger, primary_key=True),
        sa.Column("outcome_id", sa.Text, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spends",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("share", sa.Float, nullable=False),
    )
    op.create_index("spends_by_share", "spends", ["period", "share"])
    _create_waiting()
    for batch in _outcomes():
        found = [
            {"value": value, "at_us": row.at_us, "outcome_id": row.id}
            for row in batch
            for value in mentioned(json.loads(row.body)["data"].get("attributes") or {})
        ]
        if found:
            op.bulk_insert(mentions, found)


def _create_waiting() -> None:
    op.create_table(
        "waiting",
        sa.Column("outcome_id", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("unattributed", sa.Boolean, nullable=False),
    )
    op.create_index("waiting_by_session", "waiting", ["session_id"])
    op.create_index("waiting_by_time", "waiting", ["at_us", "outcome_id"])
    for column in ("held", "unattributed"):
        op.create_index(
            f"waiting_{column}", "waiting", ["at_us", "outcome_id"],
            sqlite_where=sa.text(f"{column} = 1"), postgresql_where=sa.text(column),
        )  # fmt: skip
    op.execute(
        "INSERT INTO waiting (outcome_id, session_id, at_us, held, unattributed) "
        "SELECT o.id, o.session_id, o.at_us, "
        "o.held AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.outcome_id = o.id AND d.kind <> 'assign'), "
        "o.customer = 'unattributed' AND NOT EXISTS "
        "(SELECT 1 FROM decisions d WHERE d.session_id = o.session_id AND d.kind = 'assign') "
        "FROM outcomes o WHERE (o.held OR o.customer = 'unattributed') AND o.billable AND NOT o.shadow AND NOT EXISTS "
        "(SELECT 1 FROM outcomes n WHERE n.session_id = o.session_id AND n.revision > o.revision) AND NOT EXISTS "
        "(SELECT 1 FROM decisions d WHERE d.outcome_id = o.id AND d.kind IN ('drop', 'reverse'))"
    )
    op.execute("DELETE FROM waiting WHERE NOT held AND NOT unattributed")


def _outcomes() -> Iterator[Sequence[Any]]:
    """Those whose attributes are not empty, some at once."""
    query = sa.text(
        "SELECT seq, id, at_us, body FROM outcomes WHERE seq > :after AND body NOT LIKE :without "
        "ORDER BY seq LIMIT :limit"
    )
    after, connection = 0, op.get_bind()
    while True:
        given = {"after": after, "without": '{"data":{"attributes":{},%', "limit": _AT_ONCE}
        batch = connection.execute(query, given).all()
        if not batch:
            return
        yield batch
        after = batch[-1].seq


def downgrade() -> None:
    """Refused, as for every revision before it."""
    raise RuntimeError("this revision cannot be undone: later programs rely on what it holds")
