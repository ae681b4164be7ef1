"""What the sidecars of a tenant state, read from their statements."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.events import is_count
from sidecar.billing.ledger.tables import statements
from sidecar.billing.rating.periods import to_us

MINUTE_US = 60_000_000
TENANTS_MAX = 1_000  # looked at
LOOK_BACK = 24  # statements
LOOK_AHEAD = 4
HOURS_MAX = 1_000  # told apart by one statement
_HOUR = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement's counters. `by_hour` is how many sessions became final by the times of their first outcomes,
    `before` how many in earlier hours; None when it does not say.
    """

    tenant: str
    generation: str
    at_us: int
    received_us: int
    opened: int
    open: int
    by_state: Mapping[str, int]
    dropped: int
    by_hour: Any
    before: int

    @property
    def finalized(self) -> int:
        """Sessions that are over, in whatever state."""
        return sum(self.by_state.values())

    @property
    def unexplained(self) -> int:
        """Sessions that were opened and are neither open nor over."""
        return self.opened - self.open - self.finalized

    def hours(self) -> Mapping[int, int] | None:
        """`by_hour`, by the hours' beginnings in Unix microseconds; None when it is of another make."""
        if not _counts(self.by_hour) or len(self.by_hour) > HOURS_MAX:
            return None
        try:
            return {_beginning_us(hour): number for hour, number in self.by_hour.items()}
        except ValueError:
            return None

    @property
    def untold(self) -> int:
        """Sessions that are over and in no hour that it tells; below 0 when it tells of more than are over."""
        hours = self.hours()
        return 0 if hours is None else self.finalized - sum(hours.values()) - self.before


async def tenants(connection: AsyncConnection, most: int = TENANTS_MAX + 1) -> list[str]:
    """Who has stated anything, by name: the first so many. A look into the index for each, however much they stated."""
    subject = statements.c.subject
    step = select(func.min(subject).label("subject"), literal(1).label("number")).cte("step", recursive=True)
    following = select(func.min(subject)).where(subject > step.c.subject).scalar_subquery()
    more = select(following, step.c.number + 1).where(step.c.subject.is_not(None), step.c.number < most)
    step = step.union_all(more)
    query = select(step.c.subject).where(step.c.subject.is_not(None)).order_by(step.c.number)
    return list((await connection.execute(query)).scalars())


async def newest(connection: AsyncConnection, tenant: str) -> list[Stated]:
    """The last few that can be read, newest first. One from a clock that is ahead is as new as its receipt."""
    query = (
        select(statements).where(statements.c.subject == tenant).order_by(statements.c.at_us.desc()).limit(LOOK_BACK)
    )
    found = [read(row) for row in (await connection.execute(query)).mappings()]
    known = [one for one in found if one is not None]
    return sorted(known, key=lambda one: (min(one.at_us, one.received_us), one.at_us), reverse=True)


async def first_of_generation(connection: AsyncConnection, of: Stated) -> Stated | None:
    """Where its counters began anew; None when the tenant's statements begin with this generation.

    Those of a generation stand in a row, so its first one is looked for by halves: of years, some twenty are read.
    """
    first = await _from(connection, of.tenant, 0)
    if first is None or first.generation == of.generation:
        return None
    earlier_us, begun_us, found = first.at_us, of.at_us, of
    while begun_us - earlier_us > MINUTE_US:
        middle_us = (earlier_us + begun_us) // 2
        one = await _from(connection, of.tenant, middle_us)
        if one is not None and one.generation == of.generation:
            begun_us, found = middle_us, one
        else:
            earlier_us = middle_us
    return found


async def _from(connection: AsyncConnection, tenant: str, at_us: int) -> Stated | None:
    """The first one since then that can be read, of a few."""
    query = (
        select(statements)
        .where(statements.c.subject == tenant, statements.c.at_us >= at_us)
        .order_by(statements.c.at_us)
        .limit(LOOK_AHEAD)
    )
    found = map(read, (await connection.execute(query)).mappings())
    return next((one for one in found if one is not None), None)


def read(row: Mapping[Any, Any]) -> Stated | None:
    """None for a statement of another make."""
    data = json.loads(row["body"])["data"]
    opened, still_open, dropped = data.get("opened"), data.get("open"), data.get("dropped", 0)
    states = data.get("finalized")
    if not _counts(states) or not all(map(is_count, (opened, still_open, dropped))):
        return None
    by_hour, before = data.get("finalized_by_hour"), data.get("finalized_before", 0)
    if not is_count(before):
        by_hour, before = None, 0
    generation = str(data.get("generation", ""))
    return Stated(
        row["subject"],
        generation,
        row["at_us"],
        row["received_us"],
        opened,
        still_open,
        states,
        dropped,
        by_hour,
        before,
    )


def _beginning_us(hour: str) -> int:
    """Of `2026-11-22T10`; raises ValueError for anything else."""
    if (found := _HOUR.fullmatch(hour)) is None:
        raise ValueError(hour)
    year, month, day, of_day = map(int, found.groups())
    return to_us(datetime(year, month, day, of_day, tzinfo=UTC))


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))
