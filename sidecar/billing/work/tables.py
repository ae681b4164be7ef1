"""The table of runs: what is worked out, how far it is, what came out. Old ones are deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from sidecar.billing.ledger.tables import metadata

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # backtest, shadow, reconciliation
    Column("about", Text, nullable=False),  # the plan's id; empty where it is about everything
    Column("period", Text, nullable=False),
    Column("source", Text),  # a backtest's plan, as it was given
    Column("actor", Text, nullable=False),
    Column("state", Text, nullable=False),  # waiting, running, done, failed
    Column("done", Integer, nullable=False),  # customers
    Column("total", Integer),
    Column("asked_us", BigInteger, nullable=False),
    Column("beat_us", BigInteger, nullable=False),  # when the replica that works on it was last heard of
    Column("finished_us", BigInteger),
    Column("result", Text),  # JSON
    Column("error", Text),
)
