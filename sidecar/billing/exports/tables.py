"""The tables of exports. Rows of `export_events` are never deleted: they stand behind targets that forget ids."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, Table, Text

from sidecar.billing.ledger.tables import metadata

_SEQ = BigInteger().with_variant(Integer, "sqlite")

# From when on a meter receives anything: what was taken before the meter was there does not go to it.
export_meters = Table(
    "export_meters",
    metadata,
    Column("target", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("since_us", BigInteger, nullable=False),
)

export_events = Table(
    "export_events",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("target", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("outcome_id", Text, nullable=False),
    Column("number", Integer, nullable=False),  # 0 for the first entry about an outcome at a meter
    Column("customer", Text, nullable=False),  # the ledger's name of it
    Column("period", Text, nullable=False),  # of the outcome's time
    Column("quantity", Text, nullable=False),  # units, below zero for a correction
    Column("at_us", BigInteger, nullable=False),  # the time that the target is told
    Column("created_us", BigInteger, nullable=False),
    Column("id", Text, nullable=False, unique=True),  # by which the target tells repetitions
    Column("state", Text, nullable=False),  # waiting, acknowledged, parked
    Column("cause", Text),  # why it is parked
    Column("reason", Text),  # the same for people, or the last error
    Column("act", Text),  # usage, credit, cancel: decided when it is sent first
    Column("body", Text),  # what is sent, the same bytes every time
    Column("alone", Boolean, nullable=False),  # its batch was refused without a word about whose fault it was
    Column("attempts", Integer, nullable=False),
    Column("keys_spent", Integer, nullable=False),  # keys of requests that bring no other answer any more
    Column("next_us", BigInteger, nullable=False),  # when to try, or how long the claim holds
    Column("claim", Text),  # of the sender that has it
    Column("sent_us", BigInteger),  # the first attempt
    Column("unsure_us", BigInteger),  # the first attempt after which the target may have it
    Column("acknowledged_us", BigInteger),
)

# How many entries and units lie in each state, kept by the transactions that move them (`exports.sums`).
export_sums = Table(
    "export_sums",
    metadata,
    Column("target", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("sent", Boolean, primary_key=True),  # whether it was ever tried
    Column("entries", BigInteger, nullable=False),
    Column("units", Text, nullable=False),
)

# What operators decided about parked entries; append-only.
export_decisions = Table(
    "export_decisions",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("event_seq", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cause", Text),
    Column("decided_us", BigInteger, nullable=False),
)
