"""What runs beside the API, in every replica: sums, closings, alerts, exports. Any of them may do it, none must.

Each step takes what there is to do from the database, and locks there keep replicas from doing it twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.alerts import Deliveries, capped, note_alerts
from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.database import AGGREGATES
from sidecar.billing.ledger.differences import Group
from sidecar.billing.ledger.entries import Record
from sidecar.billing.ledger.tables import pending, plan_versions
from sidecar.billing.rating.movements import Movements
from sidecar.billing.rating.periods import Period
from sidecar.billing.service import Billing

log = structlog.get_logger()
NOTES_MAX = 1000  # taken off in one transaction
REBUILT_MAX = 20  # customers summed up anew in one
CAPS_MAX = 20  # looked at in one
VACUUMED = 20_000  # so many notes that were taken off are vacuumed, or `NOTES_MAX` once none are left
_IDLE_SECONDS = 0.5
_CLOSING_SECONDS = 30.0
_FAILED_SECONDS = 5.0


class Upkeep:
    """The work beside the API of `billing`; `deliveries` sends alerts, None sends none."""

    def __init__(self, billing: Billing, deliveries: Deliveries | None = None) -> None:
        self._billing = billing
        self._deliveries = deliveries
        self._tasks: list[asyncio.Task[None]] = []
        self._notes_max = NOTES_MAX
        self._gone = 0  # notes since the last vacuum
        self._caps: set[str] = set()  # of these customers, to be looked at
        self._caps_of: tuple[Period, int] | None = None  # month and newest plan when all were last put there

    def start(self) -> None:
        """Run until `stop`."""
        self._tasks.append(asyncio.create_task(self._for_ever(self.aggregate, _IDLE_SECONDS)))
        self._tasks.append(asyncio.create_task(self._for_ever(self._close, _CLOSING_SECONDS)))
        if self._deliveries is not None:
            self._tasks.append(asyncio.create_task(self._for_ever(self._deliveries.step, _IDLE_SECONDS)))
        for sender in self._billing.exports.senders if self._billing.exports else ():
            self._tasks.append(asyncio.create_task(self._for_ever(sender.feed, _IDLE_SECONDS)))

    async def stop(self) -> None:
        """End what runs; every step is a transaction, so nothing is left half done."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def aggregate(self) -> bool:
        """Bring the sums up to date by up to `NOTES_MAX` notes and one stale customer, and look at caps; whether there
        is more.
        """
        billing = self._billing
        async with billing.database.reading() as connection:
            waits = (await connection.execute(select(pending.c.outcome_id).limit(1))).first() is not None
            await self._find_caps(connection)
        stale = next(iter(billing.stale), None)
        if not waits and stale is None and not self._caps:
            return False
        async with billing.database.writing(lock=AGGREGATES) as connection:
            catalog = Catalog(connection)
            sums = Aggregates(connection, catalog)
            notes, group, more = await self._next_notes(connection, sums)
            if billing.exports is not None:
                await billing.exports.note(connection, catalog, group, () if stale is None else (stale,))
            if stale is not None:
                if not await sums.current(stale, await catalog.sections_of(stale)):
                    await sums.rebuild(stale)
                billing.stale.discard(stale)
            changed = {} if stale is None else {stale: await sums.applied(stale)}
            changed |= await self._next_caps(catalog, sums)
            if notes:
                changed |= await sums.apply(group)
            await note_alerts(connection, catalog, changed, billing.clock())
        self._gone += len(notes)
        if self._gone >= (VACUUMED if more else NOTES_MAX):
            self._gone = 0
            await billing.database.vacuum(pending)
        return more or bool(billing.stale or self._caps)

    async def _next_notes(self, connection: AsyncConnection, sums: Aggregates) -> tuple[Sequence[Record], Group, bool]:
        """Notes to take off, what has to do with them, and whether there may be more.

        Few of them while many customers must be summed up anew, as behind a change of the plan that most have: each is
        in the same transaction, for which others wait.
        """
        limit = self._notes_max
        notes = list((await connection.execute(select(pending).limit(limit))).mappings())
        more = len(notes) == limit
        group = await sums.group(notes)
        kept, _ = await sums.kept(group)
        many = len(await sums.outdated(kept)) > REBUILT_MAX
        self._notes_max = REBUILT_MAX if many else NOTES_MAX
        if many and len(notes) > REBUILT_MAX:
            notes, more = notes[:REBUILT_MAX], True
            group = await sums.group(notes)
        return notes, group, more

    async def _find_caps(self, connection: AsyncConnection) -> None:
        """A new month and a new plan may bring customers to their caps without any event: have them looked at."""
        newest = (await connection.execute(select(func.max(plan_versions.c.seq)))).scalar() or 0
        now = Period.of(self._billing.clock()), newest
        if now != self._caps_of:
            self._caps |= await capped(connection, Catalog(connection), now[0])
            self._caps_of = now

    async def _next_caps(self, catalog: Catalog, sums: Aggregates) -> dict[str, Movements]:
        """The sums of some whose caps are looked at. What another plan made must be made anew first."""
        found: dict[str, Movements] = {}
        for name in [self._caps.pop() for _ in range(min(len(self._caps), CAPS_MAX))]:
            if await catalog.coupling(name) == "account" or await sums.current(name, await catalog.sections_of(name)):
                found[name] = await sums.applied(name)
            else:
                self._billing.stale.add(name)
        return found

    async def settle(self) -> None:
        """Bring the sums up to date with everything that is there."""
        while await self.aggregate():
            pass

    async def _close(self) -> bool:
        period = await self._billing.close_due()
        if period is not None:
            log.info("period_closed", period=str(period))
        return False

    async def _for_ever(self, step: Callable[[], Awaitable[bool]], idle_seconds: float) -> None:
        while True:
            try:
                if not await step():
                    await asyncio.sleep(idle_seconds)
            except Exception as error:  # whatever it is, sums, closings and exports must not end for good
                expected = isinstance(error, SQLAlchemyError | OSError)
                told = {"step": step.__name__, "error": str(error) or type(error).__name__}
                log.error("upkeep_failed", exc_info=not expected, **told)
                await asyncio.sleep(_FAILED_SECONDS)
