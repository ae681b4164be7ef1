"""Events in the ledger: one row per id, for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, Table, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from sidecar.billing.events import OutcomeEvent, Posted
from sidecar.billing.ledger.tables import outcomes, statements
from sidecar.billing.rating.account import Row
from sidecar.billing.rating.periods import Period

Verdict = Literal["accepted", "duplicate", "conflict"]
PAGE_MAX = 1000
_COLUMNS = [column for column in outcomes.c if column.name != "digest"]


async def append(connection: AsyncConnection, posted: Sequence[Posted], received_us: int) -> list[Verdict]:
    """Add events inside the caller's transaction; a verdict for each, in their order.

    The unique index decides, also between replicas: where the id is taken, the bodies are compared. An id that
    stands twice among the events is decided by the first of them.
    """
    verdicts: dict[int, Verdict] = {}
    for table in (outcomes, statements):
        chosen = [(index, event) for index, event in enumerate(posted) if _table(event) is table]
        verdicts |= await _append_to(connection, table, chosen, received_us)
    return [verdicts[index] for index in range(len(posted))]


async def _append_to(
    connection: AsyncConnection, table: Table, chosen: Sequence[tuple[int, Posted]], received_us: int
) -> dict[int, Verdict]:
    firsts: dict[str, tuple[int, Posted]] = {}
    for index, event in chosen:
        firsts.setdefault(event.event.id, (index, event))
    if not firsts:
        return {}
    rows = [_values(event, received_us) for _, event in firsts.values()]
    added: set[str] = set((await connection.execute(_insert(connection, table, rows))).scalars())
    digests = {identifier: event.digest for identifier, (_, event) in firsts.items()}
    known = [identifier for identifier in firsts if identifier not in added]
    if known:
        stored = await connection.execute(select(table.c.id, table.c.digest).where(table.c.id.in_(known)))
        digests |= {row.id: row.digest for row in stored}
    verdicts: dict[int, Verdict] = {}
    for index, event in chosen:
        identifier = event.event.id
        if identifier in added and firsts[identifier][0] == index:
            verdicts[index] = "accepted"
        else:
            verdicts[index] = "duplicate" if digests[identifier] == event.digest else "conflict"
    return verdicts


def _insert(connection: AsyncConnection, table: Table, rows: list[dict[str, Any]]) -> ReturningInsert[str]:
    """All rows in one statement that skips ids which exist, and tells those that it added."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(rows).on_conflict_do_nothing(index_elements=["id"])
    returning: ReturningInsert[str] = statement.returning(table.c.id)
    return returning


def _table(posted: Posted) -> Table:
    return outcomes if isinstance(posted.event, OutcomeEvent) else statements


def _values(posted: Posted, received_us: int) -> dict[str, Any]:
    event = posted.event
    common = {
        "id": event.id,
        "source": event.source,
        "at_us": posted.at_us,
        "received_us": received_us,
        "digest": posted.digest,
        "body": posted.body,
    }
    if not isinstance(event, OutcomeEvent):
        return {**common, "subject": event.subject}
    data = event.data
    return {
        **common,
        "tenant": data.tenant,
        "customer": event.subject,
        "session_id": data.session_id,
        "conversation": storable(data.conversation),
        "revision": data.revision,
        "reverses": data.reverses,
        "state": data.state,
        "outcome": data.outcome,
        "held": data.held,
        "billable": data.billable,
        "shadow": data.shadow,
        "period": str(Period.of(posted.at_us)),
    }


def storable(text: str | None) -> str | None:
    """A text as databases take it: without NUL, and lone surrogates as `?`. The body keeps it as it came."""
    return None if text is None else text.replace("\0", "").encode("utf-8", "replace").decode()


async def account_rows(connection: AsyncConnection, customer: str, end_us: int) -> tuple[Row, ...]:
    """The rows of a customer before an instant, with every revision of the sessions that it has a part in."""
    sessions = select(outcomes.c.session_id).where(outcomes.c.customer == customer)
    ids = select(outcomes.c.id).where(outcomes.c.customer == customer)
    theirs = or_(outcomes.c.customer == customer, outcomes.c.session_id.in_(sessions), outcomes.c.reverses.in_(ids))
    found = await connection.execute(select(*_COLUMNS).where(theirs, outcomes.c.at_us < end_us))
    return tuple(to_row(row) for row in found.mappings())


def to_row(row: RowMapping) -> Row:
    """A ledger row as rating takes it."""
    return Row(
        id=row["id"],
        customer=row["customer"],
        session_id=row["session_id"],
        revision=row["revision"],
        at_us=row["at_us"],
        data=json.loads(row["body"], parse_float=Decimal)["data"],
        reverses=row["reverses"],
        conversation=row["conversation"],
        held=row["held"],
        billable=row["billable"],
        shadow=row["shadow"],
    )


async def active_customers(connection: AsyncConnection, period: Period) -> list[str]:
    """Everybody with an event in the period."""
    found = await connection.execute(
        select(outcomes.c.customer).where(outcomes.c.period == str(period)).distinct().order_by(outcomes.c.customer)
    )
    return list(found.scalars())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page of the ledger shows; None means any. `before_seq` is where the last page ended."""

    customer: str | None = None
    state: str | None = None
    conversation: str | None = None
    session_id: str | None = None
    before_seq: int | None = None
    limit: int = 100


async def entries(connection: AsyncConnection, wanted: Wanted) -> list[RowMapping]:
    """Ledger rows, newest arrival first, at most `wanted.limit`."""
    query: Select[Any] = select(*_COLUMNS).order_by(outcomes.c.seq.desc()).limit(wanted.limit)
    exact: dict[str, ColumnElement[Any]] = {
        "customer": outcomes.c.customer,
        "state": outcomes.c.state,
        "conversation": outcomes.c.conversation,
        "session_id": outcomes.c.session_id,
    }
    for name, column in exact.items():
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(column == value)
    if wanted.before_seq is not None:
        query = query.where(outcomes.c.seq < wanted.before_seq)
    return list((await connection.execute(query)).mappings())
