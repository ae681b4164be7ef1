"""What waits for an operator's decision: outcomes that are held, and those of nobody.

A queue beside the ledger: an event enters when it is taken, and leaves when it is decided or a later revision replaces
it. Whoever reads it looks at the ledger again: a revision that overtook its predecessor may have left that one here.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, select, true, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.events import OutcomeEvent, Posted
from sidecar.billing.ledger.append import insert
from sidecar.billing.ledger.entries import chunks
from sidecar.billing.ledger.tables import decisions, outcomes, waiting
from sidecar.billing.rating.account import UNATTRIBUTED

COUNTED_MAX = 1000


async def note(connection: AsyncConnection, added: Sequence[Posted]) -> None:
    """Note which new events ask for a decision, and which older ones no longer do; within the caller's transaction."""
    events = [(one.event, one.at_us) for one in added if isinstance(one.event, OutcomeEvent)]
    asking = [
        (event.id, event.data.session_id, at_us, event.data.held, event.subject == UNATTRIBUTED)
        for event, at_us in events
        if (event.data.held or event.subject == UNATTRIBUTED) and event.data.billable and not event.data.shadow
    ]
    await insert(connection, waiting, asking)
    revised = {event.data.session_id for event, _ in events if event.data.revision}
    for chunk in chunks(revised):
        await _replace(connection, chunk)


async def _replace(connection: AsyncConnection, sessions: Sequence[str]) -> None:
    """Only the last revision of a session can wait, and not for a customer who was named already."""
    later = outcomes.alias()
    replaced = (
        select(outcomes.c.id)
        .join(later, later.c.session_id == outcomes.c.session_id)
        .where(outcomes.c.session_id.in_(sessions), later.c.revision > outcomes.c.revision)
    )
    theirs = waiting.c.session_id.in_(sessions)
    await connection.execute(delete(waiting).where(theirs, waiting.c.outcome_id.in_(replaced)))
    named = select(decisions.c.session_id).where(decisions.c.session_id.in_(sessions), decisions.c.kind == "assign")
    await _named(connection, waiting.c.session_id.in_(named))


async def decided(connection: AsyncConnection, kind: str, outcome_id: str, session_id: str) -> None:
    """A decision was made: what it answers waits no longer. One about a customer is about the whole session."""
    if kind == "assign":
        await _named(connection, waiting.c.session_id == session_id)
    else:
        await connection.execute(delete(waiting).where(waiting.c.outcome_id == outcome_id))


async def _named(connection: AsyncConnection, theirs: ColumnElement[bool]) -> None:
    await connection.execute(delete(waiting).where(theirs, ~waiting.c.held))
    await connection.execute(update(waiting).where(theirs).values(unattributed=False))


async def oldest(
    connection: AsyncConnection, only: str | None, after: tuple[int, str] | None, limit: int
) -> list[tuple[int, str]]:
    """(time, id) of those that wait, oldest first, from after such a pair on; `only`: `held` or `unattributed`."""
    query = select(waiting.c.at_us, waiting.c.outcome_id).order_by(waiting.c.at_us, waiting.c.outcome_id).limit(limit)
    if only is not None:
        query = query.where(waiting.c[only])
    if after is not None:
        query = query.where(tuple_(waiting.c.at_us, waiting.c.outcome_id) > tuple_(*after))
    return [(row.at_us, row.outcome_id) for row in await connection.execute(query)]


async def counts(connection: AsyncConnection) -> dict[str, int]:
    """How many wait in all, held and unattributed; not counted beyond `COUNTED_MAX`."""
    found = {}
    for name, condition in (("all", true()), ("held", waiting.c.held), ("unattributed", waiting.c.unattributed)):
        some = select(waiting.c.at_us).where(condition).limit(COUNTED_MAX + 1).subquery()
        found[name] = int((await connection.execute(select(func.count()).select_from(some))).scalar_one())
    return found
