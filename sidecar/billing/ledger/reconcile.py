"""The books against something independent: what the sidecars say they finalized, and what has arrived here.

Once an hour each tenant's sidecars state how many sessions were finalized in all, from counters that Redis moves in the
same script as the sessions. Every finalized session is posted, so the ledger must have as many, but for those in
outboxes. `difference` is stated minus arrived; it is an alarm when more than a grace time has passed and events are
still missing.

A statement's `generation` changes when Redis lost its data and the counters began anew. From then on growth is
compared: what was finalized since the first statement of the generation, with what arrived that happened since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import MINUTE_US
from sidecar.billing.ledger.tables import outcomes, pending, statements, tallies
from sidecar.billing.rating.invoice import timestamp

ALARM_US = 60 * MINUTE_US  # outboxes have this long to empty before a difference is an alarm
_LOOK_BACK = 24
_FIRST_OF_ALL = {"at_us": 0, "finalized": 0}


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement's counters."""

    tenant: str
    generation: str
    at_us: int
    received_us: int
    opened: int
    open: int
    finalized: int
    by_state: Mapping[str, int]
    dropped: int


async def tenants(connection: AsyncConnection) -> list[str]:
    """Everybody who has stated anything."""
    query = select(statements.c.subject).distinct().order_by(statements.c.subject)
    return list((await connection.execute(query)).scalars())


async def reconcile(connection: AsyncConnection, tenant: str, now_us: int) -> dict[str, Any] | None:
    """One tenant's last statement beside the ledger; None when it has none that can be read."""
    found = await _latest(connection, tenant)
    if found is None:
        return None
    base = await _base(connection, tenant, found)
    stated = found.finalized - base["finalized"]
    arrived = await _arrived(connection, tenant, base["at_us"], found.received_us)
    difference = stated - arrived
    settled = now_us - found.received_us >= ALARM_US
    return {
        "tenant": tenant,
        "stated_at": timestamp(found.at_us),
        "received_at": timestamp(found.received_us),
        "generation": found.generation,
        "since": timestamp(base["at_us"]) if base["at_us"] else None,
        "stated": {
            "opened": found.opened,
            "open": found.open,
            "finalized": found.finalized,
            "by_state": dict(found.by_state),
            "dropped_copies": found.dropped,
            "unexplained": found.opened - found.open - found.finalized,
        },
        "compared": {"stated": stated, "arrived": arrived},
        "difference": difference,
        "alarm": (settled and difference > 0) or found.opened != found.open + found.finalized,
    }


async def _latest(connection: AsyncConnection, tenant: str) -> Stated | None:
    """The last one that can be read, of the last few."""
    query = (
        select(statements).where(statements.c.subject == tenant).order_by(statements.c.at_us.desc()).limit(_LOOK_BACK)
    )
    found = map(_read, (await connection.execute(query)).mappings())
    return next((one for one in found if one is not None), None)


async def _base(connection: AsyncConnection, tenant: str, latest: Stated) -> Mapping[str, int]:
    """From where to count: from the beginning, or, when Redis lost its data since, from the generation's first one."""
    query = select(statements).where(statements.c.subject == tenant).order_by(statements.c.at_us)
    first: Stated | None = None
    earlier = False
    async for row in (await connection.stream(query)).mappings():
        one = _read(row)
        if one is None:
            continue
        if one.generation == latest.generation:
            first = one
            break
        earlier = True
    if not earlier or first is None:
        return _FIRST_OF_ALL
    return {"at_us": first.at_us, "finalized": first.finalized}


def _read(row: Mapping[Any, Any]) -> Stated | None:
    """None for a statement of another make."""
    data = json.loads(row["body"])["data"]
    states = data.get("finalized")
    numbers = [data.get("opened"), data.get("open"), data.get("dropped", 0)]
    numbers += states.values() if isinstance(states, dict) else [None]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        return None
    return Stated(
        row["subject"], str(data.get("generation", "")), row["at_us"], row["received_us"], data["opened"],
        data["open"], sum(states.values()), states, data.get("dropped", 0),
    )  # fmt: skip


async def _arrived(connection: AsyncConnection, tenant: str, from_us: int, until_us: int) -> int:
    """First events of sessions that happened in a time: minutes summed up, and what still waits to be."""
    minutes = select(func.coalesce(func.sum(tallies.c.sessions), 0)).where(
        tallies.c.tenant == tenant, tallies.c.minute_us >= from_us, tallies.c.minute_us <= until_us
    )
    waiting = (
        select(func.count())
        .select_from(pending.join(outcomes, outcomes.c.id == pending.c.outcome_id))
        .where(pending.c.number == 0, outcomes.c.tenant == tenant, outcomes.c.revision == 0)
        .where(outcomes.c.at_us >= from_us, outcomes.c.at_us < until_us // MINUTE_US * MINUTE_US + MINUTE_US)
    )
    return int((await connection.execute(minutes)).scalar_one()) + int((await connection.execute(waiting)).scalar_one())
