"""What people at the console ask of the ledger besides invoices and sums: sessions, one of them, and what waits.

Everything is bounded by a page, whatever the ledger holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import literal, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger import deciding, entries, sessions, spending, waiting
from sidecar.billing.ledger.standing import Posting, Standing, standing
from sidecar.billing.ledger.tables import customer_versions, decisions, outcomes
from sidecar.billing.ledger.verifying import Check, check
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.rating.periods import Period
from sidecar.billing.service import Billing

REVISIONS_MAX = 200
NEIGHBOURS_LOOKED_MAX = 200


@dataclass(frozen=True, slots=True)
class SessionFile:
    """All about one session. `revisions` are ledger rows, oldest first; `stands` is of the last, in the words of
    `deciding.DECISIONS`; `before` and `after` are the neighbours in its conversation; `standing` is None where
    it cannot be said of a session alone.
    """

    revisions: Sequence[entries.Record]
    decisions: Sequence[Mapping[str, Any]]
    customer: str
    stands: str
    standing: Standing | None
    check: Check
    before: str | None
    after: str | None

    @property
    def last(self) -> entries.Record:
        """The last revision."""
        return self.revisions[-1]

    @property
    def postings(self) -> Sequence[Posting] | None:
        """Where it stands on invoices, in the order of the books."""
        return None if self.standing is None else self.standing.postings


@dataclass(frozen=True, slots=True)
class Waiting:
    """A page of what waits, oldest first; `following` is where the next begins."""

    outcomes: Sequence[Mapping[str, Any]]
    following: tuple[int, str] | None
    counts: Mapping[str, int]


async def find(billing: Billing, asked: sessions.Asked, after: sessions.Place | None, limit: int) -> sessions.Listed:
    """A page of sessions."""
    async with billing.database.reading() as connection:
        return await sessions.listed(connection, asked, after, limit)


async def session(billing: Billing, session_id: str) -> SessionFile | None:
    """One session; None when nothing of it has arrived."""
    async with billing.database.reading() as connection:
        wanted = entries.Wanted(session_id=session_id, limit=REVISIONS_MAX)
        rows: list[entries.Record] = [*await entries.entries(connection, wanted)]
        if not rows:
            return None
        rows.sort(key=lambda row: (row["revision"], row["at_us"], row["id"]))
        last, known = rows[-1], await deciding.decisions_about(connection, session_id)
        customer = deciding.payer(last["customer"], deciding.assigned_to(known))
        anybody = customer != UNATTRIBUTED and not last["shadow"]
        return SessionFile(
            rows,
            known,
            customer,
            await deciding.stands(connection, last, known),
            await standing(connection, session_id, customer) if anybody else Standing(),
            check(rows, await _digests(connection, rows)),
            await _neighbour(connection, rows[0], last, older=True),
            await _neighbour(connection, rows[0], last, older=False),
        )


async def _digests(connection: AsyncConnection, rows: Sequence[entries.Record]) -> dict[str, str]:
    """The digests that were stored with events, by id."""
    query = select(outcomes.c.id, outcomes.c.digest).where(outcomes.c.seq.in_([row["seq"] for row in rows]))
    return {row.id: row.digest for row in await connection.execute(query)}


async def _neighbour(
    connection: AsyncConnection, first: entries.Record, last: entries.Record, *, older: bool
) -> str | None:
    """The session before, or after, in the same conversation, by the time of its end."""
    if not last["conversation"]:
        return None
    key, edge = tuple_(outcomes.c.at_us, outcomes.c.seq), first if older else last
    place = tuple_(edge["at_us"], edge["seq"])
    order = [column.desc() if older else column.asc() for column in (outcomes.c.at_us, outcomes.c.seq)]
    query = (
        select(outcomes.c.session_id)
        .where(outcomes.c.conversation == last["conversation"], key < place if older else key > place)
        .order_by(*order)
        .limit(NEIGHBOURS_LOOKED_MAX)
    )
    found = (await connection.execute(query)).scalars()
    return next((name for name in found if name != last["session_id"]), None)


async def waits(billing: Billing, only: str | None, after: tuple[int, str] | None, limit: int) -> Waiting:
    """Outcomes that wait for a decision, oldest first."""
    async with billing.database.reading() as connection:
        keys = await waiting.oldest(connection, only, after, limit + 1)
        following = keys[limit - 1] if len(keys) > limit else None
        rows = {row["id"]: row for row in await entries.rows_where(connection, outcomes.c.id, [one for _, one in keys])}
        found = []
        for _, identifier in keys[:limit]:
            row = await _where_it_stands(connection, rows[identifier])
            if deciding.DECISIONS[row["stands"]] and row["stands"] != "standing":
                found.append(row)
        return Waiting(found, following, await waiting.counts(connection))


async def named(billing: Billing, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Outcomes by their ids, with who pays and where they stand; without those that there are not."""
    async with billing.database.reading() as connection:
        rows = await entries.rows_where(connection, outcomes.c.id, ids)
        return {row["id"]: await _where_it_stands(connection, row) for row in rows}


async def _where_it_stands(connection: AsyncConnection, row: entries.Record) -> dict[str, Any]:
    known = await deciding.decisions_about(connection, row["session_id"])
    payer = deciding.payer(row["customer"], deciding.assigned_to(known))
    return {**row, "stands": await deciding.stands(connection, row, known), "payer": payer}


async def seen(billing: Billing, customer: str) -> bool:
    """Whether anything was ever said of a customer: registered, named by an outcome, or by an operator."""
    columns = (customer_versions.c.customer, outcomes.c.customer, decisions.c.assigned)
    anywhere = union_all(*(select(select(literal(1)).where(one == customer).exists()) for one in columns))
    async with billing.database.reading() as connection:
        return any((await connection.execute(anywhere)).scalars())


async def nearest_caps(billing: Billing, period: Period, limit: int) -> list[str]:
    """The customers nearest the cap of their plan."""
    async with billing.database.reading() as connection:
        return await spending.nearest(connection, period, limit)


def alert(row: Mapping[str, Any]) -> dict[str, Any]:
    """An alert about spending as people read it."""
    state = "delivered" if row["delivered_us"] else "waits" if row["next_us"] else "given up"
    return {**row, "data": json.loads(row["body"])["data"], "state": state}
