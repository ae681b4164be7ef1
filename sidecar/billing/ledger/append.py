"""Taking events: one row per id, for ever.

The rows go to the driver as they are (`executemany` on SQLite, COPY on PostgreSQL): building a statement of a thousand
parameters for every batch would take longer than the database does.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Literal

import asyncpg
from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.events import OutcomeEvent, Posted, parse_time
from sidecar.billing.ledger.entries import chunks
from sidecar.billing.ledger.tables import conflicts, outcomes, statements
from sidecar.billing.rating.periods import Period, to_us

# "reborn": a revision of a session whose id was minted again, so that what it would replace is another session's.
Verdict = Literal["accepted", "duplicate", "conflict", "reborn"]
Rows = list[tuple[Any, ...]]
_TYPES = {"INTEGER": "bigint", "BIGINT": "bigint", "BOOLEAN": "boolean", "TEXT": "text"}


async def append(
    connection: AsyncConnection, posted: Sequence[Posted], received_us: int, *, met: bool = False
) -> list[Verdict]:
    """Add events inside the caller's transaction; a verdict for each, in their order.

    The unique index decides, also between replicas: where the id is taken, the bodies are compared. An id that
    stands twice among the events is decided by the first of them; outcomes and statements share their ids, so the
    caller keeps others from adding either while it adds a statement. An event whose period is closed stands on the
    first open one.

    Raises DBAPIError when another transaction, of any replica, adds one of the ids in the same moment
    (`database.met_another`). The caller then asks again with `met`: each row waits for whoever else adds it, which
    takes longer. Those that ask again add their rows in the order of the ids, so that none of them waits for one that
    waits for it; should one of them and a first attempt do so, the database ends one of the two in the same way.
    """
    first, revised, stated = _sorted(posted)
    verdicts: dict[int, Verdict] = {}
    for table, chosen in ((outcomes, first), (outcomes, revised), (statements, stated)):
        if not chosen:
            continue
        reborn = await _reborn(connection, [event for _, event in chosen]) if table is outcomes else set()
        verdicts |= {index: "reborn" for index, event in chosen if event.event.id in reborn}
        left = [(index, event) for index, event in chosen if index not in verdicts]
        found = await _append_to(connection, table, left, received_us, met=met) if left else {}
        if table is outcomes:
            refused = [event for index, event in left if found[index] == "conflict"]
            await _note_conflicts(connection, refused, received_us)
        verdicts |= found
    return [verdicts[index] for index in range(len(posted))]


_Numbered = list[tuple[int, Posted]]


def _sorted(posted: Sequence[Posted]) -> tuple[_Numbered, _Numbered, _Numbered]:
    """Outcomes; revisions of sessions that are among these, what becomes of which must be known first; statements."""
    first, revised, stated = _Numbered(), _Numbered(), _Numbered()
    sessions = set[str]()
    for index, event in enumerate(posted):
        if not isinstance(event.event, OutcomeEvent):
            stated.append((index, event))
        elif event.event.data.revision and event.event.data.session_id in sessions:
            revised.append((index, event))
        else:
            sessions.add(event.event.data.session_id)
            first.append((index, event))
    return first, revised, stated


async def _reborn(connection: AsyncConnection, posted: Iterable[Posted]) -> set[str]:
    """Ids of revisions of sessions that another session has taken the id of.

    Sessions' ids are derived from running numbers, which begin anew where everything was lost that knew of them. Then a
    later session's first outcome meets the earlier one's, and is refused as a conflict: it began after the other had
    been finalized, which no session does. Its revisions would take back what the earlier one was charged.
    """
    revisions: dict[str, list[str]] = {}
    for one in posted:
        if isinstance(one.event, OutcomeEvent) and one.event.data.revision:
            revisions.setdefault(one.event.data.session_id, []).append(one.event.id)
    found = set[str]()
    for some in chunks(revisions):
        query = (
            select(conflicts.c.session_id)
            .join(outcomes, outcomes.c.id == conflicts.c.outcome_id)
            .where(conflicts.c.session_id.in_(some), conflicts.c.started_us > outcomes.c.at_us)
        )
        for session in (await connection.execute(query)).scalars():
            found.update(revisions[session])
    if found:  # what was taken before stays taken
        known = await connection.execute(select(outcomes.c.id).where(outcomes.c.id.in_(found)))
        found -= set(known.scalars())
    return found


async def _note_conflicts(connection: AsyncConnection, refused: Iterable[Posted], received_us: int) -> None:
    rows = [
        {
            "outcome_id": one.event.id, "session_id": one.event.data.session_id, "digest": one.digest,
            "started_us": _started_us(one.event.data.started_at), "received_us": received_us,
        }
        for one in refused if isinstance(one.event, OutcomeEvent)
    ]  # fmt: skip
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite_dialect
        once = dialect.insert(conflicts).on_conflict_do_nothing(index_elements=["outcome_id", "digest"])
        await connection.execute(once, rows)


def _started_us(text: object) -> int | None:
    try:
        return to_us(parse_time(text)) if isinstance(text, str) else None
    except ValueError:
        return None


async def _append_to(
    connection: AsyncConnection, table: Table, chosen: Sequence[tuple[int, Posted]], received_us: int, *, met: bool
) -> dict[int, Verdict]:
    firsts: dict[str, tuple[int, Posted]] = {}
    for index, event in chosen:
        firsts.setdefault(event.event.id, (index, event))
    seen = await _look(connection, table, list(firsts))
    rows = [
        values(event, received_us, seen.open_from)
        for identifier, (_, event) in firsts.items()
        if identifier not in seen.taken and identifier not in seen.elsewhere
    ]
    added = await _insert_new(connection, table, rows, met=met)
    digests = {identifier: event.digest for identifier, (_, event) in firsts.items()}
    known = [identifier for identifier in firsts if identifier not in added]
    if known:
        stored = await connection.execute(select(table.c.id, table.c.digest).where(table.c.id.in_(known)))
        digests |= dict.fromkeys(seen.elsewhere, "") | {row.id: row.digest for row in stored}
    verdicts: dict[int, Verdict] = {}
    for index, event in chosen:
        identifier = event.event.id
        if identifier in added and firsts[identifier][0] == index:
            verdicts[index] = "accepted"
        else:
            verdicts[index] = "duplicate" if digests[identifier] == event.digest else "conflict"
    return verdicts


@dataclass(frozen=True, slots=True)
class _Seen:
    """Before anything is added: the first open period, the ids that are taken here, and those of the other table."""

    open_from: str | None
    taken: set[str]
    elsewhere: set[str]


async def _look(connection: AsyncConnection, table: Table, ids: list[str]) -> _Seen:
    if connection.dialect.name == "sqlite":
        statement = _look_statement(table, sqlite=True)
        found = await drive(connection, "execute_fetchall", statement, statement, (json.dumps(ids),))
    else:
        statement = _look_statement(table, sqlite=False)
        found = await drive(connection, "fetch", statement, statement, ids)
    by_kind: dict[str, set[str]] = {"closed": set(), "taken": set(), "elsewhere": set()}
    for kind, text in found:
        by_kind[kind].add(text)
    closed = max((period for period in by_kind["closed"] if period is not None), default=None)
    open_from = None if closed is None else str(Period.parse(closed).next)
    return _Seen(open_from, by_kind["taken"], by_kind["elsewhere"])


@cache
def _look_statement(table: Table, *, sqlite: bool) -> str:
    other = statements if table is outcomes else outcomes
    among = "id IN (SELECT value FROM json_each(?1))" if sqlite else "id = ANY($1::text[])"
    asked = {"elsewhere": other.name, "taken": table.name}
    parts = [f"SELECT '{kind}', id FROM {name} WHERE {among}" for kind, name in asked.items()]  # noqa: S608
    return " UNION ALL ".join(["SELECT 'closed', max(period) FROM closings", *parts])


async def _insert_new(connection: AsyncConnection, table: Table, rows: list[tuple[Any, ...]], *, met: bool) -> set[str]:
    """Add the rows, or those whose ids others have not added meanwhile; the ids added. A trigger notes each outcome in
    `pending`.
    """
    if connection.dialect.name == "sqlite" or not met or not rows:
        await insert(connection, table, rows)
        return {row[_ID] for row in rows}
    statement = _once_statement(table)
    in_order = sorted(rows, key=itemgetter(_ID))
    found = await drive(connection, "fetch", statement, statement, *map(list, zip(*in_order, strict=True)))
    return {record[0] for record in found}


async def insert(connection: AsyncConnection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Add rows that are tuples of all columns but `seq`."""
    rows = list(rows)
    if not rows:
        return
    names = columns(table)
    if connection.dialect.name == "sqlite":
        statement = _question_marks(table)
        await drive(connection, "executemany", statement, statement, rows)
        return
    copying = f"COPY {table.name} ({', '.join(names)})"
    await drive(connection, "copy_records_to_table", copying, table.name, records=rows, columns=names)


