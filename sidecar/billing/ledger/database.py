"""The connection to the database: pragmas, migrations, and transactions for reading and for writing.

SQLite runs in WAL with synchronous=FULL, so what was answered with 200 survives the loss of the process and of power.
Its writers take the lock when they begin (BEGIN IMMEDIATE): a transaction that first reads and then wants to write
would otherwise fail when another has written in between. So writers of one SQLite file never meet.

On PostgreSQL writers of several replicas meet, and take advisory locks for the few things that must not: periods are
not closed while events are taken (`CLOSING`), and one replica at a time brings the sums up to date (`AGGREGATES`).
Readers see one snapshot (REPEATABLE READ) and wait for nobody.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Table, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

MIGRATIONS = Path(__file__).parents[1] / "migrations"
_BUSY_TIMEOUT_SECONDS = 30
MIGRATING, CLOSING, AGGREGATES = (0x5EED0000 + number for number in range(3))  # advisory locks
_POOL_SIZE = 8
_MET = {"40001", "40P01", "23505"}  # PostgreSQL: serialization failure, deadlock, an id that another just took
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class UnreachableError(OperationalError):
    """No connection could be opened."""


def met_another(error: DBAPIError) -> bool:
    """Whether a transaction failed because another writer was in its way: the same again may succeed."""
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _MET


def database_url(given: str) -> URL:
    """`sqlite:////path/file`, `postgresql://…` → URL with the asyncio driver; ValueError says what to write."""
    try:
        url = make_url(given)
    except Exception:  # noqa: BLE001 - SQLAlchemy raises several unrelated types for text that is no URL
        raise ValueError("is no database URL: write sqlite:////path/to/file or postgresql://user@host/name") from None
    backend = url.drivername.partition("+")[0]
    if backend not in _DRIVERS:
        raise ValueError(f"{backend} is not supported: write sqlite:////path/to/file or postgresql://user@host/name")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("an in-memory database would lose the ledger: write sqlite:////path/to/file")
    return url.set(drivername=_DRIVERS[backend])


def sqlite_url(path: Path) -> URL:
    """The URL of a SQLite file."""
    return URL.create(_DRIVERS["sqlite"], database=str(path))


class _Connection(sqlite3.Connection):
    """Ends its transaction when it is closed: SQLite's lock is held as long as anybody refers to one of its cursors, as
    the traceback of a task does that was cancelled in the middle of a statement.
    """

    def close(self) -> None:
        """Called in the driver's thread, behind whatever was begun."""
        if self.in_transaction:
            self.rollback()
        super().close()


class Database:
    """An engine; on SQLite with one writer at a time in this process. `url` as `database_url` gives it."""

    def __init__(self, url: URL) -> None:
        self.sqlite = url.get_backend_name() == "sqlite"
        if self.sqlite:
            if url.database:
                # The file is made here, so that it is never readable for others, not even for a moment.
                os.close(os.open(url.database, os.O_CREAT | os.O_RDWR, 0o600))
            arguments: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_SECONDS, "factory": _Connection}}
        else:
            arguments = {"pool_pre_ping": True, "pool_size": _POOL_SIZE}
        self.engine: AsyncEngine = create_async_engine(url, hide_parameters=True, **arguments)
        self._writer = asyncio.Lock()
        if self.sqlite:
            event.listen(self.engine.sync_engine, "connect", _on_connect)
            event.listen(self.engine.sync_engine, "begin", _on_begin)

    async def migrate(self) -> None:
        """Bring the schema to the newest revision; harmless when it is there, and when several replicas start."""
        async with self.writing(lock=MIGRATING) as connection:
            if not self.sqlite and await connection.run_sync(_is_behind):
                for lock in (CLOSING, AGGREGATES):  # replicas that run must not take events or sum up meanwhile
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({lock})"))
            await connection.run_sync(_upgrade)

    @asynccontextmanager
    async def writing(self, *, lock: int | None = None, shared: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; committed, durably, when the block ends without an error.

        `lock` is held until then, against the same lock in any replica; `shared` holders only keep out the others.
        """
        async with self._writer if self.sqlite else nullcontext(), self._connected() as connection:
            writer = await connection.execution_options(sidecar_writes=True)
            async with writer.begin():
                if not self.sqlite:
                    # The transaction begins with the first statement that does not go to the driver directly: this one.
                    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
                    await writer.execute(text("SELECT 1" if lock is None else f"SELECT {function}({lock})"))
                yield writer

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent snapshot."""
        async with self._connected() as connection:
            if self.sqlite:
                yield connection
            else:
                options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                yield await connection.execution_options(**options)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """A connection. What asyncpg raises when it gets none (OSError, its own errors) comes as SQLAlchemy's."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self.engine.connect())
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise UnreachableError(None, None, error) from error
            yield connection

    async def vacuum(self, table: Table) -> None:
        """Have room that deleted rows leave used again, and what is known of the table brought up to date.

        PostgreSQL does so by itself once a minute; until then, readers of a table that fills and empties go through
        all that is gone.
        """
        if not self.sqlite:
            async with self._connected() as connection:
                alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await alone.execute(text(f"VACUUM (ANALYZE) {table.name}"))

    async def check(self) -> None:
        """Raise when the database does not answer."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _is_behind(connection: Connection) -> bool:
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() != newest


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions; _on_begin does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("sidecar_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
