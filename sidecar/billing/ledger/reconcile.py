"""The books against something independent: what the sidecars say they finalized, and what has arrived here.

Once an hour each tenant's sidecars state how many sessions were finalized in all, from counters that Redis moves in the
same script as the sessions. Every finalized session is posted, so the ledger must have as many, but for those in
outboxes. The newest statement is shown. An hour is what outboxes have to empty, and another statement comes every hour,
so the alarm is about the newest that has been here for as long: events that it counted, and that are missing even now.

What a statement counted must be told from what came later, or each new session would stand in for a lost one. It was
*counted* when a sidecar got to it, which can be hours after the time that its outcome has (an observer that was away, a
replay after a loss), and no clock tells. So statements say how many they counted of each hour of the outcomes' own
times, which here are the same: an hour has arrived when no fewer of it are here. Of the hour in which a statement is
made that is not sharp, as more of it become final; the next statement has it whole. It holds for counters that began
anew as well: what they count again, from a journal, has the times that it had.

A statement that tells only the sum is held against what has a time up to its own. When its `generation` is another than
before, Redis lost its data and the counters began anew; then growth is compared: what was finalized since the first
statement of the generation, with what arrived that happened since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.arrivals import Arrivals
from sidecar.billing.ledger.stated import HOUR_US, Stated, first_of_generation, newest
from sidecar.billing.rating.invoice import timestamp

ALARM_US = HOUR_US  # outboxes have this long to empty before a difference is an alarm


@dataclass(frozen=True, slots=True)
class Compared:
    """Sessions that a statement counted, and how many of them are here. `since_us`: those before do not count; or 0."""

    stated: int
    arrived: int
    since_us: int = 0

    @property
    def missing(self) -> int:
        """Never less than 0: what is here beside them is not of this statement."""
        return self.stated - self.arrived


async def reconcile(connection: AsyncConnection, tenant: str, now_us: int) -> dict[str, Any] | None:
    """One tenant's last statement beside the ledger; None when it has none that can be read."""
    known = await newest(connection, tenant)
    if not known:
        return None
    last, arrivals = known[0], await Arrivals.of(connection, tenant)
    shown = await _compare(connection, arrivals, last)
    due = next((one for one in known if now_us - one.received_us >= ALARM_US), None)
    judged = shown if due is last else await _compare(connection, arrivals, due) if due else None
    return {
        "tenant": tenant,
        "stated_at": timestamp(last.at_us),
        "received_at": timestamp(last.received_us),
        "generation": last.generation,
        "since": timestamp(shown.since_us) if shown.since_us else None,
        "stated": {
            "opened": last.opened,
            "open": last.open,
            "finalized": last.finalized,
            "by_state": dict(last.by_state),
            "dropped_copies": last.dropped,
            "unexplained": last.unexplained,
        },
        "compared": {"stated": shown.stated, "arrived": shown.arrived},
        "difference": shown.missing,
        "arrived_since": await arrivals.between(last.at_us + 1),
        "overdue": None
        if due is None or judged is None
        else {"stated_at": timestamp(due.at_us), "received_at": timestamp(due.received_us), "missing": judged.missing},
        "alarm": (judged is not None and judged.missing > 0) or last.unexplained != 0,
    }


async def _compare(connection: AsyncConnection, arrivals: Arrivals, stated: Stated) -> Compared:
    if hours := stated.hours():
        return await _by_hour(arrivals, hours, stated.before)
    first = await first_of_generation(connection, stated)
    since_us, before = (0, 0) if first is None else (first.at_us, first.finalized)
    counted = max(stated.finalized - before, 0)
    here = await arrivals.between(since_us + 1 if since_us else 0, stated.at_us + 1)
    return Compared(counted, min(counted, here), since_us)


async def _by_hour(arrivals: Arrivals, hours: Mapping[int, int], before: int) -> Compared:
    """Hour by hour: what one has too many, another does not lack less for it."""
    first_us, last_us = min(hours), max(hours)
    here = await arrivals.by_hour(first_us, last_us + HOUR_US)
    arrived = sum(min(number, here[hour_us]) for hour_us, number in hours.items())
    if before:
        arrived += min(before, await arrivals.between(0, first_us))
    return Compared(sum(hours.values()) + before, arrived)