@cache
def _question_marks(table: Table) -> str:
    """The statement of SQLite."""
    names = columns(table)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608


@cache
def arrays_statement(table: Table) -> str:
    """An INSERT of PostgreSQL, with one array for each column."""
    names = columns(table)
    arrays = ", ".join(f"${n}::{_TYPES[str(table.c[name].type)]}[]" for n, name in enumerate(names, 1))
    return f"INSERT INTO {table.name} ({', '.join(names)}) SELECT * FROM unnest({arrays})"  # noqa: S608


@cache
def _once_statement(table: Table) -> str:
    return arrays_statement(table) + " ON CONFLICT (id) DO NOTHING RETURNING id"


async def drive(connection: AsyncConnection, method: str, what: str, *arguments: Any, **named: Any) -> Any:
    """Ask the driver itself; its errors come as SQLAlchemy's, which name `what` was asked."""
    raw = await connection.get_raw_connection()
    try:
        return await getattr(raw.driver_connection, method)(*arguments, **named)
    except (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DBAPIError(what, None, error) from error


@cache
def columns(table: Table) -> list[str]:
    """The names of all columns but `seq`."""
    return [column.name for column in table.c if column.name != "seq"]


_ID = 0  # of both tables


def _table(posted: Posted) -> Table:
    return outcomes if isinstance(posted.event, OutcomeEvent) else statements


def values(posted: Posted, received_us: int, open_from: str | None = None) -> tuple[Any, ...]:
    """A row in the order of the table's columns, without `seq`."""
    event = posted.event
    end = (posted.at_us, received_us, posted.digest, posted.body)
    if not isinstance(event, OutcomeEvent):
        return (event.id, event.source, event.subject, *end)
    data, period = event.data, str(Period.of(posted.at_us))
    return (
        event.id,
        event.source,
        data.tenant,
        event.subject,
        data.session_id,
        storable(data.conversation),
        data.revision,
        data.reverses,
        data.state,
        data.outcome,
        data.held,
        data.billable,
        data.shadow,
        posted.at_us,
        period,
        *end[1:],
        open_from if open_from is not None and period < open_from else None,
    )


def storable(text: str | None) -> str | None:
    """A text as databases take it: without NUL, and lone surrogates as `?`. The body keeps it as it came."""
    return None if text is None else text.replace("\0", "").encode("utf-8", "replace").decode()
