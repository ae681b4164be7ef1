"""Exports as the rest of billing sees them: what upkeep runs, what the API asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports import sums
from sidecar.billing.exports.config import Destination
from sidecar.billing.exports.noting import begin, note_exports
from sidecar.billing.exports.report import oldest_waiting, page, report
from sidecar.billing.exports.sender import Sender
from sidecar.billing.exports.sums import Move, Tally, move
from sidecar.billing.exports.tables import export_decisions, export_events
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.database import Database
from sidecar.billing.ledger.differences import Group
from sidecar.billing.rating.periods import Period

REDELIVERED_MAX = 1000  # in one request
Action = Literal["send", "acknowledge"]


class UnknownTargetError(LookupError):
    """There is no such target in the file."""


class NotParkedError(ValueError):
    """What was named is not parked, or cannot be decided so."""


@dataclass(frozen=True, slots=True)
class Redelivery:
    """What an operator decides about parked entries: all of a target, or some by id.

    `send`: the target does not have them, send them. `acknowledge`: it has those that are ambiguous.
    """

    target: str
    actor: str
    reason: str
    action: Action = "send"
    entries: tuple[str, ...] | None = None


class Exports:
    """All targets of one file over one database; `clock` gives Unix microseconds."""

    def __init__(self, database: Database, destinations: Sequence[Destination], clock: Callable[[], int]) -> None:
        self.destinations = tuple(destinations)
        self.senders = tuple(Sender(database, one, clock) for one in destinations)
        self._database = database
        self._clock = clock

    async def begin(self) -> None:
        """Let every meter that is new receive from now on."""
        async with self._database.writing() as connection:
            await begin(connection, self.destinations, self._clock())

    async def close(self) -> None:
        """Let go of the connections."""
        for sender in self.senders:
            await sender.close()

    async def note(
        self, connection: AsyncConnection, catalog: Catalog, group: Group, whole: Iterable[str] = ()
    ) -> None:
        """Write entries for a group's noted events, in the caller's transaction."""
        await note_exports(connection, catalog, self.destinations, group, self._clock(), whole=set(whole))

    async def report(self, period: Period | None) -> list[dict[str, Any]]:
        """Per target and meter."""
        async with self._database.reading() as connection:
            return await report(connection, self.destinations, self._clock(), period)

    async def tallies(self, connection: AsyncConnection) -> dict[tuple[str, str], tuple[Tally, int | None]]:
        """What lies in each state and since when the oldest waits, of every meter of the file."""
        found = sums.tallied(await sums.read(connection))
        oldest = await oldest_waiting(connection, self.destinations)
        return {key: (found.get(key, Tally()), waits_since) for key, waits_since in oldest.items()}

    async def page(self, target: str, state: str | None, before_seq: int | None, limit: int) -> list[dict[str, Any]]:
        """Entries of a target, newest first; raises UnknownTargetError."""
        self._known(target)
        async with self._database.reading() as connection:
            return await page(connection, target, state, before_seq, limit)

    def _known(self, target: str) -> None:
        if target not in {one.name for one in self.destinations}:
            raise UnknownTargetError(target)

    async def redeliver(self, wanted: Redelivery) -> dict[str, int]:
        """Decide about parked entries; how many, and how many stay. Raises UnknownTargetError, NotParkedError."""
        self._known(wanted.target)
        table = export_events
        parked = and_(table.c.target == wanted.target, table.c.state == "parked")
        chosen = parked
        if wanted.entries is not None:
            chosen = and_(parked, table.c.id.in_(wanted.entries))
        if wanted.action == "acknowledge":
            chosen = and_(chosen, table.c.cause == "ambiguous")
        async with self._database.writing() as connection:
            query = select(table).where(chosen).order_by(table.c.seq).limit(REDELIVERED_MAX)
            rows = [dict(row) for row in (await connection.execute(query.with_for_update())).mappings()]
            missing = set(wanted.entries or ()) - {row["id"] for row in rows}
            if missing:
                kind = "parked as ambiguous" if wanted.action == "acknowledge" else "parked"
                raise NotParkedError(f"not {kind} at {wanted.target}: {', '.join(sorted(missing)[:20])}")
            await self._decide(connection, rows, wanted)
            left = select(func.count()).select_from(table).where(parked)
            return {"decided": len(rows), "parked": (await connection.execute(left)).scalar_one()}

    async def _decide(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]], wanted: Redelivery) -> None:
        now = self._clock()
        moves: list[Move] = []
        for row in rows:
            changed = update(export_events).where(export_events.c.seq == row["seq"])
            values = _decided(row, wanted.action, now)
            await connection.execute(changed.values(values))
            moves.append((row, {**row, **values}))
        if rows:
            said = {"action": wanted.action, "actor": wanted.actor, "reason": wanted.reason, "decided_us": now}
            entries = [{"event_seq": row["seq"], "cause": row["cause"], **said} for row in rows]
            await connection.execute(export_decisions.insert(), entries)
        await move(connection, moves)


def _decided(row: dict[str, Any], action: Action, now_us: int) -> dict[str, Any]:
    """The columns that change. What lay outside the times that a target takes becomes an event of now.

    What is sent again may be written anew, and what was refused was refused for good: it goes under another key.
    """
    if action == "acknowledge":
        return {"state": "acknowledged", "acknowledged_us": now_us, "cause": None, "claim": None}
    values = {
        "state": "waiting", "cause": None, "reason": None, "claim": None, "alone": False, "attempts": 0,
        "next_us": now_us, "unsure_us": None, "keys_spent": row["keys_spent"] + 1,
    }  # fmt: skip
    if row["cause"] != "ambiguous":
        values["body"] = None
    if row["cause"] in {"too_old", "in_the_future"}:
        values["at_us"] = now_us
    return values
