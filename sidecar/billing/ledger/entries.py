"""Reading the ledger: the rows of accounts with what was decided about them, and pages for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, Text, and_, cast, func, or_, select, true, union
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.tables import customer_versions, decisions, outcomes
from sidecar.billing.rating.account import UNATTRIBUTED, Row
from sidecar.billing.rating.periods import Period

Record = RowMapping | Mapping[str, Any]
Value = TypeVar("Value")
PAGE_MAX = 1000
CHUNK = 500
FEW = 1000  # rows of an account that are rated while somebody waits
_COLUMNS = [column for column in outcomes.c if column.name != "digest"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator decided about an outcome, and when; `period` is the one on whose invoice it stands."""

    outcome_id: str
    number: int
    session_id: str
    kind: str
    period: Period
    assigned: str | None = None
    seq: int = 0
    decided_us: int = 0


async def account_rows(connection: AsyncConnection, customer: str) -> tuple[Row, ...]:
    """The rows of a customer, with every revision of the sessions that it has a part in."""
    return decided(*await account_parts(connection, customer))


async def account_parts(connection: AsyncConnection, customer: str) -> tuple[list[RowMapping], list[Decision]]:
    """The same as they lie in the ledger: events, and decisions about them."""
    sessions = union(
        select(outcomes.c.session_id).where(outcomes.c.customer == customer),
        select(decisions.c.session_id).where(decisions.c.assigned == customer),
    )
    ids = select(outcomes.c.id).where(outcomes.c.customer == customer)
    theirs = or_(outcomes.c.session_id.in_(sessions), outcomes.c.reverses.in_(ids))
    rows = list((await connection.execute(select(*_COLUMNS).where(theirs))).mappings())
    return rows, await decisions_of(connection, {row["session_id"] for row in rows})


async def has_few(connection: AsyncConnection, customer: str) -> bool:
    """Whether an account can be rated from its rows while somebody waits."""
    beyond = select(outcomes.c.seq).where(outcomes.c.customer == customer).offset(FEW).limit(1)
    return (await connection.execute(beyond)).first() is None


def chunks(values: Iterable[Value]) -> Iterator[list[Value]]:
    """As many at once as a statement may name."""
    wanted = list(values)
    for start in range(0, len(wanted), CHUNK):
        yield wanted[start : start + CHUNK]


async def rows_where(connection: AsyncConnection, column: Any, values: Iterable[Any]) -> list[RowMapping]:
    """Rows with one of the values, texts, however many these are."""
    of_each = connection.dialect.name == "postgresql"
    found: list[RowMapping] = []
    for some in chunks(set(values)):
        query = _rows_of_each(column, some) if of_each else select(*_COLUMNS).where(column.in_(some))
        found += (await connection.execute(query)).mappings()
    return found


def _rows_of_each(column: Any, some: Sequence[str]) -> Select[Any]:
    """By the index for each value, whatever PostgreSQL believes of a table that it has not analyzed yet: that so many
    values are of half the rows, and all of them worth reading. The offset keeps it from seeing the whole.
    """
    values = func.unnest(cast(some, ARRAY(Text))).table_valued("value").render_derived()
    of_one = select(*_COLUMNS).where(column == values.c.value).offset(0).lateral()
    return select(of_one).select_from(values.join(of_one, true()))


async def decisions_of(connection: AsyncConnection, sessions: Iterable[str]) -> list[Decision]:
    """What was decided about the outcomes of sessions, in order."""
    wanted = list(sessions)
    found: list[Decision] = []
    if not (await connection.execute(select(decisions.c.seq).limit(1))).first():
        return []  # most ledgers have none, and most accounts
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        query = select(decisions).where(decisions.c.session_id.in_(chunk)).order_by(decisions.c.seq)
        found += [to_decision(row) for row in (await connection.execute(query)).mappings()]
    return found


def to_decision(row: RowMapping) -> Decision:
    """A row as rating takes it."""
    names = ("outcome_id", "number", "session_id", "kind", "assigned", "seq", "decided_us")
    return Decision(**{name: row[name] for name in names}, period=Period.parse(row["period"]))


def decided(rows: Iterable[Record], taken: Iterable[Decision]) -> tuple[Row, ...]:
    """Ledger rows as rating takes them, with the decisions about them; an assignment is about its whole session."""
    about: dict[str, list[Decision]] = {}
    for decision in taken:
        about.setdefault(decision.session_id, []).append(decision)
    return tuple(to_row(row, about.get(row["session_id"], ())) for row in rows)


def to_row(row: Record, taken: Sequence[Decision] = ()) -> Row:
    """One of them."""
    plain: dict[str, Any] = {
        "id": row["id"],
        "customer": row["customer"],
        "session_id": row["session_id"],
        "revision": row["revision"],
        "at_us": row["at_us"],
        "data": json.loads(row["body"], parse_float=Decimal)["data"],
        "reverses": row["reverses"],
        "conversation": row["conversation"],
        "held": row["held"],
        "billable": row["billable"],
        "shadow": row["shadow"],
        "late": None if row["late"] is None else Period.parse(row["late"]),
        "was_held": row["held"],
    }
    for decision in taken:
        if decision.kind == "assign":
            if row["customer"] == UNATTRIBUTED:
                plain["customer"] = decision.assigned
                plain["counts"] = max(decision.period, plain.get("counts") or decision.period)
        elif decision.outcome_id == row["id"]:
            if decision.kind == "release":
                plain["held"] = False
                plain["counts"] = max(decision.period, plain.get("counts") or decision.period)
            elif decision.kind == "reverse":
                plain["taken_back"] = decision.period
    return Row(**plain)


async def active_customers(connection: AsyncConnection, period: Period) -> list[str]:
    """Everybody with an event on the period's invoice, by its own time or late, or a decision on it, and everybody
    registered by its end: a contract may cost something without any outcome.
    """
    by_time = select(outcomes.c.customer).where(outcomes.c.period == str(period), outcomes.c.late.is_(None))
    late = select(outcomes.c.customer).where(outcomes.c.late == str(period))
    assigned = (
        select(decisions.c.assigned)
        .join(outcomes, outcomes.c.session_id == decisions.c.session_id)
        .where(or_(outcomes.c.period == str(period), decisions.c.period == str(period)))
        .where(decisions.c.assigned.is_not(None))
    )
    decided_ = select(decisions.c.customer).where(decisions.c.period == str(period))
    replacing = outcomes.alias()
    of_period = or_(
        and_(replacing.c.period == str(period), replacing.c.late.is_(None)), replacing.c.late == str(period)
    )
    replaced = (
        select(outcomes.c.customer)
        .join(replacing, replacing.c.session_id == outcomes.c.session_id)
        .where(replacing.c.revision > 0, of_period)
    )
    registered = select(customer_versions.c.customer).where(customer_versions.c.effective_us < period.end_us)
    found = await connection.execute(union(by_time, late, assigned, decided_, replaced, registered))
    return sorted(found.scalars())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page of the ledger shows; None means any. `before_seq` is where the last page ended."""

    customer: str | None = None
    state: str | None = None
    conversation: str | None = None
    session_id: str | None = None
    id: str | None = None
    period: str | None = None
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
        "id": outcomes.c.id,
        "period": outcomes.c.period,
    }
    for name, column in exact.items():
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(column == value)
    if wanted.before_seq is not None:
        query = query.where(outcomes.c.seq < wanted.before_seq)
    return list((await connection.execute(query)).mappings())
