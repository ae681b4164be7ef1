"""Runs as rows: any replica reads them, the one that was asked writes them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, func, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.database import Database
from sidecar.billing.rating.periods import Period
from sidecar.billing.work.tables import runs

Kind = Literal["backtest", "shadow", "reconciliation"]
State = Literal["waiting", "running", "done", "failed", "lost"]
KEPT_MAX = 200
LOST_AFTER_US = 30_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be worked out: for a backtest `about` is the plan's id and `source` its text."""

    kind: Kind
    period: Period
    actor: str
    about: str = ""
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands; `done` of `total` customers. `lost`: the replica that worked on it is gone."""

    id: str
    kind: Kind
    about: str
    period: Period
    actor: str
    state: State
    done: int
    total: int | None
    asked_us: int
    finished_us: int | None
    source: str | None
    result: Mapping[str, Any] | None
    error: str | None

    @property
    def open(self) -> bool:
        """Whether it may still come to something."""
        return self.state in {"waiting", "running"}


async def add(database: Database, wanted: Wanted, now_us: int) -> str:
    """Note a run that waits; its id. The oldest go when there are too many."""
    run_id = f"run_{secrets.token_hex(8)}"
    values = {
        "id": run_id, "kind": wanted.kind, "about": wanted.about, "period": str(wanted.period),
        "source": wanted.source, "actor": wanted.actor, "state": "waiting", "done": 0, "asked_us": now_us,
        "beat_us": now_us,
    }  # fmt: skip
    async with database.writing() as connection:
        await connection.execute(runs.insert().values(values))
        too_old = select(runs.c.asked_us).order_by(runs.c.asked_us.desc()).offset(KEPT_MAX).limit(1)
        oldest = (await connection.execute(too_old)).scalar()
        if oldest is not None:
            await connection.execute(delete(runs).where(runs.c.asked_us <= oldest))
    return run_id


async def change(database: Database, run_id: str, **values: Any) -> None:
    """Write down how a run stands."""
    async with database.writing() as connection:
        await connection.execute(update(runs).where(runs.c.id == run_id).values(values))


async def read(database: Database, run_id: str, now_us: int) -> Run | None:
    """One run with its result; None for one that is not there (any more)."""
    async with database.reading() as connection:
        row = (await connection.execute(select(runs).where(runs.c.id == storable(run_id)))).mappings().first()
    return None if row is None else _run(row, now_us)


async def recent(database: Database, kind: Kind, about: str, now_us: int, limit: int = 10) -> Sequence[Run]:
    """The newest runs of a kind, without their plans and results."""
    columns = [column for column in runs.c if column.name not in {"source", "result"}]
    query = select(*columns).where(runs.c.kind == kind, runs.c.about == about)
    query = query.order_by(runs.c.asked_us.desc()).limit(limit)
    async with database.reading() as connection:
        found = (await connection.execute(query)).mappings()
        return [_run({"source": None, "result": None, **row}, now_us) for row in found]


async def newest(database: Database, kind: Kind, period: Period, now_us: int) -> Run | None:
    """The newest run of a kind about a month, with its result."""
    query = select(runs).where(runs.c.kind == kind, runs.c.about == "", runs.c.period == str(period))
    async with database.reading() as connection:
        row = (await connection.execute(query.order_by(runs.c.asked_us.desc()).limit(1))).mappings().first()
    return None if row is None else _run(row, now_us)


async def open_runs(connection: AsyncConnection, now_us: int) -> int:
    """How many wait or go on somewhere."""
    query = select(func.count()).select_from(runs).where(runs.c.state.in_(["waiting", "running"]))
    found: int = (await connection.execute(query.where(runs.c.beat_us >= now_us - LOST_AFTER_US))).scalar_one()
    return found


def _run(row: RowMapping | Mapping[str, Any], now_us: int) -> Run:
    plain = {name: row[name] for name in Run.__slots__ if name not in {"period", "state", "result"}}
    lost = row["state"] in {"waiting", "running"} and now_us - row["beat_us"] > LOST_AFTER_US
    result = None if row["result"] is None else json.loads(row["result"])
    return Run(**plain, period=Period.parse(row["period"]), state="lost" if lost else row["state"], result=result)
