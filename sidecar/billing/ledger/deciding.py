"""What operators decide about single outcomes: rows of their own, which nothing ever changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger import waiting
from sidecar.billing.ledger.append import insert, storable
from sidecar.billing.ledger.catalog import read_closings
from sidecar.billing.ledger.entries import Record
from sidecar.billing.ledger.tables import decisions, outcomes, pending
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.rating.periods import Period

Kind = Literal["release", "drop", "reverse", "assign"]
# Where an outcome stands -> what may be decided -> where it stands then. What is not here is refused.
DECISIONS: Mapping[str, Mapping[Kind, str]] = {
    "standing": {"reverse": "reversed"},
    "held": {"release": "standing", "drop": "dropped"},
    "unattributed": {"assign": "standing"},
    "unattributed and held": {"assign": "held", "drop": "dropped"},
    "dropped": {},
    "reversed": {},
    "replaced by a later revision": {},
    "declared not billable by its sidecar": {},
    "a shadow event": {},
}


class UnknownOutcomeError(LookupError):
    """There is no such outcome."""


class RefusedError(ValueError):
    """Where the outcome stands, this cannot be decided."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """Somebody's decision, as asked for."""

    outcome_id: str
    kind: Kind
    actor: str
    reason: str
    customer: str | None = None


async def decide(connection: AsyncConnection, ruling: Ruling, now_us: int) -> tuple[dict[str, Any], bool]:
    """Add a decision; (its row, whether it is new). The same one again changes nothing. The caller holds the lock."""
    query = select(outcomes).where(outcomes.c.id == storable(ruling.outcome_id))
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise UnknownOutcomeError(ruling.outcome_id)
    known = await decisions_about(connection, row["session_id"])
    mine = [one for one in known if one["outcome_id"] == row["id"]]
    for one in mine:
        if (one["kind"], one["assigned"]) == (ruling.kind, ruling.customer):
            return one, False
    assigned = assigned_to(known)
    stands = await _stands(connection, row, mine, assigned)
    if ruling.kind not in DECISIONS[stands]:
        possible = ", ".join(DECISIONS[stands]) or "nothing"
        raise RefusedError(f"{ruling.outcome_id} is {stands}: it can be decided to {possible}, not to {ruling.kind}")
    values = {
        "outcome_id": row["id"],
        "number": len(mine) + 1,
        "session_id": row["session_id"],
        "customer": payer(row["customer"], assigned),
        "kind": ruling.kind,
        "actor": ruling.actor,
        "reason": ruling.reason,
        "assigned": ruling.customer,
        "period": str(await _period(connection, ruling.kind, row, now_us)),
        "decided_us": now_us,
    }
    await connection.execute(decisions.insert().values(values))
    noted = ruling.customer or values["customer"]
    note = (row["id"], values["number"], noted, row["session_id"], row["revision"])
    await insert(connection, pending, [note])
    await waiting.decided(connection, ruling.kind, row["id"], row["session_id"])
    return values, True


async def stands(connection: AsyncConnection, row: Record, known: Sequence[Mapping[str, Any]]) -> str:
    """Where an outcome stands, in the words of `DECISIONS`; `known` is what was decided about its session."""
    mine = [one for one in known if one["outcome_id"] == row["id"]]
    return await _stands(connection, row, mine, assigned_to(known))


def assigned_to(known: Iterable[Mapping[str, Any]]) -> str | None:
    """The customer whom an operator named, by what was decided about a session."""
    return next((one["assigned"] for one in known if one["kind"] == "assign"), None)


async def _stands(
    connection: AsyncConnection, row: Any, mine: Sequence[Mapping[str, Any]], assigned: str | None
) -> str:
    replaced = select(outcomes.c.id).where(
        or_(
            (outcomes.c.session_id == row["session_id"]) & (outcomes.c.revision > row["revision"]),
            outcomes.c.reverses == row["id"],
        )
    )
    if (await connection.execute(replaced.limit(1))).first():
        return "replaced by a later revision"
    if row["shadow"]:
        return "a shadow event"
    if not row["billable"]:
        return "declared not billable by its sidecar"
    state = "held" if row["held"] else "standing"
    for one in mine:
        if one["kind"] != "assign":
            state = DECISIONS[state][one["kind"]]
    if payer(row["customer"], assigned) == UNATTRIBUTED and state in {"held", "standing"}:
        return "unattributed and held" if state == "held" else "unattributed"
    return state


def payer(customer: str, assigned: str | None) -> str:
    """Who pays for an outcome: the customer that it names, else the one whom an operator named."""
    return assigned if customer == UNATTRIBUTED and assigned is not None else customer


async def _period(connection: AsyncConnection, kind: Kind, row: Any, now_us: int) -> Period:
    """A reversal is a credit of its own time; all else belongs to the outcome's period, or the first open one."""
    closed = await read_closings(connection)
    return closed.first_open(Period.of(now_us if kind == "reverse" else row["at_us"]))


async def decisions_about(connection: AsyncConnection, session_id: str) -> list[dict[str, Any]]:
    """What was decided about a session's outcomes, oldest first."""
    query = select(decisions).where(decisions.c.session_id == session_id).order_by(decisions.c.seq)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def newest(
    connection: AsyncConnection, before_seq: int | None, limit: int, customer: str | None = None
) -> list[dict[str, Any]]:
    """All decisions, or those about one customer's outcomes and those that gave it some, newest first."""
    query = select(decisions).order_by(decisions.c.seq.desc()).limit(limit)
    if before_seq is not None:
        query = query.where(decisions.c.seq < before_seq)
    if customer is None:
        parts = [query]
    else:  # one after the other: for both at once no index helps
        about = decisions.c.customer == customer
        parts = [query.where(about), query.where(decisions.c.assigned == customer, ~about)]
    found = [dict(row) for part in parts for row in (await connection.execute(part)).mappings()]
    return sorted(found, key=lambda row: row["seq"], reverse=True)[:limit]


async def count(connection: AsyncConnection, period: Period) -> dict[str, int]:
    """How many decisions of each kind stand on a period's invoices."""
    query = select(decisions.c.kind, func.count()).where(decisions.c.period == str(period)).group_by(decisions.c.kind)
    found = {row.kind: row[1] for row in await connection.execute(query)}
    return {kind: found.get(kind, 0) for kind in get_args(Kind)}
