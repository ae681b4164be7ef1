"""Rows that are there already are changed: SQLite and PostgreSQL say it alike, SQLAlchemy in two dialects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


async def upsert(
    connection: AsyncConnection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    sets: Sequence[str] = (),
    adds: Sequence[str] = (),
) -> None:
    """Insert rows, or change those with the same primary key: `sets` to the new value, `adds` by it."""
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    new = {name: statement.excluded[name] for name in sets}
    new |= {name: table.c[name] + statement.excluded[name] for name in adds}
    keys = [column.name for column in table.primary_key]
    await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=new), rows)
