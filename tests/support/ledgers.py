"""Databases for the ledger's tests: SQLite files, and a real PostgreSQL out of a wheel, one server per worker."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import asyncpg
from sqlalchemy.engine import URL

from sidecar.billing.ledger.database import database_url

BACKENDS = ("sqlite", "postgresql")
_NUMBERS = count(1)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a running server; everything of it is gone afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the wheel's own, about the machine's runtime directory
        import pgserver  # noqa: PLC0415

        folder = Path(tempfile.mkdtemp(prefix="sidecar-pg-"))
        server = pgserver.get_server(folder)
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def postgres_database(server: str) -> AsyncIterator[URL]:
    """An empty database on it."""
    name = f"ledger_{next(_NUMBERS)}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    yield database_url(server.replace("/postgres?", f"/{name}?"))
