"""The schema, as the code uses it; `sidecar/billing/migrations` brings a database to it.

Nothing of the ledger is ever updated or deleted: plans and customers have versions, outcomes have revisions, and what
an operator decides is a row of its own. The tables after it can be derived from it (`movements` to `tallies`,
`mentions`, `spends`) or are queues (`pending`, `waiting`, `alerts`). Instants are Unix microseconds, periods
`2026-11`. `seq` numbers rows in the order of arrival.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Table, Text

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
    Column("late", Text),  # the period on whose invoice it stands, when its own was closed before it came
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
    Column("actor", Text),  # who saved it, where that was said
)

# Prices of models' tokens that operators saved; the newest version lies over those that ship.
model_price_versions = Table(
    "model_price_versions",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("version", Integer, nullable=False, unique=True),
    Column("prices", Text, nullable=False),  # {"model": ["input", "output"]} in USD per million tokens, as JSON
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("saved_us", BigInteger, nullable=False),
)

customer_versions = Table(
    "customer_versions",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("effective_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),  # plan, started_at, seat_tier, seats, attributes as JSON
    Column("plan_from_us", BigInteger),  # when the plan begins, if that was said
    Column("recorded_us", BigInteger),  # when we were told, if that is not effective_us
)

closings = Table(
    "closings",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("period", Text, nullable=False, unique=True),  # closes every period before it as well
    Column("closed_us", BigInteger, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("outcome_id", Text, nullable=False),
    Column("number", Integer, nullable=False),  # 1 for the first decision about an outcome
    Column("session_id", Text, nullable=False),
    Column("customer", Text, nullable=False),  # who pays for the outcome when it was decided
    Column("kind", Text, nullable=False),  # release, drop, reverse, assign
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("assigned", Text),  # the customer of an assignment
    Column("period", Text, nullable=False),  # on whose invoice it stands
    Column("decided_us", BigInteger, nullable=False),
)

# The first event that came under an outcome's id with another body, and was refused; append-only.
conflicts = Table(
    "conflicts",
    metadata,
    Column("outcome_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("started_us", BigInteger),  # when its session began, if it says so
    Column("received_us", BigInteger, nullable=False),
    Column("digest", Text, primary_key=True),
)

# Events and decisions that are not in the aggregates yet. `number` 0 is the event itself, else the decision's.
pending = Table(
    "pending",
    metadata,
    Column("outcome_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
)

# `rating.movements` of each customer, summed up: (section's start, state of the books, charge) -> units outside and
# inside the trial, and how many outcomes brought them. Instead of a charge also `=paid` and `=depend`
# (`movements.Place`).
movements = Table(
    "movements",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("start_us", BigInteger, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("phase", Integer, primary_key=True),
    Column("charge", Text, primary_key=True),
    Column("units", Text, nullable=False),
    Column("trial", Text, nullable=False),
    Column("outcomes", BigInteger, nullable=False),
)

# By what a customer's movements of a period were computed: plans and facts. Another basis means: compute them again.
rated = Table(
    "rated",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("basis", Text, nullable=False),
)

# Events of each customer by the day and class of the summary under which they stand (`rating.counts`).
classes = Table(
    "classes",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("shadow", Boolean, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# The same of all customers together.
class_days = Table(
    "class_days",
    metadata,
    Column("period", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("shadow", Boolean, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# Which events of a section had free units, as `rating.allowance` writes it.
allowances = Table(
    "allowances",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("start_us", BigInteger, primary_key=True),
    Column("shadow", Boolean, primary_key=True),
    Column("body", Text, nullable=False),
)

# What a customer's invoice of a period comes to, how many outcomes it charges, what the models of its sessions cost.
earnings = Table(
    "earnings",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("events", BigInteger, nullable=False),
    Column("totals", Text),  # by currency, as JSON; null: no invoice unasked
    Column("llm_cost", Text, nullable=False),
    Column("charged", BigInteger, nullable=False),  # on lines and adjustments
    Column("taken_back", BigInteger, nullable=False),  # in credits
    Column("exact", Boolean, nullable=False),  # these two, as `rating.cost.Charged` says
)

# First events of sessions by tenant and hour, to set beside the sidecars' statements. They were by minute, and replicas
# of that version go on writing minutes while they are being replaced: so the column keeps its name.
tallies = Table(
    "tallies",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("minute_us", BigInteger, key="hour_us", primary_key=True),
    Column("sessions", BigInteger, nullable=False),
)

# Outcomes that ask for an operator's decision: held, of nobody, or both.
waiting = Table(
    "waiting",
    metadata,
    Column("outcome_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("unattributed", Boolean, nullable=False),
)

# Ids in the attributes of events (a ticket's, an order's), by which people look for sessions.
mentions = Table(
    "mentions",
    metadata,
    Column("value", Text, primary_key=True),
    Column("at_us", BigInteger, primary_key=True),
    Column("outcome_id", Text, primary_key=True),
)

# How near to the cap of its plan a customer last came in a period: in which order to look, nothing to charge by.
spends = Table(
    "spends",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("share", Float, nullable=False),  # of the cap
)

# One row per customer, section and percentage, for ever; `next_us` is null once it was delivered or given up.
alerts = Table(
    "alerts",
    metadata,
    Column("seq", _SEQ, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_us", BigInteger),
    Column("delivered_us", BigInteger),
    Column("error", Text),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
