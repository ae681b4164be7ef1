"""The schema, as the code uses it; `sidecar/billing/migrations` brings a database to it.

Nothing is ever updated or deleted: plans and customers have versions, outcomes have revisions, and what an operator
decides will be rows of their own. Instants are Unix microseconds. `seq` numbers rows in the order of arrival.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, Table, Text

metadata = MetaData()
_SEQ = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for plain INTEGER keys

outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("tenant", Text),
    Column("customer", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("conversation", Text),
    Column("revision", Integer, nullable=False),
    Column("reverses", Text),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("billable", Boolean, nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("period", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),  # SHA-256 of the body
    Column("body", Text, nullable=False),  # the whole event as canonical JSON
)

statements = Table(
    "statements",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
)

plan_versions = Table(
    "plan_versions",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("plan_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("source", Text, nullable=False),  # the file as it was given
    Column("created_us", BigInteger, nullable=False),
)

customer_versions = Table(
    "customer_versions",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("effective_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),  # plan, started_at, seat_tier, seats, attributes as JSON
)
