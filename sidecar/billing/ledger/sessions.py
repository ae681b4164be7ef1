"""Sessions by their last revision, newest first, found by what people know of them.

How it works. Every filter that an index knows is a *source*: it gives outcomes in the order of time. Of the sources
that the filters allow, the narrowest is walked, some rows at once, and whatever else was asked for is checked row by
row. A page ends when it is full or when `LOOKED_MAX` rows were looked at; then it says how far back it came, and the
next one goes on from there. So no page costs more than that, however many outcomes there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal_column, select, true, tuple_, union
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.deciding import payer
from sidecar.billing.ledger.entries import Record, chunks
from sidecar.billing.ledger.tables import decisions, mentions, outcomes
from sidecar.billing.rating.account import UNATTRIBUTED

LOOKED_MAX = 5000
MENTIONING_MAX = 5000
_FIRST, _AT_ONCE = 200, 1000
_LIST = (
    "seq", "id", "session_id", "conversation", "customer", "state", "outcome", "revision", "held", "shadow", "at_us",
)  # fmt: skip


class Place(NamedTuple):
    """Where a page ends, in the order of time and arrival."""

    at_us: int
    seq: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for; None means any. `text` is a conversation's, session's, outcome's or ticket's id, as a whole;
    `reason` a part of one; `held`: whether it waits for a decision; times are Unix microseconds, the second excluded.
    """

    text: str | None = None
    customer: str | None = None
    state: str | None = None
    outcome: str | None = None
    reason: str | None = None
    held: bool = False
    from_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A page: `following` is where the next one begins, None after the last; `cut` when it ended for the bound."""

    sessions: Sequence[Mapping[str, Any]]
    following: Place | None
    cut: bool = False


async def listed(connection: AsyncConnection, asked: Asked, after: Place | None, limit: int) -> Listed:
    """Sessions as asked for, the newest first, each by its last revision; see above."""
    source = await _narrowest(connection, asked, after)
    found: list[Mapping[str, Any]] = []
    looked, at_once = 0, max(_FIRST, limit + 1)
    while looked < LOOKED_MAX:
        rows = await _walk(connection, source, asked, after, at_once)
        fit = [row for row in rows if _fits(row, asked)]
        found += await _told(connection, fit if asked.reason else fit[: limit + 1 - len(found)], asked.reason)
        if len(found) > limit:
            last = found[limit - 1]
            return Listed(found[:limit], Place(last["at_us"], last["seq"]))
        if len(rows) < at_once:
            return Listed(found, None)
        after = Place(rows[-1]["at_us"], rows[-1]["seq"])
        looked, at_once = looked + len(rows), _AT_ONCE
    return Listed(found, after, cut=True)


Source = Sequence[Select[Any]]  # selects of (at_us, seq), to be joined


async def _narrowest(connection: AsyncConnection, asked: Asked, after: Place | None) -> Source:
    sources = await _sources(connection, asked, after)
    if len(sources) == 1:
        return sources[0]
    sizes = [await _size(connection, source, asked, after) for source in sources]
    return sources[sizes.index(min(sizes))]


async def _size(connection: AsyncConnection, source: Source, asked: Asked, after: Place | None) -> int:
    """How many rows it has, at most as many as are looked at."""
    counted = 0
    for part in source:
        some = _bounded(part, asked, after).limit(LOOKED_MAX).subquery()
        counted += (await connection.execute(select(func.count()).select_from(some))).scalar_one()
    return counted


async def _sources(connection: AsyncConnection, asked: Asked, after: Place | None) -> list[Source]:
    o, found = outcomes.c, list[Source]()
    keys = select(o.at_us, o.seq)
    if asked.text is not None:
        by_mention = keys.where(o.id.in_(_mentioning(asked, after)))
        exact = [keys.where(column == asked.text) for column in (o.conversation, o.session_id)]
        named = outcomes.alias()  # of any revision, for only the last of a session is listed
        by_outcome = keys.where(o.session_id.in_(select(named.c.session_id).where(named.c.id == asked.text)))
        return [[*exact, by_outcome, by_mention]]  # no row says what it mentions
    if asked.held:
        found.append([keys.where(o.held)])
    if asked.customer is not None:
        found.append([keys.where(o.customer == asked.customer), *await _assigned(connection, asked.customer)])
    for column, value in ((o.outcome, asked.outcome), (o.state, asked.state)):
        if value not in {None, "RESOLVED"}:
            # Said in so many words, for the database to see that its index of the others will do.
            found.append([keys.where(column == value, literal_column(f"outcomes.{column.name} <> 'RESOLVED'"))])
    return found or [[keys]]


def _mentioning(asked: Asked, after: Place | None) -> Select[tuple[str]]:
    """The newest outcomes that mention what is looked for: hardly ever more than a few."""
    at_us = mentions.c.at_us
    query = select(mentions.c.outcome_id).where(mentions.c.value == asked.text).order_by(at_us.desc())
    bounds = [us for us in (asked.until_us, None if after is None else after.at_us) if us is not None]
    return (query.where(at_us <= min(bounds)) if bounds else query).limit(MENTIONING_MAX)


async def _assigned(connection: AsyncConnection, customer: str) -> Source:
    """Those of a customer whom an operator named; most have none."""
    mine = decisions.c.assigned == customer
    if (await connection.execute(select(decisions.c.seq).where(mine).limit(1))).first() is None:
        return []
    sessions = select(decisions.c.session_id).where(mine)
    o = outcomes.c
    return [select(o.at_us, o.seq).where(o.session_id.in_(sessions), o.customer == UNATTRIBUTED)]


def _bounded(part: Select[Any], asked: Asked, after: Place | None) -> Select[Any]:
    """The part within the times asked for, from after a place on."""
    conditions: list[ColumnElement[bool]] = []
    if asked.from_us is not None:
        conditions.append(outcomes.c.at_us >= asked.from_us)
    if asked.until_us is not None:
        conditions.append(outcomes.c.at_us < asked.until_us)
    if after is not None:
        conditions.append(tuple_(outcomes.c.at_us, outcomes.c.seq) < tuple_(*after))
    return part.where(*conditions)


async def _walk(
    connection: AsyncConnection, source: Source, asked: Asked, after: Place | None, limit: int
) -> Sequence[Record]:
    """The next rows of a source, with what decides whether they fit."""
    parts = [
        _bounded(part, asked, after).order_by(outcomes.c.at_us.desc(), outcomes.c.seq.desc()).limit(limit)
        for part in source
    ]
    keys = parts[0].subquery() if len(parts) == 1 else union(*(select(one.subquery()) for one in parts)).subquery()
    o, later = outcomes.c, outcomes.alias()
    replaced = (
        select(later.c.seq).where(later.c.session_id == o.session_id, later.c.revision > o.revision).limit(1)
    ).correlate(outcomes)
    named = select(decisions.c.assigned).where(decisions.c.session_id == o.session_id, decisions.c.kind == "assign")
    ruled = select(decisions.c.kind).where(decisions.c.outcome_id == o.id, decisions.c.kind != "assign")
    query = (
        select(
            *(o[name] for name in (*_LIST, "billable")),
            _may_say(asked.reason),
            replaced.scalar_subquery().label("replaced"),
            named.limit(1).correlate(outcomes).scalar_subquery().label("assigned"),
            ruled.order_by(decisions.c.number.desc()).limit(1).correlate(outcomes).scalar_subquery().label("decided"),
        )
        .join(keys, keys.c.seq == o.seq)
        .order_by(keys.c.at_us.desc(), keys.c.seq.desc())
        .limit(limit)
    )
    return (await connection.execute(query)).mappings().all()


def _fits(row: Record, asked: Asked) -> bool:
    if row["replaced"] is not None:
        return False
    wanted = {"state": asked.state, "outcome": asked.outcome}
    if any(value is not None and row[name] != value for name, value in wanted.items()):
        return False
    if asked.customer is not None and payer(row["customer"], row["assigned"]) != asked.customer:
        return False
    if asked.held and not (row["held"] and row["billable"] and not row["shadow"] and row["decided"] is None):
        return False
    return bool(row["may_say"])


def _may_say(part: str | None) -> ColumnElement[bool]:
    """Whether an event can have a reason with this in it: seen by the database, before bodies are read."""
    if part is None or not part.isascii():
        return true().label("may_say")
    return outcomes.c.body.icontains(json.dumps(part)[1:-1], autoescape=True).label("may_say")


async def _told(connection: AsyncConnection, rows: Sequence[Record], part: str | None) -> list[dict[str, Any]]:
    """Rows as they are listed, with their reasons; only those with this in it."""
    reasons: dict[int, str] = {}
    for chunk in chunks(row["seq"] for row in rows):
        query = select(outcomes.c.seq, outcomes.c.body).where(outcomes.c.seq.in_(chunk))
        for seq, body in (await connection.execute(query)).all():
            reasons[seq] = str(json.loads(body)["data"].get("reason") or "")
    found = []
    for row in rows:
        reason = reasons[row["seq"]]
        if part is None or part.casefold() in reason.casefold():
            told = {name: row[name] for name in (*_LIST, "decided")}
            found.append({**told, "customer": payer(row["customer"], row["assigned"]), "reason": reason})
    return found
