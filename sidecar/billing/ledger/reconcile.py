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

The hours and what was before them are as many as are over. When they are not, a sidecar lost count of hours, or one
that writes none runs beside others. That is an alarm: what is `untold` may be of any hour, and is held against whatever
is left over.

A statement that tells only the sum is held against what has a time up to its own. When its `generation` is another than
before, Redis lost its data and the counters began anew; then growth is compared: what was finalized since the first
statement of the generation, with what arrived that happened since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.stated import TENANTS_MAX, Stated, first_of_generation, newest, tenants
from sidecar.billing.ledger.tallied import HOUR_US, Tallied, hour_of, waiting
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


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Each tenant's last statement beside the ledger. `more`: there are tenants beyond the first `TENANTS_MAX` by name,
    which were not looked at.
    """

    tenants: list[dict[str, Any]]
    more: bool

    @property
    def difference(self) -> int:
        """Sessions that were stated and have not arrived."""
        return sum(one["difference"] for one in self.tenants)

    @property
    def alarm(self) -> bool:
        """Whether there is one of any tenant."""
        return any(one["alarm"] for one in self.tenants)


async def reconciled(connection: AsyncConnection, now_us: int) -> Reconciled:
    """The books of all tenants."""
    names = await tenants(connection)
    return Reconciled(await reconcile(connection, names[:TENANTS_MAX], now_us), len(names) > TENANTS_MAX)


async def reconcile(connection: AsyncConnection, names: Iterable[str], now_us: int) -> list[dict[str, Any]]:
    """Each tenant's last statement beside the ledger, but of those that have none that can be read."""
    waits, found = None, []
    for name in names:
        if known := await newest(connection, name):
            if waits is None:
                waits = await waiting(connection)
            tallied = Tallied(connection, name, waits.get(name, Counter()))
            found.append(await _reconcile(connection, tallied, known, now_us))
    return found


async def _reconcile(connection: AsyncConnection, tallied: Tallied, known: list[Stated], now_us: int) -> dict[str, Any]:
    last = known[0]
    shown = await _compare(connection, tallied, last)
    due = next((one for one in known if now_us - one.received_us >= ALARM_US), None)
    judged = shown if due is last else await _compare(connection, tallied, due) if due else None
    return {
        "tenant": last.tenant,
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
            "untold": last.untold,
        },
        "compared": {"stated": shown.stated, "arrived": shown.arrived},
        "difference": shown.missing,
        "arrived_since": await tallied.between(last.at_us + 1),
        "overdue": None
        if due is None or judged is None
        else {"stated_at": timestamp(due.at_us), "received_at": timestamp(due.received_us), "missing": judged.missing},
        "alarm": (judged is not None and judged.missing > 0) or last.unexplained != 0 or last.untold != 0,
    }


async def _compare(connection: AsyncConnection, tallied: Tallied, stated: Stated) -> Compared:
    hours = stated.hours()
    if hours is not None:
        end_us = hour_of(max([stated.at_us, *hours])) + HOUR_US
        first_us = min(hours, default=end_us)
        here = await tallied.by_hour(first_us, end_us)
        elder = await tallied.between(0, first_us) if stated.before or stated.untold > 0 else 0
        return by_hour(hours, stated.before, max(stated.untold, 0), here, elder)
    first = await first_of_generation(connection, stated)
    since_us, before = (0, 0) if first is None else (first.at_us, first.finalized)
    counted = max(stated.finalized - before, 0)
    arrived = await tallied.between(since_us + 1 if since_us else 0, stated.at_us + 1)
    return Compared(counted, min(counted, arrived), since_us)


def by_hour(hours: Mapping[int, int], before: int, untold: int, here: Mapping[int, int], elder: int) -> Compared:
    """What is stated, of the hours, before them and of no hour that is told, beside what is here, of hours and `elder`.

    Hour by hour: what one has too many, another does not lack less for it. What is untold may be anywhere.
    """
    arrived = min(before, elder) + sum(min(number, here.get(hour_us, 0)) for hour_us, number in hours.items())
    left = elder + sum(here.values()) - arrived
    return Compared(sum(hours.values()) + before + untold, arrived + min(untold, left))
